//! A target whose WAL is made here: as many changed blocks as are wanted, at no cost but the WAL's own.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use pg_unfork::format::wal::WalFormat;
use pg_unfork::format::{ControlFile, DbState};
use pg_unfork::types::{ForkNumber, Lsn, RelFileNumber};

use super::Result;
use super::server::{Installation, Server};
use super::wal_builder::{NewBlock, NewRecord, WalBuilder};

/// The resource manager of heaps.
const HEAP: u8 = 10;
/// Block references in a record: about the most that there can be.
const REFERENCES: u64 = 32;
/// Where the checkpoint's content begins in a control file.
const CHECKPOINT_COPY: usize = 40;
/// The length of a record that ends a segment.
const SWITCH_LENGTH: u64 = 24;

/// A target whose own WAL ends with a segment.
#[derive(Debug)]
pub(crate) struct Forgery<'t> {
    target: &'t Path,
    control: ControlFile,
    /// Where the forged WAL begins.
    start: Lsn,
    /// The last record before it.
    previous: Lsn,
}

impl<'t> Forgery<'t> {
    /// Has the server of a stopped target end its segment, and crash.
    pub(crate) fn begin(installation: &Installation, target: &'t Path) -> Result<Self> {
        let server = Server::start(installation, target)?;
        let switch: Lsn = server.sql("SELECT pg_switch_wal()")?.parse().map_err(|_| "no position")?;
        server.crash()?;
        let control = ControlFile::parse(&fs::read(target.join("global/pg_control"))?)?;
        let segment = control.geometry().wal_segment_size.bytes();
        let start = switch.plus(segment - 1).start_of(segment);
        Ok(Self { target, control, start, previous: Lsn::new(switch.get() - SWITCH_LENGTH) })
    }

    /// Blocks in one file of a relation.
    pub(crate) fn blocks_per_file(&self) -> u64 {
        self.control.geometry().relation_segment_blocks.into()
    }

    /// Writes WAL that changes every second block of a relation, so many in all and in no order, and ends with a
    /// shutdown checkpoint. No two changed blocks make a range.
    pub(crate) fn change(&self, relation: RelFileNumber, blocks: u64) -> Result<()> {
        let (facts, geometry) = (self.control.facts(), self.control.geometry());
        let format = WalFormat { facts, geometry, system_identifier: self.control.header().system_identifier };
        let mut log = WalBuilder::after(self.previous, format, self.start);
        let mut first = 0;
        while first < blocks {
            let end = blocks.min(first + REFERENCES);
            // A large prime scatters the blocks, and leaves none out.
            let blocks = (first..end).map(|n| reference(relation, n - first, n * 7_368_787 % blocks * 2)).collect();
            let main_data = vec![0; 3];
            log.record(&NewRecord { xid: 3, resource_manager: HEAP, blocks, main_data, ..NewRecord::default() });
            first = end;
        }
        let copy = CHECKPOINT_COPY..CHECKPOINT_COPY + facts.control.checkpoint_size;
        let main_data = self.control.as_bytes().get(copy).unwrap_or_default().to_vec();
        let end = log.record(&NewRecord { main_data, ..NewRecord::default() });
        self.write(&log.pages())?;
        let control = self.control.clone().with_state(DbState::ShutDown).with_checkpoint_location(end.lsn);
        Ok(fs::write(self.target.join("global/pg_control"), control.as_bytes())?)
    }

    /// Writes pages as segments.
    fn write(&self, pages: &[u8]) -> Result<()> {
        let segment = self.control.geometry().wal_segment_size.bytes();
        for (number, bytes) in (self.start.get() / segment..).zip(pages.chunks(usize::try_from(segment)?)) {
            let per_name = (1 << 32) / segment;
            let name = format!("{:08X}{:08X}{:08X}", 1, number / per_name, number % per_name);
            let file = File::create(self.target.join("pg_wal").join(name))?;
            file.write_all_at(bytes, 0)?;
            file.set_len(segment)?;
        }
        Ok(())
    }
}

/// A record's reference number `id`, to one block.
fn reference(relation: RelFileNumber, id: u64, block: u64) -> NewBlock {
    let (id, block) = (id as u8, block as u32);
    NewBlock { id, relation, fork: ForkNumber::Main, block, will_init: false, image: None, data: Vec::new() }
}

/// The `n`-th file of a relation of the default tablespace.
pub(crate) fn file_of(data: &Path, relation: RelFileNumber, n: u64) -> PathBuf {
    let suffix = if n == 0 { String::new() } else { format!(".{n}") };
    data.join(format!("base/{}/{}{suffix}", relation.database, relation.relation))
}
