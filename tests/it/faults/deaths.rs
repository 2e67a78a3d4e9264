//! An apply, and an undo, that die at every step.

use std::fs;

use pg_unfork::apply::{
    self, Actor, ApplyContext, ApplyOptions, Now, Outcome as Applied, UndoContext, Undone, VerifyContext,
};
use pg_unfork::error::{ErrorKind, Result};
use pg_unfork::format::ControlFile;
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{DataDirectory, DirectoryStore, StoppedSource, SyncMethod};
use pg_unfork::manifest::{ActionKind, Manifest};
use pg_unfork::progress::Silent;

use crate::support::cluster::Cluster;
use crate::support::fault::{Fault, Trap, TrappedStore};
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree, modification_times};

/// A pair, its plan, and what comes of it when nothing goes wrong.
pub(super) struct Case {
    pub(super) pair: Pair,
    plan: Plan,
    manifest: Manifest,
    before: Tree,
    times: tree::Times,
    after: Tree,
}

fn actor() -> Actor {
    Actor { host: "host".to_owned(), process: 1, user: "user".to_owned(), version: "0".to_owned() }
}

fn now() -> Now {
    Now { unix: 1_800_000_000, utc: "2027-01-15T08:00:00Z".to_owned(), local: "2027-01-15 08:00:00 UTC".to_owned() }
}

impl Case {
    pub(super) fn new(major: Major) -> Self {
        Self::of(Pair::shared(major).copy())
    }

    pub(super) fn of(pair: Pair) -> Self {
        let plan = Plan::of(&pair.target, pair.source(From::Stopped), &[]);
        let manifest = pg_unfork::manifest::parse(&plan.document()).unwrap();
        let (before, times) = (Tree::of(&pair.target), modification_times(&pair.target));
        let target = pair.copy_target();
        let mut case = Self { pair, plan, manifest, after: before.clone(), before, times };
        let outcome = case.apply(&target, &Trap::counting(), true).unwrap();
        assert!(matches!(outcome, Applied::Rewound { .. }));
        case.after = Tree::of(&target);
        case
    }

    pub(super) fn store(&self, target: &Cluster, trap: &Trap) -> TrappedStore<DirectoryStore> {
        // A copy of the target has locations of its own.
        let roots: Vec<_> = pg_unfork::cluster::Target::roots(&DataDirectory::open(&target.data()).unwrap());
        let new = self.manifest.actions.iter().filter(|action| action.kind == ActionKind::CreateSymlink);
        let new: Vec<_> =
            new.map(|action| (action.path.clone(), action.after.as_ref().unwrap().link.clone().unwrap())).collect();
        let inner = DirectoryStore::reopen(&target.data(), &roots, &new, SyncMethod::None).unwrap();
        TrappedStore { inner, trap: trap.clone() }
    }

    /// The plan, for a copy of the target.
    pub(super) fn manifest_for(&self, target: &Cluster) -> Manifest {
        let mut manifest = self.manifest.clone();
        let base = |cluster: &Cluster| cluster.base().display().to_string();
        for root in &mut manifest.target.roots {
            let text = root.link.to_string().replace(&base(&self.pair.target), &base(target));
            root.link = pg_unfork::types::LinkText::new(text.as_bytes());
        }
        manifest
    }

    pub(super) fn apply(&self, target: &Cluster, trap: &Trap, undo: bool) -> Result<Applied> {
        let manifest = self.manifest_for(target);
        apply::apply(ApplyContext {
            manifest: &manifest,
            document: &self.plan.document(),
            target: &mut DataDirectory::open(&target.data())?,
            store: &mut self.store(target, trap),
            source: &mut StoppedSource::new(DataDirectory::open(&self.pair.source.data())?),
            now: &now,
            progress: &Silent,
            options: ApplyOptions { undo, durable: true },
            id: "id",
            interrupt: &Interrupt::new(),
            actor: &actor(),
        })
    }

    pub(super) fn undo(&self, target: &Cluster, trap: &Trap) -> Result<Undone> {
        apply::undo(UndoContext {
            manifest: &self.manifest_for(target),
            target: &mut DataDirectory::open(&target.data())?,
            store: &mut self.store(target, trap),
            progress: &Silent,
            interrupt: &Interrupt::new(),
            actor: &actor(),
            time: &|| now().utc,
        })
    }

    /// Whether the target is as it was, is done, or cannot be started.
    #[track_caller]
    fn assert_safe(&self, target: &Cluster) -> bool {
        let control = fs::read(target.path("global/pg_control")).unwrap();
        let sealed = ControlFile::parse(&control).unwrap().is_sealed();
        if sealed {
            return true;
        }
        let now = Tree::of(target);
        let as_before = tree::diff(&self.before, &now, &tree::is_own_state).is_empty();
        let as_after = tree::diff(&self.after, &now, &tree::is_own_state).is_empty();
        assert!(as_before || as_after, "a server could start on a half-changed directory");
        false
    }

    #[track_caller]
    pub(super) fn assert_applied(&self, target: &Cluster) {
        assert_eq!(tree::diff(&self.after, &Tree::of(target), &tree::is_own_state), [""; 0]);
        let trap = Trap::new(0, Fault::Death);
        let found = apply::verify(VerifyContext {
            manifest: &self.manifest_for(target),
            target: &mut DataDirectory::open(&target.data()).unwrap(),
            store: &mut self.store(target, &trap),
            progress: &Silent,
        });
        let found = found.unwrap();
        assert_eq!((&found.differences.shown, found.bad_pages.count, trap.count()), (&Vec::new(), 0, 0));
        assert!(found.bytes > 0 && found.pages > Some(0));
    }

    #[track_caller]
    pub(super) fn assert_as_before(&self, target: &Cluster) {
        assert_eq!(tree::diff(&self.before, &Tree::of(target), &tree::is_own_state), [""; 0]);
        assert_eq!(tree::different_times(&self.times, &modification_times(target)), [""; 0]);
    }

    /// How many steps an apply, and an undo after it, take.
    pub(super) fn steps(&self, undo: bool) -> (u64, u64) {
        let target = self.pair.copy_target();
        let (there, back) = (Trap::counting(), Trap::counting());
        let _ = self.apply(&target, &there, undo).unwrap();
        if undo {
            let _ = self.undo(&target, &back).unwrap();
        }
        (there.count(), back.count())
    }

    /// What a run that died leaves: an error that says so, unless it was over before.
    #[track_caller]
    fn assert_died<T>(outcome: Result<T>, sealed: bool) {
        let Err(error) = outcome else { return };
        if sealed {
            assert_eq!(error.kind(), ErrorKind::Incomplete, "{error}");
        }
    }
}

/// No server starts here.
#[track_caller]
fn assert_does_not_start(target: &Cluster) {
    let _ = target.try_start().failure();
    assert!(target.log().contains("invalid checkpoint location"), "{}", target.log());
}

/// Numbers from 1 through `last`: all of the first and last ones, and some in between.
fn some_of(last: u64, count: u64) -> Vec<u64> {
    let edge = count / 4;
    let stride = (last / (count / 2)).max(1);
    let mut chosen: Vec<u64> =
        (1..=last).filter(|n| *n <= edge || *n > last.saturating_sub(edge) || n % stride == 0).collect();
    chosen.dedup();
    chosen
}

/// Dies at a step, is run again (dying once more, sometimes), and ends like an uninterrupted one.
fn forward(case: &Case, undo: bool, fault: Fault, count: u64) -> usize {
    let (steps, _) = case.steps(undo);
    let chosen = some_of(steps, count);
    for (n, &at) in chosen.iter().enumerate() {
        let target = case.pair.copy_target();
        let outcome = case.apply(&target, &Trap::new(at, fault), undo);
        let sealed = case.assert_safe(&target);
        Case::assert_died(outcome, sealed);
        if sealed && n % 16 == 0 {
            assert_does_not_start(&target.duplicate());
        }
        if n % 3 == 0 {
            let again = case.apply(&target, &Trap::new(1 + at / 7, fault), undo);
            let sealed = case.assert_safe(&target);
            Case::assert_died(again, sealed);
        }
        let _ = case.apply(&target, &Trap::counting(), undo).unwrap_or_else(|error| panic!("died at {at}: {error}"));
        case.assert_applied(&target);
    }
    chosen.len()
}

/// Dies at a step and is taken back; the undo dies, too, sometimes.
fn back(case: &Case, fault: Fault, count: u64) -> usize {
    let (steps, _) = case.steps(true);
    let chosen = some_of(steps, count);
    for (n, &at) in chosen.iter().enumerate() {
        let target = case.pair.copy_target();
        let _ = case.apply(&target, &Trap::new(at, fault), true);
        if !case.assert_safe(&target) && !target.path(".pg_unfork/state.json").exists() {
            continue;
        }
        if n % 3 == 0 {
            let again = case.undo(&target, &Trap::new(1 + at / 5, fault));
            let sealed = case.assert_safe(&target);
            Case::assert_died(again, sealed);
        }
        let _ = case.undo(&target, &Trap::counting()).unwrap_or_else(|error| panic!("died at {at}: {error}"));
        case.assert_as_before(&target);
    }
    chosen.len()
}

/// An undo dies at each of its steps.
fn undo_dies(case: &Case, fault: Fault, count: u64) -> usize {
    let (_, steps) = case.steps(true);
    let chosen = some_of(steps, count);
    for &at in &chosen {
        let target = case.pair.copy_target();
        let _ = case.apply(&target, &Trap::counting(), true).unwrap();
        let died = case.undo(&target, &Trap::new(at, fault));
        let sealed = case.assert_safe(&target);
        Case::assert_died(died, sealed);
        let _ = case.undo(&target, &Trap::counting()).unwrap_or_else(|error| panic!("died at {at}: {error}"));
        case.assert_as_before(&target);
    }
    chosen.len()
}

#[test]
fn an_apply_that_dies_is_gone_on_with() {
    let case = Case::new(Major(18));
    let runs = forward(&case, true, Fault::Death, 60) + forward(&case, false, Fault::Death, 30);
    println!("{runs} deaths");
}

#[test]
fn an_apply_that_dies_while_it_writes_is_gone_on_with() {
    let case = Case::new(Major(13));
    let runs = forward(&case, true, Fault::DeathHalfWay, 60);
    println!("{runs} deaths");
}

#[test]
fn an_apply_that_dies_is_taken_back() {
    let case = Case::new(Major(15));
    let runs = back(&case, Fault::Death, 60) + back(&case, Fault::DeathHalfWay, 30);
    println!("{runs} deaths");
}

#[test]
fn an_undo_that_dies_is_gone_on_with() {
    let case = Case::new(Major(16));
    let runs = undo_dies(&case, Fault::Death, 60) + undo_dies(&case, Fault::DeathHalfWay, 20);
    println!("{runs} deaths");
}

/// Whatever the system says at whatever step: the same command goes on when the cause is gone.
#[test]
fn failures_are_survived() {
    let case = Case::new(Major(14));
    for (number, count) in [(28, 20), (5, 20), (13, 10), (16, 10)] {
        forward(&case, true, Fault::Error(number), count);
    }
}
