//! Why a measurement came to nothing.

use std::path::PathBuf;

use forebay_redis_tests::process::StartError;

use crate::load::driver::LoadError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0} is not there: build it with `cargo build --release -p forebay`, or let FOREBAY_BIN name one")]
    NoBinary(PathBuf),
    #[error("a server did not start: {0}")]
    Start(StartError),
    #[error("two nodes have not become a cluster in time")]
    NoCluster,
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("a server does not tell its figures: {0}")]
    Figures(std::io::Error),
    #[error("redis-benchmark cannot be run, or failed: {0}")]
    CrossCheck(String),
    #[error("callgrind has left no counts: {error}")]
    NotCounted { error: std::io::Error },
    #[error("the signals cannot be watched: {0}")]
    Signals(#[from] ctrlc::Error),
    #[error("{path} cannot be written: {error}")]
    Report { path: PathBuf, error: std::io::Error },
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::Start(error)
    }
}
