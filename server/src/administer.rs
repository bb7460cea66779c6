//! `forebay cluster` and `forebay groups`: looking at a running cluster, and changing it.

mod groups;

use std::io::{self, Write};
use std::time::Duration;

use forebay_cluster::membership::admin::{Admin, AdminError};
use forebay_cluster::state::{Applied, Change, ClusterState, Member, Standing};
use forebay_cluster::{NodeNumber, PeerTls, PeerTlsError, PeerTlsFiles};
use forebay_origin::Fault;

use crate::config::{ClusterAction, ClusterTask};

pub use groups::administer_groups;

/// Between two looks at how far a drain has come.
const LOOK: Duration = Duration::from_millis(250);

/// Why the cluster was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum AdministerError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Tls(#[from] PeerTlsError),
    #[error(transparent)]
    Output(#[from] io::Error),
    /// All that is wrong with a file.
    #[error("{} faults", .0.len())]
    Faults(Vec<Fault>),
    #[error("{0}")]
    Refused(String),
}

/// Does the task, and prints what came of it.
///
/// # Errors
/// When no node answers, or the cluster refuses.
pub async fn administer(task: &ClusterTask, tls: Option<&PeerTlsFiles>) -> Result<(), AdministerError> {
    let admin = connect(&task.node, tls)?;
    match &task.action {
        ClusterAction::Status => show(&admin).await,
        ClusterAction::Drain { node } => drain(&admin, node).await,
        ClusterAction::Undrain { node } => {
            let number = admin.find(node).await?.number;
            tell(&admin.propose(Change::Undrain { number }).await?)
        }
        ClusterAction::Remove { node } => tell(&admin.remove(node).await?),
        ClusterAction::Rebalance => tell(&admin.rebalance().await?),
    }
}

fn connect(node: &str, tls: Option<&PeerTlsFiles>) -> Result<Admin, AdministerError> {
    let tls = tls.map(PeerTls::read).transpose()?;
    Ok(Admin::new(node, tls.as_ref())?)
}

fn tell(applied: &Applied) -> Result<(), AdministerError> {
    let said = match applied {
        Applied::Done { epoch } | Applied::Joined { epoch, .. } => format!("done, in epoch {epoch}"),
        Applied::Unchanged => "it was so already".to_owned(),
        Applied::Refused(refusal) => refusal.to_string(),
    };
    Ok(writeln!(io::stdout(), "{said}")?)
}

async fn show(admin: &Admin) -> Result<(), AdministerError> {
    let status = admin.status().await?;
    let mut out = io::stdout().lock();
    let state = &status.state;
    let (moving, orphaned) = (moving(state), state.orphaned().count());
    writeln!(out, "cluster {}, epoch {}, {} copies of each slot", state.cluster(), state.epoch(), state.copies())?;
    writeln!(out, "this node: {}", status.phase)?;
    match (orphaned, moving) {
        (0, 0) => writeln!(out, "every slot is where it is to be")?,
        (orphaned, moving) => {
            writeln!(out, "{moving} copies of slots are on their way, {orphaned} slots have no owner just now")?
        }
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:>4}  {:<40}  {:<22}  {:<9}  {:<8}  {:<10}  {:>6}  {:>6}",
        "node", "id", "address", "standing", "raft", "zone", "owns", "copies"
    )?;
    for member in state.members() {
        let Member { number, description, standing, .. } = member;
        let raft = match (status.leader == Some(*number), status.voters.contains(number)) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let (owned, copied) = held(state, *number);
        let address = description.peer_address();
        let zone = description.zone.as_deref().unwrap_or("-");
        let (number, id, standing) = (number.to_string(), description.id.as_str(), word(*standing));
        writeln!(
            out,
            "{number:>4}  {id:<40}  {address:<22}  {standing:<9}  {raft:<8}  {zone:<10}  {owned:>6}  {copied:>6}"
        )?;
    }
    Ok(())
}

/// Waits until the node holds nothing any more, and tells how far it has come.
async fn drain(admin: &Admin, node: &str) -> Result<(), AdministerError> {
    let number = admin.find(node).await?.number;
    let applied = admin.drain(node).await?;
    let mut told = usize::MAX;
    let mut has_begun = false;
    loop {
        let state = admin.status().await?.state;
        let (owned, copied) = held(&state, number);
        has_begun |= has_drain_begun(&applied, &state, number);
        if has_begun && is_to_stay(&state, number) {
            return Err(AdministerError::Refused(format!(
                "node {number} was undrained meanwhile, and keeps what it holds\n  hint: drain it again if it is to go"
            )));
        }
        let is_drained = state.member(number).is_none_or(|member| member.standing == Standing::Drained);
        if owned + copied != told {
            told = owned + copied;
            writeln!(io::stdout(), "node {number} owns {owned} slots and has copies of {copied}")?;
        }
        if is_drained {
            return Ok(writeln!(io::stdout(), "node {number} holds nothing any more: it may be stopped and removed")?);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the state of the node that is asked, which may be a little behind the leader's, has the drain.
fn has_drain_begun(applied: &Applied, state: &ClusterState, number: NodeNumber) -> bool {
    let is_as_far = matches!(applied, Applied::Done { epoch } if state.epoch() >= *epoch);
    is_as_far || !is_to_stay(state, number)
}

/// Whether a member is neither drained nor on the way to it.
fn is_to_stay(state: &ClusterState, number: NodeNumber) -> bool {
    state.member(number).is_some_and(|member| !matches!(member.standing, Standing::Draining | Standing::Drained))
}

/// How many slots a member owns, and of how many it has a copy or is being sent one.
fn held(state: &ClusterState, number: NodeNumber) -> (usize, usize) {
    let owned = state.slots().filter(|(_, slot)| slot.owner == Some(number)).count();
    let held = state.slots().filter(|(_, slot)| slot.is_held_by(number)).count();
    (owned, held - owned)
}

fn moving(state: &ClusterState) -> usize {
    state.slots().map(|(_, slot)| slot.syncing.len()).sum()
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Up => "up",
        Standing::Leaving => "leaving",
        Standing::Down => "down",
        Standing::Lost => "lost",
        Standing::Draining => "draining",
        Standing::Drained => "drained",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_cluster::{ClusterId, Description, Incarnation, NodeId};

    #[test]
    fn a_drain_that_was_taken_back_is_told_from_one_that_is_not_seen_yet() {
        let mut state = ClusterState::new(ClusterId([1; 16]), 2);
        let numbers: Vec<_> = (1..=2).map(|node| join(&mut state, node)).collect();
        let before = state.clone();
        let number = numbers[0];
        let applied = state.apply(Change::Drain { number });
        assert!(!has_drain_begun(&applied, &before, number), "the node that is asked is behind");
        assert!(has_drain_begun(&applied, &state, number) && !is_to_stay(&state, number));
        assert!(has_drain_begun(&Applied::Unchanged, &state, number), "somebody else had it drained");
        state.apply(Change::Undrain { number });
        assert!(has_drain_begun(&applied, &state, number) && is_to_stay(&state, number));
        assert!(!is_to_stay(&state, NodeNumber(9)), "it was removed");
    }

    fn join(state: &mut ClusterState, node: u8) -> NodeNumber {
        let description = Description {
            id: NodeId::from_bytes([node; 20]),
            host: "127.0.0.1".to_owned(),
            open_port: 6379,
            direct_port: 0,
            http_port: 0,
            peer_port: 8001,
            raft_port: 7000,
            zone: None,
            weight: 1000,
            version: "test".to_owned(),
        };
        match state.apply(Change::Join { description, incarnation: Incarnation(1) }) {
            Applied::Joined { number, .. } => number,
            other => panic!("it may join: {other:?}"),
        }
    }
}
