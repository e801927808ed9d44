//! MQTT 3.1.1, chapters 1, 2 and 3.1 to 3.2: the fixed header, CONNECT, CONNACK, sessions at connect, keep alive.

use std::time::{Duration, Instant};

use ringmq_tests::client::Event;
use ringmq_tests::packet::{DISCONNECT, ILL_FORMED, PINGREQ, ack, field, frame};
use ringmq_tests::{
    Broker, Client, Connect, Packet, Publish, Subscribe, V311, WAIT, Will, id, shared, topic,
};

/// Sends bytes as the first of a connection; the server must close without an answer.
#[track_caller]
fn closes(broker: &Broker, bytes: &[u8]) {
    let mut client = broker.raw(V311);
    client.try_send(bytes);
    client.expect_closed();
}

/// Sends bytes on a connected client; the server must close without an answer.
#[track_caller]
fn closes_connected(broker: &Broker, bytes: &[u8]) {
    let mut client = broker.client(V311);
    client.try_send(bytes);
    client.expect_closed();
}

/// A CONNECT with these flags and this payload.
fn connect_with(flags: u8, payload: &[u8]) -> Vec<u8> {
    Connect::new(V311, "").encode_with("MQTT", 4, flags, payload)
}

fn fields(values: &[&[u8]]) -> Vec<u8> {
    values.iter().flat_map(|value| field(value)).collect()
}

/// MQTT-1.5.3-1, MQTT-3.1.3-4, MQTT-3.1.3-10, MQTT-3.1.3-11
#[test]
fn mqtt_1_5_3_1_ill_formed_utf8_in_connect_closes() {
    let broker = shared();
    for bad in ILL_FORMED {
        closes(&broker, &connect_with(0x02, &fields(&[bad])));
        closes(&broker, &connect_with(0x06, &fields(&[id().as_bytes(), bad, b"will"])));
        closes(&broker, &connect_with(0x82, &fields(&[id().as_bytes(), bad])));
    }
}

/// MQTT-1.5.3-1, MQTT-3.3.2-1, MQTT-3.8.3-1, MQTT-3.10.3-1
#[test]
fn mqtt_1_5_3_1_ill_formed_utf8_in_topics_closes() {
    let broker = shared();
    for bad in ILL_FORMED {
        closes_connected(&broker, &frame(0x30, &field(bad)));
        let mut subscribe = vec![0, 1];
        subscribe.extend(field(bad));
        closes_connected(&broker, &frame(0xA2, &subscribe));
        subscribe.push(0);
        closes_connected(&broker, &frame(0x82, &subscribe));
    }
}

/// MQTT-1.5.3-2, MQTT-4.7.3-2
#[test]
fn mqtt_1_5_3_2_null_character_closes() {
    let broker = shared();
    closes(&broker, &connect_with(0x02, &fields(&[b"a\0b"])));
    closes(&broker, &connect_with(0x06, &fields(&[id().as_bytes(), b"a\0b", b"will"])));
    closes_connected(&broker, &Publish::new("a\0b", "").encode(V311));
    closes_connected(&broker, &Subscribe::new(1).filter("a\0b", 0).encode(V311));
    closes_connected(&broker, &Subscribe::new(1).filter("a\0b", 0).encode_unsubscribe(V311));
}

/// MQTT-1.5.3-3
#[test]
fn mqtt_1_5_3_3_byte_order_mark_is_kept() {
    let broker = shared();
    let (plain, marked) = (topic(), format!("\u{FEFF}{}", topic()));
    let mut client = broker.client(V311);
    client.subscribe(&marked, 0);
    client.subscribe(&plain, 0);
    client.publish(&marked, "1", 0);
    assert_eq!(client.expect_publish().topic, marked);
    client.publish(&format!("\u{FEFF}{plain}"), "2", 0);
    client.expect_nothing();
}

/// MQTT-2.2.2-1, MQTT-2.2.2-2, MQTT-3.8.1-1, MQTT-3.10.1-1, MQTT-3.6.1-1, MQTT-3.14.1-1, SEED-PROTO-38
#[test]
fn mqtt_2_2_2_2_wrong_flags_close() {
    let broker = shared();
    let (connect, name) = (Connect::new(V311, &id()).encode(), topic());
    closes(&broker, &[&[0x11][..], &connect[1..]].concat());
    let subscribe = Subscribe::new(1).filter(&name, 0);
    for flags in [0, 1, 3, 8] {
        let mut bytes = subscribe.encode(V311);
        bytes[0] = 0x80 | flags;
        closes_connected(&broker, &bytes);
        let mut bytes = subscribe.encode_unsubscribe(V311);
        bytes[0] = 0xA0 | flags;
        closes_connected(&broker, &bytes);
        if flags > 0 {
            closes_connected(&broker, &ack(0x60 | flags, 1));
        }
    }
    for first in [0x41, 0x52, 0x74, 0xC8, 0xE1] {
        let body: &[u8] = if first >= 0xC0 { &[] } else { &[0, 1] };
        closes_connected(&broker, &frame(first, body));
    }
}

/// MQTT-4.8.0-1: packets only a server sends, the reserved types 0 and 15.
#[test]
fn mqtt_4_8_0_1_packets_of_the_other_side_close() {
    let broker = shared();
    for bytes in [
        frame(0x20, &[0, 0]),
        frame(0x90, &[0, 1, 0]),
        frame(0xB0, &[0, 1]),
        frame(0xD0, &[]),
        frame(0x00, &[]),
        frame(0xF0, &[]),
    ] {
        closes_connected(&broker, &bytes);
    }
}

/// MQTT-4.8.0-1: lengths that cannot be.
#[test]
fn mqtt_4_8_0_1_wrong_lengths_close() {
    let broker = shared();
    closes_connected(&broker, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]); // a length of five bytes
    closes_connected(&broker, &frame(0xC0, &[0])); // PINGREQ with a body
    closes_connected(&broker, &frame(0xE0, &[0])); // DISCONNECT with a body
    closes_connected(&broker, &frame(0x40, &[0, 1, 0])); // PUBACK with a reason
    closes_connected(&broker, &frame(0x40, &[0])); // PUBACK with half an identifier
    closes_connected(&broker, &frame(0x30, &[0, 9, b'a'])); // a topic longer than the packet
    closes_connected(&broker, &frame(0x32, &[0, 1, b'a', 0])); // QoS 1 with half an identifier
    closes_connected(&broker, &frame(0x82, &[0, 1, 0, 1, b'a'])); // a filter without its QoS
    let mut long = Connect::new(V311, &id()).encode();
    long.push(0);
    long[1] += 1;
    closes(&broker, &long); // CONNECT with a byte behind its payload
}

/// MQTT-2.3.1-1
#[test]
fn mqtt_2_3_1_1_packet_identifier_zero_closes() {
    let broker = shared();
    let name = topic();
    closes_connected(&broker, &Subscribe::new(0).filter(&name, 0).encode(V311));
    closes_connected(&broker, &Subscribe::new(0).filter(&name, 0).encode_unsubscribe(V311));
    closes_connected(&broker, &Publish::new(&name, "").qos(1, 0).encode(V311));
    closes_connected(&broker, &Publish::new(&name, "").qos(2, 0).encode(V311));
}

/// MQTT-3.1.0-1
#[test]
fn mqtt_3_1_0_1_first_packet_must_be_connect() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    closes(&broker, &PINGREQ);
    closes(&broker, &DISCONNECT);
    closes(&broker, &Publish::new(&name, "early").encode(V311));
    closes(&broker, &Subscribe::new(1).filter(&name, 0).encode(V311));
    closes(&broker, b"GET / HTTP/1.1\r\n\r\n");
    watcher.expect_nothing();
}

/// MQTT-3.1.0-2
#[test]
fn mqtt_3_1_0_2_second_connect_closes_and_publishes_the_will() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    let connect = Connect::new(V311, &id()).will(Will::new(&name, "twice"));
    let mut client = broker.connect(&connect);
    client.send(&connect.encode());
    client.expect_closed();
    watcher.expect_message(&name, "twice");
}

/// MQTT-3.1.2-1
#[test]
fn mqtt_3_1_2_1_wrong_protocol_name_closes() {
    let broker = shared();
    let connect = Connect::new(V311, &id());
    for name in ["mqtt", "MQTTX", "", "HTTP"] {
        let bytes = connect.encode_with(name, 4, connect.flags(), &connect.payload());
        closes(&broker, &bytes);
    }
    // The name of MQTT 3.1 with the level of 3.1.1 may be told that the level is not supported.
    let mut client = broker.raw(V311);
    client.send(&connect.encode_with("MQIsdp", 4, connect.flags(), &connect.payload()));
    match client.event(WAIT) {
        Event::Packet(Packet::ConnAck(answer)) => {
            assert_eq!(answer.code, 1);
            client.expect_closed();
        }
        event => assert_eq!(event, Event::Closed),
    }
}

/// MQTT-3.1.2-2
#[test]
fn mqtt_3_1_2_2_unknown_protocol_level_gets_code_1_and_closes() {
    let broker = shared();
    let connect = Connect::new(V311, &id());
    for level in [0, 1, 2, 6, 9] {
        let mut client = broker.raw(V311);
        client.send(&connect.encode_with("MQTT", level, connect.flags(), &connect.payload()));
        let answer = client.expect_connack();
        assert_eq!((answer.code, answer.session_present), (1, false), "level {level}");
        client.expect_closed();
    }
}

/// MQTT-3.1.2-3, SEED-PROTO-38
#[test]
fn mqtt_3_1_2_3_reserved_connect_flag_closes() {
    let broker = shared();
    closes(&broker, &connect_with(0x03, &fields(&[id().as_bytes()])));
}

/// MQTT-3.1.2-4, MQTT-3.2.2-2, MQTT-3.2.2-3, MQTT-3.1.3-2, MQTT-3.1.4-3, MQTT-4.1.0-1, SEED-PROTO-05, SEED-SESS-01
#[test]
fn mqtt_3_1_2_4_session_is_stored_and_resumed() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V311, &id()).persistent());
    let (mut client, answer) = broker.connect_ack(&connect);
    assert!(!answer.session_present, "no session was stored yet");
    client.subscribe(&name, 1);
    client.disconnect();
    let (mut client, answer) = broker.connect_ack(&connect);
    assert!(answer.session_present);
    client.publish(&name, "still subscribed", 0);
    client.expect_message(&name, "still subscribed");
    // Another id has another session.
    let (_, answer) = broker.connect_ack(&Connect::new(V311, &id()).persistent());
    assert!(!answer.session_present);
}

/// MQTT-3.1.2-5, MQTT-4.5.0-1
#[test]
fn mqtt_3_1_2_5_messages_are_kept_for_an_absent_session() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V311, &id()).persistent());
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 2);
    client.cut_and_wait();
    let mut publisher = broker.client(V311);
    publisher.publish(&name, "one", 1);
    publisher.publish(&name, "two", 2);
    let mut client = broker.connect(&connect);
    let first = client.expect_message(&name, "one");
    assert_eq!((first.qos, first.dup, first.retain), (1, false, false));
    let second = client.expect_message(&name, "two");
    assert_eq!((second.qos, second.dup), (2, false));
    client.expect_nothing();
}

/// MQTT-3.1.2-6, MQTT-3.2.2-1, MQTT-3.1.4-3
#[test]
fn mqtt_3_1_2_6_clean_session_discards_the_old_one() {
    let broker = shared();
    let (name, client_id) = (topic(), id());
    let mut client = broker.connect(&Connect::new(V311, &client_id).persistent());
    client.subscribe(&name, 1);
    client.disconnect();
    broker.client(V311).publish(&name, "for the old session", 1);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V311, &client_id));
    assert!(!answer.session_present, "a clean session is never present");
    client.publish(&name, "nobody is subscribed", 1);
    client.expect_nothing();
    client.subscribe(&name, 1);
    client.disconnect();
    // And the clean session ended with its connection.
    let (mut client, answer) = broker.connect_ack(&Connect::new(V311, &client_id).persistent());
    assert!(!answer.session_present, "a clean session is not stored");
    client.publish(&name, "nobody is subscribed", 1);
    client.expect_nothing();
}

/// MQTT-3.1.2-7
#[test]
fn mqtt_3_1_2_7_retained_messages_outlive_the_session() {
    let broker = shared();
    let name = topic();
    let mut publisher = broker.client(V311);
    publisher.publish_retained(&name, "stays", 1);
    publisher.disconnect();
    let mut client = broker.client(V311);
    client.subscribe(&name, 1);
    assert!(client.expect_message(&name, "stays").retain);
}

/// MQTT-3.1.2-8, SEED-PUB-14
#[test]
fn mqtt_3_1_2_8_will_is_published_when_the_connection_breaks() {
    let broker = shared();
    for qos in 0..=2 {
        let name = topic();
        let mut watcher = broker.client(V311);
        watcher.subscribe(&name, 2);
        let will = Will::new(&name, "gone").qos(qos);
        broker.connect(&Connect::new(V311, &id()).will(will)).cut();
        assert_eq!(watcher.expect_message(&name, "gone").qos, qos);
        watcher.expect_nothing();
    }
}

/// MQTT-3.1.2-8: a protocol error of the client publishes the will too.
#[test]
fn mqtt_3_1_2_8_will_is_published_after_a_protocol_error() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    let mut client = broker.connect(&Connect::new(V311, &id()).will(Will::new(&name, "gone")));
    client.send(&frame(0x82, &[0, 1]));
    client.expect_closed();
    watcher.expect_message(&name, "gone");
}

/// MQTT-3.1.2-9, MQTT-3.1.2-19, MQTT-3.1.2-21: a flag without its field.
#[test]
fn mqtt_3_1_2_9_flags_without_their_fields_close() {
    let broker = shared();
    let client_id = id();
    for (flags, rest) in
        [(0x06, vec![]), (0x06, field(b"topic")), (0x82, vec![]), (0xC2, field(b"name"))]
    {
        let mut payload = field(client_id.as_bytes());
        payload.extend(rest);
        closes(&broker, &connect_with(flags, &payload));
    }
}

/// MQTT-3.1.2-11, MQTT-3.1.2-18, MQTT-3.1.2-20: a field without its flag.
#[test]
fn mqtt_3_1_2_11_fields_without_their_flags_close() {
    let broker = shared();
    let client_id = id();
    closes(&broker, &connect_with(0x02, &fields(&[client_id.as_bytes(), b"will", b"message"])));
    closes(&broker, &connect_with(0x02, &fields(&[client_id.as_bytes(), b"name"])));
    closes(&broker, &connect_with(0x82, &fields(&[client_id.as_bytes(), b"name", b"word"])));
}

/// MQTT-3.1.2-10, MQTT-3.14.4-3, SEED-PUB-14
#[test]
fn mqtt_3_1_2_10_disconnect_removes_the_will() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    let connect = Connect::new(V311, &id()).will(Will::new(&name, "gone"));
    broker.connect(&connect).disconnect();
    watcher.expect_nothing();
    // Once published it is gone as well: the next end without DISCONNECT has no will.
    broker.connect(&connect).cut();
    watcher.expect_message(&name, "gone");
    let connect = Connect { will: None, ..connect };
    broker.connect(&connect).cut();
    watcher.expect_nothing();
}

/// MQTT-3.1.2-12
#[test]
fn mqtt_3_1_2_12_without_will_flag_nothing_is_published() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&format!("{name}/#"), 0);
    broker.connect(&Connect::new(V311, &id())).cut();
    watcher.expect_nothing();
}

/// MQTT-3.1.2-13, MQTT-3.1.2-15, MQTT-3.1.2-11
#[test]
fn mqtt_3_1_2_13_will_bits_without_will_flag_close() {
    let broker = shared();
    for bits in [0x08, 0x10, 0x18, 0x20] {
        closes(&broker, &connect_with(0x02 | bits, &fields(&[id().as_bytes()])));
    }
}

/// MQTT-3.1.2-14
#[test]
fn mqtt_3_1_2_14_will_qos_3_closes() {
    let broker = shared();
    let payload = fields(&[id().as_bytes(), b"will", b"message"]);
    closes(&broker, &connect_with(0x02 | 0x04 | 0x18, &payload));
}

/// MQTT-3.1.2-16, MQTT-3.1.2-17
#[test]
fn mqtt_3_1_2_17_will_retain() {
    let broker = shared();
    let (plain, retained) = (topic(), topic());
    let will = Will::new(&plain, "plain").qos(1);
    broker.connect(&Connect::new(V311, &id()).will(will)).cut();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&retained, 1);
    let will = Will::new(&retained, "kept").qos(1).retain();
    broker.connect(&Connect::new(V311, &id()).will(will)).cut();
    assert!(!watcher.expect_message(&retained, "kept").retain);
    let mut late = broker.client(V311);
    late.subscribe(&plain, 1);
    late.expect_nothing();
    late.subscribe(&retained, 1);
    assert!(late.expect_message(&retained, "kept").retain);
    late.publish_retained(&retained, "", 1);
}

/// MQTT-3.1.2-19, MQTT-3.1.2-21: with their fields they are accepted.
#[test]
fn mqtt_3_1_2_19_user_name_and_password_are_accepted() {
    let broker = shared();
    broker.connect(&Connect::new(V311, &id()).username("name").password("word")).disconnect();
    broker.connect(&Connect::new(V311, &id()).username("name")).disconnect();
}

/// MQTT-3.1.2-22
#[test]
fn mqtt_3_1_2_22_password_without_user_name_closes() {
    let broker = shared();
    closes(&broker, &connect_with(0x42, &fields(&[id().as_bytes(), b"word"])));
}

/// MQTT-3.1.2-24, SEED-PROTO-04
#[test]
fn mqtt_3_1_2_24_keep_alive_timeout_closes() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    let connect = Connect::new(V311, &id()).keep_alive(2).will(Will::new(&name, "silent"));
    let mut client = broker.connect(&connect);
    let start = Instant::now();
    client.expect_closed_within(Duration::from_secs(6));
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(2900), "closed already after {waited:?}");
    assert!(waited < Duration::from_millis(4500), "closed only after {waited:?}");
    watcher.expect_message(&name, "silent");
}

/// MQTT-3.1.2-24: any packet counts, and 0 turns it off.
#[test]
fn mqtt_3_1_2_24_packets_keep_the_connection() {
    let broker = shared();
    let mut zero = broker.connect(&Connect::new(V311, &id()).keep_alive(0));
    let mut one = broker.connect(&Connect::new(V311, &id()).keep_alive(1));
    let mut publisher = broker.connect(&Connect::new(V311, &id()).keep_alive(1));
    let name = topic();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(700));
        one.expect_alive();
        publisher.publish(&name, "", 0);
    }
    publisher.expect_alive();
    zero.expect_alive();
}

/// MQTT-3.1.3-3: the payload begins with the client id; without one the packet is cut short.
#[test]
fn mqtt_3_1_3_3_client_id_must_be_present() {
    let broker = shared();
    closes(&broker, &connect_with(0x02, &[]));
}

/// MQTT-3.1.3-5
#[test]
fn mqtt_3_1_3_5_ids_of_digits_and_letters_are_accepted() {
    let broker = shared();
    for client_id in ["a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"]
    {
        broker.connect(&Connect::new(V311, client_id)).disconnect();
    }
}

/// MQTT-3.1.3-6, MQTT-3.1.3-7, SEED-PROTO-06: two clients without an id do not disturb each other.
#[test]
fn mqtt_3_1_3_6_empty_id_is_given_a_unique_one() {
    let broker = shared();
    let name = topic();
    let connect = Connect::new(V311, "");
    let mut clients: Vec<Client> = (0..5).map(|_| broker.connect(&connect)).collect();
    for client in &mut clients {
        client.subscribe(&name, 0);
    }
    broker.client(V311).publish(&name, "all", 0);
    for client in &mut clients {
        client.expect_message(&name, "all");
    }
}

/// MQTT-3.1.3-8, MQTT-3.1.3-7, MQTT-3.2.2-4, MQTT-3.2.2-5, SEED-PROTO-06
#[test]
fn mqtt_3_1_3_8_empty_id_needs_clean_session() {
    let broker = shared();
    let (mut client, answer) = broker.try_connect(&Connect::new(V311, "").clean(false));
    assert_eq!((answer.code, answer.session_present), (2, false));
    client.expect_closed();
}

/// MQTT-3.1.3-9, MQTT-3.2.2-4, MQTT-3.2.2-5, SEED-PROTO-07
#[test]
fn mqtt_3_1_3_9_refused_id_gets_code_2_and_closes() {
    let broker = shared();
    let prefix = id();
    let longest = format!("{prefix:x<1024}");
    broker.connect(&Connect::new(V311, &longest)).disconnect();
    let (mut client, answer) = broker.try_connect(&Connect::new(V311, &format!("{longest}x")));
    assert_eq!((answer.code, answer.session_present), (2, false));
    client.expect_closed();
}

/// MQTT-3.1.4-1
#[test]
fn mqtt_3_1_4_1_malformed_connect_closes_without_connack() {
    let broker = shared();
    closes(&broker, &frame(0x10, &[]));
    closes(&broker, &frame(0x10, &[0, 4, b'M', b'Q', b'T', b'T', 4]));
    closes(&broker, &frame(0x10, &[0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 9, b'x']));
}

/// MQTT-3.1.4-2, SEED-PROTO-16
#[test]
fn mqtt_3_1_4_2_second_client_with_the_id_throws_the_first_out() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    let connect = Connect::new(V311, &id()).will(Will::new(&name, "thrown out"));
    let mut first = broker.connect(&connect);
    let mut second = broker.connect(&connect);
    first.expect_closed();
    watcher.expect_message(&name, "thrown out");
    second.expect_alive();
}

/// MQTT-3.1.4-4, MQTT-3.2.0-1
#[test]
fn mqtt_3_1_4_4_connack_is_the_first_packet() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V311, &id()).persistent());
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 1);
    client.disconnect();
    broker.client(V311).publish(&name, "queued", 1);
    // Packets sent with the CONNECT are processed after it, what waited comes after the CONNACK.
    let mut client = broker.raw(V311);
    client.send(&[connect.encode(), PINGREQ.to_vec()].concat());
    assert_eq!(client.expect_connack().code, 0);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match client.packet() {
            Packet::PingResp => seen.push("ping".to_owned()),
            Packet::Publish(publish) => {
                client.acknowledge(&publish);
                seen.push(publish.text().to_owned());
            }
            other => panic!("{other:?}"),
        }
    }
    seen.sort();
    assert_eq!(seen, ["ping", "queued"]);
}

/// MQTT-3.1.4-5
#[test]
fn mqtt_3_1_4_5_nothing_is_processed_after_a_refused_connect() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    let mut client = broker.raw(V311);
    let refused = Connect::new(V311, "").clean(false).encode();
    client.send(&[refused, Publish::new(&name, "no").encode(V311)].concat());
    assert_eq!(client.expect_connack().code, 2);
    client.expect_closed();
    watcher.expect_nothing();
}

/// MQTT-4.1.0-2: a clean session lasts as long as its connection, however long that is silent.
#[test]
fn mqtt_4_1_0_2_session_lasts_as_long_as_the_connection() {
    let broker = Broker::start(&["mqtt.session.expiry_interval=1s"]);
    let name = topic();
    let connect = Connect::new(V311, &id()).persistent();
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 1);
    std::thread::sleep(Duration::from_millis(2200));
    client.publish(&name, "still here", 1);
    client.expect_message(&name, "still here");
}

/// MQTT-4.2.0-1, MQTT-7.1.1-1: packets cut anywhere are put together, many in one segment are taken apart.
#[test]
fn mqtt_4_2_0_1_bytes_may_be_cut_anywhere() {
    let broker = shared();
    let name = topic();
    let mut client = broker.raw(V311);
    let mut bytes = Connect::new(V311, &id()).encode();
    bytes.extend(Subscribe::new(7).filter(&name, 1).encode(V311));
    bytes.extend(Publish::new(&name, "first").qos(1, 9).encode(V311));
    for byte in bytes {
        client.send(&[byte]);
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(client.expect_connack().code, 0);
    assert_eq!(client.expect_suback(7).codes, [1]);
    let mut rest = [client.packet(), client.packet()];
    rest.sort_by_key(|packet| matches!(packet, Packet::Publish(_)));
    assert!(matches!(&rest[0], Packet::PubAck(ack) if ack.packet_id == 9));
    let many: Vec<u8> =
        (0..200).flat_map(|n| Publish::new(&name, n.to_string()).encode(V311)).collect();
    client.send(&many);
    let expected: Vec<String> = (0..200).map(|n: i32| n.to_string()).collect();
    assert_eq!(client.payloads(200), expected);
}
