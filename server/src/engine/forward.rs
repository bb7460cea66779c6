//! Requests for keys that other nodes own: how they are packed, sent and answered.
//!
//! What is sent to a peer in one go is some requests of one client, in order. The owner runs them in that order, and answers them in one
//! go. It runs none of them after one that it would not run, so that no request overtakes another of its client.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_cluster::peer::{Call, CallError, MAX_CALL, MAX_CONTENT};
use forebay_cluster::state::Incarnation;
use forebay_cluster::{Node as Member, Topology};
use forebay_resp::{Args, Protocol, Reply};
use forebay_store::Key;

use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::command::table::Command;
use crate::node::Node;
use crate::session::Session;

/// In the first byte of what is sent: replies are to be in RESP3, reads are to leave no trace, the sender would keep copies of replies.
const RESP3: u8 = 1;
const NO_TOUCH: u8 = 2;
const KEEPS_COPIES: u8 = 4;
/// The client tracks: behind the header stand the sender's token and which of its clients is not to be told of its own changes.
const TRACKS: u8 = 8;
/// Its reads are remembered.
const REMEMBERS: u8 = 16;

/// In front of the requests: the flags, the database, and of one request how often a copy has answered it before.
const REQUESTS_HEADER: usize = 1 + 2 * size_of::<u16>() + size_of::<u32>();
const SERVED_AT: usize = 1 + size_of::<u16>();
/// What [`TRACKS`] adds.
const TRACKS_HEADER: usize = 2 * size_of::<u64>();

/// What stands in front of an answer to one request: whether it is a reply, and its length.
const ANSWER_HEADER: usize = 1 + size_of::<u32>();
const REPLY: u8 = 0;
const MISPLACED: u8 = 1;
/// Shorter answers are cheaper to copy than to share.
const SHARED: usize = 16 << 10;

/// A reply that may be kept, for so many milliseconds as stand in front of it.
const GRANTED: u8 = 2;

/// The largest reply that is forwarded.
const MAX_REPLY: usize = 1 << 30;

/// Behind so many bytes of replies no more of their bundle are made, so that the last one may be of the largest size whatever stands before it.
const ENOUGH: usize = 64 << 20;

// What comes behind is small: that requests were not run.
const _: () = assert!(ENOUGH + MAX_REPLY + (32 << 20) <= MAX_CALL);

/// Bytes of packed requests for which their memory is not kept for the next ones.
const KEPT: usize = 64 << 10;

thread_local! {
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// When requests were sent at the earliest, and to which life of a node.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub(super) at: Instant,
    pub(super) to: Incarnation,
}

impl Sent {
    pub(super) fn now_to(owner: &Member) -> Sent {
        Sent { at: Instant::now(), to: owner.incarnation }
    }
}

/// Requests of one client for one owner, packed.
pub(super) struct Requests {
    packed: BytesMut,
    requests: u16,
    /// Whether it is told of a request how often a copy has answered it.
    tells_served: bool,
}

impl Requests {
    pub(super) fn of(session: &Session, protocol: Protocol) -> Requests {
        let mut packed = SPARE.take();
        let resp3 = if protocol == Protocol::Resp3 { RESP3 } else { 0 };
        packed.put_u8(resp3 | if session.no_touch { NO_TOUCH } else { 0 });
        packed.put_u16_le(session.db);
        packed.put_bytes(0, REQUESTS_HEADER - SERVED_AT);
        if let Some(tracks) = &session.tracks {
            packed[0] |= TRACKS | if tracks.remembers() { REMEMBERS } else { 0 };
            // The token is the receiver's, who is known when this is sent.
            packed.put_u64_le(0);
            packed.put_u64_le(tracks.quiet);
        }
        Requests { packed, requests: 0, tells_served: false }
    }

    /// The replies may come with leave to keep them.
    pub(super) fn keeping_copies(mut self) -> Requests {
        self.packed[0] |= KEEPS_COPIES;
        self
    }

    /// Tells how often a copy has answered the last request, since it was last told; false if there is no room for it.
    pub(super) fn tell_served(&mut self, served: u32) -> bool {
        if served == 0 || std::mem::replace(&mut self.tells_served, true) {
            return served == 0;
        }
        let mut field = &mut self.packed[SERVED_AT..REQUESTS_HEADER];
        field.put_u16_le(self.requests - 1);
        field.put_u32_le(served);
        true
    }

    /// Adds a request as it came, if it did.
    #[inline]
    pub(super) fn add_args(&mut self, args: Args<'_>) {
        match args.frame() {
            Some(frame) => {
                self.requests += 1;
                self.packed.extend_from_slice(frame);
            }
            None => self.add(args.iter()),
        }
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

    pub(super) fn send(mut self, node: &Node, topology: &Topology, owner: &str) -> Option<Call> {
        let cluster = node.cluster.as_ref()?;
        if self.packed[0] & TRACKS != 0 {
            let token = node.tracking.hearing.token(owner).unwrap_or_default();
            self.packed[REQUESTS_HEADER..].as_mut().put_u64_le(token);
        }
        cluster.forwarded.fetch_add(u64::from(self.requests), Relaxed);
        let call = cluster.peers.call(owner, topology.epoch(), &self.packed);
        let mut packed = self.packed;
        if packed.capacity() <= KEPT {
            packed.clear();
            SPARE.set(packed);
        }
        Some(call)
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
    /// Whether the sender would keep copies of replies.
    pub(super) keeps_copies: bool,
    pub(super) db: u16,
    /// If the client tracks: the token of the sender, the client that is not to be told of its own changes, and whether its reads are remembered.
    pub(super) tracks: Option<(u64, u64, bool)>,
    /// The place of one request, and how often a copy has answered it.
    pub(super) served: (u16, u32),
    pub(super) requests: Bytes,
}

impl Received {
    /// `None` for what no peer of this version sends.
    pub(super) fn read(mut content: Bytes) -> Option<Received> {
        if content.len() < REQUESTS_HEADER {
            return None;
        }
        let flags = content.get_u8();
        let protocol = if flags & RESP3 == 0 { Protocol::Resp2 } else { Protocol::Resp3 };
        let (no_touch, keeps_copies) = (flags & NO_TOUCH != 0, flags & KEEPS_COPIES != 0);
        let (db, served) = (content.get_u16_le(), (content.get_u16_le(), content.get_u32_le()));
        let tracks = match flags & TRACKS != 0 {
            true if content.len() < TRACKS_HEADER => return None,
            true => Some((content.get_u64_le(), content.get_u64_le(), flags & REMEMBERS != 0)),
            false => None,
        };
        Some(Received { protocol, no_touch, keeps_copies, db, tracks, served, requests: content })
    }
}

/// The answers to what a peer has sent, packed.
#[derive(Default)]
pub(super) struct Answers(BytesMut);

impl Answers {
    /// A reply, and how long it may be kept. An error goes in the place of one that is too large.
    pub(super) fn reply(&mut self, reply: &mut Reply, granted: Option<Duration>) {
        let length = reply.remaining();
        if length > MAX_REPLY {
            return self.too_large(reply, length);
        }
        self.0.reserve(ANSWER_HEADER + size_of::<u32>() + length);
        match granted {
            None => {
                self.0.put_u8(REPLY);
                self.0.put_u32_le(length as u32);
            }
            Some(lasts) => {
                self.0.put_u8(GRANTED);
                self.0.put_u32_le((size_of::<u32>() + length) as u32);
                // Less than a second.
                self.0.put_u32_le(lasts.as_millis() as u32);
            }
        }
        match reply.chunk() {
            // Nearly always.
            whole if whole.len() == length => self.0.put_slice(whole),
            _ => self.0.put(&mut *reply),
        }
        reply.clear();
    }

    /// As if the command had failed, but it has not.
    #[cold]
    fn too_large(&mut self, reply: &mut Reply, length: usize) {
        reply.clear();
        reply.shrink_to(0);
        reply.error(format!(
            "ERR the command was carried out, but its reply of {length} bytes is too large to be forwarded (at most {MAX_REPLY}): ask for less at a time, or the key's owner itself by a client that knows clusters"
        ));
        self.reply(reply, None);
    }

    /// Whether there is so much that what follows should be asked for by itself.
    pub(super) fn is_enough(&self) -> bool {
        self.0.len() > ENOUGH
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

    /// All of them, if they are many bytes: then they had better not be copied.
    pub(super) fn take_large(&mut self) -> Option<Bytes> {
        (self.0.len() > MAX_CONTENT).then(|| std::mem::take(&mut self.0).freeze())
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
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
    /// It was not run, and it would be in vain to ask again.
    Refused(CommandError),
}

/// Takes the first answer; `None` for what no peer of this version sends.
pub(super) fn take(answers: &mut Bytes) -> Option<Outcome> {
    take_granted(answers).map(|(outcome, _)| outcome)
}

/// As [`take`], with how long the answer may be kept.
pub(super) fn take_granted(answers: &mut Bytes) -> Option<(Outcome, Option<Duration>)> {
    if answers.len() < ANSWER_HEADER {
        return None;
    }
    let (kind, length) = (answers.get_u8(), answers.get_u32_le() as usize);
    if length > answers.len() {
        return None;
    }
    // The last one takes the memory over, instead of sharing it.
    let mut content = if length == answers.len() { std::mem::take(answers) } else { answers.split_to(length) };
    match kind {
        REPLY => Some((Outcome::Replied(content), None)),
        GRANTED if length >= size_of::<u32>() => {
            let lasts = Duration::from_millis(content.get_u32_le().into());
            Some((Outcome::Replied(content), Some(lasts)))
        }
        MISPLACED if length == size_of::<u64>() => Some((Outcome::Again { epoch: content.get_u64_le() }, None)),
        _ => None,
    }
}

/// Writes the first answer if it is a reply that is best copied and may not be kept. Tells whether it is an error; `None` if the answer is of
/// another kind, which is left where it is.
#[inline]
pub(super) fn take_plain(answers: &mut Bytes, reply: &mut Reply) -> Option<bool> {
    let (header, rest) = answers.split_at_checked(ANSWER_HEADER)?;
    let length = u32::from_le_bytes(header[1..].try_into().ok()?) as usize;
    if header[0] != REPLY || length >= SHARED {
        return None;
    }
    let content = rest.get(..length)?;
    reply.raw(content);
    let failed = content.first() == Some(&b'-');
    answers.advance(ANSWER_HEADER + length);
    Some(failed)
}

/// What came of a request, placed by the topology of `epoch`, that has no answer. A read may be sent again in any case: by the next topology, or when the
/// node may be there again, but not at once, or whoever waits for a node that is gone would keep a processor busy.
pub(super) fn unanswered(error: &CallError, command: &Command, epoch: u64) -> Outcome {
    match error {
        CallError::Unreachable(_) | CallError::Busy => Outcome::Again { epoch: epoch + 1 },
        CallError::Broken if command.spec.flags.contains(Flags::READONLY) => Outcome::Again { epoch: epoch + 1 },
        CallError::Broken => Outcome::Uncertain,
        CallError::TooLarge(size) => Outcome::Refused(too_large(*size)),
    }
}

/// The error for a request that no peer takes.
pub(super) fn too_large(size: usize) -> CommandError {
    CommandError::from(format!(
        "ERR a request of {size} bytes is too large to be forwarded (at most {MAX_CALL}): send it in parts, or to the keys' owner itself by a client that knows clusters"
    ))
}

/// The one other node that owns all keys.
pub(super) fn owner<'t>(topology: &'t Topology, keys: &[Key<'_>]) -> Option<&'t Member> {
    let (first, rest) = keys.split_first()?;
    let owner = topology.owner_of(first.slot())?;
    let is_owners = |key: &Key<'_>| topology.owner_of(key.slot()).is_some_and(|other| other.number == owner.number);
    (!topology.is_here(first.slot()) && rest.iter().all(is_owners)).then_some(owner)
}

/// Writes an outcome that ends a request.
pub(super) fn conclude(reply: &mut Reply, content: Bytes) {
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
        answers.reply(&mut reply, None);
        reply.integer(1);
        answers.reply(&mut reply, Some(Duration::from_millis(300)));
        answers.misplaced(7);
        let mut packed = Bytes::copy_from_slice(answers.as_bytes());
        let (mut plain, mut written) = (packed.clone(), Reply::new());
        assert_eq!(take_plain(&mut plain, &mut written), Some(false));
        assert_eq!(take_plain(&mut plain, &mut written), None, "it may be kept");
        assert_eq!(written.chunk(), b"+PONG\r\n");
        assert_eq!(take(&mut packed), Some(Outcome::Replied(Bytes::from_static(b"+PONG\r\n"))));
        let granted = (Outcome::Replied(Bytes::from_static(b":1\r\n")), Some(Duration::from_millis(300)));
        assert_eq!(take_granted(&mut packed), Some(granted));
        assert_eq!(take(&mut packed), Some(Outcome::Again { epoch: 7 }));
        assert_eq!(take(&mut packed), None);
    }

    #[test]
    fn a_reply_that_is_too_large_is_an_error_and_those_around_it_are_not() {
        let (mut answers, mut reply) = (Answers::default(), Reply::new());
        reply.simple("PONG");
        answers.reply(&mut reply, None);
        // Linked, and so neither written nor copied.
        let large = Bytes::from(vec![0; MAX_REPLY / 8]);
        (0..8).for_each(|_| reply.raw_shared(large.clone()));
        reply.raw(&[b'x'; 100_000]);
        answers.reply(&mut reply, Some(Duration::from_millis(300)));
        assert!(reply.is_empty() && reply.allocated() < 100_000, "its memory is kept");
        reply.integer(1);
        answers.reply(&mut reply, None);
        assert!(!answers.is_enough());
        let mut packed = Bytes::copy_from_slice(answers.as_bytes());
        assert_eq!(take(&mut packed), Some(Outcome::Replied(Bytes::from_static(b"+PONG\r\n"))));
        let Some((Outcome::Replied(error), None)) = take_granted(&mut packed) else { panic!("no reply") };
        let size = (MAX_REPLY + 100_000).to_string();
        assert!(error_in(&error).is_err_and(|error| error.to_string().contains(&size)), "{error:?}");
        assert_eq!(take(&mut packed), Some(Outcome::Replied(Bytes::from_static(b":1\r\n"))));
        assert!(packed.is_empty());
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
