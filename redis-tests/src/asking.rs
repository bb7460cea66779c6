//! What a connection is asked by many tests: figures of `INFO`, and what comes to be the answer in the end.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::connection::Connection;
use crate::database::Database;
use crate::process::eventually;
use crate::reply::Reply;
use crate::server::{Forebay, forebay_binary};

/// How long something that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Connection {
    /// A field of a section of `INFO`; `None` if there is none.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn info(&mut self, section: &str, field: &str) -> Option<String> {
        let info = self.command(&format!("INFO {section}")).words();
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    }

    /// A number in a section of `INFO`.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn figure(&mut self, section: &str, field: &str) -> u64 {
        let value = self.info(section, field).unwrap_or_else(|| panic!("no {field} in INFO {section}"));
        value.parse().unwrap_or_else(|_| panic!("{field} is {value:?}"))
    }

    /// Waits until a number in `INFO forebay` is that.
    ///
    /// # Panics
    /// When it does not come to be.
    pub fn await_figure(&mut self, field: &str, expected: u64) {
        let is_there = eventually(PATIENCE, || self.figure("forebay", field) == expected);
        assert!(is_there, "{field} is {}, and not {expected}", self.figure("forebay", field));
    }

    /// Waits until that is the answer to a command, which is asked again and again.
    ///
    /// # Panics
    /// When it does not come to be.
    pub fn await_reply(&mut self, line: &str, expected: &Reply) {
        let mut last = Reply::NilBulk;
        let is_there = || {
            last = self.command(line);
            last == *expected
        };
        assert!(eventually(PATIENCE, is_there), "{line} -> {last}, and not {expected}");
    }
}

impl Forebay {
    /// Waits until it follows its database by a feed: `wal`, `notify`.
    ///
    /// # Panics
    /// When it does not come to.
    pub fn await_feed(&self, feed: &str) {
        let (mut client, field) = (self.connect(), format!("feed_{feed}"));
        let follows = || client.info("forebay", &field).as_deref() == Some("following");
        assert!(eventually(PATIENCE, follows), "the feed is not followed");
    }

    /// Has it use other groups from now on, whatever its database says of them.
    ///
    /// # Panics
    /// When it does not come to use them.
    pub fn apply_groups(&mut self, text: &str) {
        let mut client = self.connect();
        let before = client.figure("forebay", "groups_version");
        let file = self.process().directory().join("groups.toml");
        std::fs::write(&file, text).expect("the file is written");
        let peer = format!("127.0.0.1:{}", self.ports().peer);
        let mut command = Command::new(forebay_binary());
        command.args(["groups", "apply", "--unchecked", "--node", &peer]).arg(file);
        let done = command.stdin(Stdio::null()).output().expect("the binary can be run");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        client.await_figure("groups_version", before + 1);
    }
}

impl Database {
    /// Waits until a query has that result.
    ///
    /// # Panics
    /// When it does not come to have it.
    pub fn await_sql(&self, query: &str, expected: &str) {
        let mut last = String::new();
        let is_there = || {
            last = self.try_sql(query).unwrap_or_default();
            last == expected
        };
        assert!(eventually(PATIENCE, is_there), "{query} -> {last}, and not {expected}");
    }
}
