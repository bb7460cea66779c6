//! Processes under test: started with their output kept, ended by pid when the owner is dropped.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use tempfile::TempDir;

/// How long a process may take from its start to being ready, or from SIGTERM to its end.
const DEADLINE: Duration = Duration::from_secs(20);

/// The pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// How often a start is tried again: another process may take a free port before we bind it.
const START_ATTEMPTS: usize = 3;

/// A running process with a directory of its own, which vanishes with it.
///
/// When a test panics while it holds the process, the process's output is printed.
pub struct ServerProcess {
    name: &'static str,
    child: Child,
    directory: TempDir,
}

/// Why a process did not become ready.
#[derive(Debug)]
pub enum StartError {
    /// The program could not be run at all.
    Spawn { program: PathBuf, error: io::Error },
    /// The process ended before it was ready.
    Ended { name: &'static str, output: String },
    /// The process runs but was not ready in time.
    Late { name: &'static str, output: String },
}

impl ServerProcess {
    /// Starts a process and waits until `is_ready` holds.
    ///
    /// `command` is made anew for each attempt, with the process's directory, so that every
    /// attempt can take other ports.
    pub fn start<T>(
        name: &'static str,
        mut command: impl FnMut(&Path) -> (Command, T),
        is_ready: impl Fn(&T) -> bool,
    ) -> Result<(Self, T), StartError> {
        let mut attempts = 1;
        loop {
            let directory = TempDir::new().expect("a temporary directory");
            let (command, details) = command(directory.path());
            let mut process = Self::spawn(name, command, directory)?;
            match process.wait_until(|| is_ready(&details)) {
                Ok(()) => return Ok((process, details)),
                Err(StartError::Ended { .. }) if attempts < START_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn spawn(name: &'static str, mut command: Command, directory: TempDir) -> Result<Self, StartError> {
        let output = File::create(output_path(directory.path())).expect("a file for the output");
        let errors = output.try_clone().expect("a second handle to the output");
        let child = command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| StartError::Spawn { program: command.get_program().into(), error })?;
        Ok(Self { name, child, directory })
    }

    fn wait_until(&mut self, is_ready: impl Fn() -> bool) -> Result<(), StartError> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if self.has_ended() {
                return Err(StartError::Ended { name: self.name, output: self.output() });
            }
            if is_ready() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(StartError::Late { name: self.name, output: self.output() })
    }

    /// What the process has printed so far, standard output and errors together.
    pub fn output(&self) -> String {
        fs::read(output_path(self.directory.path()))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The directory that the process runs in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process is gone.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// The code that the process ended with; `None` while it runs and when a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().ok()??.code()
    }

    /// Bytes of physical memory that the process occupies.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most that [`resident_bytes`](Self::resident_bytes) was since the start or [`reset_peak`](Self::reset_peak).
    ///
    /// # Panics
    /// When the process is gone.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Begins to watch the peak anew (proc(5), `clear_refs`).
    ///
    /// # Panics
    /// When the process is gone.
    pub fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("the process runs");
    }

    /// Processor time that all threads of the process have used, as the scheduler counts it.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn processor_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).expect("the process runs");
        let nanos = tasks.filter_map(|task| {
            let account = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            account.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the system tells it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    /// Has all its threads stand still.
    ///
    /// # Panics
    /// When one does not.
    pub fn pause(&self) {
        let _ = Command::new("kill").arg("-STOP").arg(self.id().to_string()).status();
        assert!(eventually(DEADLINE, || is_stopped(self.id())), "{} does not stop", self.name);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        let _ = Command::new("kill").arg("-CONT").arg(self.id().to_string()).status();
    }

    /// Sends SIGTERM, without waiting for what comes of it.
    pub fn terminate(&self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.id().to_string()).status();
    }

    /// Whether the process ends within the deadline.
    pub fn ends(&mut self) -> bool {
        eventually(DEADLINE, || self.has_ended())
    }
}

/// Whether all threads of a process stand still: the signal is sent before it takes effect.
pub(crate) fn is_stopped(process: u32) -> bool {
    states(process).iter().all(|state| *state == 'T')
}

/// The states of its threads, as the system has them.
pub(crate) fn states(process: u32) -> Vec<char> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The state is the first word after the name, which is in brackets and may hold anything (proc(5)).
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- output of {} ----\n{}----", self.name, self.output());
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn { program, error } => {
                write!(f, "cannot run {}: {error}", program.display())
            }
            Self::Ended { name, output } => {
                write!(f, "{name} ended before it was ready:\n{output}")
            }
            Self::Late { name, output } => {
                write!(f, "{name} was not ready within {DEADLINE:?}:\n{output}")
            }
        }
    }
}

impl std::error::Error for StartError {}

/// Looks at `condition` until it holds or `limit` has passed; says whether it held.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// `N` different ports of the loopback interface that are free right now.
pub fn free_ports<const N: usize>() -> [u16; N] {
    // All listeners are held until the last port is known, so that no port is given twice.
    let listeners = [(); N].map(|()| TcpListener::bind(loopback(0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound address").port())
}

/// The address of a port of the loopback interface.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn output_path(directory: &Path) -> PathBuf {
    directory.join("output.log")
}
