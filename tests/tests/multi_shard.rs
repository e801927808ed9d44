//! What must hold whatever the number of shards, and whatever shard a client's home is: the important behaviours with 1, 2 and 8 shards.
//! Client ids are many, so that with 8 shards every shard is home to some.

use std::collections::HashMap;
use std::thread;

use ringmq_tests::client::Event;
use ringmq_tests::{
    Broker, Client, Connect, Packet, Property, Publish, QUIET, V5, V311, Will, id, topic,
};

const CLIENTS: usize = 24;

fn on_each(check: impl Fn(&Broker)) {
    for shards in ["1", "2", "8"] {
        check(&Broker::start(&["--shards", shards, "mqtt.mqueue.max_length=100000"]));
    }
}

fn clients(broker: &Broker) -> Vec<Client> {
    (0..CLIENTS).map(|n| broker.client(if n % 2 == 0 { V5 } else { V311 })).collect()
}

/// SEED-PUB-03: everybody hears everybody, once, at every QoS; who publishes after a SUBACK is heard.
#[test]
fn seed_pub_03_everybody_hears_everybody() {
    on_each(|broker| {
        let mut all = clients(broker);
        let prefix = topic();
        for (index, client) in all.iter_mut().enumerate() {
            let filter = if index % 3 == 0 { format!("{prefix}/#") } else { format!("{prefix}/x") };
            client.subscribe(&filter, 2);
        }
        for publisher in 0..CLIENTS {
            let (name, qos) = (format!("{prefix}/x"), u8::try_from(publisher % 3).unwrap());
            all[publisher].publish(&name, &publisher.to_string(), qos);
            for client in &mut all {
                let message = client.expect_message(&name, &publisher.to_string());
                assert_eq!(message.qos, qos);
            }
        }
        for client in &mut all {
            client.expect_alive();
        }
    });
}

/// SEED-PUB-19: a subscription works on every shard from its SUBACK on, and not any more from its UNSUBACK on.
#[test]
fn seed_pub_19_suback_and_unsuback_hold_on_every_shard() {
    on_each(|broker| {
        let mut publishers = clients(broker);
        for round in 0..4 {
            let mut subscriber = broker.client(V5);
            let name = topic();
            let filter = if round % 2 == 0 { name.clone() } else { format!("{name}/#") };
            subscriber.subscribe(&filter, 1);
            for (index, publisher) in publishers.iter_mut().enumerate() {
                publisher.publish(&name, &index.to_string(), 1);
                subscriber.expect_message(&name, &index.to_string());
            }
            subscriber.unsubscribe(&[&filter]);
            for publisher in &mut publishers {
                publisher.publish(&name, "after", 1);
            }
            subscriber.expect_nothing();
        }
    });
}

/// SEED-PROTO-13: the order of each publisher holds across shards.
#[test]
fn seed_proto_13_order_of_each_publisher() {
    on_each(|broker| {
        let name = topic();
        let mut subscriber = broker.client(V5);
        subscriber.subscribe(&name, 1);
        let threads: Vec<_> = (0..6)
            .map(|publisher| {
                let (mut client, name) = (broker.client(V311), name.clone());
                thread::spawn(move || {
                    for number in 0..100 {
                        client.publish(&name, &format!("{publisher} {number}"), 1);
                    }
                })
            })
            .collect();
        let mut next = HashMap::new();
        for _ in 0..600 {
            let message = subscriber.message();
            let (publisher, number) = message.text().split_once(' ').unwrap();
            let expected = next.entry(publisher.to_owned()).or_insert(0);
            assert_eq!(number.parse::<i32>().unwrap(), *expected, "publisher {publisher}");
            *expected += 1;
        }
        subscriber.expect_nothing();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// SEED-SESS-01, SEED-PROTO-16: sessions and takeover, whichever shard accepts the connection.
#[test]
fn seed_sess_01_sessions_and_takeover() {
    on_each(|broker| {
        let connects: Vec<Connect> =
            (0..CLIENTS).map(|_| Connect::new(V5, &id()).persistent()).collect();
        let name = topic();
        for connect in &connects {
            let mut client = broker.connect(connect);
            client.subscribe(&name, 1);
            client.disconnect();
        }
        broker.client(V311).publish(&name, "kept", 1);
        for connect in &connects {
            let (mut first, answer) = broker.connect_ack(connect);
            assert!(answer.session_present);
            first.expect_message(&name, "kept");
            let (mut second, answer) = broker.connect_ack(connect);
            assert!(answer.session_present);
            first.expect_disconnect(0x8E);
            second.expect_alive();
        }
    });
}

/// SEED-PROTO-16: many connections with one id at the same time: one is left.
#[test]
fn seed_proto_16_takeover_storm_leaves_one() {
    on_each(|broker| {
        let connect = Connect::new(V5, &id()).persistent();
        let address = broker.address();
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let bytes = connect.encode();
                thread::spawn(move || {
                    let mut client = Client::open(address, V5);
                    client.send(&bytes);
                    client
                })
            })
            .collect();
        let mut alive = 0;
        for thread in threads {
            let mut client = thread.join().unwrap();
            assert_eq!(client.expect_connack().code, 0);
            match client.event(QUIET) {
                Event::Nothing => alive += 1,
                Event::Packet(Packet::Disconnect(answer)) => assert_eq!(answer.reason, 0x8E),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(alive, 1);
    });
}

/// SEED-PUB-12: retained messages, partitioned by topic, reach exact and wildcard subscriptions on every shard.
#[test]
fn seed_pub_12_retained_on_every_shard() {
    on_each(|broker| {
        let prefix = topic();
        let mut publisher = broker.client(V5);
        for number in 0..20 {
            publisher.publish_retained(&format!("{prefix}/{number}"), &number.to_string(), 1);
        }
        for client in &mut clients(broker) {
            client.subscribe(&format!("{prefix}/#"), 1);
            let mut seen: Vec<usize> =
                client.payloads(20).iter().map(|text| text.parse().unwrap()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..20).collect::<Vec<_>>());
            client.subscribe(&format!("{prefix}/7"), 1);
            client.expect_message(&format!("{prefix}/7"), "7");
        }
    });
}

/// SEED-PROTO-26: a shared group over members on several shards: each message once, every member has a share.
#[test]
fn seed_proto_26_shared_group_over_shards() {
    on_each(|broker| {
        let name = topic();
        let mut members: Vec<Client> = (0..8).map(|_| broker.client(V5)).collect();
        for member in &mut members {
            member.subscribe(&format!("$share/g/{name}"), 1);
        }
        let mut publishers = clients(broker);
        for (index, publisher) in publishers.iter_mut().enumerate() {
            for number in 0..10 {
                publisher.publish(&name, &(index * 10 + number).to_string(), 1);
            }
        }
        let mut seen = Vec::new();
        for member in &mut members {
            let before = seen.len();
            while let Event::Packet(Packet::Publish(publish)) = member.event(QUIET) {
                member.acknowledge(&publish);
                seen.push(publish.text().parse::<usize>().unwrap());
            }
            assert!(seen.len() > before, "a member has no share");
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..CLIENTS * 10).collect::<Vec<_>>());
    });
}

/// SEED-PUB-14: wills reach subscribers on every shard.
#[test]
fn seed_pub_14_wills() {
    on_each(|broker| {
        let name = topic();
        let mut watchers = clients(broker);
        for watcher in &mut watchers {
            watcher.subscribe(&name, 1);
        }
        for _ in 0..4 {
            let will = Will::new(&name, "gone").qos(1).property(Property::WillDelay(0));
            broker.connect(&Connect::new(V5, &id()).will(will)).cut();
            for watcher in &mut watchers {
                watcher.expect_message(&name, "gone");
            }
        }
    });
}

/// SEED-PROTO-12: overlapping subscriptions: one copy with all identifiers, wherever the publisher is.
#[test]
fn seed_proto_12_one_copy_for_overlapping_subscriptions() {
    on_each(|broker| {
        let prefix = topic();
        let mut subscriber = broker.client(V5);
        for (end, number) in [("x", 1), ("+", 2), ("#", 3)] {
            let filter = format!("{prefix}/{end}");
            subscriber.subscribe_with(&[(&filter, 1)], &[Property::SubscriptionId(number)]);
        }
        for publisher in &mut clients(broker) {
            publisher.publish(&format!("{prefix}/x"), "x", 1);
            let message = subscriber.expect_message(&format!("{prefix}/x"), "x");
            assert_eq!(message.subscription_ids(), [1, 2, 3]);
        }
        subscriber.expect_nothing();
    });
}

/// A flood from every shard to every shard loses no QoS 1 message and does not lock up.
#[test]
fn flood_between_all_shards_loses_nothing() {
    on_each(|broker| {
        let prefix = topic();
        let count = 400;
        let threads: Vec<_> = (0..8)
            .map(|index| {
                let mut client = broker.client(V311);
                let filter = format!("{prefix}/+");
                client.subscribe(&filter, 1);
                (client, format!("{prefix}/{index}"))
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(mut client, name)| {
                thread::spawn(move || {
                    // A window of own messages, so that both directions are full.
                    let (mut sent, mut acked, mut received) = (0_u16, 0_u16, 0);
                    while acked < count || received < usize::from(count) * 8 {
                        while sent < count && sent < acked + 50 {
                            sent += 1;
                            client.send_publish(&Publish::new(&name, "x").qos(1, sent));
                        }
                        match client.packet() {
                            Packet::PubAck(_) => acked += 1,
                            Packet::Publish(publish) => {
                                received += 1;
                                client.acknowledge(&publish);
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// More shards than CPUs, and the most there may be.
#[test]
fn many_shards_work_on_few_cpus() {
    for shards in ["64", "256"] {
        let broker = Broker::start(&["--shards", shards]);
        let name = topic();
        let mut all = clients(&broker);
        for client in &mut all {
            client.subscribe(&name, 1);
        }
        all[3].publish(&name, "x", 1);
        for client in &mut all {
            client.expect_message(&name, "x");
        }
    }
}
