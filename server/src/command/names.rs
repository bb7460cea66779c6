//! From a command's name, as a client spells it, to its row: on the way of every request, so it takes a handful of instructions.
//!
//! A hash table with open addressing whose keys are the names' first eight bytes in lower case, as one number.

/// Bytes of a name that fit a [`Lead`].
const LEAD_BYTES: usize = 8;

/// Places for each name; with so many, nearly every name lies in the first place that it is looked for.
const PLACES_PER_NAME: usize = 4;

/// Finds names, whatever their letters' case.
pub(super) struct NameIndex {
    /// A power of two of them.
    places: Box<[Option<Place>]>,
    shift: u32,
}

#[derive(Clone, Copy)]
struct Place {
    lead: Lead,
    /// The whole name, lower case.
    name: &'static [u8],
    row: u16,
}

/// A name's length and, in lower case, its first bytes: of names that are not longer, all of them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Lead {
    bytes: u64,
    len: usize,
}

impl NameIndex {
    /// An index of `names`, which are lower case and differ; each is found with its place in the list.
    pub(super) fn new(names: &[&'static str]) -> NameIndex {
        let places = (names.len() * PLACES_PER_NAME).next_power_of_two();
        let mut index =
            NameIndex { places: vec![None; places].into_boxed_slice(), shift: u64::BITS - places.trailing_zeros() };
        for (row, name) in names.iter().enumerate() {
            index.insert(Place { lead: Lead::of(name.as_bytes()), name: name.as_bytes(), row: row as u16 });
        }
        index
    }

    fn insert(&mut self, place: Place) {
        let mut at = place.lead.hash(self.shift);
        while let Some(other) = &self.places[at] {
            assert!(other.name != place.name, "two rows for {}", place.name.escape_ascii());
            at = (at + 1) & (self.places.len() - 1);
        }
        self.places[at] = Some(place);
    }

    /// The place in the list of the name that `spelt` spells.
    #[inline]
    pub(super) fn find(&self, spelt: &[u8]) -> Option<usize> {
        let lead = Lead::of(spelt);
        let mut at = lead.hash(self.shift);
        while let Some(place) = self.places.get(at)? {
            if place.lead == lead && (lead.is_whole() || place.name.eq_ignore_ascii_case(spelt)) {
                return Some(usize::from(place.row));
            }
            at = (at + 1) & (self.places.len() - 1);
        }
        None
    }
}

impl Lead {
    /// Short names are put together from pieces that overlap: which bytes of the number they fill depends on the length alone, so names
    /// of one length differ in it if they differ at all.
    #[inline]
    fn of(name: &[u8]) -> Lead {
        let len = name.len();
        let piece = |at: usize| name[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        let bytes = match len {
            0 => 0,
            1..=3 => u64::from(name[0]) | u64::from(name[len / 2]) << 8 | u64::from(name[len - 1]) << 16,
            4..LEAD_BYTES => u64::from(piece(0)) | u64::from(piece(len - 4)) << 32,
            _ => u64::from(piece(0)) | u64::from(piece(4)) << 32,
        };
        Lead { bytes: lower_case(bytes), len }
    }

    fn is_whole(self) -> bool {
        self.len <= LEAD_BYTES
    }

    /// Multiplicative hashing (D. E. Knuth, "The Art of Computer Programming", volume 3, section 6.4): the product's top bits.
    #[inline]
    fn hash(self, shift: u32) -> usize {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        ((self.bytes ^ (self.len as u64) << 56).wrapping_mul(GOLDEN) >> shift) as usize
    }
}

/// Each of the eight bytes in lower case, if it is an ASCII letter.
#[inline]
fn lower_case(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOP_BITS: u64 = ONES << 7;
    let low = bytes & !TOP_BITS;
    // The top bit of each byte says whether the byte is at least `A`, and whether it is beyond `Z`; no sum reaches the next byte.
    let from_a = low + ONES * (0x80 - b'A') as u64;
    let beyond_z = low + ONES * (0x7f - b'Z') as u64;
    let upper = (from_a ^ beyond_z) & !bytes & TOP_BITS;
    bytes | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: &[&str] =
        &["a", "b", "get", "gat", "set", "mget", "incr", "client", "hgetall", "unlinked", "subscribed", "subscriber"];

    #[test]
    fn every_name_is_found_in_any_case() {
        let index = NameIndex::new(NAMES);
        for (row, name) in NAMES.iter().enumerate() {
            assert_eq!(index.find(name.as_bytes()), Some(row), "{name}");
            assert_eq!(index.find(name.to_uppercase().as_bytes()), Some(row), "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_found(spelt in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20),
            "[a-cgetGET\r\\-@\\[`{]{0,12}".prop_map(String::into_bytes),
        ]) {
            let expected = NAMES.iter().position(|name| name.as_bytes().eq_ignore_ascii_case(&spelt));
            prop_assert_eq!(NameIndex::new(NAMES).find(&spelt), expected);
        }

        #[test]
        fn eight_bytes_become_lower_case_as_one_does(bytes: [u8; 8]) {
            let expected = bytes.map(|byte| byte.to_ascii_lowercase());
            prop_assert_eq!(lower_case(u64::from_le_bytes(bytes)).to_le_bytes(), expected);
        }
    }
}
