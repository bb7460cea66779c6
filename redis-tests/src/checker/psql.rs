//! A conversation with `psql`: one connection to the database for many statements.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use forebay_test_postgres::program;

/// What is printed behind the rows of a request.
const END: &str = "-- end of rows";

/// A connection of one's own. It ends with this value.
pub struct Psql {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Psql {
    /// Starts the program.
    ///
    /// # Panics
    /// When it cannot be run. That the database is not there comes out with the first request.
    pub fn open(url: &str) -> Self {
        let mut child = Command::new(program("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", url])
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql can be run");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, input, output: BufReader::new(output) }
    }

    /// Runs statements and gives the rows of all of them. `None` if the connection is lost: nobody knows what came of them. What the database
    /// refuses gives no rows.
    pub fn run(&mut self, statements: &str) -> Option<Vec<String>> {
        writeln!(self.input, "{statements};\n\\echo {END}").ok()?;
        self.input.flush().ok()?;
        let mut rows = Vec::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                END => return Some(rows),
                row => rows.push(row.to_owned()),
            }
        }
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        // It may wait for a lock that nobody gives back.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
