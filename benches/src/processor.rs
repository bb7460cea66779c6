//! A process's processor time, and which processor it runs on.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A process id.
pub(crate) type Pid = u32;

/// The time that all threads of the process have run, to the nanosecond (first field of `/proc/PID/task/TID/schedstat`). Threads
/// that have ended meanwhile are not in it; servers do not end threads under load.
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs");
    let nanos = tasks.flatten().filter_map(|task| {
        let account = fs::read_to_string(task.path().join("schedstat")).ok()?;
        account.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Pins all threads of the process to one processor.
pub(crate) fn pin(pid: Pid, cpu: usize) {
    let status = Command::new("taskset")
        .args(["-a", "-c", "-p", &cpu.to_string(), &pid.to_string()])
        .stdout(Stdio::null())
        .status()
        .expect("taskset is installed");
    assert!(status.success(), "process {pid} could not be pinned to processor {cpu}");
}
