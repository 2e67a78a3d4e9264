//! Making a plan: collect, decide, put together.

use std::collections::BTreeSet;
use std::error::Error as _;

use crate::checks::{
    CustomResourceManagers, Preconditions, check, control_files, custom_resource_managers, finding, source_server,
};
use crate::cluster::rules::{WalPath, wal_path};
use crate::cluster::{
    Inventory, Position, ServerFacts, Settings, Source, SourceKind, Target, both, contradiction, shared_directory,
};
use crate::discard::{DiscardedWork, give_names, nameless};
use crate::error::{Error, ErrorId, ErrorKind, Result};
use crate::format::wal::WalFormat;
use crate::format::{ControlFile, DbState};
use crate::manifest::{
    Action, Check, CheckStatus, CommonCheckpoint, ControlFileEdits, ControlFilePlan, Discarded,
    Divergence as ForkPoint, FORMAT_VERSION, LabelPlan, Manifest, RecoveryPlan, Root, Rule, RuleName, Scope,
    SourceSide, TargetSide, Tool, Totals, Verdict, WalFetch, WalPlan, WalRange, validate,
};
use crate::progress::{Progress, Silent};
use crate::types::{ClusterPath, LinkText, Lsn, RelFilePaths, TimelineHistory, TimelineId};

use super::all_paths::{Decided, decide_all};
use super::changed_blocks::{ChangedBlocks, KnownFile};
use super::decide::DecisionContext;
use super::divergence::{Divergence, common_ancestor};
use super::equal_files::{Candidates, Settled, leave_equal, note_equal_wal};
use super::estimate::estimate;
use super::facts::{Cluster, control_facts, read_control_file, read_history};
use super::missing_wal::{MissingSegment, Obtained, missing_check};
use super::new_tablespaces::{Moved, TablespaceRecords, check_moved};
use super::path_rules::{PathRules, RulesAtWork};
use super::read_wal::{Extent, OrderedReading, read_in_parallel};
use super::same_timeline::{Found, OneTimeline, Same, source_has};
use super::scan::WalScan;
use super::target_checks::{Sides, check_standing, check_target};
use super::wal_files::{SourceWal, WalNeeds};

/// More WAL segments than any source has between its redo position and its end.
pub const MOST_SEGMENTS: u64 = 1 << 20;

/// What changes a plan besides the two clusters.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Whether majors that are not released may be used.
    pub allow_unreleased: bool,
    /// Whether to stop as soon as it is known whether a rewind is needed and possible.
    pub check_only: bool,
    /// What is left alone, and where new tablespaces go.
    pub rules: PathRules,
    /// Whether the target gets its recovery configuration (`-R`).
    pub write_recovery_conf: bool,
    /// Whether the password that the apply is given becomes part of it.
    pub with_password: bool,
    /// Whether the target may be running or have crashed: the plan then tells how things stand and cannot be applied.
    pub preview: bool,
    /// The time of planning, RFC 3339 in UTC.
    pub created: String,
}

/// Plans how `target` can follow `source`.
///
/// A wish that cannot be fulfilled gives a manifest, too: its verdict is
/// [`Verdict::Impossible`], and the failed checks say why.
///
/// # Errors
/// When a side cannot be read at all.
pub fn make_plan(
    target: &mut dyn Target,
    source: &mut dyn Source,
    options: &PlanOptions,
    progress: &dyn Progress,
) -> Result<Manifest> {
    let first = |control, timeline| Cluster { control, history: TimelineHistory::new(&[], timeline) };
    let target_control = read_control_file(target, "target")?;
    let source_control = read_control_file(source, "source")?;
    let (target_timeline, source_timeline) = (target_control.timeline(), source_control.timeline());
    let mut planner = Planner {
        common_until: Lsn::INVALID,
        obtained: Obtained::default(),
        target_facts: first(target_control, target_timeline),
        source_facts: first(source_control, source_timeline),
        checks: Vec::new(),
        server: None,
        target,
        source,
        options,
        progress,
    };
    planner.run_checks()?;
    if planner.checks.iter().any(|check| check.status == CheckStatus::Fail && ENDS_PLANNING.contains(&&*check.id)) {
        return planner.impossible();
    }
    let failed = |checks: &[Check]| checks.iter().any(|check| check.status == CheckStatus::Fail);
    match planner.plan() {
        Err(error)
            if error.kind() == ErrorKind::Precondition
                || error.kind() == ErrorKind::Failure && failed(&planner.checks) =>
        {
            planner.checks.push(failed_check(&error));
            planner.impossible()
        }
        Ok(manifest) if failed(&manifest.checks) => Ok(not_applicable(manifest)),
        outcome => outcome,
    }
}

/// What must hold for the rest to be looked at at all. With any other failure planning goes on, so that all that is
/// wrong is said at once.
const ENDS_PLANNING: [&str; 7] = [
    "same_system",
    "same_version",
    "same_sizes",
    "target_is_stopped",
    "source_state",
    "separate_directories",
    "source_privileges",
];

/// A plan that would be one, but for a failed check: what it would have come to is worth knowing all the same.
fn not_applicable(manifest: Manifest) -> Manifest {
    Manifest { applyable: false, verdict: Verdict::Impossible, ..manifest }
}

/// What a precondition that shows up on the way looks like among the checks.
fn failed_check(error: &Error) -> Check {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    let remedy = (!error.hints().is_empty()).then(|| error.hints().join("; "));
    if let Some(missing) = MissingSegment::of(error) {
        return missing_check(missing, detail, remedy.as_deref());
    }
    finding("rewind_is_possible", CheckStatus::Fail, detail, remedy.as_deref())
}

/// Adds checks of a plan that is made; one that failed makes it inapplicable.
fn add_checks(manifest: &mut Manifest, checks: Vec<Check>) {
    manifest.checks.extend(checks);
    if manifest.checks.iter().any(|check| check.status == CheckStatus::Fail) {
        (manifest.applyable, manifest.verdict) = (false, Verdict::Impossible);
    }
}

/// A plan in the making.
pub(super) struct Planner<'a> {
    pub(super) target: &'a mut dyn Target,
    pub(super) source: &'a mut dyn Source,
    pub(super) options: &'a PlanOptions,
    pub(super) progress: &'a dyn Progress,
    pub(super) target_facts: Cluster,
    pub(super) source_facts: Cluster,
    pub(super) checks: Vec<Check>,
    /// What a live source says of itself.
    pub(super) server: Option<ServerFacts>,
    /// Up to where both sides have the same WAL, as far as that is known.
    pub(super) common_until: Lsn,
    /// The WAL that the target's `pg_wal` lacks and that was read all the same.
    pub(super) obtained: Obtained,
}

/// What is known about a fork once the target's WAL has been read.
struct Fork {
    divergence: Divergence,
    target_end: Lsn,
    checkpoint: CommonCheckpoint,
    source_end: Lsn,
}

impl<'a> Planner<'a> {
    fn run_checks(&mut self) -> Result<()> {
        let conditions = Preconditions {
            target: &self.target_facts.control,
            source: &self.source_facts.control,
            kind: self.source.kind(),
            allow_unreleased: self.options.allow_unreleased,
            preview: self.options.preview,
        };
        self.checks = control_files(&conditions);
        if self.options.preview {
            let detail = "this shows how things stood while the plan was made, and cannot be applied".to_owned();
            let remedy = "stop the target in good order (pg_ctl stop -m fast), and plan again without --preview";
            self.checks.push(finding("preview", CheckStatus::Warn, detail, Some(remedy)));
        }
        let shared = shared_directory(&self.target.directories(), &self.source.directories());
        self.checks.push(check(
            "separate_directories",
            shared.is_none(),
            shared.unwrap_or_else(|| "target and source share no directory".to_owned()),
            "name two different clusters; tablespaces must not share their locations either",
        ));
        self.server = self.source.server_facts()?;
        if let Some(facts) = &self.server {
            self.checks.extend(source_server(facts, &self.source_facts.control.checkpoint()));
        }
        Ok(())
    }

    fn plan(&mut self) -> Result<Manifest> {
        self.target_facts.history = read_history(self.target, self.target_facts.control.timeline(), "target")?;
        self.source_facts.history = read_history(self.source, self.source_facts.control.timeline(), "source")?;
        let divergence = self.divergence()?;
        if divergence.lsn < Lsn::MAX {
            self.common_until = divergence.lsn;
        }
        let target_end = self.target_end(divergence)?;
        if target_end.is_none_or(|end| end <= divergence.lsn) {
            self.check_divergence(divergence, target_end, None, None);
            self.check_end(divergence, target_end)?;
            return self.not_needed(target_end);
        }
        self.rewind(divergence, target_end.unwrap_or_default())
    }

    /// A target that ends before the histories part follows only if the source has the same WAL there.
    fn check_end(&mut self, divergence: Divergence, target_end: Option<Lsn>) -> Result<()> {
        let Some(end) = target_end else { return Ok(()) };
        let Some(last) = self.last_record()? else { return Ok(()) };
        let scan = WalScan::new(&*self.target, WalFormat::of(&self.target_facts.control), &self.target_facts.history);
        let same = source_has(last, &scan, self.source, &self.source_facts.history)?;
        let is_unclean = !self.target_facts.control.state().is_clean();
        match same {
            Same::No => Err(Error::precondition(format!(
                "the target's WAL ends at {end}, before the histories part at {}, but the source has other WAL there",
                divergence.lsn
            ))
            .hint("the target was recovered or started by itself; make it anew from a base backup")),
            Same::NotListed if is_unclean && end < divergence.lsn => Err(not_comparable(end, "a listing does not tell")
                .hint("plan with the source itself (--source-server or --source-pgdata)")),
            Same::NothingToCompare if is_unclean && end < divergence.lsn => {
                Err(not_comparable(end, "the source has none from there any more")
                    .hint("if it has always been a standby, start it as one, with a restore_command for what the source has dropped")
                    .hint("if not, make it anew from a base backup"))
            }
            _ => Ok(()),
        }
    }

    /// Where the last record of a target begins that may have gone on by itself; none where it has not.
    fn last_record(&mut self) -> Result<Option<Lsn>> {
        let control = &self.target_facts.control;
        let (location, least) = (control.checkpoint_location(), control.min_recovery_point());
        match control.state() {
            DbState::ShutDown => Ok(Some(location)),
            // A standby's last checkpoint is its primary's.
            DbState::ShutDownInRecovery => Ok(None),
            // Whoever looks no further than the last checkpoint decides nothing.
            _ if !self.options.preview => Ok(None),
            _ => self.with_wal(|scan| scan.log_end(location, least)).map(|found| Some(found.last)),
        }
    }

    fn divergence(&mut self) -> Result<Divergence> {
        let divergence = common_ancestor(&self.source_facts.history, &self.target_facts.history).ok_or_else(|| {
            Error::precondition("the histories of target and source share no timeline")
                .hint("the target cannot be brought back; make it anew from a base backup")
        })?;
        if divergence.lsn < Lsn::MAX {
            return Ok(divergence);
        }
        let source_end = self.source_end()?;
        let mut given_up = BTreeSet::new();
        let found = loop {
            let scan =
                WalScan::new(&*self.target, WalFormat::of(&self.target_facts.control), &self.target_facts.history);
            let clusters = OneTimeline {
                target: &self.target_facts,
                scan,
                source: self.source,
                source_control: &self.source_facts.control,
                source_end,
                given_up: &given_up,
            };
            match clusters.divergence() {
                Ok(found) => break found,
                Err(error) => match self.obtain_missing(error) {
                    Ok(()) => {}
                    Err(error) => {
                        let missing = MissingSegment::of(&error).map(MissingSegment::name);
                        given_up.insert(missing.ok_or(error)?);
                    }
                },
            }
        };
        Ok(match found {
            Found::OneTimeline => divergence,
            Found::Fork(fork) => fork,
            Found::NotListed => {
                self.checks.push(unproven_timeline());
                divergence
            }
        })
    }

    /// The end of the target's WAL; none where both are on one timeline and nobody needs it.
    fn target_end(&mut self, divergence: Divergence) -> Result<Option<Lsn>> {
        if divergence.lsn == Lsn::MAX {
            return Ok(None);
        }
        let control = &self.target_facts.control;
        let (location, least) = (control.checkpoint_location(), control.min_recovery_point());
        let end = self.with_wal(|scan| scan.record_at(location, |record| record.end))?;
        if self.options.preview {
            return self.with_wal(|scan| scan.log_end(location, least)).map(|found| Some(found.end));
        }
        Ok(Some(end.max(least)))
    }

    pub(super) fn scan(&self) -> WalScan<'_> {
        let format = WalFormat::of(&self.target_facts.control);
        WalScan::new(&*self.target, format, &self.target_facts.history)
    }

    fn rewind(&mut self, divergence: Divergence, target_end: Lsn) -> Result<Manifest> {
        let checkpoint = self.last_checkpoint_before(divergence.lsn)?;
        let source_end = self.source_end()?;
        self.check_source_end(source_end, divergence.lsn)?;
        if self.options.check_only {
            return self.check_only(divergence, target_end, checkpoint);
        }
        // A live source's listing is its server's work.
        self.target.begin_to_list();
        let source_files = self.source.list(self.progress)?;
        if let Some(contradiction) = contradiction(&source_files) {
            return Err(Error::precondition(format!(
                "the source lists what no data directory can be: {contradiction}"
            ))
            .hint("check what the source's address leads to"));
        }
        let target_files = self.target.list(self.progress)?;
        let fork = Fork { divergence, target_end, checkpoint, source_end };
        self.check_divergence(divergence, Some(target_end), Some(source_end), Some(&fork.checkpoint));
        let (changed, mut discarded, managers) = self.read_wal(&fork, &source_files, &target_files)?;
        let (databases, relations) = nameless(&discarded);
        let names = self.source.begin_names(databases, relations);
        let loaded = self.server.as_ref().and_then(|facts| facts.resource_managers.as_ref());
        self.checks.push(custom_resource_managers(managers, loaded));
        let label = self.label(&fork.checkpoint);
        let wal = self.wal_needs(&fork, label.start, &source_files);
        let context = DecisionContext { relations: &self.relation_paths(), changed: &changed, wal: &wal };
        let settings = self.settings(&source_files, &target_files);
        let rules = self.rules_at_work(&settings);
        let Decided { actions, mut kept, moved, rules } = decide_all(&source_files, &target_files, &context, rules)?;
        self.check_tablespaces(&moved, &fork, label.start);
        let Settled { actions, equal, compared } = self.leave_equal(actions, source_end)?;
        let source_end = if compared { self.end_after_comparing(source_end)? } else { source_end };
        let mut wal_plan = self.wal_plan(&fork, &wal, &target_files);
        note_equal_wal(&mut wal_plan.segments, &equal);
        self.check_following(&wal_plan, label.start, &source_files, &target_files, &actions);
        kept.extend(equal);
        kept.sort_by(|a, b| a.path.cmp(&b.path));
        let mut manifest = self.manifest(Verdict::Rewind, Some(target_end))?;
        let block_size = self.target_facts.control.geometry().block_size;
        manifest.totals = Totals::of(&actions, block_size);
        manifest.estimate = Some(estimate(&actions, &manifest.totals, block_size, self.source.kind()));
        manifest.actions = actions;
        manifest.kept = kept;
        manifest.rules = rules;
        manifest.backup_label = Some(label);
        manifest.checkpoint = Some(fork.checkpoint);
        manifest.control_file = Some(self.control_file_plan());
        give_names(&mut discarded, &names());
        manifest.discarded = Some(discarded);
        manifest.divergence = Some(ForkPoint { lsn: divergence.lsn, timeline: divergence.timeline });
        manifest.source.wal_end = Some(source_end);
        manifest.wal = Some(wal_plan);
        self.check_plan(&mut manifest, (&target_files, &source_files), &settings)?;
        let problems = validate(&manifest);
        if problems.is_empty() {
            return Ok(manifest);
        }
        Err(Error::precondition(format!("the plan could not be applied: {}", problems.join("; ")))
            .hint("take out of both data directories what PostgreSQL has not put there, and plan again"))
    }

    /// That a rewind is needed and seems possible, and nothing else.
    fn check_only(
        &mut self,
        divergence: Divergence,
        target_end: Lsn,
        checkpoint: CommonCheckpoint,
    ) -> Result<Manifest> {
        let mut manifest = self.manifest(Verdict::Rewind, Some(target_end))?;
        manifest.checkpoint = Some(checkpoint);
        manifest.divergence = Some(ForkPoint { lsn: divergence.lsn, timeline: divergence.timeline });
        Ok(manifest)
    }

    /// The settings of target and source, as they are now.
    fn settings(&mut self, source: &Inventory, target: &Inventory) -> [Settings; 2] {
        let theirs = Settings::read(self.source, source);
        let theirs = match &self.server {
            Some(facts) => theirs.told_by(&facts.settings),
            None => theirs,
        };
        [Settings::read(self.target, target), theirs]
    }

    /// The rules about paths, with what both sides' settings say of files.
    fn rules_at_work(&self, [ours, theirs]: &[Settings; 2]) -> RulesAtWork<'a> {
        let directory = self.target.directory();
        let theirs_at = match self.source.kind() {
            SourceKind::StoppedDirectory => LinkText::try_from(self.source.address()).ok(),
            SourceKind::LiveServer => theirs.get("data_directory").map(|path| LinkText::new(path.as_bytes())),
        };
        let theirs_at = theirs_at.as_ref().map(LinkText::as_bytes);
        RulesAtWork::new(&self.options.rules, &[(ours, Some(directory.as_bytes())), (theirs, theirs_at)])
    }

    /// What can only be checked once the actions are known.
    fn check_plan(
        &mut self,
        manifest: &mut Manifest,
        (target_files, source_files): (&Inventory, &Inventory),
        [ours, theirs]: &[Settings; 2],
    ) -> Result<()> {
        let mut sides = Sides {
            target: &mut *self.target,
            source: &mut *self.source,
            target_files,
            source_files,
            settings: [ours, theirs],
            facts: self.target_facts.control.facts(),
        };
        let found = check_target(manifest, &mut sides)?;
        self.checks.extend(found.iter().cloned());
        add_checks(manifest, found);
        Ok(())
    }

    fn scope(&self) -> Scope {
        match (self.options.check_only, self.options.preview) {
            (true, _) => Scope::CheckOnly,
            (false, true) => Scope::Preview,
            (false, false) => Scope::Full,
        }
    }

    fn relation_paths(&self) -> RelFilePaths {
        let control = &self.target_facts.control;
        RelFilePaths::new(control.facts().major.number(), control.header().catalog_version)
    }

    /// How far the source's WAL reaches, as far as the target must replay it.
    fn source_end(&mut self) -> Result<Lsn> {
        refuse_running(self.source)?;
        let position = self.source.position()?;
        end_of_source(&self.source_facts.control, position).map(|(end, _)| end).ok_or_else(changing_role)
    }

    /// Takes out of the actions what both sides have already.
    fn leave_equal(&mut self, actions: Vec<Action>, source_end: Lsn) -> Result<Settled> {
        let geometry = self.target_facts.control.geometry();
        let candidates = Candidates {
            relations: &self.relation_paths(),
            block_size: geometry.block_size,
            segment_size: geometry.wal_segment_size,
            source_end,
            kind: self.source.kind(),
        };
        leave_equal(actions, &candidates, &*self.target, self.source, self.progress)
    }

    /// What was equal holds nothing from behind this position: an apply must not end before it.
    fn end_after_comparing(&mut self, before: Lsn) -> Result<Lsn> {
        if self.source.kind() == SourceKind::StoppedDirectory {
            return Ok(before);
        }
        let control = read_control_file(self.source, "source")?;
        let now = end_of_source(&control, self.source.position()?).ok_or_else(changing_role)?.0;
        Ok(now.max(before))
    }

    /// Replay must reach the fork, and begin somewhere.
    fn check_source_end(&self, end: Lsn, fork: Lsn) -> Result<()> {
        let redo = self.source_facts.control.checkpoint().redo;
        if end < fork {
            return Err(Error::precondition(format!("the source has only come to {end}, the fork is at {fork}"))
                .hint("wait until the source has replayed beyond the fork, and plan again"));
        }
        let size = self.target_facts.control.geometry().wal_segment_size.bytes();
        if !redo.is_valid() || redo > end || end.since(redo) / size > MOST_SEGMENTS {
            return Err(Error::precondition(format!(
                "the source's WAL cannot reach from its redo position {redo} to its end {end}"
            ))
            .hint("the source's control file contradicts its WAL; name another server of this cluster as the source"));
        }
        Ok(())
    }

    /// Reads the target's WAL from the last common checkpoint's record to its end.
    fn read_wal(
        &mut self,
        fork: &Fork,
        source: &Inventory,
        target: &Inventory,
    ) -> Result<(ChangedBlocks, Discarded, CustomResourceManagers)> {
        let control = &self.target_facts.control;
        let geometry = control.geometry();
        let paths = self.relation_paths();
        let known = both(target, source).filter_map(|(path, ours, theirs)| {
            let blocks = |size| u32::try_from(size / u64::from(geometry.block_size)).unwrap_or(u32::MAX);
            let length = blocks(ours?.size()?);
            let shared = theirs.and_then(|theirs| theirs.size()).map_or(0, blocks);
            Some(KnownFile { file: paths.parse(&path)?, length, shared })
        });
        let facts = control.facts();
        let mut changed = ChangedBlocks::new(facts, geometry.relation_segment_blocks, known);
        let extent = Extent { start: fork.checkpoint.lsn, fork: fork.divergence.lsn, end: fork.target_end };
        let read = read_in_parallel(&self.scan(), extent, self.progress, &changed);
        let (mut discarded, managers) = match read {
            Some(read) => read,
            None => {
                changed.clear();
                let mut reading = OrderedReading::new(extent, &changed, facts);
                while let Err(error) = reading.go_on(&self.scan(), self.progress) {
                    self.obtain_missing(error)?;
                }
                reading.finish()
            }
        };
        let end = self.read_received(&mut discarded, fork.target_end);
        let lost = changed.lost();
        let blocks = |relation| lost.get(&relation).copied().unwrap_or_default();
        let discarded = discarded.finish(end, blocks);
        Ok((changed, discarded, managers))
    }

    /// What a standby has received beyond the position that it is known to have replayed to is lost, too; gives where
    /// that ends.
    fn read_received(&self, discarded: &mut DiscardedWork, replayed: Lsn) -> Lsn {
        let scan = self.scan();
        let start = scan.format().record_start_after(replayed);
        let is_standby = self.target_facts.control.state() == DbState::ShutDownInRecovery;
        let Some(end) = is_standby.then(|| scan.last_valid_end(start).ok()).flatten() else { return replayed };
        let read = scan.through(start, end, &Silent, |record| {
            discarded.record(record);
            Ok(())
        });
        // It was read to its end just before.
        read.map_or(replayed, |_| end)
    }

    /// Where replay begins: at the last common checkpoint, or before it where the source, a
    /// standby, has not had its own restart point there yet.
    fn label(&self, common: &CommonCheckpoint) -> LabelPlan {
        let source = self.source_facts.control.checkpoint();
        let (start, timeline, checkpoint) = if source.redo < common.redo {
            (source.redo, source.timeline, self.source_facts.control.checkpoint_location())
        } else {
            (common.redo, common.timeline, common.lsn)
        };
        LabelPlan { checkpoint, start, start_time: Rule { rule: RuleName::Now }, timeline }
    }

    fn wal_needs(&self, fork: &Fork, redo: Lsn, source: &Inventory) -> WalNeeds {
        let size = self.target_facts.control.geometry().wal_segment_size;
        let segments = source.iter().filter(|(_, entry)| entry.size().is_some());
        let on_source = segments.filter_map(|(path, _)| match wal_path(&path, size) {
            Some(WalPath::Segment(name)) => Some(name),
            _ => None,
        });
        let on_source = on_source.collect();
        // A record that begins before the end may reach into the page after it.
        let page = u64::from(self.target_facts.control.geometry().wal_page_size);
        WalNeeds {
            source: SourceWal { history: self.source_facts.history.clone(), redo, end: fork.source_end.plus(page) },
            fork: fork.divergence.lsn,
            on_source,
            size,
        }
    }

    fn wal_plan(&self, fork: &Fork, wal: &WalNeeds, target: &Inventory) -> WalPlan {
        let on_target = |path: &ClusterPath| target.get(path).is_some_and(|entry| entry.size().is_some());
        // The page of grace matters for copying, not for what must be there.
        let mut needed = wal.clone();
        needed.source.end = fork.source_end;
        WalPlan {
            fetch: WalFetch {
                from: fork.source_end,
                through: Rule { rule: RuleName::SourceEnd },
                timeline: self.source_facts.control.timeline(),
            },
            obtained: self.obtained.list(self.target_facts.control.geometry().wal_segment_size),
            scanned: WalRange { from: fork.checkpoint.lsn, through: fork.target_end },
            segments: needed.segments(&on_target),
        }
    }

    /// Replay must not lead a moved tablespace's link to the source's location again.
    fn check_tablespaces(&mut self, moved: &Moved, fork: &Fork, replay: Lsn) {
        let records = if moved.is_empty() {
            TablespaceRecords::default()
        } else {
            self.with_wal(|scan| TablespaceRecords::read(scan, replay, fork.target_end)).unwrap_or_default()
        };
        self.checks.extend(check_moved(moved, &records));
    }

    fn control_file_plan(&self) -> ControlFilePlan {
        let end = Rule { rule: RuleName::SourceEnd };
        let sets_time = self.target_facts.control.facts().rewind_sets_time;
        ControlFilePlan {
            base: RuleName::SourceAtApply,
            set: ControlFileEdits {
                min_recovery_point: end,
                min_recovery_timeline: end,
                state: DbState::InArchiveRecovery,
                time: sets_time.then_some(Rule { rule: RuleName::Now }),
            },
        }
    }

    fn not_needed(&mut self, target_end: Option<Lsn>) -> Result<Manifest> {
        let mut manifest = self.manifest(Verdict::NotNeeded, target_end)?;
        let found = check_standing(&manifest, self.target)?;
        add_checks(&mut manifest, found);
        Ok(manifest)
    }

    fn impossible(&mut self) -> Result<Manifest> {
        self.manifest(Verdict::Impossible, None)
    }

    /// A manifest with everything that each verdict has.
    fn manifest(&mut self, verdict: Verdict, target_end: Option<Lsn>) -> Result<Manifest> {
        let major = |cluster: &Cluster| cluster.control.facts().major;
        let recovery =
            self.options.write_recovery_conf.then(|| self.source.primary_conninfo(major(&self.target_facts)));
        let recovery = recovery.flatten();
        if recovery.as_ref().is_some_and(|conninfo| conninfo.chars().any(char::is_control)) {
            let message = "a connection setting has a control character, which primary_conninfo cannot hold";
            return Err(Error::new(ErrorKind::Usage, message));
        }
        let with_password = self.options.with_password;
        let recovery =
            recovery.map(|primary_conninfo| RecoveryPlan { primary_conninfo, standby_signal: true, with_password });
        let roots = self.target.roots().into_iter().map(|(path, link)| Root { link, path }).collect();
        Ok(Manifest {
            actions: Vec::new(),
            applyable: verdict != Verdict::Impossible && self.scope() == Scope::Full,
            backup_label: None,
            checkpoint: None,
            checks: self.checks.clone(),
            control_file: None,
            created: self.options.created.clone(),
            digest: String::new(),
            discarded: None,
            divergence: None,
            estimate: None,
            format_version: FORMAT_VERSION.to_owned(),
            kept: Vec::new(),
            recovery: recovery.filter(|_| verdict != Verdict::Impossible),
            requires: Vec::new(),
            rules: Vec::new(),
            scope: self.scope(),
            source: SourceSide {
                address: self.source.address(),
                control_file: control_facts(&self.source_facts.control),
                history: self.source_facts.history.clone(),
                kind: self.source.kind(),
                major: major(&self.source_facts).number(),
                wal_end: None,
            },
            target: TargetSide {
                control_file: control_facts(&self.target_facts.control),
                directory: self.target.directory(),
                directory_mode: self.target.directory_mode(),
                history: self.target_facts.history.clone(),
                major: major(&self.target_facts).number(),
                roots,
                wal_end: target_end,
            },
            tool: Tool { name: "pg_unfork".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            totals: Totals::default(),
            verdict,
            wal: None,
        })
    }
}

/// Where replay of the source's WAL makes a copy of its files consistent, and on which timeline.
///
/// A primary that was shut down: its last checkpoint's record, as pg_rewind has it. A standby:
/// its minimum recovery point, which its files may have reached (later than the checkpoint that
/// pg_rewind takes for a stopped one). A running primary: `position`, what it has flushed — no
/// page is on disk whose record is not. None where control file and server contradict each other:
/// the server is being promoted, started or stopped.
#[must_use]
pub fn end_of_source(control: &ControlFile, position: Option<Position>) -> Option<(Lsn, TimelineId)> {
    let role = (control.state(), position.map(|position| position.in_recovery));
    let checkpoint = (control.checkpoint_location(), control.checkpoint().timeline);
    let recovery = (control.min_recovery_point(), control.min_recovery_timeline());
    match role {
        (DbState::InProduction, Some(false)) => position.map(|position| (position.lsn, control.timeline())),
        (DbState::ShutDown, None) => Some(checkpoint),
        (DbState::ShutDownInRecovery, None) | (DbState::InArchiveRecovery, Some(true)) => {
            Some(if recovery.0 > checkpoint.0 { recovery } else { checkpoint })
        }
        _ => None,
    }
}

/// A target that did not stop in good order must not be taken for one that follows by guess.
fn not_comparable(end: Lsn, why: &str) -> Error {
    Error::precondition(format!(
        "the target did not stop in good order, and whether the source has the same WAL at its end, {end}, is unknown: {why}"
    ))
}

/// What a listing leaves open where both sides have one and the same history.
fn unproven_timeline() -> Check {
    finding(
        "one_timeline",
        CheckStatus::Warn,
        "both have the same history; whether the target's last checkpoint is in the source's WAL, the listing does not tell"
            .to_owned(),
        Some("before the target is started as a standby, plan with the source itself (--source-server or --source-pgdata)"),
    )
}

/// Refuses a source that should be at rest and is not.
pub(crate) fn refuse_running(source: &dyn Source) -> Result<()> {
    let Some(pid) = source.running_server()? else { return Ok(()) };
    Err(Error::of(ErrorId::SourceRunning, format!("a server is running on the source's directory (process {pid})"))
        .hint("stop it in good order (pg_ctl stop -m fast), or name it by --source-server")
        .hint("if that process is no PostgreSQL, postmaster.pid is left from a crash: remove it"))
}

/// What a source is whose control file and server contradict each other.
pub(crate) fn changing_role() -> Error {
    Error::precondition("the source changes its role just now").hint("plan again when it has settled")
}
