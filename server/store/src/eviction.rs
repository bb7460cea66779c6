//! Which entries go first when memory runs short.
//!
//! An algorithm sees no queue and no list, only the four bytes of access metadata that each entry carries: it says how
//! they change when the entry is written and used, and how much an entry is worth by them. Each shard compares a few of
//! its entries at a time and takes the least worthy ([`sweep`]). So a change of policy at run time needs no rebuilding.
//! An algorithm may also put new entries on probation, and remember a little of those that went: what that takes, two
//! bytes a key, is there only while entries are being evicted.

mod evictor;
mod fifo;
mod ghosts;
mod hand;
mod lfu;
mod lrfu;
mod lru;
mod newcomers;
mod onlooker;
mod pace;
mod pool;
mod random;
mod sweep;
mod trial;
mod ttl;

use std::fmt;
use std::str::FromStr;

use crate::UnixMillis;
use crate::random::Random;
use crate::settings::Settings;

pub use evictor::EvictStep;
pub(crate) use lrfu::Learned;
pub use onlooker::Onlooker;
pub(crate) use sweep::Sweep;
pub(crate) use trial::Trial;

/// What an eviction algorithm is.
///
/// What is to be known of the world is in the moment: the same access, deadline and moment give the same answer. An
/// algorithm must accept metadata that another one wrote, since the policy may change at any time; it may judge such
/// entries badly, but not panic.
trait Algorithm {
    /// The metadata of an entry that has just been written for the first time.
    fn admitted(moment: &Moment<'_>) -> u32;

    /// The metadata after one more use.
    fn touched(access: u32, moment: &Moment<'_>) -> u32;

    /// What keeping the entry is worth: of those compared, the entry with the least goes first. The worth of an entry
    /// that is left alone never rises, so one that is worth more than it was has been used since.
    fn worth(access: u32, deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64;

    /// Whole seconds since the last use, if the metadata can tell.
    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64>;

    /// What is worth remembering of an entry that goes, at most [`ghosts::MOST`]; 0 for nothing.
    fn legacy(_access: u32, _moment: &Moment<'_>) -> u8 {
        0
    }

    /// As [`Self::admitted`] while entries are being evicted, for an entry whose key left that legacy: it may begin on
    /// probation.
    fn arrived(_legacy: u8, moment: &Moment<'_>) -> u32 {
        Self::admitted(moment)
    }

    /// Whether the entry is on probation and has been used since then: it is not to be compared with the others yet.
    fn is_on_probation(_access: u32, _since: UnixMillis, _moment: &Moment<'_>) -> bool {
        false
    }

    /// The metadata of an entry whose probation ends.
    fn settled(access: u32) -> u32 {
        access
    }

    /// Whether the entry whose probation ends, and not the least worthy of the others, is to stay.
    fn outranks(_newcomer: u32, _least_worthy: u32, _moment: &Moment<'_>) -> bool {
        true
    }
}

/// When something happens to an entry, and under which settings.
pub(crate) struct Moment<'s> {
    pub(crate) now: UnixMillis,
    pub(crate) settings: &'s Settings,
    /// Another number for each moment, such as a count: chance is made from it, by those who need it.
    pub(crate) number: u64,
}

impl Moment<'_> {
    /// Random bits.
    fn draw(&self) -> u32 {
        (Random::new(self.number).next() >> u32::BITS) as u32
    }
}

/// Calls an algorithm's function without a table of pointers: the compiler sees through it.
macro_rules! with_algorithm {
    ($policy:expr, $function:ident($($argument:expr),*)) => {
        match $policy {
            EvictionPolicy::NoEviction | EvictionPolicy::AllKeysLru | EvictionPolicy::VolatileLru => lru::Lru::$function($($argument),*),
            EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => lfu::Lfu::$function($($argument),*),
            EvictionPolicy::AllKeysRandom | EvictionPolicy::VolatileRandom => random::Arbitrary::$function($($argument),*),
            EvictionPolicy::VolatileTtl => ttl::Ttl::$function($($argument),*),
            EvictionPolicy::AllKeysFifo => fifo::Fifo::$function($($argument),*),
            EvictionPolicy::AllKeysLrfu | EvictionPolicy::VolatileLrfu => lrfu::Lrfu::$function($($argument),*),
        }
    };
}

/// A policy: an algorithm, and whether it may take every entry or only those with a deadline (`volatile`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EvictionPolicy {
    /// Nothing is evicted; writes fail when memory is short.
    NoEviction,
    /// The least recently used entry of all.
    AllKeysLru,
    /// The least recently used entry with a deadline.
    VolatileLru,
    /// The least frequently used entry of all.
    AllKeysLfu,
    /// The least frequently used entry with a deadline.
    VolatileLfu,
    /// Any entry.
    AllKeysRandom,
    /// Any entry with a deadline.
    VolatileRandom,
    /// The entry with the nearest deadline.
    VolatileTtl,
    /// The entry written the longest ago.
    AllKeysFifo,
    /// The entry of all that was used the least often or the longest ago, whichever has been the better rule of late.
    #[default]
    AllKeysLrfu,
    /// The same among those with a deadline.
    VolatileLrfu,
}

impl EvictionPolicy {
    /// Every policy, in the order in which an error lists them.
    pub const ALL: [EvictionPolicy; 11] = [
        EvictionPolicy::NoEviction,
        EvictionPolicy::AllKeysLru,
        EvictionPolicy::VolatileLru,
        EvictionPolicy::AllKeysLfu,
        EvictionPolicy::VolatileLfu,
        EvictionPolicy::AllKeysRandom,
        EvictionPolicy::VolatileRandom,
        EvictionPolicy::VolatileTtl,
        EvictionPolicy::AllKeysFifo,
        EvictionPolicy::AllKeysLrfu,
        EvictionPolicy::VolatileLrfu,
    ];

    /// The name that `maxmemory-policy` knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            EvictionPolicy::NoEviction => "noeviction",
            EvictionPolicy::AllKeysLru => "allkeys-lru",
            EvictionPolicy::VolatileLru => "volatile-lru",
            EvictionPolicy::AllKeysLfu => "allkeys-lfu",
            EvictionPolicy::VolatileLfu => "volatile-lfu",
            EvictionPolicy::AllKeysRandom => "allkeys-random",
            EvictionPolicy::VolatileRandom => "volatile-random",
            EvictionPolicy::VolatileTtl => "volatile-ttl",
            EvictionPolicy::AllKeysFifo => "allkeys-fifo",
            EvictionPolicy::AllKeysLrfu => "allkeys-lrfu",
            EvictionPolicy::VolatileLrfu => "volatile-lrfu",
        }
    }

    /// Whether only entries with a deadline may be evicted.
    pub fn is_volatile_only(self) -> bool {
        match self {
            EvictionPolicy::VolatileLru
            | EvictionPolicy::VolatileLfu
            | EvictionPolicy::VolatileRandom
            | EvictionPolicy::VolatileTtl
            | EvictionPolicy::VolatileLrfu => true,
            EvictionPolicy::NoEviction
            | EvictionPolicy::AllKeysLru
            | EvictionPolicy::AllKeysLfu
            | EvictionPolicy::AllKeysRandom
            | EvictionPolicy::AllKeysFifo
            | EvictionPolicy::AllKeysLrfu => false,
        }
    }

    /// Whether entries keep a counter of their uses, which `OBJECT FREQ` tells, and not their last use, which
    /// `OBJECT IDLETIME` tells.
    pub fn counts_uses(self) -> bool {
        matches!(self, EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu)
    }

    #[inline]
    pub(crate) fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }

    pub(crate) fn admitted(self, moment: &Moment<'_>) -> u32 {
        with_algorithm!(self, admitted(moment))
    }

    #[inline]
    pub(crate) fn touched(self, access: u32, moment: &Moment<'_>) -> u32 {
        with_algorithm!(self, touched(access, moment))
    }

    #[inline]
    fn worth(self, access: u32, deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        with_algorithm!(self, worth(access, deadline, moment))
    }

    fn legacy(self, access: u32, moment: &Moment<'_>) -> u8 {
        with_algorithm!(self, legacy(access, moment))
    }

    fn arrived(self, legacy: u8, moment: &Moment<'_>) -> u32 {
        with_algorithm!(self, arrived(legacy, moment))
    }

    #[inline]
    fn is_on_probation(self, access: u32, since: UnixMillis, moment: &Moment<'_>) -> bool {
        with_algorithm!(self, is_on_probation(access, since, moment))
    }

    pub(crate) fn settled(self, access: u32) -> u32 {
        with_algorithm!(self, settled(access))
    }

    fn outranks(self, newcomer: u32, least_worthy: u32, moment: &Moment<'_>) -> bool {
        with_algorithm!(self, outranks(newcomer, least_worthy, moment))
    }

    /// Whether it may take an entry with that deadline.
    #[inline]
    fn may_take(self, deadline: Option<UnixMillis>) -> bool {
        deadline.is_some() || !self.is_volatile_only()
    }

    /// Whether it puts entries on probation and remembers those that went.
    fn remembers(self) -> bool {
        matches!(self, EvictionPolicy::AllKeysLrfu | EvictionPolicy::VolatileLrfu)
    }

    /// Whether there are two rules that vie, so that a [`Trial`] tells which is to be in force.
    fn is_tried(self) -> bool {
        self == EvictionPolicy::AllKeysLrfu
    }

    pub(crate) fn idle_seconds(self, access: u32, now: UnixMillis) -> Option<u64> {
        with_algorithm!(self, idle_seconds(access, now))
    }

    pub(crate) fn frequency(self, access: u32, moment: &Moment<'_>) -> Option<u8> {
        self.counts_uses().then(|| lfu::frequency(access, moment))
    }
}

impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that no policy has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: String,
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no eviction policy; use one of", self.name)?;
        for (i, policy) in EvictionPolicy::ALL.into_iter().enumerate() {
            write!(f, "{} {policy}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownPolicy {}

impl FromStr for EvictionPolicy {
    type Err = UnknownPolicy;

    /// Names are matched without regard to case, as `CONFIG SET` does.
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownPolicy { name: name.to_owned() })
    }
}

/// The clock of access metadata: 32 bits of 16 ms ticks, which come round after two years.
const TICK_BITS: u32 = 4;

fn ticks(now: UnixMillis) -> u32 {
    (now >> TICK_BITS) as u32
}

/// Ticks from `then` until `now`; what seems to lie ahead counts as now.
fn ticks_since(then: u32, now: UnixMillis) -> u32 {
    let elapsed = ticks(now).wrapping_sub(then) as i32;
    elapsed.max(0) as u32
}

fn seconds_since(then: u32, now: UnixMillis) -> u64 {
    (u64::from(ticks_since(then, now)) << TICK_BITS) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for (number, policy) in EvictionPolicy::ALL.into_iter().enumerate() {
            assert_eq!(policy as usize, number);
            assert_eq!(EvictionPolicy::from_number(number as u8), policy);
            assert_eq!(policy.to_string().to_uppercase().parse(), Ok(policy));
        }
        let unknown = "allkeys-lifo".parse::<EvictionPolicy>().unwrap_err();
        assert!(unknown.to_string().contains("allkeys-lifo") && unknown.to_string().contains("volatile-ttl"));
    }

    #[test]
    fn the_clock_may_wrap() {
        let wraps_at = (1i64 << 32) << TICK_BITS;
        assert_eq!(seconds_since(ticks(wraps_at - 5_000), wraps_at + 5_000), 10);
        assert_eq!(seconds_since(ticks(wraps_at + 5_000), wraps_at), 0);
    }
}
