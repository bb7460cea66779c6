//! The Redis wire, both ways: requests are found in a read buffer without copying them, replies are appended to an
//! output that is written with vectored writes.
//!
//! * [`Decoder`] scans a connection's read buffer and leaves in a [`Frame`] where the arguments lie; [`Args`] views
//!   them. The same view can be had over slices that never were on this wire (HTTP, peers, tests).
//! * [`Reply`] is what goes back, in [`Protocol::Resp2`] or [`Protocol::Resp3`].
//!
//! No command is known here, nothing is awaited, and nothing is allocated for a request once a connection is warm.
//! Requests are flat (an array of bulk strings, or one line of text), so nothing here recurses either: input cannot
//! choose how deep the stack gets. Facts and error words are those of redis-server 7.0.15.

mod args;
mod decode;
mod double;
mod error;
mod frame;
mod head;
mod inline;
mod number;
mod ordinary;
mod output;
mod reply;

pub use args::{Args, ArgsIter};
pub use decode::{Decoded, Decoder, Limits, UNAUTHENTICATED_ARGUMENTS_MAX, UNAUTHENTICATED_BULK_MAX};
pub use double::{DOUBLE_TEXT_MAX, FormattedDouble, format_double};
pub use error::ProtocolError;
pub use frame::Frame;
pub use output::{LINK_MIN, Mark};
pub use reply::{Protocol, Reply};
