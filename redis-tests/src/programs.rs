//! Programs of other people that tests run to their end: client libraries under their interpreters, redis-cli, redis-benchmark.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a script of `clients/` with the interpreter that `scripts/setup` installed, or the one of the path; what it printed.
///
/// # Panics
/// When it fails: the message has its output.
pub fn run_script(interpreter: &str, script: &str, args: &[String]) -> String {
    let installed = clients_directory();
    let own = installed.join(interpreter);
    let program: OsString = if own.is_file() { own.into() } else { interpreter.into() };
    let mut command = Command::new(program);
    command.arg(script_path(script)).args(args).env("NODE_CLIENTS", installed.join("node"));
    output(command, "")
}

/// Runs a script of `clients/` with an interpreter that `scripts/setup` has installed.
///
/// # Panics
/// When it fails: the message has its output.
pub fn run_script_of(interpreter: &str, script: &str, args: &[String]) {
    let mut command = Command::new(installed(interpreter));
    command.arg(script_path(script)).args(args);
    output(command, "");
}

/// A program that `scripts/setup` has installed under `target/clients`.
///
/// # Panics
/// When it has not been run.
pub fn installed(program: &str) -> PathBuf {
    let path = clients_directory().join(program);
    assert!(path.exists(), "{} is missing: run redis-tests/scripts/setup", path.display());
    path
}

/// A script of `clients/`.
pub(crate) fn script_path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script)
}

/// Where `scripts/setup` puts the client libraries.
///
/// # Panics
/// When it has not been run.
fn clients_directory() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let directory = target.join("clients");
    assert!(directory.exists(), "{} is missing: run redis-tests/scripts/setup clients", directory.display());
    directory
}

/// Runs a program to its end and returns what it printed.
///
/// # Panics
/// When it fails: the message has its output.
pub fn output(mut command: Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run redis-tests/scripts/setup"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.as_bytes().to_vec();
    // The program may print before it has read everything: feed it beside waiting for it.
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let done = child.wait_with_output().expect("the program ends");
    // A program that needs no input may close its end early.
    let _ = feeder.join().expect("the feeder does not panic");
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?} failed ({}):\n{printed}{errors}", done.status);
    printed
}
