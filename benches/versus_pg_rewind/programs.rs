//! The two programs, and what they are asked to do.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::Result;
use super::pair::Pair;
use super::process::{Cost, measure, run};
use super::server::clean_environment;
use super::table::Run;

/// What the two programs are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// `pg_unfork plan` beside `pg_rewind -n`.
    DryRun,
    /// `plan` and `apply` beside `pg_rewind`, each as durable as its default is.
    Durable,
    /// The same, and `apply` keeps nothing for an undo, as `pg_rewind` does not.
    NoUndo,
    /// The same with `-N` on both sides.
    NoSync,
}

impl Task {
    /// What pg_rewind is asked, in a row's label.
    pub(crate) fn theirs(self) -> &'static str {
        match self {
            Self::DryRun => "pg_rewind -n",
            Self::Durable | Self::NoUndo => "pg_rewind",
            Self::NoSync => "pg_rewind -N",
        }
    }

    /// What pg_unfork is asked, in a row's label.
    pub(crate) fn ours(self) -> &'static str {
        match self {
            Self::DryRun => "plan",
            Self::Durable => "plan, apply",
            Self::NoUndo => "plan, apply --no-undo",
            Self::NoSync => "plan, apply --no-undo -N",
        }
    }

    fn rewind_options(self) -> &'static [&'static str] {
        match self {
            Self::DryRun => &["-n"],
            Self::Durable | Self::NoUndo => &[],
            Self::NoSync => &["-N"],
        }
    }

    fn apply_options(self) -> &'static [&'static str] {
        match self {
            Self::DryRun | Self::Durable => &[],
            Self::NoUndo => &["--no-undo"],
            Self::NoSync => &["--no-undo", "-N"],
        }
    }
}

/// Runs stock pg_rewind; `source` is its option for the source.
pub(crate) fn pg_rewind(pair: &Pair, task: Task, target: &Path, source: &str) -> Result<Run> {
    let mut command = pair.installation().command("pg_rewind");
    // Its progress, at most a line a second, ends with what it copied.
    command.arg("-P").arg("-D").arg(target).arg(source).args(task.rewind_options());
    let cost = measure(&mut command, &pair.log())?;
    let copied = if task == Task::DryRun { None } else { Some(copied_by_rewind(&fs::read_to_string(pair.log())?)?) };
    Ok(Run { cost, copied })
}

/// The last `N/M kB (100%) copied` in what pg_rewind says, in bytes.
fn copied_by_rewind(log: &str) -> Result<u64> {
    let number = log.rsplit_once(" kB (").and_then(|(before, _)| before.rsplit_once('/')?.0.split_whitespace().last());
    let kib: u64 = number.ok_or("pg_rewind does not say what it copied")?.parse()?;
    Ok(kib * 1024)
}

/// Runs pg_unfork, plan and apply; `source` is its option for the source.
pub(crate) fn pg_unfork(pair: &Pair, task: Task, target: &Path, source: &str) -> Result<Run> {
    let plan = pair.scratch("plan.json");
    let cost = pg_unfork_plan(pair, target, source)?;
    if task == Task::DryRun {
        return Ok(Run { cost, copied: None });
    }
    let cost = cost.then(measure(program().arg("apply").arg(&plan).args(task.apply_options()), &pair.log())?);
    let status = run(program().args(["status", "--format", "json", "-D"]).arg(target))?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let copied = status.get("copied_bytes").and_then(serde_json::Value::as_u64);
    Ok(Run { cost, copied: Some(copied.ok_or("the status does not say what was copied")?) })
}

/// Runs `pg_unfork plan`; `source` is its option for the source.
pub(crate) fn pg_unfork_plan(pair: &Pair, target: &Path, source: &str) -> Result<Cost> {
    let mut command = program();
    command.arg("plan").arg("-D").arg(target).arg(source).arg("-o").arg(pair.scratch("plan.json"));
    if pair.installation().major() == 19 {
        command.arg("--allow-unreleased");
    }
    measure(&mut command, &pair.log())
}

/// As much of a plan as is of interest.
#[derive(Debug, Deserialize)]
struct Plan {
    totals: Totals,
}

#[derive(Debug, Deserialize)]
struct Totals {
    blocks: u64,
}

/// The blocks that the last plan copies.
pub(crate) fn planned_blocks(pair: &Pair) -> Result<u64> {
    let plan: Plan = serde_json::from_slice(&fs::read(pair.scratch("plan.json"))?)?;
    Ok(plan.totals.blocks)
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg_unfork"));
    clean_environment(&mut command);
    command
}
