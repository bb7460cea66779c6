//! Random: all entries are worth the same. The last use is kept all the same, for `OBJECT IDLETIME`.

use super::lru::Lru;
use super::{Algorithm, Moment};
use crate::UnixMillis;

pub(super) struct Random;

impl Algorithm for Random {
    fn admitted(moment: &Moment<'_>) -> u32 {
        Lru::admitted(moment)
    }

    #[inline]
    fn touched(access: u32, moment: &Moment<'_>) -> u32 {
        Lru::touched(access, moment)
    }

    fn worth(_access: u32, _deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        u64::from(moment.draw)
    }

    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Lru::idle_seconds(access, now)
    }
}
