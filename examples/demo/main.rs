//! The main job on a real pair of data directories, with proof of the outcome.
//!
//! Needs no PostgreSQL: the pair comes with the demo, and so does the list of what PostgreSQL's own
//! pg_rewind makes of it. Where a server of the pair's major is found, the result is started too.
//! Everything happens in a temporary directory, which is gone in the end.
//!
//! `cargo run --release --example demo`
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, clippy::disallowed_types)]

mod pack;
mod proof;
mod server;

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use pg_unfork::apply::{Actor, ApplyContext, ApplyOptions, BATCH_BYTES, Now, Outcome, apply};
use pg_unfork::error::{Context, Error, Result};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{
    DataDirectory, DirectoryStore, DocumentFile, Lock, LockKind, StoppedSource, SyncMethod, write_document,
};
use pg_unfork::manifest::{ActionKind, Manifest, Verdict, parse, to_json};
use pg_unfork::plan::{PlanOptions, make_plan};
use pg_unfork::progress::Silent;
use pg_unfork::report::{Layout, bytes, count, summary};

use pack::Pair;

/// Runs the demo; an error is shown with its causes and hints.
fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("\ndemo: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    for hint in error.hints() {
        eprintln!("  hint: {hint}");
    }
    ExitCode::FAILURE
}

/// All of it, step by step; fails where anything is not as it must be.
fn run() -> Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix("pg_unfork-demo-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .context(|| "cannot make a temporary directory".to_owned())?;
    let pair = pack::unpack(scratch.path())?;
    let (target, source) = (proof::read(&pair.target)?, proof::read(&pair.source)?);
    println!(
        "== 1. A pair that forked, made by real servers of PostgreSQL {} (unpacked from {})",
        pack::MAJOR,
        bytes(pack::packed_size())
    );
    println!("{}  the old primary: worked on while its standby was promoted, then stopped", pair.target.display());
    println!("{}  the promoted standby, the primary of today, stopped too", pair.source.display());
    println!(
        "As it is, the old primary cannot follow the new one: {} differ.",
        count(proof::differing(&target, &source) as u64, "path", "paths")
    );

    println!("\n== 2. The plan: nothing is changed");
    let file = scratch.path().join("plan.json");
    plan(&pair, &file)?;
    same(&target, &pair.target, "the target before the apply")?;

    println!("\n== 3. The apply: exactly that plan");
    let document = DocumentFile::open(Some(&file))?;
    let manifest = parse(&document).context(|| "cannot read the plan".to_owned())?;
    match apply_once(&pair, &manifest, &document)? {
        Outcome::Rewound { bytes: copied, left: 0, standby: false, .. } => {
            println!("Rewound; {} copied.", bytes(copied))
        }
        other => return Err(Error::failure(format!("the apply came to {other:?}"))),
    }

    println!("\n== 4. The proof: what stock pg_rewind of PostgreSQL {} made of the same pair", pack::MAJOR);
    prove(&pair, &manifest, &target)?;
    match apply_once(&pair, &manifest, &document)? {
        Outcome::AlreadyApplied => println!("A second apply of the plan: already applied, nothing to do."),
        other => return Err(Error::failure(format!("the second apply came to {other:?}"))),
    }
    same(&source, &pair.source, "the source")?;
    println!("The source: {}, all as before.", count(source.len() as u64, "path", "paths"));

    println!("\n== 5. The result at work, as a standby of the source");
    server::follow(scratch.path(), &pair)?;
    println!("\nDone. {} is removed.", scratch.path().display());
    scratch.close().context(|| "cannot remove the temporary directory".to_owned())
}

/// Plans, shows the plan and writes it.
fn plan(pair: &Pair, file: &Path) -> Result<()> {
    let mut target = DataDirectory::open(&pair.target)?;
    let _lock = Lock::take(target.path(), LockKind::Shared)?;
    let mut source = StoppedSource::new(DataDirectory::open(&pair.source)?);
    let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let options = PlanOptions { created, ..PlanOptions::default() };
    let mut manifest = make_plan(&mut target, &mut source, &options, &Silent)?;
    let document = to_json(&mut manifest)?;
    write_document(file, |writer| writer.write_all(&document))?;
    print!("{}", summary(&manifest, Some(&file.display().to_string()), Layout::default()));
    let lines = String::from_utf8_lossy(&document).lines().count() as u64;
    println!("\nThree actions, of the {} that the file has:", count(lines, "line", "lines"));
    excerpt(&manifest)?;
    if manifest.verdict != Verdict::Rewind {
        return Err(Error::failure(format!("the verdict is {:?}, the pair needs a rewind", manifest.verdict)));
    }
    Ok(())
}

/// An action of each sort.
fn excerpt(manifest: &Manifest) -> Result<()> {
    for kind in [ActionKind::Patch, ActionKind::CopyFile, ActionKind::Remove] {
        if let Some(action) = manifest.actions.iter().rev().find(|action| action.kind == kind) {
            println!("  {}", serde_json::to_string(action).context(|| "cannot show an action".to_owned())?);
        }
    }
    Ok(())
}

/// One apply, as the command line does it.
fn apply_once(pair: &Pair, manifest: &Manifest, document: &DocumentFile) -> Result<Outcome> {
    let mut target = DataDirectory::open(&pair.target)?;
    let _lock = Lock::take(target.path(), LockKind::Exclusive)?;
    let roots: Vec<_> = manifest.target.roots.iter().map(|root| (root.path.clone(), root.link.clone())).collect();
    let mut store = DirectoryStore::open(target.path(), &roots, SyncMethod::Fsync)?;
    let mut source = StoppedSource::new(DataDirectory::open(&pair.source)?);
    apply(ApplyContext {
        manifest,
        document,
        target: &mut target,
        store: &mut store,
        source: &mut source,
        now: &now,
        progress: &Silent,
        options: ApplyOptions { undo: true, durable: true, batch_bytes: BATCH_BYTES },
        id: "demo",
        interrupt: &Interrupt::new(),
        actor: &Actor {
            host: "localhost".to_owned(),
            process: std::process::id(),
            user: "demo".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    })
}

/// The time of the apply, in the local time zone.
fn now() -> Now {
    let now = jiff::Zoned::now();
    let local = now.strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    Now { unix: now.timestamp().as_second(), local, utc: now.timestamp().to_string() }
}

/// Shows how the outcome compares with stock pg_rewind's; fails where it differs without leave.
fn prove(pair: &Pair, manifest: &Manifest, before: &proof::Tree) -> Result<()> {
    let differed = proof::differing(before, &proof::expected()) as u64;
    let found = proof::compare(pair, manifest, before)?;
    println!("Before the apply {} differed from that. Now:", count(differed, "path", "paths"));
    println!(
        "  {} with the same SHA-256, {}",
        count(found.files, "file", "files"),
        count(found.directories, "directory", "directories")
    );
    println!("  {}, each for a reason:", count(found.exceptions.len() as u64, "exception", "exceptions"));
    for line in &found.exceptions {
        println!("    {line}");
    }
    println!("  {} that must not differ", count(found.wrong.len() as u64, "difference", "differences"));
    for line in &found.wrong {
        println!("    {line}");
    }
    if found.wrong.is_empty() && found.files > 0 {
        return Ok(());
    }
    Err(Error::failure("the outcome is not that of stock pg_rewind"))
}

/// Fails where a directory is not as it was.
fn same(before: &proof::Tree, directory: &Path, what: &str) -> Result<()> {
    match proof::differing(before, &proof::read(directory)?) {
        0 => Ok(()),
        number => Err(Error::failure(format!("{what} has changed: {}", count(number as u64, "path", "paths")))),
    }
}
