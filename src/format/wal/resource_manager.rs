//! The resource managers and operations that a rewind looks at (`rmgrlist.h`, `*_xlog.h`).

/// `XLOG`: the log itself.
pub const XLOG: u8 = 0;
/// `Transaction`.
pub const TRANSACTION: u8 = 1;
/// `Storage`.
pub const STORAGE: u8 = 2;
/// `Database`.
pub const DATABASE: u8 = 4;
/// `Tablespace`.
pub const TABLESPACE: u8 = 5;
/// `RelMap`: which files the catalogs are in that have to be found before all others.
pub const RELATION_MAP: u8 = 7;
/// `Standby`: what a standby that answers queries must know.
pub const STANDBY: u8 = 8;
/// `Heap2`: tables, what found no room in [`HEAP`].
pub const HEAP2: u8 = 9;
/// `Heap`: tables.
pub const HEAP: u8 = 10;
/// `Btree`.
pub const BTREE: u8 = 11;
/// `Hash`.
pub const HASH: u8 = 12;
/// `Gin`.
pub const GIN: u8 = 13;
/// `Gist`.
pub const GIST: u8 = 14;
/// `Sequence`.
pub const SEQUENCE: u8 = 15;
/// `SPGist`.
pub const SPGIST: u8 = 16;
/// `BRIN`.
pub const BRIN: u8 = 17;
/// `Generic`: pages of extensions.
pub const GENERIC: u8 = 20;
/// `LogicalMessage`: `pg_logical_emit_message`.
pub const LOGICAL_MESSAGE: u8 = 21;
/// The first resource manager of extensions.
pub const FIRST_CUSTOM: u8 = 128;

/// `XLOG_CHECKPOINT_SHUTDOWN`.
pub const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
/// `XLOG_CHECKPOINT_ONLINE`.
pub const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
/// `XLOG_SWITCH`: the rest of the segment is unused.
pub const XLOG_SWITCH: u8 = 0x40;
/// `XLOG_FPI_FOR_HINT`: a page as it was before a hint bit was set.
pub const XLOG_FPI_FOR_HINT: u8 = 0xA0;
/// `XLOG_OVERWRITE_CONTRECORD`: the record torn before it is void.
pub const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;

/// `XLOG_SMGR_CREATE`.
pub const STORAGE_CREATE: u8 = 0x10;
/// `XLOG_SMGR_TRUNCATE`.
pub const STORAGE_TRUNCATE: u8 = 0x20;

/// `XLOG_DBASE_CREATE`, from 15 on `XLOG_DBASE_CREATE_FILE_COPY`.
pub const DATABASE_COPY: u8 = 0x00;

/// `XLOG_TBLSPC_CREATE`.
pub const TABLESPACE_CREATE: u8 = 0x00;
/// `XLOG_TBLSPC_DROP`.
pub const TABLESPACE_DROP: u8 = 0x10;

/// `XLOG_RUNNING_XACTS`.
pub const STANDBY_RUNNING: u8 = 0x10;

/// The operation within a transaction record's info (`XLOG_XACT_OPMASK`).
pub const TRANSACTION_OPERATION: u8 = 0x70;
/// `XLOG_XACT_COMMIT`.
pub const TRANSACTION_COMMIT: u8 = 0x00;
/// `XLOG_XACT_PREPARE`.
pub const TRANSACTION_PREPARE: u8 = 0x10;
/// `XLOG_XACT_ABORT`.
pub const TRANSACTION_ABORT: u8 = 0x20;
/// `XLOG_XACT_COMMIT_PREPARED`.
pub const TRANSACTION_COMMIT_PREPARED: u8 = 0x30;
/// `XLOG_XACT_ABORT_PREPARED`.
pub const TRANSACTION_ABORT_PREPARED: u8 = 0x40;

/// `XLR_SPECIAL_REL_UPDATE`: the record changes relation files in a way that its block
/// references do not tell.
pub const SPECIAL_RELATION_UPDATE: u8 = 0x01;

/// The names of the built-in resource managers, by number, as pg_waldump prints them.
const NAMES: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// The name of a resource manager as pg_waldump prints it; `custom` with the number for those
/// of extensions.
#[must_use]
pub fn name(resource_manager: u8) -> String {
    match NAMES.get(usize::from(resource_manager)) {
        Some(name) => (*name).to_owned(),
        None => format!("custom{resource_manager:03}"),
    }
}
