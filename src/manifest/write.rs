//! From a manifest to its bytes.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::{Manifest, digest_of};
use crate::error::{Context, Result};

/// The document of a manifest, with its digest filled in. The same manifest gives the same bytes.
///
/// # Errors
/// Only where a value cannot be JSON, which no manifest of this program holds.
pub fn to_json(manifest: &mut Manifest) -> Result<Vec<u8>> {
    manifest.digest = digest_of(&render(manifest)?).context(|| "cannot compute the manifest's digest".to_owned())?;
    render(manifest)
}

fn render(manifest: &Manifest) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, Lines::default());
    manifest.serialize(&mut serializer).context(|| "cannot write the manifest".to_owned())?;
    bytes.push(b'\n');
    Ok(bytes)
}

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
