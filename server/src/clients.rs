//! The registry of connections: what `CLIENT LIST` shows and `CLIENT KILL` reaches.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire,
    Ordering::Relaxed, Ordering::Release,
};
use std::task::Waker;

use dashmap::DashMap;
use forebay_store::UnixMillis;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::output_limits::Unsent;
use crate::tracking::Terms;
use crate::tracking::mailbox::{Mailbox, Push};

/// A client's number; rises by one with every connection.
pub type ClientId = u64;

/// All connections of this node.
#[derive(Default)]
pub struct Clients {
    by_id: DashMap<ClientId, Arc<Client>>,
    last_id: AtomicU64,
    /// Connections accepted since the start.
    accepted: AtomicU64,
    /// Connections refused because of `maxclients`.
    refused: AtomicU64,
}

/// What others may see, and ask, of a connection. Written by its own task with relaxed stores.
pub struct Client {
    pub id: ClientId,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// The socket's descriptor number, for display.
    pub descriptor: i32,
    pub connected_at: UnixMillis,
    pub last_request_at: AtomicI64,
    pub db: AtomicU16,
    pub protocol: AtomicU8,
    /// [`Command::id`](crate::command::table::Command::id) of the last command; `u32::MAX` before the first.
    pub last_command: AtomicU32,
    /// Bytes in the query buffer, and its capacity.
    pub query_bytes: AtomicUsize,
    pub query_capacity: AtomicUsize,
    /// Bytes of replies not yet sent.
    pub unsent: Unsent,
    /// Held back by `CLIENT PAUSE`.
    pub blocked: AtomicBool,
    pub no_evict: AtomicBool,
    pub no_touch: AtomicBool,
    pub labels: Mutex<Labels>,
    /// The terms on which it tracks, if it does.
    pub tracking: Mutex<Option<Box<Terms>>>,
    /// Channels that it has subscribed to.
    pub subscriptions: Mutex<BTreeSet<Box<[u8]>>>,
    mailbox: Mutex<Mailbox>,
    /// See [`Ask`]; beside that, [`PUSHES`].
    ask: AtomicU8,
    waker: AtomicWaker,
}

/// Names that a client gives itself.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    pub name: String,
    pub library_name: String,
    pub library_version: String,
    pub user: String,
}

/// What another task wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ask {
    Nothing = 0,
    /// Answer the next requests, then close in good order behind the replies: the client hears of it before it sends anything more.
    Leave = 1,
    /// Answer what has arrived, then close in good order.
    Drain = 2,
    /// Close now.
    Kill = 4,
}

/// The bit beside those of [`Ask`] that says that there is something in the mailbox.
const PUSHES: u8 = 0x80;

impl Clients {
    /// Registers a connection, unless there are `limit` of them.
    pub fn admit(
        &self,
        limit: usize,
        peer: SocketAddr,
        local: SocketAddr,
        descriptor: i32,
        now: UnixMillis,
    ) -> Option<Arc<Client>> {
        if self.by_id.len() >= limit {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        self.accepted.fetch_add(1, Relaxed);
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client::new(id, peer, local, descriptor, now));
        self.by_id.insert(id, Arc::clone(&client));
        Some(client)
    }

    /// Forgets a connection that has ended.
    pub fn leave(&self, id: ClientId) {
        self.by_id.remove(&id);
    }

    /// Ends a connection of another task. It counts as gone at once, although its task needs a moment to see it.
    pub fn kill(&self, client: &Client) {
        self.by_id.remove(&client.id);
        client.ask(Ask::Kill);
    }

    /// The connection with this number.
    pub fn get(&self, id: ClientId) -> Option<Arc<Client>> {
        self.by_id.get(&id).map(|client| Arc::clone(&client))
    }

    /// All connections by rising number. A copy: no lock is held while it is read.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.by_id.iter().map(|client| Arc::clone(&client)).collect();
        all.sort_unstable_by_key(|client| client.id);
        all
    }

    /// Bytes that the connections take, their buffers included.
    pub fn memory(&self) -> usize {
        self.by_id.iter().map(|client| client.memory()).sum()
    }

    /// Asks something of all connections that `are_meant`.
    pub fn ask(&self, ask: Ask, are_meant: impl Fn(&Client) -> bool) {
        for client in self.by_id.iter().filter(|client| are_meant(client)) {
            client.ask(ask);
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// `CONFIG RESETSTAT`.
    pub fn reset_counters(&self) {
        self.accepted.store(0, Relaxed);
        self.refused.store(0, Relaxed);
    }
}

impl Client {
    fn new(id: ClientId, peer: SocketAddr, local: SocketAddr, descriptor: i32, now: UnixMillis) -> Client {
        Client {
            id,
            peer,
            local,
            descriptor,
            connected_at: now,
            last_request_at: AtomicI64::new(now),
            db: AtomicU16::new(0),
            protocol: AtomicU8::new(2),
            last_command: AtomicU32::new(u32::MAX),
            query_bytes: AtomicUsize::new(0),
            query_capacity: AtomicUsize::new(0),
            unsent: Unsent::default(),
            blocked: AtomicBool::new(false),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            labels: Mutex::new(Labels { user: "default".to_owned(), ..Labels::default() }),
            tracking: Mutex::default(),
            subscriptions: Mutex::default(),
            mailbox: Mutex::default(),
            ask: AtomicU8::new(Ask::Nothing as u8),
            waker: AtomicWaker::new(),
        }
    }

    /// Who asks by another way than a connection of its own, such as HTTP: in no list, and out of reach of others.
    pub fn unlisted(peer: SocketAddr, local: SocketAddr, now: UnixMillis) -> Client {
        Client::new(0, peer, local, -1, now)
    }

    /// Stands for all clients of other nodes, whose own node knows them.
    pub fn of_peers(now: UnixMillis) -> Client {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Client::unlisted(nowhere, nowhere, now)
    }

    /// Bytes that the connection takes, its buffers included.
    pub fn memory(&self) -> usize {
        let query = self.query_capacity.load(Relaxed).max(self.query_bytes.load(Relaxed));
        size_of::<Client>() + query + self.unsent.bytes()
    }

    /// Asks something of the connection and wakes its task. A stronger request is never replaced by a weaker one.
    pub fn ask(&self, ask: Ask) {
        self.ask.fetch_or(ask as u8, Relaxed);
        self.waker.wake();
    }

    /// Whether nothing has been asked, and there is nothing in the mailbox.
    #[inline]
    pub fn is_undisturbed(&self) -> bool {
        self.ask.load(Relaxed) == 0
    }

    /// Whether there is something in the mailbox.
    #[inline]
    pub fn has_pushes(&self) -> bool {
        self.ask.load(Relaxed) & PUSHES != 0
    }

    /// Whether it has subscribed to a channel.
    pub fn is_subscribed(&self) -> bool {
        !self.subscriptions.lock().is_empty()
    }

    /// Puts something into the connection's mailbox and wakes its task; nothing if the connection cannot be told, which RESP2 can only in place
    /// of others and by a channel.
    pub(crate) fn hear(&self, push: Push) {
        let can_be_told = self.protocol.load(Relaxed) >= 3 || push.is_redirected() && self.is_subscribed();
        if !can_be_told {
            return;
        }
        self.mailbox.lock().put(push);
        // Released by the lock above, and seen by who takes it below.
        self.ask.fetch_or(PUSHES, Release);
        self.waker.wake();
    }

    /// Empties the mailbox. What has been registered to wake the task may be used up by then.
    pub(crate) fn take_pushes(&self) -> Vec<Push> {
        // First the bit: what is put in after this sets it again.
        self.ask.fetch_and(!PUSHES, Acquire);
        self.mailbox.lock().take()
    }

    /// What has been asked.
    #[inline]
    pub fn asked(&self) -> Ask {
        let asked = self.ask.load(Relaxed);
        match asked & !PUSHES {
            0 => Ask::Nothing,
            asked if asked & Ask::Kill as u8 != 0 => Ask::Kill,
            asked if asked & Ask::Drain as u8 != 0 => Ask::Drain,
            _ => Ask::Leave,
        }
    }

    /// To be called by the connection's task before it waits; afterwards it must look at [`Client::asked`] once more, or a request
    /// between its last look and this call would go unseen. Only one task waits for a client, and what has been registered is used up
    /// only after something was asked, so a task that has called this once need not do so again while nothing is asked.
    #[inline]
    pub fn wake_me(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "127.0.0.1:1".parse().expect("an address")
    }

    #[test]
    fn the_limit_refuses_and_a_leaver_makes_room() {
        let clients = Clients::default();
        let first = clients.admit(1, address(), address(), 3, 0).expect("room");
        assert!(clients.admit(1, address(), address(), 4, 0).is_none());
        assert_eq!(clients.refused(), 1);
        clients.leave(first.id);
        let second = clients.admit(1, address(), address(), 4, 0).expect("room again");
        assert!(second.id > first.id);
    }

    #[test]
    fn a_kill_is_not_softened_by_a_drain() {
        let clients = Clients::default();
        let client = clients.admit(1, address(), address(), 3, 0).expect("room");
        client.ask(Ask::Kill);
        client.ask(Ask::Drain);
        assert_eq!(client.asked(), Ask::Kill);
    }
}
