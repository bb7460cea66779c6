//! Very many connections that ask the same thing at the same moment.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::connection::encode;
use crate::reply::Reply;

/// Connections that are being made at the same time: fewer than a listener's queue holds, or the system drops some and
/// tries again a second later.
const CONNECTING: usize = 256;

/// How long one of the herd waits for its reply.
const PATIENCE: Duration = Duration::from_secs(60);

/// Open connections, all of them accepted and served.
pub struct Herd {
    runtime: Runtime,
    connections: Vec<TcpStream>,
}

/// What one connection was answered, and how long after the herd began to ask.
#[derive(Debug)]
pub struct Answer {
    pub reply: Reply,
    pub after: Duration,
}

impl Herd {
    /// Opens `size` connections and has each answered once, so that none is still in the listener's queue.
    ///
    /// # Panics
    /// When the server does not take them all.
    pub fn gather(address: SocketAddr, size: usize) -> Self {
        Self::gather_at(&[address], size)
    }

    /// The same over several servers, to each its share.
    ///
    /// # Panics
    /// When they do not take them all.
    pub fn gather_at(addresses: &[SocketAddr], size: usize) -> Self {
        raise_descriptor_limit();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut connections = Vec::with_capacity(size);
        for address in addresses.iter().cycle() {
            if connections.len() == size {
                break;
            }
            let chunk = CONNECTING.min(size.div_ceil(addresses.len())).min(size - connections.len());
            connections.extend(runtime.block_on(connect(*address, chunk)));
        }
        Self { runtime, connections }
    }

    /// Sends `args` on every connection at once; the answers of all of them.
    ///
    /// # Panics
    /// When one gets no whole reply.
    pub fn ask(&mut self, args: &[&str]) -> Vec<Answer> {
        let connections = std::mem::take(&mut self.connections);
        let asked = self.runtime.block_on(ask_all(connections, encode(args)));
        let (connections, answers) = asked.into_iter().unzip();
        self.connections = connections;
        answers
    }

    /// Sends bytes on every connection, without waiting for anything.
    pub fn send(&mut self, bytes: &[u8]) {
        let Self { runtime, connections } = self;
        runtime.block_on(async {
            for connection in connections {
                connection.write_all(bytes).await.expect("the server takes a few bytes");
            }
        });
    }

    /// Reads one reply on every connection.
    pub fn read(&mut self) -> Vec<Reply> {
        let Self { runtime, connections } = self;
        runtime.block_on(async {
            let mut replies = Vec::with_capacity(connections.len());
            for connection in connections {
                replies.push(read_reply(connection).await);
            }
            replies
        })
    }
}

async fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut connecting = JoinSet::new();
    for _ in 0..count {
        connecting.spawn(async move {
            let mut connection = TcpStream::connect(address).await.expect("the server accepts");
            connection.set_nodelay(true).expect("a socket option");
            connection.write_all(b"PING\r\n").await.expect("the server reads");
            assert_eq!(read_reply(&mut connection).await, Reply::Simple(b"PONG".to_vec()));
            connection
        });
    }
    connecting.join_all().await
}

async fn ask_all(connections: Vec<TcpStream>, request: Vec<u8>) -> Vec<(TcpStream, Answer)> {
    let mut asking = JoinSet::new();
    let began = Instant::now();
    for mut connection in connections {
        let request = request.clone();
        asking.spawn(async move {
            connection.write_all(&request).await.expect("the server reads");
            let reply = read_reply(&mut connection).await;
            (connection, Answer { reply, after: began.elapsed() })
        });
    }
    asking.join_all().await
}

async fn read_reply(connection: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let whole = async {
        loop {
            if let Some((reply, length)) = Reply::read(&bytes).expect("the server speaks RESP") {
                assert_eq!(length, bytes.len(), "one request has one reply");
                return reply;
            }
            let read = connection.read_buf(&mut bytes).await.expect("the connection holds");
            assert_ne!(read, 0, "the server closed before its reply was whole");
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("a reply in time")
}

/// Allows this process as many descriptors as it may have.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit may be raised to its maximum");
}
