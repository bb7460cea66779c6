//! A client that keeps what it has read until it is told that it is not true any more, as libraries with client-side caching do.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::connection::{Connection, Protocol, ReplyError, encode};
use crate::reply::Reply;

/// A connection in RESP3 with CLIENT TRACKING, and what it keeps.
pub struct NearCache {
    connection: Connection,
    /// Where it connects again when its connection ends, and on which terms. It keeps nothing then.
    again: Option<(SocketAddr, String)>,
    kept: HashMap<String, Reply>,
    /// Answers that came from what was kept.
    pub hits: u64,
    /// Keys that it was told of.
    pub told: u64,
    /// How often it was told that everything may be old.
    pub flushed: u64,
}

impl NearCache {
    /// `terms` are the options of CLIENT TRACKING ON.
    ///
    /// # Panics
    /// When the server does not want it.
    pub fn open(address: SocketAddr, terms: &str) -> Self {
        let connection = Connection::open(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::over(connection, terms)
    }

    /// As [`Self::open`], but that a connection that ends is replaced. Of what was asked by it nothing is known.
    ///
    /// # Panics
    /// When the server does not want it.
    pub fn open_again_and_again(address: SocketAddr, terms: &str) -> Self {
        Self { again: Some((address, terms.to_owned())), ..Self::open(address, terms) }
    }

    /// The same over a connection that is there.
    ///
    /// # Panics
    /// When the server does not want it.
    pub fn over(mut connection: Connection, terms: &str) -> Self {
        connection.speak(Protocol::Resp3);
        let mut cache = Self { connection, again: None, kept: HashMap::new(), hits: 0, told: 0, flushed: 0 };
        assert_eq!(cache.command(&format!("CLIENT TRACKING ON {terms}")), Reply::ok());
        cache
    }

    /// What is kept of the key, or what the server has, which is kept then.
    pub fn get(&mut self, key: &str) -> Reply {
        if let Some(kept) = self.kept.get(key) {
            self.hits += 1;
            return kept.clone();
        }
        let reply = self.command(&format!("GET {key}"));
        self.keep(key, &reply);
        reply
    }

    /// Asks for all keys at once, whether they are kept or not.
    pub fn get_in_one_go(&mut self, keys: &[String]) {
        let requests: Vec<u8> = keys.iter().flat_map(|key| encode(&["GET", key])).collect();
        if self.connection.send(&requests).is_err() {
            return self.connect_again();
        }
        for key in keys {
            match self.read() {
                Some(reply) => self.keep(key, &reply),
                None => return,
            }
        }
    }

    /// Asks for all keys by one request. Of an error nothing is kept.
    pub fn get_many(&mut self, keys: &[String]) {
        let reply = self.command(&format!("MGET {}", keys.join(" ")));
        let values = reply.items().unwrap_or_default();
        keys.iter().zip(values).for_each(|(key, value)| self.keep(key, value));
    }

    /// Takes what it is told until now.
    pub fn listen(&mut self) {
        self.command("PING");
    }

    /// What is kept of the key.
    pub fn kept(&self, key: &str) -> Option<&Reply> {
        self.kept.get(key)
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Sends a command and reads its reply; what it is told before that is taken. If the connection ends and is replaced, that is an error.
    ///
    /// # Panics
    /// When the connection ends and is not to be replaced.
    pub fn command(&mut self, line: &str) -> Reply {
        let args = crate::text::split_arguments(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let reply = match self.connection.send(&encode(&args)) {
            Ok(()) => self.read(),
            Err(_) => {
                self.connect_again();
                None
            }
        };
        reply.unwrap_or_else(|| Reply::Error(b"closed".to_vec()))
    }

    /// Nobody tells of what is kept any more.
    fn connect_again(&mut self) {
        let Some((address, terms)) = self.again.take() else { panic!("the connection has ended") };
        let Self { hits, told, flushed, .. } = *self;
        *self = Self { hits, told, flushed, ..Self::open_again_and_again(address, &terms) };
    }

    fn keep(&mut self, key: &str, reply: &Reply) {
        if !matches!(reply, Reply::Error(_)) {
            self.kept.insert(key.to_owned(), reply.clone());
        }
    }

    /// The next reply. A value counts from where it stands: what is told behind it takes it away. `None` if the connection was replaced.
    fn read(&mut self) -> Option<Reply> {
        loop {
            match self.connection.read_raw() {
                Ok(raw) => match Reply::parse(&raw) {
                    Reply::Push(parts) => self.take(&parts),
                    reply => return Some(reply),
                },
                Err(ReplyError::Closed) => {
                    self.connect_again();
                    return None;
                }
                Err(error) => panic!("no reply: {error}"),
            }
        }
    }

    fn take(&mut self, parts: &[Reply]) {
        assert_eq!(parts[0], Reply::bulk("invalidate"), "an unknown message");
        match parts[1].items() {
            None => {
                self.flushed += 1;
                self.kept.clear();
            }
            Some(keys) => {
                for key in keys {
                    self.told += 1;
                    self.kept.remove(&key.words());
                }
            }
        }
    }
}
