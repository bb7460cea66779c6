//! The state machine: the cluster's state, as far as it is applied, and its snapshots. The state is in memory; after a restart it comes
//! from the last snapshot and the log.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::disk::{Edit, Item, KeptSnapshot};
use super::raft::{Command, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types};
use super::wire;
use super::writer::Writer;
use crate::state::{Applied, ClusterState};

/// Answers that are kept for proposals that come twice. A proposer gives up after some seconds, in which there are fewer changes.
const REMEMBERED: usize = 512;

/// What a snapshot has.
#[derive(Clone, Serialize, Deserialize)]
struct Content {
    state: ClusterState,
    /// The last proposals and their answers, the oldest first.
    answered: VecDeque<(u64, Applied)>,
}

/// The state machine that openraft is given.
pub(super) struct Machine {
    content: Content,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// The last snapshot; shared with those that build one.
    snapshot: Arc<Mutex<Option<KeptSnapshot>>>,
    writer: Writer,
    published: watch::Sender<Arc<ClusterState>>,
}

impl Machine {
    /// One that publishes to `published`, which has the empty state. openraft fills it from `snapshot` and the log.
    pub(super) fn new(
        snapshot: Option<KeptSnapshot>,
        writer: Writer,
        published: watch::Sender<Arc<ClusterState>>,
    ) -> Machine {
        let state = ClusterState::clone(&published.borrow());
        Machine {
            content: Content { state, answered: VecDeque::new() },
            applied: None,
            membership: StoredMembership::default(),
            snapshot: Arc::new(Mutex::new(snapshot)),
            writer,
            published,
        }
    }

    fn apply_one(&mut self, entry: Entry) -> Applied {
        self.applied = Some(entry.log_id());
        match entry.payload {
            EntryPayload::Blank => Applied::Unchanged,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(self.applied, membership);
                Applied::Unchanged
            }
            EntryPayload::Normal(command) => self.content.run(command),
        }
    }

    fn publish(&self) {
        self.published.send_if_modified(|published| {
            let state = &self.content.state;
            let differs = published.epoch() != state.epoch() || published.cluster() != state.cluster();
            if differs {
                *published = Arc::new(state.clone());
            }
            differs
        });
    }
}

impl Content {
    fn run(&mut self, command: Command) -> Applied {
        match command {
            Command::Form { cluster, copies } if self.state.epoch() == 0 => {
                self.state = ClusterState::new(cluster, copies);
                Applied::Unchanged
            }
            // It came twice.
            Command::Form { .. } => Applied::Unchanged,
            Command::Change { id, change } => {
                if let Some((_, applied)) = self.answered.iter().rev().find(|(earlier, _)| *earlier == id) {
                    return applied.clone();
                }
                let applied = self.state.apply(change);
                if self.answered.len() == REMEMBERED {
                    self.answered.pop_front();
                }
                self.answered.push_back((id, applied.clone()));
                applied
            }
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let answer = self.apply_one(entry);
            // Before the answer, so that who learns of its change finds it in the state.
            self.publish();
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            content: self.content.clone(),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            snapshot: Arc::clone(&self.snapshot),
            writer: self.writer.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> io::Result<()> {
        let content = postcard::from_bytes(&snapshot)
            .map_err(|error| io::Error::other(format!("a snapshot that cannot be read: {error}")))?;
        let kept = KeptSnapshot { meta: meta.clone(), state: snapshot };
        let is_kept_already = self.snapshot.lock().as_ref().is_some_and(|held| held.meta == kept.meta);
        if !is_kept_already {
            self.writer.write(vec![Edit::put(Item::Snapshot, &kept)]).await?;
            *self.snapshot.lock() = Some(kept);
        }
        self.content = content;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let snapshot = self.snapshot.lock();
        Ok(snapshot.as_ref().map(|kept| Snapshot { meta: kept.meta.clone(), snapshot: kept.state.clone() }))
    }
}

/// Makes a snapshot of the state as it was when the builder was made, while the machine goes on.
pub(super) struct Builder {
    content: Content,
    meta: SnapshotMeta,
    snapshot: Arc<Mutex<Option<KeptSnapshot>>>,
    writer: Writer,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let kept = KeptSnapshot { meta: self.meta.clone(), state: wire::encode(&self.content) };
        self.writer.write(vec![Edit::put(Item::Snapshot, &kept)]).await?;
        *self.snapshot.lock() = Some(kept.clone());
        Ok(Snapshot { meta: kept.meta, snapshot: kept.state })
    }
}
