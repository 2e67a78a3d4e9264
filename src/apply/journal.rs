//! The journal: what an apply has done so far. `.pg_unfork/journal`, in frames; each frame holds the
//! records of one step, which is durable before the frame is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::frame::{End, frame, read_frames};
use crate::cluster::{Log, ReadAt};
use crate::error::{Context, Error, ErrorId, Result};
use crate::manifest::{Action, KeptReason, Manifest, Phase};
use crate::types::Lsn;

/// One thing that is done. Encoded by postcard: new kinds only at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// The first record: whose journal this is.
    Began {
        /// The id of the apply, as in the state.
        id: String,
    },
    /// The target is sealed.
    Sealed,
    /// The source was seen to have WAL up to there.
    SourceAt(u64),
    /// Bytes are in the target, and durable.
    Copied(Copied),
    /// All of a phase is done.
    Phase(PhaseDone),
    /// The last steps write a path that no action is about.
    Extra {
        /// The path's bytes.
        path: Vec<u8>,
        /// Whether something was there, which is kept for an undo.
        existed: bool,
    },
    /// The last step comes now: the control file with this SHA-256.
    Finishing {
        /// In lower-case hexadecimal.
        sha256: String,
    },
    /// An undo began.
    Undoing,
    /// It came to its end.
    Undone,
    /// Before-images are durable.
    Images(ImagesUpTo),
    /// Paths that are left as they are.
    Skipped(Skipped),
    /// A path that was to be left as it is was copied all the same.
    Rewritten(Rewritten),
    /// What was noted of an action's bytes does not hold any more: they are copied anew.
    Forgotten {
        /// The action's place in the manifest.
        action: u32,
    },
}

/// A path that was to be left as it is, that somebody has rewritten, and that was copied then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rewritten {
    /// The path's bytes.
    pub(super) path: Vec<u8>,
    /// Size and CRC-32C of the copy; none where the source had no such file any more.
    pub(super) copy: Option<(u64, [u8; 4])>,
}

/// Paths that an apply leaves as they are, though stock `pg_rewind` would change them, by the proof that it need not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The proof.
    pub reason: KeptReason,
    /// How many paths.
    pub paths: u64,
    /// Bytes of those that were compared.
    pub bytes: u64,
}

impl Skipped {
    /// What a plan skips, by reason.
    pub(super) fn of(manifest: &Manifest) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for kept in &manifest.kept {
            let bytes = kept.source.as_ref().and_then(|state| state.size).unwrap_or(0);
            match all.iter_mut().find(|skipped| skipped.reason == kept.reason) {
                Some(skipped) => {
                    skipped.paths += 1;
                    skipped.bytes = skipped.bytes.saturating_add(bytes);
                }
                None => all.push(Self { reason: kept.reason, paths: 1, bytes }),
            }
        }
        all
    }
}

/// How far a log of before-images can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImagesUpTo {
    /// The link of the root that it is in, by its bytes; empty for the data directory.
    pub(super) root: Vec<u8>,
    /// Bytes of the log that are durable.
    pub(super) length: u64,
}

/// Consecutive pieces of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    /// The action's place in the manifest.
    pub(super) action: u32,
    /// The first piece, as [`pieces`] counts them.
    pub(super) first: u32,
    /// How many pieces.
    pub(super) count: u32,
    /// Bytes that there were, of all of them. Fewer than the pieces ask for only in a record of one.
    pub(super) bytes: u64,
    /// CRC-32C of these bytes.
    pub(super) crc: [u8; 4],
    /// Whether the source had no such file any more, which then is removed.
    pub(super) gone: bool,
}

/// A phase that need not be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum PhaseDone {
    /// [`Phase::Wal`].
    Wal,
    /// [`Phase::Create`].
    Create,
    /// [`Phase::Copy`].
    Copy,
    /// [`Phase::Truncate`].
    Truncate,
    /// [`Phase::Remove`].
    Remove,
}

impl PhaseDone {
    /// The journal's name of a phase that it notes the end of.
    pub(super) fn of(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Wal => Some(Self::Wal),
            Phase::Create => Some(Self::Create),
            Phase::Copy => Some(Self::Copy),
            Phase::Truncate => Some(Self::Truncate),
            Phase::Remove => Some(Self::Remove),
            Phase::Seal | Phase::Finish => None,
        }
    }
}

/// Bytes of records after which a frame is full.
const ENOUGH: usize = 1 << 20;

/// Bytes of a piece: no file is fetched again from its start because its end is missing.
pub(super) const PIECE: u64 = 64 << 20;

/// The parts in which an action's bytes are copied: offset, and length where it does not go to the end.
/// The same for each reader of a manifest.
pub(super) fn pieces(action: &Action, block_size: u64) -> Vec<(u64, Option<u64>)> {
    let size = |state: &Option<crate::manifest::PathState>| state.as_ref().and_then(|s| s.size).unwrap_or(0);
    let mut pieces = Vec::new();
    let mut cut = |from: u64, length: u64| {
        let mut done = 0;
        while done < length {
            let next = (length - done).min(PIECE);
            pieces.push((from + done, Some(next)));
            done += next;
        }
    };
    if action.kind == crate::manifest::ActionKind::CopyFile {
        cut(0, size(&action.source) / PIECE * PIECE);
        let whole = pieces.len() as u64 * PIECE;
        pieces.push((whole, None));
        return pieces;
    }
    for range in &action.blocks {
        cut(u64::from(range.first) * block_size, u64::from(range.count) * block_size);
    }
    let (before, after) = (size(&action.before), size(&action.after));
    cut(before, after.saturating_sub(before));
    pieces
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    /// The id of the apply that it belongs to.
    pub(super) id: String,
    /// Whether the target was sealed.
    pub(super) sealed: bool,
    /// The highest position that the source was seen at.
    pub(super) source_at: Lsn,
    /// What is left as it is.
    pub(super) skipped: Vec<Skipped>,
    /// What was copied, by action and first piece.
    pub(super) copied: BTreeMap<(u32, u32), Copied>,
    /// The phases that are done.
    pub(super) phases: Vec<PhaseDone>,
    /// Paths that no action is about, and whether something was there.
    pub(super) extras: BTreeMap<Vec<u8>, bool>,
    /// Size and CRC-32C of what was to be left as it is and was copied, if there is anything; by path.
    pub(super) rewritten: BTreeMap<Vec<u8>, Option<(u64, [u8; 4])>>,
    /// Bytes of each root's before-images that are durable, by the root's link.
    pub(super) images: BTreeMap<Vec<u8>, u64>,
    /// The control file of the last step.
    pub(super) finished: Option<String>,
    /// Whether an undo began.
    pub(super) undoing: bool,
    /// Whether it ended.
    pub(super) undone: bool,
    /// Bytes of whole frames.
    pub(super) length: u64,
}

impl Journal {
    /// Reads a journal. A torn end does not count.
    ///
    /// # Errors
    /// When it is damaged elsewhere, or cannot be read.
    pub(super) fn read(log: &dyn ReadAt) -> Result<Self> {
        let mut journal = Self::default();
        let end = read_frames(log, &mut |payload| {
            let mut rest = payload;
            while !rest.is_empty() {
                let (record, after) = postcard::take_from_bytes(rest)
                    .context(|| "the journal has a record that this version does not know".to_owned())?;
                journal.note(record);
                rest = after;
            }
            Ok(())
        })?;
        match end {
            End::Whole { length } | End::Torn { length } => {
                journal.length = length;
                Ok(journal)
            }
            End::Damaged { offset } => Err(Error::of(
                ErrorId::StateDamaged,
                format!("the journal of the apply is damaged at byte {offset}: it has whole records after that"),
            )
            .hint("the apply cannot go on; it can be undone: pg_unfork undo")),
        }
    }

    /// Whether a piece of an action is in the target.
    pub(super) fn has(&self, action: u32, piece: u32) -> bool {
        self.record_of(action, piece).is_some()
    }

    /// The record that a piece belongs to.
    pub(super) fn record_of(&self, action: u32, piece: u32) -> Option<&Copied> {
        let (_, record) = self.copied.range((action, 0)..=(action, piece)).next_back()?;
        (piece - record.first < record.count).then_some(record)
    }

    /// What was copied of an action, in the order of pieces.
    pub(super) fn records_of(&self, action: u32) -> impl Iterator<Item = &Copied> {
        self.copied.range((action, 0)..=(action, u32::MAX)).map(|(_, record)| record)
    }

    /// Whether a phase is done.
    pub(super) fn is_done(&self, phase: Phase) -> bool {
        PhaseDone::of(phase).is_some_and(|phase| self.phases.contains(&phase))
    }

    /// Bytes that were copied by `manifest`'s actions.
    pub(super) fn bytes(&self) -> u64 {
        self.copied.values().map(|record| record.bytes).fold(0, u64::saturating_add)
    }

    /// Forgets what was noted of an action, which must be done again.
    pub(super) fn forget(&mut self, action: u32) {
        let of_action: Vec<_> = self.copied.range((action, 0)..=(action, u32::MAX)).map(|(&key, _)| key).collect();
        for key in of_action {
            self.copied.remove(&key);
        }
    }

    fn note(&mut self, record: Record) {
        match record {
            Record::Began { id } => self.id = id,
            Record::Sealed => self.sealed = true,
            Record::SourceAt(lsn) => self.source_at = self.source_at.max(Lsn::new(lsn)),
            Record::Copied(copied) => {
                self.copied.insert((copied.action, copied.first), copied);
            }
            Record::Phase(phase) => self.phases.push(phase),
            Record::Extra { path, existed } => {
                // What was noted first is what was there.
                self.extras.entry(path).or_insert(existed);
            }
            Record::Finishing { sha256 } => self.finished = Some(sha256),
            Record::Undoing => self.undoing = true,
            Record::Undone => self.undone = true,
            Record::Images(ImagesUpTo { root, length }) => {
                self.images.insert(root, length);
            }
            Record::Skipped(skipped) => self.skipped.push(skipped),
            Record::Forgotten { action } => self.forget(action),
            Record::Rewritten(Rewritten { path, copy }) => {
                self.rewritten.insert(path, copy);
            }
        }
    }
}

/// Reads a journal from its first byte to its last; gives the bytes that it says were copied.
///
/// # Errors
/// When it is damaged before its end, or has a record that this version does not know.
pub fn bytes_journaled(log: &dyn ReadAt) -> Result<u64> {
    Journal::read(log).map(|journal| journal.bytes())
}

/// A journal that is being written.
pub(super) struct Writer {
    log: Box<dyn Log>,
    journal: Journal,
}

impl Writer {
    /// Goes on with a journal: what is torn at its end is cut off.
    pub(super) fn resume(mut log: Box<dyn Log>) -> Result<Self> {
        let journal = Journal::read(&*log)?;
        log.truncate(journal.length)?;
        Ok(Self { log, journal })
    }

    /// Begins a journal, with what will not be done.
    pub(super) fn begin(mut log: Box<dyn Log>, id: &str, skipped: Vec<Skipped>) -> Result<Self> {
        log.truncate(0)?;
        let mut writer = Self { log, journal: Journal::default() };
        let began = std::iter::once(Record::Began { id: id.to_owned() });
        writer.write(began.chain(skipped.into_iter().map(Record::Skipped)).collect())?;
        Ok(writer)
    }

    /// What it says so far.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What it says so far, to be corrected.
    pub(super) fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Appends records, durably; what they say must be durable already.
    pub(super) fn write(&mut self, records: Vec<Record>) -> Result<()> {
        let mut payload = Vec::new();
        for record in &records {
            payload = postcard::to_extend(record, payload).context(|| "cannot write the journal".to_owned())?;
            if payload.len() >= ENOUGH {
                self.write_frame(&std::mem::take(&mut payload))?;
            }
        }
        self.write_frame(&payload)?;
        records.into_iter().for_each(|record| self.journal.note(record));
        Ok(())
    }

    /// Appends a frame, durably: of two that are not, the second could outlive the first.
    fn write_frame(&mut self, payload: &[u8]) -> Result<()> {
        if payload.is_empty() {
            return Ok(());
        }
        self.log.append(&frame(payload))?;
        self.log.sync()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Memory(Rc<RefCell<Vec<u8>>>);

    impl ReadAt for Memory {
        fn length(&self) -> Result<u64> {
            Ok(self.0.borrow().len() as u64)
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            let bytes = self.0.borrow();
            let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    impl Log for Memory {
        fn append(&mut self, bytes: &[u8]) -> Result<()> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(())
        }
        fn truncate(&mut self, length: u64) -> Result<()> {
            self.0.borrow_mut().truncate(usize::try_from(length).unwrap());
            Ok(())
        }
        fn sync(&mut self) -> Result<()> {
            Ok(())
        }
    }

    /// As many segments as a source may have written since the plan.
    #[test]
    fn any_number_of_records_can_be_read_again() {
        let log = Memory::default();
        let mut writer = Writer::begin(Box::new(log.clone()), "id", Vec::new()).unwrap();
        let extra =
            |n: u32| Record::Extra { path: format!("pg_wal/{n:024X}").into_bytes(), existed: n.is_multiple_of(2) };
        writer.write((0..200_000).map(extra).collect()).unwrap();
        let read = Journal::read(&log).unwrap();
        assert_eq!(read.extras.len(), 200_000);
        assert_eq!(read.length, log.length().unwrap());
        assert_eq!(Journal { length: 0, ..read }, *writer.journal());
    }
}
