//! Overlapping subscriptions of one client (SEED-PROTO-12): one copy, the highest QoS, all subscription identifiers (SEED-PROTO-27).

use ringmq_tests::packet::{NO_LOCAL, RETAIN_AS_PUBLISHED};
use ringmq_tests::{Connect, Property, V5, V311, Version, id, shared, topic};

/// v3.1.1: MQTT-3.3.5-1
/// v5: MQTT-3.3.4-2
/// SEED-PROTO-12
#[test]
fn mqtt_3_3_5_1_one_copy_at_the_highest_qos() {
    let broker = shared();
    for version in Version::ALL {
        let prefix = topic();
        let name = format!("{prefix}/a/b");
        let mut client = broker.client(version);
        for (end, qos) in [("/a/b", 0), ("/#", 2), ("/+/b", 1), ("/a/+", 0)] {
            client.subscribe(&format!("{prefix}{end}"), qos);
        }
        let mut publisher = broker.client(version);
        for qos in 0..=2 {
            publisher.publish(&name, "x", qos);
            assert_eq!(client.expect_message(&name, "x").qos, qos, "{version:?}");
        }
        client.expect_nothing();
        client.unsubscribe(&[&format!("{prefix}/#")]);
        publisher.publish(&name, "y", 2);
        assert_eq!(client.expect_message(&name, "y").qos, 1);
        client.expect_nothing();
    }
}

/// v5: MQTT-3.3.4-3, MQTT-3.3.4-4
/// SEED-PROTO-27
#[test]
fn mqtt_3_3_4_4_one_copy_carries_all_identifiers() {
    let broker = shared();
    let prefix = topic();
    let name = format!("{prefix}/a/b");
    let mut client = broker.client(V5);
    for (end, number) in [("/a/b", 1), ("/#", 268_435_455), ("/+/b", 1), ("/x", 7)] {
        let filter = format!("{prefix}{end}");
        client.subscribe_with(&[(&filter, 1)], &[Property::SubscriptionId(number)]);
    }
    client.subscribe(&format!("{prefix}/a/+"), 1); // without an identifier
    let mut publisher = broker.client(V311);
    publisher.publish(&name, "x", 1);
    let mut ids = client.expect_message(&name, "x").subscription_ids();
    ids.dedup(); // the same identifier once or twice
    assert_eq!(ids, [1, 268_435_455]);
    client.expect_nothing();
    // One identifier can stand for many filters of one SUBSCRIBE, and goes with its subscription.
    let filters = [format!("{prefix}/a/b"), format!("{prefix}/#"), format!("{prefix}/+/b")];
    client.unsubscribe(&filters.each_ref().map(String::as_str));
    publisher.publish(&name, "y", 1);
    assert_eq!(client.expect_message(&name, "y").subscription_ids(), [0; 0]);
}

/// v5: MQTT-3.3.4-3
/// Identifiers are kept with the session and sent with retained messages.
#[test]
fn mqtt_3_3_4_3_identifiers_are_kept_with_the_session() {
    let broker = shared();
    let name = topic();
    let connect = Connect::new(V5, &id()).persistent();
    let mut client = broker.connect(&connect);
    client.subscribe_with(&[(&name, 1)], &[Property::SubscriptionId(42)]);
    client.disconnect();
    let mut publisher = broker.client(V5);
    publisher.publish_retained(&name, "queued", 1);
    let mut client = broker.connect(&connect);
    assert_eq!(client.expect_message(&name, "queued").subscription_ids(), [42]);
    client.subscribe_with(&[(&name, 1)], &[Property::SubscriptionId(43)]);
    let retained = client.expect_message(&name, "queued");
    assert_eq!((retained.retain, retained.subscription_ids()), (true, vec![43]));
    publisher.publish_retained(&name, "", 1);
}

/// v5: MQTT-3.8.3-3, MQTT-3.3.1-13
/// Options are each subscription's own: one that wants the message is enough, and RETAIN as any of them asks.
#[test]
fn mqtt_3_8_3_3_options_of_overlapping_subscriptions() {
    let broker = shared();
    let prefix = topic();
    let name = format!("{prefix}/a");
    let mut client = broker.client(V5);
    client.subscribe_with(&[(&name, 1 | NO_LOCAL)], &[Property::SubscriptionId(1)]);
    client.publish(&name, "mine", 1);
    client.expect_nothing();
    let wild = format!("{prefix}/+");
    client.subscribe_with(&[(&wild, RETAIN_AS_PUBLISHED)], &[Property::SubscriptionId(2)]);
    client.publish(&name, "mine", 1);
    let message = client.expect_message(&name, "mine");
    assert_eq!((message.qos, message.subscription_ids()), (0, vec![2]));
    client.expect_nothing();
}

/// A plain and a shared subscription of one client are two: each has its copy.
/// v5: MQTT-4.8.2-3
#[test]
fn mqtt_4_8_2_3_plain_and_shared_subscription_of_one_client() {
    let broker = shared();
    let name = topic();
    let mut client = broker.client(V5);
    client.subscribe(&name, 0);
    client.subscribe(&format!("$share/g/{name}"), 1);
    let mut publisher = broker.client(V5);
    publisher.publish(&name, "x", 1);
    let mut seen = [client.message().qos, client.message().qos];
    seen.sort_unstable();
    assert_eq!(seen, [0, 1]);
    client.expect_nothing();
}
