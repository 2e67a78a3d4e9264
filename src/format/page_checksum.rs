//! The checksum of a data page (`pg_checksum_page`), the same from 13 to 19.

/// Starting values of the 32 sums (`checksumBaseOffsets`).
const BASES: [u32; 32] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// The prime of the FNV hash that the sums are built on.
const FNV_PRIME: u32 = 16_777_619;

/// Where a page keeps its checksum (`pd_checksum`).
const CHECKSUM_OFFSET: usize = 8;

/// The checksum that `page` must carry as block `block` of its relation.
///
/// `block` counts within the relation, not within the file. The stored checksum does not count.
/// A new page (`pd_upper` zero) has none: the caller looks. `None` where the page is no multiple
/// of 128 bytes.
#[must_use]
pub fn page_checksum(page: &[u8], block: u32) -> Option<u16> {
    if page.is_empty() || !page.len().is_multiple_of(BASES.len() * 4) {
        return None;
    }
    let round = |sum: &mut u32, word: u32| {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    };
    let mut sums = BASES;
    let (words, _) = page.as_chunks::<4>();
    for (row, words) in words.chunks_exact(sums.len()).enumerate() {
        for (column, (sum, word)) in sums.iter_mut().zip(words).enumerate() {
            let is_checksum = row == 0 && column == CHECKSUM_OFFSET / 4;
            let mask = if is_checksum { 0xFFFF_0000 } else { u32::MAX };
            round(sum, u32::from_le_bytes(*word) & mask);
        }
    }
    for sum in &mut sums {
        round(sum, 0);
        round(sum, 0);
    }
    let folded = sums.iter().fold(block, |all, sum| all ^ sum);
    u16::try_from(folded % 65535 + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_server() {
        let zeros = vec![0; 8192];
        let ramp: Vec<u8> = (0..8192u32).map(|i| (i & 255) as u8).collect();
        let steps: Vec<u8> = (0..8192u32).map(|i| ((7 * i + 13) & 255) as u8).collect();
        let cases = [
            (&zeros, 0, 0xC6AA),
            (&zeros, 1, 0xC6AB),
            (&ramp, 0, 0xE706),
            (&ramp, 7, 0xE70D),
            (&ramp, 131_071, 0xA2F5),
            (&steps, 0, 0x96D7),
            (&steps, 100_000, 0x1437),
            (&steps, 4_294_967_294, 0x692B),
        ];
        for (page, block, expected) in cases {
            assert_eq!(page_checksum(page, block), Some(expected), "block {block}");
        }
        assert_eq!(page_checksum(&zeros[..100], 0), None);
        assert_eq!(page_checksum(&[], 0), None);
    }
}
