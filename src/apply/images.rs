//! Before-images: what blocks and tails held before they were changed, for an undo.
//!
//! One log of frames in the state directory of each file system; a frame holds an [`ImageOf`] and the bytes. An image
//! is durable, and the journal says so, before what it shows is changed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::frame::{End, append_frame, read_frames};
use super::journal::{ImagesUpTo, Journal, Record};
use crate::cluster::{Log, PatchFile, ReadAt, TargetStore};
use crate::error::{Context, Error, Result};
use crate::types::ClusterPath;

/// Bytes of one image.
const LARGEST: u64 = 1 << 20;

/// The log's name.
const NAME: &str = "undo/images";

/// Takes an image: the store, the action's number, the offset, the bytes.
pub(super) type Visit<'a> = dyn FnMut(&mut dyn TargetStore, u32, u64, &[u8]) -> Result<()> + 'a;

/// What an image shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct ImageOf {
    /// The action's place in the manifest.
    action: u32,
    /// Where the bytes begin in the file.
    offset: u64,
}

/// The images of an apply.
#[derive(Default)]
pub(super) struct Images {
    /// By the link of the root; none for the data directory.
    logs: BTreeMap<Option<ClusterPath>, Pending>,
    saved: BTreeSet<ImageOf>,
    /// The file that was read from last: blocks of one come one after the other.
    open: Option<(u32, Box<dyn PatchFile>)>,
    buffer: Vec<u8>,
}

/// A log, and what is to be appended to it.
struct Pending {
    log: Box<dyn Log>,
    frames: Vec<u8>,
    is_synced: bool,
}

impl Pending {
    fn flush(&mut self) -> Result<()> {
        self.log.append(&self.frames)?;
        self.frames.clear();
        self.is_synced = false;
        Ok(())
    }
}

impl Images {
    /// Reads what the journal says is durable. What is behind that was never relied on, and may never have reached the
    /// disk although it can be read: it is cut off, and saved anew.
    pub(super) fn resume(store: &mut dyn TargetStore, journal: &Journal) -> Result<Self> {
        let mut images = Self::default();
        for root in store.roots() {
            let near = near(root.as_ref())?;
            let relied = durable(journal, root.as_ref());
            let Some(mut log) = store.open_log(near.as_ref(), NAME, false)? else {
                whole(End::Whole { length: 0 }, Some(relied))?;
                continue;
            };
            let end = read_frames(&Beginning { log: &*log, length: relied }, &mut |payload| {
                images.saved.insert(split(payload)?.0);
                Ok(())
            })?;
            whole(end, Some(relied))?;
            log.truncate(relied)?;
            // One of which nothing was relied on is opened like a new one: its name may not be durable.
            if relied > 0 {
                images.logs.insert(root, Pending { log, frames: Vec::new(), is_synced: true });
            }
        }
        Ok(images)
    }

    /// Saves what a file holds from `offset` on, as far as it is not saved yet.
    pub(super) fn save(
        &mut self,
        store: &mut dyn TargetStore,
        action: u32,
        path: &ClusterPath,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let image = ImageOf { action, offset: offset + done };
            let part = (length - done).min(LARGEST);
            done += part;
            if self.saved.contains(&image) {
                continue;
            }
            if !self.read(store, action, path, image.offset, part)? {
                // The source dropped it, and so did we; it is kept as a whole.
                return Ok(());
            }
            let head = postcard::to_allocvec(&image).context(|| "cannot write a before-image".to_owned())?;
            let pending = pending(&mut self.logs, store, path)?;
            append_frame(&mut pending.frames, &head, &self.buffer);
            if pending.frames.len() as u64 >= LARGEST {
                pending.flush()?;
            }
            self.saved.insert(image);
        }
        Ok(())
    }

    /// Reads bytes of a file into the buffer, as far as it has them; says whether there is such a file.
    fn read(
        &mut self,
        store: &mut dyn TargetStore,
        action: u32,
        path: &ClusterPath,
        offset: u64,
        length: u64,
    ) -> Result<bool> {
        let file = match self.open.take() {
            Some((number, file)) if number == action => file,
            _ if store.entry(path)?.is_none() => return Ok(false),
            _ => store.open_file(path)?,
        };
        self.buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
        let got = file.read_at(&mut self.buffer, offset)?;
        self.buffer.truncate(got);
        self.open = Some((action, file));
        Ok(true)
    }

    /// Makes durable what was saved since the last call. Gives what the journal must say of it before anything that
    /// it shows is changed.
    pub(super) fn sync(&mut self) -> Result<Vec<Record>> {
        // The file may be gone or another one by the next time.
        self.open = None;
        let mut records = Vec::new();
        for (root, pending) in &mut self.logs {
            if !pending.frames.is_empty() {
                pending.flush()?;
            }
            if !pending.is_synced {
                pending.log.sync()?;
                pending.is_synced = true;
                records.push(Record::Images(ImagesUpTo { root: key(root.as_ref()), length: pending.log.length()? }));
            }
        }
        Ok(records)
    }

    /// The actions that there are images of; looks at all images, and changes nothing. `journal` is the apply's, if
    /// it can be read.
    ///
    /// # Errors
    /// When one is damaged.
    pub(super) fn actions(store: &mut dyn TargetStore, journal: Option<&Journal>) -> Result<BTreeSet<u32>> {
        let mut actions = BTreeSet::new();
        Self::each(store, journal, &mut |_, action, _, _| {
            actions.insert(action);
            Ok(())
        })?;
        Ok(actions)
    }

    /// Shows each image to `visit`: action, offset, bytes. `journal` is the apply's, if it can be read.
    pub(super) fn each(store: &mut dyn TargetStore, journal: Option<&Journal>, visit: &mut Visit<'_>) -> Result<()> {
        for root in store.roots() {
            let relied = journal.map(|journal| durable(journal, root.as_ref()));
            let Some(log) = store.open_log(near(root.as_ref())?.as_ref(), NAME, false)? else {
                whole(End::Whole { length: 0 }, relied)?;
                continue;
            };
            let end = read_frames(&*log, &mut |payload| {
                let (image, bytes) = split(payload)?;
                visit(store, image.action, image.offset, bytes)
            })?;
            whole(end, relied)?;
        }
        Ok(())
    }
}

/// The first bytes of a log.
struct Beginning<'a> {
    log: &'a dyn Log,
    length: u64,
}

impl ReadAt for Beginning<'_> {
    fn length(&self) -> Result<u64> {
        self.log.length().map(|length| length.min(self.length))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let room = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        self.log.read_at(buffer.get_mut(..room).unwrap_or_default(), offset)
    }
}

/// The log of the file system that a path is on.
fn pending<'a>(
    logs: &'a mut BTreeMap<Option<ClusterPath>, Pending>,
    store: &mut dyn TargetStore,
    path: &ClusterPath,
) -> Result<&'a mut Pending> {
    match logs.entry(store.root_link(path)) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let log = store.open_log(Some(path), NAME, true)?;
            let log = log.ok_or_else(|| Error::failure("the before-images cannot be opened"))?;
            Ok(entry.insert(Pending { log, frames: Vec::new(), is_synced: true }))
        }
    }
}

/// A path beneath a root.
fn near(root: Option<&ClusterPath>) -> Result<Option<ClusterPath>> {
    root.map(|link| link.join(b"-")).transpose().context(|| "no such name".to_owned())
}

fn split(payload: &[u8]) -> Result<(ImageOf, &[u8])> {
    postcard::take_from_bytes(payload).context(|| "a before-image cannot be understood".to_owned())
}

/// The name of a root in the journal.
fn key(root: Option<&ClusterPath>) -> Vec<u8> {
    root.map(|link| link.as_bytes().to_vec()).unwrap_or_default()
}

/// Bytes of a root's log that the journal says are durable.
fn durable(journal: &Journal, root: Option<&ClusterPath>) -> u64 {
    journal.images.get(&key(root)).copied().unwrap_or(0)
}

/// The log's length in whole frames, of which there must be `durable` bytes: a crash of the machine may lose any part of
/// what comes after. Where nobody knows, whole frames after damage tell that it is none of a crash.
fn whole(end: End, durable: Option<u64>) -> Result<u64> {
    let (length, is_damage) = match end {
        End::Whole { length } | End::Torn { length } => (length, durable.is_some_and(|durable| length < durable)),
        End::Damaged { offset } => (offset, durable.is_none_or(|durable| offset < durable)),
    };
    if is_damage {
        return Err(damaged(length));
    }
    Ok(length)
}

fn damaged(offset: u64) -> Error {
    Error::failure(format!("the before-images ({NAME}) are damaged at byte {offset}")).hint(
        "what was overwritten cannot all be put back: go on without a way back (pg_unfork apply --no-undo), or make the target anew from a base backup",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_journal_relies_on_can_be_damaged() {
        let (whole_at, torn_at, damaged_at) =
            (|length| End::Whole { length }, |length| End::Torn { length }, |offset| End::Damaged { offset });
        let cases = [
            (whole_at(100), Some(100), Some(100)),
            (whole_at(100), Some(0), Some(100)),
            (whole_at(90), Some(100), None),
            (whole_at(90), None, Some(90)),
            (torn_at(100), Some(100), Some(100)),
            (torn_at(99), Some(100), None),
            (torn_at(99), None, Some(99)),
            // A crash may lose the first of two frames that were not durable, and keep the second.
            (damaged_at(100), Some(100), Some(100)),
            (damaged_at(99), Some(100), None),
            (damaged_at(99), None, None),
        ];
        for (end, durable, expected) in cases {
            assert_eq!(whole(end, durable).ok(), expected, "{end:?} {durable:?}");
        }
    }
}
