//! MQTT 5, chapters 3.3 to 3.7, 4.3 to 4.6: PUBLISH, the QoS handshakes, resending, order.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use ringmq_tests::packet::{ack, ack_v5, frame};
use ringmq_tests::{
    Broker, Client, Connect, Packet, Property, Publish, V5, client::Event, id, shared, topic,
};

/// A publisher and a subscriber of one new topic at QoS 2.
fn pair(broker: &Broker) -> (Client, Client, String) {
    let name = topic();
    let mut subscriber = broker.client(V5);
    subscriber.subscribe(&name, 2);
    (broker.client(V5), subscriber, name)
}

/// MQTT-2.2.1-2, MQTT-3.3.1-2, MQTT-4.3.1-1, MQTT-3.3.4-1
#[test]
fn mqtt_2_2_1_2_qos_0_has_no_identifier() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "\u{1}\u{2}payload", 0);
    let message = subscriber.expect_message(&name, "\u{1}\u{2}payload");
    assert_eq!((message.qos, message.dup), (0, false));
    publisher.expect_nothing();
}

/// MQTT-3.3.1-2
#[test]
fn mqtt_3_3_1_2_dup_on_qos_0_is_not_passed_on() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.send_publish(&Publish::new(&name, "x").dup());
    match subscriber.event(Duration::from_millis(500)) {
        Event::Packet(Packet::Publish(publish)) => assert!(!publish.dup),
        _ => assert!(matches!(publisher.expect_end(), Some(0x81 | 0x82))),
    }
}

/// MQTT-4.3.2-4, MQTT-4.3.2-5, MQTT-2.2.1-5, MQTT-3.4.2-1
#[test]
fn mqtt_4_3_2_5_identifier_is_free_after_puback() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    for (text, dup) in [("one", false), ("two", false), ("three", true)] {
        publisher.send_publish(&Publish { dup, ..Publish::new(&name, text).qos(1, 0xABCD) });
        assert_eq!(publisher.expect_puback(0xABCD).reason, 0);
        subscriber.expect_message(&name, text);
    }
}

/// SEED-PROTO-22: PUBACK and PUBREC may say that nobody is subscribed; either way it is success.
#[test]
fn seed_proto_22_no_matching_subscribers_is_success() {
    let broker = shared();
    let mut publisher = broker.client(V5);
    publisher.send_publish(&Publish::new(&topic(), "x").qos(1, 1));
    assert!([0x00, 0x10].contains(&publisher.expect_puback(1).reason));
    publisher.send_publish(&Publish::new(&topic(), "x").qos(2, 2));
    assert!([0x00, 0x10].contains(&publisher.expect_pubrec(2).reason));
    publisher.send(&ack(0x62, 2));
    assert_eq!(publisher.expect_pubcomp(2).reason, 0);
}

/// MQTT-4.3.3-8, MQTT-4.3.3-10, MQTT-4.3.3-11, MQTT-4.3.3-12, MQTT-3.5.2-1, MQTT-3.7.2-1, MQTT-2.2.1-5
#[test]
fn mqtt_4_3_3_10_qos_2_receiver_delivers_once() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    let publish = Publish::new(&name, "once").qos(2, 11);
    publisher.send_publish(&publish);
    assert_eq!(publisher.expect_pubrec(11).reason, 0);
    publisher.send_publish(&publish.clone().dup());
    assert!(publisher.expect_pubrec(11).reason < 0x80);
    publisher.send(&ack(0x62, 11));
    assert_eq!(publisher.expect_pubcomp(11).reason, 0);
    subscriber.expect_message(&name, "once");
    subscriber.expect_nothing();
    publisher.send_publish(&Publish::new(&name, "again").qos(2, 11));
    publisher.expect_pubrec(11);
    publisher.send(&ack_v5(0x62, 11, 0, &[]));
    publisher.expect_pubcomp(11);
    subscriber.expect_message(&name, "again");
}

/// MQTT-3.7.2-1, SEED-PROTO-22: PUBREL for an identifier that is not known.
#[test]
fn mqtt_3_7_2_1_unknown_pubrel_gets_0x92() {
    let broker = shared();
    let mut client = broker.client(V5);
    client.send(&ack(0x62, 4711));
    assert_eq!(client.expect_pubcomp(4711).reason, 0x92);
    client.expect_alive();
}

/// MQTT-3.6.2-1: PUBREC for an identifier that is not known.
#[test]
fn mqtt_3_6_2_1_unknown_pubrec_gets_pubrel_0x92() {
    let broker = shared();
    let mut client = broker.client(V5);
    client.send(&ack(0x50, 4711));
    assert_eq!(client.expect_pubrel(4711).reason, 0x92);
    client.send(&ack(0x40, 4711));
    client.send(&ack(0x70, 4711));
    client.expect_alive();
}

/// MQTT-2.2.1-4, MQTT-4.3.2-1, MQTT-4.3.2-2, MQTT-4.3.3-1, MQTT-4.3.3-2
#[test]
fn mqtt_2_2_1_4_identifiers_of_the_server_are_unused() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    let mut used = HashSet::new();
    for number in 0..20 {
        publisher.publish(&name, "x", 1 + number % 2);
    }
    for _ in 0..20 {
        let message = subscriber.expect_publish();
        assert!(!message.dup && used.insert(message.packet_id), "{message:?}");
    }
}

/// MQTT-4.3.3-4, MQTT-4.3.3-6, MQTT-3.6.2-1
#[test]
fn mqtt_4_3_3_4_qos_2_sender_goes_on_with_pubrel() {
    let broker = shared();
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "x", 2);
    let message = subscriber.expect_publish();
    subscriber.send(&ack_v5(0x50, message.packet_id, 0x10, &[Property::ReasonString("r".into())]));
    assert_eq!(subscriber.expect_pubrel(message.packet_id).reason, 0);
    subscriber.send(&ack_v5(0x70, message.packet_id, 0, &[]));
    subscriber.expect_nothing();
}

/// MQTT-4.4.0-1, MQTT-3.3.1-1, MQTT-4.3.2-3, MQTT-4.3.3-3, SEED-PROTO-03
#[test]
fn mqtt_4_4_0_1_unacknowledged_publish_is_sent_again_on_reconnect() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V5, &id()).persistent());
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 2);
    let mut publisher = broker.client(V5);
    let mut first = Vec::new();
    for qos in [1, 2, 1, 2] {
        let message = Publish::new(&name, format!("q{qos}")).property(Property::user("n", "v"));
        publisher.publish_whole(message, qos);
        first.push(subscriber.expect_publish());
    }
    subscriber.cut_and_wait();
    let mut subscriber = broker.connect(&connect);
    for expected in first {
        let again = subscriber.expect_publish();
        assert_eq!(again, expected.dup());
        subscriber.acknowledge(&again);
    }
    subscriber.expect_nothing();
}

/// MQTT-4.4.0-1, MQTT-4.3.3-5, MQTT-4.3.3-6
#[test]
fn mqtt_4_4_0_1_pubrel_is_sent_again_on_reconnect() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V5, &id()).persistent());
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 2);
    broker.client(V5).publish(&name, "x", 2);
    let message = subscriber.expect_publish();
    subscriber.send(&ack(0x50, message.packet_id));
    subscriber.expect_pubrel(message.packet_id);
    subscriber.cut_and_wait();
    let mut subscriber = broker.connect(&connect);
    subscriber.expect_pubrel(message.packet_id);
    subscriber.send(&ack(0x70, message.packet_id));
    subscriber.expect_nothing();
}

/// MQTT-4.4.0-1: at no other time, so not on the same connection after the retry interval.
#[test]
fn mqtt_4_4_0_1_nothing_is_sent_again_on_the_same_connection() {
    let broker = Broker::start(&["mqtt.session.retry_interval=1s"]);
    let (mut publisher, mut subscriber, name) = pair(&broker);
    publisher.publish(&name, "x", 1);
    publisher.publish(&name, "y", 2);
    subscriber.expect_publish();
    subscriber.expect_publish();
    thread::sleep(Duration::from_millis(2200));
    subscriber.expect_nothing();
}

/// MQTT-4.4.0-2
#[test]
fn mqtt_4_4_0_2_negative_acknowledgement_ends_the_delivery() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V5, &id()).persistent());
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 2);
    let mut publisher = broker.client(V5);
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        publisher.publish(&name, "x", qos);
        let message = subscriber.expect_publish();
        subscriber.send(&ack_v5(first, message.packet_id, 0x83, &[]));
        subscriber.expect_nothing(); // no PUBREL after a negative PUBREC
    }
    subscriber.cut_and_wait();
    broker.connect(&connect).expect_nothing();
}

/// MQTT-4.3.3-9, MQTT-3.5.2-1: after a negative PUBREC the identifier is a new message.
#[test]
fn mqtt_4_3_3_9_identifier_is_free_after_a_negative_pubrec() {
    let folder = std::env::temp_dir().join(format!("ringmq-acl-{}", id()));
    std::fs::write(&folder, "{deny, all, publish, [\"denied\"]}.\n{allow, all}.\n").unwrap();
    let broker = Broker::start(&[&format!("mqtt.acl_file={}", folder.display())]);
    let mut client = broker.client(V5);
    client.send_publish(&Publish::new("denied", "x").qos(2, 5));
    assert_eq!(client.expect_pubrec(5).reason, 0x87);
    let mut subscriber = broker.client(V5);
    subscriber.subscribe("open", 2);
    client.send_publish(&Publish::new("open", "x").qos(2, 5));
    assert_eq!(client.expect_pubrec(5).reason, 0);
    client.send(&ack(0x62, 5));
    client.expect_pubcomp(5);
    subscriber.expect_message("open", "x");
    std::fs::remove_file(folder).unwrap();
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

/// MQTT-3.3.1-4
#[test]
fn mqtt_3_3_1_4_qos_3_is_malformed() {
    let broker = shared();
    let mut client = broker.client(V5);
    client.send_publish(&Publish::new(&topic(), "x").qos(3, 1));
    client.expect_disconnect(0x81);
}

/// MQTT-3.3.2-1
#[test]
fn mqtt_3_3_2_1_topic_name_must_be_present() {
    let broker = shared();
    for body in [&[][..], &[0], &[0, 3, b'a']] {
        let mut client = broker.client(V5);
        client.send(&frame(0x30, body));
        client.expect_disconnect(0x81);
    }
}

/// MQTT-3.3.2-2, MQTT-4.7.0-1
#[test]
fn mqtt_3_3_2_2_wildcard_in_a_topic_name_gets_0x90() {
    let broker = shared();
    for end in ["#", "+", "a/+/b", "a+", "a#"] {
        let mut client = broker.client(V5);
        client.send_publish(&Publish::new(&format!("{}/{end}", topic()), "x"));
        client.expect_disconnect(0x90);
    }
}

/// MQTT-3.3.2-3, MQTT-4.7.3-4, MQTT-1.5.4-3
#[test]
fn mqtt_3_3_2_3_topic_name_is_delivered_unchanged() {
    let broker = shared();
    let prefix = topic();
    let mut subscriber = broker.client(V5);
    subscriber.subscribe(&format!("{prefix}/#"), 0);
    let mut publisher = broker.client(V5);
    for end in ["a", "a//b", "ä/€/😀", "\u{FEFF}mark", "a\u{301}", "\u{e1}", "A"] {
        let name = format!("{prefix}/{end}");
        publisher.publish(&name, end, 0);
        subscriber.expect_message(&name, end);
    }
}

/// MQTT-4.6.0-5, MQTT-4.6.0-6, SEED-PROTO-13
#[test]
fn mqtt_4_6_0_5_order_of_a_publisher_is_kept() {
    let broker = shared();
    for qos in 0..=2 {
        let (mut publisher, mut subscriber, name) = pair(&broker);
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

/// MQTT-4.5.0-1
#[test]
fn mqtt_4_5_0_1_every_matching_session_gets_the_message() {
    let broker = shared();
    let prefix = topic();
    let name = format!("{prefix}/a/b");
    let filters =
        [name.clone(), format!("{prefix}/#"), format!("{prefix}/+/b"), format!("{prefix}/a/+")];
    let mut connects = Vec::new();
    for filter in &filters {
        let connect = Connect::new(V5, &id()).persistent();
        let mut client = broker.connect(&connect);
        client.subscribe(filter, 1);
        client.disconnect();
        connects.push(connect);
    }
    broker.client(V5).publish(&name, "all", 1);
    for connect in &connects {
        broker.connect(connect).expect_message(&name, "all");
    }
}

/// MQTT-3.3.2-5, MQTT-3.3.2-6, SEED-PROTO-21
#[test]
fn mqtt_3_3_2_5_message_expires_in_the_queue() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V5, &id()).persistent());
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 1);
    client.disconnect();
    let mut publisher = broker.client(V5);
    for (text, seconds) in [("short", 1), ("long", 60)] {
        let message = Publish::new(&name, text).property(Property::MessageExpiry(seconds));
        publisher.publish_whole(message, 1);
    }
    publisher.publish(&name, "for ever", 1);
    thread::sleep(Duration::from_millis(2100));
    let mut client = broker.connect(&connect);
    let message = client.expect_message(&name, "long");
    let [Property::MessageExpiry(left)] = message.properties[..] else { panic!("{message:?}") };
    assert!((56..=58).contains(&left), "{left} s are left of 60 after two");
    assert_eq!(client.expect_message(&name, "for ever").properties, []);
    client.expect_nothing();
}

/// MQTT-3.3.2-6: at once the value is what was sent, and never more. Many clients, so that some are on different shards.
#[test]
fn mqtt_3_3_2_6_expiry_of_a_message_that_does_not_wait() {
    let broker = shared();
    for _ in 0..40 {
        let (mut publisher, mut subscriber, name) = pair(&broker);
        let message = Publish::new(&name, "x").property(Property::MessageExpiry(30));
        publisher.publish_whole(message, 1);
        let message = subscriber.expect_message(&name, "x");
        assert_eq!(message.properties, [Property::MessageExpiry(30)]);
    }
}

/// MQTT-4.3.3-7, MQTT-4.3.3-13: a message that was sent is not dropped by its expiry, and its handshake goes on.
#[test]
fn mqtt_4_3_3_7_expiry_does_not_stop_a_delivery_under_way() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V5, &id()).persistent());
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 2);
    let mut publisher = broker.client(V5);
    let message = Publish::new(&name, "x").qos(2, 9).property(Property::MessageExpiry(1));
    publisher.send_publish(&message);
    publisher.expect_pubrec(9);
    thread::sleep(Duration::from_millis(2100));
    // The publisher's side of the handshake.
    publisher.send(&ack(0x62, 9));
    assert_eq!(publisher.expect_pubcomp(9).reason, 0);
    // The subscriber's side, on a new connection.
    let first = subscriber.expect_publish();
    subscriber.cut_and_wait();
    let mut subscriber = broker.connect(&connect);
    let again = subscriber.expect_publish();
    assert_eq!((again.packet_id, again.dup, again.text()), (first.packet_id, true, "x"));
    subscriber.acknowledge(&again);
}
