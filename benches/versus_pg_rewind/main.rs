//! Times pg_unfork beside stock pg_rewind on the same pair of clusters; see `benches/README.md`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

mod pair;
mod process;
mod server;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;

use pair::{Pair, Work};
use process::{Cost, measure, run};
use server::Installation;

/// What everything here fails with.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A pair of clusters to measure on.
#[derive(Debug, Clone)]
struct Case {
    /// Its name on the command line.
    name: &'static str,
    /// Scale of the pgbench tables that both sides begin with.
    scale: u32,
    /// What the old primary did after the fork.
    target: Work,
    /// What the promoted standby did after the fork.
    source: Work,
}

/// All cases; a further one is a further entry.
const CASES: &[Case] = &[Case {
    name: "W",
    scale: 100,
    target: Work { transactions: 300_000, sql: "" },
    source: Work { transactions: 1_000, sql: "" },
}];

/// What the two programs are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// `pg_unfork plan` beside `pg_rewind -n`.
    DryRun,
    /// `plan` and `apply` beside `pg_rewind`, each as durable as its default is.
    Durable,
    /// The same, and `apply` keeps nothing for an undo, as `pg_rewind` does not.
    NoUndo,
    /// The same with `-N` on both sides.
    NoSync,
}

/// One line of the result: what is done, and whether the source is a running server.
const ROWS: [(Task, bool, &str); 7] = [
    (Task::DryRun, false, "plan : -n"),
    (Task::Durable, false, "plan, apply : pg_rewind"),
    (Task::NoUndo, false, "plan, apply --no-undo : pg_rewind"),
    (Task::NoSync, false, "plan, apply --no-undo -N : pg_rewind -N"),
    (Task::DryRun, true, "plan : -n, live source"),
    (Task::Durable, true, "plan, apply : pg_rewind, live source"),
    (Task::NoUndo, true, "plan, apply --no-undo : pg_rewind, live source"),
];

/// Times pg_unfork beside stock pg_rewind.
#[derive(Debug, Parser)]
struct Options {
    /// Only this case.
    #[arg(long)]
    case: Option<String>,
    /// Another scale of the pgbench tables.
    #[arg(long)]
    scale: Option<u32>,
    /// Another number of transactions on the old primary after the fork.
    #[arg(long)]
    transactions: Option<u32>,
    /// How often each program runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 18)]
    major: u16,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The runs of one program in one row.
#[derive(Debug, Default)]
struct Samples(Vec<Cost>);

impl Samples {
    fn walls(&self) -> Vec<Duration> {
        let mut walls: Vec<_> = self.0.iter().map(|cost| cost.wall).collect();
        walls.sort_unstable();
        walls
    }

    /// The median in seconds.
    fn median(&self) -> f64 {
        let walls = self.walls();
        let middle = walls.len() / 2;
        let above = walls.get(middle).map_or(0.0, Duration::as_secs_f64);
        let below = walls.get(middle.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64);
        if walls.len() % 2 == 1 { above } else { f64::midpoint(above, below) }
    }

    /// Median and fastest run, CPU time of the fastest, highest peak of memory.
    fn cells(&self) -> String {
        let fastest = self.0.iter().min_by_key(|cost| cost.wall).copied().unwrap_or_default();
        let peak = self.0.iter().map(|cost| cost.peak).max().unwrap_or_default();
        let (least, cpu) = (fastest.wall.as_secs_f64(), fastest.cpu.as_secs_f64());
        format!("{:.2} | {least:.2} | {cpu:.2} | {:.1}", self.median(), mib(peak))
    }
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
    for case in CASES.iter().filter(|case| options.case.as_deref().is_none_or(|name| name == case.name)) {
        let mut case = case.clone();
        case.scale = options.scale.unwrap_or(case.scale);
        case.target.transactions = options.transactions.unwrap_or(case.target.transactions);
        bench(&Pair::prepare(&root, &case, &installation)?, &case, options.runs)?;
    }
    Ok(())
}

/// Measures one case and prints its table.
fn bench(pair: &Pair, case: &Case, runs: u32) -> Result<()> {
    pair.warm()?;
    let wal = mib(pair.scanned_wal()?);
    println!("Case {}: scale {}, {wal:.0} MiB of WAL since the last common checkpoint", case.name, case.scale);
    println!("(s: median and fastest of {runs}; CPU s of the fastest; MiB: highest peak of memory)\n");
    println!("| | pg_rewind s | fastest | CPU | MiB | pg_unfork s | fastest | CPU | MiB | pg_unfork / pg_rewind |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut cat = Samples::default();
    for _ in 0..runs {
        cat.0.push(measure(Command::new("cat").args(pair.wal_files()?), &pair.log())?);
    }
    let (mut rewind_rate, mut plan_rate) = (0.0, 0.0);
    for (task, live, label) in ROWS {
        let source = live.then(|| pair.start_source()).transpose()?;
        let location = source.as_ref().map_or_else(|| pair.stopped_source(), |server| server.source_option());
        let (mut theirs, mut ours) = (Samples::default(), Samples::default());
        for round in 0..runs {
            // Whoever comes first may find the machine in another state.
            for ours_now in [round % 2 == 1, round % 2 == 0] {
                let target = pair.target_for(task)?;
                let cost = if ours_now {
                    pg_unfork(pair, task, &target, &location)
                } else {
                    pg_rewind(pair, task, &target, &location)
                }?;
                if ours_now { &mut ours } else { &mut theirs }.0.push(cost);
            }
        }
        println!("| {label} | {} | {} | {:.2} |", theirs.cells(), ours.cells(), ours.median() / theirs.median());
        if task == Task::DryRun && !live {
            (rewind_rate, plan_rate) = (wal / theirs.median(), wal / ours.median());
        }
    }
    println!(
        "\ncat of that WAL: {:.2} s, {:.0} MiB/s; pg_rewind -n: {rewind_rate:.0} MiB/s; pg_unfork plan: {plan_rate:.0} MiB/s\n",
        cat.median(),
        wal / cat.median()
    );
    pair.clean_up()
}

fn pg_rewind(pair: &Pair, task: Task, target: &Path, source: &str) -> Result<Cost> {
    let mut command = pair.installation().command("pg_rewind");
    command.arg("-D").arg(target).arg(source).args(match task {
        Task::DryRun => Some("-n"),
        Task::Durable | Task::NoUndo => None,
        Task::NoSync => Some("-N"),
    });
    measure(&mut command, &pair.log())
}

fn pg_unfork(pair: &Pair, task: Task, target: &Path, source: &str) -> Result<Cost> {
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg_unfork"));
        server::clean_environment(&mut command);
        command
    };
    let plan = pair.scratch("plan.json");
    let mut command = program();
    command.arg("plan").arg("-D").arg(target).arg(source).arg("-o").arg(&plan);
    if pair.installation().major() == 19 {
        command.arg("--allow-unreleased");
    }
    let cost = measure(&mut command, &pair.log())?;
    if task == Task::DryRun {
        return Ok(cost);
    }
    let mut command = program();
    command.arg("apply").arg(&plan).args(match task {
        Task::DryRun | Task::Durable => &[] as &[&str],
        Task::NoUndo => &["--no-undo"],
        Task::NoSync => &["--no-undo", "-N"],
    });
    Ok(cost.then(measure(&mut command, &pair.log())?))
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

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
