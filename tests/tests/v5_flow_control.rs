//! MQTT 5, chapter 4.9: receive maximum and send quota (SEED-PROTO-37), and the inflight window (SEED-SESS-03).

use ringmq_tests::packet::{ack, ack_v5, find};
use ringmq_tests::{Broker, ConnAck, Connect, Property, Publish, V5, V311, id, shared, topic};

fn receive_maximum(answer: &ConnAck) -> u16 {
    let value = find(&answer.properties, |property| match property {
        Property::ReceiveMaximum(value) => Some(*value),
        _ => None,
    });
    value.unwrap_or(65_535)
}

/// MQTT-3.3.4-9, MQTT-4.9.0-1, MQTT-4.9.0-2
#[test]
fn mqtt_3_3_4_9_client_receive_maximum_is_respected() {
    let broker = shared();
    let name = topic();
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let property = Property::ReceiveMaximum(3);
        let mut client = broker.connect(&Connect::new(V5, &id()).property(property));
        client.subscribe(&name, 2);
        let mut publisher = broker.client(V5);
        for number in 0..10 {
            publisher.publish(&name, &number.to_string(), qos);
        }
        let mut under_way: Vec<Publish> = (0..3).map(|_| client.expect_publish()).collect();
        client.expect_nothing();
        // Each acknowledgement makes room for one: PUBACK, PUBCOMP, or a negative PUBREC.
        let oldest = under_way.remove(0);
        client.acknowledge(&oldest);
        under_way.push(client.expect_publish());
        client.expect_nothing();
        let oldest = under_way.remove(0);
        client.send(&ack_v5(first, oldest.packet_id, 0x80, &[]));
        under_way.push(client.expect_publish());
        client.expect_nothing();
        let numbers: Vec<&str> = under_way.iter().map(Publish::text).collect();
        assert_eq!(numbers, ["2", "3", "4"], "QoS {qos}");
        client.disconnect();
    }
}

/// MQTT-4.9.0-2: PUBREC alone makes no room; QoS 0 needs none.
#[test]
fn mqtt_4_9_0_2_pubrec_makes_no_room() {
    let broker = shared();
    let name = topic();
    let mut client = broker.connect(&Connect::new(V5, &id()).property(Property::ReceiveMaximum(1)));
    client.subscribe(&name, 2);
    let mut publisher = broker.client(V5);
    publisher.publish(&name, "one", 2);
    publisher.publish(&name, "two", 2);
    let first = client.expect_publish();
    client.send(&ack(0x50, first.packet_id));
    client.expect_pubrel(first.packet_id);
    client.expect_nothing();
    client.send(&ack(0x70, first.packet_id));
    client.expect_message(&name, "two");
}

/// MQTT-3.3.4-10, MQTT-4.9.0-3: other packets are not delayed by a full window.
#[test]
fn mqtt_4_9_0_3_other_packets_pass_a_full_window() {
    let broker = shared();
    let (name, other) = (topic(), topic());
    let mut client = broker.connect(&Connect::new(V5, &id()).property(Property::ReceiveMaximum(1)));
    client.subscribe(&name, 1);
    let mut publisher = broker.client(V5);
    publisher.publish(&name, "one", 1);
    publisher.publish(&name, "two", 1);
    let first = client.expect_publish();
    client.expect_alive();
    client.subscribe(&other, 0);
    client.publish(&other, "to myself", 2);
    client.expect_message(&other, "to myself");
    client.unsubscribe(&[&other]);
    client.acknowledge(&first);
    client.expect_message(&name, "two");
}

/// MQTT-3.3.4-7, SEED-PROTO-37: more than the server's receive maximum closes with 0x93.
#[test]
fn mqtt_3_3_4_7_above_the_receive_maximum_gets_0x93() {
    let broker = Broker::start(&["mqtt.receive_maximum=5"]);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &id()));
    assert_eq!(receive_maximum(&answer), 5);
    for packet_id in 1..=5 {
        client.send_publish(&Publish::new("a", "x").qos(2, packet_id));
        client.expect_pubrec(packet_id);
    }
    client.send_publish(&Publish::new("a", "x").qos(2, 6));
    client.expect_disconnect(0x93);
}

/// MQTT-3.3.4-7: completed handshakes do not count, and neither does the same identifier again.
#[test]
fn mqtt_3_3_4_7_within_the_receive_maximum_is_accepted() {
    let broker = Broker::start(&["mqtt.receive_maximum=5"]);
    let mut client = broker.client(V5);
    for packet_id in 1..=5 {
        client.send_publish(&Publish::new("a", "x").qos(2, packet_id));
        client.expect_pubrec(packet_id);
    }
    client.send_publish(&Publish::new("a", "x").qos(2, 5).dup());
    client.expect_pubrec(5);
    for packet_id in 1..=5 {
        client.send(&ack(0x62, packet_id));
        client.expect_pubcomp(packet_id);
        client.send_publish(&Publish::new("a", "x").qos(2, packet_id + 100));
        client.expect_pubrec(packet_id + 100);
    }
    client.expect_alive();
}

/// SEED-SESS-05: the default is advertised and can be used up.
#[test]
fn seed_sess_05_the_advertised_receive_maximum_can_be_used() {
    let broker = shared();
    let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &id()));
    let name = topic();
    for packet_id in 1..=receive_maximum(&answer) {
        client.send_publish(&Publish::new(&name, "x").qos(2, packet_id));
        client.expect_pubrec(packet_id);
    }
    client.send_publish(&Publish::new(&name, "x").qos(2, 60_000));
    client.expect_disconnect(0x93);
}

/// SEED-SESS-05: a 3.1.1 client is slowed down by not reading it, never acknowledged and dropped.
#[test]
fn seed_sess_05_v311_client_above_max_awaiting_rel_is_slowed_down() {
    let broker =
        Broker::start(&["mqtt.session.max_awaiting_rel=5", "mqtt.session.await_rel_timeout=1s"]);
    let mut watcher = broker.client(V311);
    watcher.subscribe("a", 0);
    let mut client = broker.client(V311);
    for packet_id in 1..=20 {
        client.send_publish(&Publish::new("a", packet_id.to_string()).qos(2, packet_id));
    }
    for packet_id in 1..=5 {
        client.expect_pubrec(packet_id);
    }
    client.expect_nothing();
    // PUBREL cannot pass the messages before it in the stream, so it is `await_rel_timeout` that lets the server read on.
    for packet_id in 1..=20 {
        client.send(&ack(0x62, packet_id));
    }
    for _ in 0..35 {
        client.packet(); // 15 PUBREC and 20 PUBCOMP
    }
    let expected: Vec<String> = (1..=20).map(|n: u16| n.to_string()).collect();
    assert_eq!(watcher.payloads(20), expected, "what was acknowledged was delivered");
}

/// SEED-SESS-03: the server's own window.
#[test]
fn seed_sess_03_max_inflight() {
    let broker = Broker::start(&["mqtt.session.max_inflight=2"]);
    for version in [V311, V5] {
        let name = topic();
        let mut client = broker.client(version);
        client.subscribe(&name, 1);
        let mut publisher = broker.client(version);
        for number in 0..5 {
            publisher.publish(&name, &number.to_string(), 1);
        }
        let first = client.expect_publish();
        client.expect_publish();
        client.expect_nothing();
        client.acknowledge(&first);
        assert_eq!(client.expect_publish().text(), "2");
        client.expect_nothing();
    }
}
