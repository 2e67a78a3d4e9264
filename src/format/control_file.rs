//! `global/pg_control` (`ControlFileData`): who a cluster is and where it stands.
//!
//! ```text
//!   0 system_identifier u64    16 state i32              40 checkPointCopy (88, from 19 on 96)
//!   8 pg_control_version u32   24 time i64               128 unloggedLSN … (see ControlLayout)
//!  12 catalog_version_no u32   32 checkPoint LSN         crc u32, then zeros to 8192
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bytes::{i64_at, u8_at, u32_at, u64_at};
use super::major::{Major, MajorFacts};
use crate::types::{Geometry, GeometryError, Lsn, TimelineId};

/// Bytes of the file (`PG_CONTROL_FILE_SIZE`), in every major.
pub const CONTROL_FILE_SIZE: usize = 8192;

/// Where in a page a sealed control file's checkpoint is: within the header, which has 24 bytes.
const SEAL_OFFSET: u64 = 8;

const STATE: usize = 16;
const TIME: usize = 24;
const CHECKPOINT: usize = 32;
const CHECKPOINT_COPY: usize = 40;

/// The state that a server left its directory in (`DBState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DbState {
    /// 0: being initialised.
    Startup,
    /// 1: a primary that was shut down.
    ShutDown,
    /// 2: a standby that was shut down.
    ShutDownInRecovery,
    /// 3: a primary that was shutting down.
    ShuttingDown,
    /// 4: in crash recovery.
    InCrashRecovery,
    /// 5: a standby, or recovering from a backup.
    InArchiveRecovery,
    /// 6: a running primary, or one that crashed.
    InProduction,
}

impl DbState {
    const ALL: [Self; 7] = [
        Self::Startup,
        Self::ShutDown,
        Self::ShutDownInRecovery,
        Self::ShuttingDown,
        Self::InCrashRecovery,
        Self::InArchiveRecovery,
        Self::InProduction,
    ];

    /// PostgreSQL's number of the state.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The state with PostgreSQL's number.
    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The words of pg_controldata.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Startup => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }

    /// Whether the server stopped in good order.
    #[must_use]
    pub fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// A checkpoint (`CheckPoint`), as far as a rewind needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whether the primary that took it was writing full page images then (`fullPageWrites`).
    pub full_page_writes: bool,
    /// Where replay from this checkpoint begins.
    pub redo: Lsn,
    /// The timeline of the checkpoint.
    pub timeline: TimelineId,
    /// When it was taken, in seconds since 1970.
    pub time: i64,
}

impl Checkpoint {
    /// Reads a checkpoint from the control file or from a checkpoint record's main data; `None`
    /// where it is too short.
    #[must_use]
    pub fn parse(bytes: &[u8], facts: &MajorFacts) -> Option<Self> {
        // `time` lies 16 bytes before the end up to 18; 19 widened a field before it by 8 and
        // added 4 bytes and their padding behind it.
        let time = if facts.control.checkpoint_size == 88 { 64 } else { 72 };
        Some(Self {
            redo: Lsn::new(u64_at(bytes, 0)?),
            timeline: TimelineId::new(u32_at(bytes, 8)?),
            time: i64_at(bytes, time)?,
            full_page_writes: u8_at(bytes, 16)? != 0,
        })
    }
}

/// What identifies a control file before anything else can be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFileHeader {
    /// `system_identifier`.
    pub system_identifier: u64,
    /// `pg_control_version`.
    pub control_version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
}

/// Settings in the control file that a rewind looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFileSettings {
    /// `data_checksum_version`: 0 off, 1 on; anything else is a state in between.
    pub data_checksums: u32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// What a standby must have at least as much of as its primary.
    pub limits: SharedLimits,
}

/// Settings of which a standby must have at least as much as its primary, as the cluster's own server last ran with,
/// or, of a standby, as its WAL says that the primary did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedLimits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

impl SharedLimits {
    /// Each with its parameter's name.
    #[must_use]
    pub fn named(self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }

    /// What a server has that is told nothing else.
    #[must_use]
    pub fn built_in(major: Major) -> Self {
        Self {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: if major >= Major::V19 { 128 } else { 64 },
        }
    }
}

/// A control file whose size, CRC, version and sizes have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    bytes: Vec<u8>,
    header: ControlFileHeader,
    facts: &'static MajorFacts,
    geometry: Geometry,
}

/// Why a control file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Not 8192 bytes.
    #[error("the control file has {found} bytes, expected {CONTROL_FILE_SIZE}")]
    Size {
        /// Bytes found.
        found: usize,
    },
    /// A pair of versions that no known major has.
    #[error(
        "control file version {control_version} with catalog version {catalog_version} belongs to no PostgreSQL that this program knows (13 to 19)"
    )]
    Version {
        /// `pg_control_version`.
        control_version: u32,
        /// `catalog_version_no`.
        catalog_version: u32,
    },
    /// The checksum does not fit: damaged, or read while a server was writing it.
    #[error("the control file's CRC is {found:08X}, its content gives {expected:08X}")]
    Crc {
        /// Computed over the content.
        expected: u32,
        /// Stored in the file.
        found: u32,
    },
    /// A state that PostgreSQL does not have.
    #[error("the control file's state is {0}, expected 0 to 6")]
    State(u32),
    /// A size that PostgreSQL cannot have.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

impl ControlFile {
    /// Reads and checks a control file.
    ///
    /// # Errors
    /// [`ControlFileError`] when the bytes are no control file of a known major.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let short = ControlFileError::Size { found: bytes.len() };
        if bytes.len() != CONTROL_FILE_SIZE {
            return Err(short);
        }
        let number = |offset| u32_at(bytes, offset).ok_or(short.clone());
        let header = ControlFileHeader {
            system_identifier: u64_at(bytes, 0).ok_or(short.clone())?,
            control_version: number(8)?,
            catalog_version: number(12)?,
        };
        let facts = Major::identify(header.control_version, header.catalog_version)
            .ok_or(ControlFileError::Version {
                control_version: header.control_version,
                catalog_version: header.catalog_version,
            })?
            .facts();
        let (expected, found) = (crc_of(bytes, facts), number(facts.control.crc)?);
        if expected != found {
            return Err(ControlFileError::Crc { expected, found });
        }
        let state = number(STATE)?;
        DbState::from_number(state).ok_or(ControlFileError::State(state))?;
        let layout = &facts.control;
        let geometry = Geometry::new(
            number(layout.block_size)?,
            number(layout.block_size + 4)?,
            number(layout.wal_page_size)?,
            number(layout.wal_page_size + 4)?,
        )?;
        Ok(Self { bytes: bytes.to_vec(), header, facts, geometry })
    }

    /// The file's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Identifier and versions.
    #[must_use]
    pub fn header(&self) -> ControlFileHeader {
        self.header
    }

    /// The facts about the major that wrote it.
    #[must_use]
    pub fn facts(&self) -> &'static MajorFacts {
        self.facts
    }

    /// The cluster's sizes.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The state that the server left.
    #[must_use]
    pub fn state(&self) -> DbState {
        DbState::from_number(self.u32(STATE)).unwrap_or(DbState::Startup)
    }

    /// When the file was last written, in seconds since 1970.
    #[must_use]
    pub fn time(&self) -> i64 {
        i64_at(&self.bytes, TIME).unwrap_or(0)
    }

    /// Where the record of the last checkpoint begins (`checkPoint`).
    #[must_use]
    pub fn checkpoint_location(&self) -> Lsn {
        self.lsn(CHECKPOINT)
    }

    /// The last checkpoint (`checkPointCopy`).
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let none = Checkpoint { full_page_writes: false, redo: Lsn::INVALID, timeline: TimelineId::new(0), time: 0 };
        let copy = self.bytes.get(CHECKPOINT_COPY..).unwrap_or_default();
        Checkpoint::parse(copy, self.facts).unwrap_or(none)
    }

    /// Up to where recovery must replay before the data is consistent; 0/0 where it does not
    /// matter (`minRecoveryPoint`).
    #[must_use]
    pub fn min_recovery_point(&self) -> Lsn {
        self.lsn(self.facts.control.min_recovery_point)
    }

    /// The timeline of [`ControlFile::min_recovery_point`].
    #[must_use]
    pub fn min_recovery_timeline(&self) -> TimelineId {
        TimelineId::new(self.u32(self.facts.control.min_recovery_point + 8))
    }

    /// The settings that a rewind looks at.
    #[must_use]
    pub fn settings(&self) -> ControlFileSettings {
        let hints = self.facts.control.wal_log_hints;
        ControlFileSettings {
            data_checksums: self.u32(self.facts.control.data_checksums),
            wal_log_hints: u8_at(&self.bytes, hints).is_some_and(|flag| flag != 0),
            limits: SharedLimits {
                max_connections: self.u32(hints + 4),
                max_worker_processes: self.u32(hints + 8),
                max_wal_senders: self.u32(hints + 12),
                max_prepared_transactions: self.u32(hints + 16),
                max_locks_per_transaction: self.u32(hints + 20),
            },
        }
    }

    /// The timeline that the cluster is on.
    ///
    /// The later of the checkpoint's and the minimum recovery point's: a server that was promoted
    /// but has not completed a checkpoint since has its new timeline only in the latter. This is
    /// pg_rewind's rule from 16 on, right for every major.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.checkpoint().timeline.max(self.min_recovery_timeline())
    }

    /// A copy with another state.
    #[must_use]
    pub fn with_state(self, state: DbState) -> Self {
        self.patched(STATE, &state.number().to_le_bytes())
    }

    /// A copy with another time, in seconds since 1970.
    #[must_use]
    pub fn with_time(self, time: i64) -> Self {
        self.patched(TIME, &time.to_le_bytes())
    }

    /// A copy with another location of the last checkpoint.
    #[must_use]
    pub fn with_checkpoint_location(self, lsn: Lsn) -> Self {
        self.patched(CHECKPOINT, &lsn.get().to_le_bytes())
    }

    /// A copy with another minimum recovery point.
    #[must_use]
    pub fn with_min_recovery_point(self, lsn: Lsn, timeline: TimelineId) -> Self {
        let offset = self.facts.control.min_recovery_point;
        self.patched(offset, &lsn.get().to_le_bytes()).patched(offset + 8, &timeline.get().to_le_bytes())
    }

    /// A copy that no server starts on, in whatever mode, but that tools still read: identity and
    /// settings stay, the state is "shut down", and the checkpoint's location lies inside a page
    /// header, where no record can be ("invalid checkpoint location", before anything else).
    #[must_use]
    pub fn sealed(self) -> Self {
        let page = self.checkpoint_location().start_of(u64::from(self.geometry.wal_page_size));
        self.with_state(DbState::ShutDown).with_checkpoint_location(page.plus(SEAL_OFFSET))
    }

    /// Whether this is what [`ControlFile::sealed`] makes.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.checkpoint_location().offset_in(u64::from(self.geometry.wal_page_size)) == SEAL_OFFSET
    }

    /// Replaces bytes and renews the CRC.
    fn patched(mut self, offset: usize, value: &[u8]) -> Self {
        let end = offset.saturating_add(value.len());
        if let Some(field) = self.bytes.get_mut(offset..end) {
            field.copy_from_slice(value);
        }
        let crc = crc_of(&self.bytes, self.facts).to_le_bytes();
        let at = self.facts.control.crc;
        if let Some(field) = self.bytes.get_mut(at..at.saturating_add(4)) {
            field.copy_from_slice(&crc);
        }
        self
    }

    fn lsn(&self, offset: usize) -> Lsn {
        Lsn::new(u64_at(&self.bytes, offset).unwrap_or(0))
    }

    fn u32(&self, offset: usize) -> u32 {
        u32_at(&self.bytes, offset).unwrap_or(0)
    }
}

/// The CRC-32C of a control file's content.
fn crc_of(bytes: &[u8], facts: &MajorFacts) -> u32 {
    crc32c::crc32c(bytes.get(..facts.control.crc).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
pub(crate) mod tests {
    use super::*;

    /// What a sample control file says.
    #[derive(Default)]
    pub(crate) struct Fields {
        pub(crate) system: u64,
        pub(crate) checksums: u32,
        pub(crate) hints: bool,
        pub(crate) wal_segment: u32,
        pub(crate) full_page_writes: bool,
        pub(crate) limits: SharedLimits,
    }

    /// A valid control file of a cleanly stopped cluster of `major`.
    pub(crate) fn sample(major: Major, change: impl FnOnce(&mut Fields)) -> ControlFile {
        let mut fields = Fields { system: 42, wal_segment: 16 << 20, ..Fields::default() };
        change(&mut fields);
        let facts = major.facts();
        let layout = &facts.control;
        let mut bytes = vec![0; CONTROL_FILE_SIZE];
        let mut put = |offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        put(0, fields.system as u32);
        put(8, facts.control_version);
        put(12, *facts.catalog_versions.start());
        put(STATE, 1);
        put(CHECKPOINT_COPY + 16, u32::from(fields.full_page_writes));
        put(layout.wal_log_hints, u32::from(fields.hints));
        for (place, (_, limit)) in (1..).zip(fields.limits.named()) {
            put(layout.wal_log_hints + 4 * place, limit);
        }
        put(layout.block_size, 8192);
        put(layout.block_size + 4, 131_072);
        put(layout.wal_page_size, 8192);
        put(layout.wal_page_size + 4, fields.wal_segment);
        put(layout.data_checksums, fields.checksums);
        let crc = crc_of(&bytes, facts);
        bytes[layout.crc..layout.crc + 4].copy_from_slice(&crc.to_le_bytes());
        ControlFile::parse(&bytes).unwrap()
    }

    #[test]
    fn edits_keep_the_file_valid_for_every_major() {
        for major in Major::ALL {
            let edited = sample(major, |_| ())
                .with_state(DbState::InArchiveRecovery)
                .with_time(77)
                .with_checkpoint_location(Lsn::new(0x300_0028))
                .with_min_recovery_point(Lsn::new(0x400_0000), TimelineId::new(3));
            let read = ControlFile::parse(edited.as_bytes()).unwrap();
            assert_eq!(read.state(), DbState::InArchiveRecovery);
            assert_eq!(read.time(), 77);
            assert_eq!(read.checkpoint_location(), Lsn::new(0x300_0028));
            assert_eq!(
                (read.min_recovery_point(), read.min_recovery_timeline()),
                (Lsn::new(0x400_0000), TimelineId::new(3))
            );
            assert_eq!(read.timeline(), TimelineId::new(3));
            assert_eq!(read.facts().major, major);
        }
    }

    #[test]
    fn any_changed_byte_up_to_the_crc_is_found() {
        for major in Major::ALL {
            let good = sample(major, |_| ()).with_time(77).with_min_recovery_point(Lsn::new(5), TimelineId::new(3));
            let mut bytes = good.as_bytes().to_vec();
            for offset in 0..good.facts().control.crc + 4 {
                for mask in [1 << (offset % 8), 0xFF] {
                    bytes[offset] ^= mask;
                    assert!(ControlFile::parse(&bytes).is_err(), "{major}: byte {offset} ^ {mask:02X}");
                    bytes[offset] ^= mask;
                }
            }
            assert_eq!(ControlFile::parse(&bytes), Ok(good));
        }
    }

    #[test]
    fn damage_is_named() {
        let good = sample(Major::V17, |_| ());
        let flip = |offset: usize| {
            let mut bytes = good.as_bytes().to_vec();
            bytes[offset] ^= 1;
            ControlFile::parse(&bytes)
        };
        assert!(matches!(flip(20), Err(ControlFileError::Crc { .. })));
        assert!(matches!(flip(288), Err(ControlFileError::Crc { .. })));
        assert!(matches!(flip(8), Err(ControlFileError::Version { .. })));
        assert_eq!(ControlFile::parse(&good.as_bytes()[..512]), Err(ControlFileError::Size { found: 512 }));
        // Behind the CRC nothing is read; a server writes zeros there.
        assert!(flip(8000).is_ok());
        let no_state = good.clone().patched(STATE, &7u32.to_le_bytes());
        assert_eq!(ControlFile::parse(no_state.as_bytes()), Err(ControlFileError::State(7)));
        let odd_size = good.clone().patched(good.facts().control.block_size, &8191u32.to_le_bytes());
        assert!(matches!(ControlFile::parse(odd_size.as_bytes()), Err(ControlFileError::Geometry(_))));
    }
}
