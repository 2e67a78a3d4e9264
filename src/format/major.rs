//! What differs between PostgreSQL's majors: one row of facts each.

use std::fmt;
use std::ops::RangeInclusive;

/// A major version of PostgreSQL that this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Major {
    /// PostgreSQL 13.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
    /// PostgreSQL 19, not released yet.
    V19,
}

/// How an XLOG record's block image flags (`bimg_info`) are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFlags {
    /// The image is compressed, by any method.
    pub compressed: u8,
    /// The image must be applied in replay.
    pub apply: u8,
}

/// Offsets in `pg_control`; the fields before 128 lie where they lie in every known major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlLayout {
    /// Bytes of the embedded copy of the last checkpoint (`CheckPoint`), which begins at 40.
    pub checkpoint_size: usize,
    /// `minRecoveryPoint`; its timeline follows 8 bytes later.
    pub min_recovery_point: usize,
    /// `wal_log_hints`; `MaxConnections`, `max_worker_processes`, `max_wal_senders`, `max_prepared_xacts` and
    /// `max_locks_per_xact` follow, 4 bytes each.
    pub wal_log_hints: usize,
    /// `blcksz`; `relseg_size` follows 4 bytes later.
    pub block_size: usize,
    /// `xlog_blcksz`; `xlog_seg_size` follows 4 bytes later.
    pub wal_page_size: usize,
    /// `data_checksum_version`.
    pub data_checksums: usize,
    /// `crc`, over every byte before it.
    pub crc: usize,
}

/// The facts about one major.
#[derive(Debug, PartialEq, Eq)]
pub struct MajorFacts {
    /// The major.
    pub major: Major,
    /// Whether it is a release; the others need an explicit option.
    pub released: bool,
    /// `PG_CONTROL_VERSION`.
    pub control_version: u32,
    /// `CATALOG_VERSION_NO`; a range before the release.
    pub catalog_versions: RangeInclusive<u32>,
    /// `XLOG_PAGE_MAGIC`.
    pub wal_magic: u16,
    /// Bits that a WAL page header may have set (`XLP_ALL_FLAGS`).
    pub page_info_mask: u16,
    /// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
    pub overwrite_contrecord: u16,
    /// The highest number of a built-in resource manager.
    pub last_resource_manager: u8,
    /// Whether extensions may have resource managers (128 to 255).
    pub custom_resource_managers: bool,
    /// Whether a record may carry the id of its top-level transaction (block id 252).
    pub toplevel_xid: bool,
    /// Block image flags.
    pub image_flags: ImageFlags,
    /// Operations of resource manager Database that only touch whole files; the last one drops a database.
    pub database_operations: &'static [u8],
    /// Whether commit and abort records have the flag that marks special updates of relation
    /// files (dropped relations), which the files' listing covers.
    pub transactions_flag_relation_files: bool,
    /// Bytes of each item in the list of dropped statistics that ends of transactions carry; 0 where there is no such list.
    pub dropped_statistics_item: usize,
    /// Whether LSNs are printed with all eight digits of their lower half.
    pub pads_lsn: bool,
    /// Whether a rewind sets `time` in the control file to now (else the source's time stays).
    pub rewind_sets_time: bool,
    /// The control file's layout.
    pub control: ControlLayout,
    /// The layout of replication slots.
    pub slot: SlotLayout,
}

/// The state file of a replication slot; its fields before `confirmed_flush` lie where they lie in every known major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLayout {
    /// `version`.
    pub version: u32,
    /// `length`: bytes after the header of 16.
    pub length: u32,
    /// `two_phase`, if there is one.
    pub two_phase: Option<usize>,
    /// The output plugin's name.
    pub plugin: usize,
    /// `synced`, if there is one; `failover` follows.
    pub synced: Option<usize>,
}

const SLOT_13: SlotLayout = SlotLayout { version: 2, length: 168, two_phase: None, plugin: 120, synced: None };
const SLOT_14: SlotLayout = SlotLayout { length: 184, two_phase: Some(128), plugin: 129, ..SLOT_13 };
const SLOT_16: SlotLayout = SlotLayout { version: 3, ..SLOT_14 };
const SLOT_17: SlotLayout = SlotLayout { version: 5, synced: Some(193), ..SLOT_16 };

const CONTROL_1300: ControlLayout = ControlLayout {
    checkpoint_size: 88,
    min_recovery_point: 136,
    wal_log_hints: 176,
    block_size: 216,
    wal_page_size: 224,
    data_checksums: 252,
    crc: 288,
};

/// 18 has one more byte, `default_char_signedness`, before the nonce.
const CONTROL_1800: ControlLayout = ControlLayout { crc: 292, ..CONTROL_1300 };

/// 19 has a larger checkpoint, `slru_pages_per_segment`, and one more word after the checksums.
const CONTROL_1905: ControlLayout = ControlLayout {
    checkpoint_size: 96,
    min_recovery_point: 144,
    wal_log_hints: 184,
    block_size: 224,
    wal_page_size: 236,
    data_checksums: 264,
    crc: 308,
};

const V13: MajorFacts = MajorFacts {
    major: Major::V13,
    released: true,
    control_version: 1300,
    catalog_versions: 202_007_201..=202_007_201,
    wal_magic: 0xD106,
    page_info_mask: 0x000F,
    overwrite_contrecord: 0x0008,
    last_resource_manager: 21,
    custom_resource_managers: false,
    toplevel_xid: false,
    image_flags: ImageFlags { compressed: 0x02, apply: 0x04 },
    database_operations: &[0x00, 0x10],
    transactions_flag_relation_files: false,
    dropped_statistics_item: 0,
    pads_lsn: false,
    rewind_sets_time: false,
    control: CONTROL_1300,
    slot: SLOT_13,
};

const V14: MajorFacts = MajorFacts {
    major: Major::V14,
    catalog_versions: 202_107_181..=202_107_181,
    wal_magic: 0xD10D,
    toplevel_xid: true,
    transactions_flag_relation_files: true,
    slot: SLOT_14,
    ..V13
};

const V15: MajorFacts = MajorFacts {
    major: Major::V15,
    catalog_versions: 202_209_061..=202_209_061,
    wal_magic: 0xD110,
    custom_resource_managers: true,
    image_flags: ImageFlags { compressed: 0x1C, apply: 0x02 },
    database_operations: &[0x00, 0x10, 0x20],
    dropped_statistics_item: 12,
    rewind_sets_time: true,
    ..V14
};

const V16: MajorFacts = MajorFacts {
    major: Major::V16,
    catalog_versions: 202_307_071..=202_307_071,
    wal_magic: 0xD113,
    slot: SLOT_16,
    ..V15
};

const V17: MajorFacts = MajorFacts {
    major: Major::V17,
    control_version: 1700,
    catalog_versions: 202_406_281..=202_406_281,
    wal_magic: 0xD116,
    slot: SLOT_17,
    ..V16
};

const V18: MajorFacts = MajorFacts {
    major: Major::V18,
    control_version: 1800,
    catalog_versions: 202_506_291..=202_506_291,
    wal_magic: 0xD118,
    dropped_statistics_item: 16,
    control: CONTROL_1800,
    ..V17
};

const V19: MajorFacts = MajorFacts {
    major: Major::V19,
    released: false,
    control_version: 1905,
    catalog_versions: 202_600_000..=202_699_999,
    wal_magic: 0xD122,
    page_info_mask: 0x0007,
    overwrite_contrecord: 0x0004,
    pads_lsn: true,
    control: CONTROL_1905,
    ..V18
};

impl Major {
    /// Every major, oldest first.
    pub const ALL: [Self; 7] = [Self::V13, Self::V14, Self::V15, Self::V16, Self::V17, Self::V18, Self::V19];

    /// The version number: 13, 14 …
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V13 => 13,
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
            Self::V19 => 19,
        }
    }

    /// The facts about this major.
    #[must_use]
    pub const fn facts(self) -> &'static MajorFacts {
        match self {
            Self::V13 => &V13,
            Self::V14 => &V14,
            Self::V15 => &V15,
            Self::V16 => &V16,
            Self::V17 => &V17,
            Self::V18 => &V18,
            Self::V19 => &V19,
        }
    }

    /// The major whose control files carry these two versions: 13 to 16 share a control version,
    /// only the catalog version tells them apart.
    #[must_use]
    pub fn identify(control_version: u32, catalog_version: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|major| {
            let facts = major.facts();
            facts.control_version == control_version && facts.catalog_versions.contains(&catalog_version)
        })
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_major_is_identified_by_its_own_row() {
        for (index, major) in Major::ALL.into_iter().enumerate() {
            let facts = major.facts();
            assert_eq!(facts.major, major);
            assert_eq!(major.number() as usize, 13 + index);
            assert_eq!(Major::identify(facts.control_version, *facts.catalog_versions.start()), Some(major));
        }
        assert_eq!(Major::identify(1300, 202_007_202), None);
        assert_eq!(Major::identify(1201, 201_909_212), None);
    }
}
