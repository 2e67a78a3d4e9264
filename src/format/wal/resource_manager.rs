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

/// `XLOG_CHECKPOINT_SHUTDOWN`.
pub const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
/// `XLOG_CHECKPOINT_ONLINE`.
pub const XLOG_CHECKPOINT_ONLINE: u8 = 0x10;
/// `XLOG_SWITCH`: the rest of the segment is unused.
pub const XLOG_SWITCH: u8 = 0x40;
/// `XLOG_OVERWRITE_CONTRECORD`: the record torn before it is void.
pub const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;

/// `XLOG_SMGR_CREATE`.
pub const STORAGE_CREATE: u8 = 0x10;
/// `XLOG_SMGR_TRUNCATE`.
pub const STORAGE_TRUNCATE: u8 = 0x20;

/// `XLOG_TBLSPC_CREATE`: begins with the tablespace's OID.
pub const TABLESPACE_CREATE: u8 = 0x00;
/// `XLOG_TBLSPC_DROP`: the tablespace's OID.
pub const TABLESPACE_DROP: u8 = 0x10;

/// The operation within a transaction record's info (`XLOG_XACT_OPMASK`).
pub const TRANSACTION_OPERATION: u8 = 0x70;
/// `XLOG_XACT_COMMIT`.
pub const TRANSACTION_COMMIT: u8 = 0x00;
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
