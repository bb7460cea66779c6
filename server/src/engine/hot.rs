//! Where hot keys meet requests: at the owner under the locks of a run, at another node in the place of forwarding.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use forebay_resp::{Args, Protocol, Reply};
use forebay_store::Keyspace;

use super::{Engine, Request};
use crate::cluster::Member;
use crate::command::table::Command;
use crate::hot::{Asker, Found, Grant, LONGEST, MAX_REPLY, Wanted};
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
    // What a copy has answered is told once only.
    let Some(served) = (match asker.served {
        0 => stands_for(),
        served => Some(served),
    }) else {
        return;
    };
    let asker = Asker { served, ..asker };
    let lasts = || {
        // That there is nothing is known for a while, too: then nobody is told of a change of what is no more.
        let until = |deadline| u64::try_from(deadline - node.clock.unix_millis()).unwrap_or_default();
        let left = keyspace.known_until(key).map_or(LONGEST, |deadline| Duration::from_millis(until(deadline)));
        member.lease.remaining(Instant::now()).map_or(left, |lease| lease.min(left))
    };
    let place = (key.slot(), key.db(), key.bytes());
    let second = u64::try_from(session.now / 1_000).unwrap_or_default();
    session.granted = member.hot.grants.offer(place, asker, threshold, lasts, second, Instant::now);
}

/// Of the reads of other nodes one in so many is counted, for all: counting one takes as long as a tenth of answering it.
const ONE_IN: u32 = 8;

/// Which read is counted is left to chance, or one that comes with every eighth request would be counted always or never. Tells for how many
/// others this one is.
fn stands_for() -> Option<u32> {
    thread_local! {
        static RANDOM: Cell<u32> = const { Cell::new(0x9e37_79b9) };
    }
    // Marsaglia's xorshift (2003).
    let mut random = RANDOM.get();
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    RANDOM.set(random);
    random.is_multiple_of(ONE_IN).then_some(ONE_IN - 1)
}

impl Engine {
    /// Looks for a copy that answers a request whose key is another node's.
    pub(super) fn find_copy(&self, session: &Session, command: &Command, args: Args<'_>, protocol: Protocol) -> Found {
        match (self.node.member(), args.get(1)) {
            // The owner is to know of who tracks.
            _ if session.tracks.is_some() => Found::Nothing,
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
