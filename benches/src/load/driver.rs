//! Connections that each send a batch, wait for all of its replies, and send the next.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::replies::{Arrived, Replies, Wire};
use super::tape::Tape;
use crate::interrupt;

/// Bytes that one read may bring.
const READ_BYTES: usize = 256 * 1024;

/// Most events that one look at the sockets brings.
const EVENTS_MAX: usize = 1024;

/// How long a server may leave all connections without an answer.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// The longest latency that is told apart.
const LATENCY_MAX_NANOS: u64 = 60_000_000_000;

/// Significant digits of latencies.
const LATENCY_DIGITS: u8 = 2;

/// Connections to one server that ask for what a tape says.
pub(crate) struct Driver<'t> {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    feed: Feed<'t>,
    input: Box<[u8]>,
    /// Whether it looks for replies all the time instead of sleeping until there are some.
    spins: bool,
    /// When something came last.
    heard_at: Instant,
    sample: Sample,
    /// All that has come since it connected.
    total: Arrived,
}

/// What was measured.
pub(crate) struct Sample {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the write of a request's batch to the read that brought its reply.
    pub(crate) latency: Histogram<u64>,
}

/// Why a load came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the server has closed a connection")]
    Closed,
    #[error("the server has not answered for {} s", STALLED_AFTER.as_secs())]
    Stalled,
    #[error("{errors} of {requests} requests were answered by an error")]
    Refused { errors: u64, requests: u64 },
    #[error("{requests} requests brought {values} values instead of {expected}")]
    Missing { requests: u64, values: u64, expected: u64 },
    #[error("the run was interrupted")]
    Interrupted,
}

struct Connection {
    stream: TcpStream,
    replies: Replies,
    /// What of the batch has not been written yet.
    unsent: Range<usize>,
    sent_at: Instant,
    /// Replies of the batch that have not come yet.
    awaited: u64,
}

/// Hands out the tape's requests.
struct Feed<'t> {
    tape: &'t Tape,
    pipeline: usize,
    next: usize,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Over and over.
    Endless,
    /// Each request once.
    Once,
    /// No more.
    Stopped,
}

impl<'t> Driver<'t> {
    /// Connects.
    pub(crate) fn connect(
        address: SocketAddr,
        wire: Wire,
        connections: usize,
        pipeline: usize,
        tape: &'t Tape,
    ) -> Result<Driver<'t>, LoadError> {
        let poll = Poll::new()?;
        let mut driver = Driver {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            connections: Vec::with_capacity(connections),
            feed: Feed { tape, pipeline, next: 0, mode: Mode::Endless },
            input: vec![0; READ_BYTES].into(),
            spins: false,
            heard_at: Instant::now(),
            sample: Sample::new(),
            total: Arrived::default(),
        };
        for number in 0..connections {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            driver.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            driver.connections.push(Connection::new(stream, wire));
        }
        Ok(driver)
    }

    /// From now on it never sleeps, so that the server never has to wake it, as it need not wake clients on other machines.
    pub(crate) fn spin(&mut self) {
        self.spins = true;
    }

    /// Keeps the server busy for `duration`, and until each connection has had its turn: accepting a thousand of them is no part of a
    /// request.
    pub(crate) fn warm_up(&mut self, duration: Duration) -> Result<(), LoadError> {
        self.run(duration)?;
        let each = (self.connections.len() * self.feed.pipeline) as u64;
        while self.total.replies < 2 * each {
            self.turn()?;
        }
        Ok(())
    }

    /// Keeps the server busy for `duration`.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Sample, LoadError> {
        self.sample = Sample::new();
        let start = Instant::now();
        self.start()?;
        while start.elapsed() < duration {
            self.turn()?;
        }
        let mut sample = std::mem::replace(&mut self.sample, Sample::new());
        sample.elapsed = start.elapsed();
        Ok(sample)
    }

    /// Sends every request of the tape once, and waits for the replies.
    pub(crate) fn run_through(mut self) -> Result<(), LoadError> {
        self.feed.mode = Mode::Once;
        self.start()?;
        self.settle()
    }

    /// Waits for the replies that are still to come.
    pub(crate) fn finish(mut self) -> Result<(), LoadError> {
        self.feed.mode = Mode::Stopped;
        self.settle()
    }

    /// Waits until nothing is awaited, and looks whether all that has come was what was asked for.
    fn settle(&mut self) -> Result<(), LoadError> {
        while self.connections.iter().any(|connection| connection.awaited > 0) {
            self.turn()?;
        }
        let Arrived { replies: requests, values, errors } = self.total;
        let expected = requests * self.feed.tape.values_each;
        match (errors, values) {
            (1.., _) => Err(LoadError::Refused { errors, requests }),
            (0, _) if values != expected => Err(LoadError::Missing { requests, values, expected }),
            (0, _) => Ok(()),
        }
    }

    fn start(&mut self) -> Result<(), LoadError> {
        let now = Instant::now();
        for connection in self.connections.iter_mut().filter(|connection| connection.awaited == 0) {
            connection.begin(&mut self.feed, now)?;
        }
        Ok(())
    }

    /// Waits for events and deals with them.
    fn turn(&mut self) -> Result<(), LoadError> {
        let Driver { poll, events, connections, feed, input, sample, total, .. } = self;
        let patience = if self.spins { Duration::ZERO } else { STALLED_AFTER };
        match poll.poll(events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            outcome => outcome?,
        }
        if interrupt::asked() {
            return Err(LoadError::Interrupted);
        }
        if events.is_empty() {
            return if self.heard_at.elapsed() < STALLED_AFTER { Ok(()) } else { Err(LoadError::Stalled) };
        }
        self.heard_at = Instant::now();
        for event in events.iter() {
            let connection = &mut connections[event.token().0];
            if event.is_writable() && !connection.unsent.is_empty() {
                connection.send(feed)?;
            }
            if event.is_readable() {
                connection.receive(feed, input, |arrived, latency| {
                    *total += arrived;
                    sample.note(arrived.replies, latency);
                })?;
            }
        }
        Ok(())
    }
}

impl Connection {
    fn new(stream: TcpStream, wire: Wire) -> Connection {
        Connection { stream, replies: Replies::new(wire), unsent: 0..0, sent_at: Instant::now(), awaited: 0 }
    }

    /// Begins the next batch, if there is one.
    fn begin(&mut self, feed: &mut Feed<'_>, now: Instant) -> Result<(), LoadError> {
        let batch = feed.take();
        if batch.is_empty() {
            return Ok(());
        }
        self.awaited = batch.len() as u64;
        self.unsent = feed.tape.span(batch);
        self.sent_at = now;
        self.send(feed)
    }

    fn send(&mut self, feed: &Feed<'_>) -> Result<(), LoadError> {
        while !self.unsent.is_empty() {
            match self.stream.write(feed.tape.bytes(self.unsent.clone())) {
                Ok(written) => self.unsent.start += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has come. The sockets' events tell of changes, so a socket must be read until it is empty, which a read that does
    /// not fill the buffer says as well as one that brings nothing.
    fn receive(
        &mut self,
        feed: &mut Feed<'_>,
        input: &mut [u8],
        mut note: impl FnMut(Arrived, Duration),
    ) -> Result<(), LoadError> {
        loop {
            let read = match self.stream.read(input) {
                Ok(0) => return Err(LoadError::Closed),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let arrived = self.replies.feed(&input[..read]);
            let now = Instant::now();
            note(arrived, now - self.sent_at);
            if self.awaited > 0 {
                self.awaited = self.awaited.saturating_sub(arrived.replies);
                if self.awaited == 0 {
                    self.begin(feed, now)?;
                }
            }
            if read < input.len() {
                return Ok(());
            }
        }
    }
}

impl Feed<'_> {
    fn take(&mut self) -> Range<usize> {
        if self.mode == Mode::Endless && self.next + self.pipeline > self.tape.len() {
            self.next = 0;
        }
        let end = match self.mode {
            Mode::Stopped => self.next,
            Mode::Endless | Mode::Once => (self.next + self.pipeline).min(self.tape.len()),
        };
        std::mem::replace(&mut self.next, end)..end
    }
}

impl Sample {
    fn new() -> Sample {
        let latency = Histogram::new_with_max(LATENCY_MAX_NANOS, LATENCY_DIGITS).expect("the bounds are in order");
        Sample { requests: 0, elapsed: Duration::ZERO, latency }
    }

    fn note(&mut self, replies: u64, latency: Duration) {
        self.requests += replies;
        self.latency.saturating_record_n(latency.as_nanos() as u64, replies);
    }
}
