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
    /// A client that begins with the node number `at` of `nodes`.
    pub fn new(nodes: Vec<SocketAddr>, at: usize, patience: Duration) -> Self {
        let at = at % nodes.len();
        Self { nodes, at, connection: None, patience }
    }

    /// Where it is connected, or will be.
    pub fn place(&self) -> SocketAddr {
        self.nodes[self.at]
    }

    /// Sends one request and reads its reply. After a loss the next request goes to another node.
    pub fn call(&mut self, args: &[impl AsRef<[u8]>]) -> Answer {
        let connection = match self.connection() {
            Ok(connection) => connection,
            Err(words) => {
                std::thread::sleep(REST);
                return Answer::NotSent(words);
            }
        };
        match connection.call(args) {
            Ok(raw) => Answer::Reply(Reply::parse(&raw)),
            Err(error) => {
                self.connection = None;
                self.go_on();
                Answer::Lost(error.to_string())
            }
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, String> {
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
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
