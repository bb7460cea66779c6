//! A load that was begun and may not be over.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::group_load::GroupLoad;
use crate::load::{LoadError, Loaded};

/// A load from [`crate::Origin::begin`].
///
/// Dropping it costs nobody else anything: a query under way goes on for the others that joined it.
#[derive(Debug)]
pub struct PendingLoad {
    /// `None`: nobody serves it.
    pub(crate) group: Option<Arc<GroupLoad>>,
    pub(crate) progress: Progress,
}

#[derive(Debug)]
pub(crate) enum Progress {
    /// No query is needed, or none is allowed.
    Over(Result<Loaded, LoadError>),
    Asked {
        answer: oneshot::Receiver<Result<Loaded, LoadError>>,
        deadline: Instant,
        /// What a load that misses its deadline ends with.
        late: LoadError,
    },
}

impl PendingLoad {
    /// Waits for the result, no longer than the load timeout after the load was begun.
    ///
    /// # Errors
    /// When the origin is ill, or the group's query or what it gives is bad.
    pub async fn result(self) -> Result<Loaded, LoadError> {
        let result = match self.progress {
            Progress::Over(result) => result,
            Progress::Asked { answer, deadline, late } => {
                match tokio::time::timeout_at(deadline.into(), answer).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => Err(LoadError::Closed),
                    Err(_) => Err(late),
                }
            }
        };
        result.inspect_err(|_| {
            if let Some(group) = &self.group {
                group.counters.count_error();
            }
        })
    }
}
