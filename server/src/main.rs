//! The binary: reads the configuration, does the task, tells how it ended by the exit code.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use forebay::administer::{self, AdministerError};
use forebay::app::{App, StartError};
use forebay::check::{self, Findings};
use forebay::config::{Config, ConfigError, Invocation, Task};
use forebay::demo;
use forebay::logging;
use forebay::memory::{self, CountingAllocator};
use forebay::node::Node;
use forebay::signals::Signals;
use forebay_cluster::membership::admin::AdminError;
use forebay_cluster::membership::groups::GroupsError;
use forebay_origin::Fault;
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::{error, info};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Threads for loads and housekeeping. Requests have threads of their own.
const BACKGROUND_THREADS: usize = 2;

/// How long tasks of the runtime may take to end after everything was closed.
const RUNTIME_END: Duration = Duration::from_secs(2);

/// Exit code for a command line or configuration that is wrong, as sysexits.h has it (`EX_USAGE` and `EX_CONFIG` are one here).
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let invocation = match Invocation::read(std::env::args_os(), &|name| std::env::var_os(name)) {
        Ok(invocation) => invocation,
        Err(ConfigError::CommandLine(error)) => error.exit(),
        Err(ConfigError::Faults(faults)) => return complain(&faults, MISUSE),
    };
    match prepare(&invocation.config).and_then(|runtime| run(&invocation, &runtime).map(|code| (runtime, code))) {
        Ok((runtime, code)) => {
            runtime.shutdown_timeout(RUNTIME_END);
            code
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(invocation: &Invocation, runtime: &Runtime) -> Result<ExitCode, Box<dyn Error>> {
    let config = &invocation.config;
    match &invocation.task {
        Task::Node | Task::Frontend => Ok(runtime.block_on(serve(config, runtime.handle()))?),
        Task::Check => {
            let findings = runtime.block_on(check::check(config));
            show(&findings)?;
            findings.advice.iter().for_each(|advice| eprintln!("{}", advice.as_warning()));
            Ok(if findings.faults.is_empty() { ExitCode::SUCCESS } else { complain(&findings.faults, 1) })
        }
        Task::Cluster(action) => Ok(ended(runtime.block_on(administer::administer(action, config)))),
        Task::Groups(action) => Ok(ended(runtime.block_on(administer::administer_groups(action, config)))),
        Task::Demo(options) => {
            runtime.block_on(demo::run(config, options, runtime.handle()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints what was found, to whoever reads it still.
fn show(findings: &Findings<'_>) -> io::Result<()> {
    match write!(io::stdout().lock(), "{findings}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// How a command to a running cluster ended.
fn ended(done: Result<(), AdministerError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(AdministerError::Faults(faults)) => complain(&faults, 1),
        // They begin with their places, as those above.
        Err(AdministerError::Admin(AdminError::Groups(GroupsError::Faults(faults)))) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            eprintln!("nothing was changed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the whole process needs once.
fn prepare(config: &Config) -> Result<Runtime, Box<dyn Error>> {
    // Whoever asked for TLS first would otherwise decide for all; an error means that it is installed already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    memory::check_blocks()?;
    logging::start(config.log)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("background")
        .enable_all()
        .build()?;
    Ok(runtime)
}

/// Serves until a signal or SHUTDOWN, then drains.
async fn serve(config: &Config, background: &Handle) -> Result<ExitCode, StartError> {
    let mut signals = Signals::listen()?;
    let app = App::start(config, background).await?;
    let node = app.node().clone();
    tokio::select! {
        signal = signals.next() => info!(signal, "asked to end"),
        () = node.gates.shutdown_requested() => info!("SHUTDOWN was called"),
        reason = expelled(&node) => {
            let part = if node.is_frontend() { "this frontend cannot follow" } else { "this node cannot be a member of" };
            error!("{part} its cluster: {reason}");
            return Ok(ExitCode::FAILURE);
        }
    }
    let hurry = async move {
        // Not within the log line, which is not evaluated when nobody reads it.
        let signal = signals.next().await;
        info!(signal, "asked to end at once");
    };
    app.drain(config.grace, hurry).await;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the node cannot be a member any more, or the frontend not follow, which does not pass by itself. For ever, if it is alone.
async fn expelled(node: &Node) -> String {
    let Some(cluster) = &node.cluster else { return std::future::pending().await };
    let mut failures = cluster.failure();
    match failures.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(reason)) => reason.clone(),
        _ => std::future::pending().await,
    }
}

fn complain(faults: &[Fault], code: u8) -> ExitCode {
    for fault in faults {
        eprintln!("{fault}");
    }
    let count = faults.len();
    eprintln!("{count} {} in the configuration", if count == 1 { "fault" } else { "faults" });
    ExitCode::from(code)
}
