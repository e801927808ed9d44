//! MQTT 5, chapter 3.3.2.3.4: topic aliases in both directions (SEED-PROTO-28).

use std::collections::HashMap;

use ringmq_tests::packet::find;
use ringmq_tests::{Broker, Client, Connect, Property, Publish, V5, id, shared, topic};

fn alias(number: u16) -> Property {
    Property::TopicAlias(number)
}

/// A client with its own alias maximum, and the server's.
fn client(broker: &Broker, maximum: u16) -> (Client, u16) {
    let property = Property::TopicAliasMaximum(maximum);
    let (client, answer) = broker.connect_ack(&Connect::new(V5, &id()).property(property));
    let server = find(&answer.properties, |property| match property {
        Property::TopicAliasMaximum(value) => Some(*value),
        _ => None,
    });
    (client, server.unwrap_or(0))
}

/// Reads a message and resolves its alias as a client does; gives topic, payload and whether the name was sent.
fn resolve(client: &mut Client, known: &mut HashMap<u16, String>, maximum: u16) -> (String, bool) {
    let message = client.message();
    let named = !message.topic.is_empty();
    let Some(number) = message.topic_alias() else {
        assert!(named);
        return (message.topic, named);
    };
    assert!((1..=maximum).contains(&number), "alias {number} is above {maximum}");
    if named {
        known.insert(number, message.topic.clone());
    }
    (known.get(&number).expect("an alias that was defined").clone(), named)
}

/// MQTT-3.3.2-12
#[test]
fn mqtt_3_3_2_12_every_alias_up_to_the_maximum_is_accepted() {
    let broker = shared();
    let prefix = topic();
    let (mut subscriber, _) = client(&broker, 0);
    subscriber.subscribe(&format!("{prefix}/#"), 1);
    let (mut publisher, maximum) = client(&broker, 0);
    assert!(maximum > 0, "the server accepts aliases by default");
    for number in [1, maximum / 2 + 1, maximum] {
        let name = format!("{prefix}/{number}");
        publisher.publish_whole(Publish::new(&name, "named").property(alias(number)), 1);
        publisher.publish_whole(Publish::new("", "by alias").property(alias(number)), 1);
        publisher.publish_whole(Publish::new("", "again").property(alias(number)), 0);
        for text in ["named", "by alias", "again"] {
            let message = subscriber.expect_message(&name, text);
            assert_eq!(message.topic_alias(), None);
        }
    }
}

/// MQTT-3.3.2-12: an alias can be given to another topic.
#[test]
fn mqtt_3_3_2_12_alias_can_be_redefined() {
    let broker = shared();
    let prefix = topic();
    let (mut subscriber, _) = client(&broker, 0);
    subscriber.subscribe(&format!("{prefix}/#"), 0);
    let (mut publisher, _) = client(&broker, 0);
    for end in ["a", "b", "a"] {
        let name = format!("{prefix}/{end}");
        publisher.publish_whole(Publish::new(&name, "1").property(alias(1)), 0);
        publisher.publish_whole(Publish::new("", "2").property(alias(1)), 0);
        subscriber.expect_message(&name, "1");
        subscriber.expect_message(&name, "2");
    }
}

/// MQTT-3.3.2-8
#[test]
fn mqtt_3_3_2_8_alias_zero_gets_0x94() {
    let broker = shared();
    let mut client = broker.client(V5);
    client.send_publish(&Publish::new(&topic(), "x").property(alias(0)));
    client.expect_disconnect(0x94);
}

/// MQTT-3.3.2-9
#[test]
fn mqtt_3_3_2_9_alias_above_the_maximum_gets_0x94() {
    let broker = shared();
    let (mut client, maximum) = client(&broker, 0);
    client.send_publish(&Publish::new(&topic(), "x").property(alias(maximum + 1)));
    client.expect_disconnect(0x94);
}

/// MQTT-3.3.2-9: and with aliases turned off.
#[test]
fn mqtt_3_3_2_9_alias_where_none_is_allowed_gets_0x94() {
    let broker = Broker::start(&["mqtt.max_topic_alias=0"]);
    let (mut client, maximum) = client(&broker, 0);
    assert_eq!(maximum, 0);
    client.send_publish(&Publish::new("a", "x").property(alias(1)));
    client.expect_disconnect(0x94);
}

/// MQTT-4.13.1-1: an alias nobody defined, and a topic name that is empty without one.
#[test]
fn mqtt_4_13_1_1_unknown_alias_is_a_protocol_error() {
    let broker = shared();
    let mut client = broker.client(V5);
    client.send_publish(&Publish::new("", "x").property(alias(1)));
    client.expect_disconnect(0x82);
    let mut client = broker.client(V5);
    client.send_publish(&Publish::new("", "x"));
    client.expect_disconnect(0x82);
}

/// MQTT-3.3.2-7
#[test]
fn mqtt_3_3_2_7_aliases_end_with_the_connection() {
    let broker = shared();
    let connect = Connect::new(V5, &id()).persistent();
    let mut client = broker.connect(&connect);
    client.publish_whole(Publish::new(&topic(), "x").property(alias(1)), 1);
    client.disconnect();
    let mut client = broker.connect(&connect);
    client.send_publish(&Publish::new("", "x").property(alias(1)));
    client.expect_disconnect(0x82);
}

/// MQTT-3.1.2-27
#[test]
fn mqtt_3_1_2_27_no_alias_to_a_client_that_allows_none() {
    let broker = shared();
    let name = topic();
    let mut absent = broker.client(V5);
    let (mut zero, _) = client(&broker, 0);
    absent.subscribe(&name, 1);
    zero.subscribe(&name, 1);
    let mut publisher = broker.client(V5);
    for _ in 0..5 {
        publisher.publish(&name, "x", 1);
        for client in [&mut absent, &mut zero] {
            assert_eq!(client.expect_message(&name, "x").topic_alias(), None);
        }
    }
}

/// MQTT-3.1.2-26, MQTT-3.3.2-11: the server uses aliases, from the first message of a topic on.
#[test]
fn mqtt_3_1_2_26_server_uses_aliases_up_to_the_maximum() {
    let broker = shared();
    let prefix = topic();
    let (mut subscriber, _) = client(&broker, 3);
    subscriber.subscribe(&format!("{prefix}/#"), 1);
    let mut publisher = broker.client(V5);
    let mut known = HashMap::new();
    // Twice as many topics as aliases.
    for round in 0..3 {
        for end in 0..6 {
            let name = format!("{prefix}/{end}");
            publisher.publish(&name, "x", 1);
            let (seen, named) = resolve(&mut subscriber, &mut known, 3);
            assert_eq!(seen, name, "round {round}");
            assert!(named || round > 0, "the first message of a topic has its name");
        }
    }
    // One topic again and again comes without its name.
    let name = format!("{prefix}/{}", "z".repeat(20));
    let (mut fresh, _) = client(&broker, 3);
    fresh.subscribe(&name, 1);
    publisher.publish(&name, "1", 1);
    let first = fresh.message();
    assert_eq!((first.topic.as_str(), first.topic_alias().is_some()), (name.as_str(), true));
    publisher.publish(&name, "2", 1);
    let second = fresh.message();
    assert_eq!((second.topic.as_str(), second.topic_alias()), ("", first.topic_alias()));
}

/// MQTT-3.3.2-7: the server defines its aliases anew on a new connection.
#[test]
fn mqtt_3_3_2_7_server_aliases_end_with_the_connection() {
    let broker = shared();
    let name = topic();
    let connect = Connect::new(V5, &id()).persistent().property(Property::TopicAliasMaximum(5));
    let mut subscriber = broker.connect(&connect);
    subscriber.subscribe(&name, 1);
    let mut publisher = broker.client(V5);
    publisher.publish(&name, "1", 1);
    subscriber.expect_message(&name, "1");
    publisher.publish(&name, "2", 1);
    let second = subscriber.expect_publish(); // by alias, not acknowledged
    subscriber.cut_and_wait();
    let mut subscriber = broker.connect(&connect);
    let again = subscriber.message();
    assert_eq!((again.topic, again.payload, again.dup), (name, second.payload, true));
}
