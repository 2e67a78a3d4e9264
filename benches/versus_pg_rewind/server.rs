//! The servers: where they are installed, and one that runs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::Result;
use super::process::run;

/// The programs of one major.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    major: u16,
    prefix: PathBuf,
}

impl Installation {
    /// The installation of `major`, where the tests have it.
    pub(crate) fn of(major: u16) -> Result<Self> {
        let root = env::var_os("PG_UNFORK_POSTGRES")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres"), PathBuf::from);
        let prefix = root.join(major.to_string());
        if !prefix.join("bin/postgres").exists() {
            return Err(format!("no PostgreSQL {major} in {}: run tests/postgres/install", root.display()).into());
        }
        Ok(Self { major, prefix })
    }

    /// Its major.
    pub(crate) fn major(&self) -> u16 {
        self.major
    }

    /// A command for one of its programs.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.prefix.join("bin").join(program));
        clean_environment(&mut command);
        // These builds have no run path.
        if (14..=18).contains(&self.major) {
            command.env("LD_LIBRARY_PATH", self.prefix.join("lib"));
        }
        command
    }
}

/// Removes the caller's language and libpq settings.
pub(crate) fn clean_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PG") || text.starts_with("LC_") || text.starts_with("LANG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
}

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    installation: Installation,
    data: PathBuf,
    sockets: TempDir,
}

impl Server {
    /// Starts a server.
    pub(crate) fn start(installation: &Installation, data: &Path) -> Result<Self> {
        let server = Self { installation: installation.clone(), data: data.to_owned(), sockets: tempfile::tempdir()? };
        let options = format!("-k '{}' -c listen_addresses=''", server.sockets.path().display());
        let log = data.with_extension("log");
        // The server outlives pg_ctl, so pg_ctl's output must not be waited for.
        let mut command = server.pg_ctl("start");
        let status = command.arg("-l").arg(log).arg("-o").arg(options).stdout(Stdio::null()).status()?;
        if status.success() { Ok(server) } else { Err("a server did not start: see its log".into()) }
    }

    /// Stops the server cleanly.
    pub(crate) fn stop(self) -> Result<()> {
        run(&mut self.pg_ctl("stop")).map(drop)
    }

    /// Stops the server at once, as a crash would.
    pub(crate) fn crash(self) -> Result<()> {
        run(self.pg_ctl("stop").args(["-m", "immediate"])).map(drop)
    }

    /// The socket that it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.sockets.path().join(".s.PGSQL.5432")
    }

    /// A connection string.
    pub(crate) fn conninfo(&self) -> String {
        format!("host={} port=5432 user=postgres dbname=postgres", self.sockets.path().display())
    }

    /// What a query answers.
    pub(crate) fn sql(&self, text: &str) -> Result<String> {
        let mut command = self.installation.command("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text, "-d"]).arg(self.conninfo());
        Ok(run(&mut command)?.trim().to_owned())
    }

    /// Runs pgbench on this server.
    pub(crate) fn pgbench(&self, arguments: &[&str]) -> Result<()> {
        run(self.installation.command("pgbench").args(arguments).arg(self.conninfo())).map(drop)
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = self.installation.command("pg_ctl");
        command.args([action, "-s", "-w", "-t", "600", "-m", "fast", "-D"]).arg(&self.data);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            let _ = run(&mut self.pg_ctl("stop"));
        }
    }
}
