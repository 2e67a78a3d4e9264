//! A running server as a source, over SQL.
//!
//! The session's client encoding is `SQL_ASCII`: names arrive as the bytes that they are. The other
//! way the server takes as text only what is valid in the database's encoding; a name that is not
//! is found by its bytes in the listings of its directories. The session's search path is empty, so
//! what queries name is in `pg_catalog`.

mod fetch;
mod listing;
mod pieces;
mod session;

use std::fmt;

use postgres::types::PgLsn;
use postgres::{Client, Row, Statement};

use crate::cluster::{
    ClusterReader, DirectoryId, FileEntry, Inventory, Position, Request, SMALL_FILE_LIMIT, Sink, Source, SourceKind,
};
use crate::error::{Error, Result};
use crate::format::Major;
use crate::io::conninfo::ConnInfo;
use crate::progress::Progress;
use crate::types::{ClusterPath, Lsn};

use session::{Encoding, query_failed};

/// A session on a running server.
pub struct SqlSource {
    client: Client,
    conninfo: ConnInfo,
    encoding: Encoding,
    read_pieces: Statement,
}

impl fmt::Debug for SqlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conninfo, encoding, .. } = self;
        f.debug_struct("SqlSource").field("conninfo", conninfo).field("encoding", encoding).finish_non_exhaustive()
    }
}

impl SqlSource {
    /// Connects, sets the session up, and checks that the server and the role will do.
    ///
    /// # Errors
    /// When the connection fails, the server is of no known major, cannot be a source as it is
    /// set, or the role lacks a privilege; most of these are preconditions.
    pub fn connect(conninfo: ConnInfo) -> Result<Self> {
        let mut client = session::open(&conninfo)?;
        session::check(&mut client)?;
        let encoding = session::encoding(&mut client)?;
        let read_pieces = client.prepare(fetch::READ_PIECES).map_err(|e| query_failed("cannot read files of", &e))?;
        Ok(Self { client, conninfo, encoding, read_pieces })
    }
}

impl ClusterReader for SqlSource {
    fn control_file(&mut self) -> Result<Vec<u8>> {
        let failed = |error| query_failed("cannot read global/pg_control of", &error);
        let query = "SELECT pg_read_binary_file('global/pg_control')";
        let row = self.client.query_one(query, &[]).map_err(failed)?;
        row.try_get(0).map_err(failed)
    }

    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        let limit = SMALL_FILE_LIMIT + 1;
        let bytes = self.read_part(path, 0, limit)?;
        if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 >= limit) {
            let message = format!("{path} of the source server is larger than {SMALL_FILE_LIMIT} bytes");
            return Err(Error::failure(message));
        }
        Ok(bytes)
    }

    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory> {
        listing::list(&mut self.client, progress)
    }

    fn running_server(&self) -> Result<Option<i32>> {
        Ok(None)
    }
}

impl Source for SqlSource {
    fn kind(&self) -> SourceKind {
        SourceKind::LiveServer
    }

    fn address(&self) -> String {
        self.conninfo.redacted()
    }

    fn directories(&self) -> Vec<DirectoryId> {
        Vec::new()
    }

    fn primary_conninfo(&self, major: Major) -> Option<String> {
        Some(self.conninfo.primary_conninfo(major >= Major::V18))
    }

    fn position(&mut self) -> Result<Option<Position>> {
        let failed = |error| query_failed("cannot read the WAL position of", &error);
        // A promotion in between must not be seen by one half of the answer only.
        let query = "SELECT in_recovery, CASE WHEN in_recovery THEN pg_last_wal_replay_lsn()
                                              ELSE pg_current_wal_flush_lsn() END
                       FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS state";
        let row = self.client.query_one(query, &[]).map_err(failed)?;
        let in_recovery = row.try_get(0).map_err(failed)?;
        let lsn: Option<PgLsn> = row.try_get(1).map_err(failed)?;
        let lsn = lsn.ok_or_else(|| {
            Error::failure("the source server has not begun to replay WAL, so it cannot tell how far it is")
                .hint("try again when it is further")
        })?;
        Ok(Some(Position { lsn: Lsn::new(lsn.into()), in_recovery }))
    }

    fn entry(&mut self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        Err(Error::failure(format!("a running server cannot tell for sure what {path} is")))
    }

    fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u32) -> Result<Option<Vec<u8>>> {
        Self::read_part(self, path, offset, length.into())
    }

    fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink) -> Result<()> {
        self.fetch_all(requests, sink)
    }
}

/// The bytes in a column; `None` where it is NULL.
fn bytes_of(row: &Row, column: usize) -> Result<Option<&[u8]>> {
    row.try_get(column).map_err(|error| query_failed("unexpected answer of", &error))
}
