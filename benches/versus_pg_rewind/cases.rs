//! The cases: what each pair is made of, and what is done with it.

use std::time::Duration;

use super::programs::Task;
use super::workload::Step;

/// What the clusters of a pair went through.
#[derive(Debug, Default)]
pub(crate) struct Recipe {
    /// Before both sides' last common checkpoint; its WAL is gone.
    pub(crate) base: Vec<Step>,
    /// Before that checkpoint, too; its WAL is still on the source, and not on the target.
    pub(crate) kept: Vec<Step>,
    /// On the old primary, after the fork.
    pub(crate) target: Vec<Step>,
    /// On the promoted standby, after the fork.
    pub(crate) source: Vec<Step>,
}

/// How the source is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is stopped, its directory is read.
    Stopped,
    /// It runs, at a local socket.
    Live,
    /// It runs, behind a line on which a byte needs so long in each direction.
    Far(Duration),
}

/// One line of the result: what is done, and from which source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) task: Task,
    pub(crate) reach: Reach,
}

/// A pair of clusters to measure on.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    pub(crate) recipe: Recipe,
    pub(crate) rows: Vec<Row>,
}

impl Reach {
    /// What a row's label says of it.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Stopped => String::new(),
            Self::Live => ", live source".to_owned(),
            Self::Far(delay) => format!(", live source, round trip of {} ms", 2 * delay.as_millis()),
        }
    }
}

/// All cases, at so many percent of their size; a further one is a further entry.
pub(crate) fn all(percent: u32) -> Vec<Case> {
    let part = |of: u32| (u64::from(of) * u64::from(percent)).div_ceil(100) as u32;
    let pgbench = |share: u32| Recipe {
        base: vec![Step::Tables { scale: part(100).div_ceil(share) }],
        target: vec![Step::Transactions(part(300_000) / share)],
        source: vec![Step::Transactions(part(1_000) / share)],
        ..Recipe::default()
    };
    let everything = [Task::DryRun, Task::Durable, Task::NoUndo, Task::NoSync];
    let durable = &everything[..3];
    vec![
        Case {
            name: "W",
            recipe: pgbench(1),
            rows: [rows(&everything, Reach::Stopped), rows(durable, Reach::Live)].concat(),
        },
        Case {
            name: "R",
            recipe: Recipe {
                base: vec![Step::Sql("CREATE TABLE little (content text)".to_owned())],
                kept: vec![Step::Wal { mib: part(4096) }],
                target: vec![Step::Sql("INSERT INTO little VALUES ('old')".to_owned())],
                source: vec![Step::Sql("INSERT INTO little VALUES ('new')".to_owned())],
            },
            rows: [rows(durable, Reach::Stopped), rows(durable, Reach::Live)].concat(),
        },
        Case {
            name: "F",
            recipe: Recipe {
                base: vec![Step::Relations(part(100_000))],
                target: vec![Step::ChangeRelations { of: part(100_000), every: 100 }],
                ..Recipe::default()
            },
            rows: rows(durable, Reach::Live),
        },
        Case {
            name: "N",
            recipe: Recipe {
                base: vec![Step::Tables { scale: 1 }],
                target: vec![Step::Transactions(100)],
                source: vec![Step::Data { mib: part(2048) }],
                ..Recipe::default()
            },
            rows: rows(&everything, Reach::Stopped),
        },
        Case { name: "L", recipe: pgbench(10), rows: rows(durable, Reach::Far(Duration::from_millis(10))) },
    ]
}

fn rows(tasks: &[Task], reach: Reach) -> Vec<Row> {
    tasks.iter().map(|&task| Row { task, reach }).collect()
}
