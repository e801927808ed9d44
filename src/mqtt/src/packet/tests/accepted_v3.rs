//! Packets of MQTT 3.1 and 3.1.1.

use super::*;
use crate::property::{Forwarded, UserProperties};
use crate::qos::QoS;

const V3: [ProtocolVersion; 2] = [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1];

fn connect(version: ProtocolVersion) -> Connect<'static> {
    Connect {
        version,
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
fn connect_3_1_1() {
    let bytes = b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02c1";
    let packet = Packet::Connect(connect(ProtocolVersion::V3_1_1));
    assert_same(ProtocolVersion::V3_1_1, bytes, &packet);
    assert_cut_is_refused(ProtocolVersion::V3_1_1, bytes);
}

#[test]
fn connect_3_1() {
    let bytes = b"\x10\x10\0\x06MQIsdp\x03\x02\0\x3c\0\x02c1";
    assert_same(ProtocolVersion::V3_1, bytes, &Packet::Connect(connect(ProtocolVersion::V3_1)));
    // The version asked for is that of the packet, not that of the call.
    assert!(decode(ProtocolVersion::V5, bytes).is_ok());
}

#[test]
fn connect_of_a_bridge() {
    let bytes = b"\x10\x0e\0\x04MQTT\x84\x02\0\x3c\0\x02c1";
    let packet = Packet::Connect(Connect { is_bridge: true, ..connect(ProtocolVersion::V3_1_1) });
    assert_same(ProtocolVersion::V3_1_1, bytes, &packet);
}

#[test]
fn connect_with_everything() {
    let bytes =
        b"\x10\x20\0\x04MQTT\x04\xf4\0\0\0\x02c1\0\x03w/t\0\x02\xff\0\0\x02me\0\x03\x01\0\x02";
    let packet = Packet::Connect(Connect {
        clean_start: false,
        keep_alive_s: 0,
        will: Some(Will {
            qos: QoS::ExactlyOnce,
            retain: true,
            topic: "w/t",
            payload: b"\xff\0",
            delay_interval_s: 0,
            message_expiry_interval_s: None,
            forwarded: Forwarded::default(),
        }),
        username: Some("me"),
        password: Some(b"\x01\0\x02"),
        ..connect(ProtocolVersion::V3_1_1)
    });
    assert_same(ProtocolVersion::V3_1_1, bytes, &packet);
    assert_cut_is_refused(ProtocolVersion::V3_1_1, bytes);
}

#[test]
fn connect_3_1_may_lack_the_fields_its_flags_announce() {
    let bytes = b"\x10\x10\0\x06MQIsdp\x03\xc3\0\x3c\0\x02c1";
    let expected = Packet::Connect(connect(ProtocolVersion::V3_1));
    assert_eq!(decode(ProtocolVersion::V3_1, bytes), Ok(expected));
    let bytes = b"\x10\x13\0\x06MQIsdp\x03\xc2\0\x3c\0\x02c1\0\x01u";
    let expected = Connect { username: Some("u"), ..connect(ProtocolVersion::V3_1) };
    assert_eq!(decode(ProtocolVersion::V3_1, bytes), Ok(Packet::Connect(expected)));
}

#[test]
fn empty_client_id_is_left_to_the_caller() {
    let bytes = b"\x10\x0c\0\x04MQTT\x04\0\0\x3c\0\0";
    let packet = Packet::Connect(Connect {
        client_id: "",
        clean_start: false,
        ..connect(ProtocolVersion::V3_1_1)
    });
    assert_same(ProtocolVersion::V3_1_1, bytes, &packet);
}

#[test]
fn connack() {
    let ack = ConnAck::new(true, ReasonCode::Success);
    assert_same(ProtocolVersion::V3_1_1, b"\x20\x02\x01\0", &Packet::ConnAck(ack));
    for (reason, code) in [
        (ReasonCode::Success, 0),
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::ServerUnavailable, 3),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::NotAuthorized, 5),
    ] {
        for version in V3 {
            let ack = Packet::ConnAck(ConnAck::new(false, reason));
            assert_same(version, &[0x20, 2, 0, code], &ack);
        }
    }
    // MQTT 3.1 has no session present flag.
    let mut out = vec![];
    ack.encode(ProtocolVersion::V3_1, &mut out);
    assert_eq!(out, b"\x20\x02\0\0");
    assert_eq!(ack.encoded_len(ProtocolVersion::V3_1), 4);
}

#[test]
fn connack_codes_nearest() {
    for (reason, code) in [
        (ReasonCode::ServerBusy, 3),
        (ReasonCode::QuotaExceeded, 3),
        (ReasonCode::Banned, 5),
        (ReasonCode::BadAuthenticationMethod, 5),
        (ReasonCode::MalformedPacket, 5),
    ] {
        // No session is present with a refusal (MQTT-3.2.2-4).
        let mut out = vec![];
        ConnAck::new(true, reason).encode(ProtocolVersion::V3_1_1, &mut out);
        assert_eq!(out, [0x20, 2, 0, code], "{reason}");
    }
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
fn publish_qos_0() {
    for version in V3 {
        assert_same(version, b"\x30\x07\0\x03a/bhi", &Packet::Publish(publish()));
        let empty = Publish { payload: b"", retain: true, ..publish() };
        assert_same(version, b"\x31\x05\0\x03a/b", &Packet::Publish(empty));
    }
}

#[test]
fn publish_qos_1_and_2() {
    for version in V3 {
        let packet = Publish { qos: QoS::AtLeastOnce, packet_id: Some(id()), ..publish() };
        assert_same(version, b"\x32\x09\0\x03a/b\x12\x34hi", &Packet::Publish(packet));
        let packet = Publish { dup: true, retain: true, qos: QoS::ExactlyOnce, ..packet };
        assert_same(version, b"\x3d\x09\0\x03a/b\x12\x34hi", &Packet::Publish(packet));
    }
}

#[test]
fn publish_with_two_byte_remaining_length() {
    let payload = [7; 200];
    let packet = Publish { payload: &payload, ..publish() };
    let bytes = [&b"\x30\xcd\x01\0\x03a/b"[..], &payload].concat();
    assert_same(ProtocolVersion::V3_1_1, &bytes, &Packet::Publish(packet));
}

#[test]
fn acknowledgements() {
    let ack = Ack::new(id(), ReasonCode::Success);
    for version in V3 {
        assert_same(version, b"\x40\x02\x12\x34", &Packet::PubAck(ack));
        assert_same(version, b"\x50\x02\x12\x34", &Packet::PubRec(ack));
        assert_same(version, b"\x62\x02\x12\x34", &Packet::PubRel(ack));
        assert_same(version, b"\x70\x02\x12\x34", &Packet::PubComp(ack));
        assert_cut_is_refused(version, b"\x40\x02\x12\x34");
        let mut out = vec![];
        encode_ack(&mut out, PacketType::PubRel, version, id(), ReasonCode::QuotaExceeded);
        assert_eq!(out, b"\x62\x02\x12\x34");
    }
}

/// SEED-PROTO-09, and the DUP flag of packets MQTT 3.1 sends again.
#[test]
fn flags_of_old_clients() {
    let ack = Ok(Packet::PubRel(Ack::new(id(), ReasonCode::Success)));
    for version in V3 {
        assert_eq!(decode(version, b"\x60\x02\x12\x34"), ack);
    }
    assert_eq!(decode(ProtocolVersion::V3_1, b"\x6a\x02\x12\x34"), ack);
    assert!(decode(ProtocolVersion::V3_1, b"\x8a\x06\x12\x34\0\x01a\0").is_ok());
    assert!(decode(ProtocolVersion::V3_1, b"\xaa\x05\x12\x34\0\x01a").is_ok());
}

#[test]
fn remaining_length_may_be_longer_than_needed_before_5_0() {
    assert_eq!(decode(ProtocolVersion::V3_1_1, b"\xc0\x80\0"), Ok(Packet::PingReq));
}

#[test]
fn subscribe() {
    let list = [
        ("a/+", SubscribeOptions::from_qos(QoS::AtMostOnce)),
        ("#", SubscribeOptions::from_qos(QoS::ExactlyOnce)),
    ];
    let packet = Packet::Subscribe(Subscribe {
        packet_id: id(),
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::from_list(&list),
    });
    for version in V3 {
        let bytes = b"\x82\x0c\x12\x34\0\x03a/+\0\0\x01#\x02";
        assert_same(version, bytes, &packet);
        let Ok(Packet::Subscribe(decoded)) = decode(version, bytes) else { unreachable!() };
        assert_eq!(decoded.filters.len(), 2);
        assert!(decoded.filters.iter().eq(list));
    }
}

/// The syntax of filters is the business of the caller, who answers each one.
#[test]
fn filters_are_not_parsed() {
    for bytes in [&b"\x82\x08\x12\x34\0\x03a#b\0"[..], b"\x82\x05\x12\x34\0\0\0"] {
        assert!(decode(ProtocolVersion::V3_1_1, bytes).is_ok());
    }
    assert!(decode(ProtocolVersion::V3_1_1, b"\xa2\x04\x12\x34\0\0").is_ok());
}

#[test]
fn suback() {
    let packet = Packet::SubAck(SubAck::new(id(), &[0, 1, 2, 0x80]));
    for version in V3 {
        assert_same(version, b"\x90\x06\x12\x34\0\x01\x02\x80", &packet);
    }
    let mut out = vec![];
    SubAck::new(id(), &[1, 0x8F]).encode(ProtocolVersion::V3_1_1, &mut out);
    assert_eq!(out, b"\x90\x04\x12\x34\x01\x80");
}

#[test]
fn unsubscribe_and_unsuback() {
    let packet = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(),
        user_properties: UserProperties::default(),
        filters: UnsubscribeFilters::from_list(&["a/b", "c"]),
    });
    for version in V3 {
        assert_same(version, b"\xa2\x0a\x12\x34\0\x03a/b\0\x01c", &packet);
        assert_same(version, b"\xb0\x02\x12\x34", &Packet::UnsubAck(UnsubAck::new(id(), &[])));
        let mut out = vec![];
        UnsubAck::new(id(), &[0, 0x11]).encode(version, &mut out);
        assert_eq!(out, b"\xb0\x02\x12\x34");
    }
}

#[test]
fn packets_without_body() {
    for version in V3 {
        assert_same(version, b"\xc0\0", &Packet::PingReq);
        assert_same(version, b"\xd0\0", &Packet::PingResp);
        let disconnect = Disconnect::new(ReasonCode::Success);
        assert_same(version, b"\xe0\0", &Packet::Disconnect(disconnect));
        let mut out = vec![];
        Disconnect::new(ReasonCode::ServerBusy).encode(version, &mut out);
        assert_eq!(out, b"\xe0\0");
    }
}

#[test]
fn publish_out() {
    let out = PublishOut {
        version: ProtocolVersion::V3_1_1,
        dup: true,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "a/b",
        packet_id: Some(id()),
        topic_alias: std::num::NonZeroU16::new(3),
        message_expiry_interval_s: Some(9),
        subscription_ids: &[1],
        forwarded: b"\x01\x01",
        payload: b"hi",
    };
    let mut bytes = vec![];
    out.encode(&mut bytes);
    assert_eq!(bytes, b"\x3b\x09\0\x03a/b\x12\x34hi");
    assert_eq!(out.encoded_len(), bytes.len());
    let mut head = vec![];
    out.encode_head(&mut head);
    assert_eq!(head, b"\x3b\x09\0\x03a/b\x12\x34");
}
