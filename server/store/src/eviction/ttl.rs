//! Nearest deadline first. The last use is kept all the same, for `OBJECT IDLETIME`.

use super::lru::Lru;
use super::{Algorithm, Moment};
use crate::UnixMillis;

pub(super) struct Ttl;

impl Algorithm for Ttl {
    fn admitted(moment: &Moment<'_>) -> u32 {
        Lru::admitted(moment)
    }

    #[inline]
    fn touched(access: u32, moment: &Moment<'_>) -> u32 {
        Lru::touched(access, moment)
    }

    fn worth(_access: u32, deadline: Option<UnixMillis>, _moment: &Moment<'_>) -> u64 {
        deadline.map_or(u64::MAX, |deadline| deadline.max(0) as u64)
    }

    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Lru::idle_seconds(access, now)
    }
}
