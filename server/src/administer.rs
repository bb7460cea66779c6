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
    admin.drain(node).await?;
    let mut told = usize::MAX;
    loop {
        let state = admin.status().await?.state;
        let (owned, copied) = held(&state, number);
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
