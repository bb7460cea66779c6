//! Requests for keys that other nodes own: how they are packed, sent and answered.
//!
//! What is sent to a peer in one go is some requests of one client, in order. The owner runs them in that order, and answers them in one
//! go. It runs none of them after one that it would not run, so that no request overtakes another of its client.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_cluster::Topology;
use forebay_cluster::peer::{Call, CallError};
use forebay_resp::{Protocol, Reply};
use forebay_store::Key;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::command::table::Command;
use crate::node::Node;
use crate::session::Session;

/// Between two looks at whether an answer can still come.
const LOOK: Duration = Duration::from_millis(250);

/// How long an owner may take to answer, 30 s. It may have to load, and to wait until it knows that it is the owner.
const ANSWER_LOOKS: u32 = 120;

/// How long an answer is waited for out of touch with the cluster, 1 s: a new leader of the cluster is found sooner.
const CUT_OFF_LOOKS: u32 = 4;

/// In the first byte of what is sent: replies are to be in RESP3, reads are to leave no trace.
const RESP3: u8 = 1;
const NO_TOUCH: u8 = 2;

/// What stands in front of an answer to one request: whether it is a reply, and its length.
const ANSWER_HEADER: usize = 1 + size_of::<u32>();
const REPLY: u8 = 0;
const MISPLACED: u8 = 1;

/// Requests of one client for one owner, packed.
pub(super) struct Requests {
    packed: BytesMut,
    requests: u64,
}

impl Requests {
    pub(super) fn of(session: &Session, protocol: Protocol) -> Requests {
        let mut packed = BytesMut::with_capacity(256);
        let resp3 = if protocol == Protocol::Resp3 { RESP3 } else { 0 };
        packed.put_u8(resp3 | if session.no_touch { NO_TOUCH } else { 0 });
        packed.put_u16_le(session.db);
        Requests { packed, requests: 0 }
    }

    pub(super) fn add(&mut self, arguments: impl ExactSizeIterator<Item = impl AsRef<[u8]>>) {
        self.requests += 1;
        put_header(&mut self.packed, b'*', arguments.len());
        for argument in arguments {
            let argument = argument.as_ref();
            self.packed.reserve(argument.len() + 32);
            put_header(&mut self.packed, b'$', argument.len());
            self.packed.put_slice(argument);
            self.packed.put_slice(b"\r\n");
        }
    }

    pub(super) fn send(self, node: &Node, topology: &Topology, owner: &str) -> Option<Call> {
        let cluster = node.cluster.as_ref()?;
        cluster.forwarded.fetch_add(self.requests, Relaxed);
        Some(cluster.peers.call(owner, topology.epoch(), &self.packed))
    }
}

fn put_header(packed: &mut BytesMut, kind: u8, number: usize) {
    packed.put_u8(kind);
    packed.put_slice(itoa::Buffer::new().format(number).as_bytes());
    packed.put_slice(b"\r\n");
}

/// What a peer has sent, unpacked: how its client wants it, and the requests in RESP.
pub(super) struct Received {
    pub(super) protocol: Protocol,
    pub(super) no_touch: bool,
    pub(super) db: u16,
    pub(super) requests: Bytes,
}

impl Received {
    /// `None` for what no peer of this version sends.
    pub(super) fn read(mut content: Bytes) -> Option<Received> {
        if content.len() < 1 + size_of::<u16>() {
            return None;
        }
        let flags = content.get_u8();
        let protocol = if flags & RESP3 == 0 { Protocol::Resp2 } else { Protocol::Resp3 };
        Some(Received { protocol, no_touch: flags & NO_TOUCH != 0, db: content.get_u16_le(), requests: content })
    }
}

/// The answers to what a peer has sent, packed.
#[derive(Default)]
pub(super) struct Answers(BytesMut);

impl Answers {
    pub(super) fn reply(&mut self, reply: &mut Reply) {
        let length = reply.remaining();
        self.0.reserve(ANSWER_HEADER + length);
        self.0.put_u8(REPLY);
        // Replies are limited far below 4 GiB by what a value may be.
        self.0.put_u32_le(length as u32);
        self.0.put(&mut *reply);
        reply.clear();
    }

    /// The request was not run: its keys are not this node's by the topology of `epoch`.
    pub(super) fn misplaced(&mut self, epoch: u64) {
        self.0.put_u8(MISPLACED);
        self.0.put_u32_le(size_of::<u64>() as u32);
        self.0.put_u64_le(epoch);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What came of one forwarded request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Replied(Bytes),
    /// It was not run, and may be once the topology is of that epoch.
    Again {
        epoch: u64,
    },
    /// Nobody knows whether it was run.
    Uncertain,
}

/// Takes the first answer; `None` for what no peer of this version sends.
pub(super) fn take(answers: &mut Bytes) -> Option<Outcome> {
    if answers.len() < ANSWER_HEADER {
        return None;
    }
    let (kind, length) = (answers.get_u8(), answers.get_u32_le() as usize);
    if length > answers.len() {
        return None;
    }
    let mut content = answers.split_to(length);
    match kind {
        REPLY => Some(Outcome::Replied(content)),
        MISPLACED if length == size_of::<u64>() => Some(Outcome::Again { epoch: content.get_u64_le() }),
        _ => None,
    }
}

/// Waits for the owner's answers, but not for long after this node has lost touch with the cluster: nobody answers one that is cut off,
/// and connections do not end by that.
pub(super) async fn answers_of(node: &Node, call: &mut Call) -> Result<Bytes, CallError> {
    let mut looks = tokio::time::interval(LOOK);
    let (mut left, mut cut_off) = (ANSWER_LOOKS, 0);
    loop {
        tokio::select! {
            biased;
            answers = &mut *call => return answers,
            _ = looks.tick() => {}
        }
        cut_off = if node.is_in_touch() { 0 } else { cut_off + 1 };
        left -= 1;
        if left == 0 || cut_off > CUT_OFF_LOOKS {
            return Err(CallError::Broken);
        }
    }
}

/// What came of a request that has no answer. A read may be sent again in any case.
pub(super) fn unanswered(error: &CallError, command: &Command, epoch: u64) -> Outcome {
    match error {
        CallError::Unreachable(_) | CallError::Busy => Outcome::Again { epoch },
        CallError::Broken if command.spec.flags.contains(Flags::READONLY) => Outcome::Again { epoch },
        CallError::Broken => Outcome::Uncertain,
    }
}

/// The one other node that owns all keys.
pub(super) fn owner<'t>(topology: &'t Topology, keys: &[Key<'_>]) -> Option<&'t forebay_cluster::Node> {
    let (first, rest) = keys.split_first()?;
    let owner = topology.owner_of(first.slot())?;
    let is_owners = |key: &Key<'_>| topology.owner_of(key.slot()).is_some_and(|other| other.number == owner.number);
    (!topology.is_here(first.slot()) && rest.iter().all(is_owners)).then_some(owner)
}

/// Writes an outcome that ends a request.
pub(super) fn conclude(reply: &mut Reply, content: Bytes) {
    /// Shorter ones are cheaper to copy.
    const SHARED: usize = 16 << 10;
    match content.len() >= SHARED {
        true => reply.raw_shared(content),
        false => reply.raw(&content),
    }
}

/// The error that a reply is, if it is one.
pub(super) fn error_in(content: &[u8]) -> Result<(), CommandError> {
    match content.split_first() {
        Some((b'-', line)) => Err(CommandError::from(String::from_utf8_lossy(line).trim_end().to_owned())),
        _ => Ok(()),
    }
}

/// The error for a request of which nobody knows whether it was run.
pub(super) fn uncertain() -> CommandError {
    CommandError::text(
        "CLUSTERDOWN the connection to the key's owner ended before it answered: the command may or may not have been carried out",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_taken_in_order() {
        let mut answers = Answers::default();
        let mut reply = Reply::new();
        reply.simple("PONG");
        answers.reply(&mut reply);
        answers.misplaced(7);
        let mut packed = Bytes::copy_from_slice(answers.as_bytes());
        assert_eq!(take(&mut packed), Some(Outcome::Replied(Bytes::from_static(b"+PONG\r\n"))));
        assert_eq!(take(&mut packed), Some(Outcome::Again { epoch: 7 }));
        assert_eq!(take(&mut packed), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut answers = Bytes::from(bytes.clone());
            while take(&mut answers).is_some() {}
            prop_assert!(Received::read(Bytes::from(bytes)).is_none_or(|received| received.requests.len() < 64));
        }
    }
}
