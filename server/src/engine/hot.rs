//! Where hot keys meet requests: at the owner under the locks of a run, at another node in the place of forwarding.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use forebay_resp::{Args, Protocol, Reply};
use forebay_store::Keyspace;

use super::{Engine, Request};
use crate::cluster::Member;
use crate::command::table::Command;
use crate::hot::{Found, Grant, LONGEST, MAX_REPLY, Wanted};
use crate::node::Node;
use crate::session::{Door, Session};

/// At the end of a run, under its locks and after what it has changed was recorded: has the session wait for the keys that are being
/// taken back, and may give who has asked leave to keep the reply, if there is one that stands for what the store holds.
pub(super) fn note(
    node: &Node,
    member: &Member,
    session: &mut Session,
    request: &Request<'_>,
    keyspace: &mut Keyspace<'_>,
    reply: Option<&Reply>,
) {
    let keys = request.keys.unwrap_or_default();
    if keyspace.has_changed() {
        // Not of these keys alone: MOVE and COPY change another database, too.
        for take_back in keys.iter().flat_map(|key| member.hot.grants.under_way_in(key.slot())) {
            session.wait_for(take_back);
        }
    }
    for key in keys {
        if let Some(take_back) = member.hot.grants.under_way(key.slot(), key.db(), key.bytes()) {
            session.wait_for(take_back);
        }
    }
    let ([key], Some(asker), Some(reply)) = (keys, session.asker, reply) else { return };
    let threshold = node.settings.hot_key_reads.load(Relaxed);
    if threshold == 0 || !request.command.is_repeatable || reply.len() > MAX_REPLY {
        return;
    }
    let now = Instant::now();
    let lasts = || {
        let deadline = keyspace.peek(key).and_then(|entry| entry.deadline());
        let until = |deadline| u64::try_from(deadline - node.clock.unix_millis()).unwrap_or_default();
        let left = deadline.map_or(LONGEST, |deadline| Duration::from_millis(until(deadline)));
        member.lease.remaining(now).map_or(left, |lease| lease.min(left))
    };
    let place = (key.slot(), key.db(), key.bytes());
    session.granted = member.hot.grants.offer(place, asker, threshold, lasts, now);
}

impl Engine {
    /// Looks for a copy that answers a request whose key is another node's.
    pub(super) fn find_copy(&self, session: &Session, command: &Command, args: Args<'_>, protocol: Protocol) -> Found {
        match (self.node.member(), args.get(1)) {
            (Some(member), Some(key)) if command.is_repeatable && session.door == Door::Open => {
                member.hot.copies.find(&Wanted { db: session.db, key, args, protocol })
            }
            _ => Found::Nothing,
        }
    }

    /// Keeps the answer to a forwarded request for as long as its owner has allowed.
    #[cold]
    pub(super) fn keep_copy(
        &self,
        session: &Session,
        command: &Command,
        args: Args<'_>,
        protocol: Protocol,
        reply: &[u8],
        grant: Grant,
    ) {
        if let (Some(member), Some(key), true) = (self.node.member(), args.get(1), command.is_repeatable) {
            member.hot.copies.keep(&Wanted { db: session.db, key, args, protocol }, reply, grant);
        }
    }
}
