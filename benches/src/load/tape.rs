//! Requests written ahead, to be sent piece by piece.

use std::ops::Range;

use super::keys::{Draw, Spread};
use super::replies::Wire;
use super::workload::{Dataset, Workload, Writer};

/// Most requests on a tape.
pub(crate) const REQUESTS_MAX: usize = 1 << 20;

/// Bytes at which a tape ends.
const BYTES_MAX: usize = 128 << 20;

/// Fewest requests on a tape, however large they are: the longest batch.
const REQUESTS_MIN: usize = 64;

/// A sequence of requests.
pub(crate) struct Tape {
    bytes: Vec<u8>,
    /// Where each request ends.
    ends: Vec<usize>,
    /// Values that the reply to each of them has.
    pub(crate) values_each: u64,
}

impl Tape {
    /// At most `requests` of `workload` over the keys of `dataset`.
    pub(crate) fn record(workload: Workload, wire: Wire, dataset: &Dataset, spread: Spread, requests: usize) -> Tape {
        let writer = Writer::new(wire, dataset.value_bytes);
        let mut draw = Draw::new(spread, dataset.keys, workload as u64);
        let mut tape = Tape { bytes: Vec::new(), ends: Vec::new(), values_each: workload.values() };
        let mut keys = vec![0; workload.keys()];
        while tape.len() < requests && tape.has_room() {
            keys.iter_mut().for_each(|key| *key = draw.next());
            tape.append(|out| writer.request(workload, &keys, out));
        }
        tape
    }

    /// The requests that make the dataset's keys from `first` on, as many of them as fit.
    pub(crate) fn creating(dataset: &Dataset, wire: Wire, first: usize) -> Tape {
        let writer = Writer::new(wire, dataset.value_bytes);
        let mut tape = Tape { bytes: Vec::new(), ends: Vec::new(), values_each: 0 };
        for key in first..dataset.keys {
            if !tape.has_room() {
                break;
            }
            tape.append(|out| writer.creation(dataset.kind, key, out));
        }
        tape
    }

    /// `requests` GETs of these keys of strings, in no order.
    pub(crate) fn getting(keys: &[usize], requests: usize) -> Tape {
        let writer = Writer::new(Wire::Resp, 0);
        let mut draw = Draw::new(Spread::Uniform, keys.len(), requests as u64);
        let mut tape = Tape { bytes: Vec::new(), ends: Vec::new(), values_each: Workload::Get.values() };
        for _ in 0..requests {
            tape.append(|out| writer.request(Workload::Get, &[keys[draw.next()]], out));
        }
        tape
    }

    /// A SET of each of these keys.
    pub(crate) fn setting(keys: &[usize], value_bytes: usize) -> Tape {
        let writer = Writer::new(Wire::Resp, value_bytes);
        let mut tape = Tape { bytes: Vec::new(), ends: Vec::new(), values_each: Workload::Set.values() };
        for &key in keys {
            tape.append(|out| writer.request(Workload::Set, &[key], out));
        }
        tape
    }

    /// How many requests it has.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of these requests, which lie side by side.
    #[inline]
    pub(crate) fn span(&self, requests: Range<usize>) -> Range<usize> {
        let start = requests.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[requests.end - 1]
    }

    #[inline]
    pub(crate) fn bytes(&self, span: Range<usize>) -> &[u8] {
        &self.bytes[span]
    }

    fn has_room(&self) -> bool {
        self.len() < REQUESTS_MIN || (self.len() < REQUESTS_MAX && self.bytes.len() < BYTES_MAX)
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }
}
