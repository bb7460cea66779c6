//! A raw connection: what is sent and what comes back are bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use std::{error, fmt};

use crate::reply::{Malformed, Reply};
use crate::text;

/// How long a connection or a reply may take, unless a test says otherwise.
const REPLY_DEADLINE: Duration = Duration::from_secs(20);

/// The most that one reply may hold; a test that wants more is wrong.
const REPLY_LIMIT: usize = 1 << 30;

/// The version of the wire protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Resp2,
    Resp3,
}

/// A connection to a server.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that arrived and belong to no reply handed out yet.
    unread: Vec<u8>,
    /// How long a reply may take.
    patience: Duration,
    /// The server has closed it in order.
    has_ended: bool,
}

/// Why there is no reply.
#[derive(Debug)]
pub enum ReplyError {
    Io(io::Error),
    /// The server closed the connection.
    Closed,
    /// Nothing, or only a part of a reply, came in time.
    Late {
        partial: Vec<u8>,
    },
    /// What came is not RESP.
    Malformed {
        fault: Malformed,
        bytes: Vec<u8>,
    },
}

impl Connection {
    /// Connects, speaking RESP2.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_within(address, REPLY_DEADLINE)
    }

    /// The same, with another limit for the connecting and for each reply.
    pub fn open_within(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, unread: Vec::new(), patience, has_ended: false })
    }

    /// Sends `args` as one command and reads its reply's raw bytes.
    pub fn call(&mut self, args: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, ReplyError> {
        self.send(&encode(args))?;
        self.read_raw()
    }

    /// Sends a command written as on a command line, and reads its reply.
    ///
    /// # Panics
    /// When the line cannot be read or no reply comes.
    pub fn command(&mut self, line: &str) -> Reply {
        let args = text::split_arguments(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let raw = self.call(&args).unwrap_or_else(|error| panic!("{line}: {error}"));
        Reply::parse(&raw)
    }

    /// Switches to `protocol`.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn speak(&mut self, protocol: Protocol) {
        let version = if protocol == Protocol::Resp3 { "3" } else { "2" };
        let raw = self.call(&["HELLO", version]).expect("a reply to HELLO");
        assert!(!raw.starts_with(b"-"), "HELLO {version}: {}", text::escape(&raw));
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads exactly one reply.
    pub fn read_raw(&mut self) -> Result<Vec<u8>, ReplyError> {
        let deadline = Instant::now() + self.patience;
        // A reply is framed anew only when the bytes have doubled: large replies stay linear.
        let mut frame_at = 1;
        loop {
            if self.unread.len() >= frame_at || ends_a_line(&self.unread) {
                if let Some(length) = frame_length(&self.unread)? {
                    return Ok(self.unread.drain(..length).collect());
                }
                frame_at = self.unread.len() * 2;
            }
            self.receive(deadline)?;
        }
    }

    /// Whether the server ends the connection, with nothing more to say.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && matches!(self.receive(Instant::now() + self.patience), Err(ReplyError::Closed))
    }

    /// Whether the server has closed it in order and left no part of a reply: not by a reset, and as far as was read.
    pub fn ended_between_replies(&self) -> bool {
        self.has_ended && self.unread.is_empty()
    }

    /// Looks, without waiting, whether the server has closed it, as pools of connections do before they give one out.
    pub fn has_been_closed(&mut self) -> bool {
        let look = |stream: &TcpStream| {
            stream.set_nonblocking(true)?;
            let found = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            found
        };
        match look(&self.stream) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), ReplyError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.unread.len() > REPLY_LIMIT {
            return Err(ReplyError::Late { partial: self.unread.clone() });
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                self.has_ended = true;
                Err(ReplyError::Closed)
            }
            Ok(length) => {
                self.unread.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            // A read with a timeout is not resumed by the kernel when the process has been stopped for a moment (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.receive(deadline),
            Err(error) => Err(self.read_error(error)),
        }
    }

    fn read_error(&self, error: io::Error) -> ReplyError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ReplyError::Late { partial: self.unread.clone() },
            // A server that closes with our bytes unread resets the connection.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ReplyError::Closed,
            _ => ReplyError::Io(error),
        }
    }
}

/// A command as an array of bulk strings.
pub fn encode(args: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The length of the first reply in `bytes`, once it is whole.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>, ReplyError> {
    match Reply::read(bytes) {
        Ok(frame) => Ok(frame.map(|(_, length)| length)),
        Err(fault) => Err(ReplyError::Malformed { fault, bytes: bytes.to_vec() }),
    }
}

fn ends_a_line(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\r\n")
}

impl From<io::Error> for ReplyError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection failed: {error}"),
            Self::Closed => f.write_str("closed"),
            Self::Late { partial } => {
                write!(f, "no whole reply in time, only \"{}\"", text::escape(partial))
            }
            Self::Malformed { fault, bytes } => {
                write!(f, "not RESP ({fault:?}): \"{}\"", text::escape(bytes))
            }
        }
    }
}

impl error::Error for ReplyError {}
