//! First in, first out: the metadata is the time of the first write, and uses leave it alone.

use super::lru::Lru;
use super::{Algorithm, Moment};
use crate::UnixMillis;

pub(super) struct Fifo;

impl Algorithm for Fifo {
    fn admitted(moment: &Moment<'_>) -> u32 {
        Lru::admitted(moment)
    }

    #[inline]
    fn touched(access: u32, _moment: &Moment<'_>) -> u32 {
        access
    }

    fn worth(access: u32, deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        Lru::worth(access, deadline, moment)
    }

    /// The age: the last use is not known.
    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Lru::idle_seconds(access, now)
    }
}
