//! What the demo shows.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::app::Ports;
use crate::node::Node;
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

    /// Tells what there is, and what to type next.
    pub(super) fn welcome(&self, cities: usize, ports: Ports, has_load: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "Forebay demo: {cities} cities of the world in an SQLite database, read through a cache.\n\
             Data: GeoNames (geonames.org), CC BY 4.0.\n\n\
             Type in another terminal:\n"
        )?;
        let redis = |arguments: &str| format!("redis-cli -p {} {arguments}", ports.open);
        let benchmark = format!("redis-benchmark -p {} -n 200000 -P 16 -r 34006 GET rank:__rand_int__", ports.open);
        let url = |key: &str| ports.http.map(|port| format!("curl 'http://127.0.0.1:{port}/api?key={key}'"));
        let suggestions = [
            (Some(redis("GET city:2643743")), "a row as JSON: loaded once, then from memory"),
            (Some(redis("MGET rank:1 rank:2 rank:3 rank:4 rank:5")), "five misses, loaded together"),
            (Some(redis("HGETALL country:JP")), "a row as a hash"),
            (Some(redis("GET city:7")), "no such row: asked once, then known"),
            (url("city:2643743"), "the same by HTTP"),
            (Some(benchmark), "a load, and what becomes of it below"),
        ];
        for (command, remark) in suggestions.iter().filter_map(|(command, remark)| Some((command.as_ref()?, remark))) {
            writeln!(out, "  # {remark}\n  {command}")?;
        }
        if !has_load {
            writeln!(out, "\nOr start again as `forebay demo --load`, to see a herd of clients.")?;
        }
        if let Some(port) = ports.http {
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
    pub(super) fn farewell(&self, node: &Node, lasted: Duration) -> io::Result<()> {
        let Figures { commands, hits, loads, coalesced, batches, .. } = Figures::of(node);
        writeln!(
            io::stdout().lock(),
            "\n{commands} commands in {lasted:.0?}: {hits} hits; {loads} loads in {batches} batches, {coalesced} requests joined another's load."
        )
    }
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
