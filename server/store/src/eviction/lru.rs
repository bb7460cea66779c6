//! Least recently used: the metadata is the time of the last use.

use super::{Algorithm, Moment, seconds_since, ticks, ticks_since};
use crate::UnixMillis;

pub(super) struct Lru;

impl Algorithm for Lru {
    fn admitted(moment: &Moment<'_>) -> u32 {
        ticks(moment.now)
    }

    #[inline]
    fn touched(_access: u32, moment: &Moment<'_>) -> u32 {
        ticks(moment.now)
    }

    fn worth(access: u32, _deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        u64::from(u32::MAX - ticks_since(access, moment.now))
    }

    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Some(seconds_since(access, now))
    }
}
