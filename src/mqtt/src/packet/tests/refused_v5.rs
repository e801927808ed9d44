//! What MQTT 5.0 refuses.

use super::*;
use crate::property::PropertyId;

const V5: ProtocolVersion = ProtocolVersion::V5;

/// The error of a CONNECT with these properties.
#[track_caller]
fn connect_error(properties: &[u8]) -> DecodeError {
    let len = u8::try_from(properties.len()).expect("short");
    let body = [&b"\0\x04MQTT\x05\x02\0\x3c"[..], &[len], properties, b"\0\x02c1"].concat();
    refusal(V5, 0x10, &body)
}

/// The error of a PUBLISH to "a" with these properties.
#[track_caller]
fn publish_error(properties: &[u8]) -> DecodeError {
    let len = u8::try_from(properties.len()).expect("short");
    refusal(V5, 0x30, &[&b"\0\x01a"[..], &[len], properties].concat())
}

#[test]
fn single_properties_twice() {
    use PropertyId as Id;
    let twice: [(Id, &[u8]); 8] = [
        (Id::SessionExpiryInterval, b"\x11\0\0\0\0"),
        (Id::ReceiveMaximum, b"\x21\0\x01"),
        (Id::MaximumPacketSize, b"\x27\0\0\0\x01"),
        (Id::TopicAliasMaximum, b"\x22\0\0"),
        (Id::RequestResponseInformation, b"\x19\0"),
        (Id::RequestProblemInformation, b"\x17\x01"),
        (Id::AuthenticationMethod, b"\x15\0\x01m"),
        (Id::AuthenticationData, b"\x16\0\0"),
    ];
    for (id, bytes) in twice {
        let error = connect_error(&[bytes, bytes].concat());
        assert_eq!(error, DecodeError::DuplicateProperty(id));
        assert_eq!(error.reason_code(), ReasonCode::ProtocolError);
    }
    let twice: [(Id, &[u8]); 5] = [
        (Id::PayloadFormatIndicator, b"\x01\0"),
        (Id::MessageExpiryInterval, b"\x02\0\0\0\0"),
        (Id::ContentType, b"\x03\0\0"),
        (Id::ResponseTopic, b"\x08\0\x01r"),
        (Id::TopicAlias, b"\x23\0\x01"),
    ];
    for (id, bytes) in twice {
        let error = publish_error(&[bytes, bytes].concat());
        assert_eq!(error, DecodeError::DuplicateProperty(id));
    }
    // Section 3.8.2.1.2.
    let error = refusal(V5, 0x82, b"\x12\x34\x04\x0b\x01\x0b\x02\0\x01a\0");
    assert_eq!(error, DecodeError::DuplicateProperty(Id::SubscriptionIdentifier));
}

#[test]
fn values_out_of_range() {
    use PropertyId as Id;
    for (id, bytes) in [
        (Id::ReceiveMaximum, &b"\x21\0\0"[..]),
        (Id::MaximumPacketSize, b"\x27\0\0\0\0"),
        (Id::RequestResponseInformation, b"\x19\x02"),
        (Id::RequestProblemInformation, b"\x17\xff"),
    ] {
        assert_eq!(connect_error(bytes), DecodeError::PropertyValue(id));
    }
    for (id, bytes) in [
        (Id::PayloadFormatIndicator, &b"\x01\x02"[..]),
        (Id::SubscriptionIdentifier, b"\x0b\0"),
        (Id::ResponseTopic, b"\x08\0\x03a/#"),
        (Id::ResponseTopic, b"\x08\0\0"),
    ] {
        let error = publish_error(bytes);
        assert_eq!(error, DecodeError::PropertyValue(id));
        assert_eq!(error.reason_code(), ReasonCode::ProtocolError);
    }
    let error = publish_error(b"\x23\0\0");
    assert_eq!(error, DecodeError::TopicAliasZero);
    assert_eq!(error.reason_code(), ReasonCode::TopicAliasInvalid);
    let maximum_qos = refusal(V5, 0x20, b"\0\0\x02\x24\x02");
    assert_eq!(maximum_qos, DecodeError::PropertyValue(Id::MaximumQos));
}

#[test]
fn properties_in_the_wrong_packet() {
    let alias = b"\x03\x23\0\x01";
    for (first, before, after) in [
        (0x10, &b"\0\x04MQTT\x05\x02\0\x3c"[..], &b"\0\x02c1"[..]),
        (0x10, b"\0\x04MQTT\x05\x06\0\x3c\0\0\x02c1", b"\0\x01w\0\0"),
        (0x20, b"\0\0", b""),
        (0x40, b"\x12\x34\0", b""),
        (0x50, b"\x12\x34\0", b""),
        (0x62, b"\x12\x34\0", b""),
        (0x70, b"\x12\x34\0", b""),
        (0x82, b"\x12\x34", b"\0\x01a\0"),
        (0x90, b"\x12\x34", b"\0"),
        (0xa2, b"\x12\x34", b"\0\x01a"),
        (0xb0, b"\x12\x34", b"\0"),
        (0xe0, b"\0", b""),
        (0xf0, b"\x18", b""),
    ] {
        let error = refusal(V5, first, &[before, alias, after].concat());
        let packet_type = PacketType::from_u8(first >> 4).expect("a type");
        let property = PropertyId::TopicAlias;
        assert_eq!(error, DecodeError::PropertyNotAllowed { packet_type, property });
        assert_eq!(error.reason_code(), ReasonCode::MalformedPacket);
    }
    let error = publish_error(b"\x21\0\x01");
    assert!(matches!(error, DecodeError::PropertyNotAllowed { .. }));
}

#[test]
fn broken_property_blocks() {
    assert_eq!(publish_error(b"\x7f"), DecodeError::UnknownProperty(0x7f));
    assert_eq!(publish_error(b"\xff\x7f"), DecodeError::UnknownProperty(0x3fff));
    let minimal = DecodeError::VarintNotMinimal("property identifier");
    assert_eq!(publish_error(b"\x81\0\x01"), minimal);
    assert_eq!(publish_error(b"\x02\0\0"), DecodeError::Truncated("message expiry interval"));
    assert_eq!(publish_error(b"\x26\0\x01k"), DecodeError::Truncated("user property"));
    assert_eq!(publish_error(b"\x26\0\x01k\0\x01\0"), DecodeError::NullCharacter("user property"));
    assert_eq!(publish_error(b"\x03\0\x01\xff"), DecodeError::InvalidUtf8("content type"));
    let too_long = DecodeError::VarintTooLong("subscription identifier");
    assert_eq!(publish_error(b"\x0b\xff\xff\xff\xff\x01"), too_long);
    assert_eq!(refusal(V5, 0x30, b"\0\x01a"), DecodeError::Truncated("property length"));
    assert_eq!(refusal(V5, 0x30, b"\0\x01a\x01"), DecodeError::Truncated("properties"));
    let minimal = DecodeError::VarintNotMinimal("property length");
    assert_eq!(refusal(V5, 0x30, b"\0\x01a\x80\0"), minimal);
    let minimal = DecodeError::VarintNotMinimal("remaining length");
    assert_eq!(decode(V5, b"\xc0\x80\0"), Err(minimal));
}

#[test]
fn user_properties_limit() {
    let limits = DecodeLimits { user_properties_max: 1, ..DecodeLimits::default() };
    let one = b"\x26\0\0\0\0";
    let bytes = frame(0x30, &[&b"\0\x01a\x05"[..], one].concat());
    assert!(decode_with(V5, &bytes, &limits).is_ok());
    let bytes = frame(0x30, &[&b"\0\x01a\x0a"[..], one, one].concat());
    let error = decode_with(V5, &bytes, &limits).expect_err("two");
    assert_eq!(error, DecodeError::TooManyUserProperties(1));
    assert_eq!(error.reason_code(), ReasonCode::QuotaExceeded);
}

#[test]
fn publish() {
    assert_eq!(refusal(V5, 0x30, b"\0\0\0x"), DecodeError::TopicMissing);
    assert_eq!(refusal(V5, 0x38, b"\0\x01a\0"), DecodeError::DupWithQos0);
    let error = refusal(V5, 0x30, b"\0\x01#\0");
    assert_eq!(error.reason_code(), ReasonCode::TopicNameInvalid);
}

#[test]
fn subscribe_options() {
    let with = |bits| refusal(V5, 0x82, &[0x12, 0x34, 0, 0, 1, b'a', bits]);
    assert_eq!(with(0x40), DecodeError::SubscribeOptionsReserved(0x40));
    assert_eq!(with(0x40).reason_code(), ReasonCode::MalformedPacket);
    assert_eq!(with(0x03), DecodeError::SubscribeQos3(3));
    assert_eq!(with(0x30), DecodeError::RetainHandling3(0x30));
    assert_eq!(with(0x30).reason_code(), ReasonCode::ProtocolError);
    // v5 MQTT-3.8.3-4.
    let error = refusal(V5, 0x82, b"\x12\x34\0\0\x0a$share/g/a\x04");
    assert_eq!(error, DecodeError::NoLocalOnShared);
    assert_eq!(refusal(V5, 0x82, b"\x12\x34\0"), DecodeError::NoFilters(PacketType::Subscribe));
    assert_eq!(refusal(V5, 0xa2, b"\x12\x34\0"), DecodeError::NoFilters(PacketType::Unsubscribe));
}

#[test]
fn reason_codes() {
    for (first, code) in [
        (0x40, 0x92),
        (0x50, 0x01),
        (0x62, 0x80),
        (0x70, 0x10),
        (0xe0, 0x01),
        (0xe0, 0x8a),
        (0xf0, 0x80),
        (0x40, 0x05),
    ] {
        let body = if first < 0x80 { vec![0x12, 0x34, code] } else { vec![code] };
        let packet_type = PacketType::from_u8(first >> 4).expect("a type");
        assert_eq!(refusal(V5, first, &body), DecodeError::ReasonCode { packet_type, code });
    }
    assert!(matches!(refusal(V5, 0x20, b"\0\x01\0"), DecodeError::ReasonCode { .. }));
    assert!(matches!(refusal(V5, 0x90, b"\x12\x34\0\x11"), DecodeError::ReasonCode { .. }));
    assert!(matches!(refusal(V5, 0xb0, b"\x12\x34\0\x01"), DecodeError::ReasonCode { .. }));
    assert_eq!(refusal(V5, 0x90, b"\x12\x34\0"), DecodeError::Truncated("reason codes"));
    assert_eq!(refusal(V5, 0xb0, b"\x12\x34\0"), DecodeError::Truncated("reason codes"));
    assert_eq!(refusal(V5, 0x20, b"\x01\x87\0"), DecodeError::SessionPresentOnRefusal);
}

#[test]
fn authentication() {
    assert_eq!(connect_error(b"\x16\0\x01d"), DecodeError::AuthenticationMethodMissing);
    assert_eq!(refusal(V5, 0xf0, b"\x18\0"), DecodeError::AuthenticationMethodMissing);
    assert_eq!(refusal(V5, 0xf0, b"\0"), DecodeError::Truncated("property length"));
}

/// SEED-PROTO-09 is for old clients only.
#[test]
fn flags_are_strict() {
    for first in [0x60, 0x6a] {
        let error = refusal(V5, first, b"\x12\x34");
        assert!(matches!(error, DecodeError::ReservedFlags { .. }));
    }
    assert!(matches!(refusal(V5, 0x8a, b"\x12\x34\0\0\x01a\0"), DecodeError::ReservedFlags { .. }));
}

#[test]
fn bytes_behind_the_end() {
    for (first, body) in [
        (0x10, &b"\0\x04MQTT\x05\x02\0\x3c\0\0\x02c1x"[..]),
        (0x20, b"\0\0\0x"),
        (0x40, b"\x12\x34\0\0x"),
        (0xc0, b"x"),
        (0xe0, b"\0\0x"),
        (0xf0, b"\0\x04\x15\0\x01mx"),
    ] {
        let packet_type = PacketType::from_u8(first >> 4).expect("a type");
        assert_eq!(refusal(V5, first, body), DecodeError::TrailingBytes { packet_type, len: 1 });
    }
}
