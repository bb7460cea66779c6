//! What the server remembers of one connection between its requests.

use std::sync::Arc;

use forebay_store::UnixMillis;

use crate::clients::Client;

/// State that only the connection's own task touches. What others may see or ask of the connection is in [`Client`].
pub struct Session {
    pub client: Arc<Client>,
    /// The selected database.
    pub db: u16,
    pub authenticated: bool,
    pub replies: Replies,
    /// `CLIENT NO-TOUCH`: reads do not count as use of a key.
    pub no_touch: bool,
    /// `READONLY`: on the direct door, keys may be read from copies.
    pub readonly: bool,
    /// Which of the single-writer statistics lanes the connection's thread writes.
    pub lane: usize,
    /// The time of the batch in work.
    pub now: UnixMillis,
}

/// `CLIENT REPLY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    On,
    Off,
    /// The reply to the next request is left out, then all are sent.
    SkipNext,
    /// `CLIENT REPLY SKIP` itself is in work; the next request is the one to be skipped.
    SkipAfterThis,
}

impl Session {
    /// A new session: of a connection, or of one request that came by another way than a connection of its own.
    pub fn new(client: Arc<Client>, lane: usize, authenticated: bool) -> Session {
        Session { client, db: 0, authenticated, replies: Replies::On, no_touch: false, readonly: false, lane, now: 0 }
    }

    /// Whether the reply to the request just run is sent; moves `CLIENT REPLY SKIP` on by one request.
    #[inline]
    pub fn sends_reply(&mut self) -> bool {
        match self.replies {
            Replies::On => true,
            Replies::Off => false,
            Replies::SkipNext => {
                self.replies = Replies::On;
                false
            }
            Replies::SkipAfterThis => {
                self.replies = Replies::SkipNext;
                false
            }
        }
    }
}
