//! Reading files of a running server.

use postgres::Row;
use postgres::types::ToSql;

use super::pieces::{Cutter, PIECE, PIECES, Piece, Reached, further};
use super::session::Session;
use super::trouble::{column, query_failed};
use crate::cluster::{Request, Sink};
use crate::error::{Error, Result};
use crate::types::ClusterPath;

/// Reads pieces of files whose names are text; NULL where there is no such file. What is empty is not
/// opened: it may be a named pipe, which the server takes for a file, and would wait at for ever.
pub(super) const READ_PIECES: &str = "
    SELECT n, CASE WHEN (pg_stat_file(path, true)).size = 0 THEN ''::bytea
                   ELSE pg_read_binary_file(path, start, length, true) END
      FROM unnest($1::text[], $2::int8[], $3::int8[]) WITH ORDINALITY AS piece (path, start, length, n)";

/// The sizes of files whose names are text; NULL where there is no such file.
const SIZES: &str = "
    SELECT stat.size FROM unnest($1::text[]) WITH ORDINALITY AS file (path, n),
           LATERAL pg_stat_file(path, true) AS stat
     ORDER BY n";

/// Reads a part of a file whose name has components that are no text: they are looked up by
/// their bytes. No row where there is no such file.
const READ_BY_BYTES: &str = "
    WITH RECURSIVE found (path, depth) AS (
        SELECT $1::text, 0
        UNION ALL
        SELECT found.path || '/' || name, found.depth + 1
          FROM found, LATERAL pg_ls_dir(found.path, true, false) AS name
         WHERE found.depth < cardinality($2::bytea[])
           AND textsend(name) = ($2::bytea[])[found.depth + 1]
    )
    SELECT CASE WHEN (pg_stat_file(path, true)).size = 0 THEN ''::bytea
                ELSE pg_read_binary_file(path, $3, $4, true) END
      FROM found
     WHERE depth = cardinality($2::bytea[])";

/// Hands pieces on to a sink, and knows where requests end.
struct Delivery<'a> {
    sink: &'a mut dyn Sink,
    /// How far the sink's list has been delivered.
    reached: &'a mut Reached,
    /// The place of the first request in the sink's list.
    base: usize,
    /// The last request that came to its end early.
    ended: Option<usize>,
    /// A request to the end that has not come to it, and where it goes on.
    unfinished: Option<(usize, u64)>,
}

impl Delivery<'_> {
    fn take(&mut self, piece: &Piece, row: &Row) -> Result<()> {
        if self.ended == Some(piece.request) {
            return Ok(());
        }
        let index = self.base + piece.request;
        let Some(bytes) = bytes_of(row, 1)? else {
            self.ended = Some(piece.request);
            self.sink.gone(index)?;
            self.reached.end_of(index);
            return Ok(());
        };
        if piece.first || !bytes.is_empty() {
            self.sink.bytes(index, piece.offset, bytes)?;
        }
        let next = piece.offset.saturating_add(piece.length);
        if (bytes.len() as u64) < piece.length {
            self.ended = Some(piece.request);
            self.reached.end_of(index);
        } else if piece.end {
            self.reached.end_of(index);
        } else {
            if piece.open {
                self.unfinished = Some((piece.request, next));
            }
            self.reached.within(index, next);
        }
        Ok(())
    }
}

impl Session {
    /// [`crate::cluster::Source::fetch`] from where it was cut.
    pub(super) fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink, reached: &mut Reached) -> Result<()> {
        let encoding = self.encoding;
        let is_text = |request: &Request| encoding.text(request.path.as_bytes()).is_some();
        let rest = reached.rest(requests);
        let mut base = reached.request;
        for run in rest.chunk_by(|a, b| is_text(a) == is_text(b)) {
            if run.first().is_some_and(is_text) {
                for window in run.chunks(PIECES) {
                    let delivery = Delivery { sink: &mut *sink, reached, base, ended: None, unfinished: None };
                    self.fetch_window(window, delivery)?;
                    base += window.len();
                }
            } else {
                for request in run {
                    self.fetch_by_bytes(request, base, sink, reached)?;
                    base += 1;
                }
            }
        }
        Ok(())
    }

    /// Fetches a run of requests of which a single query can ask the sizes.
    fn fetch_window(&mut self, requests: &[Request], mut delivery: Delivery<'_>) -> Result<()> {
        let sizes = self.sizes(requests)?;
        let mut cutter = Cutter::new(requests, &sizes);
        loop {
            let batch = cutter.batch(delivery.ended);
            if batch.is_empty() {
                return Ok(());
            }
            // While a file turns out to be longer than expected, what comes after it has to wait.
            let mut waiting = Vec::new();
            self.read_pieces(requests, &batch, |piece, row| {
                if delivery.unfinished.is_none() {
                    return delivery.take(piece, &row);
                }
                waiting.push((*piece, row));
                Ok(())
            })?;
            self.finish(requests, &mut delivery)?;
            for (piece, row) in waiting {
                delivery.take(&piece, &row)?;
                self.finish(requests, &mut delivery)?;
            }
        }
    }

    /// Fetches what is left of the unfinished request, if there is one.
    fn finish(&mut self, requests: &[Request], delivery: &mut Delivery<'_>) -> Result<()> {
        while let Some((request, offset)) = delivery.unfinished.take() {
            self.read_pieces(requests, &further(request, offset), |piece, row| delivery.take(piece, &row))?;
        }
        Ok(())
    }

    /// The files' sizes as they are now, where requests go to the end; zero elsewhere.
    fn sizes(&mut self, requests: &[Request]) -> Result<Vec<u64>> {
        let failed = |error| query_failed("cannot read the sizes of files of", error);
        if requests.iter().all(|request| request.length.is_some()) {
            return Ok(vec![0; requests.len()]);
        }
        let paths = requests.iter().map(|request| self.text(&request.path)).collect::<Result<Vec<_>>>()?;
        let rows = self.client.query(SIZES, &[&paths]).map_err(failed)?;
        let size = |row: &Row| {
            let size: Option<i64> = column(row, 0).map_err(failed)?;
            Ok(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0))
        };
        rows.iter().map(size).collect()
    }

    /// Reads pieces and passes each row on once it is known to be an answer to its piece.
    fn read_pieces(
        &mut self,
        requests: &[Request],
        pieces: &[Piece],
        mut take: impl FnMut(&Piece, Row) -> Result<()>,
    ) -> Result<()> {
        let failed = |error| query_failed("cannot read files of", error);
        let mut paths = Vec::with_capacity(pieces.len());
        let mut starts = Vec::with_capacity(pieces.len());
        let mut lengths = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let request = requests.get(piece.request).ok_or_else(|| Error::failure("a piece of no request"))?;
            paths.push(self.text(&request.path)?);
            starts.push(position(&request.path, piece.offset)?);
            lengths.push(position(&request.path, piece.length)?);
        }
        let parameters: [&(dyn ToSql + Sync); 3] = [&paths, &starts, &lengths];
        let mut rows = self.client.query_raw(&self.read_pieces, parameters).map_err(failed)?;
        let mut expected = pieces.iter().zip(1..);
        while let Some(row) = rows.next().map_err(failed)? {
            let number: i64 = column(&row, 0).map_err(failed)?;
            let Some((piece, _)) = expected.next().filter(|(_, n)| *n == number) else {
                return Err(Error::failure("the source server answers what was not asked"));
            };
            check_length(bytes_of(&row, 1)?, piece.length)?;
            take(piece, row)?;
        }
        match expected.next() {
            None => Ok(()),
            Some(_) => Err(Error::failure("the source server does not answer all that was asked")),
        }
    }

    /// Fetches a part of a file whose name is no text.
    fn fetch_by_bytes(
        &mut self,
        request: &Request,
        index: usize,
        sink: &mut dyn Sink,
        reached: &mut Reached,
    ) -> Result<()> {
        let mut done = 0_u64;
        loop {
            let length = request.length.map_or(PIECE, |total| total.saturating_sub(done).min(PIECE));
            let offset = request.offset.saturating_add(done);
            let Some(bytes) = self.read_part(&request.path, offset, length)? else {
                sink.gone(index)?;
                reached.end_of(index);
                return Ok(());
            };
            if done == 0 || !bytes.is_empty() {
                sink.bytes(index, offset, &bytes)?;
            }
            done = done.saturating_add(length);
            if (bytes.len() as u64) < length || request.length.is_some_and(|total| done >= total) {
                reached.end_of(index);
                return Ok(());
            }
            reached.within(index, request.offset.saturating_add(done));
        }
    }

    /// Reads a part of one file, whatever its name; `None` where it does not exist.
    pub(super) fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
        let (offset, asked) = (position(path, offset)?, position(path, length)?);
        let components: Vec<&[u8]> = path.components().collect();
        let is_text = |component: &&[u8]| self.encoding.text(component).is_some();
        let depth = components.iter().position(|component| !is_text(component));
        let rows = match depth {
            None => {
                self.client.query("SELECT pg_read_binary_file($1, $2, $3, true)", &[&self.text(path)?, &offset, &asked])
            }
            Some(depth) => {
                let (directory, names) = components.split_at(depth);
                let directory = directory.join(b"/".as_slice());
                let directory = String::from_utf8_lossy(if depth == 0 { b"." } else { &directory });
                self.client.query(READ_BY_BYTES, &[&directory, &names, &offset, &asked])
            }
        };
        let rows = rows.map_err(|error| query_failed(&format!("cannot read {path} of"), error))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let bytes = bytes_of(row, 0)?;
        check_length(bytes, length)?;
        Ok(bytes.map(<[u8]>::to_vec))
    }

    /// A path that is known to be text as such.
    fn text<'p>(&self, path: &'p ClusterPath) -> Result<&'p str> {
        self.encoding
            .text(path.as_bytes())
            .ok_or_else(|| Error::failure(format!("{path} is no text for the source server")))
    }
}

/// A position or length as the server takes it.
fn position(path: &ClusterPath, bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| Error::failure(format!("byte {bytes} of {path} is beyond any file's end")))
}

/// Checks that there are not more bytes than were asked for.
fn check_length(bytes: Option<&[u8]>, asked: u64) -> Result<()> {
    match bytes {
        Some(bytes) if bytes.len() as u64 > asked => {
            Err(Error::failure(format!("the source server sends {} bytes where it was asked for {asked}", bytes.len())))
        }
        _ => Ok(()),
    }
}

/// The bytes in a column; `None` where it is NULL.
fn bytes_of(row: &Row, index: usize) -> Result<Option<&[u8]>> {
    column(row, index).map_err(|trouble| query_failed("unexpected answer of", trouble))
}
