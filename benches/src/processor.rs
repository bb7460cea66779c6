//! Processors: what a process has used of them, and which of them it may use.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// A process id, as the system's files have it.
pub(crate) type ProcessId = u32;

/// What a process has used of the processors since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    /// The time that its threads have run.
    pub(crate) total: Duration,
    /// Clock ticks in which it was found running its own code, and the kernel's on its behalf: only their proportion is used.
    user_ticks: u64,
    system_ticks: u64,
}

impl CpuTime {
    /// Reads the accounts of all threads of the process: `schedstat` has their running time to the nanosecond, `stat` how it divides.
    /// Threads that have ended are not in `schedstat`; servers do not end threads under load.
    ///
    /// # Panics
    /// When there is no such process.
    pub(crate) fn of(process: ProcessId) -> CpuTime {
        let tasks = tasks(process).into_iter();
        let nanos = tasks.filter_map(|task| {
            let account = fs::read_to_string(format!("/proc/{process}/task/{task}/schedstat")).ok()?;
            account.split(' ').next()?.parse::<u64>().ok()
        });
        let total = Duration::from_nanos(nanos.sum());
        let (user_ticks, system_ticks) = ticks(process);
        CpuTime { total, user_ticks, system_ticks }
    }

    /// The share of the time that was spent outside the kernel; none when it was too short to be divided.
    pub(crate) fn user_share(&self) -> Option<f64> {
        let ticks = self.user_ticks + self.system_ticks;
        (ticks > 0).then(|| self.user_ticks as f64 / ticks as f64)
    }
}

impl Sub for CpuTime {
    type Output = CpuTime;

    fn sub(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            total: self.total.saturating_sub(earlier.total),
            user_ticks: self.user_ticks - earlier.user_ticks,
            system_ticks: self.system_ticks - earlier.system_ticks,
        }
    }
}

/// Confines all threads of the process, and those that they start later, to `cpus`.
///
/// # Panics
/// When there is no such process, or none of the processors.
pub(crate) fn pin(process: ProcessId, cpus: &[usize]) {
    for task in tasks(process) {
        let Some(task) = Pid::from_raw(task) else {
            continue;
        };
        sched_setaffinity(Some(task), &cpu_set(cpus)).expect("the thread is there, and so are the processors");
    }
}

/// Confines the calling thread to `cpus`.
pub(crate) fn pin_this_thread(cpus: &[usize]) {
    sched_setaffinity(None, &cpu_set(cpus)).expect("the processors are there");
}

/// Lets the calling thread run anywhere again.
pub(crate) fn unpin_this_thread() {
    pin_this_thread(&(0..count()).collect::<Vec<_>>());
}

/// How many processors there are.
pub(crate) fn count() -> usize {
    fs::read_to_string("/proc/stat").map_or(1, |stat| {
        stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count().max(1)
    })
}

/// The load averages of the last 1, 5 and 15 minutes, as the system writes them.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn cpu_set(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    set
}

fn tasks(process: ProcessId) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)); the second field, in brackets, may hold blanks.
fn ticks(process: ProcessId) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut next = || fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
    (next(), next())
}
