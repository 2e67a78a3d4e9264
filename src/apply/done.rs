//! What of a file is written, piece by piece, in as few of the journal's records as can be.

use super::journal::Copied;

/// The pieces of a file that are written, as the journal will have them.
#[derive(Default)]
pub(super) struct Done {
    records: Vec<Copied>,
    /// The record that grows piece by piece; its bytes and sum are those of the piece that is being written, too.
    growing: Option<Copied>,
    /// Bytes and sum of `growing` before that piece, where one is being written.
    before_piece: Option<(u64, u32)>,
}

impl Done {
    /// These, and none is being written.
    pub(super) fn of(records: Vec<Copied>) -> Self {
        Self { records, ..Self::default() }
    }

    /// Whether no piece is being written.
    pub(super) fn is_between_pieces(&self) -> bool {
        self.before_piece.is_none()
    }

    /// A piece begins, or begins again.
    pub(super) fn begin(&mut self, action: u32, piece: u32) {
        if let (Some((bytes, crc)), Some(growing)) = (self.before_piece, &mut self.growing) {
            (growing.bytes, growing.crc) = (bytes, crc.to_le_bytes());
            return;
        }
        if self.growing.as_ref().is_none_or(|growing| growing.first + growing.count != piece) {
            self.records.extend(self.growing.take());
        }
        let fresh = Copied { action, first: piece, count: 0, bytes: 0, crc: [0; 4], gone: false };
        let growing = self.growing.get_or_insert(fresh);
        self.before_piece = Some((growing.bytes, u32::from_le_bytes(growing.crc)));
    }

    /// The sum so far.
    pub(super) fn crc(&self) -> u32 {
        self.growing.as_ref().map_or(0, |growing| u32::from_le_bytes(growing.crc))
    }

    /// So many more bytes were written, with which the sum is this.
    pub(super) fn wrote(&mut self, bytes: u64, crc: u32) {
        if let Some(growing) = &mut self.growing {
            growing.bytes += bytes;
            growing.crc = crc.to_le_bytes();
        }
    }

    /// The piece, of which so many bytes were asked, ends. One that came short stands alone, so that each of the
    /// others is known to be whole.
    pub(super) fn end(&mut self, asked: Option<u64>) {
        let (Some((bytes, crc)), Some(mut growing)) = (self.before_piece.take(), self.growing.take()) else { return };
        let length = growing.bytes - bytes;
        if asked == Some(length) || growing.count == 0 {
            growing.count += 1;
            if asked == Some(length) {
                self.growing = Some(growing);
            } else {
                self.records.push(growing);
            }
            return;
        }
        let shifted = crc32c::crc32c_combine(crc, 0, usize::try_from(length).unwrap_or(usize::MAX));
        let alone = u32::from_le_bytes(growing.crc) ^ shifted;
        let (action, piece) = (growing.action, growing.first + growing.count);
        self.records.push(Copied { bytes, crc: crc.to_le_bytes(), ..growing });
        self.records.push(Copied {
            action,
            first: piece,
            count: 1,
            bytes: length,
            crc: alone.to_le_bytes(),
            gone: false,
        });
    }

    /// All pieces that are whole.
    pub(super) fn take(&mut self) -> Vec<Copied> {
        if let (Some((bytes, crc)), Some(growing)) = (self.before_piece.take(), &mut self.growing) {
            (growing.bytes, growing.crc) = (bytes, crc.to_le_bytes());
        }
        let growing = self.growing.take().filter(|growing| growing.count > 0);
        self.records.extend(growing);
        std::mem::take(&mut self.records)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Writes pieces `(asked, got)` one after the other; `(first, count, bytes)` of each record, whose sums must be
    /// those of what was written.
    fn records(pieces: &[(Option<u64>, &[u8])]) -> Vec<(u32, u32, u64)> {
        let mut done = Done::default();
        for (number, (asked, got)) in pieces.iter().enumerate() {
            // Begun twice: a connection was lost in between.
            for _ in 0..2 {
                done.begin(7, u32::try_from(number).unwrap());
                for byte in got.chunks(1) {
                    done.wrote(1, crc32c::crc32c_append(done.crc(), byte));
                }
            }
            done.end(*asked);
        }
        done.begin(7, u32::try_from(pieces.len()).unwrap());
        done.wrote(3, 12345);
        let records = done.take();
        for record in &records {
            let from = record.first as usize;
            let written: Vec<u8> =
                pieces.iter().skip(from).take(record.count as usize).flat_map(|(_, got)| got.to_vec()).collect();
            assert_eq!(u32::from_le_bytes(record.crc), crc32c::crc32c(&written), "{record:?}");
        }
        records.into_iter().map(|record| (record.first, record.count, record.bytes)).collect()
    }

    #[test]
    fn whole_pieces_share_a_record_and_short_ones_stand_alone() {
        let whole = |bytes: &'static [u8]| (Some(bytes.len() as u64), bytes);
        assert_eq!(records(&[]), []);
        assert_eq!(records(&[whole(b"abc"), whole(b"de"), whole(b"f")]), [(0, 3, 6)]);
        assert_eq!(records(&[whole(b"abc"), (Some(5), b"de"), whole(b"f")]), [(0, 1, 3), (1, 1, 2), (2, 1, 1)]);
        assert_eq!(records(&[(Some(5), b""), whole(b"f"), (None, b"ghi")]), [(0, 1, 0), (1, 1, 1), (2, 1, 3)]);
        assert_eq!(records(&[(None, b"abc")]), [(0, 1, 3)]);
    }
}
