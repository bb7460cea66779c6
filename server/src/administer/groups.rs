//! `forebay groups`: the groups that a cluster has agreed on.

use std::io::{self, Write};

use forebay_cluster::membership::admin::Admin;
use forebay_cluster::membership::groups::{AppliedGroups, ApplyGroups, ListedGroups};
use forebay_origin::{nearest, parse_groups};

use super::AdministerError;
use crate::config::{Config, GroupsAction};
use crate::groups::MAX_TEXT;

/// Does the task, and prints what came of it.
///
/// # Errors
/// When the file or the groups are bad, no node answers, or the cluster refuses.
pub async fn administer_groups(action: &GroupsAction, config: &Config) -> Result<(), AdministerError> {
    let admin = super::connect(&config.node, config.peer_tls.as_ref())?;
    match action {
        GroupsAction::Apply { file, unchecked, allow_empty } => apply(&admin, file, *unchecked, *allow_empty).await,
        GroupsAction::List => list(&admin, &config.node).await,
        GroupsAction::Show { name } => show(&admin, name).await,
    }
}

async fn apply(admin: &Admin, file: &str, unchecked: bool, may_be_empty: bool) -> Result<(), AdministerError> {
    let text = read(file)?;
    // What is wrong with the file by itself needs no node to be told.
    parse_groups(&text, file).map_err(AdministerError::Faults)?;
    let AppliedGroups { version, added, changed, removed, unchanged, notes } =
        admin.apply_groups(ApplyGroups { text, file: file.to_owned(), unchecked, may_be_empty }).await?;
    let mut out = io::stdout().lock();
    for (what, names) in [("new", &added), ("changed", &changed), ("removed", &removed)] {
        names.iter().try_for_each(|name| writeln!(out, "{what:<8} {name}"))?;
    }
    notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))?;
    let is_same = added.is_empty() && changed.is_empty() && removed.is_empty();
    let said = if is_same { "nothing differs" } else { "done" };
    Ok(writeln!(out, "{said}: the groups are of version {version}, {unchanged} of them as before")?)
}

fn read(file: &str) -> Result<String, AdministerError> {
    let failed = |error: io::Error| AdministerError::Refused(format!("{file} cannot be read: {error}"));
    let length = std::fs::metadata(file).map_err(failed)?.len();
    if length > MAX_TEXT as u64 {
        return Err(AdministerError::Refused(format!("{file} has {length} bytes, and the limit is {MAX_TEXT}")));
    }
    std::fs::read_to_string(file).map_err(failed)
}

async fn list(admin: &Admin, node: &str) -> Result<(), AdministerError> {
    let ListedGroups { agreed, used, groups, faults } = admin.list_groups().await?;
    let mut out = io::stdout().lock();
    match agreed {
        0 => writeln!(
            out,
            "the cluster has agreed on no groups: each node uses those of its own configuration; these are of {node}"
        )?,
        _ => writeln!(out, "version {agreed}, agreed on by the cluster: groups in configurations are not used")?,
    }
    if used != agreed {
        writeln!(out, "{node} uses version {used}")?;
    }
    faults.iter().try_for_each(|fault| writeln!(out, "at {node}: {fault}"))?;
    if !groups.is_empty() {
        let width =
            |of: fn(&_) -> &String| groups.iter().map(|group| of(group).chars().count()).max().unwrap_or(0).max(4);
        let (name_width, key_width) = (width(|group| &group.name), width(|group| &group.key));
        writeln!(out, "\n{:<name_width$}  {:<key_width$}  {:<6}  ttl", "name", "key", "as")?;
        for group in &groups {
            let (name, key, shape, ttl) = (&group.name, &group.key, &group.shape, &group.ttl);
            writeln!(out, "{name:<name_width$}  {key:<key_width$}  {shape:<6}  {ttl}")?;
        }
    }
    Ok(())
}

async fn show(admin: &Admin, name: &str) -> Result<(), AdministerError> {
    let ListedGroups { groups, .. } = admin.list_groups().await?;
    if let Some(group) = groups.iter().find(|group| group.name == name) {
        return Ok(write!(io::stdout(), "{}", group.toml)?);
    }
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    let hint = match nearest(name, &names) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => "`forebay groups list` shows their names".to_owned(),
    };
    Err(AdministerError::Refused(format!("there is no group \"{name}\"\n  hint: {hint}")))
}
