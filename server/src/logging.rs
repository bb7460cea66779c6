//! The log: lines on standard error, for people or for machines.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogConfig, LogFormat};

/// Sets the process's log up. To be called once.
///
/// # Errors
/// When the process has a log already.
pub fn start(config: LogConfig) -> Result<(), TryInitError> {
    // Libraries are heard only when they warn, or when everything is wanted.
    let others = if config.level == Level::TRACE { Level::TRACE } else { config.level.min(Level::WARN) };
    // Raft's library warns many times a second of each node that is away, and calls it an error that a node is not a learner yet. What
    // matters of that is told once by those who look after the members.
    let raft = if config.level >= Level::DEBUG { LevelFilter::from(others) } else { LevelFilter::OFF };
    let filter = Targets::new().with_default(others).with_target("forebay", config.level).with_target("openraft", raft);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let layer = match config.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
}
