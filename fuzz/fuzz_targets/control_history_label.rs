//! Control files and states of replication slots (with a CRC that is right, or as they are), timeline histories, and
//! the `backup_label` of any values.
//!
//! Input: mode, major or timeline, then the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_unfork::format::{BackupLabel, CONTROL_FILE_SIZE, ControlFile, DbState, Major, ReplicationSlot, parse_history};
use pg_unfork::types::{Lsn, TimelineId, WalSegmentSize};

fuzz_target!(|data: &[u8]| {
    let Some(([mode, number], rest)) = data.split_first_chunk() else { return };
    let major = Major::ALL[usize::from(*number) % Major::ALL.len()];
    match mode % 6 {
        0 => control_file(rest),
        1 => control_file(&with_crc(rest, major)),
        2 => history(rest, TimelineId::new(u32::from(*number))),
        3 => backup_label(rest, major),
        4 => drop(ReplicationSlot::parse(rest, major.facts())),
        _ => slot_with_crc(rest, major),
    }
});

/// The input as a control file of `major` whose CRC is right.
fn with_crc(input: &[u8], major: Major) -> Vec<u8> {
    let facts = major.facts();
    let mut bytes = input.to_vec();
    bytes.resize(CONTROL_FILE_SIZE, 0);
    bytes[8..12].copy_from_slice(&facts.control_version.to_le_bytes());
    bytes[12..16].copy_from_slice(&facts.catalog_versions.start().to_le_bytes());
    let at = facts.control.crc;
    let crc = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The input as the state of a slot of `major` whose CRC is right: it is understood, whatever it says.
fn slot_with_crc(input: &[u8], major: Major) {
    let layout = major.facts().slot;
    let mut bytes = input.to_vec();
    bytes.resize(16 + layout.length as usize, 0);
    bytes[..4].copy_from_slice(&0x0105_1CA1_u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&layout.version.to_le_bytes());
    bytes[12..16].copy_from_slice(&layout.length.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    let slot = ReplicationSlot::parse(&bytes, major.facts()).expect("a slot");
    assert!(slot.name.chars().count() <= 64 && slot.plugin.is_some() == slot.database.is_some());
}

/// What parses can be asked and edited, and parses again.
fn control_file(bytes: &[u8]) {
    let Ok(file) = ControlFile::parse(bytes) else { return };
    assert_eq!(file.as_bytes(), bytes);
    let _ = (file.header(), file.geometry(), file.settings(), file.time(), file.timeline());
    let sealed = file.clone().sealed();
    assert!(sealed.is_sealed() && sealed.state().is_clean(), "{:?}", sealed.checkpoint_location());
    let edited = sealed
        .with_state(DbState::InArchiveRecovery)
        .with_time(7)
        .with_checkpoint_location(file.checkpoint_location())
        .with_min_recovery_point(Lsn::MAX, TimelineId::new(9));
    let again = ControlFile::parse(edited.as_bytes()).expect("an edited file is valid");
    assert_eq!(again, edited);
    assert_eq!((again.header(), again.geometry()), (file.header(), file.geometry()));
    assert_eq!((again.settings(), again.checkpoint()), (file.settings(), file.checkpoint()));
    assert_eq!((again.min_recovery_point(), again.min_recovery_timeline()), (Lsn::MAX, TimelineId::new(9)));
}

/// What parses keeps its order, and its plainest text means the same.
fn history(text: &[u8], own: TimelineId) {
    let Ok(history) = parse_history(text, own) else { return };
    let (current, ancestors) = history.entries().split_last().expect("a history is never empty");
    assert!(current.timeline == own && current.end.is_none());
    let mut plain = String::new();
    let mut before = (TimelineId::new(0), Lsn::INVALID);
    for entry in ancestors {
        let end = entry.end.expect("an ancestor ends");
        assert!(entry.timeline > before.0 && entry.begin == before.1 && end >= entry.begin);
        plain += &format!("{}\t{end}\tno recovery target specified\n", entry.timeline);
        before = (entry.timeline, end);
    }
    assert_eq!(parse_history(plain.as_bytes(), own), Ok(history));
}

/// The lines are those that the server's strict reading takes, for any values.
fn backup_label(input: &[u8], major: Major) {
    let Some((numbers, _)) = input.split_first_chunk::<21>() else { return };
    let lsn = |at: usize| Lsn::new(u64::from_le_bytes(numbers[at..at + 8].try_into().unwrap()));
    let timeline = TimelineId::new(u32::from_le_bytes(numbers[16..20].try_into().unwrap()));
    let size = WalSegmentSize::new(1 << (20 + numbers[20] % 11)).expect("a legal size");
    let label = BackupLabel { start: lsn(0), timeline, checkpoint: lsn(8) };
    let text = label.render(major.facts(), size, "2026-01-01 00:00:00 UTC");
    let lines: Vec<&str> = text.split('\n').collect();
    let [start, checkpoint, "BACKUP METHOD: pg_rewind", "BACKUP FROM: standby", _, ""] = lines[..] else {
        panic!("{text:?}")
    };
    let start = start.strip_prefix("START WAL LOCATION: ").expect("the redo position");
    let (position, file) = start.split_once(" (file ").expect("the segment");
    let file = file.strip_suffix(')').expect("the end of the line");
    assert_eq!(position.parse(), Ok(label.start));
    assert_eq!(file.len(), 24);
    assert_eq!(file[..8], format!("{:08X}", timeline.get()));
    let segment = pg_unfork::types::WalFileName::parse(file.as_bytes(), size).expect("a segment's name").segment;
    assert!(segment.start(size) <= label.start && label.start.since(segment.start(size)) < size.bytes());
    assert_eq!(checkpoint.strip_prefix("CHECKPOINT LOCATION: ").map(str::parse), Some(Ok(label.checkpoint)));
}
