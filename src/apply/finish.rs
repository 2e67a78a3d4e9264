//! The last steps: WAL to the source's end, recovery configuration, `backup_label`, control file.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::ApplyContext;
use super::journal::{Record, Writer as Journal};
use super::recovery::write_recovery;
use super::seal::write_file;
use super::state::{Header, control_path, sha256};

use crate::cluster::rules::is_tablespace_link;
use crate::cluster::{Durability, STATE_DIRECTORY, Source, SourceKind, TargetStore};
use crate::error::{Context, Error, ErrorId, ErrorKind, Result};
use crate::format::wal::WalFormat;
use crate::format::{BackupLabel, ControlFile, DbState};
use crate::manifest::{Action, ActionKind, LabelPlan, Manifest, PathState, Phase, Reason, WalPlan, hex};
use crate::plan::{MOST_SEGMENTS, WalScan, end_of_source, read_control_file};
use crate::types::{ClusterPath, Lsn, SegmentNumber, TimelineId, WalFileName};

/// How long a source that lags behind what was seen of it is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where recovery of the target must get to.
pub(super) struct End {
    control: ControlFile,
    lsn: Lsn,
    timeline: TimelineId,
}

/// Finishes an apply; says whether the target starts as a standby. `begun` is what the state says of the runs before.
pub(super) fn finish(
    context: &mut ApplyContext<'_>,
    journal: &mut Journal,
    bytes: &mut u64,
    begun: Option<&Header>,
) -> Result<bool> {
    let manifest = context.manifest;
    let (Some(label), Some(wal)) = (&manifest.backup_label, &manifest.wal) else {
        return Err(Error::failure("the manifest of a rewind lacks its last steps"));
    };
    let mut end = source_end(manifest, context.source, journal.journal().source_at)?;
    if context.source.kind() == SourceKind::LiveServer {
        journal.write(vec![Record::SourceAt(end.lsn.get())])?;
        *bytes += fetch_wal(context, journal, wal, end.lsn)?;
        end.lsn = whole_records(context, &end)?;
    }
    context.progress.end();
    protect(context, journal, &last_paths(manifest)?)?;
    if let Some(recovery) = &manifest.recovery {
        write_recovery(context.store, recovery, &*context.source, Durability::Later)?;
    }
    let now = (context.now)();
    write_label(context.store, label, &end.control, &now.local)?;
    if !context.options.undo {
        leave_roots(context)?;
    }
    context.store.sync(context.progress)?;
    if let Some(header) = begun.filter(|header| !header.durable && context.options.durable) {
        make_all_durable(context, journal, header)?;
    }
    let mut control = end.control.with_state(DbState::InArchiveRecovery).with_min_recovery_point(end.lsn, end.timeline);
    if manifest.control_file.as_ref().is_some_and(|plan| plan.set.time.is_some()) {
        control = control.with_time(now.unix);
    }
    let standby = starts_as_standby(context.store)?;
    if context.source.kind() == SourceKind::StoppedDirectory {
        source_end(manifest, context.source, Lsn::INVALID)?;
    }
    journal.write(vec![Record::Finishing { sha256: sha256(control.as_bytes()) }])?;
    write_file(context.store, &control_path()?, control.as_bytes(), Durability::Now)?;
    Ok(standby)
}

/// Makes durable what runs before this one, which was not to, have changed.
fn make_all_durable(context: &mut ApplyContext<'_>, journal: &Journal, header: &Header) -> Result<()> {
    let extras = journal.journal().extras.keys().chain(journal.journal().rewritten.keys());
    let extras = extras.map(|path| ClusterPath::new(path).context(|| "no such name".to_owned()));
    let actions = context.manifest.actions.iter().map(|action| Ok(action.path.clone()));
    let paths: Vec<ClusterPath> = actions.chain(extras).collect::<Result<_>>()?;
    context.store.sync_file_systems(&paths)?;
    Header { durable: true, ..header.clone() }.write(context.store)
}

/// What the last steps write besides WAL and the control file.
pub(super) fn last_paths(manifest: &Manifest) -> Result<Vec<ClusterPath>> {
    let names = ["backup_label", "postgresql.auto.conf", "standby.signal"];
    let names = names.iter().take(if manifest.recovery.is_some() { names.len() } else { 1 });
    let paths = names.map(|name| ClusterPath::new(name.as_bytes())).collect::<std::result::Result<Vec<_>, _>>();
    paths.context(|| "no such name".to_owned())
}

/// The source's end as it is now. A stopped source must not have moved; a live one must still be on
/// its timeline, must have had a restart point where replay begins, and must not be behind what was
/// seen of it. Asked before the seal, and again once everything is copied.
/// `seen` is the furthest that an earlier apply has seen it.
pub(super) fn source_end(manifest: &Manifest, source: &mut dyn Source, seen: Lsn) -> Result<End> {
    let seen = manifest.source.wal_end.unwrap_or_default().max(seen);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let control = read_control_file(source, "source")?;
        check_source(manifest, &control, source)?;
        let position = source.position()?;
        let end = end_of_source(&control, position);
        if let Some((lsn, timeline)) = end.filter(|&(lsn, _)| lsn >= seen) {
            return Ok(End { control, lsn, timeline });
        }
        if Instant::now() > deadline {
            let now = end.map_or("changing its role".to_owned(), |(lsn, _)| format!("at {lsn}"));
            return Err(Error::failure(format!("the source is {now}, but was at {seen} when the plan was made"))
                .hint("this address leads to a server that lags behind; name the one that was planned with"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn check_source(manifest: &Manifest, control: &ControlFile, source: &dyn Source) -> Result<()> {
    let planned = &manifest.source.control_file;
    let refuse = |message: String| {
        Err(Error::new(ErrorKind::DeadEnd, message).hint("this plan can never finish with this source"))
    };
    if control.timeline() != planned.timeline {
        let (found, planned) = (control.timeline(), planned.timeline);
        return refuse(format!("the source is on timeline {found}, the plan is for {planned}"))
            .map_err(|error| error.with_id(ErrorId::SourceTimeline));
    }
    let moved = hex(&Sha256::digest(control.as_bytes())) != planned.sha256;
    if source.kind() == SourceKind::StoppedDirectory && (moved || source.running_server()?.is_some()) {
        return refuse("the source was started since the plan was made".to_owned());
    }
    let start = manifest.backup_label.as_ref().map_or(Lsn::INVALID, |label| label.start);
    let redo = control.checkpoint().redo;
    if redo < start {
        return refuse(format!(
            "the source's last checkpoint begins at {redo}, before {start}, where replay on the target would begin: what this server had not written by then would be lost"
        ));
    }
    Ok(())
}

/// Fetches the WAL that a live source has written since the plan was made.
fn fetch_wal(context: &mut ApplyContext<'_>, journal: &mut Journal, wal: &WalPlan, end: Lsn) -> Result<u64> {
    let manifest = context.manifest;
    let size = manifest.target.control_file.geometry.wal_segment_size;
    if end.since(wal.fetch.from) / size.bytes() > MOST_SEGMENTS {
        return Err(Error::failure(format!("the source's WAL cannot reach from {} to {end}", wal.fetch.from)));
    }
    let paths = last_segments(manifest, wal, end)?;
    protect(context, journal, &paths)?;
    let actions: Vec<Action> = paths.into_iter().map(wal_action).collect();
    let mut units = context.units(journal, None);
    units.copy(actions.iter().map(|action| (None, action)).collect())?;
    Ok(units.bytes)
}

/// The WAL segments that are fetched from a live source last of all, when its WAL reaches to `end`.
pub(super) fn last_segments(manifest: &Manifest, wal: &WalPlan, end: Lsn) -> Result<Vec<ClusterPath>> {
    let size = manifest.target.control_file.geometry.wal_segment_size;
    let last = SegmentNumber::of(Lsn::new(end.get().saturating_sub(1)), size);
    let mut segment = SegmentNumber::of(wal.fetch.from, size);
    let mut paths = Vec::new();
    while segment <= last {
        let timeline = manifest.source.history.timeline_of_segment(segment.end(size)).unwrap_or(wal.fetch.timeline);
        let name = format!("pg_wal/{}", WalFileName { timeline, segment }.text(size));
        paths.push(ClusterPath::new(name.as_bytes()).context(|| "no such name".to_owned())?);
        segment = segment.next();
    }
    Ok(paths)
}

/// What a primary has flushed may end inside a record. The target must reach consistency with the
/// WAL that it has, even if the source dies now: with the last record that is whole.
fn whole_records(context: &ApplyContext<'_>, end: &End) -> Result<Lsn> {
    if end.control.state() != DbState::InProduction {
        return Ok(end.lsn);
    }
    WalScan::new(&*context.target, WalFormat::of(&end.control), &context.manifest.source.history)
        .last_record_end(end.lsn)
}

/// Keeps what is in the way of files that no action is about, and remembers where there was nothing.
pub(super) fn protect(context: &mut ApplyContext<'_>, journal: &mut Journal, paths: &[ClusterPath]) -> Result<()> {
    if !context.options.undo {
        return Ok(());
    }
    let mut records = Vec::new();
    let asked: BTreeSet<&ClusterPath> = paths.iter().collect();
    let planned = context.manifest.actions.iter().map(|action| &action.path);
    let planned: BTreeSet<&ClusterPath> = planned.filter(|path| asked.contains(path)).collect();
    for path in paths {
        if journal.journal().extras.contains_key(path.as_bytes()) || planned.contains(path) {
            continue;
        }
        let existed = context.store.entry(path)?.is_some();
        if existed {
            context.store.keep(path, &kept_extra(path))?;
        }
        records.push(Record::Extra { path: path.as_bytes().to_vec(), existed });
    }
    context.store.sync_kept()?;
    journal.write(records)
}

/// The name under which a path is kept that no action is about: one of its own for each path, whatever its bytes.
pub(super) fn kept_extra(path: &ClusterPath) -> String {
    format!("extra.{}", hex(&Sha256::digest(path.as_bytes())))
}

fn wal_action(path: ClusterPath) -> Action {
    Action {
        after: None,
        before: None,
        blocks: Vec::new(),
        kind: ActionKind::CopyFile,
        path,
        phase: Phase::Finish,
        reason: Reason::ReplayNeedsIt,
        source: Some(PathState::default()),
    }
}

/// The text of `backup_label`.
pub(super) fn label_text(plan: &LabelPlan, control: &ControlFile, start_time: &str) -> String {
    let label = BackupLabel { start: plan.start, timeline: plan.timeline, checkpoint: plan.checkpoint };
    label.render(control.facts(), control.geometry().wal_segment_size, start_time)
}

fn write_label(store: &mut dyn TargetStore, plan: &LabelPlan, control: &ControlFile, start_time: &str) -> Result<()> {
    let text = label_text(plan, control, start_time);
    let path = ClusterPath::new(b"backup_label").context(|| "no such name".to_owned())?;
    write_file(store, &path, text.as_bytes(), Durability::Later)
}

/// Takes the state directories out of the file systems that only had files on their way.
fn leave_roots(context: &mut ApplyContext<'_>) -> Result<()> {
    let is_root = |action: &&Action| action.kind == ActionKind::CreateSymlink && is_tablespace_link(&action.path);
    let created = context.manifest.actions.iter().filter(is_root);
    let roots = context.manifest.target.roots.iter().map(|root| &root.path).chain(created.map(|action| &action.path));
    for root in roots {
        // A tablespace's link may just have been removed.
        if context.store.entry(root)?.is_some() {
            let state = root.join(STATE_DIRECTORY.as_bytes()).context(|| "no such name".to_owned())?;
            context.store.remove(&state)?;
        }
    }
    Ok(())
}

fn starts_as_standby(store: &dyn TargetStore) -> Result<bool> {
    for name in ["standby.signal", "recovery.signal"] {
        let path = ClusterPath::new(name.as_bytes()).context(|| "no such name".to_owned())?;
        if store.entry(&path)?.is_some() {
            return Ok(name == "standby.signal");
        }
    }
    Ok(false)
}
