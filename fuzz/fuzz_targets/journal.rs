//! Journals of applies: bytes as they are, and records in frames whose sum is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_unfork::apply::bytes_journaled;
use pg_unfork::cluster::ReadAt;
use pg_unfork::error::Result;

struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    fn length(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// A frame, as an apply writes it.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&length), payload).to_le_bytes();
    [b"pguf", &length[..], &crc, payload].concat()
}

fuzz_target!(|data: &[u8]| {
    let [mode, data @ ..] = data else { return };
    if *mode == 0 {
        let _ = bytes_journaled(&Bytes(data));
        return;
    }
    let frames: Vec<Vec<u8>> = data.chunks(usize::from(*mode)).map(frame).collect();
    let whole = frames.concat();
    let Ok(bytes) = bytes_journaled(&Bytes(&whole)) else { return };
    // What is torn does not count, and nothing else is lost by it.
    let last = frames.last().map_or(0, Vec::len);
    let before = bytes_journaled(&Bytes(&whole[..whole.len() - last])).expect("read before");
    let torn = bytes_journaled(&Bytes(&whole[..whole.len().saturating_sub(1)])).expect("a torn end is no damage");
    assert_eq!(torn, before);
    assert_eq!(bytes_journaled(&Bytes(&whole)).expect("read before"), bytes);
});
