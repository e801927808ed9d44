//! What any version refuses, and what only 3.1 and 3.1.1 refuse.

use super::*;
use crate::topic::TopicError;

const V4: ProtocolVersion = ProtocolVersion::V3_1_1;

fn connect_error(body: &[u8]) -> DecodeError {
    refusal(V4, 0x10, body)
}

#[test]
fn protocol_name_and_level() {
    let error = connect_error(b"\0\x04MQTX\x04\x02\0\x3c\0\x02c1");
    assert_eq!(error, DecodeError::UnknownProtocolName);
    assert_eq!(error.reason_code(), ReasonCode::UnsupportedProtocolVersion);
    for (name, level) in [
        (&b"\0\x04MQTT"[..], 0),
        (b"\0\x04MQTT", 3),
        (b"\0\x04MQTT", 6),
        (b"\0\x04MQTT", 0x85),
        (b"\0\x06MQIsdp", 4),
        (b"\0\x06MQIsdp", 5),
    ] {
        let error = connect_error(&[name, &[level], b"\x02\0\x3c\0\x02c1"].concat());
        assert_eq!(error, DecodeError::UnsupportedProtocolVersion(level));
        assert_eq!(error.reason_code(), ReasonCode::UnsupportedProtocolVersion);
        assert_eq!(error.reason_code().v3_connack_code(), 1);
    }
}

#[test]
fn connect_flags() {
    // Reserved bit, will QoS without will, will retain without will, will QoS 3.
    for (flags, payload) in
        [(0x03, &b""[..]), (0x0a, b""), (0x12, b""), (0x22, b""), (0x1e, b"\0\x01w\0\0")]
    {
        let head = [&b"\0\x04MQTT\x04"[..], &[flags], b"\0\x3c\0\x02c1", payload].concat();
        assert_eq!(connect_error(&head), DecodeError::ConnectFlags(flags));
    }
    let error = connect_error(b"\0\x04MQTT\x04\x42\0\x3c\0\x02c1\0\x01p");
    assert_eq!(error, DecodeError::PasswordWithoutUsername);
}

#[test]
fn connect_payload() {
    let head = b"\0\x04MQTT\x04\x06\0\x3c";
    let with = |rest: &[u8]| connect_error(&[head, rest].concat());
    assert_eq!(with(b""), DecodeError::Truncated("client identifier"));
    assert_eq!(with(b"\0\x02c1"), DecodeError::Truncated("will topic"));
    let wildcard = DecodeError::TopicName(TopicError::WildcardInName);
    assert_eq!(with(b"\0\x02c1\0\x01#\0\0"), wildcard);
    assert_eq!(with(b"\0\x02c1\0\0\0\0"), DecodeError::TopicName(TopicError::Empty));
    assert_eq!(with(b"\0\x02c\xff\0\x01w\0\0"), DecodeError::InvalidUtf8("client identifier"));
    assert_eq!(with(b"\0\x02c\0\0\x01w\0\0"), DecodeError::NullCharacter("client identifier"));
    // A surrogate (U+D800) is not UTF-8.
    assert_eq!(
        with(b"\0\x03\xed\xa0\x80\0\x01w\0\0"),
        DecodeError::InvalidUtf8("client identifier")
    );
    let trailing = DecodeError::TrailingBytes { packet_type: PacketType::Connect, len: 1 };
    assert_eq!(with(b"\0\x02c1\0\x01w\0\0x"), trailing);
}

#[test]
fn flags_in_the_first_byte() {
    for first in 0x10..=0xff_u8 {
        let Some(packet_type) = PacketType::from_u8(first >> 4) else { unreachable!() };
        let flags = first & 15;
        let is_allowed = match packet_type {
            PacketType::Publish => flags >> 1 & 3 != 3,
            PacketType::PubRel => matches!(flags, 0 | 2 | 10),
            PacketType::Subscribe | PacketType::Unsubscribe => matches!(flags, 2 | 10),
            _ => flags == 0,
        };
        assert_eq!(FrameHeader::peek(&[first]).is_ok(), is_allowed, "{first:#x}");
    }
    assert_eq!(FrameHeader::peek(&[0x0f]), Err(DecodeError::UnknownPacketType(0)));
    assert_eq!(FrameHeader::peek(&[0x36]), Err(DecodeError::PublishQos3));
    // DUP is for 3.1 only.
    let error = refusal(V4, 0x8a, b"\x12\x34\0\x01a\0");
    assert_eq!(error, DecodeError::ReservedFlags { packet_type: PacketType::Subscribe, flags: 10 });
    assert_eq!(refusal(V4, 0x6a, b"\x12\x34").reason_code(), ReasonCode::MalformedPacket);
}

#[test]
fn remaining_length() {
    assert_eq!(FrameHeader::peek(&[]), Ok(None));
    assert_eq!(FrameHeader::peek(b"\x30\xff\xff\xff"), Ok(None));
    let error = FrameHeader::peek(b"\x30\xff\xff\xff\xff");
    assert_eq!(error, Err(DecodeError::RemainingLengthTooLong));
    let header = FrameHeader::peek(b"\x30\xff\xff\xff\x7f").ok().flatten().expect("whole");
    assert_eq!(header.total_len(), crate::MAX_PACKET_LEN);
    let error = header.check_size(1_000).expect_err("too large");
    assert_eq!(error.reason_code(), ReasonCode::PacketTooLarge);
    assert_eq!(header.check_size(crate::MAX_PACKET_LEN), Ok(()));
}

#[test]
fn publish() {
    assert_eq!(refusal(V4, 0x38, b"\0\x01a"), DecodeError::DupWithQos0);
    assert_eq!(refusal(V4, 0x30, b"\0\0x"), DecodeError::TopicName(TopicError::Empty));
    let error = refusal(V4, 0x30, b"\0\x03a/+");
    assert_eq!(error, DecodeError::TopicName(TopicError::WildcardInName));
    assert_eq!(error.reason_code(), ReasonCode::TopicNameInvalid);
    assert_eq!(refusal(V4, 0x30, b"\0\x02a\0"), DecodeError::NullCharacter("topic name"));
    assert_eq!(refusal(V4, 0x30, b"\0\x02a\xc0"), DecodeError::InvalidUtf8("topic name"));
    assert_eq!(refusal(V4, 0x30, b"\0\x02a"), DecodeError::Truncated("topic name"));
    assert_eq!(refusal(V4, 0x30, b"\0"), DecodeError::Truncated("topic name"));
    assert_eq!(refusal(V4, 0x32, b"\0\x01a\0"), DecodeError::Truncated("packet identifier"));
    let zero = DecodeError::ZeroPacketId(PacketType::Publish);
    assert_eq!(refusal(V4, 0x34, b"\0\x01a\0\0"), zero);
}

#[test]
fn publish_limits() {
    let limits = DecodeLimits { topic_levels_max: 2, topic_len_max: 4, ..DecodeLimits::UNLIMITED };
    assert!(decode_with(V4, b"\x30\x06\0\x04a/bc", &limits).is_ok());
    let error = decode_with(V4, b"\x30\x06\0\x04a//c", &limits);
    let levels = TopicError::TooManyLevels { levels: 3, max: 2 };
    assert_eq!(error, Err(DecodeError::TopicName(levels)));
    let error = decode_with(V4, b"\x30\x07\0\x05abcde", &limits);
    let len = TopicError::TooLong { len: 5, max: 4 };
    assert_eq!(error, Err(DecodeError::TopicName(len)));
}

#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        assert_eq!(refusal(V4, first, b"\0\0").reason_code(), ReasonCode::ProtocolError);
        assert_eq!(refusal(V4, first, b"\0"), DecodeError::Truncated("packet identifier"));
        let error = refusal(V4, first, b"\0\x01\0");
        assert!(matches!(error, DecodeError::TrailingBytes { len: 1, .. }));
    }
}

#[test]
fn subscribe() {
    let none = DecodeError::NoFilters(PacketType::Subscribe);
    assert_eq!(refusal(V4, 0x82, b"\x12\x34"), none);
    assert_eq!(none.reason_code(), ReasonCode::ProtocolError);
    assert_eq!(
        refusal(V4, 0x82, b"\0\0\0\x01a\0"),
        DecodeError::ZeroPacketId(PacketType::Subscribe)
    );
    for bits in [0x04, 0x08, 0x10, 0x40, 0x80] {
        let error = refusal(V4, 0x82, &[0x12, 0x34, 0, 1, b'a', bits]);
        assert_eq!(error, DecodeError::SubscribeOptionsReserved(bits));
    }
    let error = refusal(V4, 0x82, b"\x12\x34\0\x01a\x03");
    assert_eq!(error, DecodeError::SubscribeQos3(3));
    let error = refusal(V4, 0x82, b"\x12\x34\0\x01a");
    assert_eq!(error, DecodeError::Truncated("subscription options"));
    let error = refusal(V4, 0x82, b"\x12\x34\0\x01\0\0");
    assert_eq!(error, DecodeError::NullCharacter("topic filter"));
    let limits = DecodeLimits { filters_per_packet_max: 1, ..DecodeLimits::default() };
    assert!(decode_with(V4, b"\x82\x06\x12\x34\0\x01a\0", &limits).is_ok());
    let error = decode_with(V4, b"\x82\x0a\x12\x34\0\x01a\0\0\x01b\0", &limits);
    let error = error.expect_err("two filters");
    assert_eq!(error.reason_code(), ReasonCode::QuotaExceeded);
}

#[test]
fn unsubscribe() {
    let none = DecodeError::NoFilters(PacketType::Unsubscribe);
    assert_eq!(refusal(V4, 0xa2, b"\x12\x34"), none);
    assert_eq!(refusal(V4, 0xa2, b"\x12\x34\0\x02a"), DecodeError::Truncated("topic filter"));
    assert_eq!(refusal(V4, 0xa2, b"\x12\x34\0\x01\xff"), DecodeError::InvalidUtf8("topic filter"));
    let limits = DecodeLimits { filters_per_packet_max: 1, ..DecodeLimits::default() };
    let error = decode_with(V4, b"\xa2\x08\x12\x34\0\x01a\0\x01b", &limits);
    assert!(matches!(error, Err(DecodeError::TooManyFilters { max: 1, .. })));
}

#[test]
fn packets_without_body() {
    for first in [0xc0, 0xd0, 0xe0] {
        let error = refusal(V4, first, b"\0");
        assert!(matches!(error, DecodeError::TrailingBytes { len: 1, .. }));
    }
    assert_eq!(refusal(V4, 0xf0, b""), DecodeError::PacketNotInVersion(PacketType::Auth));
}

#[test]
fn from_the_server() {
    assert_eq!(refusal(V4, 0x20, b"\x02\0"), DecodeError::ConnAckFlags(2));
    assert_eq!(refusal(V4, 0x20, b"\x01\x05"), DecodeError::SessionPresentOnRefusal);
    let code = |packet_type, code| DecodeError::ReasonCode { packet_type, code };
    assert_eq!(refusal(V4, 0x20, b"\0\x06"), code(PacketType::ConnAck, 6));
    assert_eq!(refusal(V4, 0x90, b"\x12\x34\x03"), code(PacketType::SubAck, 3));
    assert_eq!(refusal(V4, 0x90, b"\x12\x34"), DecodeError::Truncated("reason codes"));
    assert!(matches!(refusal(V4, 0xb0, b"\x12\x34\0"), DecodeError::TrailingBytes { .. }));
}

#[test]
fn from_a_client_that_plays_server() {
    for bytes in [&b"\x20\x02\0\0"[..], b"\x90\x03\x12\x34\0", b"\xb0\x02\x12\x34", b"\xd0\0"] {
        let packet = decode(V4, bytes).expect("decodes");
        let error = packet.check_from_client().expect_err("only a server sends it");
        assert_eq!(error, DecodeError::FromServerOnly(packet.packet_type()));
        assert_eq!(error.reason_code(), ReasonCode::ProtocolError);
    }
    let packet = decode(V4, b"\xc0\0").expect("decodes");
    assert_eq!(packet.check_from_client(), Ok(()));
}

/// The message says who is to blame and what is wrong.
#[test]
fn messages() {
    assert_eq!(
        refusal(V4, 0x30, b"\0\x03a/+").to_string(),
        "the peer sent a topic name that is not allowed: it is a name to publish to and contains '+' or '#'"
    );
    assert_eq!(
        FrameHeader::peek(&[0xc1]).expect_err("flags").to_string(),
        "the peer sent PINGREQ with flags 0b0001 in the first byte; they are reserved"
    );
}
