//! What the keeper asks a node, and what that answers. It goes the way of forwarded requests.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_origin::Xid;

use super::sampler::Drawn;
use super::sight::{Held, Sight, Standing, Taken};
use super::{AGES, Place, Totals, Verdict};
use crate::hot::CopiesAge;
use crate::node::Node;

/// The first byte of a question; forwarded requests, [`TAKE_BACK`](crate::hot::TAKE_BACK) and [`LISTEN`](crate::tracking::message::LISTEN) have
/// others.
pub const LOOK: u8 = 0x82;

const TOTALS_BYTES: usize = AGES.len() * Place::ALL.len() * Verdict::ALL.len() * size_of::<u64>();

/// In front of a key: the transaction, and the key's length.
const KEY_HEADER: usize = size_of::<u64>() + size_of::<u32>();

/// An answer for one key: the standing, which of the rest is known, and the rest.
const SIGHT_BYTES: usize = 2 + 7 * size_of::<u64>();

const HAS_ENTRY: u8 = 1;
const KNOWS_SIGHT: u8 = 1 << 1;
const SEES: u8 = 1 << 2;
const HAS_IDENTITY: u8 = 1 << 3;
const WAS_FILLED: u8 = 1 << 4;
const KNOWS_LOAD: u8 = 1 << 5;
const KNOWS_CHANGE: u8 = 1 << 6;
const HAS_COPIES: u8 = 1 << 7;

pub(super) fn question<'d>(totals: &Totals, drawn: impl Iterator<Item = &'d Drawn>) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + TOTALS_BYTES + 64);
    message.put_u8(LOOK);
    totals.numbers().for_each(|number| message.put_u64_le(number));
    for Drawn { key, xid, .. } in drawn {
        message.reserve(KEY_HEADER + key.len());
        message.put_u64_le(xid.0);
        // Longer ones are not drawn.
        message.put_u32_le(key.len() as u32);
        message.put_slice(key);
    }
    message.freeze()
}

/// What this node has of each key that is asked for; empty if the question is not what a node of this version asks.
pub fn answer(node: &Node, mut question: Bytes) -> Vec<u8> {
    question.advance(1);
    let Some((totals, keys)) = read(question) else { return Vec::new() };
    node.freshness.meter.hear(totals);
    let mut answer = Vec::with_capacity(keys.len() * SIGHT_BYTES);
    for (xid, key) in keys {
        put(&mut answer, &Sight::of(node, &key, xid));
    }
    answer
}

fn read(mut question: Bytes) -> Option<(Totals, Vec<(Xid, Bytes)>)> {
    if question.len() < TOTALS_BYTES {
        return None;
    }
    let (mut totals, mut keys) = (Totals::default(), Vec::new());
    totals.numbers_mut().for_each(|number| *number = question.get_u64_le());
    while question.len() >= KEY_HEADER {
        let (xid, length) = (Xid(question.get_u64_le()), question.get_u32_le() as usize);
        if length > question.len() {
            return None;
        }
        keys.push((xid, question.split_to(length)));
    }
    question.is_empty().then_some((totals, keys))
}

fn put(answer: &mut Vec<u8>, sight: &Sight) {
    let Sight { standing, entry, changed, copies } = sight;
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let held = entry.unwrap_or_default();
    let flags = flag(entry.is_some(), HAS_ENTRY)
        | flag(held.sees.is_some(), KNOWS_SIGHT)
        | flag(held.sees == Some(true), SEES)
        | flag(held.identity.is_some(), HAS_IDENTITY)
        | flag(held.filled_at.is_some(), WAS_FILLED)
        | flag(held.loaded_ago.is_some(), KNOWS_LOAD)
        | flag(changed.is_some(), KNOWS_CHANGE)
        | flag(copies.is_some(), HAS_COPIES);
    answer.put_u8(*standing as u8);
    answer.put_u8(flags);
    answer.put_u64_le(held.identity.unwrap_or_default());
    answer.put_i64_le(held.filled_at.unwrap_or_default());
    answer.put_u64_le(micros(held.loaded_ago.unwrap_or_default()));
    let (changed, copies) = (changed.unwrap_or_default(), copies.unwrap_or_default());
    answer.put_u64_le(micros(changed.ago));
    answer.put_i64_le(changed.at);
    answer.put_u64_le(micros(copies.asked));
    answer.put_u64_le(micros(copies.came));
}

/// What an answer tells of each of so many keys; `None` if it is not what a node of this version answers.
pub(super) fn sights(mut answer: Bytes, keys: usize) -> Option<Vec<Sight>> {
    (answer.len() == keys * SIGHT_BYTES).then(|| (0..keys).map(|_| take(&mut answer)).collect())
}

fn take(answer: &mut Bytes) -> Sight {
    let standing = match answer.get_u8() {
        1 => Standing::Owner,
        2 => Standing::Replica,
        _ => Standing::Neither,
    };
    let flags = answer.get_u8();
    let has = |flag: u8| flags & flag != 0;
    let (identity, filled_at) = (answer.get_u64_le(), answer.get_i64_le());
    let loaded_ago = Duration::from_micros(answer.get_u64_le());
    let taken = Taken { ago: Duration::from_micros(answer.get_u64_le()), at: answer.get_i64_le() };
    let [asked, came] = [answer.get_u64_le(), answer.get_u64_le()].map(Duration::from_micros);
    let held = Held {
        sees: has(KNOWS_SIGHT).then(|| has(SEES)),
        identity: has(HAS_IDENTITY).then_some(identity),
        filled_at: has(WAS_FILLED).then_some(filled_at),
        loaded_ago: has(KNOWS_LOAD).then_some(loaded_ago),
    };
    Sight {
        standing,
        entry: has(HAS_ENTRY).then_some(held),
        changed: has(KNOWS_CHANGE).then_some(taken),
        copies: has(HAS_COPIES).then_some(CopiesAge { asked, came }),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_sight()(
            standing in prop::sample::select(vec![Standing::Neither, Standing::Owner, Standing::Replica]),
            entry in prop::option::of(any::<(Option<bool>, Option<u64>, Option<i64>, Option<u32>)>()),
            changed in prop::option::of(any::<(u32, i64)>()),
            copies in prop::option::of(any::<(u32, u32)>()),
        ) -> Sight {
            let micros = |micros: u32| Duration::from_micros(micros.into());
            Sight {
                standing,
                entry: entry.map(|(sees, identity, filled_at, loaded)| {
                    Held { sees, identity, filled_at, loaded_ago: loaded.map(micros) }
                }),
                changed: changed.map(|(ago, at)| Taken { ago: micros(ago), at }),
                copies: copies.map(|(asked, came)| CopiesAge { asked: micros(asked), came: micros(came) }),
            }
        }
    }

    proptest! {
        #[test]
        fn sights_are_read_as_they_were_written(sights in prop::collection::vec(any_sight(), 0..5)) {
            let mut answer = Vec::new();
            sights.iter().for_each(|sight| put(&mut answer, sight));
            prop_assert_eq!(super::sights(answer.clone().into(), sights.len()), Some(sights.clone()));
            prop_assert_eq!(super::sights(answer.into(), sights.len() + 1), None);
        }

        #[test]
        fn questions_are_read_as_they_were_asked(keys in prop::collection::vec((any::<u64>(), "[a-z]{0,9}"), 0..5), cut in 1usize..300) {
            let mut totals = Totals::default();
            totals.numbers_mut().zip(1..).for_each(|(number, value)| *number = value);
            let known = Instant::now();
            let drawn: Vec<Drawn> =
                keys.into_iter().map(|(xid, key)| Drawn { key: key.into(), xid: Xid(xid), known }).collect();
            let asked = question(&totals, drawn.iter());
            let expected = drawn.iter().map(|drawn| (drawn.xid, drawn.key.clone())).collect();
            prop_assert_eq!(read(asked.slice(1..)), Some((totals, expected)));
            // What was cut off is no question, or one for fewer keys.
            let fewer = read(asked.slice(1..asked.len().saturating_sub(cut).max(1)));
            prop_assert!(fewer.is_none_or(|(_, keys)| keys.len() < drawn.len()));
        }
    }
}
