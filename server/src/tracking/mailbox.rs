//! What a connection is to be told beside the replies to what it asks.

use bytes::Bytes;
use forebay_resp::{Protocol, Reply};

use crate::clients::{Client, ClientId};

/// Keys that wait to be told of. Of more, one message says that everything may be old.
const MAX_WAITING: usize = 16 * 1024;

/// The channel by which a connection that speaks RESP2 is told what was redirected to it.
pub const CHANNEL: &str = "__redis__:invalidate";

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Push {
    Key {
        key: Bytes,
        /// Another connection has read it.
        is_redirected: bool,
    },
    /// A key with a prefix that the connection has named.
    OfPrefix {
        prefix: Bytes,
        key: Bytes,
        is_redirected: bool,
    },
    Everything {
        is_redirected: bool,
    },
    /// The connection that is to be told in this one's place is gone.
    Broken(ClientId),
}

impl Push {
    pub(crate) fn is_redirected(&self) -> bool {
        match self {
            Push::Key { is_redirected, .. }
            | Push::OfPrefix { is_redirected, .. }
            | Push::Everything { is_redirected } => *is_redirected,
            Push::Broken(_) => false,
        }
    }
}

/// Messages in their order.
#[derive(Default)]
pub struct Mailbox(Vec<Push>);

impl Mailbox {
    pub(crate) fn put(&mut self, push: Push) {
        if matches!(push, Push::Everything { .. }) && self.0.last() == Some(&push) {
            return;
        }
        if self.0.len() >= MAX_WAITING {
            let is_redirected = self.0.iter().any(Push::is_redirected);
            let is_own = self.0.iter().any(|push| !push.is_redirected());
            self.0 = Vec::new();
            self.0.extend(is_redirected.then_some(Push::Everything { is_redirected: true }));
            self.0.extend(is_own.then_some(Push::Everything { is_redirected: false }));
        }
        self.0.push(push);
    }

    pub(crate) fn take(&mut self) -> Vec<Push> {
        std::mem::take(&mut self.0)
    }
}

/// Writes what the connection is to be told. To be called only when nothing that it has asked is on its way: what it is told must stand behind
/// the reply with the value that is not true any more.
#[cold]
pub fn write_pushes(client: &Client, reply: &mut Reply) {
    let is_subscribed = client.is_subscribed();
    let pushes = client.take_pushes();
    let mut rest = &pushes[..];
    while let Some((push, behind)) = rest.split_first() {
        rest = behind;
        let is_redirected = push.is_redirected();
        // Where nobody can be told any more, because the connection has gone back to RESP2 meanwhile, nobody is.
        let is_message = reply.protocol() == Protocol::Resp2;
        if is_message && !(is_redirected && is_subscribed) {
            continue;
        }
        match push {
            Push::Broken(_) if is_message => {}
            Push::Broken(id) => {
                reply.push(2);
                reply.bulk(b"tracking-redir-broken");
                reply.integer(*id as i64);
            }
            Push::Everything { .. } => {
                begin(reply);
                reply.null();
            }
            Push::Key { key, .. } => write_keys(reply, std::iter::once(&key[..])),
            Push::OfPrefix { .. } => {
                let others = behind.iter().take_while(|push| matches!(push, Push::OfPrefix { .. })).count();
                let (together, behind) = pushes[pushes.len() - behind.len() - 1..].split_at(others + 1);
                rest = behind;
                write_prefixes(reply, together);
            }
        }
    }
}

/// One message for each prefix.
fn write_prefixes(reply: &mut Reply, pushes: &[Push]) {
    let mut keys: Vec<(&Bytes, &Bytes)> = pushes
        .iter()
        .filter_map(|push| match push {
            Push::OfPrefix { prefix, key, .. } => Some((prefix, key)),
            _ => None,
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    for of_prefix in keys.chunk_by(|(one, _), (other, _)| one == other) {
        write_keys(reply, of_prefix.iter().map(|(_, key)| &key[..]));
    }
}

fn write_keys<'k>(reply: &mut Reply, keys: impl ExactSizeIterator<Item = &'k [u8]>) {
    begin(reply);
    reply.array(keys.len());
    keys.for_each(|key| reply.bulk(key));
}

fn begin(reply: &mut Reply) {
    match reply.protocol() {
        Protocol::Resp3 => {
            reply.push(2);
            reply.bulk(b"invalidate");
        }
        Protocol::Resp2 => {
            reply.array(3);
            reply.bulk(b"message");
            reply.bulk(CHANNEL.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn client(protocol: u8) -> Client {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let client = Client::unlisted(nowhere, nowhere, 0);
        client.protocol.store(protocol, Relaxed);
        client
    }

    fn key(key: &'static str) -> Push {
        Push::Key { key: Bytes::from(key), is_redirected: false }
    }

    fn of_prefix(prefix: &'static str, key: &'static str) -> Push {
        Push::OfPrefix { prefix: Bytes::from(prefix), key: Bytes::from(key), is_redirected: false }
    }

    fn written(client: &Client, protocol: Protocol) -> String {
        let mut reply = Reply::new();
        reply.set_protocol(protocol);
        write_pushes(client, &mut reply);
        reply.chunks().map(|chunk| String::from_utf8_lossy(chunk).replace("\r\n", " ")).collect()
    }

    #[test]
    fn messages_are_redis_own() {
        let speaks_resp3 = client(3);
        for push in [
            key("b"),
            key("a"),
            of_prefix("p", "p2"),
            of_prefix("o", "o1"),
            of_prefix("p", "p1"),
            of_prefix("p", "p2"),
            Push::Everything { is_redirected: false },
            Push::Everything { is_redirected: false },
            Push::Broken(7),
        ] {
            speaks_resp3.hear(push);
        }
        assert!(speaks_resp3.has_pushes());
        assert_eq!(
            written(&speaks_resp3, Protocol::Resp3),
            ">2 $10 invalidate *1 $1 b >2 $10 invalidate *1 $1 a >2 $10 invalidate *1 $2 o1 \
             >2 $10 invalidate *2 $2 p1 $2 p2 >2 $10 invalidate _ >2 $21 tracking-redir-broken :7 "
        );
        assert!(!speaks_resp3.has_pushes());
    }

    #[test]
    fn who_speaks_resp2_is_told_by_its_channel_and_only_for_others() {
        let subscribed = client(2);
        subscribed.subscriptions.lock().insert(CHANNEL.as_bytes().into());
        for push in [key("own"), Push::Key { key: Bytes::from("theirs"), is_redirected: true }, Push::Broken(7)] {
            subscribed.hear(push);
        }
        assert_eq!(written(&subscribed, Protocol::Resp2), "*3 $7 message $20 __redis__:invalidate *1 $6 theirs ");
        let other = client(2);
        other.hear(Push::Key { key: Bytes::from("theirs"), is_redirected: true });
        assert!(!other.has_pushes());
    }

    #[test]
    fn too_many_messages_become_one() {
        let mut mailbox = Mailbox::default();
        for _ in 0..=MAX_WAITING {
            mailbox.put(key("a"));
        }
        assert_eq!(mailbox.take(), [Push::Everything { is_redirected: false }, key("a")]);
    }
}
