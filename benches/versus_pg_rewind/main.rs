//! Times pg_unfork beside stock pg_rewind on the same pairs of clusters; see `benches/README.md`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

mod cases;
mod curves;
mod forged;
mod limits;
mod pair;
mod process;
mod programs;
mod relay;
mod server;
mod table;
#[allow(dead_code, clippy::expect_used)]
#[path = "../../tests/it/support/wal_builder.rs"]
mod wal_builder;
mod workload;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;

use cases::{Case, Reach, Row};
use curves::Sizes;
use pair::Pair;
use process::run;
use programs::{pg_rewind, pg_unfork};
use relay::Relay;
use server::{Installation, Server};
use table::Samples;

/// What everything here fails with.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Times pg_unfork beside stock pg_rewind.
#[derive(Debug, Parser)]
struct Options {
    /// Only these cases.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = ["W", "R", "F", "N", "L"])]
    case: Vec<String>,
    /// How large the cases are: percent of what is documented.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    size: u32,
    /// How often each program runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 18)]
    major: u16,
    /// Instead of the cases: how a plan's cost grows with what there is.
    #[arg(long)]
    curves: bool,
    #[command(flatten)]
    sizes: Sizes,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if !options.bench {
        println!("run this with benches/run");
        return Ok(());
    }
    let root = std::env::var_os("PG_UNFORK_BENCH")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench"), PathBuf::from);
    let installation = Installation::of(options.major)?;
    println!("{}\n", machine(&root, &installation)?);
    if options.curves {
        return curves::draw(&root, &installation, &options.sizes, options.runs);
    }
    for case in cases::all(options.size) {
        if options.case.is_empty() || options.case.iter().any(|name| name == case.name) {
            let name = format!("{}-{}-{}", case.name, options.major, options.size);
            let pair = Pair::prepare(&root, &name, &case.recipe, &installation)?;
            println!("### Case {}, {} % of its size\n", case.name, options.size);
            bench(&pair, &case, options.runs)?;
        }
    }
    Ok(())
}

/// Measures one case and prints its tables.
fn bench(pair: &Pair, case: &Case, runs: u32) -> Result<()> {
    pair.warm()?;
    let wal = pair.scanned_wal()?;
    let mut rates = vec![table::rate("cat of the WAL that is scanned", wal, limits::cat_wal(pair, runs)?.median())];
    let mut copied = 0;
    println!("{}", table::HEAD);
    for row in &case.rows {
        let (theirs, ours) = compare(pair, *row, runs)?;
        let (task, source) = (row.task, row.reach.words());
        println!("{}", table::row(&format!("{} : {}{source}", task.ours(), task.theirs()), &theirs, &ours));
        for (program, samples) in [(task.theirs(), &theirs), (task.ours(), &ours)] {
            // Who copies nothing reads that WAL.
            let bytes = samples.copied().unwrap_or(wal);
            rates.push(table::rate(&format!("{program}{source}"), bytes, samples.median()));
        }
        copied = copied.max(ours.copied().unwrap_or_default());
    }
    pair.clean_up()?;
    let (plain, synced) = limits::cp(pair, copied, runs)?;
    rates.push(table::rate("cp of what pg_unfork copies", copied, plain.median()));
    rates.push(table::rate("cp and sync of it", copied, synced.median()));
    if case.rows.iter().any(|row| row.reach != Reach::Stopped) {
        let (came, samples) = limits::read_binary_file(pair, &pair.start_source()?, copied, runs)?;
        rates.push(table::rate("pg_read_binary_file, one local connection", came, samples.median()));
    }
    println!("\n{}\n{}\n", table::RATES_HEAD, rates.join("\n"));
    pair.clean_up()
}

/// What a source is reached by, for as long as this lives.
struct Source {
    option: String,
    _relay: Option<Relay>,
    _server: Option<Server>,
}

impl Source {
    fn open(pair: &Pair, reach: Reach) -> Result<Self> {
        if reach == Reach::Stopped {
            let option = format!("--source-pgdata={}", pair.source().display());
            return Ok(Self { option, _relay: None, _server: None });
        }
        let server = pair.start_source()?;
        let relay = match reach {
            Reach::Far(delay) => Some(Relay::start(&server.socket(), delay)?),
            Reach::Live | Reach::Stopped => None,
        };
        let conninfo = relay.as_ref().map_or_else(|| server.conninfo(), Relay::conninfo);
        Ok(Self { option: format!("--source-server={conninfo}"), _relay: relay, _server: Some(server) })
    }
}

/// Runs both programs, in turns: pg_rewind's runs and pg_unfork's.
fn compare(pair: &Pair, row: Row, runs: u32) -> Result<(Samples, Samples)> {
    let source = Source::open(pair, row.reach)?;
    let (mut theirs, mut ours) = (Samples::default(), Samples::default());
    for round in 0..runs {
        // Whoever comes first may find the machine in another state.
        for ours_now in [round % 2 == 1, round % 2 == 0] {
            let target = pair.target_for(row.task)?;
            if ours_now {
                ours.0.push(pg_unfork(pair, row.task, &target, &source.option)?);
            } else {
                theirs.0.push(pg_rewind(pair, row.task, &target, &source.option)?);
            }
        }
    }
    Ok((theirs, ours))
}

/// What the numbers depend on.
fn machine(root: &Path, installation: &Installation) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let file_system = run(Command::new("stat").args(["-f", "-c", "%T"]).arg(root))?;
    let rewind = run(installation.command("pg_rewind").arg("--version"))?;
    let unfork = run(Command::new(env!("CARGO_BIN_EXE_pg_unfork")).arg("--version"))?;
    Ok(format!(
        "{} cores of {}, Linux {}, {}; {}; {}",
        std::thread::available_parallelism()?,
        model.unwrap_or("unknown"),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        file_system.trim(),
        rewind.trim(),
        unfork.trim(),
    ))
}
