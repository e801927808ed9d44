//! Masking (section 5.3).

/// Appends `masked` to `plain` with the mask taken off; the mask turned, for the byte that comes next.
pub(super) fn append_unmasked(masked: &[u8], mask: [u8; 4], plain: &mut Vec<u8>) -> [u8; 4] {
    let start = plain.len();
    plain.extend_from_slice(masked);
    unmask(&mut plain[start..], mask);
    let mut turned = mask;
    turned.rotate_left(masked.len() % 4);
    turned
}

/// Takes the mask off, eight bytes at a time (and more: the compiler makes vectors of it).
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[test]
fn as_the_rfc_says() {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let bytes = (0..100).collect::<Vec<u8>>();
    for cut in 0..bytes.len() {
        let mut plain = Vec::new();
        let turned = append_unmasked(&bytes[..cut], mask, &mut plain);
        append_unmasked(&bytes[cut..], turned, &mut plain);
        for (index, byte) in bytes.iter().enumerate() {
            assert_eq!(plain[index], byte ^ mask[index % 4]);
        }
    }
}
