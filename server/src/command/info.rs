//! INFO: sections of `name:value` lines.
//!
//! The names are Redis' own, since clients, exporters and agents read them; a field of machinery that does not exist here is told
//! as 0, or as Redis tells that there is none. `# Forebay` has what only this server has.

mod basics;
mod forebay;
mod statistics;
mod storage;

use std::fmt::Write;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Spec};
use crate::node::Node;
use crate::session::Door;

pub(super) const TABLE: &[Spec] = &[Spec::new("info", -1, Flags::LOADING.union(Flags::STALE), Categories::DANGEROUS)
    .on_node(info)
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
    .docs("server", "1.0.0", "O(1)", "Tells facts and statistics of the server.", "[section [section ...]]")];

/// One section.
struct Section {
    /// By which it is asked for.
    name: &'static str,
    /// That stands above it.
    title: &'static str,
    /// Whether it is told without being asked for by name.
    is_default: bool,
    write: fn(&mut Report<'_>),
}

const SECTIONS: &[Section] = &[
    Section { name: "server", title: "Server", is_default: true, write: basics::server },
    Section { name: "clients", title: "Clients", is_default: true, write: basics::clients },
    Section { name: "memory", title: "Memory", is_default: true, write: storage::memory },
    Section { name: "persistence", title: "Persistence", is_default: true, write: storage::persistence },
    Section { name: "stats", title: "Stats", is_default: true, write: statistics::stats },
    Section { name: "replication", title: "Replication", is_default: true, write: basics::replication },
    Section { name: "cpu", title: "CPU", is_default: true, write: basics::cpu },
    Section { name: "modules", title: "Modules", is_default: true, write: |_| {} },
    Section { name: "commandstats", title: "Commandstats", is_default: false, write: statistics::commands },
    Section { name: "errorstats", title: "Errorstats", is_default: true, write: statistics::errors },
    Section { name: "latencystats", title: "Latencystats", is_default: false, write: statistics::latencies },
    Section { name: "cluster", title: "Cluster", is_default: true, write: basics::cluster },
    Section { name: "keyspace", title: "Keyspace", is_default: true, write: storage::keyspace },
    Section { name: "forebay", title: "Forebay", is_default: true, write: forebay::forebay },
];

fn info(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let mut report = Report { node: call.node, door: call.session.door, now: call.now, text: String::new() };
    for section in SECTIONS.iter().filter(|section| is_wanted(call, section)) {
        report.section(section);
    }
    call.reply.verbatim("txt", report.text.as_bytes());
    Ok(Flow::Continue)
}

fn is_wanted(call: &Call<'_>, section: &Section) -> bool {
    let asked = |word: &[u8]| {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        is(section.name) || is("all") || is("everything") || section.is_default && is("default")
    };
    match call.args.len() {
        1 => section.is_default,
        _ => call.args.iter().skip(1).any(asked),
    }
}

/// The reply as far as it is written.
struct Report<'n> {
    node: &'n Node,
    /// By which the client has come.
    door: Door,
    /// Unix time in milliseconds.
    now: i64,
    text: String,
}

impl Report<'_> {
    fn section(&mut self, section: &Section) {
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        self.line(format_args!("# {}", section.title));
        (section.write)(self);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _written = write!(self.text, "{line}\r\n");
    }

    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{name}:{value}"));
    }

    fn fields<T: std::fmt::Display>(&mut self, fields: impl IntoIterator<Item = (&'static str, T)>) {
        for (name, value) in fields {
            self.field(name, value);
        }
    }

    /// A size in bytes, and again for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), Human(bytes));
    }

    /// Machinery that does not exist here.
    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.field(name, 0);
        }
    }
}

/// Bytes for people: `1.50M`.
struct Human(u64);

impl std::fmt::Display for Human {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
        if self.0 < 1024 {
            return write!(f, "{}B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.2}{}", UNITS[unit])
    }
}

/// Part of a whole, or 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_for_people() {
        for (bytes, told) in [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1_572_864, "1.50M"), (24 << 30, "24.00G")] {
            assert_eq!(Human(bytes).to_string(), told);
        }
    }
}
