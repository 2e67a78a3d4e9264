//! `backup_label`: from where a server must replay when it starts on a rewound directory.

use super::MajorFacts;
use crate::types::{Lsn, SegmentNumber, TimelineId, WalFileName, WalSegmentSize};

/// The label that a rewind leaves, with pg_rewind's exact lines.
///
/// `BACKUP FROM` is always `standby`, whatever the source: then the server takes the control
/// file's minimum recovery point as the end of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay begins: the redo position of the checkpoint.
    pub start: Lsn,
    /// The timeline of the checkpoint.
    pub timeline: TimelineId,
    /// Where the checkpoint's record is.
    pub checkpoint: Lsn,
}

/// Says that a rewind has left it.
const METHOD: &str = "BACKUP METHOD: pg_rewind";

impl BackupLabel {
    /// Reads a label that a rewind has left, this program's or pg_rewind's; none where it is another one, or none at all.
    #[must_use]
    pub fn of_rewind(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let (start, file) = field("START WAL LOCATION: ")?.split_once(" (file ")?;
        let timeline = u32::from_str_radix(file.get(..8)?, 16).ok()?;
        let checkpoint = field("CHECKPOINT LOCATION: ")?.parse().ok()?;
        text.lines().any(|line| line == METHOD).then_some(())?;
        Some(Self { start: start.parse().ok()?, timeline: TimelineId::new(timeline), checkpoint })
    }

    /// The file's text; `start_time` is free text in the server's eyes, local time with zone in
    /// pg_rewind's.
    #[must_use]
    pub fn render(&self, facts: &MajorFacts, size: WalSegmentSize, start_time: &str) -> String {
        let text = |lsn: Lsn| if facts.pads_lsn { lsn.padded() } else { lsn.to_string() };
        let file = WalFileName { timeline: self.timeline, segment: SegmentNumber::of(self.start, size) };
        format!(
            "START WAL LOCATION: {} (file {})\nCHECKPOINT LOCATION: {}\n{METHOD}\nBACKUP FROM: standby\nSTART TIME: {start_time}\n",
            text(self.start),
            file.text(size),
            text(self.checkpoint),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::Major;

    #[test]
    fn the_lines_are_pg_rewinds() {
        let label =
            BackupLabel { start: Lsn::new(0x300_0028), timeline: TimelineId::new(2), checkpoint: Lsn::new(0x300_0060) };
        let size = WalSegmentSize::new(1 << 20).unwrap();
        for major in [Major::V13, Major::V19] {
            let text = label.render(major.facts(), size, "now");
            assert_eq!(BackupLabel::of_rewind(text.as_bytes()).as_ref(), Some(&label));
            let other = text.replace("METHOD: pg_rewind", "METHOD: streamed");
            assert_eq!(BackupLabel::of_rewind(other.as_bytes()), None);
        }
        for text in ["", "BACKUP METHOD: pg_rewind\n", "START WAL LOCATION: 0/1 (file x)\n"] {
            assert_eq!(BackupLabel::of_rewind(text.as_bytes()), None, "{text:?}");
        }
        let newest = label.render(Major::V19.facts(), size, "");
        assert!(newest.starts_with(
            "START WAL LOCATION: 0/03000028 (file 000000020000000000000030)\nCHECKPOINT LOCATION: 0/03000060\n"
        ));
        assert_eq!(
            label.render(Major::V17.facts(), size, "2026-03-01 10:00:00 UTC"),
            "START WAL LOCATION: 0/3000028 (file 000000020000000000000030)\nCHECKPOINT LOCATION: 0/3000060\nBACKUP METHOD: pg_rewind\nBACKUP FROM: standby\nSTART TIME: 2026-03-01 10:00:00 UTC\n"
        );
    }
}
