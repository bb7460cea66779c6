//! Talking to other nodes: their clients' requests, and the effects that keep copies of slots.
//!
//! A connection leads from each thread that serves clients ([`Lane`]) to each other node, and on it one stream of requests, on which batches
//! form by themselves: what is asked while a batch is being sent goes with the next. A message for each request would cost some twenty times as much processor time.
//! What is too large for one message goes in several, so the size of a request or a reply breaks no stream that others use, too.
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

/// The most that a request or an answer may hold: 1 GiB, which is the most that a client may ask at once (`client-query-buffer-limit`, unless it
/// is raised), and room for what goes with it. Its length is told in 32 bits.
pub const MAX_CALL: usize = (1024 + 128) << 20;

/// The most that one message of a stream carries, be it a batch or a frame; whoever has more sends several. As much as may be on its way
/// anyway: a larger one would not be there any sooner, and putting it together keeps its thread from all others for longer than 1 ms.
pub const MAX_CONTENT: usize = WINDOW as usize;

/// The largest message that is taken from a peer: its content, with its epoch and the lengths of both.
const MAX_MESSAGE: usize = MAX_CONTENT + 64;

/// A stream's window (HTTP/2 flow control): large, so that batches are not cut up by it.
pub(crate) const WINDOW: u32 = 4 << 20;
