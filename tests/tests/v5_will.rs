//! MQTT 5, chapters 3.1.2.5, 3.1.3.2, 3.14: wills (SEED-PROTO-33, SEED-PUB-14).

use std::thread;
use std::time::{Duration, Instant};

use ringmq_tests::packet::disconnect_v5;
use ringmq_tests::{Broker, Client, Connect, Property, V5, Will, id, shared, topic};

fn watcher(broker: &Broker) -> (Client, String) {
    let name = topic();
    let mut client = broker.client(V5);
    client.subscribe(&name, 2);
    (client, name)
}

/// A CONNECT of a session that stays, with a delayed will.
fn delayed(client_id: &str, name: &str, delay_s: u32, expiry_s: u32) -> Connect {
    Connect::new(V5, client_id)
        .clean(false)
        .property(Property::SessionExpiry(expiry_s))
        .will(Will::new(name, "gone").property(Property::WillDelay(delay_s)))
}

/// MQTT-3.1.2-7, MQTT-3.1.2-8, MQTT-3.1.2-14
#[test]
fn mqtt_3_1_2_8_will_is_published_when_the_connection_breaks() {
    let broker = shared();
    for qos in 0..=2 {
        let (mut watcher, name) = watcher(&broker);
        let will = Will::new(&name, "gone").qos(qos);
        broker.connect(&Connect::new(V5, &id()).will(will)).cut();
        let message = watcher.expect_message(&name, "gone");
        assert_eq!((message.qos, message.retain), (qos, false));
        let mut late = broker.client(V5);
        late.subscribe(&name, 2);
        late.expect_nothing();
    }
}

/// MQTT-3.1.2-10, MQTT-3.14.4-3
#[test]
fn mqtt_3_14_4_3_normal_disconnect_removes_the_will() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    broker.connect(&Connect::new(V5, &id()).will(Will::new(&name, "gone"))).disconnect();
    broker.connect(&delayed(&id(), &name, 1, 60)).disconnect();
    thread::sleep(Duration::from_millis(1300));
    watcher.expect_nothing();
}

/// MQTT-3.1.2-10: once published it is gone.
#[test]
fn mqtt_3_1_2_10_will_is_published_once() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    let connect = Connect::new(V5, &id()).persistent();
    broker.connect(&connect.clone().will(Will::new(&name, "gone"))).cut();
    watcher.expect_message(&name, "gone");
    broker.connect(&connect).cut();
    watcher.expect_nothing();
}

/// MQTT-3.1.2-8: any other reason publishes it, 0x04 above all.
#[test]
fn mqtt_3_1_2_8_disconnect_with_another_reason_publishes_the_will() {
    let broker = shared();
    for reason in [0x04, 0x80, 0x81, 0x83, 0x93] {
        let (mut watcher, name) = watcher(&broker);
        let mut client = broker.connect(&Connect::new(V5, &id()).will(Will::new(&name, "gone")));
        client.send(&disconnect_v5(reason, &[]));
        client.expect_closed();
        watcher.expect_message(&name, "gone");
    }
}

/// MQTT-3.1.2-15
#[test]
fn mqtt_3_1_2_15_retained_will() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    let will = Will::new(&name, "kept").qos(1).retain();
    broker.connect(&Connect::new(V5, &id()).will(will)).cut();
    assert!(!watcher.expect_message(&name, "kept").retain);
    let mut late = broker.client(V5);
    late.subscribe(&name, 1);
    assert!(late.expect_message(&name, "kept").retain);
    late.publish_retained(&name, "", 1);
}

/// MQTT-3.1.2-8, SEED-PROTO-33: after the delay.
#[test]
fn mqtt_3_1_2_8_will_waits_for_its_delay() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    let client = broker.connect(&delayed(&id(), &name, 2, 60));
    let start = Instant::now();
    client.cut();
    watcher.expect_message(&name, "gone");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(1900), "published already after {waited:?}");
    assert!(waited < Duration::from_millis(3500), "published only after {waited:?}");
}

/// MQTT-3.1.2-8, SEED-PROTO-33: at the session's end when that is first.
#[test]
fn mqtt_3_1_2_8_will_delay_ends_with_the_session() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    broker.connect(&delayed(&id(), &name, 60, 1)).cut();
    thread::sleep(Duration::from_millis(500));
    watcher.expect_nothing();
    watcher.expect_message(&name, "gone");
    // A session without expiry ends with the connection: at once.
    broker.connect(&delayed(&id(), &name, 60, 0)).cut();
    watcher.expect_message(&name, "gone");
    // A clean start ends the old session.
    let connect = delayed(&id(), &name, 60, 60);
    broker.connect(&connect).cut_and_wait();
    watcher.expect_nothing();
    let clean = Connect { will: None, ..connect.clean(true) };
    let _client = broker.connect(&clean);
    watcher.expect_message(&name, "gone");
}

/// MQTT-3.1.3-9
#[test]
fn mqtt_3_1_3_9_return_before_the_delay_stops_the_will() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    let connect = delayed(&id(), &name, 1, 60);
    broker.connect(&connect).cut_and_wait();
    let client = broker.connect(&Connect { will: None, ..connect });
    thread::sleep(Duration::from_millis(1500));
    watcher.expect_nothing();
    client.disconnect();
    watcher.expect_nothing();
}

/// MQTT-3.1.3-9: a takeover is a return as well; without a delay the will is published.
#[test]
fn mqtt_3_1_3_9_takeover_and_the_will() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    let connect = delayed(&id(), &name, 1, 60);
    let mut first = broker.connect(&connect);
    let second = broker.connect(&Connect { will: None, ..connect });
    first.expect_disconnect(0x8E);
    thread::sleep(Duration::from_millis(1500));
    watcher.expect_nothing();
    second.disconnect();
    let connect = Connect::new(V5, &id()).persistent().will(Will::new(&name, "gone"));
    let mut first = broker.connect(&connect);
    let _second = broker.connect(&Connect { will: None, ..connect });
    first.expect_disconnect(0x8E);
    watcher.expect_message(&name, "gone");
}

/// MQTT-3.1.2-8: wills of a protocol error and of the broker's own end.
#[test]
fn mqtt_3_1_2_8_will_after_a_protocol_error() {
    let broker = shared();
    let (mut watcher, name) = watcher(&broker);
    let connect = Connect::new(V5, &id()).will(Will::new(&name, "gone"));
    let mut client = broker.connect(&connect);
    client.send(&connect.encode());
    client.expect_disconnect(0x82);
    watcher.expect_message(&name, "gone");
}

/// SEED-PROTO-23: at SIGTERM v5 clients are told 0x8B, and the process ends well.
#[test]
fn seed_proto_23_shutdown_gets_0x8b() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.client(V5);
    let mut old = broker.client(ringmq_tests::V311);
    broker.terminate();
    client.expect_disconnect(0x8B);
    old.expect_closed();
    assert!(broker.wait_end(Duration::from_secs(5)).success());
}
