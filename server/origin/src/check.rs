//! `forebay check`: what is wrong with a configuration, as the databases themselves see it.

use crate::config::OriginConfig;
use crate::fault::Fault;
use crate::group::GroupConfig;
use crate::group_load::GroupLoad;
use crate::load::TargetId;
use crate::origin::Blueprint;
use crate::session::{Session, SessionError};
use crate::status::Role;
use crate::target::Target;

/// Connects to every target and prepares every group's statements there; all that is wrong, at once.
pub async fn check(config: OriginConfig, groups: Vec<GroupConfig>) -> Vec<Fault> {
    let blueprint = match Blueprint::draw(&config, &groups) {
        Ok(blueprint) => blueprint,
        Err(faults) => return faults,
    };
    let mut faults: Vec<Fault> = Vec::new();
    for id in 0..blueprint.targets.len() as u16 {
        let target = blueprint.targets.target(TargetId(id));
        for fault in check_target(target, &groups, &blueprint.loads).await {
            // What is wrong everywhere is said once.
            let is_known =
                faults.iter().any(|known| known.place == fault.place && fault.problem.contains(&known.problem));
            if !is_known {
                faults.push(fault);
            }
        }
    }
    faults
}

async fn check_target(target: &Target, groups: &[GroupConfig], loads: &[std::sync::Arc<GroupLoad>]) -> Vec<Fault> {
    let mut session = match target.connect().await {
        Ok(session) => session,
        Err(error) => {
            let place = match target.role() {
                Role::Primary => "origin",
                Role::Replica => "origin replica",
            };
            let problem = format!("{} cannot be reached: {error}", target.shown_url());
            return vec![Fault::unplaced(place, problem, "is it up, and are host, port, user and password right?")];
        }
    };
    let mut faults = Vec::new();
    for (group, load) in groups.iter().zip(loads) {
        check_group(target, group, load, &mut session, &mut faults).await;
    }
    session.close().await;
    faults
}

async fn check_group(
    target: &Target,
    group: &GroupConfig,
    load: &GroupLoad,
    session: &mut Session,
    faults: &mut Vec<Fault>,
) {
    if let Err(error) = load.describe(session).await {
        faults.push(statement_fault(target, group, "load", error));
    }
    for (setting, statement) in [("save", &group.save), ("remove", &group.remove)] {
        let Some(statement) = statement else { continue };
        if let Err(error) = session.prepare(statement).await {
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
