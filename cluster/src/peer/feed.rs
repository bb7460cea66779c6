//! Feeds: two ordered streams of frames between an owner of slots and a holder of their copies.

use bytes::Bytes;
use forebay_proto::peer::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Frames that may be on their way between the stream and who reads or writes it. What else waits, waits with them.
pub(super) const FRAMES: usize = 8;

/// One end of a feed. When either end is dropped, both have ended, and so they have with a frame of more than [`MAX_CONTENT`](super::MAX_CONTENT)
/// bytes.
#[derive(Debug)]
pub struct Feed {
    pub outgoing: mpsc::Sender<Bytes>,
    pub incoming: mpsc::Receiver<Bytes>,
}

/// Why there is no feed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FeedError {
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    #[error("the node refuses: {0}")]
    Refused(String),
    #[error("this node is not a member of a cluster yet")]
    NotYet,
}

/// A feed's frames on their way out, as messages.
pub(super) type Outgoing = futures_util::stream::Map<ReceiverStream<Bytes>, fn(Bytes) -> Frame>;

pub(super) fn outgoing(frames: mpsc::Receiver<Bytes>) -> Outgoing {
    use futures_util::StreamExt as _;
    ReceiverStream::new(frames).map(|content| Frame { content })
}

/// Hands on what comes in, until either side ends it.
pub(super) async fn receive(mut stream: Streaming<Frame>, incoming: mpsc::Sender<Bytes>) -> Result<(), Status> {
    loop {
        let frame = tokio::select! {
            frame = stream.message() => frame?,
            // Nobody wants more.
            () = incoming.closed() => return Ok(()),
        };
        let Some(Frame { content }) = frame else {
            return Ok(());
        };
        if incoming.send(content).await.is_err() {
            return Ok(());
        }
    }
}
