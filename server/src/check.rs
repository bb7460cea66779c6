//! `forebay check`: everything that can be known to be wrong before a node is started.

use std::fmt;

use forebay_origin::{Fault, GroupConfig};

use crate::config::Config;

/// What was checked and found right.
pub struct Findings<'c> {
    origin: Option<&'c str>,
    groups: &'c [GroupConfig],
}

/// Connects to every database of the origin and prepares every group's statements there.
///
/// # Errors
/// With all faults at once.
pub async fn check(config: &Config) -> Result<Findings<'_>, Vec<Fault>> {
    if let Some(origin) = &config.origin {
        let faults = forebay_origin::check(origin.clone(), config.groups.clone()).await;
        if !faults.is_empty() {
            return Err(faults);
        }
    }
    Ok(Findings { origin: config.origin.as_ref().map(|origin| origin.url.as_str()), groups: &config.groups })
}

impl fmt::Display for Findings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin.is_none() {
            return writeln!(f, "ok: no origin is configured, so this is a plain cache");
        }
        for group in self.groups {
            writeln!(f, "  group \"{}\": {} as {}", group.name, group.key, group.as_.as_str())?;
        }
        let count = self.groups.len();
        writeln!(
            f,
            "ok: the origin answers, and {count} {} prepared",
            if count == 1 { "group is" } else { "groups are" }
        )
    }
}
