//! Talking to other nodes: their clients' requests, and the effects that keep copies of slots.
//!
//! One connection leads from each node to each other one, and on it one stream of requests, on which batches form by themselves: what is
//! asked while a batch is being sent goes with the next. A message for each request would cost some twenty times as much processor time.
//! What is asked and answered is bytes here: this crate does not know what a command is.

mod batch;
mod feed;
mod hello;
mod link;
mod peers;
mod queue;
mod serve;

pub use feed::{Feed, FeedError};
pub use hello::{Hello, Stranger};
pub use link::{Call, CallError};
pub use peers::Peers;
pub use queue::{gather_on_this_thread, send_gathered};
pub use serve::{Answer, PeerHandler, PeerService};

/// The largest message that is taken from a peer: the largest value with its command around it.
const MAX_MESSAGE: usize = (512 + 16) << 20;
