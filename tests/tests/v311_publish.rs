//! MQTT 3.1.1, chapters 3.3 to 3.7, 4.3 to 4.6: PUBLISH, the three QoS handshakes, retransmission, order.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use ringmq_tests::client::Event;
use ringmq_tests::packet::{ack, frame};
use ringmq_tests::{Broker, Client, Connect, Packet, Publish, V311, id, shared, topic};

/// A publisher and a subscriber of one new topic at QoS 2.
fn pair(broker: &Broker) -> (Client, Client, String) {
    let name = topic();
    let mut subscriber = broker.client(V311);
    subscriber.subscribe(&name, 2);
    (broker.client(V311), subscriber, name)
}

/// MQTT-2.3.1-5, MQTT-4.3.1-1, MQTT-3.3.1-2, MQTT-3.3.4-1, SEED-PROTO-02
#[test]
fn mqtt_2_3_1_5_qos_0_has_no_identifier_and_no_answer() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    // The first bytes of the payload would be taken for an identifier by a server that expects one.
    publisher.publish(&name, "\u{1}\u{2}payload", 0);
    let message = subscriber.expect_message(&name, "\u{1}\u{2}payload");
    assert_eq!((message.qos, message.dup), (0, false));
    publisher.expect_nothing();
    publisher.expect_alive();
}

/// MQTT-2.3.1-6, MQTT-3.3.4-1, MQTT-4.3.2-2
#[test]
fn mqtt_4_3_2_2_qos_1_is_answered_by_puback() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    for packet_id in [1, 7, 0x1234, 0xFFFF] {
        publisher.send_publish(&Publish::new(&name, "one").qos(1, packet_id));
        publisher.expect_puback(packet_id);
        assert_eq!(subscriber.expect_message(&name, "one").qos, 1);
    }
    publisher.expect_nothing();
    subscriber.expect_nothing();
}

/// MQTT-4.3.2-2: after PUBACK the same identifier is a new message, even with DUP.
#[test]
fn mqtt_4_3_2_2_identifier_is_free_after_puback() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    for (text, dup) in [("one", false), ("two", false), ("three", true)] {
        let publish = Publish { dup, ..Publish::new(&name, text).qos(1, 5) };
        publisher.send_publish(&publish);
        publisher.expect_puback(5);
        subscriber.expect_message(&name, text);
    }
}

/// MQTT-4.3.3-2, MQTT-2.3.1-6, MQTT-3.3.4-1, SEED-PROTO-02
#[test]
fn mqtt_4_3_3_2_qos_2_receiver_delivers_once() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    let publish = Publish::new(&name, "once").qos(2, 11);
    publisher.send_publish(&publish);
    publisher.expect_pubrec(11);
    publisher.send_publish(&publish.clone().dup());
    publisher.expect_pubrec(11);
    publisher.send(&ack(0x62, 11));
    publisher.expect_pubcomp(11);
    subscriber.expect_message(&name, "once");
    subscriber.expect_nothing();
    // PUBREL again: its PUBCOMP may have been lost.
    publisher.send(&ack(0x62, 11));
    publisher.expect_pubcomp(11);
    // After PUBCOMP the identifier is a new message.
    publisher.send_publish(&Publish::new(&name, "again").qos(2, 11));
    publisher.expect_pubrec(11);
    publisher.send(&ack(0x62, 11));
    publisher.expect_pubcomp(11);
    subscriber.expect_message(&name, "again");
}

/// MQTT-4.3.3-2: the receiver's state is part of the session and outlives the connection.
#[test]
fn mqtt_4_3_3_2_qos_2_is_not_delivered_twice_across_connections() {
    let broker = shared();
    let (_, mut subscriber, name) = pair(&broker);
    let connect = Connect::new(V311, &id()).persistent();
    let mut publisher = broker.connect(&connect);
    publisher.send_publish(&Publish::new(&name, "once").qos(2, 3));
    publisher.expect_pubrec(3);
    publisher.cut_and_wait();
    let mut publisher = broker.connect(&connect);
    publisher.send_publish(&Publish::new(&name, "once").qos(2, 3).dup());
    publisher.expect_pubrec(3);
    publisher.send(&ack(0x62, 3));
    publisher.expect_pubcomp(3);
    subscriber.expect_message(&name, "once");
    subscriber.expect_nothing();
}

/// MQTT-4.3.2-1, MQTT-2.3.1-4: identifiers are not zero and not in use, DUP is 0 at first.
#[test]
fn mqtt_2_3_1_4_identifiers_of_the_server_are_unused() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    let mut used = HashSet::new();
    for number in 0..20 {
        publisher.publish(&name, "x", 1 + number % 2);
    }
    for _ in 0..20 {
        let message = subscriber.expect_publish();
        assert!(!message.dup);
        assert!(used.insert(message.packet_id), "{} is in use", message.packet_id);
    }
}

/// MQTT-4.3.3-1: PUBREL after PUBREC with the same identifier, once only.
#[test]
fn mqtt_4_3_3_1_qos_2_sender_goes_on_with_pubrel() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "x", 2);
    let message = subscriber.expect_publish();
    assert_eq!((message.qos, message.dup), (2, false));
    subscriber.send(&ack(0x50, message.packet_id));
    subscriber.expect_pubrel(message.packet_id);
    subscriber.send(&ack(0x70, message.packet_id));
    subscriber.expect_nothing();
}

/// SEED-PROTO-09: old clients send PUBREL without its flag. It is tolerated up to 3.1.1, against the letter of the specification (any
/// other flag closes, see v311_connect.rs), and never for v5.
#[test]
fn seed_proto_09_pubrel_without_its_flag_is_tolerated() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.send_publish(&Publish::new(&name, "x").qos(2, 7));
    publisher.expect_pubrec(7);
    publisher.send(&ack(0x60, 7));
    publisher.expect_pubcomp(7);
    subscriber.expect_message(&name, "x");
}

/// SEED-PROTO-09: PUBREC twice, acknowledgements nobody waits for.
#[test]
fn seed_proto_09_stray_acknowledgements_do_no_harm() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "x", 2);
    let message = subscriber.expect_publish();
    for _ in 0..2 {
        subscriber.send(&ack(0x50, message.packet_id));
        subscriber.expect_pubrel(message.packet_id);
    }
    for _ in 0..2 {
        subscriber.send(&ack(0x70, message.packet_id));
    }
    subscriber.send(&ack(0x40, 999));
    subscriber.send(&ack(0x70, 998));
    subscriber.expect_alive();
    publisher.publish(&name, "y", 1);
    subscriber.expect_message(&name, "y");
}

/// MQTT-4.4.0-1, MQTT-3.3.1-1, MQTT-4.3.2-1, SEED-PROTO-03
#[test]
fn mqtt_4_4_0_1_unacknowledged_messages_are_sent_again_on_reconnect() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V311, &id()).persistent());
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 2);
    let mut publisher = broker.client(V311);
    let mut first = Vec::new();
    for qos in [1, 2, 1, 2] {
        publisher.publish(&name, &format!("q{qos}"), qos);
        first.push(subscriber.expect_publish());
    }
    subscriber.cut_and_wait();
    let mut subscriber = broker.connect(&connect);
    for expected in &first {
        let again = subscriber.expect_publish();
        assert!(again.dup, "DUP is 1 on a PUBLISH that is sent again");
        assert_eq!(again, expected.clone().dup());
        subscriber.acknowledge(&again);
    }
    subscriber.cut_and_wait();
    broker.connect(&connect).expect_nothing();
}

/// MQTT-4.4.0-1, MQTT-4.3.3-1: after PUBREC it is PUBREL that is sent again, not PUBLISH.
#[test]
fn mqtt_4_4_0_1_pubrel_is_sent_again_on_reconnect() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V311, &id()).persistent());
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 2);
    broker.client(V311).publish(&name, "x", 2);
    let message = subscriber.expect_publish();
    subscriber.send(&ack(0x50, message.packet_id));
    subscriber.expect_pubrel(message.packet_id);
    subscriber.cut_and_wait();
    let mut subscriber = broker.connect(&connect);
    subscriber.expect_pubrel(message.packet_id);
    subscriber.send(&ack(0x70, message.packet_id));
    subscriber.expect_nothing();
}

/// MQTT-3.3.1-1, SEED-PROTO-03, SEED-SESS-04: on the same connection after `retry_interval`.
#[test]
fn mqtt_3_3_1_1_retransmission_after_the_retry_interval() {
    let broker = Broker::start(&["mqtt.session.retry_interval=1s"]);
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "x", 1);
    let first = subscriber.expect_publish();
    assert!(!first.dup);
    let again = subscriber.expect_publish();
    assert_eq!(again, first.clone().dup());
    subscriber.acknowledge(&again);
    publisher.publish(&name, "y", 2);
    let first = subscriber.expect_publish();
    subscriber.send(&ack(0x50, first.packet_id));
    subscriber.expect_pubrel(first.packet_id);
    subscriber.expect_pubrel(first.packet_id); // again after the interval
    subscriber.send(&ack(0x70, first.packet_id));
    thread::sleep(Duration::from_millis(1500));
    subscriber.expect_nothing();
}

/// SEED-SESS-04: 0 means never.
#[test]
fn seed_sess_04_retry_interval_zero_never_repeats() {
    let broker = Broker::start(&["mqtt.session.retry_interval=0"]);
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "x", 1);
    subscriber.expect_publish();
    thread::sleep(Duration::from_millis(1500));
    subscriber.expect_nothing();
}

/// MQTT-3.3.1-3
#[test]
fn mqtt_3_3_1_3_dup_is_not_carried_over() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    for qos in [1, 2] {
        publisher.publish_whole(Publish::new(&name, "x").dup(), qos);
        assert!(!subscriber.message().dup, "QoS {qos}");
    }
}

/// MQTT-3.3.1-2: DUP on QoS 0 is against the rules or without meaning; it is not passed on.
#[test]
fn mqtt_3_3_1_2_dup_on_qos_0_is_not_passed_on() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.send_publish(&Publish::new(&name, "x").dup());
    match subscriber.event(Duration::from_millis(500)) {
        Event::Packet(Packet::Publish(publish)) => assert!(!publish.dup),
        _ => publisher.expect_closed(),
    }
}

/// MQTT-3.3.1-4
#[test]
fn mqtt_3_3_1_4_qos_3_closes() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.send_publish(&Publish::new(&name, "x").qos(3, 1));
    publisher.expect_closed();
    subscriber.expect_nothing();
}

/// MQTT-3.3.2-1: a PUBLISH too short for its topic.
#[test]
fn mqtt_3_3_2_1_topic_name_must_be_present() {
    let broker = shared();
    for body in [&[][..], &[0], &[0, 3, b'a']] {
        let mut client = broker.client(V311);
        client.send(&frame(0x30, body));
        client.expect_closed();
    }
}

/// MQTT-3.3.2-2, MQTT-4.7.1-1, SEED-PROTO-14
#[test]
fn mqtt_3_3_2_2_wildcard_in_a_topic_name_closes() {
    let broker = shared();
    let prefix = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&format!("{prefix}/#"), 0);
    for end in ["#", "+", "a/+/b", "a+", "a#"] {
        let mut client = broker.client(V311);
        client.send_publish(&Publish::new(&format!("{prefix}/{end}"), "x"));
        client.expect_closed();
    }
    watcher.expect_nothing();
}

/// MQTT-3.3.2-3, MQTT-4.7.3-4: what is delivered has the publisher's topic name, byte by byte.
#[test]
fn mqtt_3_3_2_3_topic_name_is_delivered_unchanged() {
    let broker = shared();
    let prefix = topic();
    let mut subscriber = broker.client(V311);
    subscriber.subscribe(&format!("{prefix}/#"), 0);
    let mut publisher = broker.client(V311);
    for end in ["a", "a//b", "ä/€/😀", " spaced out ", "%2F", "a\u{301}", "\u{e1}", "A"] {
        let name = format!("{prefix}/{end}");
        publisher.publish(&name, end, 0);
        subscriber.expect_message(&name, end);
    }
}

/// MQTT-3.3.5-2: see acl.rs for the denied PUBLISH. Here: payloads of any size and content pass.
#[test]
fn payloads_are_passed_on_byte_by_byte() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    for len in [0_usize, 1, 127, 128, 16_383, 16_384, 60_000] {
        let payload: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
        publisher.publish_whole(Publish::new(&name, &payload), 1);
        assert!(subscriber.message().payload == payload, "payload of {len} bytes");
    }
}

/// MQTT-4.6.0-5, MQTT-4.6.0-6, SEED-PROTO-13
#[test]
fn mqtt_4_6_0_6_order_of_a_publisher_is_kept() {
    let broker = shared();
    for qos in 0..=2 {
        let (mut publisher, mut subscriber, name) = pair(&broker);
        // More than the inflight window, all sent before the first answer is read.
        for number in 1..=100_u16 {
            publisher.send_publish(&Publish::new(&name, number.to_string()).qos(qos, number));
        }
        if qos == 2 {
            for number in 1..=100 {
                publisher.expect_pubrec(number);
                publisher.send(&ack(0x62, number));
            }
        }
        let expected: Vec<String> = (1..=100).map(|n: u16| n.to_string()).collect();
        assert_eq!(subscriber.payloads(100), expected, "QoS {qos}");
    }
}

/// MQTT-4.6.0-6: also when they are sent again, and what waited comes after what was under way.
#[test]
fn mqtt_4_6_0_6_order_is_kept_across_a_reconnect() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V311, &id()).persistent());
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 1);
    let mut publisher = broker.client(V311);
    for number in 0..60 {
        publisher.publish(&name, &number.to_string(), 1);
    }
    for number in 0..10 {
        subscriber.expect_message(&name, &number.to_string());
    }
    subscriber.cut_and_wait();
    for number in 60..80 {
        publisher.publish(&name, &number.to_string(), 1);
    }
    let mut subscriber = broker.connect(&connect);
    let mut seen: Vec<usize> = Vec::new();
    while seen.last() != Some(&79) {
        seen.push(subscriber.message().text().parse().unwrap());
    }
    let (from, len) = (seen[0], seen.len());
    assert!(from <= 10, "begins at {from}: a message is lost");
    assert_eq!(seen, (from..from + len).collect::<Vec<_>>());
}

/// MQTT-4.5.0-1: every matching session gets the message, connected or not.
#[test]
fn mqtt_4_5_0_1_every_matching_session_gets_the_message() {
    let broker = shared();
    let prefix = topic();
    let name = format!("{prefix}/a/b");
    let filters =
        [name.clone(), format!("{prefix}/#"), format!("{prefix}/+/b"), format!("{prefix}/a/+")];
    let connects: Vec<Connect> =
        filters.iter().map(|_| Connect::new(V311, &id()).persistent()).collect();
    let mut online = Vec::new();
    for (index, (connect, filter)) in connects.iter().zip(&filters).enumerate() {
        let mut client = broker.connect(connect);
        client.subscribe(filter, 1);
        if index % 2 == 0 {
            client.disconnect();
        } else {
            online.push(client);
        }
    }
    broker.client(V311).publish(&name, "all", 1);
    for client in &mut online {
        client.expect_message(&name, "all");
    }
    for connect in connects.iter().step_by(2) {
        broker.connect(connect).expect_message(&name, "all");
    }
}
