//! What the command line asks of a node about groups.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::membership::groups::{
    AppliedGroups, ApplyGroups, GroupsError, GroupsHandler, ListedGroup, ListedGroups,
};
use forebay_cluster::membership::{Membership, ProposeError};
use forebay_cluster::state::{Applied, Change, ClusterState};
use forebay_origin::{Checked, Fault, GroupConfig, MAX_GROUPS, length, parse_groups, to_toml};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::info;

use super::{MAX_TEXT, one_line};
use crate::groups::follow::AGREED;
use crate::node::Node;

/// How long the command line waits until the node that it asked uses what was agreed on.
const TAKEN: Duration = Duration::from_secs(5);

/// Answers the command line.
pub struct GroupsDesk {
    node: Arc<Node>,
}

impl GroupsHandler for GroupsDesk {
    fn apply(&self, wanted: ApplyGroups) -> BoxFuture<'_, Result<AppliedGroups, GroupsError>> {
        self.apply_checked(wanted).boxed()
    }

    fn list(&self) -> ListedGroups {
        let told = self.node.groups.told();
        let agreed = self.node.cluster.as_ref().and_then(|cluster| version_of(&cluster.state().borrow()));
        ListedGroups {
            agreed: agreed.unwrap_or_default(),
            used: self.node.origin.as_ref().map_or(0, |origin| origin.groups().version()),
            groups: self.present().iter().map(listed).collect(),
            faults: told.faults.iter().map(one_line).collect(),
        }
    }
}

impl GroupsDesk {
    pub fn new(node: Arc<Node>) -> GroupsDesk {
        GroupsDesk { node }
    }

    /// The groups that are used here; at a node without an origin, those that were agreed on.
    fn present(&self) -> Vec<GroupConfig> {
        if let Some(origin) = &self.node.origin {
            return origin.groups().iter().cloned().collect();
        }
        let Some(cluster) = &self.node.cluster else { return Vec::new() };
        let state = Arc::clone(&cluster.state().borrow());
        state.groups().and_then(|agreed| parse_groups(&agreed.text, AGREED).ok()).unwrap_or_default()
    }

    async fn apply_checked(&self, wanted: ApplyGroups) -> Result<AppliedGroups, GroupsError> {
        let groups = read(&wanted)?;
        let membership = match self.node.member() {
            Some(member) if member.membership.number().borrow().is_some() => Arc::clone(&member.membership),
            _ => {
                return Err(refused("this node is not a member of a cluster yet", "wait until its /ready answers 200"));
            }
        };
        let notes = match wanted.unchecked {
            true => vec!["the databases were not asked".to_owned()],
            false => self.ask_databases(&groups).await?,
        };
        let state = Arc::clone(&membership.state().borrow());
        let before = match state.groups() {
            Some(agreed) => parse_groups(&agreed.text, AGREED).unwrap_or_default(),
            None => self.present(),
        };
        fault_likeness(&before, &groups)?;
        let version = agree(&membership, &state, to_toml(&groups)).await?;
        self.await_taken(version).await;
        info!(version, groups = groups.len(), "groups were applied through this node");
        Ok(AppliedGroups { version, notes, ..differences(&before, &groups) })
    }

    /// # Errors
    /// When the databases do not like the groups, or cannot be asked. What is unknown of replicas is answered.
    async fn ask_databases(&self, groups: &[GroupConfig]) -> Result<Vec<String>, GroupsError> {
        let Some(origin) = &self.node.origin else {
            let hint = "ask a node that has one, or pass --unchecked";
            return Err(refused("this node has no origin where the groups' SQL could be prepared", hint));
        };
        let Checked { faults, primary_unreachable, replicas_unreachable, .. } = origin.check(groups.to_vec()).await;
        if !faults.is_empty() {
            return Err(GroupsError::Faults(faults.iter().map(ToString::to_string).collect()));
        }
        if let Some(Fault { problem, .. }) = primary_unreachable {
            let problem = format!("the groups' SQL cannot be checked just now: {problem}");
            return Err(refused(&problem, "try again when the database is up, or pass --unchecked"));
        }
        Ok(replicas_unreachable.into_iter().map(|fault| format!("not checked: {}", fault.problem)).collect())
    }

    /// Waits until this node uses the groups, so that who has applied them finds them there.
    async fn await_taken(&self, version: u64) {
        let mut changes = self.node.changes.subscribe();
        let taken = changes.wait_for(|_| self.node.groups.told().version >= version);
        let _late = tokio::time::timeout(TAKEN, taken).await;
    }
}

/// # Errors
/// With all that is wrong with the text by itself.
fn read(wanted: &ApplyGroups) -> Result<Vec<GroupConfig>, GroupsError> {
    if wanted.text.len() > MAX_TEXT {
        let problem = format!("{} has {} bytes, and the limit is {MAX_TEXT}", wanted.file, wanted.text.len());
        return Err(refused(&problem, &format!("there may be up to {MAX_GROUPS} groups")));
    }
    let groups = parse_groups(&wanted.text, &wanted.file)
        .map_err(|faults| GroupsError::Faults(faults.iter().map(ToString::to_string).collect()))?;
    if groups.is_empty() && !wanted.may_be_empty {
        let problem = format!("{} has no [[group]], so all groups would be removed", wanted.file);
        return Err(refused(&problem, "pass --allow-empty if that is meant"));
    }
    Ok(groups)
}

/// # Errors
/// When what was loaded by a former definition could not be told from what is loaded by a new one, which happens to one change in 65,536.
fn fault_likeness(before: &[GroupConfig], after: &[GroupConfig]) -> Result<(), GroupsError> {
    let share_keys = |one: &GroupConfig, other: &GroupConfig| one.key.covers(&other.key) || other.key.covers(&one.key);
    let is_confused = |one: &GroupConfig, other: &GroupConfig| {
        !one.is_defined_as(other) && one.fingerprint() == other.fingerprint() && share_keys(one, other)
    };
    let confused = after.iter().find(|new| before.iter().any(|old| is_confused(old, new)));
    match confused {
        None => Ok(()),
        Some(group) => Err(refused(
            &format!("by chance group \"{}\" cannot be told from its former definition", group.name),
            "add a blank to its query",
        )),
    }
}

/// The version under which the cluster has agreed on `text`.
async fn agree(membership: &Membership, state: &ClusterState, text: String) -> Result<u64, GroupsError> {
    let before = version_of(state).unwrap_or_default();
    // Whether anything differs is the leader's to say: the state here may be old.
    match membership.propose(Change::SetGroups { text: text.clone(), over: Some(before) }).await {
        Ok(Applied::Done { .. } | Applied::Joined { .. }) => Ok(before + 1),
        Ok(Applied::Unchanged) => Ok(version_here(membership, &text).await.unwrap_or(before)),
        Ok(Applied::Refused(refusal)) => Err(refused(&refusal.to_string(), "look at them, and apply yours again")),
        Err(error @ ProposeError::Unknown(_)) => {
            Err(refused(&error.to_string(), "`forebay groups list` shows which groups there are"))
        }
        Err(error) => Err(refused(
            &error.to_string(),
            "nothing was changed; a node that is cut off from most others cannot change groups",
        )),
    }
}

/// The version of the agreed groups, as soon as they are these here, too.
async fn version_here(membership: &Membership, text: &str) -> Option<u64> {
    let mut states = membership.state();
    let are_these = |state: &Arc<ClusterState>| state.groups().is_some_and(|agreed| agreed.text == text);
    let _late = tokio::time::timeout(TAKEN, states.wait_for(are_these)).await.map(drop);
    version_of(&states.borrow())
}

fn version_of(state: &ClusterState) -> Option<u64> {
    state.groups().map(|agreed| agreed.version)
}

/// What is new, changed and removed.
fn differences(before: &[GroupConfig], after: &[GroupConfig]) -> AppliedGroups {
    let old: HashMap<&str, String> = before.iter().map(|group| (group.name.as_str(), group.to_toml())).collect();
    let mut found = AppliedGroups::default();
    for group in after {
        match old.get(group.name.as_str()) {
            None => found.added.push(group.name.clone()),
            Some(text) if *text != group.to_toml() => found.changed.push(group.name.clone()),
            Some(_) => found.unchanged += 1,
        }
    }
    let is_gone = |group: &&GroupConfig| after.iter().all(|new| new.name != group.name);
    found.removed = before.iter().filter(is_gone).map(|group| group.name.clone()).collect();
    found
}

fn listed(group: &GroupConfig) -> ListedGroup {
    ListedGroup {
        name: group.name.clone(),
        key: group.key.to_string(),
        shape: group.as_.as_str().to_owned(),
        ttl: group.ttl.map_or_else(|| "none".to_owned(), length),
        toml: group.to_toml(),
    }
}

fn refused(problem: &str, hint: &str) -> GroupsError {
    GroupsError::Refused(format!("{problem}\n  hint: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<GroupConfig> {
        let [a, b, c] = ["a", "b", "c"].map(|name| {
            format!("[[group]]\nname = \"{name}\"\nkey = \"{name}:{{x}}\"\nload = \"SELECT $1 -- {text}\"\nas = \"string\"\n")
        });
        parse_groups(&[a, b, c].concat(), "").expect("groups")
    }

    #[test]
    fn what_is_new_changed_and_removed_is_told() {
        let (mut before, mut after) = (groups("1"), groups("1"));
        before.remove(0);
        after.truncate(2);
        after[1].ttl = Some(Duration::from_secs(1));
        let found = differences(&before, &after);
        assert_eq!((found.added, found.changed, found.removed), (vec!["a".into()], vec!["b".into()], vec!["c".into()]));
        assert_eq!(differences(&before, &before).unchanged, 2);
    }

    #[test]
    fn two_definitions_with_one_fingerprint_are_not_exchanged() {
        let before = groups("1");
        let mark = before[0].fingerprint();
        let twin = (2..).map(|n| groups(&n.to_string())).find(|groups| groups[0].fingerprint() == mark);
        let twin = twin.expect("one in 65,536 has it");
        assert!(fault_likeness(&before, &twin).is_err());
        assert!(fault_likeness(&before, &before).is_ok(), "a group that stays is not confused with itself");
        assert!(fault_likeness(&before, &groups("2")[1..]).is_ok());
    }

    #[test]
    fn a_text_without_groups_is_no_mistake_only_if_that_is_said() {
        let wanted = |text: String, may_be_empty| ApplyGroups { text, file: "f".into(), unchecked: true, may_be_empty };
        assert!(read(&wanted(String::new(), false)).is_err_and(|error| error.to_string().contains("--allow-empty")));
        assert!(read(&wanted(String::new(), true)).is_ok_and(|groups| groups.is_empty()));
        let long = "#".repeat(MAX_TEXT + 1);
        assert!(read(&wanted(long, true)).is_err_and(|error| error.to_string().contains("limit")));
        let bad = "[[group]]\nname = 'a'\nkye = 'b'\n".to_owned();
        assert!(matches!(read(&wanted(bad, false)), Err(GroupsError::Faults(faults)) if faults.len() > 1));
    }
}
