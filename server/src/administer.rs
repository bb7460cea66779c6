//! `forebay cluster` and `forebay groups`: looking at a running cluster, and changing it.

mod drain;
mod groups;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use forebay_cluster::membership::Status;
use forebay_cluster::membership::admin::{Admin, AdminError};
use forebay_cluster::state::{Applied, Change, ClusterState, Member, Standing};
use forebay_cluster::{NodeNumber, PeerTls, PeerTlsError, PeerTlsFiles};
use forebay_origin::Fault;

use crate::config::{ClusterAction, Config};

pub use groups::administer_groups;

/// How long a node may be without touch while another leader is found.
const ELECTION: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

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
    /// What was told may be old.
    #[error("{node} is cut off: another node may know more (--node)")]
    CutOff { node: String },
}

/// Does the task, and prints what came of it.
///
/// # Errors
/// When no node answers, the one that does is cut off from the others, or the cluster refuses.
pub async fn administer(action: &ClusterAction, config: &Config) -> Result<(), AdministerError> {
    let admin = connect(&config.node, config.peer_tls.as_ref())?;
    match action {
        ClusterAction::Status => show(&admin, &config.node).await,
        ClusterAction::Drain { node } => drain::drain(&admin, node).await,
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

async fn show(admin: &Admin, node: &str) -> Result<(), AdministerError> {
    let status = settled_status(admin).await?;
    let mut out = io::stdout().lock();
    let is_cut_off = !has_touch(&status);
    if is_cut_off {
        writeln!(out, "this node has no touch with its cluster: what follows may be old")?;
    }
    summarise(&status, &mut out)?;
    list(&status, &mut out)?;
    if is_cut_off { Err(AdministerError::CutOff { node: node.to_owned() }) } else { Ok(()) }
}

/// What the node knows. One without touch is asked again for a moment: when a leader dies, all are.
async fn settled_status(admin: &Admin) -> Result<Status, AdminError> {
    let began = Instant::now();
    loop {
        let status = admin.status().await?;
        if has_touch(&status) || began.elapsed() >= ELECTION {
            return Ok(status);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the node learns what the others agree on: it holds a lease then, which the leader renews.
fn has_touch(status: &Status) -> bool {
    status.lease.is_none_or(|left| !left.is_zero())
}

fn summarise(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let state = &status.state;
    let (moving, orphaned) = (moving(state), state.orphaned().count());
    writeln!(out, "cluster {}, epoch {}, {} copies of each slot", state.cluster(), state.epoch(), state.copies())?;
    writeln!(out, "this node: {}", status.phase)?;
    match (orphaned, moving) {
        (0, 0) => writeln!(out, "every slot is where it is to be"),
        (orphaned, moving) => {
            writeln!(out, "{moving} copies of slots are on their way, {orphaned} slots have no owner just now")
        }
    }
}

fn list(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let state = &status.state;
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
