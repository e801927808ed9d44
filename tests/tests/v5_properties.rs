//! MQTT 5: properties that are passed on, the size a client can take, problem and response information.

use ringmq_tests::packet::{PINGREQ, ack_v5, field, frame};
use ringmq_tests::{
    Broker, Client, Connect, Packet, Property, Publish, Subscribe, V5, V311, Will, id, shared,
    topic,
};

fn pair(broker: &Broker) -> (Client, Client, String) {
    let name = topic();
    let mut subscriber = broker.client(V5);
    subscriber.subscribe(&name, 2);
    (broker.client(V5), subscriber, name)
}

/// MQTT-3.3.2-4, MQTT-3.3.2-15, MQTT-3.3.2-16, MQTT-3.3.2-17, MQTT-3.3.2-18, MQTT-3.3.2-20, SEED-PROTO-24, SEED-PROTO-25, SEED-PROTO-29
#[test]
fn mqtt_3_3_2_17_properties_are_passed_on_unaltered() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    let properties = vec![
        Property::PayloadFormat(1),
        Property::ContentType("text/ä".into()),
        Property::ResponseTopic("reply/to".into()),
        Property::CorrelationData(vec![0, 1, 0xFF]),
        Property::user("b", "1"),
        Property::user("a", "2"),
        Property::user("b", "1"),
        Property::user("", ""),
    ];
    for qos in 0..=2 {
        let message = Publish { properties: properties.clone(), ..Publish::new(&name, "x") };
        publisher.publish_whole(message, qos);
        let message = subscriber.expect_message(&name, "x");
        assert_eq!(message.user_properties(), [("b", "1"), ("a", "2"), ("b", "1"), ("", "")]);
        for property in &properties {
            assert!(message.properties.contains(property), "{property:?} is lost");
        }
        assert_eq!(message.properties.len(), properties.len(), "{:?}", message.properties);
    }
}

/// MQTT-3.3.2-4: 0 is a value too; and a 3.1.1 subscriber gets the payload without properties.
#[test]
fn mqtt_3_3_2_4_payload_format_0_is_passed_on() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    let mut old = broker.client(V311);
    old.subscribe(&name, 0);
    let message = Publish::new(&name, [0xFF, 0xFE]).property(Property::PayloadFormat(0));
    publisher.publish_whole(message, 1);
    let message = subscriber.message();
    assert!(matches!(message.properties[..], [Property::PayloadFormat(0)]), "{message:?}");
    assert_eq!(old.message().payload, [0xFF, 0xFE]);
}

/// SEED-PROTO-29: properties are kept with a retained message and in the queue of a session.
#[test]
fn seed_proto_29_properties_are_kept_while_a_message_waits() {
    let broker = shared();
    let name = topic();
    let connect = Connect::new(V5, &id()).persistent();
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 1);
    client.disconnect();
    let properties = vec![Property::user("k", "v"), Property::ContentType("c".into())];
    let message = Publish { properties, ..Publish::new(&name, "x") };
    broker.client(V5).publish_whole(message.clone().retain(), 1);
    let mut late = broker.client(V5);
    late.subscribe(&name, 1);
    for client in [&mut broker.connect(&connect), &mut late] {
        let got = client.expect_message(&name, "x");
        assert_eq!(got.properties.len(), 2);
        assert_eq!(got.user_properties(), [("k", "v")]);
        assert!(got.properties.contains(&Property::ContentType("c".into())));
    }
    broker.client(V5).publish_retained(&name, "", 1);
}

/// MQTT-3.1.3-10, SEED-PROTO-29
#[test]
fn mqtt_3_1_3_10_properties_of_the_will_keep_their_order() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V5);
    watcher.subscribe(&name, 1);
    let mut will = Will::new(&name, "gone")
        .property(Property::PayloadFormat(1))
        .property(Property::ContentType("text".into()))
        .property(Property::ResponseTopic("r".into()))
        .property(Property::CorrelationData(vec![7]))
        .property(Property::MessageExpiry(100));
    for (name, value) in [("z", "1"), ("a", "2"), ("z", "3")] {
        will = will.property(Property::user(name, value));
    }
    broker.connect(&Connect::new(V5, &id()).will(will)).cut();
    let message = watcher.expect_message(&name, "gone");
    assert_eq!(message.user_properties(), [("z", "1"), ("a", "2"), ("z", "3")]);
    assert_eq!(message.properties.len(), 8, "{:?}", message.properties);
    assert!(message.properties.contains(&Property::MessageExpiry(100)));
}

/// MQTT-3.3.2-13, MQTT-3.3.2-14, MQTT-3.3.2-19, MQTT-1.5.4-1, MQTT-1.5.7-1, MQTT-1.5.4-2
#[test]
fn mqtt_3_3_2_13_strings_in_properties_are_checked() {
    let broker = shared();
    let raw = |bytes: &[&[u8]]| Property::Raw(bytes.concat());
    let bad = field(b"a\xED\xA0\x80");
    let null = field(b"a\0");
    for property in [
        raw(&[&[0x08], &bad]),
        raw(&[&[0x08], &null]),
        raw(&[&[0x03], &bad]),
        raw(&[&[0x03], &null]),
        raw(&[&[0x26], &bad, &field(b"v")]),
        raw(&[&[0x26], &field(b"n"), &bad]),
        raw(&[&[0x26], &field(b"n"), &null]),
    ] {
        let mut client = broker.client(V5);
        client.send_publish(&Publish::new(&topic(), "x").property(property));
        client.expect_disconnect(0x81);
    }
    for end in ["#", "a/+", "+/b"] {
        let mut client = broker.client(V5);
        let wild = Property::ResponseTopic(end.into());
        client.send_publish(&Publish::new(&topic(), "x").property(wild));
        let Packet::Disconnect(answer) = client.packet() else { panic!("DISCONNECT") };
        assert!([0x81, 0x82, 0x90].contains(&answer.reason), "{answer:02x?}");
        client.expect_closed();
    }
}

/// MQTT-4.13.1-1: properties twice, of another packet, with values that may not be.
#[test]
fn mqtt_4_13_1_1_wrong_publish_properties_close() {
    let broker = shared();
    for (properties, reasons) in [
        (vec![Property::PayloadFormat(0), Property::PayloadFormat(0)], [0x82, 0x82]),
        (vec![Property::PayloadFormat(2)], [0x81, 0x82]),
        (vec![Property::MessageExpiry(1), Property::MessageExpiry(1)], [0x82, 0x82]),
        (vec![Property::ContentType("a".into()), Property::ContentType("a".into())], [0x82, 0x82]),
        (
            vec![Property::ResponseTopic("a".into()), Property::ResponseTopic("a".into())],
            [0x82, 0x82],
        ),
        (vec![Property::CorrelationData(vec![]), Property::CorrelationData(vec![])], [0x82, 0x82]),
        (vec![Property::TopicAlias(1), Property::TopicAlias(1)], [0x82, 0x82]),
        (vec![Property::SessionExpiry(1)], [0x81, 0x82]),
        (vec![Property::ReceiveMaximum(1)], [0x81, 0x82]),
        (vec![Property::Raw(vec![0x7F])], [0x81, 0x81]),
        (vec![Property::Raw(vec![0x02, 0])], [0x81, 0x81]),
    ] {
        let mut client = broker.client(V5);
        let publish = Publish { properties: properties.clone(), ..Publish::new(&topic(), "x") };
        client.send_publish(&publish);
        let Packet::Disconnect(answer) = client.packet() else { panic!("DISCONNECT") };
        assert!(reasons.contains(&answer.reason), "{properties:?} got {answer:02x?}");
        client.expect_closed();
    }
}

/// MQTT-3.3.4-6
#[test]
fn mqtt_3_3_4_6_subscription_identifier_from_a_client_is_a_protocol_error() {
    let broker = shared();
    let mut client = broker.client(V5);
    client.send_publish(&Publish::new(&topic(), "x").property(Property::SubscriptionId(1)));
    client.expect_disconnect(0x82);
}

/// MQTT-1.5.5-1: variable byte integers that are not minimal.
#[test]
fn mqtt_1_5_5_1_property_length_must_be_minimal() {
    let broker = shared();
    let mut client = broker.client(V5);
    let body = [field(topic().as_bytes()), vec![0x80, 0x00]].concat();
    client.send(&frame(0x30, &body));
    client.expect_disconnect(0x81);
    // A subscription identifier in two bytes where one would do.
    let mut client = broker.client(V5);
    let property = Property::Raw(vec![0x0B, 0x81, 0x00]);
    client.send(&Subscribe::new(1).filter(&topic(), 0).property(property).encode(V5));
    client.expect_disconnect(0x81);
}

/// MQTT-3.1.2-24, MQTT-3.1.2-25, SEED-PROTO-30
#[test]
fn mqtt_3_1_2_24_too_large_for_the_client_is_dropped() {
    let broker = shared();
    let name = topic();
    let limit = Property::MaximumPacketSize(100);
    let mut small = broker.connect(&Connect::new(V5, &id()).property(limit));
    small.subscribe(&name, 2);
    let mut other = broker.client(V5);
    other.subscribe(&name, 2);
    let mut publisher = broker.client(V5);
    // The packet of exactly 100 bytes: 2 header, 2 + topic, 2 identifier, 1 properties.
    let fits = 100 - 2 - 2 - name.len() - 2 - 1;
    for qos in 1..=2 {
        publisher.publish(&name, &"x".repeat(fits + 1), qos);
        publisher.publish(&name, &"y".repeat(fits), qos);
        small.expect_message(&name, &"y".repeat(fits));
        assert_eq!(other.payloads(2)[0].len(), fits + 1);
    }
    // The dropped ones hold no place in the window.
    for _ in 0..100 {
        publisher.publish(&name, &"x".repeat(200), 1);
        other.message();
    }
    publisher.publish(&name, "last", 1);
    small.expect_message(&name, "last");
}

/// MQTT-3.2.2-19, MQTT-3.2.2-20: CONNACK fits the client. A client that takes nothing gets nothing.
#[test]
fn mqtt_3_2_2_19_connack_fits_the_client() {
    let broker = Broker::start(&["mqtt.allow_anonymous=off"]);
    for limit in [5, 8, 20, 40] {
        let property = Property::MaximumPacketSize(limit);
        let mut client = broker.raw(V5);
        client.send(&Connect::new(V5, &id()).property(property).encode());
        client.stream().set_read_timeout(Some(ringmq_tests::WAIT)).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut client.stream(), &mut bytes).unwrap();
        assert!(bytes.len() <= usize::try_from(limit).unwrap(), "{limit}: {bytes:02x?}");
        assert_eq!(bytes[3], 0x87, "{limit}: {bytes:02x?}");
    }
}

/// Acknowledgements to a client with a maximum packet size of `limit` that provokes reasons: all are at most that large.
/// MQTT-3.4.2-2, MQTT-3.4.2-3, MQTT-3.5.2-2, MQTT-3.5.2-3, MQTT-3.6.2-2, MQTT-3.6.2-3, MQTT-3.7.2-2, MQTT-3.7.2-3,
/// MQTT-3.9.2-1, MQTT-3.9.2-2, MQTT-3.11.2-1, MQTT-3.11.2-2, MQTT-3.14.2-3, MQTT-3.14.2-4
#[test]
fn mqtt_3_4_2_2_reasons_fit_the_client() {
    let broker = shared();
    let name = topic();
    // 8 bytes: the shortest forms with a reason code and without properties.
    let limit = Property::MaximumPacketSize(8);
    let mut client = broker.raw(V5);
    // CONNACK of the default settings does not fit 8 bytes; it is needed, so the limit of this test is as low as it goes.
    let ack_len = {
        let mut probe = broker.raw(V5);
        probe.send(&Connect::new(V5, &id()).encode());
        let mut head = [0; 2];
        std::io::Read::read_exact(&mut probe.stream(), &mut head).unwrap();
        u32::from(head[1]) + 2
    };
    let limit = if ack_len > 8 { Property::MaximumPacketSize(ack_len) } else { limit };
    let Property::MaximumPacketSize(bytes) = limit else { unreachable!() };
    client.send(&Connect::new(V5, &id()).property(limit).encode());
    assert_eq!(client.expect_connack().code, 0);
    client.send(&Publish::new(&name, "x").qos(1, 1).encode(V5));
    client.send(&Publish::new(&name, "x").qos(2, 2).encode(V5));
    client.send(&ack_v5(0x62, 999, 0, &[]));
    client.send(&ack_v5(0x50, 998, 0, &[]));
    client.send(&Subscribe::new(3).filter("$share/g/", 0).encode(V5));
    client.send(&Subscribe::new(4).filter("never", 0).encode_unsubscribe(V5));
    client.send(&PINGREQ);
    client.send(&Publish::new("a/#", "x").encode(V5));
    client.stream().set_read_timeout(Some(ringmq_tests::WAIT)).unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut client.stream(), &mut rest).unwrap();
    let mut types = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(rest[1]) + 2;
        assert!(len <= usize::try_from(bytes).unwrap(), "{rest:02x?} is above {bytes}");
        types.push(rest[0] >> 4);
        rest.drain(..len);
    }
    for expected in [4, 5, 7, 6, 14] {
        assert!(types.contains(&expected), "packet type {expected} is missing in {types:?}");
    }
}

/// MQTT-3.1.2-29: with problem information off no reason strings but in CONNACK and DISCONNECT; PUBLISH keeps its user properties.
#[test]
fn mqtt_3_1_2_29_problem_information_off() {
    let broker = shared();
    let name = topic();
    let property = Property::RequestProblemInformation(0);
    let mut client = broker.connect(&Connect::new(V5, &id()).property(property));
    client.subscribe(&name, 1);
    let message = Publish::new(&name, "x").property(Property::user("k", "v"));
    client.send_publish(&message.qos(1, 1));
    assert_eq!(client.expect_puback(1).properties, []);
    assert_eq!(client.message().user_properties(), [("k", "v")]);
    client.send(&ack_v5(0x62, 999, 0, &[]));
    assert_eq!(client.expect_pubcomp(999).properties, []);
    client.send(&ack_v5(0x50, 998, 0, &[]));
    assert_eq!(client.expect_pubrel(998).properties, []);
    client.send(&Subscribe::new(4).filter("never", 0).encode_unsubscribe(V5));
    assert_eq!(client.expect_unsuback(4).properties, []);
    client.send(&Subscribe::new(5).filter(&name, 0).encode(V5));
    assert_eq!(client.expect_suback(5).properties, []);
}

/// SEED-PROTO-25: request and response through the broker.
#[test]
fn seed_proto_25_request_and_response() {
    let broker = shared();
    let (request, reply) = (topic(), topic());
    let (mut asks, mut answers) = (broker.client(V5), broker.client(V5));
    asks.subscribe(&reply, 1);
    answers.subscribe(&request, 1);
    let message = Publish::new(&request, "2+2")
        .property(Property::ResponseTopic(reply.clone()))
        .property(Property::CorrelationData(b"42".to_vec()));
    asks.publish_whole(message, 1);
    let got = answers.expect_message(&request, "2+2");
    let mut to = None;
    let mut data = None;
    for property in got.properties {
        match property {
            Property::ResponseTopic(name) => to = Some(name),
            Property::CorrelationData(bytes) => data = Some(bytes),
            _ => {}
        }
    }
    let response =
        Publish::new(&to.unwrap(), "4").property(Property::CorrelationData(data.unwrap()));
    answers.publish_whole(response, 1);
    let got = asks.expect_message(&reply, "4");
    assert_eq!(got.properties, [Property::CorrelationData(b"42".to_vec())]);
}

/// MQTT-2.2.2-1: a PUBLISH without properties arrives without, in the 3-byte-shorter form.
#[test]
fn mqtt_2_2_2_1_no_properties_is_a_length_of_zero() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "x", 1);
    assert_eq!(subscriber.expect_message(&name, "x").properties, []);
    // From 3.1.1 to 5 likewise.
    broker.client(V311).publish(&name, "y", 1);
    assert_eq!(subscriber.expect_message(&name, "y").properties, []);
}
