//! Shared subscriptions: MQTT 5 chapter 4.8.2, `$queue/`, `$local/` (SEED-PROTO-26, SEED-PUB-05, SEED-PUB-06).

use ringmq_tests::client::Event;
use ringmq_tests::packet::{RETAIN_IF_NEW, ack, ack_v5};
use ringmq_tests::{
    Broker, Client, Connect, Packet, Property, Publish, QUIET, Subscribe, V5, V311, id, shared,
    topic,
};

/// What has come to a client, acknowledged.
fn drain(client: &mut Client) -> Vec<Publish> {
    let mut seen = Vec::new();
    while let Event::Packet(packet) = client.event(QUIET) {
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        client.acknowledge(&publish);
        seen.push(publish);
    }
    seen
}

/// Members of one group.
fn group(broker: &Broker, filter: &str, count: usize, qos: u8) -> Vec<Client> {
    let members = (0..count).map(|_| {
        let mut client = broker.client(V5);
        client.subscribe(filter, qos);
        client
    });
    members.collect()
}

/// SEED-PROTO-26, SEED-PUB-06: each message to one member, and every member has its share.
#[test]
fn seed_proto_26_each_message_goes_to_one_member() {
    let broker = shared();
    let name = topic();
    let mut members = group(&broker, &format!("$share/g/{name}"), 3, 1);
    let mut plain = broker.client(V5);
    plain.subscribe(&name, 0);
    let mut publisher = broker.client(V5);
    for number in 0..30 {
        publisher.publish(&name, &number.to_string(), 1);
    }
    let shares: Vec<Vec<Publish>> = members.iter_mut().map(drain).collect();
    let mut all: Vec<usize> =
        shares.iter().flatten().map(|publish| publish.text().parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<_>>());
    for share in &shares {
        assert!(share.len() >= 5, "round robin is even: {:?}", shares.iter().map(Vec::len));
    }
    assert_eq!(drain(&mut plain).len(), 30, "a plain subscription gets them all");
}

/// SEED-PUB-06: `$queue/` is one group of its own, also for 3.1.1.
#[test]
fn seed_pub_06_queue_is_one_group() {
    let broker = shared();
    let name = topic();
    let mut members: Vec<Client> = [V5, V311, V311].map(|version| broker.client(version)).into();
    for member in &mut members {
        member.subscribe(&format!("$queue/{name}"), 1);
    }
    let mut publisher = broker.client(V311);
    for number in 0..12 {
        publisher.publish(&name, &number.to_string(), 1);
    }
    assert_eq!(members.iter_mut().map(|member| drain(member).len()).sum::<usize>(), 12);
}

/// SEED-PUB-06: two groups each get every message, with wildcards too.
#[test]
fn seed_pub_06_groups_are_independent() {
    let broker = shared();
    let prefix = topic();
    let mut first = group(&broker, &format!("$share/first/{prefix}/+"), 2, 0);
    let mut second = group(&broker, &format!("$share/second/{prefix}/#"), 2, 0);
    let mut other = group(&broker, &format!("$share/first/{prefix}/other"), 1, 0);
    let mut publisher = broker.client(V5);
    for number in 0..8 {
        publisher.publish(&format!("{prefix}/{number}"), "x", 0);
    }
    assert_eq!(first.iter_mut().map(|member| drain(member).len()).sum::<usize>(), 8);
    assert_eq!(second.iter_mut().map(|member| drain(member).len()).sum::<usize>(), 8);
    assert_eq!(drain(&mut other[0]).len(), 0);
}

/// MQTT-4.8.2-1, MQTT-4.8.2-2: filters that are none are refused.
#[test]
fn mqtt_4_8_2_1_share_names_are_checked() {
    let broker = shared();
    for filter in [
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/g+/a",
        "$share/#/a",
        "$share/g#/a",
    ] {
        let mut client = broker.client(V5);
        client.send(&Subscribe::new(1).filter(filter, 0).encode(V5));
        match client.packet() {
            Packet::SubAck(answer) => assert_eq!(answer.codes, [0x8F], "{filter}"),
            Packet::Disconnect(answer) => {
                assert!([0x81, 0x82, 0x8F].contains(&answer.reason), "{filter} {answer:?}");
                client.expect_closed();
            }
            other => panic!("{filter}: {other:?}"),
        }
    }
    // A filter behind the share name may begin with a slash or be a wildcard.
    let name = format!("/{}", topic());
    let mut client = broker.client(V5);
    client.subscribe(&format!("$share/g/{name}"), 0);
    client.publish(&name, "x", 0);
    client.expect_message(&name, "x");
}

/// MQTT-4.8.2-3
#[test]
fn mqtt_4_8_2_3_granted_qos_is_respected() {
    let broker = shared();
    let name = topic();
    let mut members: Vec<Client> = (0..3)
        .map(|qos| {
            let mut client = broker.client(V5);
            client.subscribe(&format!("$share/g/{name}"), qos);
            client
        })
        .collect();
    let mut publisher = broker.client(V5);
    for _ in 0..12 {
        publisher.publish(&name, "x", 2);
    }
    for (member, qos) in members.iter_mut().zip(0..) {
        let share = drain(member);
        assert!(!share.is_empty());
        assert!(share.iter().all(|publish| publish.qos == qos), "QoS {qos}");
    }
}

/// MQTT-4.8.2-4: a QoS 2 delivery that began is completed to the same client; no other gets it meanwhile.
#[test]
fn mqtt_4_8_2_4_qos_2_delivery_is_completed_to_the_same_client() {
    let broker = shared();
    let name = topic();
    let filter = format!("$share/g/{name}");
    let connect = Connect::new(V5, &id()).persistent();
    let mut chosen = broker.connect(&connect);
    chosen.subscribe(&filter, 2);
    broker.client(V5).publish(&name, "x", 2);
    let message = chosen.expect_publish();
    let mut other = broker.client(V5);
    other.subscribe(&filter, 2);
    chosen.cut_and_wait();
    other.expect_nothing();
    let mut chosen = broker.connect(&connect);
    let again = chosen.expect_publish();
    assert_eq!(again, message.dup());
    chosen.acknowledge(&again);
    other.expect_nothing();
}

/// MQTT-4.8.2-5: if its session ends first, nobody gets it.
#[test]
fn mqtt_4_8_2_5_qos_2_message_of_an_ended_session_goes_to_nobody() {
    let broker = shared();
    let name = topic();
    let filter = format!("$share/g/{name}");
    let mut chosen = broker.client(V5);
    chosen.subscribe(&filter, 2);
    broker.client(V5).publish(&name, "x", 2);
    let message = chosen.expect_publish();
    chosen.send(&ack(0x50, message.packet_id));
    chosen.expect_pubrel(message.packet_id);
    let mut other = broker.client(V5);
    other.subscribe(&filter, 2);
    chosen.cut_and_wait();
    other.expect_nothing();
}

/// MQTT-4.8.2-6
#[test]
fn mqtt_4_8_2_6_negative_acknowledgement_drops_the_message() {
    let broker = shared();
    let name = topic();
    let filter = format!("$share/g/{name}");
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let mut chosen = broker.client(V5);
        chosen.subscribe(&filter, 2);
        broker.client(V5).publish(&name, "x", qos);
        let message = chosen.expect_publish();
        let mut other = broker.client(V5);
        other.subscribe(&filter, 2);
        chosen.send(&ack_v5(first, message.packet_id, 0x80, &[]));
        chosen.expect_alive();
        other.expect_nothing();
    }
}

/// SEED-PUB-06: a member that is gone gets nothing; a member that is away is passed over while others are there. Several groups, so that
/// the members of some are on different shards.
#[test]
fn seed_pub_06_absent_members_are_passed_over() {
    let broker = shared();
    let prefix = topic();
    let mut here = broker.client(V5);
    let mut left = broker.client(V5);
    let mut publisher = broker.client(V5);
    for group in 0..8 {
        let name = format!("{prefix}/{group}");
        let filter = format!("$share/g{group}/{name}");
        let mut away = broker.connect(&Connect::new(V5, &id()).persistent());
        away.subscribe(&filter, 1);
        let mut gone = broker.client(V5);
        gone.subscribe(&filter, 1);
        left.subscribe(&filter, 1);
        here.subscribe(&filter, 1);
        away.disconnect();
        gone.disconnect();
        left.unsubscribe(&[&filter]);
        for number in 0..10 {
            publisher.publish(&name, &number.to_string(), 1);
        }
        assert_eq!(drain(&mut here).len(), 10, "group {group}");
        left.expect_nothing();
    }
}

/// SEED-PUB-06: members that are all away have their turns too. Several groups, so that those of some are on different shards.
#[test]
fn seed_pub_06_absent_members_have_their_turns() {
    let broker = shared();
    let prefix = topic();
    let mut publisher = broker.client(V5);
    for group in 0..8 {
        let name = format!("{prefix}/{group}");
        let connects: Vec<_> = (0..3).map(|_| Connect::new(V5, &id()).persistent()).collect();
        for connect in &connects {
            let mut member = broker.connect(connect);
            member.subscribe(&format!("$share/g{group}/{name}"), 1);
            member.disconnect();
        }
        for number in 0..30 {
            publisher.publish(&name, &number.to_string(), 1);
        }
        let shares: Vec<usize> = connects
            .iter()
            .map(|connect| drain(&mut broker.connect_ack(connect).0).len())
            .collect();
        let is_even = shares.iter().all(|&share| share >= 5);
        assert!(is_even && shares.iter().sum::<usize>() == 30, "group {group}: {shares:?}");
    }
}

/// SEED-PUB-06: retained messages are not sent to shared subscriptions; subscription identifiers are.
#[test]
fn seed_pub_06_no_retained_messages_to_a_group() {
    let broker = shared();
    let name = topic();
    let mut client = broker.client(V5);
    client.publish_retained(&name, "kept", 1);
    let filter = format!("$share/g/{name}");
    client.subscribe_with(&[(&filter, 1)], &[Property::SubscriptionId(9)]);
    client.subscribe_with(&[(&filter, 1 | RETAIN_IF_NEW)], &[Property::SubscriptionId(9)]);
    client.expect_nothing();
    client.publish(&name, "x", 1);
    assert_eq!(client.expect_message(&name, "x").subscription_ids(), [9]);
    client.publish_retained(&name, "", 1);
}

/// SEED-PUB-05: `$local/` is heard by local publishes under the plain topic name.
#[test]
fn seed_pub_05_local_subscription() {
    let broker = shared();
    let name = topic();
    for version in [V311, V5] {
        let mut client = broker.client(version);
        client.subscribe(&format!("$local/{name}/+"), 1);
        client.publish(&format!("{name}/a"), "x", 1);
        client.expect_message(&format!("{name}/a"), "x");
        client.unsubscribe(&[&format!("$local/{name}/+")]);
        client.publish(&format!("{name}/a"), "y", 1);
        client.expect_nothing();
    }
}
