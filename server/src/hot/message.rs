//! What an owner sends to a holder to have copies back. It goes the way of forwarded requests.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Copies;
use super::grants::Due;

/// The first byte of such a message; forwarded requests have another one.
pub const TAKE_BACK: u8 = 0x80;

pub(super) fn ask_back<'d>(keys: impl Iterator<Item = &'d Due>) -> BytesMut {
    let mut message = BytesMut::with_capacity(128);
    message.put_u8(TAKE_BACK);
    for key in keys {
        message.reserve(size_of::<u16>() + size_of::<u32>() + key.name.len());
        message.put_u16_le(key.db);
        // A key is at most as long as a message, which fits.
        message.put_u32_le(key.name.len() as u32);
        message.put_slice(&key.name);
    }
    message
}

/// Throws away what a message asks for. The answer tells of each key how often its copies have answered; it is empty if the message is
/// not what a node of this version sends.
pub fn give_back(copies: &Copies, message: &Bytes) -> Vec<u8> {
    let (mut rest, mut answer) = (&message[1..], Vec::new());
    while rest.len() >= size_of::<u16>() + size_of::<u32>() {
        let (db, length) = (rest.get_u16_le(), rest.get_u32_le() as usize);
        let Some((key, behind)) = rest.split_at_checked(length) else { return Vec::new() };
        answer.put_u32_le(copies.give_back(db, key));
        rest = behind;
    }
    if rest.is_empty() { answer } else { Vec::new() }
}

/// What an answer tells of each of so many keys; `None` if it is not what a node of this version sends.
pub(super) fn given_back(mut answer: Bytes, keys: usize) -> Option<Vec<u32>> {
    (answer.len() == keys * size_of::<u32>()).then(|| (0..keys).map(|_| answer.get_u32_le()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use forebay_cluster::NodeNumber;
    use forebay_resp::{Args, Protocol};
    use proptest::prelude::*;

    use super::super::{Found, Grant, LONGEST, Wanted};
    use super::*;

    fn due(db: u16, name: &[u8]) -> Due {
        Due { holder: NodeNumber(1), number: 1, hash: 0, db, name: name.into() }
    }

    #[test]
    fn the_keys_that_are_asked_for_are_given_back_and_no_others() {
        let copies = Copies::default();
        let wanted = |db, key| Wanted { db, key, args: Args::from(&[]), protocol: Protocol::Resp2 };
        let keys: [(u16, &[u8]); 4] = [(0, b"a"), (0, b""), (3, b"a"), (0, b"b")];
        for (db, key) in keys {
            copies.keep(&wanted(db, key), b"", Grant { sent: Instant::now(), lasts: LONGEST });
        }
        assert!(matches!(copies.find(&wanted(3, b"a")), Found::Copy(_)));
        let asked = [due(0, b"a"), due(0, b""), due(3, b"a")];
        let answer = give_back(&copies, &ask_back(asked.iter()).freeze());
        assert_eq!(given_back(answer.clone().into(), 3), Some(vec![0, 0, 1]));
        assert_eq!(given_back(answer.into(), 2), None);
        let is_there = keys.map(|(db, key)| matches!(copies.find(&wanted(db, key)), Found::Copy(_)));
        assert_eq!(is_there, [false, false, false, true]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let answer = give_back(&Copies::default(), &Bytes::from(bytes.clone()));
            prop_assert!(answer.len() < bytes.len());
        }
    }
}
