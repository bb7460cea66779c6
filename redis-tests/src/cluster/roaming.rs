//! A client as people have them: when it loses its node, it connects to another one.

use std::net::SocketAddr;
use std::time::Duration;

use crate::connection::Connection;
use crate::reply::Reply;

/// The pause after all nodes have refused a connection.
const REST: Duration = Duration::from_millis(20);

/// A client that knows some nodes, and talks to one of them at a time.
pub struct Roaming {
    nodes: Vec<SocketAddr>,
    /// The node in `nodes` that it talks to or will try next.
    at: usize,
    connection: Option<Connection>,
    /// How long a connection or a reply may take.
    patience: Duration,
    /// Whether it takes a connection that was closed in order for one on which the request was not run.
    trusts_ends: bool,
    ends: Ends,
}

/// How often a client that trusts orderly ends has met one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Before it sent anything.
    pub seen: u64,
    /// After it had sent a request, which crossed the end and was sent again.
    pub crossed: u64,
}

/// What came of a request.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    /// The request was sent, and the connection was lost or stayed silent.
    Lost(String),
    /// No node took a connection: nothing was sent.
    NotSent(String),
}

impl Roaming {
    /// A client that begins with the node number `at` of `nodes`. It sends nothing twice.
    pub fn new(nodes: Vec<SocketAddr>, at: usize, patience: Duration) -> Self {
        let at = at % nodes.len();
        Self { nodes, at, connection: None, patience, trusts_ends: false, ends: Ends::default() }
    }

    /// A client that does what the libraries of people do by default, for nodes that end in order: it looks whether its connection has been
    /// closed before it sends something, and sends it again if it was closed in order without a byte of a reply. A node that crashes may
    /// have run such a request.
    pub fn trusting_ends(self) -> Self {
        Self { trusts_ends: true, ..self }
    }

    /// The ends that it has met.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// Where it is connected, or will be.
    pub fn place(&self) -> SocketAddr {
        self.nodes[self.at]
    }

    /// Sends one request and reads its reply. After a loss the next request goes to another node.
    pub fn call(&mut self, args: &[impl AsRef<[u8]>]) -> Answer {
        for _ in 0..self.nodes.len() {
            match self.call_once(args) {
                Some(answer) => return answer,
                None => self.ends.crossed += 1,
            }
        }
        Answer::Lost("each node closed the connection in order".to_owned())
    }

    /// `None` if the request was surely not run.
    fn call_once(&mut self, args: &[impl AsRef<[u8]>]) -> Option<Answer> {
        let trusts_ends = self.trusts_ends;
        let connection = match self.connection() {
            Ok(connection) => connection,
            Err(words) => {
                std::thread::sleep(REST);
                return Some(Answer::NotSent(words));
            }
        };
        match connection.call(args) {
            Ok(raw) => Some(Answer::Reply(Reply::parse(&raw))),
            Err(error) => {
                let may_be_run = !(trusts_ends && connection.ended_between_replies());
                self.lose();
                may_be_run.then(|| Answer::Lost(error.to_string()))
            }
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, String> {
        if self.trusts_ends && self.connection.as_mut().is_some_and(Connection::has_been_closed) {
            self.ends.seen += 1;
            self.lose();
        }
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    fn lose(&mut self) {
        self.connection = None;
        self.go_on();
    }

    fn connect(&mut self) -> Result<Connection, String> {
        let mut refusal = String::new();
        for _ in 0..self.nodes.len() {
            match Connection::open_within(self.place(), self.patience) {
                Ok(connection) => return Ok(connection),
                Err(error) => refusal = format!("{}: {error}", self.place()),
            }
            self.go_on();
        }
        Err(refusal)
    }

    fn go_on(&mut self) {
        self.at = (self.at + 1) % self.nodes.len();
    }
}
