//! Asking a source everything that a plan would.

use sha2::{Digest, Sha256};

use super::FORMAT_VERSION;
use super::entries::Entries;
use super::model::{ListedFile, ListedMoment, ListedRecord, SourceListing};
use super::text::{FileText, HexBytes};
use crate::checks::{is_configuration, without_secrets};
use crate::cluster::{FileEntry, Inventory, SMALL_FILE_LIMIT, Settings, Source, SourceKind, contradiction};
use crate::error::{Context, Error, Result};
use crate::format::ControlFile;
use crate::format::wal::WalFormat;
use crate::manifest::Tool;
use crate::plan::{ProvableSource, changing_role, end_of_source, read_control_file, read_history, refuse_running};
use crate::progress::Progress;
use crate::types::{ClusterPath, Lsn, SegmentNumber, TimelineHistory, TimelineId, WalFileName};

/// Lists a source. `created` is the time, RFC 3339 in UTC.
///
/// # Errors
/// When it cannot be read, a server runs on a directory that should be at rest, or its state is none in which anything
/// can follow it.
pub fn list_source(source: &mut dyn Source, created: String, progress: &dyn Progress) -> Result<SourceListing> {
    refuse_running(source)?;
    let control = read_control_file(source, "source")?;
    let history = read_history(source, control.timeline(), "source")?;
    let before = moment(source, &control)?;
    let end = end(source, &control, &before)?;
    let inventory = source.list(progress)?;
    if let Some(contradiction) = contradiction(&inventory) {
        return Err(Error::precondition(format!("the source has what no data directory can have: {contradiction}"))
            .hint("check what the source's address leads to"));
    }
    let files = small_files(source, &history, &inventory)?;
    let records = records(source, &control, &history)?;
    let server = source.server_facts()?;
    let names = source.all_names().into();
    let provable =
        ProvableSource { control: &control, history: &history, kind: source.kind(), end, files: &inventory }.files();
    let digests = source.digests(&provable, progress)?;
    let entries = Entries::new(inventory, provable.into_iter().zip(digests));
    refuse_running(source)?;
    let control_after = read_control_file(source, "source")?;
    let after = moment(source, &control_after)?;
    if source.kind() == SourceKind::StoppedDirectory && after != before {
        return Err(
            Error::failure("the source was used while it was listed").hint("leave it stopped, and list it again")
        );
    }
    Ok(SourceListing {
        address: source.address(),
        after,
        before,
        created,
        digest: String::new(),
        entries,
        files,
        format_version: FORMAT_VERSION.to_owned(),
        kind: source.kind(),
        names,
        primary_conninfo: source.primary_conninfo(control.facts().major),
        records,
        server,
        tool: Tool { name: "pg_unfork".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
    })
}

fn moment(source: &mut dyn Source, control: &ControlFile) -> Result<ListedMoment> {
    let bytes = control.as_bytes();
    let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let control_file = HexBytes(bytes.get(..length).unwrap_or_default().to_vec());
    Ok(ListedMoment { control_file, position: source.position()?.map(Into::into) })
}

/// How far the source's WAL is complete.
fn end(source: &dyn Source, control: &ControlFile, moment: &ListedMoment) -> Result<Lsn> {
    let end = end_of_source(control, moment.position.map(Into::into)).map(|(end, _)| end);
    end.ok_or_else(|| match source.kind() {
        SourceKind::LiveServer => changing_role(),
        SourceKind::StoppedDirectory => Error::precondition(format!("source state: {}", control.state().words()))
            .hint("stop the source in good order (pg_ctl stop -m fast), or name it by --source-server"),
    })
}

/// The small files that a plan reads: the timeline history, and configuration without its secrets.
fn small_files(source: &mut dyn Source, history: &TimelineHistory, listed: &Inventory) -> Result<Vec<ListedFile>> {
    let mut files = configuration(source, listed);
    let own = history.entries().last().map(|entry| entry.timeline).filter(|own| *own != TimelineId::new(1));
    if let Some(own) = own {
        let path = named(&format!("pg_wal/{:08X}.history", own.get()))?;
        let content = source.read_small(&path)?;
        files.extend(content.map(|content| ListedFile { content: FileText::new(content), path }));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Files of configuration, with what a plan may show of them. Those that cannot be read are left out.
fn configuration(source: &mut dyn Source, listed: &Inventory) -> Vec<ListedFile> {
    let settings = Settings::read(source, listed);
    let is_file = |(path, entry): &(ClusterPath, FileEntry)| {
        entry.size().is_some_and(|size| size <= SMALL_FILE_LIMIT) && is_configuration(path, &[&settings])
    };
    let mut files = Vec::new();
    for (path, _) in listed.iter().filter(is_file) {
        let Ok(Some(bytes)) = source.read_small(&path) else { continue };
        let main = matches!(path.as_bytes(), b"postgresql.conf" | b"postgresql.auto.conf");
        let content = without_secrets(&path, main || settings.files.contains(&path), &bytes);
        files.push(ListedFile { content: FileText::new(content), path });
    }
    files
}

/// The first record of the last timeline and the one of the last checkpoint, as far as they are there.
fn records(source: &mut dyn Source, control: &ControlFile, history: &TimelineHistory) -> Result<Vec<ListedRecord>> {
    let format = WalFormat::of(control);
    let begin = history.entries().last().map(|entry| entry.begin).unwrap_or_default();
    let mut records = Vec::new();
    for lsn in [format.record_start_after(begin), control.checkpoint_location()] {
        records.extend(record(source, &format, history, lsn)?);
    }
    records.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    records.dedup_by(|a, b| (&a.path, a.offset) == (&b.path, b.offset));
    Ok(records)
}

/// A record, as [`crate::plan::WalScan::raw_record_at`] gives that of a target.
fn record(
    source: &mut dyn Source,
    format: &WalFormat,
    history: &TimelineHistory,
    lsn: Lsn,
) -> Result<Option<ListedRecord>> {
    /// Records begin at multiples of this.
    const ALIGNMENT: u64 = 8;
    let size = format.geometry.wal_segment_size;
    let segment = SegmentNumber::of(lsn, size);
    let timeline = history.timeline_of_segment(segment.end(size)).unwrap_or_default();
    let path = named(&format!("pg_wal/{}", WalFileName { timeline, segment }.text(size)))?;
    let offset = lsn.offset_in(size.bytes());
    let page_end = lsn.start_of(format.page_size()).plus(format.page_size());
    // A record begins with its length.
    let length = source.read_part(&path, offset, 4)?.and_then(|bytes| bytes.first_chunk().copied());
    let length = u64::from(length.map_or(0, u32::from_le_bytes));
    let most = page_end.since(lsn);
    let Ok(length) = u32::try_from(length.next_multiple_of(ALIGNMENT).min(most)) else { return Ok(None) };
    if length == 0 {
        return Ok(None);
    }
    let bytes = source.read_part(&path, offset, length)?.filter(|bytes| bytes.len() as u64 == u64::from(length));
    Ok(bytes.map(|bytes| ListedRecord { length, offset, path, sha256: HexBytes(Sha256::digest(bytes).to_vec()) }))
}

fn named(path: &str) -> Result<ClusterPath> {
    ClusterPath::new(path.as_bytes()).context(|| format!("no file can be named {path:?}"))
}
