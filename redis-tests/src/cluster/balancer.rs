//! A load balancer before the nodes, for clients that know one address: each connection goes to the next node that takes it.
//!
//! It hands on bytes and orderly ends as they come. That a node resets a connection it tells as an end, so it is for tests in which none does.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a node may take to accept.
const CONNECTING: Duration = Duration::from_secs(1);

/// Accepts until it is dropped; what is connected then lives on until either side ends.
pub struct Balancer {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Listens on a free port, for `nodes`.
    ///
    /// # Panics
    /// When there is none.
    pub fn before(nodes: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let accepting = Some(thread::spawn(move || accept(&listener, &nodes.into(), &over)));
        Self { address, is_over, accepting }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; it ends before it looks at the connection.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, nodes: &Arc<[SocketAddr]>, over: &AtomicBool) {
    let next = Arc::<AtomicUsize>::default();
    while let Ok((client, _)) = listener.accept() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let (nodes, next) = (Arc::clone(nodes), Arc::clone(&next));
        // Where no node takes it, the client is closed.
        thread::spawn(move || drop(carry(&client, &nodes, &next)));
    }
}

fn carry(client: &TcpStream, nodes: &[SocketAddr], next: &AtomicUsize) -> io::Result<()> {
    let mut turns = (0..nodes.len()).map(|_| &nodes[next.fetch_add(1, Ordering::Relaxed) % nodes.len()]);
    let node = turns.find_map(|node| TcpStream::connect_timeout(node, CONNECTING).ok());
    let node = node.ok_or(io::ErrorKind::ConnectionRefused)?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| hand_on(client, &node));
        hand_on(&node, client);
    });
    Ok(())
}

/// Hands bytes on until `from` ends, and then the end.
fn hand_on(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use crate::reply::Reply;
    use crate::server::Target;

    #[test]
    fn each_connection_goes_to_the_next_node_that_takes_it() {
        let (first, second) = (Target::Forebay.start(), Target::Forebay.start());
        // As long as a connection has the port, nobody can come to listen there.
        let client = TcpStream::connect(first.address()).expect("it accepts");
        let nobody = client.local_addr().expect("it is bound");
        let balancer = Balancer::before(vec![first.address(), nobody, second.address()]);
        for node in [&first, &second, &first] {
            let mut connection = Connection::open(balancer.address()).expect("it accepts");
            assert_eq!(connection.command("INCR n"), Reply::Integer(1));
            assert_eq!(node.connect().command("DEL n"), Reply::Integer(1));
        }
        let mut connection = Connection::open(balancer.address()).expect("it accepts");
        connection.command("PING");
        drop((first, second));
        assert!(connection.is_closed(), "the end of a node is not handed on");
    }
}
