//! The pair of a case: made once, kept for the next run, and never written to by what is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::run;
use super::server::{Installation, Server};
use super::{Case, Result, Task};

/// What one side did after the fork.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// So many transactions of pgbench.
    pub(crate) transactions: u32,
    /// And this.
    pub(crate) sql: &'static str,
}

/// Like a busy server with ample room for WAL: no checkpoint but those asked for, so that the last
/// common one is just before the fork and every page's first change is a full-page image. Making a
/// pair need not survive a crash, so nothing is synced.
const SETTINGS: &str = "
fsync = off
synchronous_commit = off
autovacuum = off
full_page_writes = on
wal_compression = off
wal_recycle = off
checkpoint_timeout = 1d
max_wal_size = 100GB
shared_buffers = 512MB
";

/// A target and a source, both stopped.
#[derive(Debug)]
pub(crate) struct Pair {
    installation: Installation,
    directory: PathBuf,
}

impl Pair {
    /// The pair of `case`, made unless it is there already.
    pub(crate) fn prepare(root: &Path, case: &Case, installation: &Installation) -> Result<Self> {
        let name = format!("{}-{}-{}-{}", case.name, installation.major(), case.scale, case.target.transactions);
        let pair = Self { installation: installation.clone(), directory: root.join(name) };
        if !pair.complete().exists() {
            if pair.directory.exists() {
                fs::remove_dir_all(&pair.directory)?;
            }
            eprintln!("making {}", pair.directory.display());
            fs::create_dir_all(&pair.directory)?;
            pair.make(case)?;
        }
        fs::create_dir_all(pair.scratch(""))?;
        Ok(pair)
    }

    /// The programs that the pair was made with.
    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// A file beside the working copy.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.directory.join("scratch").join(name)
    }

    /// What the measured program says.
    pub(crate) fn log(&self) -> PathBuf {
        self.scratch("log")
    }

    /// The option with which both programs use the stopped source.
    pub(crate) fn stopped_source(&self) -> String {
        format!("--source-pgdata={}", self.source().display())
    }

    /// The source, running.
    pub(crate) fn start_source(&self) -> Result<Server> {
        Server::start(&self.installation, &self.source())
    }

    /// A target for `task`: the pair's own if nothing is written, else a fresh copy that is already
    /// on disk, lest making the copy durable be charged to what is measured.
    pub(crate) fn target_for(&self, task: Task) -> Result<PathBuf> {
        if task == Task::DryRun {
            return Ok(self.target());
        }
        self.clean_up()?;
        let copy = self.scratch("target");
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(self.target()).arg(&copy))?;
        run(Command::new("sync").arg("-f").arg(&copy))?;
        Ok(copy)
    }

    /// Removes the working copy.
    pub(crate) fn clean_up(&self) -> Result<()> {
        let copy = self.scratch("target");
        if copy.exists() { Ok(fs::remove_dir_all(copy)?) } else { Ok(()) }
    }

    /// Reads everything once.
    pub(crate) fn warm(&self) -> Result<()> {
        let mut command = Command::new("find");
        command.args([self.source(), self.target()]).args(["-type", "f", "-exec", "cat", "{}", "+"]);
        let status = command.stdout(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err("the pair cannot be read".into()) }
    }

    /// The target's WAL since the last common checkpoint.
    pub(crate) fn wal_files(&self) -> Result<Vec<PathBuf>> {
        let first = fs::read_to_string(self.complete())?;
        let mut files = Vec::new();
        for entry in fs::read_dir(self.target().join("pg_wal"))? {
            let entry = entry?;
            let name = entry.file_name();
            if name.len() == 24 && name.to_string_lossy().as_ref() >= first.trim() {
                files.push(entry.path());
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The size of [`Pair::wal_files`] in bytes.
    pub(crate) fn scanned_wal(&self) -> Result<u64> {
        let sizes = self.wal_files()?.into_iter().map(|file| Ok(fs::metadata(file)?.len()));
        sizes.sum()
    }

    fn target(&self) -> PathBuf {
        self.directory.join("target")
    }

    fn source(&self) -> PathBuf {
        self.directory.join("source")
    }

    /// Holds the name of the first WAL segment to scan, once the pair is complete.
    fn complete(&self) -> PathBuf {
        self.directory.join("first_segment")
    }

    fn make(&self, case: &Case) -> Result<()> {
        let mut initdb = self.installation.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        run(initdb.args(["--no-sync", "--data-checksums", "-D"]).arg(self.target()))?;
        let configuration = self.target().join("postgresql.conf");
        fs::write(&configuration, fs::read_to_string(&configuration)? + SETTINGS)?;
        let target = Server::start(&self.installation, &self.target())?;
        target.pgbench(&["-i", "-q", "-s", &case.scale.to_string()])?;
        let mut backup = self.installation.command("pg_basebackup");
        backup.args(["--no-sync", "-c", "fast", "-X", "stream", "-R", "-d"]).arg(target.conninfo());
        run(backup.arg("-D").arg(self.source()))?;
        let source = Server::start(&self.installation, &self.source())?;

        // WAL of the tables' making goes with this checkpoint; all WAL from here on stays.
        target.sql("CHECKPOINT")?;
        target.sql("ALTER SYSTEM SET wal_keep_size = '100GB'")?;
        target.sql("SELECT pg_reload_conf()")?;
        let first = target.sql("SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()")?;
        let end = target.sql("SELECT pg_current_wal_insert_lsn()")?;
        while source.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"))? != "t" {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        source.sql("SELECT pg_promote(true, 600)")?;
        source.sql("CHECKPOINT")?;

        work(&target, &case.target)?;
        work(&source, &case.source)?;
        target.stop()?;
        source.stop()?;
        run(Command::new("sync").arg("-f").arg(&self.directory))?;
        Ok(fs::write(self.complete(), first)?)
    }
}

/// Four clients share the work; what they do is the same each time a pair is made, its order is not.
fn work(server: &Server, work: &Work) -> Result<()> {
    let each = (work.transactions / 4).to_string();
    server.pgbench(&["-n", "-c", "4", "-j", "2", "--random-seed=1", "-t", &each])?;
    if !work.sql.is_empty() {
        server.sql(work.sql)?;
    }
    Ok(())
}
