//! How requests are cut into the pieces that single queries ask for, and where they go on after a
//! connection was lost.

use std::borrow::Cow;
use std::time::Instant;

use crate::cluster::Request;

/// The most bytes in a piece.
pub(super) const PIECE: u64 = 1 << 20;
/// The most pieces in a query.
pub(super) const PIECES: usize = 1000;
/// The most bytes that the pieces of a query ask for: what an answer may take in memory.
const BATCH: u64 = 8 << 20;
/// The unit in which a file is asked for to its end.
const ROUNDING: u64 = 8192;

/// A part of a request that one row of an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The request, by its place in the list.
    pub(super) request: usize,
    /// The first byte within the file.
    pub(super) offset: u64,
    /// How many bytes at most.
    pub(super) length: u64,
    /// Whether the request begins with it.
    pub(super) first: bool,
    /// Whether the request goes on after it, should there be as many bytes.
    pub(super) open: bool,
    /// Whether the request is at its end after it.
    pub(super) end: bool,
}

/// How far a list of requests has been delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// The first request that is not at its end.
    pub(super) request: usize,
    /// Where in the file it goes on, if it has begun.
    offset: Option<u64>,
    /// When that was.
    pub(super) at: Instant,
}

impl Reached {
    /// Nothing delivered.
    pub(super) fn nothing() -> Self {
        Self { request: 0, offset: None, at: Instant::now() }
    }

    /// The request is delivered before `offset`.
    pub(super) fn within(&mut self, request: usize, offset: u64) {
        *self = Self { request, offset: Some(offset), at: Instant::now() };
    }

    /// The request is at its end.
    pub(super) fn end_of(&mut self, request: usize) {
        *self = Self { request: request + 1, offset: None, at: Instant::now() };
    }

    /// What is left of the requests. Each piece is read by itself in any case, so one that is read in
    /// another session fits to those before it as well as any other.
    pub(super) fn rest<'a>(&self, requests: &'a [Request]) -> Cow<'a, [Request]> {
        let left = requests.get(self.request..).unwrap_or_default();
        let (Some(offset), Some(first)) = (self.offset, left.first()) else { return Cow::Borrowed(left) };
        let done = offset.saturating_sub(first.offset);
        let length = first.length.map(|length| length.saturating_sub(done));
        let mut left = left.to_vec();
        if let Some(first) = left.first_mut() {
            (first.offset, first.length) = (offset, length);
        }
        Cow::Owned(left)
    }
}

/// Cuts a list of requests into pieces.
pub(super) struct Cutter<'a> {
    requests: &'a [Request],
    sizes: &'a [u64],
    request: usize,
    done: u64,
}

impl<'a> Cutter<'a> {
    /// A cutter for these requests, whose files have these sizes by the latest knowledge: only
    /// used to ask for as much as there should be where a request goes to the end.
    pub(super) fn new(requests: &'a [Request], sizes: &'a [u64]) -> Self {
        Self { requests, sizes, request: 0, done: 0 }
    }

    /// The pieces of the next query; none at the end. No more is asked for of the request `ended`.
    pub(super) fn batch(&mut self, ended: Option<usize>) -> Vec<Piece> {
        let mut batch = Vec::new();
        let mut room = BATCH;
        if self.done > 0 && ended == Some(self.request) {
            self.next_request();
        }
        while batch.len() < PIECES
            && let Some(request) = self.requests.get(self.request)
        {
            let total = request.length.unwrap_or_else(|| self.to_end(request.offset));
            let left = total.saturating_sub(self.done);
            let length = left.min(PIECE);
            if length > room {
                break;
            }
            room = room.saturating_sub(length);
            let last = length == left;
            batch.push(Piece {
                request: self.request,
                offset: request.offset.saturating_add(self.done),
                length,
                first: self.done == 0,
                open: last && request.length.is_none(),
                end: last && request.length.is_some(),
            });
            self.done = self.done.saturating_add(length);
            if last {
                self.next_request();
            }
        }
        batch
    }

    fn next_request(&mut self) {
        self.request += 1;
        self.done = 0;
    }

    /// Bytes to ask for from `offset` on: more than there should be, so that the end is seen.
    fn to_end(&self, offset: u64) -> u64 {
        let size = self.sizes.get(self.request).copied().unwrap_or(0);
        size.saturating_sub(offset).saturating_add(1).checked_next_multiple_of(ROUNDING).unwrap_or(u64::MAX)
    }
}

/// The pieces of one more query for a request that goes to the end and has not come to it.
pub(super) fn further(request: usize, offset: u64) -> Vec<Piece> {
    let starts = (0..BATCH).step_by(PIECE as usize);
    let piece = |start: u64| Piece {
        request,
        offset: offset.saturating_add(start),
        length: PIECE,
        first: false,
        open: start + PIECE == BATCH,
        end: false,
    };
    starts.map(piece).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::ClusterPath;

    fn request(offset: u64, length: Option<u64>) -> Request {
        Request { path: ClusterPath::new(b"base/1/1").unwrap(), offset, length }
    }

    fn cut(requests: &[Request], sizes: &[u64]) -> Vec<Vec<Piece>> {
        let mut cutter = Cutter::new(requests, sizes);
        let batches = std::iter::from_fn(|| Some(cutter.batch(None)).filter(|batch| !batch.is_empty()));
        batches.collect()
    }

    #[test]
    fn a_range_is_cut_without_gaps() {
        let batches = cut(&[request(100, Some(20 * PIECE + 7))], &[0]);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 5]);
        let mut at = 100;
        for piece in batches.iter().flatten() {
            assert_eq!((piece.offset, piece.first, piece.open), (at, at == 100, false));
            at += piece.length;
            assert_eq!(piece.end, at == 100 + 20 * PIECE + 7);
        }
        assert_eq!(at, 100 + 20 * PIECE + 7);
    }

    #[test]
    fn what_is_left_begins_where_it_was_cut() {
        let requests = [request(100, Some(50)), request(7, None), request(0, Some(9))];
        let mut reached = Reached::nothing();
        assert_eq!(*reached.rest(&requests), requests);
        reached.within(0, 130);
        assert_eq!(*reached.rest(&requests), [request(130, Some(20)), request(7, None), request(0, Some(9))]);
        reached.end_of(0);
        assert_eq!(*reached.rest(&requests), requests[1..]);
        reached.within(1, 77);
        assert_eq!(*reached.rest(&requests), [request(77, None), request(0, Some(9))]);
        reached.end_of(2);
        assert_eq!(*reached.rest(&requests), []);
    }

    #[test]
    fn queries_stay_within_both_limits() {
        let blocks = vec![request(0, Some(8192)); 1500];
        assert_eq!(cut(&blocks, &[]).iter().map(Vec::len).collect::<Vec<_>>(), [1000, 500]);
        let files = vec![request(0, None); 100];
        for batch in cut(&files, &[100_000; 100]) {
            assert!(batch.iter().map(|piece| piece.length).sum::<u64>() <= BATCH);
        }
    }

    #[test]
    fn to_the_end_asks_for_more_than_there_is() {
        let lengths = |offset, size| cut(&[request(offset, None)], &[size]).concat();
        let whole = |length, open| Piece { request: 0, offset: 0, length, first: true, open, end: false };
        assert_eq!(lengths(0, 0), [whole(8192, true)]);
        assert_eq!(lengths(0, 8191), [whole(8192, true)]);
        assert_eq!(lengths(0, 8192), [whole(16384, true)]);
        let second = Piece { request: 0, offset: PIECE, length: 8192, first: false, open: true, end: false };
        assert_eq!(lengths(0, PIECE), [whole(PIECE, false), second]);
        assert_eq!(lengths(10, 0), [Piece { offset: 10, ..whole(8192, true) }]);
    }

    #[test]
    fn an_empty_request_has_a_piece() {
        assert_eq!(cut(&[request(5, Some(0))], &[0]).concat().len(), 1);
    }

    #[test]
    fn nothing_more_is_asked_of_a_request_that_ended() {
        let requests = [request(0, Some(9 * PIECE)), request(0, Some(1))];
        let mut cutter = Cutter::new(&requests, &[0, 0]);
        assert_eq!(cutter.batch(None).len(), 8);
        let rest = cutter.batch(Some(0));
        assert_eq!(rest.iter().map(|piece| piece.request).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_file_that_grew_goes_on_where_it_was() {
        let pieces = further(3, 77);
        assert_eq!((pieces.len(), pieces.first().unwrap().offset), (8, 77));
        assert_eq!(pieces.iter().filter(|piece| piece.open).count(), 1);
        assert!(pieces.last().unwrap().open);
    }
}
