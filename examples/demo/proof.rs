//! Whether the outcome is the one of stock pg_rewind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;

use pg_unfork::cluster::STATE_DIRECTORY;
use pg_unfork::error::{Context, Result};
use pg_unfork::format::ControlFile;
use pg_unfork::manifest::{KeptReason, Manifest};
use sha2::{Digest, Sha256};

use super::pack::Pair;

/// What `make_pair` found in the target after stock pg_rewind.
const EXPECTED: &str = include_str!("expected");

/// Every path below a directory; a file with its SHA-256, anything else with what it is.
pub(crate) type Tree = BTreeMap<String, String>;

/// The outcome of stock pg_rewind.
pub(crate) fn expected() -> Tree {
    let lines = EXPECTED.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once("  ")).map(|(what, path)| (path.to_owned(), what.to_owned())).collect()
}

/// Reads a directory.
pub(crate) fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    read_below(root, "", &mut tree).context(|| format!("cannot read {}", root.display()))?;
    Ok(tree)
}

/// Adds what is below a directory to a tree; links are not followed.
fn read_below(directory: &Path, prefix: &str, tree: &mut Tree) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().display());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_below(&entry.path(), &format!("{path}/"), tree)?;
        }
        let what = match kind.is_file() {
            true => sha256(&entry.path())?,
            false => if kind.is_dir() { "directory" } else { "neither file nor directory" }.to_owned(),
        };
        tree.insert(path, what);
    }
    Ok(())
}

/// The SHA-256 of a file.
fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

/// How many paths differ between two trees.
pub(crate) fn differing(left: &Tree, right: &Tree) -> usize {
    let paths: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    paths.into_iter().filter(|path| left.get(*path) != right.get(*path)).count()
}

/// What a comparison came to.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Files whose bytes are those that stock pg_rewind left.
    pub(crate) files: u64,
    /// Directories that both have.
    pub(crate) directories: u64,
    /// What differs as it must or may, and why.
    pub(crate) exceptions: Vec<String>,
    /// What differs and must not.
    pub(crate) wrong: Vec<String>,
}

/// Compares the rewound target with the outcome of stock pg_rewind. `before` is the target as it
/// was, for what the plan keeps.
pub(crate) fn compare(pair: &Pair, manifest: &Manifest, before: &Tree) -> Result<Comparison> {
    let (expected, after) = (expected(), read(&pair.target)?);
    let kept: BTreeMap<_, _> =
        manifest.kept.iter().map(|kept| (kept.path.to_string(), why_kept(kept.reason))).collect();
    let mut found = Comparison::default();
    let paths: BTreeSet<&String> = expected.keys().chain(after.keys()).collect();
    for path in paths {
        let (stock, ours) = (expected.get(path), after.get(path));
        match path.as_str() {
            _ if stock.is_some() && stock == ours => match stock.map(String::as_str) {
                Some("directory") => found.directories += 1,
                _ => found.files += 1,
            },
            "global/pg_control" if same_control_file(pair)? => {
                found.exceptions.push(format!("{path}: the same but for its time"));
            }
            "backup_label" if same_label(pair)? => {
                found.exceptions.push(format!("{path}: the same but for START TIME"))
            }
            STATE_DIRECTORY => found.exceptions.push(format!("{path}: the record of the apply")),
            _ if path.starts_with(&format!("{STATE_DIRECTORY}/")) => {}
            _ => match kept.get(path) {
                Some(Some(why)) if path.starts_with("pg_wal/") && ours == before.get(path) => {
                    found.exceptions.push(format!("{path}: {why}"));
                }
                _ => found.wrong.push(format!("{path}: {} instead of {}", text(ours), text(stock))),
            },
        }
    }
    Ok(found)
}

/// What one side has at a path, for people.
fn text(what: Option<&String>) -> &str {
    what.map_or("nothing", String::as_str)
}

/// Why a path of `pg_wal` differs, for people; none where it must not.
fn why_kept(reason: KeptReason) -> Option<&'static str> {
    match reason {
        KeptReason::OnlyCopyOfCommonWal => Some("kept, replay needs it and only the target has it"),
        KeptReason::BeforeReplay => Some("left as it was, it lies before replay begins"),
        KeptReason::NotReplayed => Some("not fetched, replay does not read it"),
        KeptReason::StatusOfUnfetchedWal => Some("not fetched, its segment is not either"),
        _ => None,
    }
}

/// Whether the control files have the same bytes once they have the same time.
fn same_control_file(pair: &Pair) -> Result<bool> {
    let read = |path: &Path| {
        let bytes = fs::read(path).context(|| format!("cannot read {}", path.display()))?;
        let control = ControlFile::parse(&bytes).context(|| format!("{} is no control file", path.display()))?;
        Ok(control.with_time(0).as_bytes().to_vec())
    };
    Ok(read(&pair.target.join("global/pg_control"))? == read(&pair.stock.join("pg_control"))?)
}

/// Whether the labels have the same lines, `START TIME` aside, which both must have.
fn same_label(pair: &Pair) -> Result<bool> {
    let read = |path: &Path| {
        let text = fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
        let (lines, time): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| !line.starts_with("START TIME: "));
        Ok((lines.join("\n"), time.len()))
    };
    Ok(read(&pair.target.join("backup_label"))? == read(&pair.stock.join("backup_label"))?)
}
