//! SCAN over all nodes: slot by slot, in their order, each by who owns it.
//!
//! A step asks all nodes at once to go on from the cursor through the slots that are theirs (`FOREBAY.SCAN`), and each comes as far as it comes. Up to where the
//! first of them has stopped everything is listed, and there the next step begins; what the others have listed beyond is left for then.
//!
//! Invariant: a key that is there from the beginning of a scan to its end is listed, whatever nodes join, leave or die meanwhile.
//! - Every slot is somebody's part: a step counts only if all nodes have answered by one and the same epoch, in which each slot has one owner.
//! - Within a slot, a position is of the process that gave it: another one, which has the keys in another order, begins the slot anew.

use bytes::{Buf, Bytes};
use forebay_cluster::{Node as Member, SLOT_COUNT, Topology, slot_of};
use forebay_resp::{Args, Reply};
use forebay_store::CURSOR_BITS;

use super::Engine;
use super::everywhere::{Parts, may_own};
use super::forward;
use super::merge::{not_understood, number};
use super::patience::Patience;
use crate::command::error::CommandError;
use crate::command::scan::{LIFE_BITS, parse_cursor};
use crate::session::Session;

/// Where a scan stands. As a number it has 53 bits: JavaScript's numbers have no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    slot: u16,
    position: u64,
    /// Whose position that is; 0 at the start of a slot.
    life: u16,
}

/// What one node has listed.
struct Part {
    epoch: u64,
    /// Where it has come to.
    end: Cursor,
    keys: Bytes,
    count: usize,
}

impl Engine {
    /// Runs one step of a scan.
    pub(super) async fn scan(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        patience: &mut Patience,
    ) -> Result<(), CommandError> {
        let cursor = Cursor::decode(parse_cursor(args.get(1).unwrap_or_default())?);
        loop {
            let topology = self.whole(patience).await?;
            let members: Vec<_> = topology.nodes().iter().filter(|member| may_own(member)).collect();
            let parts = self.parts_of_scan(session, args, reply, cursor, (&topology, &members)).await?;
            let Some(parts) = parts else {
                self.settled_or_down(topology.epoch() + 1, patience).await?;
                continue;
            };
            let later = parts.iter().map(|part| part.epoch).filter(|epoch| *epoch != topology.epoch()).max();
            match later {
                None => return write(reply, &parts),
                // A node that is behind is waited for, too.
                Some(epoch) => self.settled_or_down(epoch.max(topology.epoch() + 1), patience).await?,
            }
        }
    }

    /// What each member lists from the cursor on; `None` if one of them could not be asked.
    async fn parts_of_scan(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &Reply,
        cursor: Cursor,
        (topology, members): (&Topology, &[&Member]),
    ) -> Result<Option<Vec<Part>>, CommandError> {
        let numbers = [cursor.slot.into(), cursor.position, cursor.life.into(), members.len() as u64];
        let numbers = numbers.map(|number| number.to_string());
        let options = (2..args.len()).filter_map(|at| args.get(at));
        let part: Vec<&[u8]> = [b"FOREBAY.SCAN".as_slice()]
            .into_iter()
            .chain(numbers.iter().map(String::as_bytes))
            .chain(options)
            .collect();
        match self.all_of(session, Args::from(&part[..]), reply.protocol(), topology, members).await? {
            Parts::Again { .. } => Ok(None),
            Parts::Answered(parts) => parts.into_iter().map(Part::read).collect::<Result<_, _>>().map(Some),
        }
    }
}

/// Answers with everything up to where the first part has ended.
fn write(reply: &mut Reply, parts: &[Part]) -> Result<(), CommandError> {
    let end = parts.iter().map(|part| part.end).min().unwrap_or(Cursor::END);
    let (mut listed, mut keys) = (0, Vec::with_capacity(parts.len()));
    for part in parts {
        match part.end == end {
            true => {
                listed += part.count;
                keys.push(part.keys.clone());
            }
            false => {
                let (count, before) = part.before(end.slot)?;
                listed += count;
                keys.push(before);
            }
        }
    }
    reply.array(2);
    reply.bulk_text(format_args!("{}", end.encode()));
    reply.array(listed);
    keys.into_iter().for_each(|keys| forward::conclude(reply, keys));
    Ok(())
}

impl Part {
    fn read(mut content: Bytes) -> Result<Part, CommandError> {
        forward::error_in(&content)?;
        let read = (|| {
            let fields = number(&mut content, b'*').filter(|fields| *fields == 5);
            let mut integer = || number(&mut content, b':');
            let (epoch, slot, position, life) = (integer()?, integer()?, integer()?, integer()?);
            let count = number(&mut content, b'*')?;
            let end = Cursor {
                slot: u16::try_from(slot).ok()?,
                position: u64::try_from(position).ok()?,
                life: if position == 0 { 0 } else { u16::try_from(life).ok()? },
            };
            fields?;
            Some(Part { epoch: u64::try_from(epoch).ok()?, end, keys: content, count: usize::try_from(count).ok()? })
        })();
        read.ok_or_else(not_understood)
    }

    /// The keys of slots before that one, and how many they are. A node lists its slots in their order.
    fn before(&self, slot: u16) -> Result<(usize, Bytes), CommandError> {
        let mut rest = self.keys.clone();
        for at in 0..self.count {
            let length = self.keys.len() - rest.len();
            let key = number(&mut rest, b'$').and_then(|key| usize::try_from(key).ok());
            let key =
                key.filter(|key| key.checked_add(2).is_some_and(|end| end <= rest.len())).ok_or_else(not_understood)?;
            if slot_of(&rest[..key]) >= slot {
                return Ok((at, self.keys.slice(..length)));
            }
            rest.advance(key + 2);
        }
        Ok((self.count, self.keys.clone()))
    }
}

impl Cursor {
    /// Behind the last slot.
    const END: Cursor = Cursor { slot: SLOT_COUNT, position: 0, life: 0 };

    /// A number that no scan gave is a place like any other, or the end.
    fn decode(cursor: u64) -> Cursor {
        let life = (cursor >> CURSOR_BITS) as u16 & ((1 << LIFE_BITS) - 1);
        match u16::try_from(cursor >> (CURSOR_BITS + LIFE_BITS)) {
            Ok(slot) if slot < SLOT_COUNT => Cursor { slot, position: cursor & ((1 << CURSOR_BITS) - 1), life },
            _ => Cursor::END,
        }
    }

    /// 0, where a scan starts, for its end.
    fn encode(self) -> u64 {
        if self.slot >= SLOT_COUNT {
            return 0;
        }
        u64::from(self.slot) << (CURSOR_BITS + LIFE_BITS) | u64::from(self.life) << CURSOR_BITS | self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(slot: u16, position: u64, keys: &[&str]) -> Part {
        let mut written = Reply::new();
        keys.iter().for_each(|key| written.bulk(key.as_bytes()));
        let keys_written = written.copy_to_bytes(written.remaining());
        let life = if position == 0 { 0 } else { 7 };
        Part { epoch: 1, end: Cursor { slot, position, life }, keys: keys_written, count: keys.len() }
    }

    fn answer(parts: &[Part]) -> String {
        let mut reply = Reply::new();
        write(&mut reply, parts).expect("understood");
        String::from_utf8(reply.copy_to_bytes(reply.remaining()).to_vec()).expect("text")
    }

    #[test]
    fn what_lies_beyond_the_first_end_is_left_for_the_next_step() {
        let (foo, hello, b) = (slot_of(b"foo"), slot_of(b"hello"), slot_of(b"b"));
        assert!(hello < b && b < foo, "{hello} {b} {foo}");
        let parts = [part(foo, 3, &["hello", "foo"]), part(b + 1, 0, &["b"])];
        let cursor = Cursor { slot: b + 1, position: 0, life: 0 }.encode();
        let digits = cursor.to_string();
        assert_eq!(answer(&parts), format!("*2\r\n${}\r\n{digits}\r\n*2\r\n$5\r\nhello\r\n$1\r\nb\r\n", digits.len()));
        let parts = [part(foo, 3, &["hello", "foo"]), part(SLOT_COUNT, 0, &["b"])];
        assert!(
            answer(&parts).ends_with("*3\r\n$5\r\nhello\r\n$3\r\nfoo\r\n$1\r\nb\r\n"),
            "the slot that is not finished"
        );
        let parts = [part(SLOT_COUNT, 0, &["hello", "foo"]), part(SLOT_COUNT, 0, &["b"])];
        assert!(answer(&parts).starts_with("*2\r\n$1\r\n0\r\n*3\r\n"));
    }

    proptest! {
        #[test]
        fn cursors_survive_a_double(slot in 0..SLOT_COUNT, position in 0..1u64 << CURSOR_BITS, life in 0..1u16 << LIFE_BITS) {
            let cursor = Cursor { slot, position, life };
            let number = cursor.encode();
            prop_assert_eq!(number as f64 as u64, number);
            prop_assert_eq!(Cursor::decode(number), cursor);
        }

        #[test]
        fn any_number_is_a_place(number in any::<u64>()) {
            let cursor = Cursor::decode(number);
            prop_assert!(cursor.slot <= SLOT_COUNT);
        }

        #[test]
        fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), slot in 0..SLOT_COUNT) {
            if let Ok(part) = Part::read(Bytes::from(bytes)) {
                let _read_or_refused = part.before(slot);
            }
        }
    }
}
