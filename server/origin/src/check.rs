//! `forebay check`: what is wrong with a configuration, as the databases themselves see it.

use std::sync::Arc;

use crate::config::OriginConfig;
use crate::fault::Fault;
use crate::feed;
use crate::group::GroupConfig;
use crate::group_load::GroupLoad;
use crate::group_writes::GroupWrites;
use crate::load::TargetId;
use crate::origin::Blueprint;
use crate::session::{Session, SessionError};
use crate::status::Role;
use crate::target::Target;

/// What the databases say of groups.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What works, and could work better.
    pub advice: Vec<Fault>,
    /// What change feeds need in the primary, as SQL; what is there already is a comment. Empty without feeds.
    pub feed_sql: String,
    /// The primary could not be asked.
    pub primary_unreachable: Option<Fault>,
    /// Replicas that could not be asked.
    pub replicas_unreachable: Vec<Fault>,
}

/// Connects to every target and prepares every group's statements there; all that is wrong, at once.
pub async fn check(config: OriginConfig, groups: Vec<GroupConfig>) -> Vec<Fault> {
    examine(config, groups).await.into_faults()
}

impl Checked {
    /// All that is wrong.
    pub fn into_faults(self) -> Vec<Fault> {
        self.primary_unreachable.into_iter().chain(self.replicas_unreachable).chain(self.faults).collect()
    }
}

/// The same, with what may be otherwise in a moment told apart, and with what is not wrong.
pub async fn examine(config: OriginConfig, groups: Vec<GroupConfig>) -> Checked {
    let mut checked = Checked::default();
    let blueprint = match Blueprint::draw(&config, &groups) {
        Ok(blueprint) => blueprint,
        Err(faults) => return Checked { faults, ..checked },
    };
    for id in 0..blueprint.targets.len() as u16 {
        let target = blueprint.targets.target(TargetId(id));
        let faults = match (check_target(target, &groups, &blueprint.loads).await, target.role()) {
            (Ok(faults), Role::Replica) => faults,
            (Ok(mut faults), Role::Primary) => {
                match feed::examine(&config, &groups).await {
                    Ok(examined) => {
                        faults.extend(examined.faults);
                        (checked.advice, checked.feed_sql) = (examined.advice, examined.sql);
                    }
                    Err(error) => faults.push(Fault::unplaced("feed", error.to_string(), "")),
                }
                faults
            }
            (Err(unreachable), Role::Primary) => {
                checked.primary_unreachable = Some(unreachable);
                continue;
            }
            (Err(unreachable), Role::Replica) => {
                checked.replicas_unreachable.push(unreachable);
                continue;
            }
        };
        for fault in faults {
            // What is wrong everywhere is said once.
            let is_known =
                checked.faults.iter().any(|known| known.place == fault.place && fault.problem.contains(&known.problem));
            if !is_known {
                checked.faults.push(fault);
            }
        }
    }
    checked
}

/// # Errors
/// When the target cannot be asked.
async fn check_target(target: &Target, groups: &[GroupConfig], loads: &[Arc<GroupLoad>]) -> Result<Vec<Fault>, Fault> {
    let mut session = match target.connect().await {
        Ok(session) => session,
        Err(error) => {
            let place = match target.role() {
                Role::Primary => "origin",
                Role::Replica => "origin replica",
            };
            let problem = format!("{} cannot be reached: {error}", target.shown_url());
            return Err(Fault::unplaced(place, problem, "is it up, and are host, port, user and password right?"));
        }
    };
    let mut faults = Vec::new();
    for (group, load) in groups.iter().zip(loads) {
        check_group(target, group, load, &mut session, &mut faults).await;
    }
    session.close().await;
    Ok(faults)
}

async fn check_group(
    target: &Target,
    group: &GroupConfig,
    load: &GroupLoad,
    session: &mut Session,
    faults: &mut Vec<Fault>,
) {
    if let Err((setting, error)) = load.describe(session).await {
        faults.push(statement_fault(target, group, setting, error));
    }
    // What cannot be read is told before anybody is asked.
    if let Ok(Some(writes)) = GroupWrites::of(group) {
        for (setting, error) in writes.describe(session).await {
            faults.push(statement_fault(target, group, setting, error));
        }
    }
}

fn statement_fault(target: &Target, group: &GroupConfig, setting: &'static str, error: SessionError) -> Fault {
    let (problem, hint) = match error {
        SessionError::Statement { message, hint, .. } => (message, hint),
        SessionError::Unfit { problem, hint } => (problem, hint),
        other => (other.to_string(), String::new()),
    };
    match target.role() {
        Role::Primary => group.fault(setting, problem, hint),
        Role::Replica => group.fault(setting, format!("on {}: {problem}", target.shown_url()), hint),
    }
}
