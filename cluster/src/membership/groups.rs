//! What the command line asks a node about groups. What a group is, the node itself knows alone: it checks them, and has them agreed on.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// Groups that somebody wants the cluster to agree on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplyGroups {
    /// In the notation of a groups file.
    pub text: String,
    /// How faults name the file.
    pub file: String,
    /// The databases are not asked.
    pub unchecked: bool,
    /// That there are to be no groups any more is meant so.
    pub may_be_empty: bool,
}

/// What was agreed on, and how it differs from before: names of groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AppliedGroups {
    pub version: u64,
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: usize,
    /// What somebody should know though it hinders nothing.
    pub notes: Vec<String>,
}

/// Why nothing was changed, or is not known to be.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum GroupsError {
    /// All that is wrong with the groups.
    #[error("{}", .0.join("\n"))]
    Faults(Vec<String>),
    #[error("{0}")]
    Refused(String),
}

/// The groups of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListedGroups {
    /// The version that the cluster has agreed on; 0: on none.
    pub agreed: u64,
    /// The version that the node uses; 0: those of its own configuration.
    pub used: u64,
    pub groups: Vec<ListedGroup>,
    /// What keeps the node from using what was agreed on.
    pub faults: Vec<String>,
}

/// A group as a node tells of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedGroup {
    pub name: String,
    /// Its pattern.
    pub key: String,
    /// What its rows become, such as `json`.
    pub shape: String,
    /// How long an entry lives, in words.
    pub ttl: String,
    /// As a file has it.
    pub toml: String,
}

/// What a node does about groups.
pub trait GroupsHandler: Send + Sync + 'static {
    /// Checks groups, and has the cluster agree on them.
    fn apply(&self, wanted: ApplyGroups) -> BoxFuture<'_, Result<AppliedGroups, GroupsError>>;

    /// The groups that the node uses.
    fn list(&self) -> ListedGroups;
}
