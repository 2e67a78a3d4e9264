//! Frames: how the state directory's logs are written, so that a torn end is told from damage.
//!
//! A frame is the magic `pguf`, the payload's length (u32), the CRC-32C of length and payload (u32), both
//! little-endian, and the payload. A log is frames, one after the other.

use crate::cluster::ReadAt;
use crate::error::Result;

/// What each frame begins with.
const MAGIC: [u8; 4] = *b"pguf";
/// Bytes before the payload.
const HEADER: usize = 12;
/// The largest payload, in bytes. A log's reader holds no more.
pub(super) const LARGEST_PAYLOAD: usize = 4 << 20;
/// Bytes read of a log at a time where damage is looked at.
const WINDOW: usize = 1 << 20;

/// The bytes of a frame with this payload, of at most [`LARGEST_PAYLOAD`] bytes.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    append_frame(&mut bytes, payload, &[]);
    bytes
}

/// Appends a frame whose payload is in two parts.
pub(super) fn append_frame(to: &mut Vec<u8>, head: &[u8], rest: &[u8]) {
    let length = u32::try_from(head.len() + rest.len()).unwrap_or(u32::MAX).to_le_bytes();
    let crc = [head, rest].into_iter().fold(crc32c::crc32c(&length), crc32c::crc32c_append).to_le_bytes();
    for part in [&MAGIC[..], &length, &crc, head, rest] {
        to.extend_from_slice(part);
    }
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a whole frame.
    Whole {
        /// The log's length, in bytes.
        length: u64,
    },
    /// With a frame that was being written; it does not count.
    Torn {
        /// The end of the last whole frame, in bytes.
        length: u64,
    },
    /// Whole frames come after something that is none: not the work of a crash.
    Damaged {
        /// Where the damage begins, in bytes.
        offset: u64,
    },
}

/// Shows every whole frame's payload to `visit`, up to the first that is none.
pub(super) fn read_frames(log: &dyn ReadAt, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<End> {
    let length = log.length()?;
    let mut offset = 0;
    let mut payload = Vec::new();
    while offset < length {
        let Some(next) = read_frame(log, offset, &mut payload)? else {
            return Ok(if whole_frame_after(log, offset, length)? {
                End::Damaged { offset }
            } else {
                End::Torn { length: offset }
            });
        };
        visit(&payload)?;
        offset = next;
    }
    Ok(End::Whole { length })
}

/// Reads the frame at `offset`; gives where the next one begins, none where there is no whole frame.
fn read_frame(log: &dyn ReadAt, offset: u64, payload: &mut Vec<u8>) -> Result<Option<u64>> {
    let mut header = [0; HEADER];
    if log.read_at(&mut header, offset)? < HEADER {
        return Ok(None);
    }
    let [m0, m1, m2, m3, l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let bytes = [l0, l1, l2, l3];
    let length = u32::from_le_bytes(bytes) as usize;
    if [m0, m1, m2, m3] != MAGIC || length > LARGEST_PAYLOAD {
        return Ok(None);
    }
    payload.resize(length, 0);
    let whole = log.read_at(payload, offset + HEADER as u64)? == length;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload);
    let sound = whole && crc == u32::from_le_bytes([c0, c1, c2, c3]);
    Ok(sound.then_some(offset + (HEADER + length) as u64))
}

/// Whether a whole frame begins anywhere after `offset`.
fn whole_frame_after(log: &dyn ReadAt, offset: u64, length: u64) -> Result<bool> {
    let mut window = vec![0; WINDOW];
    let mut payload = Vec::new();
    let mut from = offset + 1;
    while from < length {
        let got = log.read_at(&mut window, from)?;
        let bytes = window.get(..got).unwrap_or_default();
        for (at, _) in bytes.windows(MAGIC.len()).enumerate().filter(|(_, found)| *found == MAGIC) {
            if read_frame(log, from + at as u64, &mut payload)?.is_some() {
                return Ok(true);
            }
        }
        if got < MAGIC.len() {
            break;
        }
        from += (got - MAGIC.len() + 1) as u64;
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn log() -> (Vec<u8>, Vec<usize>) {
        let mut log = Vec::new();
        let mut ends = Vec::new();
        for payload in [&b"first"[..], b"", b"the third, longer", b"4"] {
            log.extend(frame(payload));
            ends.push(log.len());
        }
        (log, ends)
    }

    fn read(bytes: &[u8]) -> (usize, End) {
        let mut count = 0;
        let mut visit = |_: &[u8]| {
            count += 1;
            Ok(())
        };
        let end = read_frames(&Bytes(bytes), &mut visit).unwrap();
        (count, end)
    }

    struct Bytes<'a>(&'a [u8]);

    impl ReadAt for Bytes<'_> {
        fn length(&self) -> Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            let rest = self.0.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    #[test]
    fn a_log_cut_anywhere_ends_with_its_last_whole_frame() {
        let (log, ends) = log();
        for cut in 0..=log.len() {
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            let last = if whole == 0 { 0 } else { ends[whole - 1] } as u64;
            let expected = if last == cut as u64 { End::Whole { length: last } } else { End::Torn { length: last } };
            assert_eq!(read(&log[..cut]), (whole, expected), "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage_but_in_the_last_frame() {
        let (log, ends) = log();
        for at in 0..log.len() {
            for bit in 0..8 {
                let mut flipped = log.clone();
                flipped[at] ^= 1 << bit;
                let hit = ends.iter().filter(|&&end| end <= at).count();
                let begin = if hit == 0 { 0 } else { ends[hit - 1] } as u64;
                let expected = if hit == 3 { End::Torn { length: begin } } else { End::Damaged { offset: begin } };
                assert_eq!(read(&flipped), (hit, expected), "bit {bit} of byte {at}");
            }
        }
    }
}
