//! Reading files of a running server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use postgres::Row;
use postgres::types::Type;

use super::client::{Asked, Parameter, Question, Trouble};
use super::pieces::{Piece, Reached, Read};
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

/// An answer of so many bytes takes as long as an empty one.
const SMALL: usize = 4096;

/// A query that was sent, and the reads that it has not answered yet.
pub(super) struct Flight {
    asked: Asked,
    reads: VecDeque<Arc<Read>>,
    /// The number of the next row.
    next: i64,
}

impl Flight {
    /// A query that asks for these reads.
    pub(super) fn new(asked: Asked, reads: Vec<Arc<Read>>) -> Self {
        Self { asked, reads: reads.into(), next: 1 }
    }

    /// The answer that came last is in good hands.
    pub(super) fn answered(&mut self) {
        self.reads.pop_front();
        self.next += 1;
    }

    /// The reads without an answer.
    pub(super) fn into_reads(self) -> VecDeque<Arc<Read>> {
        self.reads
    }
}

/// Hands what was read on to a sink, and knows where requests end.
pub(super) struct Delivery<'a> {
    sink: &'a mut dyn Sink,
    /// How far the sink's list has been delivered.
    reached: &'a mut Reached,
    /// The place of the first request in the sink's list.
    base: usize,
    /// The last request that came to its end early.
    ended: Option<usize>,
}

/// What is known after an answer was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// Nothing special.
    Well,
    /// This request has come to its end early.
    Ended(usize),
    /// A file is longer than it was when it was looked at: what comes next was not asked for.
    Grown,
}

impl<'a> Delivery<'a> {
    /// To this sink, in whose list the first request has the place `base`.
    pub(super) fn new(sink: &'a mut dyn Sink, reached: &'a mut Reached, base: usize) -> Self {
        Self { sink, reached, base, ended: None }
    }

    /// Takes the answer to a read.
    pub(super) fn take(&mut self, read: &Read, row: &Row) -> Result<Delivered> {
        let bytes = bytes_of(row, 1)?;
        let ended = self.ended;
        for piece in &read.pieces {
            if self.piece(piece, bytes.map(|bytes| read.part(piece, bytes)))? {
                return Ok(Delivered::Grown);
            }
        }
        Ok(self.ended.filter(|_| self.ended != ended).map_or(Delivered::Well, Delivered::Ended))
    }

    /// Takes a piece; whether the request has to go on and nothing more of it was asked for.
    pub(super) fn piece(&mut self, piece: &Piece, bytes: Option<&[u8]>) -> Result<bool> {
        if self.ended == Some(piece.request) {
            return Ok(false);
        }
        let index = self.base + piece.request;
        let Some(bytes) = bytes else {
            self.ended = Some(piece.request);
            self.sink.gone(index)?;
            self.reached.end_of(index);
            return Ok(false);
        };
        if piece.first || !bytes.is_empty() {
            self.sink.bytes(index, piece.offset, bytes)?;
        }
        if (bytes.len() as u64) < piece.length {
            self.ended = Some(piece.request);
            self.reached.end_of(index);
        } else if piece.end {
            self.reached.end_of(index);
        } else {
            self.reached.within(index, piece.offset.saturating_add(piece.length));
        }
        Ok(piece.open && self.ended != Some(piece.request))
    }
}

impl Session {
    /// Whether the server takes the name of a request's file as text.
    pub(super) fn is_text(&self, request: &Request) -> bool {
        self.encoding.text(request.path.as_bytes()).is_some()
    }

    /// Asks for reads in one query, whose answer is waited for later.
    pub(super) fn ask(&mut self, requests: &[Request], reads: &[Arc<Read>]) -> Result<Asked> {
        let mut paths = Vec::with_capacity(reads.len());
        let mut starts = Vec::with_capacity(reads.len());
        let mut lengths = Vec::with_capacity(reads.len());
        for read in reads {
            let request = requests.get(read.request()).ok_or_else(|| Error::failure("a read for no request"))?;
            paths.push(self.text(&request.path)?.to_owned());
            starts.push(position(&request.path, read.offset)?);
            lengths.push(position(&request.path, read.length)?);
        }
        self.client.ask(&self.read_pieces, vec![Box::new(paths), Box::new(starts), Box::new(lengths)]).map_err(failed)
    }

    /// The next row of the query that was asked first, once it is known to be the answer to its read, and how many
    /// bytes it has; none at the end.
    pub(super) fn next(&mut self, flight: &mut Flight) -> Result<Option<(Arc<Read>, Row, u64)>> {
        let row = self.client.next(&mut flight.asked).map_err(failed)?;
        match (row, flight.reads.front()) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Error::failure("the source server does not answer all that was asked")),
            (Some(row), read) => {
                let number: i64 = column(&row, 0).map_err(failed)?;
                let read = read.filter(|_| number == flight.next);
                let read = read.ok_or_else(|| Error::failure("the source server answers what was not asked"))?;
                let bytes = bytes_of(&row, 1)?;
                check_length(bytes, read.length)?;
                let length = bytes.map_or(0, |bytes| bytes.len() as u64);
                Ok(Some((Arc::clone(read), row, length)))
            }
        }
    }

    /// The files' sizes as they are now, where requests go to the end; zero elsewhere.
    pub(super) fn sizes(&mut self, requests: &[Request]) -> Result<Vec<u64>> {
        let failed = |error| query_failed("cannot read the sizes of files of", error);
        let mut sizes = vec![0; requests.len()];
        let open = requests.iter().zip(&mut sizes).filter(|(request, _)| request.length.is_none());
        let (open, places): (Vec<_>, Vec<_>) = open.unzip();
        if open.is_empty() {
            return Ok(sizes);
        }
        let paths = open.iter().map(|request| self.text(&request.path)).collect::<Result<Vec<_>>>()?;
        let rows = self.client.query(SIZES, &[(&paths, Type::TEXT_ARRAY)]).map_err(failed)?;
        for (row, place) in rows.iter().zip(places) {
            let size: Option<i64> = column(row, 0).map_err(failed)?;
            *place = size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        }
        Ok(sizes)
    }

    /// Reads a part of one file, whatever its name; `None` where it does not exist.
    pub(super) fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
        let (offset, asked) = (position(path, offset)?, position(path, length)?);
        let begin = Instant::now();
        let components: Vec<&[u8]> = path.components().collect();
        let is_text = |component: &&[u8]| self.encoding.text(component).is_some();
        let depth = components.iter().position(|component| !is_text(component));
        let rows = match depth {
            None => {
                let text = self.text(path)?;
                let parameters: &[Parameter<'_>] = &[(&text, Type::TEXT), (&offset, Type::INT8), (&asked, Type::INT8)];
                self.client.query("SELECT pg_read_binary_file($1, $2, $3, true)", parameters)
            }
            Some(depth) => {
                let (directory, names) = components.split_at(depth);
                let directory = directory.join(b"/".as_slice());
                let directory = String::from_utf8_lossy(if depth == 0 { b"." } else { &directory });
                let parameters: &[Parameter<'_>] = &[
                    (&directory, Type::TEXT),
                    (&names, Type::BYTEA_ARRAY),
                    (&offset, Type::INT8),
                    (&asked, Type::INT8),
                ];
                self.client.query(READ_BY_BYTES, parameters)
            }
        };
        let rows = rows.map_err(|error| query_failed(&format!("cannot read {path} of"), error))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let bytes = bytes_of(row, 0)?;
        check_length(bytes, length)?;
        if bytes.is_none_or(|bytes| bytes.len() <= SMALL) {
            self.took(begin.elapsed());
        }
        Ok(bytes.map(<[u8]>::to_vec))
    }

    /// Reads small files, up to `length` bytes of each, in a single round trip: by the inner option whether they
    /// exist, none where one could not be read.
    pub(super) fn read_together(&mut self, names: &[&str], length: u64) -> Result<Vec<Option<Option<Vec<u8>>>>> {
        const QUESTION: &str = "SELECT pg_catalog.pg_read_binary_file($1, 0, $2, true)";
        let asked = i64::try_from(length).unwrap_or(i64::MAX);
        let parameters: Vec<[Parameter<'_>; 2]> =
            names.iter().map(|name| -> [Parameter<'_>; 2] { [(name, Type::TEXT), (&asked, Type::INT8)] }).collect();
        let questions: Vec<Question<'_>> = parameters.iter().map(|both| (QUESTION, both.as_slice())).collect();
        let answers = self.client.ask_all(&questions).map_err(failed)?;
        let content = |row: Row| Some(bytes_of(&row, 0).ok()?.map(<[u8]>::to_vec));
        Ok(answers.into_iter().map(|answer| answer.ok().and_then(content)).collect())
    }

    /// A path that is known to be text as such.
    pub(super) fn text<'p>(&self, path: &'p ClusterPath) -> Result<&'p str> {
        self.encoding
            .text(path.as_bytes())
            .ok_or_else(|| Error::failure(format!("{path} is no text for the source server")))
    }
}

fn failed(trouble: Trouble) -> Error {
    query_failed("cannot read files of", trouble)
}

/// A position or length as the server takes it.
pub(super) fn position(path: &ClusterPath, bytes: u64) -> Result<i64> {
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
pub(super) fn bytes_of(row: &Row, index: usize) -> Result<Option<&[u8]>> {
    column(row, index).map_err(|trouble| query_failed("unexpected answer of", trouble))
}
