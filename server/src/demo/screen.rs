//! What the demo shows.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::app::Ports;
use crate::telemetry::figures::Figures;

/// Cells of the progress bar.
const BAR: usize = 30;

/// Standard output: a terminal, which can be written over, or a pipe, which gets a line at a time.
pub(super) struct Screen {
    is_terminal: bool,
    /// Whether the table stands on the lines above.
    has_table: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen { is_terminal: io::stdout().is_terminal(), has_table: false }
    }

    /// Moves the progress bar.
    pub(super) fn progress(&self, done: usize, total: usize) -> io::Result<()> {
        if !self.is_terminal {
            return Ok(());
        }
        let filled = BAR * done / total.max(1);
        let end = if done == total { "\r\x1b[K" } else { "" };
        let mut out = io::stdout().lock();
        write!(
            out,
            "\rbuilding the database [{:#<filled$}{:.<rest$}] {done} of {total}{end}",
            "",
            "",
            rest = BAR - filled
        )?;
        out.flush()
    }

    /// Tells what there is, and what to type next. `all` are the nodes' ports.
    pub(super) fn welcome(&self, cities: usize, all: &[Ports], has_load: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let first = all[0];
        writeln!(
            out,
            "Forebay demo: {} in this process, before an SQLite database with {cities} cities of the world.\n\
             Data: GeoNames (geonames.org), CC BY 4.0.\n",
            if all.len() == 1 { "a node".to_owned() } else { format!("a cluster of {} nodes", all.len()) }
        )?;
        if all.len() > 1 {
            let list = |port: fn(&Ports) -> Option<u16>| {
                all.iter().filter_map(port).map(|port| port.to_string()).collect::<Vec<_>>().join(", ")
            };
            writeln!(out, "Doors, each of which takes any key: {}", list(|ports| Some(ports.open)))?;
            if first.direct.is_some() {
                writeln!(out, "For clients that know of clusters:  {}", list(|ports| ports.direct))?;
            }
            writeln!(out)?;
        }
        writeln!(out, "Type in another terminal:\n")?;
        for (command, remark) in suggestions(all) {
            writeln!(out, "  # {remark}\n  {command}")?;
        }
        if !has_load {
            writeln!(out, "\nOr start again as `forebay demo --load`, to see a herd of clients.")?;
        }
        if let Some(port) = first.http {
            writeln!(out, "\nFigures: http://127.0.0.1:{port}/   End: Ctrl-C\n")?;
        }
        out.flush()
    }

    /// Shows a second's figures and the totals: in place on a terminal, as lines otherwise.
    pub(super) fn figures(&mut self, second: Figures, total: Figures) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.has_table {
            writeln!(out, "{}", row("", HEADS))?;
        }
        if self.is_terminal && self.has_table {
            write!(out, "\x1b[2A")?;
        }
        self.has_table = true;
        writeln!(out, "{}", row("last second", cells(second)))?;
        if self.is_terminal {
            writeln!(out, "{}", row("so far", cells(total)))?;
        }
        out.flush()
    }

    /// The last words.
    pub(super) fn farewell(&self, figures: Figures, lasted: Duration) -> io::Result<()> {
        let Figures { commands, hits, loads, coalesced, batches, .. } = figures;
        writeln!(
            io::stdout().lock(),
            "\n{commands} commands in {lasted:.0?}: {hits} hits; {loads} loads in {batches} batches, {coalesced} requests joined another's load."
        )
    }
}

/// Commands to type, each with what it shows.
fn suggestions(all: &[Ports]) -> Vec<(String, &'static str)> {
    let first = all[0];
    let redis = |arguments: &str| format!("redis-cli -p {} {arguments}", first.open);
    let mut suggestions = vec![(redis("GET city:2643743"), "a row as JSON: loaded once, then from memory")];
    if let Some(ports) = all.get(1) {
        let command = format!("redis-cli -p {} GET city:2643743", ports.open);
        suggestions
            .push((command, "the same by another node: whichever owns the key answers, and nothing is loaded again"));
    }
    suggestions.extend([
        (redis("MGET rank:1 rank:2 rank:3 rank:4 rank:5"), "five misses, loaded together by each of their owners"),
        (redis("HGETALL country:JP"), "a row as a hash"),
        (redis("GET city:7"), "no such row: asked once, then known"),
    ]);
    if let Some(port) = first.http {
        suggestions.push((format!("curl 'http://127.0.0.1:{port}/api?key=city:2643743'"), "the same by HTTP"));
    }
    if let Some(port) = first.peer.filter(|_| all.len() > 1) {
        suggestions.extend([
            (redis("CLUSTER SHARDS"), "who owns which slots, as clients of clusters are told"),
            (format!("{} cluster status --node 127.0.0.1:{port}", program()), "the nodes, and what each holds"),
            (
                format!("{} groups list --node 127.0.0.1:{port}", program()),
                "the groups, which `groups apply FILE` replaces",
            ),
        ]);
    }
    let benchmark = format!("redis-benchmark -p {} -n 200000 -P 16 -r 34006 GET rank:__rand_int__", first.open);
    suggestions.push((benchmark, "a load, and what becomes of it below"));
    suggestions
}

/// As this program was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "forebay".to_owned())
}

const HEADS: [&str; 7] = ["commands", "hits", "misses", "loads", "coalesced", "batches", "keys/batch"];

fn cells(figures: Figures) -> [String; 7] {
    let Figures { commands, hits, misses, loads, coalesced, batches, .. } = figures;
    let [commands, hits, misses, loads, coalesced, batches] =
        [commands, hits, misses, loads, coalesced, batches].map(|count| count.to_string());
    [commands, hits, misses, loads, coalesced, batches, format!("{:.1}", figures.keys_per_batch())]
}

fn row(name: &str, cells: [impl AsRef<str>; 7]) -> String {
    let cells = cells.map(|cell| format!("{:>11}", cell.as_ref()));
    format!("{name:<12}{}", cells.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_figures_stand_in_the_same_columns() {
        let figures = Figures { commands: 1_000_000, batches: 2, batch_keys: 5, ..Figures::default() };
        let (heads, cells) = (row("", HEADS), row("last second", cells(figures)));
        assert_eq!(heads.len(), cells.len());
        assert!(cells.ends_with("2.5"), "{cells}");
    }
}
