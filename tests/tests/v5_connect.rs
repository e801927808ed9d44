//! MQTT 5, chapters 1, 2 and 3.1 to 3.2: CONNECT, CONNACK, sessions at connect, keep alive.

use std::time::{Duration, Instant};

use ringmq_tests::packet::{DISCONNECT, ILL_FORMED, PINGREQ, auth, disconnect_v5, field, find};
use ringmq_tests::{
    Broker, Client, ConnAck, Connect, Property, Publish, Subscribe, V5, Will, id, shared, topic,
};

/// Sends bytes as the first of a connection; the server must close, with a CONNACK of one of these codes or without.
#[track_caller]
fn refuses(broker: &Broker, bytes: &[u8], codes: &[u8]) {
    let mut client = broker.raw(V5);
    client.try_send(bytes);
    refused(&mut client, codes);
}

#[track_caller]
fn refused(client: &mut Client, codes: &[u8]) {
    use ringmq_tests::{Packet, client::Event};
    match client.event(ringmq_tests::WAIT) {
        Event::Packet(Packet::ConnAck(answer)) => {
            assert!(codes.contains(&answer.code), "{answer:02x?} is none of {codes:02x?}");
            assert!(!answer.session_present, "session present in a refusal");
            client.expect_closed();
        }
        event => assert_eq!(event, Event::Closed),
    }
}

/// A CONNECT with these flags and this payload.
fn connect_with(flags: u8, payload: &[u8]) -> Vec<u8> {
    Connect::new(V5, "").encode_with("MQTT", 5, flags, payload)
}

fn fields(values: &[&[u8]]) -> Vec<u8> {
    values.iter().flat_map(|value| field(value)).collect()
}

fn assigned(answer: &ConnAck) -> Option<String> {
    find(&answer.properties, |property| match property {
        Property::AssignedClientId(id) => Some(id.clone()),
        _ => None,
    })
}

/// MQTT-1.5.4-1, MQTT-3.1.3-4, MQTT-3.1.3-11, MQTT-3.1.3-12, MQTT-4.13.1-1
#[test]
fn mqtt_1_5_4_1_ill_formed_utf8_in_connect_closes() {
    let broker = shared();
    for bad in ILL_FORMED {
        refuses(&broker, &connect_with(0x02, &fields(&[bad])), &[0x81, 0x85]);
        let mut will = field(id().as_bytes());
        will.push(0);
        will.extend(fields(&[bad, b"will"]));
        refuses(&broker, &connect_with(0x06, &will), &[0x81, 0x90]);
        refuses(&broker, &connect_with(0x82, &fields(&[id().as_bytes(), bad])), &[0x81]);
    }
}

/// MQTT-1.5.4-2
#[test]
fn mqtt_1_5_4_2_null_character_in_connect_closes() {
    let broker = shared();
    refuses(&broker, &connect_with(0x02, &fields(&[b"a\0b"])), &[0x81, 0x85]);
    refuses(&broker, &connect_with(0x82, &fields(&[id().as_bytes(), b"a\0b"])), &[0x81]);
}

/// MQTT-1.5.5-1: property lengths of more bytes than needed. (A remaining length has no other rule.)
#[test]
fn mqtt_1_5_5_1_variable_byte_integer_must_be_minimal() {
    let broker = shared();
    let mut body = field(b"MQTT");
    body.extend([5, 2, 0, 60, 0x80, 0x00]);
    body.extend(field(id().as_bytes()));
    refuses(&broker, &ringmq_tests::packet::frame(0x10, &body), &[0x81]);
}

/// MQTT-2.2.2-1, MQTT-3.2.2-1, MQTT-3.2.2-8: the strict decoder reads every CONNACK of these tests; here it is read byte by byte.
#[test]
fn mqtt_2_2_2_1_connack_has_a_property_length() {
    use std::io::Read;
    let broker = shared();
    let mut client = broker.raw(V5);
    client.send(&Connect::new(V5, &id()).encode());
    let mut head = [0; 5];
    client.stream().read_exact(&mut head).unwrap();
    assert_eq!((head[0], head[2], head[3]), (0x20, 0, 0));
    assert_eq!(head[1], head[4] + 3, "remaining length and property length agree");
}

/// MQTT-3.1.0-1
#[test]
fn mqtt_3_1_0_1_first_packet_must_be_connect() {
    let broker = shared();
    let name = topic();
    for bytes in [
        PINGREQ.to_vec(),
        DISCONNECT.to_vec(),
        Publish::new(&name, "x").encode(V5),
        Subscribe::new(1).filter(&name, 0).encode(V5),
        auth(0x18, &[Property::AuthMethod("x".into())]),
    ] {
        let mut client = broker.raw(V5);
        client.try_send(&bytes);
        client.expect_closed();
    }
}

/// MQTT-3.1.0-2, MQTT-3.2.0-2
#[test]
fn mqtt_3_1_0_2_second_connect_is_a_protocol_error() {
    let broker = shared();
    let connect = Connect::new(V5, &id());
    let mut client = broker.connect(&connect);
    client.send(&connect.encode());
    client.expect_disconnect(0x82);
}

/// MQTT-3.1.2-1, MQTT-3.1.2-2
#[test]
fn mqtt_3_1_2_2_unknown_version_closes() {
    let broker = shared();
    let connect = Connect::new(V5, &id());
    for name in ["mqtt", "MQTTX", ""] {
        let bytes = connect.encode_with(name, 5, connect.flags(), &connect.payload());
        refuses(&broker, &bytes, &[0x81, 0x84]);
    }
    // A version we do not know cannot be answered in its own form: 3.1.1's return code 1, or no answer.
    for level in [6, 7, 255] {
        let mut client = broker.raw(ringmq_tests::V311);
        client.send(&connect.encode_with("MQTT", level, connect.flags(), &connect.payload()));
        match client.event(ringmq_tests::WAIT) {
            ringmq_tests::client::Event::Packet(ringmq_tests::Packet::ConnAck(answer)) => {
                assert_eq!(answer.code, 1);
                client.expect_closed();
            }
            event => assert_eq!(event, ringmq_tests::client::Event::Closed),
        }
    }
}

/// MQTT-3.1.2-3, MQTT-2.1.3-1
#[test]
fn mqtt_3_1_2_3_reserved_connect_flag_is_malformed() {
    let broker = shared();
    refuses(&broker, &connect_with(0x03, &field(id().as_bytes())), &[0x81]);
    let connect = Connect::new(V5, &id()).encode();
    refuses(&broker, &[&[0x14][..], &connect[1..]].concat(), &[0x81]);
}

/// MQTT-3.1.2-4, MQTT-3.2.2-2, MQTT-3.1.4-4, SEED-PROTO-20
#[test]
fn mqtt_3_1_2_4_clean_start_discards_the_session() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V5, &id()).persistent());
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 1);
    client.disconnect();
    broker.client(V5).publish(&name, "for the old session", 1);
    let (mut client, answer) = broker.connect_ack(&connect.clone().clean(true));
    assert!(!answer.session_present);
    client.publish(&name, "nobody is subscribed", 1);
    client.expect_nothing();
    client.subscribe(&name, 1);
    client.disconnect();
    // Clean start with an expiry makes a new session that stays.
    let (_, answer) = broker.connect_ack(&connect);
    assert!(answer.session_present);
}

/// MQTT-3.1.2-5, MQTT-3.1.2-6, MQTT-3.2.2-3, MQTT-3.1.3-2, MQTT-3.1.2-23, MQTT-4.1.0-1
#[test]
fn mqtt_3_1_2_5_session_is_made_and_resumed() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V5, &id()).persistent());
    let (mut client, answer) = broker.connect_ack(&connect);
    assert!(!answer.session_present);
    client.subscribe(&name, 1);
    client.disconnect();
    let (mut client, answer) = broker.connect_ack(&connect);
    assert!(answer.session_present);
    client.publish(&name, "x", 1);
    client.expect_message(&name, "x");
    let (_, answer) = broker.connect_ack(&Connect::new(V5, &id()).persistent());
    assert!(!answer.session_present);
}

/// MQTT-3.1.2-9, MQTT-3.1.2-17, MQTT-3.1.2-19: a flag without its field. MQTT-3.1.3-3: no client id.
#[test]
fn mqtt_3_1_2_9_flags_without_their_fields_close() {
    let broker = shared();
    refuses(&broker, &connect_with(0x02, &[]), &[0x81]);
    let client_id = field(id().as_bytes());
    for (flags, rest) in [
        (0x06, vec![]),
        (0x06, vec![0]),
        (0x06, [vec![0], field(b"topic")].concat()),
        (0x82, vec![]),
        (0x42, vec![]),
    ] {
        refuses(&broker, &connect_with(flags, &[client_id.clone(), rest].concat()), &[0x81]);
    }
}

/// MQTT-3.1.2-16, MQTT-3.1.2-18: a field without its flag.
#[test]
fn mqtt_3_1_2_16_fields_without_their_flags_close() {
    let broker = shared();
    let client_id = id();
    for (flags, values) in [(0x02, 1), (0x82, 2), (0x42, 2)] {
        let mut payload = field(client_id.as_bytes());
        for _ in 0..values {
            payload.extend(field(b"value"));
        }
        refuses(&broker, &connect_with(flags, &payload), &[0x81]);
    }
}

/// MQTT-3.1.2-11, MQTT-3.1.2-13
#[test]
fn mqtt_3_1_2_11_will_bits_without_will_flag_are_malformed() {
    let broker = shared();
    for bits in [0x08, 0x10, 0x18, 0x20] {
        refuses(&broker, &connect_with(0x02 | bits, &field(id().as_bytes())), &[0x81, 0x82]);
    }
}

/// MQTT-3.1.2-12
#[test]
fn mqtt_3_1_2_12_will_qos_3_is_malformed() {
    let broker = shared();
    let payload = [field(id().as_bytes()), vec![0], field(b"topic"), field(b"x")].concat();
    refuses(&broker, &connect_with(0x02 | 0x04 | 0x18, &payload), &[0x81]);
}

/// MQTT-3.1.2-17, MQTT-3.1.2-19: MQTT 5 allows a password without a user name.
#[test]
fn mqtt_3_1_2_19_user_name_and_password_are_accepted() {
    let broker = shared();
    broker.connect(&Connect::new(V5, &id()).username("name").password("word")).disconnect();
    broker.connect(&Connect::new(V5, &id()).username("name")).disconnect();
    broker.connect(&Connect::new(V5, &id()).password("word")).disconnect();
}

/// MQTT-3.1.2-22, MQTT-3.2.2-22
#[test]
fn mqtt_3_1_2_22_keep_alive_timeout_closes() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V5);
    watcher.subscribe(&name, 0);
    let connect = Connect::new(V5, &id()).keep_alive(2).will(Will::new(&name, "silent"));
    let (mut client, answer) = broker.connect_ack(&connect);
    let server = find(&answer.properties, |property| match property {
        Property::ServerKeepAlive(seconds) => Some(*seconds),
        _ => None,
    });
    assert_eq!(server, None, "no Server Keep Alive by default");
    let start = Instant::now();
    client.expect_disconnect(0x8D);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(2900), "closed already after {waited:?}");
    assert!(waited < Duration::from_millis(4500), "closed only after {waited:?}");
    watcher.expect_message(&name, "silent");
}

/// SEED-PROTO-34, MQTT-3.1.2-22: the server's keep alive counts, for v5 only.
#[test]
fn seed_proto_34_server_keep_alive() {
    let broker = Broker::start(&["mqtt.server_keepalive=1s"]);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &id()).keep_alive(60));
    assert!(answer.properties.contains(&Property::ServerKeepAlive(1)), "{answer:?}");
    let mut none = broker.connect(&Connect::new(V5, &id()).keep_alive(0));
    let mut old = broker.connect(&Connect::new(ringmq_tests::V311, &id()).keep_alive(60));
    client.expect_disconnect(0x8D);
    none.expect_disconnect(0x8D);
    old.expect_alive();
}

/// SEED-PROTO-34: 60 as the interoperability suite expects.
#[test]
fn seed_proto_34_server_keep_alive_60() {
    let broker = Broker::start(&["mqtt.server_keepalive=60"]);
    let (_, answer) = broker.connect_ack(&Connect::new(V5, &id()).keep_alive(120));
    assert!(answer.properties.contains(&Property::ServerKeepAlive(60)), "{answer:?}");
}

/// MQTT-3.1.2-28, SEED-PROTO-25
#[test]
fn mqtt_3_1_2_28_response_information_only_when_asked() {
    let broker = Broker::start(&["mqtt.response_information=reply/"]);
    for (asked, expected) in [(None, false), (Some(0), false), (Some(1), true)] {
        let mut connect = Connect::new(V5, &id());
        connect.properties.extend(asked.map(Property::RequestResponseInformation));
        let (_, answer) = broker.connect_ack(&connect);
        let given = answer.properties.contains(&Property::ResponseInformation("reply/".into()));
        assert_eq!(given, expected, "{asked:?}: {answer:?}");
    }
}

/// MQTT-3.1.3-5
#[test]
fn mqtt_3_1_3_5_ids_of_digits_and_letters_are_accepted() {
    let broker = shared();
    for client_id in ["b", "0123456789abcdefghijkln", "NopqrstuvwxyzABCDEFGHIJ"] {
        let (client, answer) = broker.connect_ack(&Connect::new(V5, client_id));
        assert_eq!(assigned(&answer), None);
        client.disconnect();
    }
}

/// MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16, SEED-PROTO-35
#[test]
fn mqtt_3_1_3_6_empty_id_is_assigned_one() {
    let broker = shared();
    let mut seen = Vec::new();
    let mut clients = Vec::new();
    for clean in [true, true, false, false] {
        let (client, answer) = broker.connect_ack(&Connect::new(V5, "").clean(clean));
        let given = assigned(&answer).expect("an assigned client identifier");
        assert!(!given.is_empty() && !seen.contains(&given), "{given} is not new");
        seen.push(given);
        clients.push(client);
    }
    // The id is the session's: it can be resumed by it.
    let connect = Connect::new(V5, "").clean(false).property(Property::SessionExpiry(60));
    let (client, answer) = broker.connect_ack(&connect);
    let given = assigned(&answer).expect("an assigned client identifier");
    client.disconnect();
    let resumed = Connect { client_id: given, ..connect };
    assert!(broker.connect_ack(&resumed).1.session_present);
    for client in &mut clients {
        client.expect_alive();
    }
}

/// MQTT-3.1.3-8, MQTT-3.1.4-2, MQTT-3.2.2-6, MQTT-3.2.2-7, MQTT-4.13.2-1, SEED-PROTO-07
#[test]
fn mqtt_3_1_3_8_refused_id_gets_0x85() {
    let broker = shared();
    let long = format!("{:x<1025}", id());
    let (mut client, answer) = broker.try_connect(&Connect::new(V5, &long));
    assert_eq!((answer.code, answer.session_present), (0x85, false));
    client.expect_closed();
}

/// MQTT-3.1.4-1, MQTT-3.14.0-1: no DISCONNECT before a CONNACK below 0x80.
#[test]
fn mqtt_3_1_4_1_malformed_connect_closes() {
    let broker = shared();
    let base = [field(b"MQTT"), vec![5, 2, 0, 60]].concat();
    for rest in [
        vec![],
        vec![9],             // properties longer than the packet
        vec![2, 0x21, 0],    // half a property
        vec![1, 0x7F],       // an unknown property
        vec![2, 0x01, 0],    // a property of another packet
        vec![0, 0, 9, b'a'], // a client id longer than the packet
    ] {
        let body = [base.clone(), rest].concat();
        refuses(&broker, &ringmq_tests::packet::frame(0x10, &body), &[0x81, 0x82]);
    }
}

/// MQTT-3.1.4-1: properties of CONNECT twice or with values that may not be.
#[test]
fn mqtt_3_1_4_1_wrong_connect_properties_are_refused() {
    let broker = shared();
    for properties in [
        vec![Property::SessionExpiry(1), Property::SessionExpiry(1)],
        vec![Property::ReceiveMaximum(0)],
        vec![Property::ReceiveMaximum(1), Property::ReceiveMaximum(1)],
        vec![Property::MaximumPacketSize(0)],
        vec![Property::MaximumPacketSize(99), Property::MaximumPacketSize(99)],
        vec![Property::TopicAliasMaximum(1), Property::TopicAliasMaximum(1)],
        vec![Property::RequestResponseInformation(2)],
        vec![Property::RequestProblemInformation(2)],
        vec![Property::RequestProblemInformation(1), Property::RequestProblemInformation(1)],
        vec![Property::AuthData(b"x".to_vec())], // without a method
        vec![Property::WillDelay(1)],            // belongs to the will
    ] {
        let connect = Connect { properties, ..Connect::new(V5, &id()) };
        refuses(&broker, &connect.encode(), &[0x81, 0x82]);
    }
}

/// MQTT-3.1.4-3, SEED-PROTO-16, SEED-PROTO-23
#[test]
fn mqtt_3_1_4_3_older_client_gets_0x8e() {
    let broker = shared();
    let connect = Connect::new(V5, &id()).persistent();
    let mut first = broker.connect(&connect);
    let (mut second, answer) = broker.connect_ack(&connect);
    assert!(answer.session_present);
    first.expect_disconnect(0x8E);
    // And across versions.
    let mut third = broker.connect(&Connect::new(ringmq_tests::V311, &connect.client_id));
    second.expect_disconnect(0x8E);
    third.expect_alive();
}

/// MQTT-3.1.4-5, MQTT-3.2.0-1: packets sent with the CONNECT are answered after the CONNACK.
#[test]
fn mqtt_3_2_0_1_connack_comes_first() {
    let broker = shared();
    let mut client = broker.raw(V5);
    client.send(&[Connect::new(V5, &id()).encode(), PINGREQ.to_vec()].concat());
    assert_eq!(client.expect_connack().code, 0);
    assert_eq!(client.packet(), ringmq_tests::Packet::PingResp);
}

/// MQTT-3.1.4-6
#[test]
fn mqtt_3_1_4_6_nothing_is_processed_after_a_refused_connect() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V5);
    watcher.subscribe(&name, 0);
    let refused = Connect::new(V5, &format!("{:x<1025}", id())).encode();
    let mut client = broker.raw(V5);
    client.send(&[refused, Publish::new(&name, "no").encode(V5)].concat());
    assert_eq!(client.expect_connack().code, 0x85);
    client.expect_closed();
    watcher.expect_nothing();
}

/// SEED-PROTO-31, SEED-PROTO-37, SEED-PROTO-30: what CONNACK says by default.
#[test]
fn seed_proto_31_connack_says_what_the_server_can() {
    let broker = shared();
    let (_, answer) = broker.connect_ack(&Connect::new(V5, &id()));
    let has = |pick: fn(&Property) -> bool| answer.properties.iter().any(pick);
    assert!(has(|p| matches!(p, Property::ReceiveMaximum(1..))), "{answer:?}");
    assert!(has(|p| matches!(p, Property::MaximumPacketSize(65_536))), "{answer:?}");
    assert!(has(|p| matches!(p, Property::TopicAliasMaximum(1..))), "{answer:?}");
    // Absent means available, so none may say 0.
    assert!(!has(|p| matches!(
        p,
        Property::MaximumQos(_)
            | Property::RetainAvailable(0)
            | Property::WildcardAvailable(0)
            | Property::SubscriptionIdAvailable(0)
            | Property::SharedAvailable(0)
    )));
}

/// SEED-PROTO-36: Server Reference with 0x9C and 0x9D.
#[test]
fn seed_proto_36_server_moved() {
    for (word, code) in [("temporary", 0x9C), ("permanent", 0x9D)] {
        let moved = format!("mqtt.server_moved={word}");
        let broker = Broker::start(&[&moved, "mqtt.server_reference=other:1883"]);
        let (mut client, answer) = broker.try_connect(&Connect::new(V5, &id()));
        assert_eq!(answer.code, code);
        assert_eq!(answer.properties, [Property::ServerReference("other:1883".into())]);
        client.expect_closed();
    }
}

/// MQTT-3.14.4-3, MQTT-3.14.4-2: DISCONNECT of a client, with properties.
#[test]
fn mqtt_3_14_4_3_disconnect_with_properties_is_accepted() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V5);
    watcher.subscribe(&name, 0);
    let connect = Connect::new(V5, &id()).will(Will::new(&name, "gone"));
    let mut client = broker.connect(&connect);
    client
        .send(&disconnect_v5(0, &[Property::ReasonString("bye".into()), Property::user("a", "b")]));
    client.expect_closed();
    let mut client = broker.connect(&connect);
    client.send(&ringmq_tests::packet::frame(0xE0, &[0]));
    client.expect_closed();
    watcher.expect_nothing();
}

/// MQTT-4.2-1: packets cut anywhere are put together, many in one segment are taken apart.
#[test]
fn mqtt_4_2_1_bytes_may_be_cut_anywhere() {
    let broker = shared();
    let name = topic();
    let mut bytes = Connect::new(V5, &id()).property(Property::SessionExpiry(0)).encode();
    bytes.extend(Subscribe::new(7).filter(&name, 1).encode(V5));
    let message = Publish::new(&name, "first").qos(1, 9).property(Property::user("k", "v"));
    bytes.extend(message.encode(V5));
    let mut client = broker.raw(V5);
    for part in bytes.chunks(3) {
        client.send(part);
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(client.expect_connack().code, 0);
    assert_eq!(client.expect_suback(7).codes, [1]);
    assert_eq!(client.expect_puback(9).reason, 0);
    client.expect_message(&name, "first");
    let many: Vec<u8> =
        (0..200).flat_map(|n| Publish::new(&name, n.to_string()).encode(V5)).collect();
    client.send(&many);
    let expected: Vec<String> = (0..200).map(|n: i32| n.to_string()).collect();
    assert_eq!(client.payloads(200), expected);
}
