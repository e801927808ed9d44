//! MQTT 3.1.1, chapters 3.8 to 3.14 and 4.7: SUBSCRIBE, UNSUBSCRIBE, PINGREQ, topic names and filters.

use ringmq_tests::client::Event;
use ringmq_tests::packet::{ack, frame};
use ringmq_tests::{Broker, Client, Packet, Publish, Subscribe, V311, WAIT, shared, topic};

#[track_caller]
fn closes_connected(broker: &Broker, bytes: &[u8]) {
    let mut client = broker.client(V311);
    client.send(bytes);
    client.expect_closed();
}

/// MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-2.3.1-7
#[test]
fn mqtt_3_8_4_2_suback_has_the_identifier() {
    let broker = shared();
    let mut client = broker.client(V311);
    for packet_id in [1, 10, 0x1234, 0xFFFF] {
        client.send(&Subscribe::new(packet_id).filter(&topic(), 0).encode(V311));
        assert_eq!(client.expect_suback(packet_id).codes, [0]);
    }
}

/// MQTT-3.8.3-3, SEED-PROTO-10
#[test]
fn mqtt_3_8_3_3_subscribe_without_a_filter_closes() {
    let broker = shared();
    closes_connected(&broker, &frame(0x82, &[0, 1]));
}

/// MQTT-3.8.3-4
#[test]
fn mqtt_3_8_3_4_reserved_qos_bits_close() {
    let broker = shared();
    for qos in [3, 4, 8, 0x40, 0x81] {
        closes_connected(&broker, &Subscribe::new(1).filter(&topic(), qos).encode(V311));
    }
}

/// MQTT-3.8.4-3
#[test]
fn mqtt_3_8_4_3_same_filter_replaces_and_sends_retained_again() {
    let broker = shared();
    let name = topic();
    let mut publisher = broker.client(V311);
    publisher.publish_retained(&name, "kept", 2);
    let mut client = broker.client(V311);
    client.subscribe(&name, 2);
    assert_eq!(client.expect_message(&name, "kept").qos, 2);
    client.subscribe(&name, 0);
    let again = client.expect_message(&name, "kept");
    assert_eq!((again.qos, again.retain), (0, true));
    publisher.publish(&name, "new", 2);
    assert_eq!(client.expect_message(&name, "new").qos, 0);
    client.expect_nothing(); // one subscription, one copy
    publisher.publish_retained(&name, "", 0);
}

/// MQTT-3.8.4-4, MQTT-3.8.4-5, MQTT-3.9.3-1, MQTT-3.9.3-2, SEED-PROTO-11
#[test]
fn mqtt_3_8_4_5_one_code_a_filter_in_order() {
    let broker = shared();
    let prefix = topic();
    let names: Vec<String> = (0..6).map(|n| format!("{prefix}/{n}")).collect();
    let mut client = broker.client(V311);
    let filters: Vec<(&str, u8)> =
        names.iter().zip([2, 0, 1, 1, 0, 2]).map(|(name, qos)| (name.as_str(), qos)).collect();
    assert_eq!(client.subscribe_with(&filters, &[]), [2, 0, 1, 1, 0, 2]);
    let mut publisher = broker.client(V311);
    for (name, qos) in &filters {
        publisher.publish(name, "x", 2);
        assert_eq!(client.expect_message(name, "x").qos, *qos);
    }
}

/// SEED-PROTO-11: many filters in one packet.
#[test]
fn seed_proto_11_a_thousand_filters_in_one_packet() {
    let broker = shared();
    let prefix = topic();
    let names: Vec<String> = (0..1000).map(|n| format!("{prefix}/{n}")).collect();
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut client = broker.client(V311);
    assert_eq!(client.subscribe_with(&filters, &[]), vec![1; 1000]);
    client.publish(&names[999], "last", 0);
    client.expect_message(&names[999], "last");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.unsubscribe(&names);
    client.publish(names[0], "gone", 0);
    client.expect_nothing();
}

/// MQTT-3.8.4-6, SEED-PROTO-02
#[test]
fn mqtt_3_8_4_6_delivered_qos_is_the_lower_one() {
    let broker = shared();
    let mut publisher = broker.client(V311);
    for granted in 0..=2 {
        let name = topic();
        let mut client = broker.client(V311);
        client.subscribe(&name, granted);
        for published in 0..=2 {
            publisher.publish(&name, "x", published);
            assert_eq!(client.message().qos, granted.min(published), "{published} to {granted}");
        }
    }
}

/// SEED-SESS-06
#[test]
fn seed_sess_06_upgrade_qos_delivers_the_higher_one() {
    let broker = Broker::start(&["mqtt.session.upgrade_qos=on"]);
    let mut publisher = broker.client(V311);
    for granted in 0..=2 {
        let name = topic();
        let mut client = broker.client(V311);
        client.subscribe(&name, granted);
        for published in 0..=2 {
            publisher.publish(&name, "x", published);
            assert_eq!(client.message().qos, granted.max(published), "{published} to {granted}");
        }
    }
}

/// MQTT-3.10.3-2, SEED-PROTO-10
#[test]
fn mqtt_3_10_3_2_unsubscribe_without_a_filter_closes() {
    let broker = shared();
    closes_connected(&broker, &frame(0xA2, &[0, 1]));
}

/// MQTT-3.10.4-1, MQTT-4.7.3-4
#[test]
fn mqtt_3_10_4_1_filters_are_compared_byte_by_byte() {
    let broker = shared();
    let name = topic();
    let wild = format!("{name}/+");
    let mut client = broker.client(V311);
    client.subscribe(&wild, 0);
    for other in [format!("{name}/#"), format!("{name}/a"), format!("{wild}/"), wild.to_uppercase()]
    {
        client.unsubscribe(&[&other]);
    }
    client.publish(&format!("{name}/a"), "still", 0);
    client.expect_message(&format!("{name}/a"), "still");
    client.unsubscribe(&[&wild]);
    client.publish(&format!("{name}/a"), "gone", 0);
    client.expect_nothing();
}

/// MQTT-3.10.4-2
#[test]
fn mqtt_3_10_4_2_nothing_new_after_unsubscribe() {
    let broker = shared();
    let name = topic();
    let (mut client, mut publisher) = (broker.client(V311), broker.client(V311));
    client.subscribe(&name, 2);
    publisher.publish(&name, "before", 1);
    client.expect_message(&name, "before");
    client.unsubscribe(&[&name]);
    for qos in 0..=2 {
        publisher.publish(&name, "after", qos);
    }
    client.expect_nothing();
}

/// MQTT-3.10.4-3
#[test]
fn mqtt_3_10_4_3_deliveries_under_way_are_completed() {
    let broker = shared();
    let name = topic();
    let (mut client, mut publisher) = (broker.client(V311), broker.client(V311));
    client.subscribe(&name, 2);
    publisher.publish(&name, "x", 2);
    let message = client.expect_publish();
    client.unsubscribe(&[&name]);
    client.send(&ack(0x50, message.packet_id));
    client.expect_pubrel(message.packet_id);
    client.send(&ack(0x70, message.packet_id));
    client.expect_alive();
}

/// MQTT-3.10.4-4, MQTT-3.10.4-5, MQTT-3.10.4-6, MQTT-2.3.1-7
#[test]
fn mqtt_3_10_4_4_unsuback_comes_always() {
    let broker = shared();
    let (first, second) = (topic(), topic());
    let mut client = broker.client(V311);
    client.send(&Subscribe::new(0x1234).filter(&topic(), 0).encode_unsubscribe(V311));
    client.expect_unsuback(0x1234); // nothing to delete
    client.subscribe_with(&[(&first, 0), (&second, 0)], &[]);
    let both = Subscribe::new(77).filter(&first, 0).filter(&second, 0).filter(&topic(), 0);
    client.send(&both.encode_unsubscribe(V311));
    client.expect_unsuback(77);
    client.publish(&first, "x", 0);
    client.publish(&second, "x", 0);
    client.expect_nothing();
}

/// MQTT-3.12.4-1
#[test]
fn mqtt_3_12_4_1_pingreq_is_answered() {
    let broker = shared();
    let mut client = broker.client(V311);
    for _ in 0..3 {
        client.expect_alive();
    }
}

/// Which filters of `table` match which topics, under a prefix of their own.
#[track_caller]
fn check_matches(table: &[(&str, &[&str], &[&str])]) {
    let broker = shared();
    let mut publisher = broker.client(V311);
    for (filter, matching, others) in table {
        let prefix = topic();
        let mut client: Client = broker.client(V311);
        client.subscribe(&format!("{prefix}{filter}"), 0);
        for name in others.iter().chain(*matching) {
            publisher.publish(&format!("{prefix}{name}"), name, 0);
        }
        publisher.publish(&format!("{prefix}{}", matching[0]), "end", 0);
        let mut seen = Vec::new();
        loop {
            let message = client.message();
            if message.text() == "end" {
                break;
            }
            seen.push(message.text().to_owned());
        }
        assert_eq!(seen, *matching, "filter {filter}");
    }
}

/// MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-3.3.2-3, MQTT-4.7.3-4, SEED-PROTO-14
#[test]
fn mqtt_4_7_1_2_filters_match_as_specified() {
    check_matches(&[
        ("/a/b", &["/a/b"], &["/a", "/a/b/", "/a/b/c", "/A/b", "//a/b", "/a//b"]),
        ("/#", &["", "/", "/a", "/a/b", "//"], &["x", "x/a"]),
        ("/a/#", &["/a", "/a/", "/a/b", "/a/b/c"], &["/ab", "/b/a", ""]),
        ("/+", &["/", "/a", "/$a"], &["", "/a/", "/a/b", "//"]),
        ("/+/b", &["/a/b", "//b"], &["/b", "/a/b/c", "/a/c"]),
        ("/+/+", &["//", "/a/b", "/a/"], &["/a", "/a/b/c"]),
        ("/+/b/#", &["/a/b", "/a/b/c/d"], &["/a/c/b", "/b"]),
        ("/a/+/#", &["/a/b", "/a/", "/a/b/c"], &["/a", "/b/a"]),
    ]);
}

/// MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.3-1: filters that are none are refused, by SUBACK 0x80 or by closing.
#[test]
fn mqtt_4_7_1_2_invalid_filters_are_refused() {
    let broker = shared();
    for filter in ["", "#/a", "a/#/b", "a#", "a/b#", "a+", "+a", "a/+b", "a/b+/c", "##", "a/##"] {
        let mut client = broker.client(V311);
        client.send(&Subscribe::new(1).filter(filter, 0).encode(V311));
        match client.event(WAIT) {
            Event::Packet(Packet::SubAck(ack)) => {
                assert_eq!(ack.codes, [0x80], "filter {filter:?}");
            }
            event => assert_eq!(event, Event::Closed, "filter {filter:?}"),
        }
    }
}

/// MQTT-4.7.3-1
#[test]
fn mqtt_4_7_3_1_empty_topic_name_closes() {
    let broker = shared();
    closes_connected(&broker, &Publish::new("", "x").encode(V311));
}

/// MQTT-4.7.2-1, SEED-PROTO-15
#[test]
fn mqtt_4_7_2_1_wildcards_do_not_match_dollar_topics() {
    let broker = shared();
    let name = topic().replacen("t/", "$t/", 1);
    let rest = name.split_once('/').unwrap().1.to_owned();
    let mut wild = broker.client(V311);
    wild.subscribe("#", 0);
    wild.subscribe(&format!("+/{rest}"), 0);
    wild.subscribe("+/#", 0);
    let mut exact = broker.client(V311);
    exact.subscribe(&format!("$t/{}/#", rest.split_once('/').unwrap().0), 0);
    let mut publisher = broker.client(V311);
    publisher.publish(&name, "x", 0);
    exact.expect_message(&name, "x");
    publisher.publish(&rest, "end", 0);
    // Other tests publish too: only this topic may not be there.
    loop {
        let message = wild.message();
        assert_ne!(message.topic, name);
        if message.topic == rest {
            break;
        }
    }
}
