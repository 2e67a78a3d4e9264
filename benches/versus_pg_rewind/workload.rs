//! What servers do to become a pair.

use super::Result;
use super::server::Server;

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// Something that a server does.
#[derive(Debug)]
pub(crate) enum Step {
    /// The tables of pgbench.
    Tables { scale: u32 },
    /// So many transactions of pgbench, by four clients: the same each time, their order is not.
    Transactions(u32),
    /// Any statement.
    Sql(String),
    /// So many tables of one row, thus of one file with one block.
    Relations(u32),
    /// An update of every so-manieth of these tables.
    ChangeRelations { of: u32, every: u32 },
    /// A new table of so many MiB, with its WAL.
    Data { mib: u32 },
    /// So many MiB of WAL that changes nothing.
    Wal { mib: u32 },
    /// So many MiB of WAL by updates of one small table, again and again.
    Updates { mib: u32 },
}

impl Step {
    /// Has the server do it.
    pub(crate) fn run(&self, server: &Server) -> Result<()> {
        match self {
            Self::Tables { scale } => server.pgbench(&["-i", "-q", "-s", &scale.to_string()]),
            Self::Transactions(number) => {
                let each = (number / 4).max(1).to_string();
                server.pgbench(&["-n", "-c", "4", "-j", "2", "--random-seed=1", "-t", &each])
            }
            Self::Sql(text) => server.sql(text).map(drop),
            Self::Relations(number) => relations(server, *number),
            Self::ChangeRelations { of, every } => server
                .sql(&format!(
                    "DO $$ BEGIN FOR i IN 1..{of} BY {every} LOOP
                     EXECUTE 'UPDATE small_' || i || ' SET content = content + 1';
                     IF i % 1000 = 1 THEN COMMIT; END IF; END LOOP; END $$"
                ))
                .map(drop),
            Self::Data { mib } => {
                // Eight rows fill a block.
                let rows = u64::from(*mib) * MIB / 8192 * 8;
                server
                    .sql(&format!(
                        "CREATE TABLE fresh (number bigint, content text STORAGE PLAIN);
                         INSERT INTO fresh SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, {rows}) n"
                    ))
                    .map(drop)
            }
            Self::Wal { mib } => server
                .sql(&format!(
                    "SELECT count(pg_logical_emit_message(false, '', repeat('x', 1 << 20))) FROM generate_series(1, {mib})"
                ))
                .map(drop),
            Self::Updates { mib } => {
                server.sql(
                    "CREATE TABLE IF NOT EXISTS busy WITH (fillfactor = 25) AS
                     SELECT n AS number, md5(n::text) AS content FROM generate_series(1, 2000) n",
                )?;
                server
                    .sql(&format!(
                        "DO $$ DECLARE goal pg_lsn := pg_current_wal_insert_lsn() + {mib}::numeric * {MIB}; BEGIN
                         WHILE pg_current_wal_insert_lsn() < goal LOOP
                         UPDATE busy SET number = number + 1, content = md5(content); COMMIT; END LOOP; END $$"
                    ))
                    .map(drop)
            }
        }
    }
}

/// Two sessions make the tables, in transactions small enough for the table of locks.
fn relations(server: &Server, number: u32) -> Result<()> {
    let half = |first: u32| {
        server
            .sql(&format!(
                "DO $$ BEGIN FOR i IN {first}..{number} BY 2 LOOP
                 EXECUTE 'CREATE TABLE small_' || i || ' AS SELECT ' || i || ' AS content';
                 IF i % 1000 < 2 THEN COMMIT; END IF; END LOOP; END $$"
            ))
            .map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        half(2)?;
        other.join().map_err(|_| "a session panicked")?.map(drop)
    })
    .map_err(Into::into)
}
