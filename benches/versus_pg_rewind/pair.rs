//! The pair of a case: made once, kept for the next run, and never written to by what is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Result;
use super::cases::Recipe;
use super::process::run;
use super::programs::Task;
use super::server::{Installation, Server};
use super::workload::Step;

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
    /// The pair called `name`, made as `recipe` says unless it is there already.
    pub(crate) fn prepare(root: &Path, name: &str, recipe: &Recipe, installation: &Installation) -> Result<Self> {
        let pair = Self { installation: installation.clone(), directory: root.join(name) };
        if !pair.complete().exists() {
            if pair.directory.exists() {
                fs::remove_dir_all(&pair.directory)?;
            }
            eprintln!("making {}", pair.directory.display());
            fs::create_dir_all(&pair.directory)?;
            pair.make(recipe)?;
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
        let copy = self.copy_of("target")?;
        run(Command::new("sync").arg("-f").arg(&copy))?;
        Ok(copy)
    }

    /// A copy of the `source` or the `target` beside the pair, until [`Pair::clean_up`].
    pub(crate) fn copy_of(&self, side: &str) -> Result<PathBuf> {
        let copy = self.scratch(side);
        copy_directory(&self.directory.join(side), &copy)?;
        Ok(copy)
    }

    /// Removes what lies beside the pair.
    pub(crate) fn clean_up(&self) -> Result<()> {
        fs::remove_dir_all(self.scratch(""))?;
        Ok(fs::create_dir(self.scratch(""))?)
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
        Ok(self.target_wal()?.into_iter().filter(|(name, _)| *name >= first).map(|(_, file)| file).collect())
    }

    /// The size of [`Pair::wal_files`] in bytes.
    pub(crate) fn scanned_wal(&self) -> Result<u64> {
        let sizes = self.wal_files()?.into_iter().map(|file| Ok(fs::metadata(file)?.len()));
        sizes.sum()
    }

    /// The target's WAL segments by name, ascending.
    fn target_wal(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.target().join("pg_wal"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.len() == 24 {
                files.push((name, entry.path()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn target(&self) -> PathBuf {
        self.directory.join("target")
    }

    /// The source's data directory.
    pub(crate) fn source(&self) -> PathBuf {
        self.directory.join("source")
    }

    /// Holds the name of the first WAL segment to scan, once the pair is complete.
    fn complete(&self) -> PathBuf {
        self.directory.join("first_segment")
    }

    /// Both sides are one directory up to the fork: a standby is no more than that, and a copy of 100,000 files is
    /// made in seconds.
    fn make(&self, recipe: &Recipe) -> Result<()> {
        let (target, source) = (self.target(), self.source());
        let mut initdb = self.installation.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        run(initdb.args(["--no-sync", "--data-checksums", "-D"]).arg(&target))?;
        let configuration = target.join("postgresql.conf");
        fs::write(&configuration, fs::read_to_string(&configuration)? + SETTINGS)?;

        let server = Server::start(&self.installation, &target)?;
        work(&server, &recipe.base)?;
        // All WAL from here on stays; the last common checkpoint is the one with which the server stops.
        server.sql("CHECKPOINT")?;
        server.sql("ALTER SYSTEM SET wal_keep_size = '100GB'")?;
        server.sql("SELECT pg_reload_conf()")?;
        work(&server, &recipe.kept)?;
        server.stop()?;
        copy_directory(&target, &source)?;

        fs::write(source.join("standby.signal"), "")?;
        let server = Server::start(&self.installation, &source)?;
        server.sql("SELECT pg_promote(true, 600)")?;
        server.sql("CHECKPOINT")?;
        work(&server, &recipe.source)?;
        server.stop()?;

        let server = Server::start(&self.installation, &target)?;
        let first = server.sql("SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()")?;
        work(&server, &recipe.target)?;
        server.stop()?;
        for (name, file) in self.target_wal()? {
            if name < first {
                fs::remove_file(file)?;
            }
        }
        run(Command::new("sync").arg("-f").arg(&self.directory))?;
        Ok(fs::write(self.complete(), first)?)
    }
}

fn work(server: &Server, steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| step.run(server))
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to])).map(drop)
}
