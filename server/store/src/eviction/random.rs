//! Random: all entries are worth the same. The last use is kept all the same, for `OBJECT IDLETIME`.

use super::lru::Lru;
use super::{Algorithm, Moment};
use crate::UnixMillis;

pub(super) struct Arbitrary;

impl Algorithm for Arbitrary {
    fn admitted(moment: &Moment<'_>) -> u32 {
        Lru::admitted(moment)
    }

    #[inline]
    fn touched(access: u32, moment: &Moment<'_>) -> u32 {
        Lru::touched(access, moment)
    }

    /// Chance is in which entries are compared.
    fn worth(_access: u32, _deadline: Option<UnixMillis>, _moment: &Moment<'_>) -> u64 {
        0
    }

    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Lru::idle_seconds(access, now)
    }
}
