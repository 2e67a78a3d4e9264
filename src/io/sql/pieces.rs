//! How requests are cut into the reads that queries ask for, and where they go on when a fetch has to be begun anew.

use std::borrow::Cow;
use std::sync::Arc;

use super::load::Shape;
use crate::cluster::Request;

/// The most pieces in a read.
const PIECES: usize = 1000;
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

/// One reading of a file: pieces of it with rising offsets, and what little is between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// Its place among all reads of a run.
    pub(super) number: u64,
    /// The first byte within the file.
    pub(super) offset: u64,
    /// How many bytes at most.
    pub(super) length: u64,
    /// What they are for; never empty. All are of the same file.
    pub(super) pieces: Vec<Piece>,
}

impl Read {
    /// The request whose file is read.
    pub(super) fn request(&self) -> usize {
        self.pieces.first().map_or(0, |piece| piece.request)
    }

    /// Those of the bytes read that are a piece's; fewer, or none, where the file has ended.
    pub(super) fn part<'b>(&self, piece: &Piece, bytes: &'b [u8]) -> &'b [u8] {
        let at =
            |offset: u64| usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(bytes.len());
        bytes.get(at(piece.offset)..at(piece.offset.saturating_add(piece.length))).unwrap_or_default()
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// How far a list of requests has been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// The first request that is not at its end.
    pub(super) request: usize,
    /// Where in the file it goes on, if it has begun.
    offset: Option<u64>,
}

impl Reached {
    /// Nothing delivered.
    pub(super) fn nothing() -> Self {
        Self { request: 0, offset: None }
    }

    /// What is next of the requests, `most` bytes at most; none at the end.
    pub(super) fn next_piece(&self, requests: &[Request], most: u64) -> Option<Piece> {
        let request = requests.get(self.request)?;
        let offset = self.offset.unwrap_or(request.offset);
        let left = request.length.map(|length| length.saturating_sub(offset.saturating_sub(request.offset)));
        Some(Piece {
            request: self.request,
            offset,
            length: left.map_or(most, |left| left.min(most)),
            first: self.offset.is_none(),
            open: left.is_none(),
            end: left.is_some_and(|left| left <= most),
        })
    }

    /// The request is delivered before `offset`.
    pub(super) fn within(&mut self, request: usize, offset: u64) {
        *self = Self { request, offset: Some(offset) };
    }

    /// The request is at its end.
    pub(super) fn end_of(&mut self, request: usize) {
        *self = Self { request: request + 1, offset: None };
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

/// Cuts a list of requests into reads.
#[derive(Debug)]
pub(super) struct Cutter {
    requests: Arc<[Request]>,
    sizes: Vec<u64>,
    shape: Shape,
    request: usize,
    done: u64,
    /// How many reads there are so far.
    reads: u64,
}

impl Cutter {
    /// A cutter for these requests, whose files have these sizes by the latest knowledge: only
    /// used to ask for as much as there should be where a request goes to the end.
    pub(super) fn new(requests: Arc<[Request]>, sizes: Vec<u64>, shape: Shape) -> Self {
        Self { requests, sizes, shape, request: 0, done: 0, reads: 0 }
    }

    /// The next read; none at the end.
    pub(super) fn next_read(&mut self) -> Option<Read> {
        let first = self.piece()?;
        let mut read = Read { number: self.reads, offset: first.offset, length: first.length, pieces: vec![first] };
        self.reads += 1;
        self.step(&first);
        while let Some(next) = self.piece().filter(|next| self.fits(&read, next)) {
            read.length = next.offset.saturating_add(next.length).saturating_sub(read.offset);
            read.pieces.push(next);
            self.step(&next);
        }
        Some(read)
    }

    /// No more is asked for of this request.
    pub(super) fn skip(&mut self, request: usize) {
        if self.request == request && self.done > 0 {
            self.next_request();
        }
    }

    /// What comes next, as far as one read may go.
    fn piece(&self) -> Option<Piece> {
        let request = self.requests.get(self.request)?;
        let total = request.length.unwrap_or_else(|| self.to_end(request.offset));
        let left = total.saturating_sub(self.done);
        let length = left.min(self.shape.read);
        let last = length == left;
        Some(Piece {
            request: self.request,
            offset: request.offset.saturating_add(self.done),
            length,
            first: self.done == 0,
            open: last && request.length.is_none(),
            end: last && request.length.is_some(),
        })
    }

    /// Whether a piece is so near behind a read that it can be read with it.
    fn fits(&self, read: &Read, piece: &Piece) -> bool {
        let path = |request: usize| self.requests.get(request).map(|request| &request.path);
        let near = piece.offset.checked_sub(read.end()).is_some_and(|gap| gap <= self.shape.gap);
        let length = piece.offset.saturating_add(piece.length).saturating_sub(read.offset);
        near && length <= self.shape.read
            && read.pieces.len() < PIECES
            && read.pieces.last().is_some_and(|last| last.end)
            && piece.end
            && path(read.request()) == path(piece.request)
    }

    fn step(&mut self, piece: &Piece) {
        self.done = self.done.saturating_add(piece.length);
        if piece.open || piece.end {
            self.next_request();
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::load::Load;
    use super::*;
    use crate::types::ClusterPath;

    fn request(offset: u64, length: Option<u64>) -> Request {
        request_of("base/1/1", offset, length)
    }

    fn request_of(path: &str, offset: u64, length: Option<u64>) -> Request {
        Request { path: ClusterPath::new(path.as_bytes()).unwrap(), offset, length, expected: 0 }
    }

    fn shape() -> Shape {
        Shape::of(Duration::ZERO, Load::single())
    }

    fn cut(requests: &[Request], sizes: &[u64]) -> Vec<Read> {
        let mut cutter = Cutter::new(requests.into(), sizes.to_vec(), shape());
        std::iter::from_fn(|| cutter.next_read()).collect()
    }

    /// Where each read begins and how long it is, in blocks, and how many pieces it has.
    fn blocks(requests: &[(u64, u64)]) -> Vec<(u64, u64, usize)> {
        let requests: Vec<_> =
            requests.iter().map(|(first, count)| request(first * 8192, Some(count * 8192))).collect();
        cut(&requests, &[]).iter().map(|read| (read.offset / 8192, read.length / 8192, read.pieces.len())).collect()
    }

    #[test]
    fn a_range_is_cut_without_gaps() {
        let most = shape().read;
        let reads = cut(&[request(100, Some(20 * most + 7))], &[0]);
        assert_eq!(reads.len(), 21);
        let mut at = 100;
        for (read, number) in reads.iter().zip(0..) {
            assert_eq!(read.pieces.len(), 1);
            let piece = read.pieces[0];
            assert_eq!((read.number, read.offset, read.length), (number, at, piece.length));
            assert_eq!((piece.offset, piece.first, piece.open), (at, at == 100, false));
            at += piece.length;
            assert_eq!(piece.end, at == 100 + 20 * most + 7);
        }
        assert_eq!(at, 100 + 20 * most + 7);
    }

    #[test]
    fn blocks_that_are_near_are_read_at_once() {
        assert_eq!(blocks(&[(0, 1), (1, 1), (2, 2)]), [(0, 4, 3)]);
        assert_eq!(blocks(&[(0, 1), (4, 1)]), [(0, 5, 2)]);
        assert_eq!(blocks(&[(0, 1), (5, 1)]), [(0, 1, 1), (5, 1, 1)]);
        // Never beyond the size of a read.
        assert_eq!(blocks(&[(0, 30), (30, 2), (32, 1)]), [(0, 32, 2), (32, 1, 1)]);
        assert_eq!(blocks(&[(0, 33), (33, 1)]), [(0, 32, 1), (32, 2, 2)]);
        // Never backwards, nor the same twice at once.
        assert_eq!(blocks(&[(3, 1), (0, 1), (0, 1)]), [(3, 1, 1), (0, 1, 1), (0, 1, 1)]);
    }

    #[test]
    fn only_ranges_of_one_file_are_read_at_once() {
        let range = |path, block: u64| request_of(path, block * 8192, Some(8192));
        let pieces =
            |requests: &[Request]| cut(requests, &[0; 9]).iter().map(|read| read.pieces.len()).collect::<Vec<_>>();
        assert_eq!(pieces(&[range("a", 0), range("a", 1), range("b", 2), range("b", 3)]), [2, 2]);
        // Where a file ends is asked of each request to the end by itself.
        assert_eq!(pieces(&[range("a", 0), request_of("a", 8192, None), range("a", 2)]), [1, 1, 1]);
    }

    #[test]
    fn each_piece_gets_its_bytes() {
        let requests = [request(10, Some(2)), request(13, Some(3)), request(20, Some(1))];
        let reads = cut(&requests, &[]);
        assert_eq!(reads.len(), 1);
        let read = &reads[0];
        let parts = |bytes: &'static [u8]| read.pieces.iter().map(|piece| read.part(piece, bytes)).collect::<Vec<_>>();
        assert_eq!((read.offset, read.length), (10, 11));
        assert_eq!(parts(b"abcdefghijk"), [&b"ab"[..], b"def", b"k"]);
        assert_eq!(parts(b"abcde"), [&b"ab"[..], b"de", b""]);
        assert_eq!(parts(b""), [&b""[..], b"", b""]);
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
    fn the_next_piece_begins_where_the_last_ended() {
        let requests = [request(100, Some(50)), request(7, None)];
        let mut reached = Reached::nothing();
        let next = |reached: &Reached| {
            let piece = reached.next_piece(&requests, 30)?;
            Some((piece.request, piece.offset, piece.length, piece.first, piece.open, piece.end))
        };
        assert_eq!(next(&reached), Some((0, 100, 30, true, false, false)));
        reached.within(0, 130);
        assert_eq!(next(&reached), Some((0, 130, 20, false, false, true)));
        reached.end_of(0);
        assert_eq!(next(&reached), Some((1, 7, 30, true, true, false)));
        reached.end_of(1);
        assert_eq!(next(&reached), None);
    }

    #[test]
    fn to_the_end_asks_for_more_than_there_is() {
        let most = shape().read;
        let lengths = |offset, size| {
            cut(&[request(offset, None)], &[size]).iter().flat_map(|read| read.pieces.clone()).collect::<Vec<_>>()
        };
        let whole = |length, open| Piece { request: 0, offset: 0, length, first: true, open, end: false };
        assert_eq!(lengths(0, 0), [whole(8192, true)]);
        assert_eq!(lengths(0, 8191), [whole(8192, true)]);
        assert_eq!(lengths(0, 8192), [whole(16384, true)]);
        let second = Piece { request: 0, offset: most, length: 8192, first: false, open: true, end: false };
        assert_eq!(lengths(0, most), [whole(most, false), second]);
        assert_eq!(lengths(10, 0), [Piece { offset: 10, ..whole(8192, true) }]);
    }

    #[test]
    fn an_empty_request_has_a_piece() {
        assert_eq!(cut(&[request(5, Some(0))], &[0]).len(), 1);
    }

    #[test]
    fn nothing_more_is_asked_of_a_request_that_ended() {
        let requests = [request(0, Some(9 << 20)), request(0, Some(1))];
        let mut cutter = Cutter::new(requests.as_slice().into(), Vec::new(), shape());
        assert_eq!(cutter.next_read().unwrap().request(), 0);
        cutter.skip(1);
        assert_eq!(cutter.next_read().unwrap().request(), 0);
        cutter.skip(0);
        assert_eq!(cutter.next_read().unwrap().request(), 1);
        assert_eq!(cutter.next_read(), None);
    }

    proptest! {
        /// Whatever is asked for, the pieces are the requests, in order, and lie inside of their reads.
        #[test]
        fn reads_cover_requests(ranges in prop::collection::vec((0..3_u8, 0..200_u64, 0..80_u64), 0..60)) {
            let block = |number: u64| number * 4096;
            let requests: Vec<_> = ranges
                .iter()
                .map(|(file, first, count)| request_of(&file.to_string(), block(*first), Some(block(*count))))
                .collect();
            let mut covered = vec![0; requests.len()];
            let mut last = 0;
            for read in cut(&requests, &[]) {
                prop_assert!(read.length <= shape().read);
                for piece in &read.pieces {
                    let request = &requests[piece.request];
                    prop_assert!(piece.request >= last && request.path == requests[read.request()].path);
                    prop_assert!(piece.offset >= read.offset && piece.offset + piece.length <= read.end());
                    prop_assert_eq!(piece.offset, request.offset + covered[piece.request]);
                    prop_assert_eq!(piece.first, covered[piece.request] == 0);
                    covered[piece.request] += piece.length;
                    prop_assert_eq!(piece.end, Some(covered[piece.request]) == request.length);
                    last = piece.request;
                }
            }
            let asked: Vec<_> = requests.iter().map(|request| request.length.unwrap()).collect();
            prop_assert_eq!(covered, asked);
        }
    }
}
