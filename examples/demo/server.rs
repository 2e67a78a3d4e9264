//! The rewound target as a standby of the source, where a server of their major is found.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use pg_unfork::error::{Context, Error, Result};
use postgres::{Client, NoTls};

use super::pack::{MAJOR, Pair};

/// The user that servers run as when the demo runs as root: nobody.
const ORDINARY_USER: u32 = 65534;

/// How long a row may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a directory's name that leave room for a socket's in the 107 that there are.
const LONGEST_DIRECTORY: usize = 90;

/// The ports are only names: the servers listen on sockets in the temporary directory.
const SOURCE_PORT: u16 = 5432;
/// See [`SOURCE_PORT`].
const TARGET_PORT: u16 = 5433;

/// What must hold on the target, and how it is asked.
const TRUE_OF_TARGET: [(&str, &str); 4] = [
    ("is a standby", "pg_is_in_recovery()"),
    ("has the table that the source made after the fork", "to_regclass('created_by_new_primary') IS NOT NULL"),
    ("has the one that it made itself no more", "to_regclass('created_by_old_primary') IS NULL"),
    ("has none of its own transfers", "NOT EXISTS (SELECT FROM transfers WHERE made_by = 'old primary')"),
];

/// Starts the source, then the target as its standby, and has a row arrive. Says so and does
/// nothing where that is impossible.
pub(crate) fn follow(scratch: &Path, pair: &Pair) -> Result<()> {
    let Some(bin) = find() else {
        println!(
            "No server of PostgreSQL {MAJOR} is found here (PG_UNFORK_POSTGRES, target/postgres, /usr/lib/postgresql, PATH): not shown."
        );
        return Ok(());
    };
    let servers = Servers { bin, sockets: scratch.to_owned() };
    if let Some(why) = servers.unusable(&pair.source) {
        println!("PostgreSQL {MAJOR} is found in {}, but cannot be run: {why}. Not shown.", servers.bin.display());
        return Ok(());
    }
    println!("PostgreSQL {MAJOR} is found in {}.", servers.bin.display());
    let _source = servers.start(&pair.source, SOURCE_PORT)?;
    configure(&pair.target, &format!("host=''{}'' port={SOURCE_PORT} user=postgres", scratch.display()))
        .context(|| "cannot configure the standby".to_owned())?;
    let _target = servers.start(&pair.target, TARGET_PORT)?;
    let (mut source, mut target) = (servers.connect(SOURCE_PORT)?, servers.connect(TARGET_PORT)?);
    let insert = "INSERT INTO transfers (made_by, amount) VALUES ('demo', 42) RETURNING id";
    let id: i64 =
        source.query_one(insert, &[]).and_then(|row| row.try_get(0)).context(|| "cannot insert a row".to_owned())?;
    println!("Inserted on the source:  transfer {id}");
    println!("Arrived on the target:   transfer {id}, after {} ms", arrival(&mut target, id)?.as_millis());
    for (what, condition) in TRUE_OF_TARGET {
        let row = target.query_one(&format!("SELECT {condition}"), &[]);
        if !row.and_then(|row| row.try_get(0)).context(|| "cannot ask the target".to_owned())? {
            return Err(Error::failure(format!("it is not true that the target {what}")));
        }
        println!("The target {what}.");
    }
    Ok(())
}

/// How long it takes until the target has the row.
fn arrival(target: &mut Client, id: i64) -> Result<Duration> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let rows = target.query("SELECT FROM transfers WHERE id = $1 AND made_by = 'demo'", &[&id]);
        if !rows.context(|| "cannot ask the target".to_owned())?.is_empty() {
            return Ok(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Error::failure(format!("row {id} has not arrived on the target within {} s", PATIENCE.as_secs())))
}

/// The first directory that has programs of the major.
fn find() -> Option<PathBuf> {
    let installations = [
        env::var_os("PG_UNFORK_POSTGRES").map(PathBuf::from),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres")),
        Some(PathBuf::from("/usr/lib/postgresql")),
    ];
    let mut candidates: Vec<PathBuf> =
        installations.into_iter().flatten().map(|root| root.join(MAJOR).join("bin")).collect();
    candidates.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    candidates.into_iter().filter(|bin| bin.is_absolute() && bin.join("pg_ctl").is_file()).find(|bin| is_of_major(bin))
}

/// Whether a directory's server is of the pair's major.
fn is_of_major(bin: &Path) -> bool {
    let Ok(output) = Command::new(bin.join("postgres")).arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_once("(PostgreSQL) ").is_some_and(|(_, version)| version.split(['.', ' ', '\n']).next() == Some(MAJOR))
}

/// Gives the temporary directory to the ordinary user.
fn hand_over(path: &Path) -> std::io::Result<()> {
    lchown(path, Some(ORDINARY_USER), Some(ORDINARY_USER))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over(&entry?.path())?;
        }
    }
    Ok(())
}

/// Makes the target a standby (`conninfo` as it stands in a quoted setting): what `-R` does where the plan is made with a running source.
fn configure(target: &Path, conninfo: &str) -> std::io::Result<()> {
    let mut settings = fs::OpenOptions::new().append(true).open(target.join("postgresql.auto.conf"))?;
    writeln!(settings, "primary_conninfo = '{conninfo}'")?;
    let signal = target.join("standby.signal");
    fs::write(&signal, "")?;
    fs::set_permissions(&signal, fs::Permissions::from_mode(0o600))?;
    match rustix::process::geteuid().is_root() {
        true => chown(&signal, Some(ORDINARY_USER), Some(ORDINARY_USER)),
        false => Ok(()),
    }
}

/// Where servers come from and where their sockets are.
#[derive(Debug)]
struct Servers {
    /// The directory of the programs.
    bin: PathBuf,
    /// The temporary directory.
    sockets: PathBuf,
}

/// A running server, stopped on drop.
struct Running<'a> {
    /// Where it came from.
    servers: &'a Servers,
    /// Its data directory.
    directory: PathBuf,
}

impl Servers {
    /// One of the programs; as root, run by the ordinary user.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                format!("--reuid={ORDINARY_USER}"),
                format!("--regid={ORDINARY_USER}"),
                "--clear-groups".to_owned(),
            ]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.sockets).env("LC_ALL", "C");
        // An installation that is not in its place has its libraries beside its programs.
        let libraries = self.bin.with_file_name("lib");
        if libraries.join("libpq.so.5").exists() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// Why this user cannot run a server on this directory, if so.
    fn unusable(&self, directory: &Path) -> Option<String> {
        if self.sockets.as_os_str().len() > LONGEST_DIRECTORY {
            return Some(format!("the name {} is too long for a socket's", self.sockets.display()));
        }
        if rustix::process::geteuid().is_root()
            && let Err(error) = hand_over(&self.sockets)
        {
            return Some(format!("cannot give the pair to an ordinary user: {error}"));
        }
        match self.command("postgres").arg("-D").arg(directory).args(["-C", "port"]).output() {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(said(&output).lines().last().unwrap_or("it says nothing").to_owned()),
            Err(error) => Some(format!("cannot start a program, or setpriv as root: {error}")),
        }
    }

    /// Starts a server and waits until it takes connections.
    fn start(&self, directory: &Path, port: u16) -> Result<Running<'_>> {
        let log = directory.with_extension("log");
        let options = format!("-p {port} -k '{}' -c listen_addresses=", self.sockets.display());
        let mut command = self.command("pg_ctl");
        command.args(["-s", "-w", "-t", "60", "-D"]).arg(directory).arg("-l").arg(&log).args(["-o", &options, "start"]);
        let running = Running { servers: self, directory: directory.to_owned() };
        let output = command.output().context(|| "cannot run pg_ctl".to_owned())?;
        if output.status.success() {
            return Ok(running);
        }
        let log = fs::read_to_string(&log).unwrap_or_default();
        Err(Error::failure(format!("no server starts on {}: {}\n{log}", directory.display(), said(&output))))
    }

    /// Connects to a started server.
    fn connect(&self, port: u16) -> Result<Client> {
        let address = format!("host='{}' port={port} user=postgres dbname=postgres", self.sockets.display());
        Client::connect(&address, NoTls).context(|| format!("cannot connect to {address}"))
    }
}

/// What a program said on standard error.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut command = self.servers.command("pg_ctl");
        let _ = command.args(["-s", "-w", "-m", "immediate", "-D"]).arg(&self.directory).arg("stop").output();
    }
}
