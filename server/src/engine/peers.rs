//! The door of the other nodes: requests that they forward, and feeds of effects.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use forebay_cluster::peer::{Answer, Feed, Hello, PeerHandler};
use forebay_resp::{Decoded, Decoder, Frame, Limits, Reply};
use tokio::runtime::Handle;

use super::batch::{BATCH_REQUESTS, Keys, Requests};
use super::forward::{Answers, Received};
use super::{Engine, Step};
use crate::clients::Client;
use crate::cluster::copies::CopyHost;
use crate::command::spec::Flags;
use crate::command::table::Command;
use crate::freshness::meter::{self, LOOK};
use crate::hot::{self, Asker, TAKE_BACK};
use crate::session::{Door, Session};
use crate::tracking::message::LISTEN;
use crate::tracking::{Mode, Tracks, subscribers};

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
struct Bundle {
    received: Received,
    session: Session,
    bench: Box<Bench>,
    /// By which the other node has placed them.
    epoch: u64,
    /// The place of the next request.
    next: u16,
    /// One was misplaced or not run, so the rest is as well: none may overtake it.
    misplaced: Option<u64>,
}

/// What a bundle is run with. Most bundles need it for a moment only, so the next one finds it warm.
#[derive(Default)]
struct Bench {
    /// Used again and again: only the first `decoded` hold a request.
    requests: Vec<Request>,
    decoded: usize,
    reply: Reply,
    answers: Answers,
}

/// A decoded request: where its bytes lie, and its arguments within them.
#[derive(Default)]
struct Request {
    bytes: Range<usize>,
    frame: Frame,
}

/// Bytes of answers, and of where arguments lie, for which a bench is not kept.
const KEPT: usize = 64 << 10;
const KEPT_FRAME: usize = 8 << 10;

thread_local! {
    static SPARE: Cell<Option<Box<Bench>>> = const { Cell::new(None) };
}

/// How far a bundle has come.
enum Progress {
    /// All are answered.
    Done,
    /// The one at the beginning of the rest waits; it is the bench's request of this place.
    Waits { wait: super::Wait, at: usize },
    /// It is not what a node of this version sends.
    Broken,
}

impl PeerDoor {
    /// A door to `engine`; requests that wait go on on `runtime`.
    pub fn new(engine: Arc<Engine>, runtime: Handle) -> PeerDoor {
        let client = Arc::new(Client::of_peers(engine.node().clock.unix_millis()));
        let host = Arc::new(CopyHost::new(Arc::clone(engine.node())));
        PeerDoor { engine, client, host, runtime }
    }

    fn bundle(&self, caller: &Hello, epoch: u64, content: Bytes) -> Option<Bundle> {
        let received = Received::read(content)?;
        let mut session = Session::new(Arc::clone(&self.client), 0, true, Door::Peer);
        session.db = received.db;
        session.no_touch = received.no_touch;
        session.asker = caller.number.filter(|_| received.keeps_copies).map(|node| Asker { node, served: 0 });
        session.tracks = received.tracks.and_then(|(token, quiet, remembers)| {
            let who = self.engine.node().tracking.subscribers.who(token)?;
            let mode = if remembers { Mode::All } else { Mode::Broadcast };
            Some(Box::new(Tracks { who, mode, caching: false, quiet }))
        });
        session.now = self.engine.node().clock.unix_millis();
        let mut bench = SPARE.take().unwrap_or_default();
        bench.reply.set_protocol(received.protocol);
        Some(Bundle { received, session, bench, epoch, next: 0, misplaced: None })
    }
}

impl PeerHandler for PeerDoor {
    fn serve(&self, caller: &Hello, epoch: u64, request: Bytes, answer: Answer) {
        if let (Some(&TAKE_BACK), Some(member)) = (request.first(), self.engine.node().member()) {
            return answer.send(&hot::give_back(&member.hot.copies, &request));
        }
        if request.first() == Some(&LISTEN) {
            let node = Arc::clone(self.engine.node());
            self.runtime.spawn(async move { answer.send(&subscribers::answer(node, request).await) });
            return;
        }
        if request.first() == Some(&LOOK) {
            let node = Arc::clone(self.engine.node());
            self.runtime.spawn(async move { answer.send(&meter::answer(&node, request)) });
            return;
        }
        let Some(mut bundle) = self.bundle(caller, epoch, request) else {
            return answer.send(&[]);
        };
        let waits = match bundle.run(&self.engine) {
            Progress::Waits { wait, at } => Some((wait, at)),
            // What a peer cannot read it takes for a broken connection.
            Progress::Done | Progress::Broken => None,
        };
        let recorded = bundle.session.take_unacknowledged();
        if waits.is_none() && recorded.is_none() {
            bundle.send(&self.engine, answer);
            return bundle.bench.leave();
        }
        let engine = Arc::clone(&self.engine);
        self.runtime.spawn(async move {
            if let Some((wait, at)) = waits {
                bundle.finish(&engine, wait, at).await;
            }
            for recorded in recorded.into_iter().chain(bundle.session.take_unacknowledged()) {
                if !engine.acknowledged(&recorded).await {
                    // As if this node had ended: nobody knows what will become of it.
                    return answer.send(&[]);
                }
            }
            bundle.send(&engine, answer);
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
    /// Decodes what `rest` begins with. False if that is not a request.
    fn decode(&mut self, rest: &[u8]) -> bool {
        let (mut decoder, limits) = (Decoder::new(), Limits { bulk: usize::MAX, ..Limits::default() });
        let mut at = 0;
        self.decoded = 0;
        while at < rest.len() && self.decoded < BATCH_REQUESTS {
            if self.requests.len() == self.decoded {
                self.requests.push(Request::default());
            }
            let Request { bytes, frame } = &mut self.requests[self.decoded];
            let Ok(Decoded::Request { consumed }) = decoder.decode(&rest[at..], &limits, frame) else { break };
            *bytes = at..at + consumed;
            at += consumed;
            self.decoded += 1;
        }
        self.decoded > 0
    }

    fn leave(mut self: Box<Self>) {
        let is_large = self.requests.iter().any(|request| request.frame.allocated() > KEPT_FRAME);
        if is_large || self.answers.as_bytes().len() > KEPT || self.reply.has_remaining() {
            return;
        }
        self.answers.clear();
        SPARE.set(Some(self));
    }
}

impl Bundle {
    /// Runs the requests up to one that waits.
    fn run(&mut self, engine: &Engine) -> Progress {
        loop {
            if self.received.requests.is_empty() {
                return Progress::Done;
            }
            if !self.bench.decode(&self.received.requests) {
                return Progress::Broken;
            }
            if let Some(waits) = self.run_decoded(engine) {
                return waits;
            }
        }
    }

    /// Runs what was decoded, prepared together, up to one that waits.
    fn run_decoded(&mut self, engine: &Engine) -> Option<Progress> {
        // While they run, those that are done are taken off the bundle's.
        let bytes = self.received.requests.clone();
        let requests = std::mem::take(&mut self.bench.requests);
        let waits = self.run_batch(engine, &bytes, &requests[..self.bench.decoded]);
        self.bench.requests = requests;
        waits
    }

    fn run_batch(&mut self, engine: &Engine, bytes: &Bytes, requests: &[Request]) -> Option<Progress> {
        let (mut prepared, mut keys) = (Requests::new(), Keys::new());
        let mut batch = engine.batch(&mut prepared, &mut keys);
        for Request { bytes: own, frame } in requests {
            let args = match requests.len() {
                // A large value may be kept in the memory that it came in.
                1 => frame.shared_args(bytes),
                _ => frame.args(&bytes[own.clone()]),
            };
            if !batch.add(&self.session, args) {
                break;
            }
        }
        batch.prefetch(&self.session);
        let mut clock = engine.node().clock.instant();
        for (at, request) in requests.iter().enumerate().take(batch.count()) {
            let served = if self.next == self.received.served.0 { self.received.served.1 } else { 0 };
            self.session.asker = self.session.asker.map(|asker| Asker { served, ..asker });
            let step = match self.misplaced {
                Some(epoch) => Step::Misplaced { epoch },
                // The sender has nothing to wait for, and asks for each of the rest by itself. So what a pipeline asks together may be larger
                // than what goes into one answer.
                None if self.bench.answers.is_enough() => Step::Misplaced { epoch: 0 },
                // Its node was started with more of them than this one.
                None if self.session.db >= engine.node().identity.databases => {
                    self.bench.reply.error("ERR DB index is out of range at the key's owner");
                    Step::Done
                }
                // As far as who asks for all parts, or what has moved meanwhile would be nobody's.
                None if batch.lags(at, self.epoch) => Step::Wait(super::Wait::Unsettled { epoch: self.epoch }),
                None => batch.begin(at, &mut self.session, &mut self.bench.reply, &mut clock),
            };
            match step {
                Step::Wait(wait) => return Some(Progress::Waits { wait, at }),
                step => {
                    let step = self.unless_moved(engine, batch.command(at), step);
                    self.answered(&step, request.bytes.len());
                }
            }
        }
        None
    }

    async fn finish(&mut self, engine: &Engine, wait: super::Wait, at: usize) {
        let (mut wait, mut at) = (wait, at);
        loop {
            let bytes = self.received.requests.clone();
            let Request { frame, bytes: own } = std::mem::take(&mut self.bench.requests[at]);
            let args = frame.shared_args(&bytes);
            let step = engine.finish(&mut self.session, args, &mut self.bench.reply, wait).await;
            let step = self.unless_moved(engine, Some(engine.resolved(args)), step);
            self.answered(&step, own.len());
            match self.run(engine) {
                Progress::Waits { wait: next, at: next_at } => (wait, at) = (next, next_at),
                Progress::Done | Progress::Broken => return,
            }
        }
    }

    /// What is written about all keys counts only by the topology by which all nodes were asked: a slot that has moved since may have been nobody's
    /// when each of them did its part.
    fn unless_moved(&mut self, engine: &Engine, command: Option<&Command>, step: Step) -> Step {
        let is_about_all = |command: &Command| command.spec.everywhere.is_some();
        if !command.is_some_and(|command| is_about_all(command) && command.spec.flags.contains(Flags::WRITE)) {
            return step;
        }
        match engine.node().topology.load().epoch() {
            epoch if epoch != self.epoch && matches!(step, Step::Done) => {
                self.bench.reply.clear();
                Step::Misplaced { epoch }
            }
            _ => step,
        }
    }

    fn send(&mut self, engine: &Engine, answer: Answer) {
        if !engine.still_owns(&mut self.session) {
            // As if this node had ended: nobody knows what will become of it.
            return answer.send(&[]);
        }
        match self.bench.answers.take_large() {
            None => answer.send(self.bench.answers.as_bytes()),
            Some(large) => {
                // The bench looks small now, and may be kept.
                self.bench.reply.shrink_to(0);
                answer.send_shared(large);
            }
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
