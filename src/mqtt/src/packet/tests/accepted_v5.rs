//! Packets of MQTT 5.0.

use std::num::{NonZeroU16, NonZeroU32};

use super::*;
use crate::property::{Forwarded, ForwardedFields, UserProperties};
use crate::qos::QoS;

const V5: ProtocolVersion = ProtocolVersion::V5;
const USER: UserProperties<'static> = UserProperties::from_list(&[("k", "v"), ("k", "")]);
/// The bytes of [`USER`].
const USER_BYTES: &[u8] = b"\x26\0\x01k\0\x01v\x26\0\x01k\0\0";

fn connect() -> Connect<'static> {
    Connect {
        version: V5,
        clean_start: true,
        keep_alive_s: 60,
        client_id: "c1",
        will: None,
        username: None,
        password: None,
        is_bridge: false,
        properties: ConnectProperties::default(),
    }
}

#[test]
fn connect_without_properties() {
    let bytes = b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02c1";
    assert_same(V5, bytes, &Packet::Connect(connect()));
    assert_cut_is_refused(V5, bytes);
    assert_eq!(Connect::peek_version(&bytes[2..]), Some(V5));
    assert_eq!(Connect::peek_version(b"\0\x04MQTT"), None);
}

#[test]
fn connect_with_password_only() {
    let bytes = b"\x10\x12\0\x04MQTT\x05\x42\0\x3c\0\0\x02c1\0\x01p";
    assert_same(V5, bytes, &Packet::Connect(Connect { password: Some(b"p"), ..connect() }));
}

#[test]
fn connect_with_all_properties() {
    let body = [
        &b"\0\x04MQTT\x05\x02\0\x3c\x33"[..],
        b"\x11\0\0\0\x0a\x21\0\x14\x27\0\0\x01\0\x22\0\x05\x19\x01\x17\0",
        b"\x15\0\x04SCRA\x16\0\x02\x01\0",
        USER_BYTES,
        b"\x26\0\0\0\x01x\0\x02c1",
    ]
    .concat();
    let user = [("k", "v"), ("k", ""), ("", "x")];
    let properties = ConnectProperties {
        session_expiry_interval_s: Some(10),
        receive_maximum: Some(20),
        maximum_packet_size: Some(256),
        topic_alias_maximum: 5,
        request_response_information: true,
        request_problem_information: false,
        user_properties: UserProperties::from_list(&user),
        authentication_method: Some("SCRA"),
        authentication_data: Some(b"\x01\0"),
    };
    let bytes = frame(0x10, &body);
    assert_same(V5, &bytes, &Packet::Connect(Connect { properties, ..connect() }));
    assert_cut_is_refused(V5, &bytes);
}

#[test]
fn connect_with_will() {
    let mut forwarded = vec![];
    let fields = ForwardedFields {
        payload_is_utf8: true,
        content_type: Some("t"),
        response_topic: Some("r/t"),
        correlation_data: Some(b"\0"),
        user_properties: USER,
    };
    fields.write_to(&mut forwarded);
    let expected = [&b"\x01\x01\x03\0\x01t\x08\0\x03r/t\x09\0\x01\0"[..], USER_BYTES].concat();
    assert_eq!(forwarded, expected);
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "w",
        payload: b"bye",
        delay_interval_s: 7,
        message_expiry_interval_s: Some(8),
        forwarded: Forwarded::from_raw(&forwarded),
    };
    let len = u8::try_from(forwarded.len() + 10).expect("short");
    let body = [
        &b"\0\x04MQTT\x05\x0e\0\x3c\0\0\x02c1"[..],
        &[len],
        b"\x18\0\0\0\x07\x02\0\0\0\x08",
        &forwarded,
        b"\0\x01w\0\x03bye",
    ]
    .concat();
    let bytes = frame(0x10, &body);
    assert_same(V5, &bytes, &Packet::Connect(Connect { will: Some(will), ..connect() }));
    let Ok(Packet::Connect(Connect { will: Some(will), .. })) = decode(V5, &bytes) else {
        unreachable!()
    };
    assert_eq!(will.forwarded.len(), forwarded.len());
    assert_eq!(will.forwarded.as_contiguous(), None);
    assert!(will.forwarded.payload_is_utf8());
    assert_eq!(will.forwarded.content_type(), Some("t"));
    assert_eq!(will.forwarded.response_topic(), Some("r/t"));
    assert_eq!(will.forwarded.correlation_data(), Some(&b"\0"[..]));
    assert_eq!(will.forwarded.user_properties(), USER);
    let mut again = vec![];
    will.forwarded.write_to(&mut again);
    assert_eq!(again, forwarded);
}

#[test]
fn connack() {
    let ack = ConnAck::new(true, ReasonCode::Success);
    assert_same(V5, b"\x20\x03\x01\0\0", &Packet::ConnAck(ack));
    let ack = ConnAck::new(false, ReasonCode::Banned);
    assert_same(V5, b"\x20\x03\0\x8a\0", &Packet::ConnAck(ack));
    assert_cut_is_refused(V5, b"\x20\x03\0\x8a\0");
}

#[test]
fn connack_with_all_properties() {
    let properties = [
        &b"\x11\0\0\0\x0a\x21\0\x14\x24\x01\x25\0\x27\0\0\x01\0\x12\0\x02id\x22\0\x05"[..],
        b"\x1f\0\x01r\x28\0\x29\0\x2a\0\x13\0\x1e\x1a\0\x01i\x1c\0\x01s\x15\0\x01m\x16\0\x01d",
        USER_BYTES,
    ]
    .concat();
    let len = u8::try_from(properties.len()).expect("short");
    let bytes = frame(0x20, &[&[0, 0, len], &properties[..]].concat());
    let properties = ConnAckProperties {
        session_expiry_interval_s: Some(10),
        receive_maximum: Some(20),
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        maximum_packet_size: Some(256),
        assigned_client_id: Some("id"),
        topic_alias_maximum: 5,
        reason_string: Some("r"),
        user_properties: USER,
        wildcard_subscription_available: false,
        subscription_ids_available: false,
        shared_subscription_available: false,
        server_keep_alive_s: Some(30),
        response_information: Some("i"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(b"d"),
    };
    let ack = ConnAck { session_present: false, reason: ReasonCode::Success, properties };
    assert_same(V5, &bytes, &Packet::ConnAck(ack));
    assert_cut_is_refused(V5, &bytes);
    assert_eq!(ack.encoded_len(V5), bytes.len());
}

fn publish() -> Publish<'static> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        payload: b"hi",
        properties: PublishProperties::default(),
    }
}

#[test]
fn publish_without_properties() {
    assert_same(V5, b"\x30\x08\0\x03a/b\0hi", &Packet::Publish(publish()));
    let packet = Publish { qos: QoS::ExactlyOnce, packet_id: Some(id()), ..publish() };
    assert_same(V5, b"\x34\x0a\0\x03a/b\x12\x34\0hi", &Packet::Publish(packet));
}

#[test]
fn publish_with_alias_only() {
    let properties =
        PublishProperties { topic_alias: NonZeroU16::new(0x102), ..Default::default() };
    let packet = Publish { topic: "", properties, ..publish() };
    assert_same(V5, b"\x30\x08\0\0\x03\x23\x01\x02hi", &Packet::Publish(packet));
}

/// Hop-by-hop properties between the others: skipped, order kept (v5 MQTT-3.3.2-18).
#[test]
fn publish_forwards_the_rest_in_order() {
    let bytes = frame(
        0x30,
        b"\0\x03a/b\x21\x26\0\x01b\0\x010\x02\0\0\0\x09\x26\0\x01a\0\x011\x23\0\x01\x0b\x80\x01\x01\x01\x0b\x05\x03\0\x01thi",
    );
    let Ok(Packet::Publish(publish)) = decode(V5, &bytes) else { unreachable!() };
    assert_eq!(publish.payload, b"hi");
    let properties = publish.properties;
    assert_eq!(properties.message_expiry_interval_s, Some(9));
    assert_eq!(properties.topic_alias, NonZeroU16::new(1));
    assert_eq!(properties.subscription_ids.len(), 2);
    assert!(properties.subscription_ids.iter().map(NonZeroU32::get).eq([128, 5]));
    assert!(properties.payload_is_utf8());
    assert_eq!(properties.content_type(), Some("t"));
    assert_eq!(properties.response_topic(), None);
    assert_eq!(properties.correlation_data(), None);
    assert!(properties.user_properties().iter().eq([("b", "0"), ("a", "1")]));
    let mut forwarded = vec![];
    properties.forwarded.write_to(&mut forwarded);
    assert_eq!(forwarded, b"\x26\0\x01b\0\x010\x26\0\x01a\0\x011\x01\x01\x03\0\x01t");
    assert_eq!(properties.forwarded.len(), forwarded.len());
    assert_eq!(properties.forwarded, Forwarded::from_raw(&forwarded));
    // v5 MQTT-3.3.4-6.
    assert_eq!(publish.check_from_client(), Err(DecodeError::SubscriptionIdFromClient));

    let out = PublishOut {
        version: V5,
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        topic_alias: properties.topic_alias,
        message_expiry_interval_s: properties.message_expiry_interval_s,
        subscription_ids: &[128, 5],
        forwarded: &forwarded,
        payload: publish.payload,
    };
    let mut again = vec![];
    out.encode(&mut again);
    assert_eq!(
        again,
        frame(
            0x30,
            b"\0\x03a/b\x21\x02\0\0\0\x09\x23\0\x01\x0b\x80\x01\x0b\x05\x26\0\x01b\0\x010\x26\0\x01a\0\x011\x01\x01\x03\0\x01thi"
        )
    );
    assert_eq!(out.encoded_len(), again.len());
    assert_eq!(decode(V5, &again), Ok(Packet::Publish(publish)));
    let mut head = vec![];
    out.encode_head(&mut head);
    assert_eq!([&head, publish.payload].concat(), again);
}

#[test]
fn forwarded_in_one_piece() {
    let bytes = frame(0x30, b"\0\x01a\x02\x01\x01x");
    let Ok(Packet::Publish(publish)) = decode(V5, &bytes) else { unreachable!() };
    assert_eq!(publish.properties.forwarded.as_contiguous(), Some(&b"\x01\x01"[..]));
    assert!(publish.properties.forwarded.is_payload_valid(b"x"));
    assert!(!publish.properties.forwarded.is_payload_valid(b"\xff"));
    assert!(Forwarded::default().is_payload_valid(b"\xff"));
    // Nothing at all to forward, though there are properties.
    let bytes = frame(0x30, b"\0\x01a\x03\x23\0\x01x");
    let Ok(Packet::Publish(publish)) = decode(V5, &bytes) else { unreachable!() };
    assert!(publish.properties.forwarded.is_empty());
    assert_eq!(publish.properties.forwarded, Forwarded::default());
    assert_eq!(publish.check_from_client(), Ok(()));
}

#[test]
fn acknowledgements() {
    type Wrap = fn(Ack<'static>) -> Packet<'static>;
    let all: [(u8, Wrap, ReasonCode); 4] = [
        (0x40, Packet::PubAck, ReasonCode::NoMatchingSubscribers),
        (0x50, Packet::PubRec, ReasonCode::QuotaExceeded),
        (0x62, Packet::PubRel, ReasonCode::PacketIdentifierNotFound),
        (0x70, Packet::PubComp, ReasonCode::PacketIdentifierNotFound),
    ];
    for (first, wrap, reason) in all {
        let success = Ack::new(id(), ReasonCode::Success);
        assert_same(V5, &[first, 2, 0x12, 0x34], &wrap(success));
        assert_same(V5, &[first, 3, 0x12, 0x34, reason.code()], &wrap(Ack::new(id(), reason)));
        let full = Ack { reason_string: Some("no"), user_properties: USER, ..success };
        let body = [&b"\x12\x34\0\x12\x1f\0\x02no"[..], USER_BYTES].concat();
        assert_same(V5, &frame(first, &body), &wrap(full));
        assert_eq!(full.encoded_len(V5), body.len() + 2);
        // The long forms of what could be shorter.
        assert_eq!(decode(V5, &frame(first, b"\x12\x34\0")), Ok(wrap(success)));
        assert_eq!(decode(V5, &frame(first, b"\x12\x34\0\0")), Ok(wrap(success)));
        let mut out = vec![];
        let packet_type = wrap(success).packet_type();
        encode_ack(&mut out, packet_type, V5, id(), ReasonCode::Success);
        assert_eq!(out, [first, 2, 0x12, 0x34]);
        encode_ack(&mut out, packet_type, V5, id(), reason);
        assert_eq!(out[4..], [first, 3, 0x12, 0x34, reason.code()]);
    }
}

#[test]
fn subscribe() {
    let list = [
        (
            "a",
            SubscribeOptions {
                qos: QoS::AtLeastOnce,
                no_local: true,
                retain_as_published: true,
                retain_handling: RetainHandling::DoNotSend,
            },
        ),
        ("$share/g/b", SubscribeOptions::from_qos(QoS::ExactlyOnce)),
    ];
    let packet = Packet::Subscribe(Subscribe {
        packet_id: id(),
        subscription_id: NonZeroU32::new(268_435_455),
        user_properties: USER,
        filters: SubscribeFilters::from_list(&list),
    });
    let body =
        [&b"\x12\x34\x12\x0b\xff\xff\xff\x7f"[..], USER_BYTES, b"\0\x01a\x2d\0\x0a$share/g/b\x02"]
            .concat();
    assert_same(V5, &frame(0x82, &body), &packet);
}

#[test]
fn subscribe_options_bits() {
    for bits in 0..=u8::MAX {
        let is_valid = bits & 0b1100_0000 == 0 && bits & 3 != 3 && bits >> 4 != 3;
        let options = SubscribeOptions::from_bits(bits);
        assert_eq!(options.is_some(), is_valid, "{bits:#010b}");
        if let Some(options) = options {
            assert_eq!(options.to_bits(), bits);
        }
    }
}

#[test]
fn suback_unsubscribe_unsuback() {
    let suback = SubAck {
        reason_string: Some("r"),
        user_properties: USER,
        ..SubAck::new(id(), &[2, 0x8F, 0xA2])
    };
    let properties = [&b"\x11\x1f\0\x01r"[..], USER_BYTES].concat();
    let bytes = [&b"\x12\x34"[..], &properties, b"\x02\x8f\xa2"].concat();
    assert_same(V5, &frame(0x90, &bytes), &Packet::SubAck(suback));
    let unsubscribe = Unsubscribe {
        packet_id: id(),
        user_properties: USER,
        filters: UnsubscribeFilters::from_list(&["x/#", "y"]),
    };
    let bytes = [&b"\x12\x34\x0d"[..], USER_BYTES, b"\0\x03x/#\0\x01y"].concat();
    assert_same(V5, &frame(0xa2, &bytes), &Packet::Unsubscribe(unsubscribe));
    let unsuback = UnsubAck {
        reason_string: Some("r"),
        user_properties: USER,
        ..UnsubAck::new(id(), &[0, 0x11])
    };
    let bytes = [&b"\x12\x34"[..], &properties, b"\0\x11"].concat();
    assert_same(V5, &frame(0xb0, &bytes), &Packet::UnsubAck(unsuback));
}

#[test]
fn disconnect() {
    let normal = Disconnect::new(ReasonCode::Success);
    assert_same(V5, b"\xe0\0", &Packet::Disconnect(normal));
    assert_eq!(decode(V5, b"\xe0\x01\0"), Ok(Packet::Disconnect(normal)));
    assert_eq!(decode(V5, b"\xe0\x02\0\0"), Ok(Packet::Disconnect(normal)));
    let taken_over = Disconnect::new(ReasonCode::SessionTakenOver);
    assert_same(V5, b"\xe0\x01\x8e", &Packet::Disconnect(taken_over));
    let full = Disconnect {
        reason: ReasonCode::ServerMoved,
        session_expiry_interval_s: Some(u32::MAX),
        reason_string: Some("r"),
        user_properties: USER,
        server_reference: Some("s"),
    };
    let body =
        [&b"\x9d\x1a\x11\xff\xff\xff\xff\x1f\0\x01r"[..], USER_BYTES, b"\x1c\0\x01s"].concat();
    assert_same(V5, &frame(0xe0, &body), &Packet::Disconnect(full));
}

#[test]
fn auth() {
    assert_same(V5, b"\xf0\0", &Packet::Auth(Auth::new(ReasonCode::Success)));
    let step = Auth {
        authentication_method: Some("m"),
        authentication_data: Some(b"\0\x01"),
        reason_string: Some("r"),
        user_properties: USER,
        ..Auth::new(ReasonCode::ContinueAuthentication)
    };
    let body = [&b"\x18\x1a\x15\0\x01m\x16\0\x02\0\x01\x1f\0\x01r"[..], USER_BYTES].concat();
    assert_same(V5, &frame(0xf0, &body), &Packet::Auth(step));
}

#[test]
fn pings() {
    assert_same(V5, b"\xc0\0", &Packet::PingReq);
    assert_same(V5, b"\xd0\0", &Packet::PingResp);
}
