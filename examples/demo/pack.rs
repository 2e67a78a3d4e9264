//! The pair that comes with the demo, and where it lies once it is unpacked.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use pg_unfork::error::{Context, Result};

/// Both data directories, and what stock pg_rewind made of two files. See `make_pair`.
const PACK: &[u8] = include_bytes!("pair.tar.zst");

/// The major that the pair was made with.
pub(crate) const MAJOR: &str = "18";

/// The unpacked pair.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The old primary: what is to be rewound.
    pub(crate) target: PathBuf,
    /// The promoted standby.
    pub(crate) source: PathBuf,
    /// The control file and the `backup_label` that stock pg_rewind left.
    pub(crate) stock: PathBuf,
}

/// Unpacks the pair below a directory.
pub(crate) fn unpack(below: &Path) -> Result<Pair> {
    let tar =
        ruzstd::decoding::StreamingDecoder::new(Cursor::new(PACK)).context(|| "cannot read the pack".to_owned())?;
    let mut archive = tar::Archive::new(tar);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(false);
    archive.unpack(below).context(|| format!("cannot unpack the pair below {}", below.display()))?;
    Ok(Pair { target: below.join("target"), source: below.join("source"), stock: below.join("stock") })
}

/// Bytes of the pack.
pub(crate) fn packed_size() -> u64 {
    PACK.len() as u64
}
