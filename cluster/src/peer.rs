//! Talking to other nodes: their clients' requests, and the effects that keep copies of slots.
//!
//! A connection leads from each thread that serves clients ([`Lane`]) to each other node, and on it one stream of requests, on which batches
//! form by themselves: what is asked while a batch is being sent goes with the next. A message for each request would cost some twenty times as much processor time.
//! What is asked and answered is bytes here: this crate does not know what a command is.

mod batch;
mod connection;
mod feed;
mod hello;
pub(crate) mod lane;
mod link;
mod peers;
mod queue;
mod serve;

pub use feed::{Feed, FeedError};
pub use hello::{Hello, Stranger};
pub use lane::{Entered, Lane, LaneStream, enter};
pub use link::{Call, CallError};
pub use peers::Peers;
pub use queue::{gather_on_this_thread, send_gathered};
pub use serve::{Answer, PeerHandler, PeerService};

/// The largest message that is taken from a peer: the largest value with its command around it.
const MAX_MESSAGE: usize = (512 + 16) << 20;

/// A stream's window (HTTP/2 flow control): large, so that batches are not cut up by it.
pub(crate) const WINDOW: u32 = 4 << 20;
