//! What the machine can do: the same bytes with nothing to decide about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use super::Result;
use super::pair::Pair;
use super::process::{Cost, measure};
use super::server::Server;
use super::table::{Run, Samples};

/// Bytes that one call of `pg_read_binary_file` reads.
const PIECE: u64 = 1 << 20;

/// `cat` of the WAL that a plan reads.
pub(crate) fn cat_wal(pair: &Pair, runs: u32) -> Result<Samples> {
    let files = pair.wal_files()?;
    repeat(runs, || measure(Command::new("cat").args(&files), &pair.log()))
}

/// `cp` of one file of so many bytes of the source's, without and with a `sync` of the copy.
pub(crate) fn cp(pair: &Pair, bytes: u64, runs: u32) -> Result<(Samples, Samples)> {
    let (original, copy) = (pair.scratch("original"), pair.scratch("copy"));
    let status = Command::new("bash")
        .args(["-c", "find \"$1\" -type f -exec cat {} + | head -c \"$2\" > \"$3\"; sync \"$3\"", "bash"])
        .args([pair.source().as_os_str(), bytes.to_string().as_ref(), original.as_os_str()])
        .stderr(Stdio::null())
        .status()?;
    if !status.success() || fs::metadata(&original)?.len() != bytes {
        return Err(format!("{}: cannot be made", original.display()).into());
    }
    let (mut plain, mut synced) = (Samples::default(), Samples::default());
    for _ in 0..runs {
        let cost = measure(Command::new("cp").args([&original, &copy]), &pair.log())?;
        let whole = cost.then(measure(Command::new("sync").arg(&copy), &pair.log())?);
        plain.0.push(Run { cost, copied: Some(bytes) });
        synced.0.push(Run { cost: whole, copied: Some(bytes) });
        fs::remove_file(&copy)?;
    }
    fs::remove_file(&original)?;
    Ok((plain, synced))
}

/// `pg_read_binary_file` of the source's relations, at most `most` bytes: one connection at the local socket, one
/// request at a time, answers in binary. Gives what came, too.
pub(crate) fn read_binary_file(pair: &Pair, server: &Server, most: u64, runs: u32) -> Result<(u64, Samples)> {
    let mut client = Client::connect(&server.conninfo(), NoTls)?;
    let query = client.prepare("SELECT pg_read_binary_file($1, $2, $3, true)")?;
    let mut files = Vec::new();
    list(&pair.source().join("base"), &mut files)?;
    // Large files first: the limit is that of bytes, not of requests.
    files.sort_unstable_by_key(|(_, size)| std::cmp::Reverse(*size));
    let mut came = 0;
    let samples = repeat(runs, || {
        let start = Instant::now();
        came = 0;
        for (path, size) in &files {
            let name = path.strip_prefix(pair.source())?.to_string_lossy();
            let mut offset = 0;
            while offset < *size && came < most {
                let row = client.query_one(&query, &[&name, &i64::try_from(offset)?, &i64::try_from(PIECE)?])?;
                came += row.try_get::<_, &[u8]>(0)?.len() as u64;
                offset += PIECE;
            }
        }
        Ok(Cost { wall: start.elapsed(), cpu: Duration::ZERO, peak: 0 })
    })?;
    Ok((came, samples))
}

fn repeat(runs: u32, mut once: impl FnMut() -> Result<Cost>) -> Result<Samples> {
    (0..runs).map(|_| Ok(Run { cost: once()?, copied: None })).collect::<Result<_>>().map(Samples)
}

/// All files below a directory, with their sizes in bytes.
fn list(directory: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}
