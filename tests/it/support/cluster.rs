//! A database cluster: a directory with everything that belongs to it (data, locations behind
//! links, log), and the server on it.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Seek, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::outcome::Outcome;
use super::scratch;
use super::servers::{Installation, Major};

/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a cluster is made.
#[derive(Debug, Clone)]
pub(crate) struct InitOptions {
    /// Size of a WAL segment in MiB.
    pub(crate) wal_segment_mib: u32,
    /// Whether pages have checksums.
    pub(crate) checksums: bool,
    /// Whether pg_wal is a link to a directory elsewhere, also in standbys and copies.
    pub(crate) linked_wal: bool,
    /// Further arguments of initdb.
    pub(crate) arguments: Vec<String>,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { wal_segment_mib: 1, checksums: true, linked_wal: false, arguments: Vec::new() }
    }
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Cleanly, with a checkpoint.
    Fast,
    /// As a crash would.
    Immediate,
}

/// A cluster in a directory of its own. Dropping it stops the server and removes the directory.
#[derive(Debug)]
pub(crate) struct Cluster {
    installation: Installation,
    base: TempDir,
    port: u16,
    /// The addresses that it listens on besides its socket, parted by commas.
    addresses: String,
}

impl Cluster {
    /// Makes a cluster with the settings of [`settings`].
    pub(crate) fn initdb(major: Major, options: &InitOptions) -> Self {
        Self::initdb_with(Installation::of(major), options)
    }

    /// The same with the programs of a certain installation.
    pub(crate) fn initdb_with(installation: Installation, options: &InitOptions) -> Self {
        let major = installation.major();
        let cluster = Self::vacant(installation);
        let mut command = cluster.installation.command("initdb");
        command
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C", "--no-sync"])
            .arg(format!("--wal-segsize={}", options.wal_segment_mib))
            .args(checksum_argument(major, options.checksums))
            .args(&options.arguments)
            .arg("-D")
            .arg(cluster.data());
        if options.linked_wal {
            command.arg("-X").arg(cluster.location("pg_wal"));
        }
        let _ = Outcome::of(&mut command).success();
        cluster.append_config(&settings(major));
        cluster
    }

    /// A place for a cluster, still without a data directory.
    pub(crate) fn vacant(installation: Installation) -> Self {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);
        Self {
            base: scratch::directory(&format!("pg{}", installation.major())),
            port: NEXT_PORT.fetch_add(1, Ordering::Relaxed),
            addresses: String::new(),
            installation,
        }
    }

    /// The same cluster, whose server will listen on these addresses, too, at a port that is free there now.
    pub(crate) fn listening_on(mut self, addresses: &[&str]) -> Self {
        let first = addresses.first().expect("an address");
        self.port = TcpListener::bind((*first, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
        self.addresses = addresses.join(",");
        self
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The programs that this cluster is used with.
    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Its major.
    pub(crate) fn major(&self) -> Major {
        self.installation.major()
    }

    /// The directory that holds everything of this cluster.
    pub(crate) fn base(&self) -> &Path {
        self.base.path()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.base.path().join("data")
    }

    /// A path in the data directory.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.data().join(relative)
    }

    /// A directory beside the data directory, made if need be: for what is behind a link.
    pub(crate) fn location(&self, name: &str) -> PathBuf {
        let path = self.base.path().join("linked").join(name);
        fs::create_dir_all(&path).expect("a directory for a link");
        path
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> String {
        fs::read(self.log_path())
            .map_or_else(|_| String::from("(no log)"), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// Appends lines to postgresql.conf.
    pub(crate) fn append_config(&self, lines: &str) {
        append(&self.path("postgresql.conf"), lines);
    }

    /// Starts the server and waits until it takes queries.
    #[track_caller]
    pub(crate) fn start(&self) {
        let outcome = self.try_start();
        assert!(outcome.status.success(), "cannot start\n{outcome}{}", self.log());
        self.wait_for("postgres", "true");
    }

    /// Tries to start the server; whether it runs afterwards is for the caller to judge.
    pub(crate) fn try_start(&self) -> Outcome {
        let (sockets, addresses) = (scratch::sockets(), &self.addresses);
        let options = format!("-p {} -k '{}' -c listen_addresses='{addresses}'", self.port, sockets.display());
        Outcome::of(self.pg_ctl().arg("-l").arg(self.log_path()).arg("-o").arg(options).arg("start"))
    }

    /// Stops the server.
    #[track_caller]
    pub(crate) fn stop(&self, mode: Stop) {
        let outcome = self.try_stop(mode);
        assert!(outcome.status.success(), "cannot stop\n{outcome}{}", self.log());
    }

    /// Whether a server is running here, as far as its lock file tells.
    pub(crate) fn is_running(&self) -> bool {
        self.path("postmaster.pid").exists()
    }

    /// The running server's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        scratch::sockets().join(format!(".s.PGSQL.{}", self.port))
    }

    /// A connection string for `database` as `user`.
    pub(crate) fn conninfo(&self, database: &str, user: &str) -> String {
        format!("{} dbname={database}", self.address(user))
    }

    /// A connection string without a database, as primary_conninfo wants it.
    pub(crate) fn address(&self, user: &str) -> String {
        let sockets = scratch::sockets();
        format!("host={} port={} user={user}", sockets.display(), self.port)
    }

    /// The same for programs that want options.
    pub(crate) fn connection_options(&self) -> [String; 6] {
        let sockets = scratch::sockets().display().to_string();
        let port = self.port.to_string();
        ["-h", &sockets, "-p", &port, "-U", "postgres"].map(str::to_owned)
    }

    /// Runs a psql script with variables, stopping at the first error.
    pub(crate) fn psql(&self, database: &str, script: &str, variables: &[(&str, &str)]) -> Outcome {
        let mut stdin = tempfile::tempfile_in(self.base()).expect("a file for the script");
        stdin.write_all(script.as_bytes()).expect("the script");
        stdin.rewind().expect("the script");
        let mut command = self.installation.command("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-F", "\t"])
            .args(["-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.conninfo(database, "postgres"))
            .env("PGOPTIONS", "-c lock_timeout=60s -c statement_timeout=120s")
            .stdin(Stdio::from(stdin));
        for (name, value) in variables {
            command.arg("-v").arg(format!("{name}={value}"));
        }
        Outcome::of(&mut command)
    }

    /// What a query answers: columns parted by tabs, without the last newline.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        let outcome = self.psql(database, text, &[]).success();
        outcome.stdout.trim_end_matches('\n').to_owned()
    }

    /// The rows that a query answers.
    #[track_caller]
    pub(crate) fn rows(&self, database: &str, text: &str) -> Vec<Vec<String>> {
        let answer = self.sql(database, text);
        answer.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Makes a checkpoint.
    #[track_caller]
    pub(crate) fn checkpoint(&self) {
        self.sql("postgres", "CHECKPOINT");
    }

    /// Waits until `condition` is true; until then the server need not even take connections.
    #[track_caller]
    pub(crate) fn wait_for(&self, database: &str, condition: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.psql(database, &format!("SELECT {condition}"), &[]);
            if outcome.status.success() && outcome.stdout.trim() == "t" {
                return;
            }
            assert!(
                Instant::now() < deadline && self.is_running(),
                "waited in vain for {condition}\n{outcome}{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// An independent copy of a stopped cluster, modification times kept: what is behind its
    /// links is copied too, and the links of the copy lead there.
    pub(crate) fn duplicate(&self) -> Self {
        assert!(!self.is_running(), "only a stopped cluster can be copied");
        let copy = Self::vacant(self.installation.clone());
        let _ =
            Outcome::of(Command::new("cp").args(["-a", "--reflink=auto"]).arg(self.base().join(".")).arg(copy.base()))
                .success();
        copy.relink(self.base());
        copy
    }

    /// Every link in the data directory that leads to a tablespace or to pg_wal.
    pub(crate) fn links(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.path("pg_wal")];
        let entries = fs::read_dir(self.path("pg_tblspc")).expect("pg_tblspc");
        paths.extend(entries.map(|entry| entry.expect("pg_tblspc").path()));
        paths.retain(|path| path.is_symlink());
        paths
    }

    fn relink(&self, old_base: &Path) {
        for link in self.links() {
            let text = fs::read_link(&link).expect("a link");
            if let Ok(below) = text.strip_prefix(old_base) {
                fs::remove_file(&link).expect("the old link");
                symlink(self.base().join(below), &link).expect("the new link");
            }
        }
    }

    fn try_stop(&self, mode: Stop) -> Outcome {
        let mode = match mode {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        Outcome::of(self.pg_ctl().args(["-m", mode, "stop"]))
    }

    fn pg_ctl(&self) -> Command {
        let mut command = self.installation.command("pg_ctl");
        command.args(["-w", "-t", "60", "-D"]).arg(self.data());
        command
    }

    fn log_path(&self) -> PathBuf {
        self.base.path().join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.try_stop(Stop::Immediate);
        }
    }
}

/// Appends text to a file that may not exist yet.
pub(crate) fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(text.as_bytes()).expect("appended text");
}

/// The settings of every test cluster: quick, quiet between checkpoints, keeping all WAL, and
/// leaving nothing outside of its directory when killed.
/// Address and port are given at start, so that a configuration may travel between clusters.
pub(crate) fn settings(major: Major) -> String {
    let compression = match major.0 {
        ..=14 => "on",
        15 | 17 => "lz4",
        _ => "zstd",
    };
    let mut text = String::from(
        "\n# Settings of the tests\n\
         fsync = off\n\
         full_page_writes = on\n\
         autovacuum = off\n\
         wal_level = replica\n\
         hot_standby = on\n\
         max_connections = 20\n\
         max_wal_senders = 5\n\
         max_prepared_transactions = 10\n\
         track_commit_timestamp = on\n\
         wal_keep_size = 1GB\n\
         max_wal_size = 64MB\n\
         min_wal_size = 8MB\n\
         checkpoint_timeout = 1h\n\
         wal_retrieve_retry_interval = 100ms\n\
         shared_buffers = 16MB\n\
         dynamic_shared_memory_type = mmap\n\
         log_min_messages = info\n",
    );
    writeln!(text, "wal_compression = {compression}").unwrap();
    if major.0 >= 17 {
        text.push_str("allow_in_place_tablespaces = on\n");
    }
    text
}

fn checksum_argument(major: Major, wanted: bool) -> Option<&'static str> {
    match (wanted, major.0) {
        (true, _) => Some("--data-checksums"),
        (false, 18..) => Some("--no-data-checksums"),
        (false, _) => None,
    }
}
