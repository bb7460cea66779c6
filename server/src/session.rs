//! What the server remembers of one connection between its requests.

use std::sync::Arc;

use std::time::Duration;

use forebay_cluster::state::Incarnation;
use forebay_store::UnixMillis;
use smallvec::SmallVec;

use crate::clients::Client;
use crate::cluster::Member;
use crate::engine::Ahead;
use crate::hot::{Asker, TakeBack};
use crate::replication::Recorded;
use crate::tracking::Tracks;

/// State that only the connection's own task touches. What others may see or ask of the connection is in [`Client`].
pub struct Session {
    pub client: Arc<Client>,
    /// The selected database.
    pub db: u16,
    pub authenticated: bool,
    /// It has subscribed to a channel.
    pub(crate) is_subscribed: bool,
    pub replies: Replies,
    /// `CLIENT NO-TOUCH`: reads do not count as use of a key.
    pub no_touch: bool,
    /// `READONLY`: keys may be read from copies that this node has.
    pub readonly: bool,
    /// Which of the single-writer statistics lanes the connection's thread writes.
    pub lane: usize,
    /// The time of the batch in work.
    pub now: UnixMillis,
    pub door: Door,
    /// What is asked comes from this node itself, or another.
    pub(crate) is_internal: bool,
    /// Requests that were sent to their owners before their turn. None while there are no such.
    pub(crate) ahead: Option<Box<Ahead>>,
    /// Something was answered from slots that others may own as soon as this node's lease has ended.
    pub(crate) by_lease: bool,
    /// What others are to hold of what was done. None while nothing was, and on a node that is alone.
    pub(crate) told: Option<Box<Told>>,
    /// On the peer door: who would keep a copy of the next reply.
    pub(crate) asker: Option<Asker>,
    /// How long it may keep that.
    pub(crate) granted: Option<Duration>,
    /// What of its reads is remembered, and for whom; none for nearly all sessions.
    pub(crate) tracks: Option<Box<Tracks>>,
    /// Something has been put into its mailbox before: what wakes its task may have been used up by that.
    pub(crate) has_heard: bool,
}

/// What others are to hold of what a session's requests have done.
#[derive(Default)]
pub(crate) struct Told {
    /// What enough copies must hold before the replies are sent (`--min-acks`).
    pub(crate) unacknowledged: Unacknowledged,
    /// All that was written here, for WAIT.
    pub(crate) written: Recorded,
    /// Other nodes, each in one of its lives, that have written something.
    pub(crate) elsewhere: SmallVec<[Incarnation; 2]>,
}

/// What replies have to wait for.
#[derive(Default)]
pub(crate) struct Unacknowledged {
    /// What enough copies must hold.
    pub(crate) recorded: Recorded,
    /// Copies of hot keys that must be gone.
    pub(crate) take_backs: SmallVec<[Arc<TakeBack>; 1]>,
    /// All copies must hold it, whatever `--min-acks` says.
    pub(crate) by_all: bool,
}

impl Unacknowledged {
    pub(crate) fn is_empty(&self) -> bool {
        self.recorded.is_empty() && self.take_backs.is_empty()
    }

    fn absorb(&mut self, later: Unacknowledged) {
        self.recorded.absorb(&later.recorded);
        self.take_backs.extend(later.take_backs);
        self.by_all |= later.by_all;
    }
}

/// By which door a request came in, and so what becomes of one whose keys are another node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// For any client: the request is forwarded.
    Open,
    /// For clients that know of clusters: they are told where to go (`-MOVED`).
    Direct,
    /// For other nodes: they are told that they are mistaken. So a request is forwarded once at the most.
    Peer,
}

impl Door {
    /// What clients are told that the server is (`redis_mode`): by the open door there is one server, whatever stands behind it, and some
    /// clients for both kinds go by this alone whether they follow `-MOVED`.
    pub(crate) fn mode(self) -> &'static str {
        match self {
            Door::Open | Door::Peer => "standalone",
            Door::Direct => "cluster",
        }
    }
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
    pub fn new(client: Arc<Client>, lane: usize, authenticated: bool, door: Door) -> Session {
        Session {
            client,
            db: 0,
            authenticated,
            is_subscribed: false,
            replies: Replies::On,
            no_touch: false,
            lane,
            now: 0,
            door,
            is_internal: door == Door::Peer,
            readonly: false,
            ahead: None,
            by_lease: false,
            told: None,
            asker: None,
            granted: None,
            tracks: None,
            has_heard: false,
        }
    }

    /// What must be held by others before the replies are sent; it is taken out.
    #[inline]
    pub(crate) fn take_unacknowledged(&mut self) -> Option<Unacknowledged> {
        let told = self.told.as_mut()?;
        (!told.unacknowledged.is_empty()).then(|| std::mem::take(&mut told.unacknowledged))
    }

    /// Has the replies wait until a key has been taken back.
    pub(crate) fn wait_for(&mut self, take_back: Arc<TakeBack>) {
        let take_backs = &mut self.told.get_or_insert_default().unacknowledged.take_backs;
        if !take_backs.iter().any(|known| Arc::ptr_eq(known, &take_back)) {
            take_backs.push(take_back);
        }
    }

    /// This node has written for it, and told copies of that. The replies wait for them if they are wanted to hold it, or `by_all`.
    pub(crate) fn wrote_here(&mut self, member: &Member, recorded: &Recorded, by_all: bool) {
        let told = self.told.get_or_insert_default();
        if member.min_acks > 1 || by_all {
            told.unacknowledged.recorded.absorb(recorded);
        }
        member.replication.remember(&mut told.written, recorded);
    }

    /// Another node, in that life, has written for it.
    pub(crate) fn wrote_at(&mut self, writer: Incarnation) {
        let elsewhere = &mut self.told.get_or_insert_default().elsewhere;
        if !elsewhere.contains(&writer) {
            elsewhere.push(writer);
        }
    }

    /// Takes over what a part of a request has done, and has to wait for, but for what was written here: whoever keeps the copies takes note of that.
    pub(crate) fn absorb(&mut self, part: Session) {
        self.by_lease |= part.by_lease;
        if let Some(part) = part.told {
            let told = self.told.get_or_insert_default();
            told.unacknowledged.absorb(part.unacknowledged);
            part.elsewhere.into_iter().for_each(|writer| self.wrote_at(writer));
        }
    }

    /// A session for one part of a request of this one.
    pub fn for_a_part(&self, door: Door, now: UnixMillis) -> Session {
        let part = Session::new(Arc::clone(&self.client), self.lane, true, door);
        let is_internal = self.is_internal || part.is_internal;
        Session { db: self.db, no_touch: self.no_touch, is_internal, now, tracks: self.tracks.clone(), ..part }
    }

    /// What of its reads is remembered.
    pub(crate) fn tracks(&self) -> Option<Tracks> {
        self.tracks.as_deref().copied()
    }

    /// A command was run to its end: what CLIENT CACHING has said is over.
    #[inline]
    pub(crate) fn end_caching(&mut self) {
        if let Some(tracks) = &mut self.tracks {
            tracks.caching = false;
        }
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
