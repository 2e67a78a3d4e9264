//! A pair, its plan, and what is expected of every apply and undo of it, however it comes about.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pg_unfork::apply::{
    self, Actor, ApplyContext, ApplyOptions, Now, Outcome as Applied, UndoContext, Undone, VerifyContext,
};
use pg_unfork::cluster::{Source, TargetStore};
use pg_unfork::error::{ErrorKind, Result};
use pg_unfork::format::ControlFile;
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::conninfo::{ConnInfo, Environment};
use pg_unfork::io::{DataDirectory, DirectoryStore, Load, Patience, SqlSource, StoppedSource, SyncMethod};
use pg_unfork::manifest::{ActionKind, Manifest};
use pg_unfork::progress::Silent;

use crate::support::cluster::Cluster;
use crate::support::fault::{Fault, Trap, TrappedSource, TrappedStore};
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree, modification_times};
use crate::support::workload::REWIND_USER;

/// So that there are many batches: in bytes.
const BATCH: u64 = 256 << 10;

/// A pair, its plan, and what comes of it when nothing goes wrong.
pub(super) struct Case {
    pub(super) pair: Pair,
    from: From,
    /// Connections to a live source.
    jobs: usize,
    plan: Plan,
    manifest: Manifest,
    before: Tree,
    times: tree::Times,
    after: Tree,
    /// The control file afterwards.
    control: Vec<u8>,
    /// What differs between two applies of one plan: what a live source is writing.
    varies: Vec<String>,
}

fn actor() -> Actor {
    Actor { host: "host".to_owned(), process: 1, user: "user".to_owned(), version: "0".to_owned() }
}

fn now() -> Now {
    Now { unix: 1_800_000_000, utc: "2027-01-15T08:00:00Z".to_owned(), local: "2027-01-15 08:00:00 UTC".to_owned() }
}

impl Case {
    /// The shared pair of a major with a source of a kind.
    pub(super) fn new(major: Major, from: From) -> Self {
        Self::of(Pair::shared(major).copy(), from)
    }

    /// The same with so many connections to a live source.
    pub(super) fn with_jobs(self, jobs: usize) -> Self {
        Self { jobs, ..self }
    }

    /// A pair whose source is stopped.
    pub(super) fn of(pair: Pair, from: From) -> Self {
        let mut varies = Vec::new();
        if from == From::Live {
            // Nothing but checkpoints that somebody asks for.
            pair.source.append_config(
                "checkpoint_timeout = 1h
autovacuum = off
bgwriter_lru_maxpages = 0
",
            );
            pair.source.start();
            pair.source.checkpoint();
            let last = pair.source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
            varies = vec!["global/pg_control".to_owned(), format!("pg_wal/{last}")];
        }
        let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
        let manifest = pg_unfork::manifest::parse(&plan.document()).unwrap();
        let (before, times) = (Tree::of(&pair.target), modification_times(&pair.target));
        let target = pair.copy_target();
        let control = Vec::new();
        let mut case =
            Self { pair, from, jobs: 1, plan, manifest, after: before.clone(), before, times, control, varies };
        let outcome = case.apply(&target, &Trap::counting(), true).unwrap();
        assert!(matches!(outcome, Applied::Rewound { .. }));
        case.after = Tree::of(&target);
        case.control = fs::read(target.path("global/pg_control")).unwrap();
        case
    }

    /// The target's store, as an apply that goes on has it.
    pub(super) fn plain_store(&self, target: &Cluster) -> DirectoryStore {
        // A copy of the target has locations of its own.
        let roots: Vec<_> = pg_unfork::cluster::Target::roots(&DataDirectory::open(&target.data()).unwrap());
        let new = self.manifest.actions.iter().filter(|action| action.kind == ActionKind::CreateSymlink);
        let new: Vec<_> =
            new.map(|action| (action.path.clone(), action.after.as_ref().unwrap().link.clone().unwrap())).collect();
        DirectoryStore::reopen(&target.data(), &roots, &new, SyncMethod::None).unwrap()
    }

    pub(super) fn trapped_store(&self, target: &Cluster, trap: &Trap) -> TrappedStore<DirectoryStore> {
        TrappedStore { inner: self.plain_store(target), trap: trap.clone() }
    }

    fn source(&self) -> Result<Box<dyn Source>> {
        if self.from == From::Stopped {
            return Ok(Box::new(StoppedSource::new(DataDirectory::open(&self.pair.source.data())?)));
        }
        let conninfo = self.pair.source.conninfo("postgres", REWIND_USER);
        let conninfo = ConnInfo::resolve(&conninfo, &Environment::of_process()).unwrap();
        Ok(Box::new(SqlSource::connect(
            conninfo,
            Patience { timeout: Duration::from_secs(60), interrupt: Interrupt::new() },
            Load::new(Some(self.jobs), None),
        )?))
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
        self.apply_on(target, &mut self.trapped_store(target, trap), undo)
    }

    /// An apply by way of this store.
    pub(super) fn apply_on(&self, target: &Cluster, store: &mut dyn TargetStore, undo: bool) -> Result<Applied> {
        self.apply_from(target, store, &mut *self.source()?, undo)
    }

    /// An apply from a source that fails at the operation number `at`.
    pub(super) fn apply_from_failing(&self, target: &Cluster, at: u64, undo: bool) -> Result<Applied> {
        let mut source = TrappedSource { inner: self.source()?, trap: Trap::new(at, Fault::Error(5)) };
        self.apply_from(target, &mut self.plain_store(target), &mut source, undo)
    }

    /// How many operations of a source an apply takes.
    pub(super) fn source_steps(&self) -> u64 {
        let target = self.pair.copy_target();
        let mut source = TrappedSource { inner: self.source().unwrap(), trap: Trap::counting() };
        let _ = self.apply_from(&target, &mut self.plain_store(&target), &mut source, true).unwrap();
        source.trap.count()
    }

    fn apply_from(
        &self,
        target: &Cluster,
        store: &mut dyn TargetStore,
        source: &mut dyn Source,
        undo: bool,
    ) -> Result<Applied> {
        let manifest = self.manifest_for(target);
        apply::apply(ApplyContext {
            manifest: &manifest,
            document: &self.plan.document(),
            target: &mut DataDirectory::open(&target.data())?,
            store,
            source,
            now: &now,
            progress: &Silent,
            options: ApplyOptions { undo, durable: true, batch_bytes: BATCH },
            id: "id",
            interrupt: &Interrupt::new(),
            actor: &actor(),
        })
    }

    pub(super) fn undo(&self, target: &Cluster, trap: &Trap) -> Result<Undone> {
        self.undo_on(target, &mut self.trapped_store(target, trap))
    }

    /// An undo by way of this store.
    pub(super) fn undo_on(&self, target: &Cluster, store: &mut dyn TargetStore) -> Result<Undone> {
        apply::undo(UndoContext {
            manifest: &self.manifest_for(target),
            target: &mut DataDirectory::open(&target.data())?,
            store,
            progress: &Silent,
            interrupt: &Interrupt::new(),
            actor: &actor(),
            time: &|| now().utc,
        })
    }

    /// Whether the target is as it was, is done, or cannot be started.
    #[track_caller]
    pub(super) fn assert_safe(&self, target: &Cluster) -> bool {
        let control = fs::read(target.path("global/pg_control")).unwrap();
        let sealed = ControlFile::parse(&control).unwrap().is_sealed();
        if sealed {
            return true;
        }
        let now = Tree::of(target);
        let as_before = tree::diff(&self.before, &now, &tree::is_own_state).is_empty();
        let as_after = self.differs_from_applied(target).is_empty();
        assert!(as_before || as_after, "a server could start on a half-changed directory");
        false
    }

    #[track_caller]
    pub(super) fn assert_applied(&self, target: &Cluster) {
        assert_eq!(self.differs_from_applied(target), [""; 0]);
        // Which looks only.
        let trap = Trap::new(0, Fault::Death);
        let found = apply::verify(VerifyContext {
            manifest: &self.manifest_for(target),
            target: &mut DataDirectory::open(&target.data()).unwrap(),
            store: &mut self.trapped_store(target, &trap),
            progress: &Silent,
        });
        let found = found.unwrap();
        assert_eq!((&found.differences.shown, found.bad_pages.count, trap.count()), (&Vec::new(), 0, 0));
        assert!(found.bytes > 0 && found.pages > Some(0));
    }

    pub(super) fn differs_from_applied(&self, target: &Cluster) -> Vec<String> {
        let varies = |path: &Path| self.varies.iter().any(|name| path == Path::new(name));
        let ignore = |path: &Path| tree::is_own_state(path) || varies(path);
        let mut different = tree::diff(&self.after, &Tree::of(target), &ignore);
        let control = fs::read(target.path("global/pg_control")).unwrap();
        if lasting(&control) != lasting(&self.control) {
            different.push("global/pg_control".to_owned());
        }
        different
    }

    /// Bytes that the target's journal says are there already.
    pub(super) fn bytes_journaled(&self, target: &Cluster) -> u64 {
        let log = self.plain_store(target).open_log(None, "journal", false).unwrap();
        log.map_or(0, |log| apply::bytes_journaled(&*log).unwrap())
    }

    /// What the journal had is not fetched again, and all the rest is.
    #[track_caller]
    pub(super) fn assert_nothing_twice(&self, resumed: Applied, journaled: u64) {
        if let (Applied::Rewound { bytes, .. }, From::Stopped) = (resumed, self.from) {
            assert_eq!(bytes + journaled, self.manifest.totals.bytes);
        }
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
    pub(super) fn assert_died<T>(outcome: Result<T>, sealed: bool) {
        let Err(error) = outcome else { return };
        if sealed {
            assert_eq!(error.kind(), ErrorKind::Incomplete, "{error}");
        }
    }
}

/// A control file but for its time, CRC and minimum recovery point.
fn lasting(bytes: &[u8]) -> Vec<u8> {
    let facts = ControlFile::parse(bytes).unwrap();
    let (crc, end) = (facts.facts().control.crc, facts.facts().control.min_recovery_point);
    let mut bytes = bytes.to_vec();
    bytes[24..32].fill(0);
    bytes[end..end + 8].fill(0);
    bytes[crc..crc + 4].fill(0);
    bytes
}

/// No server starts here.
#[track_caller]
pub(super) fn assert_does_not_start(target: &Cluster) {
    let _ = target.try_start().failure();
    assert!(target.log().contains("invalid checkpoint location"), "{}", target.log());
}

/// Numbers from 1 through `last`: all of the first and last ones, and some in between.
pub(super) fn some_of(last: u64, count: u64) -> Vec<u64> {
    let edge = count / 4;
    let stride = (last / (count / 2)).max(1);
    let mut chosen: Vec<u64> =
        (1..=last).filter(|n| *n <= edge || *n > last.saturating_sub(edge) || n % stride == 0).collect();
    chosen.dedup();
    chosen
}

/// How many times as many runs as usual are wished: `PG_UNFORK_SOAK`.
pub(super) fn soak() -> u64 {
    std::env::var("PG_UNFORK_SOAK").map_or(1, |wanted| wanted.parse().expect("PG_UNFORK_SOAK is a number"))
}
