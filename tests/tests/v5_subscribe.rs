//! MQTT 5, chapters 3.8 to 3.12 and 4.7: SUBSCRIBE and its options, UNSUBSCRIBE, PINGREQ, filters.

use ringmq_tests::packet::{ILL_FORMED, NO_LOCAL, ack, field, frame};
use ringmq_tests::{Broker, Packet, Property, Publish, Subscribe, V5, shared, topic};

#[track_caller]
fn error(broker: &Broker, bytes: &[u8], reasons: &[u8]) {
    let mut client = broker.client(V5);
    client.send(bytes);
    let Packet::Disconnect(answer) = client.packet() else { panic!("DISCONNECT was expected") };
    assert!(reasons.contains(&answer.reason), "{answer:02x?} is none of {reasons:02x?}");
    client.expect_closed();
}

/// MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-2.2.1-6
#[test]
fn mqtt_3_8_4_2_suback_has_the_identifier() {
    let broker = shared();
    let mut client = broker.client(V5);
    for packet_id in [1, 0x1234, 0xFFFF] {
        client.send(&Subscribe::new(packet_id).filter(&topic(), 0).encode(V5));
        assert_eq!(client.expect_suback(packet_id).codes, [0]);
    }
}

/// MQTT-2.2.1-3
#[test]
fn mqtt_2_2_1_3_packet_identifier_zero_is_an_error() {
    let broker = shared();
    let name = topic();
    error(&broker, &Subscribe::new(0).filter(&name, 0).encode(V5), &[0x81, 0x82]);
    error(&broker, &Subscribe::new(0).filter(&name, 0).encode_unsubscribe(V5), &[0x81, 0x82]);
    error(&broker, &Publish::new(&name, "").qos(1, 0).encode(V5), &[0x81, 0x82]);
    error(&broker, &Publish::new(&name, "").qos(2, 0).encode(V5), &[0x81, 0x82]);
}

/// MQTT-3.8.1-1, MQTT-3.10.1-1, MQTT-3.6.1-1, MQTT-2.1.3-1, MQTT-3.14.1-1, MQTT-3.15.1-1, SEED-PROTO-38
#[test]
fn mqtt_3_8_1_1_wrong_flags_are_malformed() {
    let broker = shared();
    let subscribe = Subscribe::new(1).filter(&topic(), 0);
    for flags in [0, 1, 3, 0x0A] {
        let mut bytes = subscribe.encode(V5);
        bytes[0] = 0x80 | flags;
        error(&broker, &bytes, &[0x81]);
        let mut bytes = subscribe.encode_unsubscribe(V5);
        bytes[0] = 0xA0 | flags;
        error(&broker, &bytes, &[0x81]);
        error(&broker, &ack(0x60 | flags, 1), &[0x81]);
    }
    for (first, body) in [
        (0x41, &[0, 1][..]),
        (0x52, &[0, 1]),
        (0x74, &[0, 1]),
        (0xC8, &[]),
        (0xE1, &[]),
        (0xF2, &[]),
    ] {
        error(&broker, &frame(first, body), &[0x81]);
    }
}

/// MQTT-3.8.3-1, MQTT-3.10.3-1, MQTT-3.3.2-1, MQTT-1.5.4-1, MQTT-1.5.4-2, MQTT-4.7.3-2
#[test]
fn mqtt_3_8_3_1_ill_formed_filters_are_malformed() {
    let broker = shared();
    for bad in ILL_FORMED.into_iter().chain([&b"a\0"[..]]) {
        let mut body = [vec![0, 1, 0], field(bad)].concat();
        error(&broker, &frame(0xA2, &body), &[0x81, 0x8F]);
        body.push(0);
        error(&broker, &frame(0x82, &body), &[0x81, 0x8F]);
        error(&broker, &frame(0x30, &[field(bad), vec![0]].concat()), &[0x81, 0x90]);
    }
}

/// MQTT-3.8.3-2, MQTT-3.10.3-2, SEED-PROTO-10
#[test]
fn mqtt_3_8_3_2_no_filter_is_a_protocol_error() {
    let broker = shared();
    error(&broker, &frame(0x82, &[0, 1, 0]), &[0x82]);
    error(&broker, &frame(0xA2, &[0, 1, 0]), &[0x82]);
}

/// MQTT-3.8.3-3, SEED-PROTO-32
#[test]
fn mqtt_3_8_3_3_no_local() {
    let broker = shared();
    let name = topic();
    let (mut own, mut other) = (broker.client(V5), broker.client(V5));
    own.subscribe(&name, 1 | NO_LOCAL);
    other.subscribe(&name, 1);
    own.publish(&name, "mine", 1);
    other.expect_message(&name, "mine");
    own.expect_nothing();
    other.publish(&name, "yours", 1);
    own.expect_message(&name, "yours");
    // Without the option it comes back.
    own.subscribe(&name, 1);
    own.publish(&name, "mine again", 1);
    own.expect_message(&name, "mine again");
}

/// MQTT-3.8.3-4
#[test]
fn mqtt_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = shared();
    let filter = format!("$share/g/{}", topic());
    let bytes = Subscribe::new(1).filter(&filter, 1 | NO_LOCAL).encode(V5);
    error(&broker, &bytes, &[0x82]);
}

/// MQTT-3.8.3-5: reserved bits, QoS 3, retain handling 3.
#[test]
fn mqtt_3_8_3_5_reserved_option_bits_are_malformed() {
    let broker = shared();
    for options in [0x40, 0x80, 0xC1] {
        error(&broker, &Subscribe::new(1).filter(&topic(), options).encode(V5), &[0x81]);
    }
    for options in [0x03, 0x30] {
        error(&broker, &Subscribe::new(1).filter(&topic(), options).encode(V5), &[0x81, 0x82]);
    }
}

/// MQTT-4.13.1-1: subscription identifier 0, twice, or in UNSUBSCRIBE.
#[test]
fn mqtt_4_13_1_1_wrong_subscribe_properties_close() {
    let broker = shared();
    let (name, number) = (topic(), Property::SubscriptionId);
    let subscribe = Subscribe::new(1).filter(&name, 0);
    error(&broker, &subscribe.clone().property(number(0)).encode(V5), &[0x82]);
    let twice = subscribe.clone().property(number(1)).property(number(2));
    error(&broker, &twice.encode(V5), &[0x82]);
    let unsubscribe = subscribe.clone().property(number(1)).encode_unsubscribe(V5);
    error(&broker, &unsubscribe, &[0x81, 0x82]);
    let other = subscribe.property(Property::MessageExpiry(1));
    error(&broker, &other.encode(V5), &[0x81, 0x82]);
}

/// MQTT-3.8.4-3, MQTT-3.8.4-4
#[test]
fn mqtt_3_8_4_3_same_filter_replaces() {
    let broker = shared();
    let name = topic();
    let mut publisher = broker.client(V5);
    publisher.publish_retained(&name, "kept", 2);
    let mut client = broker.client(V5);
    let first = client.subscribe_with(&[(&name, 2)], &[Property::SubscriptionId(1)]);
    assert_eq!(first, [2]);
    assert_eq!(client.expect_message(&name, "kept").subscription_ids(), [1]);
    let second = client.subscribe_with(&[(&name, 0)], &[Property::SubscriptionId(2)]);
    assert_eq!(second, [0]);
    let again = client.expect_message(&name, "kept");
    assert_eq!((again.qos, again.retain, again.subscription_ids()), (0, true, vec![2]));
    publisher.publish(&name, "new", 2);
    let new = client.expect_message(&name, "new");
    assert_eq!((new.qos, new.subscription_ids()), (0, vec![2]));
    client.expect_nothing();
    publisher.publish_retained(&name, "", 0);
}

/// MQTT-3.8.4-4: nothing is lost while a subscription is replaced again and again.
#[test]
fn mqtt_3_8_4_4_replacing_loses_nothing() {
    let broker = shared();
    let name = topic();
    let mut client = broker.client(V5);
    client.subscribe(&name, 1);
    let (address, to) = (broker.address(), name.clone());
    let publisher = std::thread::spawn(move || {
        let mut publisher = ringmq_tests::Client::open(address, V5);
        publisher.send(&ringmq_tests::Connect::new(V5, &ringmq_tests::id()).encode());
        publisher.expect_connack();
        for number in 0..200 {
            publisher.publish(&to, &number.to_string(), 1);
        }
    });
    for _ in 0..20 {
        client.subscribe(&name, 1);
    }
    let expected: Vec<String> = (0..200).map(|n: i32| n.to_string()).collect();
    assert_eq!(client.payloads(200), expected);
    client.expect_nothing();
    publisher.join().unwrap();
}

/// MQTT-3.8.4-5, MQTT-3.8.4-6, MQTT-3.8.4-7, MQTT-3.9.3-1, MQTT-3.9.3-2, SEED-PROTO-22
#[test]
fn mqtt_3_8_4_6_one_code_a_filter_in_order() {
    let broker = shared();
    let mut client = broker.client(V5);
    let names: Vec<String> = (0..5).map(|_| topic()).collect();
    let filters: Vec<(&str, u8)> =
        names.iter().zip([2, 0, 1, 0, 2]).map(|(name, qos)| (name.as_str(), qos)).collect();
    assert_eq!(client.subscribe_with(&filters, &[]), [2, 0, 1, 0, 2]);
}

/// MQTT-3.8.4-8
#[test]
fn mqtt_3_8_4_8_delivered_qos_is_the_lower_one() {
    let broker = shared();
    let mut publisher = broker.client(V5);
    for granted in 0..=2 {
        let name = topic();
        let mut client = broker.client(V5);
        client.subscribe(&name, granted);
        for published in 0..=2 {
            publisher.publish(&name, "x", published);
            assert_eq!(client.message().qos, granted.min(published));
        }
    }
}

/// MQTT-3.10.4-1
#[test]
fn mqtt_3_10_4_1_filters_are_compared_byte_by_byte() {
    let broker = shared();
    let name = topic();
    let wild = format!("{name}/+");
    let mut client = broker.client(V5);
    client.subscribe(&wild, 0);
    let others = [format!("{name}/#"), format!("{name}/a"), wild.to_uppercase()];
    for other in &others {
        assert_eq!(client.unsubscribe(&[other]), [0x11]);
    }
    client.publish(&format!("{name}/a"), "still", 0);
    client.expect_message(&format!("{name}/a"), "still");
    assert_eq!(client.unsubscribe(&[&wild]), [0]);
    client.publish(&format!("{name}/a"), "gone", 0);
    client.expect_nothing();
}

/// MQTT-3.10.4-2
#[test]
fn mqtt_3_10_4_2_nothing_new_after_unsubscribe() {
    let broker = shared();
    let name = topic();
    let (mut client, mut publisher) = (broker.client(V5), broker.client(V5));
    client.subscribe(&name, 2);
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
    let (mut client, mut publisher) = (broker.client(V5), broker.client(V5));
    client.subscribe(&name, 2);
    publisher.publish(&name, "x", 2);
    let message = client.expect_publish();
    client.unsubscribe(&[&name]);
    client.acknowledge(&message);
    client.expect_alive();
}

/// MQTT-3.10.4-4, MQTT-3.10.4-5, MQTT-3.10.4-6, MQTT-3.11.3-1, MQTT-3.11.3-2, MQTT-2.2.1-6
#[test]
fn mqtt_3_10_4_5_unsuback_has_a_code_a_filter() {
    let broker = shared();
    let (first, second) = (topic(), topic());
    let mut client = broker.client(V5);
    client.subscribe_with(&[(&first, 0), (&second, 0)], &[]);
    let all = Subscribe::new(0x4321).filter(&first, 0).filter(&topic(), 0).filter(&second, 0);
    client.send(&all.encode_unsubscribe(V5));
    assert_eq!(client.expect_unsuback(0x4321).codes, [0, 0x11, 0]);
    client.publish(&first, "x", 0);
    client.publish(&second, "x", 0);
    client.expect_nothing();
}

/// MQTT-3.12.4-1
#[test]
fn mqtt_3_12_4_1_pingreq_is_answered() {
    let broker = shared();
    broker.client(V5).expect_alive();
}

/// MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.7.3-1, SEED-PROTO-22: SUBACK 0x8F, or DISCONNECT for what is malformed.
#[test]
fn mqtt_4_7_1_1_invalid_filters_are_refused() {
    let broker = shared();
    for filter in ["", "#/a", "a/#/b", "a#", "a+", "+a", "a/+b", "a/b+/c", "##"] {
        let mut client = broker.client(V5);
        client.send(&Subscribe::new(1).filter(filter, 0).encode(V5));
        match client.packet() {
            Packet::SubAck(answer) => assert_eq!(answer.codes, [0x8F], "{filter:?}"),
            Packet::Disconnect(answer) => {
                assert!([0x81, 0x82, 0x8F].contains(&answer.reason), "{filter:?} {answer:?}");
                client.expect_closed();
            }
            other => panic!("{other:?}"),
        }
    }
}

/// MQTT-4.7.3-1
#[test]
fn mqtt_4_7_3_1_empty_topic_name_without_alias_is_an_error() {
    let broker = shared();
    error(&broker, &Publish::new("", "x").encode(V5), &[0x82]);
}

/// MQTT-4.7.2-1
#[test]
fn mqtt_4_7_2_1_wildcards_do_not_match_dollar_topics() {
    let broker = shared();
    let rest = topic().replacen("t/", "", 1);
    let name = format!("$v5/{rest}");
    let mut wild = broker.client(V5);
    wild.subscribe("#", 0);
    wild.subscribe(&format!("+/{rest}"), 0);
    let mut exact = broker.client(V5);
    exact.subscribe(&format!("$v5/{rest}"), 0);
    let mut publisher = broker.client(V5);
    publisher.publish(&name, "hidden", 0);
    exact.expect_message(&name, "hidden");
    publisher.publish(&rest, "end", 0);
    loop {
        let message = wild.message();
        assert_ne!(message.topic, name);
        if message.topic == rest {
            break;
        }
    }
}
