//! From a manifest to its bytes.

use std::io::{self, BufWriter, Write as _};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::Manifest;
use super::hash::digest;
use crate::error::{Context, Result};

/// Fills in a manifest's digest.
///
/// # Errors
/// Only where a value cannot be JSON, which no manifest of this program holds.
pub fn identify(manifest: &mut Manifest) -> Result<()> {
    manifest.digest = digest(manifest).context(|| "cannot compute the manifest's digest".to_owned())?;
    Ok(())
}

/// Writes the document of a manifest. The same manifest gives the same bytes, and they are never all in memory.
///
/// # Errors
/// When they cannot be written.
pub fn write_json(manifest: &Manifest, to: &mut dyn io::Write) -> io::Result<()> {
    write_lines(manifest, to)
}

/// Writes a document as manifests are written.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_lines(document: &impl Serialize, to: &mut dyn io::Write) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(BUFFER, to);
    document.serialize(&mut Serializer::with_formatter(&mut writer, Lines::default()))?;
    writer.write_all(b"\n")?;
    writer.flush()
}

/// The document of a manifest, with its digest filled in.
///
/// # Errors
/// As [`identify`].
pub fn to_json(manifest: &mut Manifest) -> Result<Vec<u8>> {
    identify(manifest)?;
    let mut bytes = Vec::new();
    write_json(manifest, &mut bytes).context(|| "cannot write the manifest".to_owned())?;
    Ok(bytes)
}

/// Bytes that are written at a time.
const BUFFER: usize = 64 << 10;

/// One line per key of the document and per array element, so that `diff` reads well. An array
/// inside an array (a block range) stays on its line.
#[derive(Debug, Default)]
struct Lines {
    objects: usize,
    arrays: usize,
}

impl Formatter for Lines {
    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.objects += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.objects -= 1;
        writer.write_all(if self.objects == 0 { b"\n}" } else { b"}" })
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        writer.write_all(if self.objects == 1 { b"\n" } else { b"" })
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.arrays += 1;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.arrays -= 1;
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        // actions[] and actions[].blocks[] break lines, the pair in blocks[][] does not.
        writer.write_all(if self.arrays <= self.objects { b"\n" } else { b"" })
    }
}
