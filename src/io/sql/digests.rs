//! Comparing files of a running server with local ones by digests, which the server computes: none of their bytes
//! cross the wire, 32 bytes per piece do.
//!
//! The server hashes what `pg_read_binary_file` reads, with `sha256`, which everybody may execute since 11: the four
//! grants are enough. While it does, the local pieces are hashed. Files of which only equality matters are first
//! compared by their beginnings, in which most of those that differ do. One connection is used, for one query at a time.

use std::thread;

use postgres::types::Type;
use sha2::{Digest, Sha256};

use super::SqlSource;
use super::fetch::{bytes_of, position};
use super::session::Session;
use super::trouble::{column, query_failed};
use crate::cluster::{Comparison, DifferingBlocks, Likeness, LocalFiles, PieceDigests, ReadAt};
use crate::error::{Error, ErrorKind, Result};
use crate::io::compare::total;
use crate::progress::{Progress, Stage};
use crate::types::ClusterPath;

/// Digests of pieces of files whose names are text, one after the other; fewer, or NULL, where a file is gone. What is
/// empty is not opened: it may be a named pipe. Pieces that are gone have no digest, and are at the end.
const DIGESTS: &str = "
    SELECT n, CASE WHEN (pg_stat_file(path, true)).size > 0 THEN
               (SELECT string_agg(sha256(pg_read_binary_file(path, at, least(step, stop - at), true)), ''::bytea
                                  ORDER BY at)
                  FROM generate_series(start, stop - 1, step) AS at) END
      FROM unnest($1::text[], $2::int8[], $3::int8[], $4::int8[])
           WITH ORDINALITY AS stretch (path, start, stop, step, n)";

/// The most bytes that are read and hashed as one.
const PIECE: u64 = 1 << 20;
/// Bytes in a digest.
const DIGEST: usize = 32;
/// The beginning of a file that is compared before the rest. In bytes.
const BEGINNING: u64 = 8192;
/// The most bytes that the server hashes for a query: it must answer before it counts as silent.
pub(super) const BATCH: u64 = 8 << 20;
/// The most stretches that a query is about.
pub(super) const STRETCHES: usize = 4000;

/// A part of a file, and the pieces in which it is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch<'a> {
    /// The file, by its place in the list.
    pub(super) file: usize,
    pub(super) path: &'a ClusterPath,
    /// The first byte.
    pub(super) start: u64,
    /// The byte after the last.
    pub(super) stop: u64,
    /// Bytes in a piece; fewer in the last one.
    pub(super) step: u64,
}

impl Stretch<'_> {
    /// The offset and length of each piece.
    fn pieces(&self) -> impl Iterator<Item = (u64, u64)> {
        let (stop, step) = (self.stop, self.step.max(1));
        (0..self.count()).map(move |number| {
            let at = self.start.saturating_add(number.saturating_mul(step));
            (at, step.min(stop.saturating_sub(at)))
        })
    }

    fn count(&self) -> u64 {
        self.stop.saturating_sub(self.start).div_ceil(self.step.max(1))
    }
}

/// Digests of a stretch's pieces, as far as there are any.
pub(super) type Digests = PieceDigests;

/// [`crate::cluster::Source::compare`] for a server.
pub(super) fn compare(
    source: &mut SqlSource,
    files: &[Comparison],
    target: &dyn LocalFiles,
    progress: &dyn Progress,
) -> Result<Vec<Likeness>> {
    let encoding = source.patiently(|session, _| Ok(session.moved_on().encoding))?;
    // Looking up names that are no text costs more than copying what they name.
    let askable = files.iter().map(|file| encoding.text(file.path.as_bytes()).is_some());
    let mut table = Table { files, found: askable.map(|askable| askable.then(DifferingBlocks::default)).collect() };
    progress.begin(Stage::Compare, Some(total(files)));
    let compared = [Part::Beginning, Part::Rest].into_iter().try_for_each(|part| {
        let mut cutter = Cutter { part, file: 0, at: None };
        loop {
            let batch = cutter.batch(&table);
            if batch.is_empty() {
                return Ok(());
            }
            let (theirs, ours) = both(source, &batch, target)?;
            for ((stretch, theirs), ours) in batch.iter().zip(theirs).zip(ours) {
                table.judge(stretch, &theirs, &ours);
                progress.advance(stretch.stop - stretch.start);
            }
        }
    });
    progress.end();
    compared.map(|()| table.likenesses())
}

/// The digests of both sides, which are computed at the same time.
fn both(
    source: &mut SqlSource,
    batch: &[Stretch<'_>],
    target: &dyn LocalFiles,
) -> Result<(Vec<Digests>, Vec<Digests>)> {
    thread::scope(|scope| {
        let ours = thread::Builder::new().spawn_scoped(scope, || local(target, batch));
        let theirs = remote(source, batch)?;
        let ours = match ours {
            Ok(thread) => thread.join().map_err(|_| Error::failure("a thread that reads the target has died"))?,
            Err(_) => local(target, batch),
        };
        if theirs.len() != batch.len() || ours.len() != batch.len() {
            return Err(Error::failure("the digests that came are not those that were asked for"));
        }
        Ok((theirs, ours))
    })
}

/// The server's digests. Where it cannot read a file (it says so for a whole query), the others are asked for alone.
pub(super) fn remote(source: &mut SqlSource, batch: &[Stretch<'_>]) -> Result<Vec<Digests>> {
    match source.patiently(|session, _| session.digests(batch)) {
        Err(error) if error.kind() != ErrorKind::Failure => Err(error),
        Err(_) if batch.len() <= 1 => Ok(vec![Vec::new(); batch.len()]),
        Err(_) => {
            let (first, second) = batch.split_at(batch.len() / 2);
            let mut digests = remote(source, first)?;
            digests.extend(remote(source, second)?);
            Ok(digests)
        }
        digests => digests,
    }
}

/// The digests of the target's files.
fn local(target: &dyn LocalFiles, batch: &[Stretch<'_>]) -> Vec<Digests> {
    let mut buffer = Vec::new();
    let digests = |stretch| local_digests(target, stretch, &mut buffer).unwrap_or_default();
    batch.iter().map(digests).collect()
}

fn local_digests(target: &dyn LocalFiles, stretch: &Stretch<'_>, buffer: &mut Vec<u8>) -> Result<Digests> {
    let Some(file) = target.read_file(stretch.path)? else { return Ok(Vec::new()) };
    stretch.pieces().map(|(at, length)| digest(&*file, at, length, buffer)).collect()
}

fn digest(file: &dyn ReadAt, at: u64, length: u64, buffer: &mut Vec<u8>) -> Result<[u8; DIGEST]> {
    buffer.resize(usize::try_from(length).unwrap_or(0), 0);
    if file.read_at(buffer, at)? != buffer.len() {
        return Err(Error::failure("the file has become shorter"));
    }
    Ok(Sha256::digest(buffer).into())
}

impl Session {
    /// The digests of the pieces of stretches of files, as far as they are there.
    fn digests(&mut self, batch: &[Stretch<'_>]) -> Result<Vec<Digests>> {
        let failed = |error| query_failed("cannot compare files of", error);
        let paths = batch.iter().map(|stretch| self.text(stretch.path)).collect::<Result<Vec<_>>>()?;
        let numbers = |number: fn(&Stretch<'_>) -> u64| {
            batch.iter().map(|stretch| position(stretch.path, number(stretch))).collect::<Result<Vec<_>>>()
        };
        let (starts, stops) = (numbers(|stretch| stretch.start)?, numbers(|stretch| stretch.stop)?);
        let steps = numbers(|stretch| stretch.step)?;
        let rows = self
            .client
            .query(
                DIGESTS,
                &[
                    (&paths, Type::TEXT_ARRAY),
                    (&starts, Type::INT8_ARRAY),
                    (&stops, Type::INT8_ARRAY),
                    (&steps, Type::INT8_ARRAY),
                ],
            )
            .map_err(failed)?;
        if rows.len() != batch.len() {
            return Err(Error::failure("the source server does not answer what was asked"));
        }
        let answers = rows.iter().zip(batch).zip(1..);
        answers
            .map(|((row, stretch), expected)| {
                let number: i64 = column(row, 0).map_err(failed)?;
                let bytes = bytes_of(row, 1)?.unwrap_or_default();
                let (digests, rest) = bytes.as_chunks::<DIGEST>();
                if number != expected || !rest.is_empty() || digests.len() as u64 > stretch.count() {
                    return Err(Error::failure("the source server answers what was not asked"));
                }
                Ok(digests.to_vec())
            })
            .collect()
    }
}

/// What is known of the files so far.
struct Table<'a> {
    files: &'a [Comparison],
    /// The blocks that differ; none where files differ, or nothing can be proven.
    found: Vec<Option<DifferingBlocks>>,
}

impl Table<'_> {
    fn judge(&mut self, stretch: &Stretch<'_>, theirs: &Digests, ours: &Digests) {
        let (Some(found), Some(file)) = (self.found.get_mut(stretch.file), self.files.get(stretch.file)) else {
            return;
        };
        let whole = |digests: &Digests| digests.len() as u64 == stretch.count();
        match (found.as_mut(), file.block) {
            (Some(differing), Some(block)) if whole(theirs) && whole(ours) => {
                let first = u32::try_from(stretch.start / u64::from(block.max(1))).unwrap_or(u32::MAX);
                let pieces = (first..).zip(theirs.iter().zip(ours));
                pieces.filter(|(_, (theirs, ours))| theirs != ours).for_each(|(block, _)| differing.add(block));
            }
            (Some(_), None) if whole(theirs) && theirs == ours => {}
            _ => *found = None,
        }
    }

    fn likenesses(self) -> Vec<Likeness> {
        let likeness = |found: Option<DifferingBlocks>| found.map_or(Likeness::Different, DifferingBlocks::likeness);
        self.found.into_iter().map(likeness).collect()
    }
}

/// Which part of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The beginning; all of those whose blocks matter.
    Beginning,
    /// What comes behind it.
    Rest,
}

/// Cuts what is left to compare into stretches for single queries.
struct Cutter {
    part: Part,
    file: usize,
    /// Where the file goes on, if it has begun.
    at: Option<u64>,
}

impl Cutter {
    /// The stretches of the next query; none at the end. A file that is known to differ is not asked for any more.
    fn batch<'a>(&mut self, table: &Table<'a>) -> Vec<Stretch<'a>> {
        let (mut batch, mut room) = (Vec::new(), BATCH);
        while batch.len() < STRETCHES
            && room > 0
            && let (Some(file), Some(found)) = (table.files.get(self.file), table.found.get(self.file))
        {
            let (begin, end, step) = self.extent(file);
            let start = self.at.unwrap_or(begin);
            if found.is_none() || start >= end {
                (self.file, self.at) = (self.file + 1, None);
                continue;
            }
            // Where a stretch ends, a piece does.
            let whole = room.div_ceil(step).saturating_mul(step);
            let stop = start.saturating_add(whole).min(end);
            batch.push(Stretch { file: self.file, path: &file.path, start, stop, step });
            room = room.saturating_sub(stop - start);
            self.at = Some(stop);
        }
        batch
    }

    /// The first byte of the part, the one after the last, and the bytes in a piece.
    fn extent(&self, file: &Comparison) -> (u64, u64, u64) {
        match (self.part, file.block) {
            (Part::Beginning, Some(block)) => (0, file.length, u64::from(block.max(1))),
            (Part::Beginning, None) => (0, file.length.min(BEGINNING), BEGINNING),
            (Part::Rest, Some(_)) => (0, 0, 1),
            (Part::Rest, None) => (file.length.min(BEGINNING), file.length, PIECE),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::BlockRange;

    fn file(length: u64, block: Option<u32>) -> Comparison {
        Comparison { path: ClusterPath::new(b"pg_xact/0000").unwrap(), length, block }
    }

    fn table(files: &[Comparison]) -> Table<'_> {
        Table { files, found: files.iter().map(|_| Some(DifferingBlocks::default())).collect() }
    }

    /// All stretches of a part by query: file, start, stop.
    fn cut(part: Part, table: &Table<'_>) -> Vec<Vec<(usize, u64, u64)>> {
        let mut cutter = Cutter { part, file: 0, at: None };
        let mut batches = Vec::new();
        loop {
            let batch = cutter.batch(table);
            if batch.is_empty() {
                return batches;
            }
            batches.push(batch.iter().map(|stretch| (stretch.file, stretch.start, stretch.stop)).collect());
        }
    }

    #[test]
    fn files_are_cut_at_pieces_and_queries_are_bounded() {
        let files = [file(100, None), file(3 * 8192, Some(8192)), file(BATCH + 5, None), file(8192, None)];
        let beginnings = vec![vec![(0, 0, 100), (1, 0, 3 * 8192), (2, 0, 8192), (3, 0, 8192)]];
        assert_eq!(cut(Part::Beginning, &table(&files)), beginnings);
        let rest = vec![vec![(2, 8192, BATCH + 5)]];
        assert_eq!(cut(Part::Rest, &table(&files)), rest);

        let large = [file(3 * BATCH + 8192, Some(8192)), file(8192, Some(8192))];
        let expected = vec![
            vec![(0, 0, BATCH)],
            vec![(0, BATCH, 2 * BATCH)],
            vec![(0, 2 * BATCH, 3 * BATCH)],
            vec![(0, 3 * BATCH, 3 * BATCH + 8192), (1, 0, 8192)],
        ];
        assert_eq!(cut(Part::Beginning, &table(&large)), expected);
        let many = vec![file(1, None); STRETCHES + 1];
        assert_eq!(cut(Part::Beginning, &table(&many)).iter().map(Vec::len).collect::<Vec<_>>(), [STRETCHES, 1]);
    }

    #[test]
    fn files_that_differ_are_not_asked_for_again() {
        let files = [file(100_000, None), file(100_000, None)];
        let mut table = table(&files);
        table.found[0] = None;
        assert_eq!(cut(Part::Rest, &table), [[(1, 8192, 100_000)]]);
    }

    #[test]
    fn digests_are_judged_by_piece() {
        let (a, b) = ([1; DIGEST], [2; DIGEST]);
        let range = |first, count| BlockRange { first, count };
        type Case = (Option<u32>, Vec<[u8; DIGEST]>, Vec<[u8; DIGEST]>, Likeness);
        let cases: [Case; 8] = [
            (Some(8192), vec![a, a, a], vec![a, a, a], Likeness::Equal),
            (Some(8192), vec![a, b, b], vec![a, a, a], Likeness::EqualBut(vec![range(11, 2)])),
            // Shorter by now, gone, or not to be read on either side.
            (Some(8192), vec![a, a], vec![a, a, a], Likeness::Different),
            (Some(8192), vec![a, a, a], vec![], Likeness::Different),
            (Some(8192), vec![], vec![], Likeness::Different),
            (None, vec![a, b, a], vec![a, b, a], Likeness::Equal),
            (None, vec![a, b, a], vec![a, a, a], Likeness::Different),
            (None, vec![], vec![], Likeness::Different),
        ];
        for (block, theirs, ours, expected) in cases {
            let files = [file(13 * 8192, block)];
            let mut table = table(&files);
            let path = &files[0].path;
            let stretch = Stretch { file: 0, path, start: 10 * 8192, stop: 13 * 8192, step: 8192 };
            table.judge(&stretch, &theirs, &ours);
            assert_eq!(table.likenesses(), [expected]);
        }
    }

    #[test]
    fn the_last_piece_is_shorter() {
        let path = ClusterPath::new(b"x").unwrap();
        let pieces =
            |start, stop, step| Stretch { file: 0, path: &path, start, stop, step }.pieces().collect::<Vec<_>>();
        assert_eq!(pieces(0, 100, 8192), [(0, 100)]);
        assert_eq!(pieces(5, 25, 10), [(5, 10), (15, 10)]);
        assert_eq!(pieces(5, 26, 10), [(5, 10), (15, 10), (25, 1)]);
        assert_eq!(pieces(5, 5, 10), []);
    }
}
