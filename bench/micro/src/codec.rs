//! Decoding what clients send, encoding what they get.

use crate::meter::Meter;
use mqtt::{
    Connect, ConnectProperties, DecodeLimits, FrameHeader, Packet, PacketId, PacketType,
    ParsedFilter, ProtocolVersion, Publish, PublishOut, PublishProperties, QoS, ReasonCode,
    Subscribe, SubscribeFilters, SubscribeOptions, UserProperties,
};
use std::hint::black_box;

const OPERATIONS: usize = 10_000;
/// Of 24 bytes, as those of the memory budget.
const TOPIC: &str = "devices/00004711/command";
const PAYLOAD: [u8; 64] = [b'x'; 64];
const VERSIONS: [(&str, ProtocolVersion); 2] =
    [("v3.1.1", ProtocolVersion::V3_1_1), ("v5", ProtocolVersion::V5)];

/// Measures all of it.
pub fn run(meter: &mut Meter) {
    meter.measure("empty loop (part of every row)", OPERATIONS, |number| {
        black_box(number);
    });
    for (name, version) in VERSIONS {
        let connect = Packet::Connect(connect(version));
        decode(meter, &format!("decode CONNECT, {name}"), &connect, version);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let publish = Packet::Publish(publish(qos));
            let name = format!("decode PUBLISH QoS {}, 64 bytes, {name}", qos.bits());
            decode(meter, &name, &publish, version);
        }
        decode_subscribe(meter, &format!("decode SUBSCRIBE, 1 filter, {name}"), version);
    }
    for (name, version) in VERSIONS {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let name = format!("encode PUBLISH QoS {}, 64 bytes, {name}", qos.bits());
            let packet = publish_out(version, qos);
            encode(meter, &name, |out| black_box(&packet).encode(out));
        }
    }
    encode(meter, "encode PUBACK", |out| {
        let id = black_box(packet_id());
        let version = black_box(ProtocolVersion::V3_1_1);
        mqtt::encode_ack(out, PacketType::PubAck, version, id, ReasonCode::Success);
    });
}

fn packet_id() -> PacketId {
    PacketId::new(4_711).expect("it is not 0")
}

fn connect(version: ProtocolVersion) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 300,
        client_id: "bench-00000000004711",
        will: None,
        username: None,
        password: None,
        is_bridge: false,
        properties: ConnectProperties::default(),
    }
}

fn publish(qos: QoS) -> Publish<'static> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: TOPIC,
        packet_id: (qos != QoS::AtMostOnce).then(packet_id),
        payload: &PAYLOAD,
        properties: PublishProperties::default(),
    }
}

fn publish_out(version: ProtocolVersion, qos: QoS) -> PublishOut<'static> {
    PublishOut {
        version,
        dup: false,
        qos,
        retain: false,
        topic: TOPIC,
        packet_id: (qos != QoS::AtMostOnce).then(packet_id),
        topic_alias: None,
        message_expiry_interval_s: None,
        subscription_ids: &[],
        forwarded: &[],
        payload: &PAYLOAD,
    }
}

fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

/// What a shard does with the bytes of a packet before it handles it.
#[inline]
fn decoded<'a>(bytes: &'a [u8], version: ProtocolVersion, limits: &DecodeLimits) -> Packet<'a> {
    let header = FrameHeader::peek(bytes).expect("well formed").expect("all of it");
    let body = &bytes[header.header_len..];
    let packet = Packet::decode(&header, body, version, limits).expect("well formed");
    packet.check_from_client().expect("as a client may send it");
    packet
}

fn decode(meter: &mut Meter, name: &str, packet: &Packet<'_>, version: ProtocolVersion) {
    let bytes = encoded(packet, version);
    let limits = DecodeLimits::default();
    meter.measure(name, OPERATIONS, |_| {
        black_box(&decoded(black_box(&bytes), black_box(version), &limits));
    });
}

/// As [`decode`], and the filters are parsed, which a SUBSCRIBE leaves to whoever handles it.
fn decode_subscribe(meter: &mut Meter, name: &str, version: ProtocolVersion) {
    let filters = [(TOPIC, SubscribeOptions::from_qos(QoS::AtLeastOnce))];
    let packet = Packet::Subscribe(Subscribe {
        packet_id: packet_id(),
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::from_list(&filters),
    });
    let bytes = encoded(&packet, version);
    let limits = DecodeLimits::default();
    meter.measure(name, OPERATIONS, |_| {
        let packet = decoded(black_box(&bytes), black_box(version), &limits);
        let Packet::Subscribe(subscribe) = &packet else { unreachable!("it is a SUBSCRIBE") };
        for (filter, options) in subscribe.filters.iter() {
            black_box((ParsedFilter::parse(filter, &limits).expect("a valid filter"), options));
        }
    });
}

/// Into a buffer that has room, as the outbox of a connection that is in use.
fn encode(meter: &mut Meter, name: &str, mut encode: impl FnMut(&mut Vec<u8>)) {
    let mut out = Vec::new();
    meter.measure(name, OPERATIONS, |_| {
        out.clear();
        encode(black_box(&mut out));
        black_box(&out);
    });
}
