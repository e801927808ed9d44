//! Byte-exact packets of every type and version, and packets that must be refused.

mod accepted_v3;
mod accepted_v5;
mod refused_v3;
mod refused_v5;

use super::*;
use crate::packet_id::PacketId;

/// The packet identifier of all examples.
pub(super) fn id() -> PacketId {
    PacketId::new(0x1234).expect("not zero")
}

/// Decodes one whole packet as a receiver does.
pub(super) fn decode(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    decode_with(version, bytes, &DecodeLimits::default())
}

/// Decodes one whole packet with these limits.
pub(super) fn decode_with<'a>(
    version: ProtocolVersion,
    bytes: &'a [u8],
    limits: &DecodeLimits,
) -> Result<Packet<'a>, DecodeError> {
    let header = FrameHeader::peek(bytes)?.expect("the example has a whole fixed header");
    assert_eq!(header.total_len(), bytes.len(), "the example has a right remaining length");
    Packet::decode(&header, &bytes[header.header_len..], version, limits)
}

/// The bytes decode to the packet, the packet encodes to the bytes, and no part of them is taken for a packet.
#[track_caller]
pub(super) fn assert_same(version: ProtocolVersion, bytes: &[u8], packet: &Packet<'_>) {
    assert_eq!(decode(version, bytes).as_ref(), Ok(packet));
    let mut encoded = vec![];
    packet.encode(version, &mut encoded);
    assert_eq!(encoded, bytes);
    for len in 0..bytes.len() {
        let header = FrameHeader::peek(&bytes[..len]).expect("a part is not an error");
        assert!(header.is_none_or(|header| header.total_len() > len));
    }
}

/// A packet with this first byte and body, for bodies below 128 bytes.
pub(super) fn frame(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).expect("short");
    assert!(len < 128);
    [&[first_byte, len], body].concat()
}

/// The error the packet of this first byte and body gives.
#[track_caller]
pub(super) fn refusal(version: ProtocolVersion, first_byte: u8, body: &[u8]) -> DecodeError {
    let bytes = frame(first_byte, body);
    match decode(version, &bytes) {
        Ok(packet) => panic!("taken for {packet:?}"),
        Err(error) => error,
    }
}

/// One byte off the end of the body, the remaining length made right again: an error for packets whose last field
/// has a length.
#[track_caller]
pub(super) fn assert_cut_is_refused(version: ProtocolVersion, bytes: &[u8]) {
    for len in 2..bytes.len() {
        let part = frame(bytes[0], &bytes[2..len]);
        assert!(decode(version, &part).is_err(), "cut to {len} bytes it is taken for a packet");
    }
}

/// Packets small enough for the stack of a tick, and errors small enough to be returned by value.
#[test]
fn types_stay_small() {
    assert!(size_of::<Publish<'_>>() <= 128, "{}", size_of::<Publish<'_>>());
    assert!(size_of::<Packet<'_>>() <= 320, "{}", size_of::<Packet<'_>>());
    assert!(size_of::<DecodeError>() <= 32, "{}", size_of::<DecodeError>());
}
