//! What is copied at a time, and how it is shared among threads.

use super::units::size;
use crate::cluster::Request;
use crate::manifest::{Action, ActionKind};

/// Requests in a batch: what a live source can answer in few round trips.
const BATCH_REQUESTS: usize = 8192;
/// The least bytes that are worth a thread.
const SMALLEST_PART: u64 = 1 << 20;

/// A part of an action, as far as one request goes.
#[derive(Clone, Copy)]
pub(super) struct Piece<'m> {
    pub(super) action: &'m Action,
    /// The action's number, where it is one of the manifest's.
    pub(super) number: Option<u32>,
    /// Its number, as [`super::journal::pieces`] counts them.
    pub(super) piece: u32,
    /// Whether the action is done with it.
    pub(super) is_last: bool,
}

impl Piece<'_> {
    /// The name of the new file's draft.
    pub(super) fn draft(&self) -> String {
        match self.number {
            Some(number) => number.to_string(),
            None => "extra".to_owned(),
        }
    }
}

/// Requests, and the piece that each is for.
#[derive(Default)]
pub(super) struct Batch<'m> {
    pub(super) requests: Vec<Request>,
    pub(super) pieces: Vec<Piece<'m>>,
    /// How many they ask for.
    bytes: u64,
}

impl<'m> Batch<'m> {
    pub(super) fn add(&mut self, piece: Piece<'m>, offset: u64, length: Option<u64>, expected: u64) {
        let request = Request { path: piece.action.path.clone(), offset, length, expected };
        self.push(piece, request);
    }

    fn push(&mut self, piece: Piece<'m>, request: Request) {
        self.bytes = self.bytes.saturating_add(asked(piece.action, &request));
        self.requests.push(request);
        self.pieces.push(piece);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether it asks for `limit` bytes or more, or is large enough anyway.
    pub(super) fn is_full(&self, limit: u64) -> bool {
        self.requests.len() >= BATCH_REQUESTS || self.bytes >= limit
    }

    /// Cuts it into about `most` parts of about as many bytes each. No new file is in two parts: it has one draft.
    pub(super) fn split(self, most: usize) -> Vec<Self> {
        let share = (self.bytes / most.max(1) as u64).max(SMALLEST_PART);
        let mut parts: Vec<Self> = Vec::new();
        for (piece, request) in self.pieces.into_iter().zip(self.requests) {
            match parts.last_mut() {
                Some(part) if part.bytes < share || part.is_one_file_with(piece.action) => part.push(piece, request),
                _ => {
                    let mut part = Self::default();
                    part.push(piece, request);
                    parts.push(part);
                }
            }
        }
        parts
    }

    fn is_one_file_with(&self, action: &Action) -> bool {
        let last = self.pieces.last().map(|last| last.action);
        action.kind == ActionKind::CopyFile && last.is_some_and(|last| std::ptr::eq(last, action))
    }
}

/// Bytes that a request asks for, as far as the plan knows.
fn asked(action: &Action, request: &Request) -> u64 {
    request.length.unwrap_or_else(|| size(&action.source).saturating_sub(request.offset))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::manifest::{Phase, Reason};
    use crate::types::ClusterPath;

    fn action(number: u32) -> Action {
        Action {
            after: None,
            before: None,
            blocks: Vec::new(),
            kind: if number < 5 { ActionKind::CopyFile } else { ActionKind::Patch },
            path: ClusterPath::new(format!("base/1/{number}").as_bytes()).unwrap(),
            phase: Phase::Copy,
            reason: Reason::OnlyOnSource,
            source: None,
        }
    }

    /// Which actions' requests, each so many MiB, come to be in which part. The first five are new files.
    fn split(most: usize, requests: &[(usize, u64)]) -> Vec<Vec<usize>> {
        let actions: Vec<Action> = (0..10).map(action).collect();
        let mut batch = Batch::default();
        for &(of, mib) in requests {
            let piece = Piece { action: &actions[of], number: None, piece: 0, is_last: true };
            batch.add(piece, 0, Some(mib << 20), 0);
        }
        let place = |piece: &Piece<'_>| actions.iter().position(|action| std::ptr::eq(action, piece.action)).unwrap();
        batch.split(most).iter().map(|part| part.pieces.iter().map(place).collect()).collect()
    }

    /// How many parts, requests, and what becomes of them.
    type Case<'a> = (usize, &'a [(usize, u64)], &'a [&'a [usize]]);

    #[test]
    fn parts_have_whole_new_files_and_about_as_many_bytes() {
        let cases: [Case<'_>; 8] = [
            (2, &[], &[]),
            (2, &[(0, 4), (1, 4), (2, 4), (3, 4)], &[&[0, 1], &[2, 3]]),
            (1, &[(0, 4), (1, 4)], &[&[0, 1]]),
            (2, &[(0, 4), (0, 4), (0, 4), (1, 1)], &[&[0, 0, 0], &[1]]),
            (4, &[(0, 0), (1, 0), (2, 0), (3, 0)], &[&[0, 1, 2, 3]]),
            (3, &[(0, 1), (1, 7), (2, 1), (3, 1)], &[&[0, 1], &[2, 3]]),
            (2, &[(5, 4), (5, 4), (5, 4), (6, 4)], &[&[5, 5], &[5, 6]]),
            (2, &[(0, 4), (0, 4), (5, 4), (5, 4)], &[&[0, 0], &[5, 5]]),
        ];
        for (most, requests, expected) in cases {
            assert_eq!(split(most, requests), expected, "{most} {requests:?}");
        }
    }
}
