//! Telling the system what will be read, so that a disk is at work before anybody waits for it.

use std::num::NonZeroU64;
use std::os::fd::AsFd;

use rustix::fs::{Advice, fadvise};

use crate::cluster::Request;

/// Bytes of a file that the disk is asked for ahead of what is being copied.
const AHEAD: u64 = 16 << 20;

/// The file is read from its beginning to its end. Nothing depends on the system's taking advice.
pub(super) fn sequential(file: impl AsFd) {
    let _ = fadvise(file, 0, None, Advice::Sequential);
}

/// How far the disk was asked for what a list of requests is about.
#[derive(Debug, Default)]
pub(super) struct LookAhead {
    next: usize,
}

impl LookAhead {
    /// The request `index` of the list is being copied, from this file.
    pub(super) fn at(&mut self, requests: &[Request], index: usize, file: impl AsFd) {
        for (offset, length) in self.wanted(requests, index) {
            let _ = fadvise(&file, offset, NonZeroU64::new(length), Advice::WillNeed);
        }
    }

    /// What comes next of that request's file: offsets and lengths. What goes to the end of a file is read in order, and
    /// needs no advice.
    fn wanted(&mut self, requests: &[Request], index: usize) -> Vec<(u64, u64)> {
        self.next = self.next.max(index);
        let Some(now) = requests.get(index) else { return Vec::new() };
        let limit = now.offset.saturating_add(AHEAD);
        let later = requests.get(self.next..).unwrap_or_default();
        let near = later.iter().take_while(|request| request.path == now.path && request.offset < limit);
        let ranges: Vec<_> = near.map(|request| (request.offset, request.length)).collect();
        self.next += ranges.len();
        let known = |(offset, length): (u64, Option<u64>)| length.filter(|&l| l > 0).map(|l| (offset, l.min(AHEAD)));
        ranges.into_iter().filter_map(known).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::ClusterPath;

    #[test]
    fn each_range_is_asked_for_once_and_not_too_early() {
        const MIB: u64 = 1 << 20;
        let request = |path: &str, offset: u64, length: Option<u64>| Request {
            path: ClusterPath::new(path.as_bytes()).unwrap(),
            offset: offset * MIB,
            length: length.map(|mib| mib * MIB),
            expected: 0,
        };
        let requests = [
            request("a", 0, Some(1)),
            request("a", 5, Some(64)),
            request("a", 15, Some(0)),
            request("a", 16, Some(2)),
            request("b", 3, None),
            request("c", 1, Some(1)),
        ];
        let mut ahead = LookAhead::default();
        let wanted: Vec<Vec<(u64, u64)>> = (0..6).map(|index| ahead.wanted(&requests, index)).collect();
        let expected: [&[(u64, u64)]; 6] =
            [&[(0, MIB), (5 * MIB, AHEAD)], &[(16 * MIB, 2 * MIB)], &[], &[], &[], &[(MIB, MIB)]];
        assert_eq!(wanted, expected);
    }
}
