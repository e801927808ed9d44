//! Retained messages (FEATURES PUB-09 to PUB-13): MQTT 3.1.1 chapter 3.3.1.3 and what differs in MQTT 5.

use std::thread;
use std::time::Duration;

use ringmq_tests::packet::{RETAIN_AS_PUBLISHED, RETAIN_IF_NEW, RETAIN_NEVER};
use ringmq_tests::{Broker, Connect, Property, Publish, V5, V311, Version, id, shared, topic};

/// v3.1.1: MQTT-3.3.1-5, MQTT-3.3.1-6, MQTT-3.3.1-8
/// v5: MQTT-3.3.1-5, MQTT-3.3.1-9
#[test]
fn mqtt_3_3_1_6_new_subscription_gets_the_last_retained_message() {
    let broker = shared();
    for version in Version::ALL {
        let name = topic();
        let mut publisher = broker.client(version);
        for (text, qos) in [("first", 0), ("second", 2), ("third", 1)] {
            publisher.publish_retained(&name, text, qos);
        }
        let mut client = broker.client(version);
        client.subscribe(&name, 2);
        let message = client.expect_message(&name, "third");
        assert_eq!((message.retain, message.qos, message.dup), (true, 1, false), "{version:?}");
        client.expect_nothing();
        publisher.publish_retained(&name, "", 0);
    }
}

/// v3.1.1: MQTT-3.3.1-7
#[test]
fn mqtt_3_3_1_7_qos_0_replaces_what_was_retained() {
    let broker = shared();
    let name = topic();
    let mut publisher = broker.client(V311);
    publisher.publish_retained(&name, "old", 1);
    publisher.publish_retained(&name, "new", 0);
    publisher.expect_alive();
    let mut client = broker.client(V311);
    client.subscribe(&name, 1);
    client.expect_message(&name, "new");
    publisher.publish_retained(&name, "", 0);
}

/// v3.1.1: MQTT-3.3.1-9
/// v5: MQTT-3.3.1-12, MQTT-3.3.1-13
/// SEED-PUB-12, SEED-PROTO-32
#[test]
fn mqtt_3_3_1_9_retain_is_cleared_for_existing_subscriptions() {
    let broker = shared();
    let name = topic();
    let mut old = broker.client(V311);
    old.subscribe(&name, 1);
    let mut plain = broker.client(V5);
    plain.subscribe(&name, 1);
    let mut as_published = broker.client(V5);
    as_published.subscribe(&name, 1 | RETAIN_AS_PUBLISHED);
    let mut publisher = broker.client(V5);
    publisher.publish_retained(&name, "retained", 1);
    publisher.publish(&name, "plain", 1);
    for (client, retain) in [(&mut old, false), (&mut plain, false), (&mut as_published, true)] {
        assert_eq!(client.expect_message(&name, "retained").retain, retain);
        assert!(!client.expect_message(&name, "plain").retain);
    }
    publisher.publish_retained(&name, "", 1);
}

/// v3.1.1: MQTT-3.3.1-10, MQTT-3.3.1-11
/// v5: MQTT-3.3.1-6, MQTT-3.3.1-7
/// SEED-PUB-10
#[test]
fn mqtt_3_3_1_10_empty_payload_removes_and_is_delivered() {
    let broker = shared();
    for version in Version::ALL {
        let name = topic();
        let mut watcher = broker.client(version);
        watcher.subscribe(&name, 1);
        let mut publisher = broker.client(version);
        publisher.publish_retained(&name, "kept", 1);
        publisher.publish_retained(&name, "", 1);
        publisher.publish_retained(&name, "", 1); // nothing there to remove
        watcher.expect_message(&name, "kept");
        for _ in 0..2 {
            let empty = watcher.expect_message(&name, "");
            assert!(!empty.retain);
        }
        let mut late = broker.client(version);
        late.subscribe(&name, 1);
        late.expect_nothing();
    }
}

/// v3.1.1: MQTT-3.3.1-12
/// v5: MQTT-3.3.1-8
#[test]
fn mqtt_3_3_1_12_plain_message_changes_nothing_retained() {
    let broker = shared();
    let name = topic();
    let mut publisher = broker.client(V311);
    publisher.publish(&name, "not kept", 1);
    let mut client = broker.client(V5);
    client.subscribe(&name, 1);
    client.expect_nothing();
    publisher.publish_retained(&name, "kept", 1);
    publisher.publish(&name, "passing", 1);
    publisher.publish(&name, "", 1);
    let mut late = broker.client(V5);
    late.subscribe(&name, 1);
    assert!(late.expect_message(&name, "kept").retain);
    late.expect_nothing();
    publisher.publish_retained(&name, "", 1);
}

/// v5: MQTT-3.3.1-9, MQTT-3.3.1-10, MQTT-3.3.1-11
/// SEED-PROTO-32
#[test]
fn mqtt_3_3_1_10_retain_handling() {
    let broker = shared();
    let name = topic();
    let mut publisher = broker.client(V5);
    publisher.publish_retained(&name, "kept", 1);
    let mut client = broker.client(V5);
    client.subscribe(&name, 1 | RETAIN_NEVER);
    client.expect_nothing();
    client.subscribe(&name, 1 | RETAIN_IF_NEW); // it exists
    client.expect_nothing();
    client.subscribe(&name, 1);
    client.expect_message(&name, "kept");
    client.unsubscribe(&[&name]);
    client.subscribe(&name, 1 | RETAIN_IF_NEW); // it is new
    client.expect_message(&name, "kept");
    // A session that comes back has the subscription still.
    let connect = Connect::new(V5, &id()).persistent();
    let mut stays = broker.connect(&connect);
    stays.subscribe(&name, 1 | RETAIN_IF_NEW);
    stays.expect_message(&name, "kept");
    stays.disconnect();
    let mut stays = broker.connect(&connect);
    stays.subscribe(&name, 1 | RETAIN_IF_NEW);
    stays.expect_nothing();
    publisher.publish_retained(&name, "", 1);
}

/// v3.1.1: MQTT-3.8.4-3, MQTT-3.3.1-6
/// SEED-PUB-12: again at each SUBSCRIBE of 3.1.1, even by the same client.
#[test]
fn seed_pub_12_retained_comes_again_on_resubscribe() {
    let broker = shared();
    let name = topic();
    let mut client = broker.client(V311);
    client.publish_retained(&name, "kept", 1);
    for _ in 0..3 {
        client.subscribe(&name, 1);
        assert!(client.expect_message(&name, "kept").retain);
    }
    client.expect_nothing();
    client.publish_retained(&name, "", 1);
}

/// v3.1.1: MQTT-3.3.1-6
#[test]
fn mqtt_3_3_1_6_wildcards_get_every_matching_topic_once() {
    let broker = shared();
    let prefix = topic();
    let mut publisher = broker.client(V311);
    let names: Vec<String> = ["a", "a/b", "a/b/c", "b", "b/b", "$x/b"]
        .iter()
        .map(|end| format!("{prefix}/{end}"))
        .collect();
    for name in &names {
        publisher.publish_retained(name, name, 1);
    }
    for (end, expected) in [
        ("/#", vec![0, 1, 2, 3, 4, 5]),
        ("/a/#", vec![0, 1, 2]),
        ("/+", vec![0, 3]),
        ("/+/b", vec![1, 4, 5]),
        ("/+/b/#", vec![1, 2, 4, 5]),
        ("/a/b/c", vec![2]),
    ] {
        let mut client = broker.client(V311);
        client.subscribe(&format!("{prefix}{end}"), 1);
        let mut seen = client.payloads(expected.len());
        seen.sort();
        let mut expected: Vec<&String> = expected.iter().map(|index| &names[*index]).collect();
        expected.sort();
        assert_eq!(seen.iter().collect::<Vec<_>>(), expected, "{end}");
        client.expect_nothing();
    }
    for name in &names {
        publisher.publish_retained(name, "", 1);
    }
}

/// v3.1.1: MQTT-4.7.2-1
/// SEED-PUB-13: retained `$` topics do not come for a filter that begins with a wildcard.
#[test]
fn seed_pub_13_retained_dollar_topics_do_not_match_a_leading_wildcard() {
    let broker = Broker::start(&["mqtt.broker.sys_interval=0"]);
    let mut publisher = broker.client(V311);
    publisher.publish_retained("$secret/a", "hidden", 1);
    publisher.publish_retained("open/a", "seen", 1);
    for filter in ["#", "+/#", "+/a"] {
        let mut client = broker.client(V311);
        client.subscribe(filter, 1);
        client.expect_message("open/a", "seen");
        client.expect_nothing();
    }
    let mut client = broker.client(V311);
    client.subscribe("$secret/+", 1);
    client.expect_message("$secret/a", "hidden");
}

/// SEED-PUB-13: no duplicate for a session that comes back.
#[test]
fn seed_pub_13_no_retained_message_on_resume() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V311, &id()).persistent());
    let mut publisher = broker.client(V311);
    publisher.publish_retained(&name, "kept", 1);
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 1);
    client.expect_message(&name, "kept");
    client.disconnect();
    broker.connect(&connect).expect_nothing();
    publisher.publish_retained(&name, "", 1);
}

/// v5: MQTT-3.3.2-5, MQTT-3.3.2-6
/// SEED-PROTO-21
#[test]
fn mqtt_3_3_2_5_retained_message_expires() {
    let broker = shared();
    let name = topic();
    let mut publisher = broker.client(V5);
    let message = Publish::new(&name, "soon").retain().property(Property::MessageExpiry(2));
    publisher.publish_whole(message, 1);
    thread::sleep(Duration::from_millis(1100));
    let mut client = broker.client(V5);
    client.subscribe(&name, 1);
    let message = client.expect_message(&name, "soon");
    assert_eq!(message.properties, [Property::MessageExpiry(1)]);
    thread::sleep(Duration::from_millis(1200));
    client.subscribe(&name, 1);
    client.expect_nothing();
}

/// SEED-PUB-09: limits of the retainer. One shard, because each has its share of the number; no $SYS, which counts too.
#[test]
fn seed_pub_09_limits_of_the_retainer() {
    let broker = Broker::start(&[
        "--shards",
        "1",
        "mqtt.broker.sys_interval=0",
        "retainer.max_message_num=2",
        "retainer.max_payload_size=10",
    ]);
    let mut publisher = broker.client(V311);
    publisher.publish_retained("r/1", "one", 1);
    publisher.publish_retained("r/2", "two", 1);
    publisher.publish_retained("r/3", "three", 1);
    publisher.publish_retained("r/1", "one again", 1);
    publisher.publish_retained("r/2", "longer than ten bytes", 1);
    let mut client = broker.client(V311);
    client.subscribe("r/#", 1);
    let mut seen = client.payloads(2);
    seen.sort();
    assert_eq!(seen, ["one again", "two"]);
    client.expect_nothing();
}

/// SEED-PUB-09: retainer.expiry_interval.
#[test]
fn seed_pub_09_retainer_expiry_interval() {
    let broker = Broker::start(&["retainer.expiry_interval=1s"]);
    broker.client(V311).publish_retained("r/1", "one", 1);
    let mut client = broker.client(V311);
    client.subscribe("r/1", 1);
    client.expect_message("r/1", "one");
    thread::sleep(Duration::from_millis(2100));
    client.subscribe("r/1", 1);
    client.expect_nothing();
}

/// Thousands of retained messages arrive, with a window of 32 and a bounded outbox.
#[test]
fn many_retained_messages_arrive_at_one_subscriber() {
    let broker = shared();
    let prefix = topic();
    let mut publisher = broker.client(V311);
    for number in 0..3000 {
        publisher.send_publish(&Publish::new(&format!("{prefix}/{number}"), "x").retain());
    }
    publisher.expect_alive();
    let mut client = broker.client(V311);
    client.subscribe(&format!("{prefix}/#"), 0);
    let mut seen: Vec<String> = (0..3000).map(|_| client.message().topic).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3000);
    for number in 0..3000 {
        publisher.send_publish(&Publish::new(&format!("{prefix}/{number}"), "").retain());
    }
    publisher.expect_alive();
}
