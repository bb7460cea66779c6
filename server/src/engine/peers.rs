//! The door of the other nodes: requests that they forward, and feeds of effects.

use std::cell::Cell;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use forebay_cluster::peer::{Answer, Feed, Hello, PeerHandler};
use forebay_resp::{Decoded, Decoder, Frame, Limits, Reply};
use tokio::runtime::Handle;

use super::forward::{Answers, Received};
use super::{Engine, Step};
use crate::clients::Client;
use crate::cluster::copies::CopyHost;
use crate::hot::{self, Asker, TAKE_BACK};
use crate::session::{Door, Session};

/// Where other nodes' requests come in.
pub struct PeerDoor {
    engine: Arc<Engine>,
    /// Stands for all clients of other nodes where a client is asked for.
    client: Arc<Client>,
    host: Arc<CopyHost>,
    /// On which requests wait that cannot be answered at once.
    runtime: Handle,
}

/// Requests of one client of another node.
struct Group {
    received: Received,
    session: Session,
    bench: Box<Bench>,
    /// The place of the next request.
    next: u16,
    /// One was misplaced, so the rest is as well: none may overtake it.
    misplaced: Option<u64>,
}

/// What a group is run with. Most groups need it for a moment only, so the next one finds it warm.
#[derive(Default)]
struct Bench {
    decoder: Decoder,
    frame: Frame,
    reply: Reply,
    answers: Answers,
}

/// Bytes of answers for which a bench is not kept.
const KEPT: usize = 64 << 10;

thread_local! {
    static SPARE: Cell<Option<Box<Bench>>> = const { Cell::new(None) };
}

/// How far a group has come.
enum Progress {
    /// All are answered.
    Done,
    /// The one at the beginning of the rest, which ends here, waits.
    Waits { wait: super::Wait, end: usize },
    /// It is not what a node of this version sends.
    Broken,
}

impl PeerDoor {
    pub fn new(engine: Arc<Engine>, runtime: Handle) -> PeerDoor {
        let client = Arc::new(Client::of_peers(engine.node().clock.unix_millis()));
        let host = Arc::new(CopyHost::new(Arc::clone(engine.node())));
        PeerDoor { engine, client, host, runtime }
    }

    fn group(&self, caller: &Hello, content: Bytes) -> Option<Group> {
        let received = Received::read(content)?;
        let mut session = Session::new(Arc::clone(&self.client), 0, true, Door::Peer);
        session.db = received.db;
        session.no_touch = received.no_touch;
        session.asker = caller.number.filter(|_| received.keeps_copies).map(|node| Asker { node, served: 0 });
        session.now = self.engine.node().clock.unix_millis();
        let mut bench = SPARE.take().unwrap_or_default();
        bench.reply.set_protocol(received.protocol);
        Some(Group { received, session, bench, next: 0, misplaced: None })
    }
}

impl PeerHandler for PeerDoor {
    fn serve(&self, caller: &Hello, _epoch: u64, request: Bytes, answer: Answer) {
        if let (Some(&TAKE_BACK), Some(member)) = (request.first(), self.engine.node().member()) {
            return answer.send(&hot::give_back(&member.hot.copies, &request));
        }
        let Some(mut group) = self.group(caller, request) else {
            return answer.send(&[]);
        };
        let waits = match group.run(&self.engine) {
            Progress::Waits { wait, end } => Some((wait, end)),
            // What a peer cannot read it takes for a broken connection.
            Progress::Done | Progress::Broken => None,
        };
        let recorded = group.session.take_unacknowledged();
        if waits.is_none() && recorded.is_none() {
            group.send(&self.engine, answer);
            return group.bench.leave();
        }
        let engine = Arc::clone(&self.engine);
        self.runtime.spawn(async move {
            if let Some((wait, end)) = waits {
                group.finish(&engine, wait, end).await;
            }
            for recorded in recorded.into_iter().chain(group.session.take_unacknowledged()) {
                if !engine.acknowledged(&recorded).await {
                    // As if this node had ended: nobody knows what will become of it.
                    return answer.send(&[]);
                }
            }
            group.send(&engine, answer);
        });
    }

    fn feed(&self, caller: &Hello, feed: Feed) -> Result<(), String> {
        let (Some(from), Some(member)) = (caller.number, self.engine.node().member()) else {
            return Err("a feed is taken from members only".to_owned());
        };
        let (replication, host) = (Arc::clone(&member.replication), Arc::clone(&self.host));
        self.runtime.spawn(async move { replication.follow(&*host, from, feed.into()).await });
        Ok(())
    }
}

impl Bench {
    fn leave(mut self: Box<Self>) {
        if self.answers.as_bytes().len() > KEPT || self.reply.has_remaining() {
            return;
        }
        self.decoder = Decoder::new();
        self.answers.clear();
        SPARE.set(Some(self));
    }
}

impl Group {
    /// Runs the requests up to one that waits.
    fn run(&mut self, engine: &Engine) -> Progress {
        loop {
            let rest = &self.received.requests;
            if rest.is_empty() {
                return Progress::Done;
            }
            let limits = Limits { bulk: usize::MAX, ..Limits::default() };
            let end = match self.bench.decoder.decode(rest, &limits, &mut self.bench.frame) {
                Ok(Decoded::Request { consumed }) => consumed,
                Ok(Decoded::Nothing { .. } | Decoded::Incomplete { .. }) | Err(_) => return Progress::Broken,
            };
            let served = if self.next == self.received.served.0 { self.received.served.1 } else { 0 };
            self.session.asker = self.session.asker.map(|asker| Asker { served, ..asker });
            let step = match self.misplaced {
                Some(epoch) => Step::Misplaced { epoch },
                // Its node was started with more of them than this one.
                None if self.session.db >= engine.node().identity.databases => {
                    self.bench.reply.error("ERR DB index is out of range at the key's owner");
                    Step::Done
                }
                None => engine.begin(&mut self.session, self.bench.frame.shared_args(rest), &mut self.bench.reply),
            };
            match step {
                Step::Wait(wait) => return Progress::Waits { wait, end },
                step => self.answered(&step, end),
            }
        }
    }

    async fn finish(&mut self, engine: &Engine, wait: super::Wait, end: usize) {
        let (mut wait, mut end) = (wait, end);
        loop {
            let requests = self.received.requests.clone();
            let args = self.bench.frame.shared_args(&requests);
            let step = engine.finish(&mut self.session, args, &mut self.bench.reply, wait).await;
            self.answered(&step, end);
            match self.run(engine) {
                Progress::Waits { wait: next, end: next_end } => (wait, end) = (next, next_end),
                Progress::Done | Progress::Broken => return,
            }
        }
    }

    fn send(&mut self, engine: &Engine, answer: Answer) {
        match engine.still_owns(&mut self.session) {
            true => answer.send(self.bench.answers.as_bytes()),
            // As if this node had ended: nobody knows what will become of it.
            false => answer.send(&[]),
        }
    }

    /// Packs the answer to the first request of the rest, which ends at `end`.
    fn answered(&mut self, step: &Step, end: usize) {
        match step {
            Step::Misplaced { epoch } => {
                self.misplaced = Some(*epoch);
                self.bench.answers.misplaced(*epoch);
            }
            Step::Done | Step::Close | Step::Wait(_) => {
                self.bench.answers.reply(&mut self.bench.reply, self.session.granted.take())
            }
        }
        self.next = self.next.wrapping_add(1);
        self.received.requests.advance(end);
    }
}
