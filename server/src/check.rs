//! `forebay check`: everything that can be known to be wrong before a node is started.

use std::fmt;

use forebay_origin::{Checked, Fault, GroupConfig};

use crate::config::Config;

/// What was checked, and what came of it.
pub struct Findings<'c> {
    origin: Option<&'c str>,
    groups: &'c [GroupConfig],
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What works, and could work better.
    pub advice: Vec<Fault>,
    feed_sql: String,
}

/// Connects to every database of the origin, prepares every group's statements there, and looks at what change feeds need.
pub async fn check(config: &Config) -> Findings<'_> {
    let mut checked = match &config.origin {
        Some(origin) => forebay_origin::examine(origin.clone(), config.groups.clone()).await,
        None => Checked::default(),
    };
    Findings {
        origin: config.origin.as_ref().map(|origin| origin.url.as_str()),
        groups: &config.groups,
        advice: std::mem::take(&mut checked.advice),
        feed_sql: std::mem::take(&mut checked.feed_sql),
        faults: checked.into_faults(),
    }
}

impl fmt::Display for Findings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.feed_sql)?;
        if !self.faults.is_empty() {
            return Ok(());
        }
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
