//! How a plan's cost grows: with the WAL to read, with the files to list, with the blocks that changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use pg_unfork::types::RelFileNumber;

use super::Result;
use super::cases::Recipe;
use super::forged::{Forgery, file_of};
use super::pair::Pair;
use super::programs::{pg_unfork_plan, planned_blocks};
use super::server::{Installation, Server};
use super::table::{Run, Samples, mib};
use super::workload::Step;

/// A relation of the database `postgres` that no catalog knows: its number is behind all that a new cluster uses.
const UNKNOWN: RelFileNumber = RelFileNumber { tablespace: 1663, database: 5, relation: 1_000_000 };
/// Bytes of a block.
const BLOCK: u64 = 8192;

/// The points of the curves, in ascending order.
#[derive(Debug, Args)]
pub(crate) struct Sizes {
    /// With --curves: MiB of WAL to read.
    #[arg(long, value_name = "MIB,…", value_delimiter = ',', default_value = "256,512,1024,2048")]
    curve_wal: Vec<u32>,
    /// With --curves: files of relations that did not change.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1000,10000,50000,100000,200000")]
    curve_files: Vec<u32>,
    /// With --curves: changed blocks.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1000,10000,100000,1000000,10000000")]
    curve_blocks: Vec<u64>,
}

/// A pair whose sides are copies, and grow.
struct Growing<'p> {
    pair: &'p Pair,
    target: PathBuf,
    source: PathBuf,
    runs: u32,
}

/// Measures all curves and prints their tables.
pub(crate) fn draw(root: &Path, installation: &Installation, sizes: &Sizes, runs: u32) -> Result<()> {
    let little = || vec![Step::Sql("CREATE TABLE little ()".to_owned())];
    let recipe = Recipe { target: little(), source: little(), ..Recipe::default() };
    let pair = Pair::prepare(root, &format!("curves-{}", installation.major()), &recipe, installation)?;
    let fresh = || -> Result<Growing<'_>> {
        pair.clean_up()?;
        Ok(Growing { pair: &pair, target: pair.copy_of("target")?, source: pair.copy_of("source")?, runs })
    };
    wal(&fresh()?, &sizes.curve_wal)?;
    files(&fresh()?, &sizes.curve_files)?;
    blocks(&fresh()?, &sizes.curve_blocks)?;
    pair.clean_up()
}

/// WAL of updates of one small table: many records, few blocks.
fn wal(growing: &Growing<'_>, sizes: &[u32]) -> Result<()> {
    head("WAL", "MiB", "s per GiB");
    let mut there = 0;
    for &size in sizes {
        let server = Server::start(growing.pair.installation(), &growing.target)?;
        Step::Updates { mib: size.saturating_sub(there) }.run(&server)?;
        server.stop()?;
        there = size;
        growing.point(&size.to_string(), f64::from(size) / 1024.0, &growing.stopped())?;
    }
    Ok(())
}

/// Files of one block that both sides have.
fn files(growing: &Growing<'_>, sizes: &[u32]) -> Result<()> {
    head("Files", "files", "µs per file");
    for &number in sizes {
        for relation in (UNKNOWN.relation..).take(usize::try_from(number)?) {
            growing.extend(RelFileNumber { relation, ..UNKNOWN }, 1, 1)?;
        }
        let millions = f64::from(number) / 1e6;
        growing.point(&format!("{number}, stopped source"), millions, &growing.stopped())?;
        let server = Server::start(growing.pair.installation(), &growing.source)?;
        let option = format!("--source-server={}", server.conninfo());
        growing.point(&format!("{number}, live source"), millions, &option)?;
    }
    Ok(())
}

/// Every second block of one relation.
fn blocks(growing: &Growing<'_>, sizes: &[u64]) -> Result<()> {
    let forgery = Forgery::begin(growing.pair.installation(), &growing.target)?;
    head("Changed blocks", "blocks", "µs per block");
    for &number in sizes {
        growing.extend(UNKNOWN, 2 * number, forgery.blocks_per_file())?;
        forgery.change(UNKNOWN, number)?;
        growing.point(&number.to_string(), number as f64 / 1e6, &growing.stopped())?;
        let planned = planned_blocks(growing.pair)?;
        if planned < number {
            return Err(format!("{number} blocks changed, {planned} are planned").into());
        }
    }
    Ok(())
}

impl Growing<'_> {
    fn stopped(&self) -> String {
        format!("--source-pgdata={}", self.source.display())
    }

    /// Gives a relation so many blocks on both sides, none of which needs room on disk.
    fn extend(&self, relation: RelFileNumber, blocks: u64, per_file: u64) -> Result<()> {
        for side in [&self.target, &self.source] {
            for n in 0..blocks.div_ceil(per_file) {
                let length = (blocks - n * per_file).min(per_file);
                File::create(file_of(side, relation, n))?.set_len(length * BLOCK)?;
            }
        }
        Ok(())
    }

    /// Measures and prints one point of a curve, at so many units.
    fn point(&self, label: &str, units: f64, source: &str) -> Result<()> {
        let once = |_| Ok(Run { cost: pg_unfork_plan(self.pair, &self.target, source)?, copied: None });
        let samples = Samples((0..self.runs).map(once).collect::<Result<_>>()?);
        let fastest = samples.fastest();
        let (least, cpu) = (fastest.wall.as_secs_f64(), fastest.cpu.as_secs_f64());
        let (median, peak) = (samples.median(), mib(samples.peak()));
        println!("| {label} | {median:.3} | {least:.3} | {cpu:.3} | {peak:.1} | {:.2} |", median / units);
        Ok(())
    }
}

fn head(title: &str, unit: &str, per: &str) {
    println!("\n### {title}\n\n| {unit} | plan s | fastest | CPU s | MiB | {per} |\n|---|---|---|---|---|---|");
}
