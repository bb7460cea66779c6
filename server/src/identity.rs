//! What this process is and how it was started: facts that never change while it runs.

use std::path::PathBuf;

use forebay_cluster::NodeId;
use forebay_store::UnixMillis;

/// The Redis version whose commands and replies are met; clients choose features by it.
pub const REDIS_VERSION: &str = "7.2.5";

/// Facts of the process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who the node is, in the cluster and after a restart.
    pub node_id: NodeId,
    /// 40 hexadecimal digits, new with every start (Redis' `run_id`).
    pub run_id: String,
    pub started_at: UnixMillis,
    /// Threads that run requests.
    pub worker_threads: usize,
    pub port: u16,
    pub bind: String,
    pub databases: u16,
    pub executable: PathBuf,
    pub config_file: Option<PathBuf>,
    pub zone: Option<String>,
    /// `--enable-debug-command`.
    pub debug_commands: DebugCommands,
}

/// Who may call `DEBUG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugCommands {
    No,
    Local,
    Yes,
}
