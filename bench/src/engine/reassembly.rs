//! Packets out of a stream of bytes that comes in any pieces.

use crate::wire::{self, Malformed};

/// A packet takes at least this many bytes before its length is known.
const HEADER_MAX: usize = 5;

/// Length of the whole packet that begins here; `None`: the header is not there yet.
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut body_len = 0;
    for (index, byte) in bytes.iter().skip(1).take(HEADER_MAX - 1).enumerate() {
        body_len |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(2 + index + body_len));
        }
    }
    if bytes.len() >= HEADER_MAX { Err(Malformed) } else { Ok(None) }
}

/// Moves bytes to the begun packet in `partial` until it is whole; only those of that packet. Gives how many.
pub fn complete(partial: &mut Vec<u8>, bytes: &[u8]) -> Result<usize, Malformed> {
    let mut used = 0;
    loop {
        if let Some(len) = packet_len(partial)? {
            let more = len.saturating_sub(partial.len()).min(bytes.len() - used);
            partial.extend_from_slice(&bytes[used..used + more]);
            return Ok(used + more);
        }
        let Some(byte) = bytes.get(used) else { return Ok(used) };
        partial.push(*byte);
        used += 1;
    }
}

/// The packet at the begin of `bytes`, if it is whole.
pub fn first(bytes: &[u8]) -> Result<Option<wire::Frame<'_>>, Malformed> {
    wire::frame(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_completed_from_any_pieces_and_no_further() {
        let mut packet = vec![0x30, 0x80 | 100, 1];
        packet.extend_from_slice(&[7; 228]);
        let mut stream = packet.clone();
        stream.extend_from_slice(&[0xD0, 0]);
        for cut in 1..packet.len() {
            let mut partial = stream[..cut].to_vec();
            let used = complete(&mut partial, &stream[cut..]).expect("well formed");
            assert_eq!(partial, packet, "cut at {cut}");
            assert_eq!(used, packet.len() - cut);
        }
        let mut partial = Vec::new();
        for byte in &packet {
            assert!(first(&partial).expect("well formed").is_none());
            assert_eq!(complete(&mut partial, &[*byte]).expect("well formed"), 1);
        }
        assert_eq!(first(&partial).expect("well formed").expect("whole").len, packet.len());
    }

    #[test]
    fn a_length_of_five_bytes_is_malformed() {
        assert!(packet_len(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]).is_err());
        assert!(matches!(packet_len(&[0x30, 0xFF, 0xFF, 0xFF]), Ok(None)));
        assert!(matches!(packet_len(&[0x30]), Ok(None)));
        assert!(matches!(packet_len(&[0xD0, 0]), Ok(Some(2))));
    }
}
