//! CRC-32C (Castagnoli), as RFC 4960 appendix B has it. Headers are short: a table of 256 words is plenty.

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut word = index as u32;
        let mut bit = 0;
        while bit < 8 {
            word = if word & 1 == 1 { (word >> 1) ^ 0x82F6_3B78 } else { word >> 1 };
            bit += 1;
        }
        table[index] = word;
        index += 1;
    }
    table
};

/// The checksum of all these pieces in order.
pub(super) fn crc32c(pieces: &[&[u8]]) -> u32 {
    !pieces
        .iter()
        .copied()
        .flatten()
        .fold(!0, |crc: u32, byte| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}

#[test]
fn check_value() {
    assert_eq!(crc32c(&[b"12345", b"6789"]), 0xE306_9283);
}
