//! Private PostgreSQL instances for tests: made in a directory of their own, on a free port, gone with the test.
//!
//! ```no_run
//! # async fn test() {
//! let postgres = forebay_test_postgres::TestPostgres::start().await;
//! postgres.sql("postgres", "CREATE TABLE t (id int)").await;
//! let url = postgres.url("postgres");
//! # }
//! ```
//!
//! It is found by the environment variable `POSTGRES_BIN` (the directory of `initdb` and `postgres`), or among the places
//! where Debian puts it, or on the PATH. PostgreSQL refuses to run as root, so root runs it as the user `postgres`.
//!
//! A fixture's failure is a test's failure, so everything here panics, and says what went wrong.

use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long an instance may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The user who runs it when the tests are run by root.
const UNPRIVILEGED_USER: &str = "postgres";

/// The database user, who needs no password.
const SUPERUSER: &str = "postgres";

/// A running instance; it is stopped and its directory removed when this is dropped.
#[derive(Debug)]
pub struct TestPostgres {
    directory: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl TestPostgres {
    /// Makes and starts an instance with `pg_stat_statements`, ready for connections.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with settings of `postgresql.conf`, such as `("max_connections", "20")`.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let directory = own_directory();
        let data = directory.join("data");
        run(
            "initdb",
            [
                OsStr::new("--pgdata"),
                data.as_os_str(),
                OsStr::new("--username"),
                OsStr::new(SUPERUSER),
                OsStr::new("--auth=trust"),
                OsStr::new("--encoding=UTF8"),
                OsStr::new("--locale=C.UTF-8"),
                OsStr::new("--no-sync"),
            ],
        );
        let mut postgres = TestPostgres { directory, port: free_port(), server: None };
        postgres.configure(settings);
        postgres.start_again().await;
        postgres.sql("postgres", "CREATE EXTENSION pg_stat_statements").await;
        postgres
    }

    /// The URL of a database, over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory; `postgresql.conf` and certificates stand there.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Runs SQL and gives the rows as text, columns separated by `|`. It goes through `psql`, so that what is under test
    /// is not what tests it.
    pub async fn sql(&self, database: &str, text: &str) -> String {
        match self.try_sql(database, text).await {
            Ok(rows) => rows,
            Err(words) => panic!("psql: {words}\nin: {text}"),
        }
    }

    /// The same, with an error instead of a panic.
    pub async fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
            .args(["--dbname", &self.url(database), "--command", text])
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || psql.output())
            .await
            .expect("psql is waited for")
            .expect("psql can be run");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Stops it as a crash would: no connection hears of it, nothing is written.
    pub async fn stop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        send("QUIT", server.id());
        wait_until("PostgreSQL has stopped", || has_ended(&mut server)).await;
    }

    /// Starts it after [`TestPostgres::stop`], on the same port with the same data.
    pub async fn start_again(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let log = self.directory.join("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the log can be opened");
        let mut command = unprivileged(&program("postgres"));
        command.arg("-D").arg(self.data_directory()).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("the log can be shared")).stderr(file);
        self.server = Some(command.spawn().expect("postgres can be run"));
        let deadline = Instant::now() + PATIENCE;
        while self.try_sql("postgres", "SELECT 1").await.is_err() {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            let is_gone = self.server.as_mut().is_none_or(has_ended);
            assert!(!is_gone, "PostgreSQL has ended:\n{}", said());
            assert!(Instant::now() < deadline, "PostgreSQL does not start:\n{}", said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Freezes or wakes the server's processes, as a database that hangs.
    pub async fn freeze(&self, frozen: bool) {
        let signal = if frozen { "STOP" } else { "CONT" };
        self.processes().into_iter().for_each(|pid| send(signal, pid));
    }

    /// Starts a streaming replica of this instance.
    pub async fn standby(&self) -> TestPostgres {
        let directory = own_directory();
        let data = directory.join("data");
        run(
            "pg_basebackup",
            [
                OsStr::new("--pgdata"),
                data.as_os_str(),
                OsStr::new("--dbname"),
                OsStr::new(&self.url("")),
                OsStr::new("--write-recovery-conf"),
                OsStr::new("--checkpoint=fast"),
                OsStr::new("--wal-method=stream"),
                OsStr::new("--no-sync"),
            ],
        );
        let mut standby = TestPostgres { directory, port: free_port(), server: None };
        standby.configure(&[]);
        standby.start_again().await;
        standby
    }

    /// Waits until `standby` has replayed everything that is committed here.
    pub async fn catch_up(&self, standby: &TestPostgres) {
        let position = self.sql("postgres", "SELECT pg_current_wal_lsn()").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
        let deadline = Instant::now() + PATIENCE;
        while standby.sql("postgres", &replayed).await != "t" {
            assert!(Instant::now() < deadline, "the standby does not catch up with {position}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn configure(&self, settings: &[(&str, &str)]) {
        let path = self.data_directory().join("postgresql.conf");
        let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("postgresql.conf is there");
        let directory = self.directory.display();
        let mut lines = vec![
            format!("port = {}", self.port),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{directory}'"),
            "shared_preload_libraries = 'pg_stat_statements'".to_owned(),
            "fsync = off".to_owned(),
            "wal_level = logical".to_owned(),
            "max_connections = 100".to_owned(),
        ];
        lines.extend(settings.iter().map(|(name, value)| format!("{name} = '{value}'")));
        writeln!(file, "{}", lines.join("\n")).expect("postgresql.conf can be written");
    }

    /// The server's first process and those that it started.
    fn processes(&self) -> Vec<u32> {
        let Some(server) = &self.server else {
            return Vec::new();
        };
        let first = server.id();
        let started = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap_or_default();
        let started = started.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(first).chain(started).collect()
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        self.processes().into_iter().for_each(|pid| send("CONT", pid));
        if let Some(mut server) = self.server.take() {
            send("QUIT", server.id());
            let deadline = Instant::now() + PATIENCE;
            while !has_ended(&mut server) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // What cannot be removed stays in the directory for temporary files, which others empty.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn has_ended(server: &mut Child) -> bool {
    server.try_wait().expect("the server can be waited for").is_some()
}

/// Waits for a condition, with a deadline.
pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain it was waited until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A fresh directory for one instance, which the unprivileged user may write.
fn own_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("forebay-postgres-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory can be made");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).expect("it can be opened to others");
    directory
}

/// A port that is free now. Another process may take it first, in which case the start says so.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a listener has an address").port()
}

fn run<'a>(name: &str, arguments: impl IntoIterator<Item = &'a OsStr>) {
    let output =
        unprivileged(&program(name)).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A command as a user whom PostgreSQL accepts. It is that process itself, with nothing between, so that its pid is the
/// one to signal.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if id("-u", None) == 0 {
        command.uid(id("-u", Some(UNPRIVILEGED_USER))).gid(id("-g", Some(UNPRIVILEGED_USER))).current_dir("/");
    }
    command
}

/// A user's number, or the group's; one's own if no user is named.
fn id(which: &str, user: Option<&str>) -> u32 {
    let output = Command::new("id").arg(which).args(user).output().expect("id can be run");
    let number = String::from_utf8_lossy(&output.stdout);
    number.trim().parse().unwrap_or_else(|_| panic!("there is no user {user:?} to run PostgreSQL as"))
}

/// Where a program of PostgreSQL is.
pub fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let found = named.into_iter().chain(versions).map(|directory| directory.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(name))
}

fn send(signal: &str, pid: u32) {
    // A process that has just ended needs no signal any more.
    let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status();
}
