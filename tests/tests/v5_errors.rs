//! MQTT 5, chapter 4.13 and what CONNACK can forbid: reason codes are as specific as the specification has them (SEED-PROTO-22, -23, -31).

use ringmq_tests::packet::{ack_v5, auth, disconnect_v5, field, frame};
use ringmq_tests::{
    Broker, Connect, Packet, Property, Publish, Subscribe, V5, V311, Will, id, shared, topic,
};

#[track_caller]
fn error(broker: &Broker, bytes: &[u8], reason: u8) {
    let mut client = broker.client(V5);
    client.send(bytes);
    client.expect_disconnect(reason);
}

/// MQTT-4.13.1-1, MQTT-4.13.2-1, MQTT-3.14.2-1, MQTT-3.14.4-1, MQTT-3.14.4-2, MQTT-3.14.2-2
#[test]
fn mqtt_4_13_1_1_malformed_packets_get_0x81() {
    let broker = shared();
    for bytes in [
        vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], // a length of five bytes
        frame(0x00, &[]),                         // type 0
        frame(0xC0, &[0]),                        // PINGREQ with a body
        frame(0x40, &[0]),                        // half an identifier
        frame(0x40, &[0, 1, 0, 9]),               // properties longer than the packet
        frame(0x30, &[0, 9, b'a']),               // a topic longer than the packet
        frame(0x32, &[0, 1, b'a', 0]),            // QoS 1 without a whole identifier
        frame(0x30, &[0, 1, b'a', 9]),            // properties longer than the packet
        frame(0x82, &[0, 1, 0, 0, 1, b'a']),      // a filter without options
        frame(0xE0, &[0, 9]),                     // DISCONNECT with half its properties
    ] {
        error(&broker, &bytes, 0x81);
    }
}

/// MQTT-4.13.1-1: packets that only a server sends.
#[test]
fn mqtt_4_13_1_1_packets_of_the_other_side_get_0x82() {
    let broker = shared();
    for bytes in [
        frame(0x20, &[0, 0, 0]),
        frame(0x90, &[0, 1, 0, 0]),
        frame(0xB0, &[0, 1, 0, 0]),
        frame(0xD0, &[]),
    ] {
        let mut client = broker.client(V5);
        client.send(&bytes);
        let Packet::Disconnect(answer) = client.packet() else { panic!("DISCONNECT") };
        assert!([0x81, 0x82].contains(&answer.reason), "{answer:02x?}");
        client.expect_closed();
    }
}

/// MQTT-3.14.1-1, MQTT-3.14.2-1: a client's DISCONNECT with a reason code that does not exist or is not a client's.
#[test]
fn mqtt_3_14_2_1_unknown_reason_codes_are_errors() {
    let broker = shared();
    for bytes in [
        disconnect_v5(0x7F, &[]),
        ack_v5(0x40, 1, 0x7F, &[]),
        ack_v5(0x50, 1, 0x01, &[]),
        ack_v5(0x62, 1, 0x80, &[]),
        ack_v5(0x70, 1, 0x10, &[]),
    ] {
        let mut client = broker.client(V5);
        client.send(&bytes);
        let Packet::Disconnect(answer) = client.packet() else { panic!("DISCONNECT") };
        assert!([0x81, 0x82].contains(&answer.reason), "{answer:02x?}");
        client.expect_closed();
    }
}

/// SEED-PROTO-30, SEED-PROTO-07: a packet above the server's maximum gets 0x95, as soon as its length is known.
#[test]
fn seed_proto_30_too_large_gets_0x95() {
    let broker = Broker::start(&["mqtt.max_packet_size=1KB"]);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &id()));
    assert!(answer.properties.contains(&Property::MaximumPacketSize(1024)), "{answer:?}");
    // Exactly 1,024 bytes: 3 header, 3 topic, 1 properties.
    client.publish_whole(Publish::new("a", "x".repeat(1024 - 7)), 0);
    client.expect_alive();
    client.send(&[0x30, 0x80, 0x08, 0, 1]); // 1,024 + 3, the first bytes of it
    client.expect_disconnect(0x95);
    let mut old = broker.client(V311);
    old.send(&[0x30, 0x80, 0x08, 0, 1]);
    old.expect_closed();
    // CONNECT too.
    let mut client = broker.raw(V5);
    client.try_send(&Connect::new(V5, &"x".repeat(1020)).encode());
    match client.event(ringmq_tests::WAIT) {
        ringmq_tests::client::Event::Packet(Packet::ConnAck(answer)) => {
            assert_eq!(answer.code, 0x95);
            client.expect_closed();
        }
        event => assert_eq!(event, ringmq_tests::client::Event::Closed),
    }
}

/// MQTT-3.2.2-9, MQTT-3.2.2-10, MQTT-3.2.2-12, SEED-PROTO-31
#[test]
fn mqtt_3_2_2_9_maximum_qos() {
    for maximum in [0, 1] {
        let broker = Broker::start(&[&format!("mqtt.max_qos_allowed={maximum}")]);
        let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &id()));
        assert!(answer.properties.contains(&Property::MaximumQos(maximum)), "{answer:?}");
        let codes = client.subscribe_with(&[("a", 0), ("b", 1), ("c", 2)], &[]);
        assert_eq!(codes.len(), 3);
        assert!(codes.iter().all(|code| *code <= 2), "{codes:02x?}");
        client.publish("a", "x", maximum);
        client.expect_message("a", "x");
        client.send_publish(&Publish::new("a", "x").qos(maximum + 1, 5));
        client.expect_disconnect(0x9B);
        let will = Will::new("a", "x").qos(maximum + 1);
        let (mut client, answer) = broker.try_connect(&Connect::new(V5, &id()).will(will));
        assert_eq!(answer.code, 0x9B);
        client.expect_closed();
    }
}

/// MQTT-3.2.2-13, SEED-PROTO-31
#[test]
fn mqtt_3_2_2_13_retain_not_available() {
    let broker = Broker::start(&["mqtt.retain_available=off"]);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &id()));
    assert!(answer.properties.contains(&Property::RetainAvailable(0)), "{answer:?}");
    client.send_publish(&Publish::new("a", "x").retain());
    client.expect_disconnect(0x9A);
    let will = Will::new("a", "x").retain();
    let (mut client, answer) = broker.try_connect(&Connect::new(V5, &id()).will(will));
    assert_eq!(answer.code, 0x9A);
    client.expect_closed();
    // 3.1.1 cannot be told: closed or delivered, it is not kept.
    let mut old = broker.client(V311);
    old.send_publish(&Publish::new("a", "x").retain().qos(1, 1));
    let _ = old.event(ringmq_tests::WAIT);
    let mut late = broker.client(V311);
    late.subscribe("a", 1);
    late.expect_nothing();
}

/// SEED-PROTO-31: what CONNACK forbids is refused in SUBACK.
#[test]
fn seed_proto_31_forbidden_subscriptions() {
    let broker = Broker::start(&[
        "mqtt.wildcard_subscription=off",
        "mqtt.shared_subscription=off",
        "mqtt.subscription_identifiers=off",
    ]);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &id()));
    for property in [
        Property::WildcardAvailable(0),
        Property::SharedAvailable(0),
        Property::SubscriptionIdAvailable(0),
    ] {
        assert!(answer.properties.contains(&property), "{property:?} in {answer:?}");
    }
    let codes = client.subscribe_with(&[("a/#", 0), ("$share/g/a", 0), ("a", 0)], &[]);
    assert_eq!(codes, [0xA2, 0x9E, 0]);
    client.send(&Subscribe::new(9).filter("b", 0).property(Property::SubscriptionId(1)).encode(V5));
    match client.packet() {
        Packet::SubAck(answer) => assert_eq!(answer.codes, [0xA1]),
        Packet::Disconnect(answer) => assert_eq!(answer.reason, 0xA1),
        other => panic!("{other:?}"),
    }
    let mut old = broker.client(V311);
    assert_eq!(old.subscribe_with(&[("a/#", 0), ("$queue/a", 0), ("a", 0)], &[]), [0x80, 0x80, 0]);
}

/// MQTT-4.12.0-1, SEED-PROTO-19
#[test]
fn mqtt_4_12_0_1_unknown_authentication_method_gets_0x8c() {
    let broker = shared();
    for data in [None, Some(Property::AuthData(b"x".to_vec()))] {
        let mut connect = Connect::new(V5, &id()).property(Property::AuthMethod("unknown".into()));
        connect.properties.extend(data);
        let (mut client, answer) = broker.try_connect(&connect);
        assert_eq!((answer.code, answer.session_present), (0x8C, false));
        client.expect_closed();
    }
}

/// MQTT-4.12.0-6, MQTT-4.12.0-7, MQTT-3.15.1-1
#[test]
fn mqtt_4_12_0_7_auth_without_a_method_is_a_protocol_error() {
    let broker = shared();
    let (_, answer) = broker.connect_ack(&Connect::new(V5, &id()));
    let named =
        answer.properties.iter().any(|property| matches!(property, Property::AuthMethod(_)));
    assert!(!named, "{answer:?}");
    error(&broker, &auth(0x19, &[Property::AuthMethod("x".into())]), 0x82);
    error(&broker, &frame(0xF1, &[]), 0x81);
}

/// MQTT-3.1.4-2, SEED-AUTH-02, SEED-PROTO-17: without anonymous access.
#[test]
fn seed_auth_02_anonymous_is_refused_when_turned_off() {
    let broker = Broker::start(&["mqtt.allow_anonymous=off"]);
    let name = "will/of/nobody";
    for (version, codes) in [(V5, [0x87, 0x86]), (V311, [5, 4])] {
        let connect = Connect::new(version, &id()).will(Will::new(name, "no"));
        let (mut client, answer) = broker.try_connect(&connect);
        assert!(codes.contains(&answer.code), "{answer:?}");
        client.expect_closed();
        let (mut client, answer) = broker.try_connect(&connect.username("u").password("p"));
        assert!(codes.contains(&answer.code), "{answer:?}");
        client.expect_closed();
    }
}

/// MQTT-4.13.1-1: user property halves, unknown property identifiers in several bytes.
#[test]
fn mqtt_4_13_1_1_broken_properties_get_0x81() {
    let broker = shared();
    let name = field(topic().as_bytes());
    for properties in [
        vec![0x26, 0, 1, b'a'],
        vec![0x26, 0, 1, b'a', 0, 5, b'b'],
        vec![0xFF, 0x01],
        vec![0x02, 0, 0, 0],
        vec![0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
    ] {
        let len = u8::try_from(properties.len()).unwrap();
        let body = [name.clone(), vec![len], properties].concat();
        error(&broker, &frame(0x30, &body), 0x81);
    }
}
