//! What the system tells of this process.

use std::time::Duration;

/// Clock ticks per second in `/proc`: `USER_HZ`, which is 100 on every Linux that we run on.
const TICKS: u32 = 100;

/// Processor time since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub user: Duration,
    pub system: Duration,
    /// Of children that have ended.
    pub children_user: Duration,
    pub children_system: Duration,
}

/// Processor time of this process; zero where the system does not tell.
pub fn cpu_time() -> CpuTime {
    std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| parse_stat(&stat)).unwrap_or_default()
}

/// See proc_pid_stat(5): utime is field 14, counted from 1, and the name in field 2 may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<CpuTime> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name
        .split_whitespace()
        .skip(11)
        .map(|ticks| ticks.parse().ok().map(|ticks: u32| Duration::from_secs(1) * ticks / TICKS));
    let mut next = || times.next().flatten();
    Some(CpuTime { user: next()?, system: next()?, children_user: next()?, children_system: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 17 0 3 0 250 50 1 2 20 0 1 0 12";
        let cpu = parse_stat(stat).expect("times");
        assert_eq!(cpu.user, Duration::from_millis(2500));
        assert_eq!(cpu.system, Duration::from_millis(500));
        assert_eq!((cpu.children_user, cpu.children_system), (Duration::from_millis(10), Duration::from_millis(20)));
    }

    #[test]
    fn the_system_tells_of_this_process() {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("a Linux");
        assert!(parse_stat(&stat).is_some());
    }
}
