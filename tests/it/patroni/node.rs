//! A node: a server and the Patroni that starts it, stops it and decides about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::etcd;
use crate::support::cluster::{Cluster, settings};
use crate::support::orchestrators::{address, assert_nothing_runs_below, eventually, kill_all_below, python};
use crate::support::outcome::Outcome;
use crate::support::scratch;
use crate::support::servers::{Installation, Major};

/// What the nodes of a test have in common.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) major: Major,
    /// The name of the pair, which no other test has.
    pub(super) scope: &'static str,
    /// What Patroni calls as pg_rewind.
    pub(super) pg_rewind: PathBuf,
    /// Whether the server's settings are outside of the data directory, as on Debian. Then they say that each node
    /// archives its WAL in a directory of its own, too.
    pub(super) settings_outside: bool,
    /// Whether Patroni removes a data directory that it cannot rewind.
    pub(super) removes: bool,
}

/// One node. It is gone when this is dropped, Patroni first: it would start the server again.
#[derive(Debug)]
pub(super) struct Node {
    name: &'static str,
    patroni: Option<Child>,
    /// The server; its data directory is made by Patroni.
    pub(super) server: Cluster,
}

impl Node {
    /// A node that does not run yet and has to be configured.
    pub(super) fn new(name: &'static str, setup: &Setup) -> Self {
        Self { name, patroni: None, server: Cluster::vacant(Installation::of(setup.major)) }
    }

    /// Where its server listens.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", address(), self.server.port())
    }

    /// Writes what Patroni reads; others are told to connect to `known_as`.
    pub(super) fn configure(&self, setup: &Setup, known_as: &str) {
        if setup.settings_outside {
            self.write_settings_outside(&self.settings_directory(setup));
        }
        fs::write(self.configuration(), self.yaml(setup, known_as)).expect("Patroni's configuration");
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Starts Patroni.
    pub(super) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log");
        let mut command = python(self.server.installation());
        command.args(["-m", "patroni"]).arg(self.configuration()).current_dir(self.server.base());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.patroni = Some(command.spawn().expect("Patroni"));
    }

    /// Ends everything that runs here, with no chance to do anything, as a power failure would.
    pub(super) fn kill(&mut self) {
        // Before what it has started, of which it would start another.
        self.kill_patroni();
        kill_all_below(self.server.base());
    }

    /// Ends Patroni alone, if it runs.
    pub(super) fn kill_patroni(&mut self) {
        if let Some(mut patroni) = self.patroni.take() {
            let _ = patroni.kill();
            let _ = patroni.wait();
        }
    }

    /// Asks Patroni to end, and waits until it has. Panics if anything goes on without it.
    pub(super) fn stop(&mut self) {
        let mut patroni = self.patroni.take().expect("Patroni runs");
        kill_process(Pid::from_child(&patroni), Signal::TERM).expect("Patroni runs");
        let wanted = || format!("the end of Patroni on {}\n{}", self.name, self.log());
        let status = eventually(wanted, || patroni.try_wait().expect("Patroni's status"));
        assert!(status.success(), "{status}");
        assert_nothing_runs_below(self.server.base());
    }

    /// What Patroni and the server have said.
    pub(super) fn log(&self) -> String {
        fs::read(self.log_file()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The members as `patronictl list` shows them.
    pub(super) fn list(&self) -> Vec<Value> {
        let mut command = python(self.server.installation());
        command.args(["-c", "from patroni.ctl import ctl; ctl()", "-c"]).arg(self.configuration());
        let shown = Outcome::of(command.args(["list", "-f", "json"])).success();
        serde_json::from_str(&shown.stdout).expect("JSON")
    }

    /// Where Patroni keeps the server's settings.
    pub(super) fn settings_directory(&self, setup: &Setup) -> PathBuf {
        if setup.settings_outside { self.server.base().join("settings") } else { self.server.data() }
    }

    /// What Patroni includes in the settings that it makes.
    fn write_settings_outside(&self, directory: &Path) {
        let archive = self.server.base().join("archive");
        fs::create_dir(&archive).expect("an archive");
        let archive = archive.display();
        let lines = format!(
            "archive_mode = on
archive_command = 'cp \"%p\" \"{archive}/%f\"'
restore_command = 'cp \"{archive}/%f\" \"%p\"'
"
        );
        fs::create_dir(directory).expect("a directory for settings");
        for (file, content) in [("postgresql.base.conf", &*lines), ("pg_hba.conf", ""), ("pg_ident.conf", "")] {
            fs::write(directory.join(file), content).expect("settings");
        }
    }

    fn configuration(&self) -> PathBuf {
        self.server.base().join("patroni.yml")
    }

    fn log_file(&self) -> PathBuf {
        self.server.base().join("patroni.log")
    }

    /// Everything is as short as Patroni allows. Its `ttl` is not, which is at least 20 seconds.
    fn yaml(&self, setup: &Setup, known_as: &str) -> String {
        let (server, listens) = (&self.server, self.address());
        let api = format!("{}:{}", address(), server.port() + 10_000);
        let path = |name: &str| server.base().join(name).display().to_string();
        format!(
            "scope: {scope}
name: {name}
restapi: {{listen: '{api}', connect_address: '{api}'}}
etcd3: {{host: '{etcd}'}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 1073741824
    postgresql:
      use_pg_rewind: true
      remove_data_directory_on_rewind_failure: {removes}
      remove_data_directory_on_diverged_timelines: {removes}
      parameters:
{parameters}
  initdb: [{{encoding: UTF8}}, {{locale: C}}, {{wal-segsize: '1'}}, data-checksums, no-sync]
postgresql:
  listen: '{listens}'
  connect_address: '{known_as}'
  data_dir: '{data}'
  config_dir: '{settings}'
  bin_dir: '{bin}'
  bin_name: {{pg_rewind: '{pg_rewind}'}}
  pgpass: '{pgpass}'
  use_unix_socket: true
  use_unix_socket_repl: true
  basebackup: [no-sync, {{checkpoint: fast}}]
  pg_hba:
  - local all all trust
  - local replication replicator trust
  - host all all 127.0.0.0/8 md5
  - host replication replicator 127.0.0.0/8 md5
  authentication:
    superuser: {{username: postgres, password: first}}
    replication: {{username: replicator, password: second}}
    rewind: {{username: rewind_user, password: th'ird}}
",
            scope = setup.scope,
            name = self.name,
            etcd = etcd::endpoint(),
            removes = setup.removes,
            parameters = parameters(setup),
            data = server.data().display(),
            settings = self.settings_directory(setup).display(),
            bin = server.installation().bin("").display(),
            pg_rewind = setup.pg_rewind.display(),
            pgpass = path("pgpass"),
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_patroni();
    }
}

/// The tests' settings as Patroni wants them.
fn parameters(setup: &Setup) -> String {
    let mut text = String::new();
    let ours = settings(setup.major);
    let lines = ours.lines().filter_map(|line| line.split_once(" = "));
    let sockets = scratch::sockets().display().to_string();
    let mut all: BTreeMap<&str, &str> = lines.collect();
    // Patroni wants no fewer than 25.
    all.extend([("max_connections", "25"), ("unix_socket_directories", &sockets)]);
    for (name, value) in all {
        writeln!(text, "        {name}: '{value}'").expect("text");
    }
    text
}
