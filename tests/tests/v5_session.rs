//! MQTT 5: session expiry, the queue of an absent client (SEED-PROTO-20, SEED-SESS-01, SEED-SESS-02, SEED-SESS-09 to 11).

use std::thread;
use std::time::Duration;

use ringmq_tests::packet::{disconnect_v5, find};
use ringmq_tests::{Broker, Client, Connect, Property, V5, V311, id, shared, topic, wait_until};

fn connect(expiry_s: u32) -> Connect {
    Connect::new(V5, &id()).clean(false).property(Property::SessionExpiry(expiry_s))
}

/// Leaves with DISCONNECT, waits, and says whether the session is there on return.
fn survives(broker: &Broker, connect: &Connect, client: Client, wait: Duration) -> bool {
    client.disconnect();
    thread::sleep(wait);
    broker.connect_ack(connect).1.session_present
}

/// MQTT-3.1.2-23, MQTT-4.1.0-2, SEED-SESS-02
#[test]
fn mqtt_3_1_2_23_session_stays_for_its_expiry() {
    let broker = shared();
    let connect = connect(2);
    let client = broker.connect(&connect);
    assert!(survives(&broker, &connect, client, Duration::from_millis(300)));
    let client = broker.connect(&connect);
    assert!(!survives(&broker, &connect, client, Duration::from_millis(3300)));
}

/// MQTT-4.1.0-2: absent or 0 ends with the connection.
#[test]
fn mqtt_4_1_0_2_session_without_expiry_ends_with_the_connection() {
    let broker = shared();
    for connect in [connect(0), Connect::new(V5, &id()).clean(false)] {
        let mut client = broker.connect(&connect);
        client.subscribe(&topic(), 1);
        assert!(!survives(&broker, &connect, client, Duration::from_millis(50)));
        let client = broker.connect(&connect);
        client.cut_and_wait();
        assert!(!broker.connect_ack(&connect).1.session_present);
    }
}

/// MQTT-4.1.0-1: not while the connection is open, however short the expiry.
#[test]
fn mqtt_4_1_0_1_session_stays_while_connected() {
    let broker = shared();
    let name = topic();
    let connect = connect(1);
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 1);
    thread::sleep(Duration::from_millis(2200));
    client.publish(&name, "x", 1);
    client.expect_message(&name, "x");
    assert!(survives(&broker, &connect, client, Duration::from_millis(50)));
}

/// MQTT-3.1.2-23: DISCONNECT can change the expiry.
#[test]
fn mqtt_3_1_2_23_disconnect_changes_the_expiry() {
    let broker = shared();
    let connect = connect(60);
    let mut client = broker.connect(&connect);
    client.send(&disconnect_v5(0, &[Property::SessionExpiry(0)]));
    client.expect_closed();
    assert!(!broker.connect_ack(&connect).1.session_present);
    let connect = self::connect(1);
    let mut client = broker.connect(&connect);
    client.send(&disconnect_v5(0, &[Property::SessionExpiry(60)]));
    client.expect_closed();
    thread::sleep(Duration::from_millis(2100));
    assert!(broker.connect_ack(&connect).1.session_present);
}

/// MQTT-4.13.1-1: but not from zero.
#[test]
fn mqtt_4_13_1_1_disconnect_may_not_raise_an_expiry_of_zero() {
    let broker = shared();
    let mut client = broker.client(V5);
    client.send(&disconnect_v5(0, &[Property::SessionExpiry(10)]));
    client.expect_disconnect(0x82);
}

/// SEED-SESS-02: a wish above the server's limit is cut, and the client told.
#[test]
fn seed_sess_02_expiry_is_cut_to_the_limit() {
    let broker = Broker::start(&["mqtt.max_session_expiry_interval=1s"]);
    let connect = connect(3600);
    let (client, answer) = broker.connect_ack(&connect);
    assert!(answer.properties.contains(&Property::SessionExpiry(1)), "{answer:?}");
    assert!(!survives(&broker, &connect, client, Duration::from_millis(2200)));
    // Within the limit nothing needs to be said, or the same.
    let (_, answer) = broker.connect_ack(&self::connect(1));
    let said = find(&answer.properties, |property| match property {
        Property::SessionExpiry(value) => Some(*value),
        _ => None,
    });
    assert!(matches!(said, None | Some(1)));
}

/// SEED-SESS-02: `mqtt.session.expiry_interval` for 3.1.1.
#[test]
fn seed_sess_02_expiry_of_v311_sessions() {
    let broker = Broker::start(&["mqtt.session.expiry_interval=1s"]);
    let connect = Connect::new(V311, &id()).persistent();
    let client = broker.connect(&connect);
    assert!(survives(&broker, &connect, client, Duration::from_millis(100)));
    let client = broker.connect(&connect);
    assert!(!survives(&broker, &connect, client, Duration::from_millis(2200)));
}

/// SEED-SESS-01: a session passes from one protocol version to another.
#[test]
fn seed_sess_01_session_is_resumed_by_another_version() {
    let broker = shared();
    let (client_id, name) = (id(), topic());
    let mut client = broker.connect(&Connect::new(V311, &client_id).persistent());
    client.subscribe(&name, 1);
    client.disconnect();
    broker.client(V5).publish(&name, "one", 1);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V5, &client_id).persistent());
    assert!(answer.session_present);
    client.expect_message(&name, "one");
    client.disconnect();
    broker.client(V311).publish(&name, "two", 1);
    let (mut client, answer) = broker.connect_ack(&Connect::new(V311, &client_id).persistent());
    assert!(answer.session_present);
    client.expect_message(&name, "two");
}

/// Fills the queue of an absent client with QoS and text, then gives what arrives.
fn queued(broker: &Broker, messages: &[(u8, &str)]) -> Vec<String> {
    let (connect, name) = (connect(60), topic());
    let mut client = broker.connect(&connect);
    client.subscribe(&format!("{name}/+"), 2);
    client.cut_and_wait();
    let mut publisher = broker.client(V5);
    for (qos, text) in messages {
        publisher.publish(&format!("{name}/{text}"), text, *qos);
    }
    publisher.expect_alive();
    let mut client = broker.connect(&connect);
    let mut seen = Vec::new();
    while let ringmq_tests::client::Event::Packet(packet) = client.event(ringmq_tests::QUIET) {
        let ringmq_tests::Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        client.acknowledge(&publish);
        seen.push(publish.text().to_owned());
    }
    seen
}

/// SEED-SESS-10, SEED-SESS-11: a full queue drops its oldest, and the publisher's acknowledgement comes all the same.
#[test]
fn seed_sess_11_full_queue_drops_the_oldest() {
    let broker = Broker::start(&["mqtt.mqueue.max_length=3"]);
    let seen = queued(&broker, &[(1, "a"), (2, "b"), (1, "c"), (1, "d"), (2, "e")]);
    assert_eq!(seen, ["c", "d", "e"]);
}

/// SEED-SESS-10: above the high watermark the alarm is raised, once; below the low one it is cleared.
#[test]
fn seed_sess_10_watermarks_raise_and_clear_the_alarm() {
    let broker = Broker::start(&["mqtt.mqueue.max_length=10"]);
    let alarms = || {
        let metrics: serde_json::Value =
            serde_json::from_str(&broker.cli(&["broker", "stats", "--json"])).unwrap();
        metrics["alarms/queue_high_watermark/count"].as_u64()
    };
    let connect = connect(60);
    let mut client = broker.connect(&connect);
    client.subscribe("watched", 1);
    client.cut_and_wait();
    let mut publisher = broker.client(V5);
    let mut publish = |count: usize| (0..count).for_each(|_| publisher.publish("watched", "x", 1));
    publish(6);
    assert_eq!(alarms(), Some(0), "60% is not above 60%");
    publish(1);
    assert_eq!(alarms(), Some(1));
    publish(2);
    assert_eq!(alarms(), Some(1));
    let raised = "alarm queue_high_watermark raised: 1 session has more than 60% of 10 messages";
    wait_until("the alarm is said", || broker.output().contains(raised));
    let mut client = broker.connect(&connect);
    assert_eq!(client.payloads(9), ["x"; 9]);
    assert_eq!(alarms(), Some(0));
    wait_until("its end is said", || broker.output().contains("queue_high_watermark cleared"));
}

/// SEED-SESS-11: QoS 0 is queued only when `store_qos0` says so.
#[test]
fn seed_sess_11_store_qos0() {
    let messages = [(0, "a"), (1, "b"), (0, "c")];
    let broker = Broker::start(&["mqtt.mqueue.store_qos0=on"]);
    assert_eq!(queued(&broker, &messages), ["a", "b", "c"]);
    drop(broker);
    let broker = Broker::start(&["mqtt.mqueue.store_qos0=off"]);
    assert_eq!(queued(&broker, &messages), ["b"]);
}

/// SEED-SESS-09: priorities by topic.
#[test]
fn seed_sess_09_priority_queue() {
    let broker = Broker::start(&[
        "mqtt.mqueue.type=priority",
        "--set",
        "mqtt.mqueue.priority=high=10,low=2",
    ]);
    let connect = connect(60);
    let mut client = broker.connect(&connect);
    for name in ["high", "low", "none"] {
        client.subscribe(name, 1);
    }
    client.cut_and_wait();
    let mut publisher = broker.client(V5);
    for (name, text) in [
        ("none", "n1"),
        ("low", "l1"),
        ("high", "h1"),
        ("none", "n2"),
        ("low", "l2"),
        ("high", "h2"),
    ] {
        publisher.publish(name, text, 1);
    }
    let mut client = broker.connect(&connect);
    assert_eq!(client.payloads(6), ["h1", "h2", "l1", "l2", "n1", "n2"]);
}

/// SEED-SESS-08: no-local for 3.1.1 by a setting.
#[test]
fn seed_sess_08_ignore_loop_deliver() {
    let broker = Broker::start(&["mqtt.session.ignore_loop_deliver=on"]);
    let (mut own, mut other) = (broker.client(V311), broker.client(V311));
    own.subscribe("a", 1);
    other.subscribe("a", 1);
    own.publish("a", "x", 1);
    other.expect_message("a", "x");
    own.expect_nothing();
    other.publish("a", "y", 1);
    own.expect_message("a", "y");
}

/// SEED-SESS-08, SEED-PROTO-22: more subscriptions than allowed.
#[test]
fn seed_sess_08_max_subscriptions() {
    let broker = Broker::start(&["mqtt.session.max_subscriptions=2"]);
    for (version, code) in [(V5, 0x97), (V311, 0x80)] {
        let mut client = broker.client(version);
        let codes = client.subscribe_with(&[("a", 1), ("b", 1), ("c", 1), ("a", 0)], &[]);
        assert_eq!(codes, [1, 1, code, 0]);
        client.unsubscribe(&["a"]);
        client.subscribe("c", 1);
    }
}
