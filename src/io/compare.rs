//! Comparing files of two data directories on this machine, byte by byte.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::cluster::{Comparison, DifferingBlocks, Likeness, LocalFiles, ReadAt};
use crate::error::Result;
use crate::progress::{Progress, Stage};

/// Bytes that are read of each side at a time: two buffers stay in a core's cache. A multiple of every block size.
const CHUNK: usize = 128 << 10;
/// More threads do not read faster.
const MOST_THREADS: usize = 8;

/// Compares files on all processors. What cannot be read counts as different: whoever copies it will say why.
pub(super) fn compare(
    source: &dyn LocalFiles,
    target: &dyn LocalFiles,
    files: &[Comparison],
    progress: &dyn Progress,
) -> Vec<Likeness> {
    let mut found = vec![Likeness::Different; files.len()];
    progress.begin(Stage::Compare, Some(total(files)));
    share_out(
        files.len(),
        || {
            let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
            move |index| {
                let likeness = files.get(index).map(|file| compare_one(source, target, file, &mut buffers));
                likeness.and_then(Result::ok).unwrap_or(Likeness::Different)
            }
        },
        |index, likeness| {
            progress.advance(files.get(index).map_or(0, |file| file.length));
            if let Some(place) = found.get_mut(index) {
                *place = likeness;
            }
        },
    );
    progress.end();
    found
}

/// Does work on `count` things on all processors. Each thread has a worker of its own; `take` gets what it makes of a
/// thing, in any order.
pub(super) fn share_out<T: Send, W: FnMut(usize) -> T>(
    count: usize,
    worker: impl Fn() -> W + Sync,
    mut take: impl FnMut(usize, T),
) {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..processors.min(MOST_THREADS).min(count) {
            let (sender, next, worker) = (sender.clone(), &next, &worker);
            // Without a single thread nothing is done, and nothing is known.
            let _ = thread::Builder::new().spawn_scoped(scope, move || {
                let mut work = worker();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || sender.send((index, work(index))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.into_iter().for_each(|(index, done)| take(index, done));
    });
}

/// The bytes that are compared in all.
pub(super) fn total(files: &[Comparison]) -> u64 {
    files.iter().fold(0, |sum, file| sum.saturating_add(file.length))
}

fn compare_one(
    source: &dyn LocalFiles,
    target: &dyn LocalFiles,
    file: &Comparison,
    [theirs, ours]: &mut [Vec<u8>; 2],
) -> Result<Likeness> {
    let (Some(source), Some(target)) = (source.read_file(&file.path)?, target.read_file(&file.path)?) else {
        return Ok(Likeness::Different);
    };
    let mut differing = DifferingBlocks::default();
    let mut at = 0;
    while at < file.length {
        let wanted = usize::try_from(file.length - at).map_or(CHUNK, |left| left.min(CHUNK));
        let (Some(theirs), Some(ours)) = (read(&*source, theirs, wanted, at)?, read(&*target, ours, wanted, at)?)
        else {
            return Ok(Likeness::Different);
        };
        if theirs != ours {
            let Some(size) = file.block else { return Ok(Likeness::Different) };
            let size = size.max(1);
            let first = u32::try_from(at / u64::from(size)).unwrap_or(u32::MAX);
            let blocks = theirs.chunks(size as usize).zip(ours.chunks(size as usize));
            for (block, _) in (first..).zip(blocks).filter(|(_, (theirs, ours))| theirs != ours) {
                differing.add(block);
            }
        }
        at += wanted as u64;
    }
    Ok(differing.likeness())
}

/// So many bytes; none where the file ends before.
fn read<'b>(file: &dyn ReadAt, buffer: &'b mut [u8], wanted: usize, at: u64) -> Result<Option<&'b [u8]>> {
    let Some(part) = buffer.get_mut(..wanted) else { return Ok(None) };
    let got = file.read_at(part, at)?;
    Ok((got == wanted).then_some(part))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::error::Error;
    use crate::progress::Silent;
    use crate::types::{BlockRange, ClusterPath};

    /// Files in memory, and how many bytes were read of them.
    #[derive(Default)]
    struct Memory {
        files: BTreeMap<&'static str, Vec<u8>>,
        read: std::sync::Arc<AtomicU64>,
    }

    struct Open(Vec<u8>, std::sync::Arc<AtomicU64>);

    impl LocalFiles for Memory {
        fn read_file(&self, path: &ClusterPath) -> Result<Option<Box<dyn ReadAt>>> {
            if path.to_string() == "unreadable" {
                return Err(Error::failure("no permission"));
            }
            let file = self.files.get(path.to_string().as_str()).cloned();
            Ok(file.map(|bytes| -> Box<dyn ReadAt> { Box::new(Open(bytes, self.read.clone())) }))
        }
    }

    impl ReadAt for Open {
        fn length(&self) -> Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.1.fetch_add(count as u64, Ordering::Relaxed);
            Ok(count)
        }
    }

    fn files(files: &[(&'static str, Vec<u8>)]) -> Memory {
        Memory { files: files.iter().cloned().collect(), ..Memory::default() }
    }

    /// 200 blocks, of which these hold something else than zeros.
    fn blocks(other: &[usize]) -> Vec<u8> {
        let mut bytes = vec![0; 200 * 8192];
        other.iter().for_each(|block| bytes[block * 8192 + 5000] = 1);
        bytes
    }

    #[test]
    fn likeness_of_files() {
        let path = |name: &str| ClusterPath::new(name.as_bytes()).unwrap();
        let source = files(&[
            ("same", blocks(&[3])),
            ("some", blocks(&[0, 15, 16, 17, 199])),
            ("shorter", vec![7; 100]),
            ("only here", vec![7; 100]),
            ("unreadable", vec![]),
            ("end", vec![1; CHUNK + 1]),
            ("beyond", vec![1; 100]),
        ]);
        let mut end = vec![1; CHUNK];
        end.push(2);
        let target = files(&[
            ("same", blocks(&[3])),
            ("some", blocks(&[])),
            ("shorter", vec![7; 101]),
            ("unreadable", vec![]),
            ("end", end),
            ("beyond", [vec![1; 100], vec![2; 9]].concat()),
        ]);
        let range = |first, count| BlockRange { first, count };
        let some = vec![range(0, 1), range(15, 3), range(199, 1)];
        let cases = [
            ("same", 200 * 8192, Some(8192), Likeness::Equal),
            ("same", 200 * 8192, None, Likeness::Equal),
            ("some", 200 * 8192, Some(8192), Likeness::EqualBut(some)),
            ("some", 199 * 8192, Some(8192), Likeness::EqualBut(vec![range(0, 1), range(15, 3)])),
            ("some", 200 * 8192, None, Likeness::Different),
            ("shorter", 101, None, Likeness::Different),
            ("only here", 100, None, Likeness::Different),
            ("unreadable", 100, None, Likeness::Different),
            ("end", CHUNK as u64 + 1, None, Likeness::Different),
            ("end", CHUNK as u64, None, Likeness::Equal),
            ("beyond", 100, None, Likeness::Equal),
        ];
        let comparisons: Vec<Comparison> = cases
            .iter()
            .map(|(name, length, block, _)| Comparison { path: path(name), length: *length, block: *block })
            .collect();
        let found = compare(&source, &target, &comparisons, &Silent);
        for ((case, expected), found) in cases.iter().map(|case| (case.0, &case.3)).zip(&found) {
            assert_eq!(found, expected, "{case}");
        }
        assert_eq!(found.len(), cases.len());
    }

    #[test]
    fn files_that_differ_early_are_not_read_to_their_end() {
        let of = |first: u8| files(&[("segment", [vec![first], vec![0; 16 << 20]].concat())]);
        let (source, target) = (of(1), of(2));
        let file = Comparison { path: ClusterPath::new(b"segment").unwrap(), length: 16 << 20, block: None };
        assert_eq!(compare(&source, &target, &[file], &Silent), [Likeness::Different]);
        assert_eq!(source.read.load(Ordering::Relaxed), CHUNK as u64);
    }
}
