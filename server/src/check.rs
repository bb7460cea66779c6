//! `forebay check`: everything that can be known to be wrong before a node is started.

use std::fmt;

use forebay_cluster::PeerTls;
use forebay_cluster::discovery::Seeds;
use forebay_origin::{Checked, Fault, GroupConfig};

use crate::config::{Config, Part};
use crate::tls;

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

/// Reads what a node reads at its start, connects to every database of the origin, prepares every group's statements there, and looks at what
/// change feeds need. The process' cryptography must have been installed before.
pub async fn check(config: &Config) -> Findings<'_> {
    let mut checked = match &config.origin {
        Some(origin) => forebay_origin::examine(origin.clone(), config.groups.clone()).await,
        None => Checked::default(),
    };
    let mut faults = unusable(config);
    let (advice, feed_sql) = (std::mem::take(&mut checked.advice), std::mem::take(&mut checked.feed_sql));
    faults.extend(checked.into_faults());
    Findings {
        origin: config.origin.as_ref().map(|origin| origin.url.as_str()),
        groups: &config.groups,
        advice,
        feed_sql,
        faults,
    }
}

/// What a node would find at its start, and end.
fn unusable(config: &Config) -> Vec<Fault> {
    let mut faults = config.tls.as_ref().and_then(|files| tls::acceptor(files).err()).unwrap_or_default();
    if let Some(Err(error)) = config.peer_tls.as_ref().map(PeerTls::read) {
        faults.push(Fault::unplaced("--peer-tls-cert, --peer-tls-key, --peer-tls-ca", error.to_string(), ""));
    }
    if let Part::Member(cluster) = &config.part {
        let seeds = Seeds::new(cluster.join.clone(), cluster.discover.as_ref(), cluster.peer_port, cluster.dns_server);
        faults.extend(seeds.err().map(|error| Fault::unplaced("--discover", error.to_string(), "")));
    }
    faults
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
