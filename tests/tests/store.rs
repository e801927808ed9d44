//! What users expect to find again when the broker was stopped, or killed, and started again (SEED-SESS-01, SEED-PUB-11).

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use ringmq_tests::broker::{refused, wait_until};
use ringmq_tests::client::Event;
use ringmq_tests::packet::{NO_LOCAL, RETAIN_AS_PUBLISHED, ack, disconnect_v5, find};
use ringmq_tests::{
    Broker, Client, Connect, Packet, Property, Publish, QUIET, Subscribe, V5, V311, Version, Will,
    id, topic,
};

/// How a broker ends, and what its acknowledgements wait for.
const WAYS: [(&str, bool); 3] =
    [("store.sync=always", true), ("store.sync=always", false), ("store.sync=100ms", false)];

/// Ends a broker and starts one on its data, with another number of shards.
fn again(broker: Broker, is_killed: bool, arguments: &[&str]) -> Broker {
    let folder = ended(broker, is_killed);
    Broker::start_in(&folder, arguments)
}

fn ended(broker: Broker, is_killed: bool) -> PathBuf {
    let folder = broker.folder().to_path_buf();
    if is_killed {
        broker.kill();
    } else {
        broker.stop_and_keep();
    }
    folder
}

/// A v5 CONNECT of a session that stays so long.
fn kept(name: &str, expiry_s: u32) -> Connect {
    Connect::new(V5, name).clean(false).property(Property::SessionExpiry(expiry_s))
}

/// The session that is there again.
#[track_caller]
fn back(broker: &Broker, connect: &Connect) -> Client {
    let (client, ack) = broker.connect_ack(connect);
    assert!(ack.session_present, "the session of {} is gone", connect.client_id);
    client
}

#[track_caller]
fn expect_none(broker: &Broker, connect: &Connect) -> Client {
    let (client, ack) = broker.connect_ack(connect);
    assert!(!ack.session_present, "the session of {} is there", connect.client_id);
    client
}

/// v5: MQTT-4.1.0-2; SEED-SESS-01, SEED-SESS-16: subscriptions with options and identifiers, and what was queued meanwhile.
#[test]
fn sessions_come_back_with_subscriptions_and_queues() {
    for (sync, is_killed) in WAYS {
        let broker = Broker::start(&[sync, "--shards", "2"]);
        let (name, v5, v3) = (topic(), kept("five", 300), Connect::new(V311, "three").clean(false));
        let mut five = broker.connect(&v5);
        let options = 1 | NO_LOCAL | RETAIN_AS_PUBLISHED;
        let filter = format!("{name}/+");
        assert_eq!(five.subscribe_with(&[(&filter, options)], &[Property::SubscriptionId(7)]), [1]);
        let mut three = broker.connect(&v3);
        three.subscribe(&format!("{name}/#"), 2);
        five.disconnect();
        three.disconnect();
        let mut publisher = broker.client(V5);
        publisher.publish_retained(&format!("{name}/a"), "1", 2);
        publisher.publish(&format!("{name}/b"), "2", 1);
        let large = "x".repeat(50_000);
        publisher.publish(&format!("{name}/c"), &large, 2);
        let broker = again(broker, is_killed, &[sync, "--shards", "3"]);
        let mut publisher = broker.client(V5);
        publisher.publish(&format!("{name}/d"), "4", 2);
        let mut five = back(&broker, &v5);
        let mut three = back(&broker, &v3);
        let first = five.expect_message(&format!("{name}/a"), "1");
        assert_eq!((first.qos, first.retain, first.subscription_ids()), (1, true, vec![7]));
        let rest = [("b", "2", 1), ("c", large.as_str(), 2), ("d", "4", 2)];
        for (last, payload, _) in rest {
            let message = five.expect_message(&format!("{name}/{last}"), payload);
            assert_eq!((message.qos, message.subscription_ids()), (1, vec![7]));
        }
        for (last, payload, qos) in [("a", "1", 2)].into_iter().chain(rest) {
            let message = three.expect_message(&format!("{name}/{last}"), payload);
            assert_eq!((message.qos, message.retain, message.dup), (qos, false, false));
        }
        five.publish(&format!("{name}/own"), "5", 1);
        five.expect_nothing();
        three.expect_message(&format!("{name}/own"), "5");
        assert_eq!(five.unsubscribe(&[&filter]), [0]);
        publisher.publish(&format!("{name}/e"), "6", 1);
        five.expect_nothing();
    }
}

/// SEED-SESS-09, SEED-SESS-11, SEED-SESS-16: a queue that is on disk only is listed, limited and counted as one in memory, before and
/// after a restart.
#[test]
fn queues_on_disk_are_listed_and_limited() {
    for (sync, is_killed) in WAYS {
        let arguments =
            ["--shards", "1", "store.unload_after=0ms", "mqtt.mqueue.max_length=10", sync];
        let broker = Broker::start(&arguments);
        let (name, v3) = (topic(), Connect::new(V311, "away").clean(false));
        let mut away = broker.connect(&v3);
        away.subscribe(&name, 1);
        away.disconnect();
        let mut publisher = broker.client(V5);
        let listed = |broker: &Broker, what: &str| {
            let mut row = String::new();
            wait_until(what, || {
                row = broker.cli(&["sessions", "show", "away"]);
                row.contains(what)
            });
            row
        };
        (0..7).for_each(|number| publisher.publish(&name, &number.to_string(), 1));
        listed(&broker, "mqueue_len=7");
        thread::sleep(Duration::from_millis(500));
        let broker = again(broker, is_killed, &arguments);
        listed(&broker, "mqueue_len=7");
        let mut publisher = broker.client(V5);
        // 7 + 18: twelve of them at least are above the limit by more than is let through, before the last ones.
        (7..25).for_each(|number| publisher.publish(&name, &number.to_string(), 1));
        listed(&broker, "mqueue_len=10");
        wait_until("the oldest are dropped", || {
            let row = broker.cli(&["sessions", "show", "away"]);
            let dropped = row.split("mqueue_dropped=").nth(1).expect("it is listed");
            dropped.split(',').next().unwrap().parse::<u32>().unwrap() >= 12
        });
        let mut away = back(&broker, &v3);
        (15..25).for_each(|number| drop(away.expect_message(&name, &number.to_string())));
        away.expect_nothing();
        let metrics = broker.cli(&["broker", "metrics"]);
        let dropped = metrics.lines().find(|l| l.starts_with("messages/dropped/qos1/queue_full"));
        assert_eq!(dropped.unwrap().split_whitespace().last(), Some("15"), "{dropped:?}");
        listed(&broker, "mqueue_len=0");
    }
}

/// v5: 4.8.2; SEED-SESS-16: a message of a shared group that waits on disk for a member goes to another when its session ends.
#[test]
fn what_a_group_has_on_disk_goes_to_another_member() {
    for shards in ["1", "2"] {
        let broker =
            Broker::start(&["--shards", shards, "store.unload_after=0ms", "store.sync=50ms"]);
        let name = topic();
        let filter = format!("$share/g/{name}");
        let v5 = kept("first", 300);
        let mut first = broker.connect(&v5);
        first.subscribe(&filter, 2);
        first.disconnect();
        let mut publisher = broker.client(V5);
        (0..5).for_each(|number| publisher.publish(&name, &number.to_string(), 1));
        wait_until("it is queued", || {
            broker.cli(&["sessions", "show", "first"]).contains("mqueue_len=5")
        });
        thread::sleep(Duration::from_millis(300));
        let mut second = broker.client(V5);
        second.subscribe(&filter, 1);
        // A fresh session: the one before ends.
        drop(broker.connect_ack(&Connect::new(V5, "first")));
        let mut got: Vec<String> = (0..5).map(|_| second.message().text().to_owned()).collect();
        got.sort_unstable();
        assert_eq!(got, ["0", "1", "2", "3", "4"]);
        second.expect_nothing();
    }
}

/// v5: MQTT-3.3.1-5; SEED-PUB-11
#[test]
fn retained_messages_come_back() {
    for (sync, is_killed) in WAYS {
        let broker = Broker::start(&[sync, "--shards", "1"]);
        let name = topic();
        let mut publisher = broker.client(V5);
        for number in 0..50 {
            publisher.publish_retained(&format!("{name}/{number}"), "old", 1);
        }
        publisher.publish_retained(&format!("{name}/1"), "", 1);
        publisher.publish_retained(&format!("{name}/2"), "new", 2);
        let whole = Publish::new(&format!("{name}/3"), "whole").retain();
        let whole = whole
            .property(Property::ContentType("text".into()))
            .property(Property::user("a", "b"))
            .property(Property::MessageExpiry(500));
        publisher.publish_whole(whole, 1);
        let broker = again(broker, is_killed, &[sync, "--shards", "4"]);
        let mut client = broker.client(V5);
        client.subscribe(&format!("{name}/#"), 1);
        let mut found: Vec<Publish> = (0..49).map(|_| client.message()).collect();
        client.expect_nothing();
        found.sort_by_key(|message| message.topic.clone());
        assert!(found.iter().all(|message| message.retain));
        assert!(!found.iter().any(|message| message.topic == format!("{name}/1")));
        let of = |last: &str| {
            found.iter().find(|message| message.topic == format!("{name}/{last}")).unwrap()
        };
        assert_eq!((of("2").text(), of("4").text()), ("new", "old"));
        assert_eq!(of("3").user_properties(), [("a", "b")]);
        assert!(of("3").properties.contains(&Property::ContentType("text".into())));
        let left = find(&of("3").properties, |property| match property {
            Property::MessageExpiry(left) => Some(*left),
            _ => None,
        });
        assert!((450..=500).contains(&left.unwrap()), "{left:?}");
    }
}

/// v5: MQTT-4.4.0-1: with their packet ids and DUP, in their order; and PUBREL where PUBREC had come.
#[test]
fn mqtt_4_4_0_1_messages_under_way_are_sent_again_with_their_ids() {
    for (sync, is_killed) in WAYS {
        let broker = Broker::start(&[sync, "--shards", "2"]);
        let (name, connect) = (topic(), kept(&id(), 300));
        let mut client = broker.connect(&connect);
        client.subscribe(&name, 2);
        let mut publisher = broker.client(V311);
        for (payload, qos) in [("a", 1), ("b", 2), ("c", 2), ("d", 1)] {
            publisher.publish(&name, payload, qos);
        }
        let first: Vec<Publish> = (0..4).map(|_| client.expect_publish()).collect();
        client.send(&ack(0x40, first[0].packet_id));
        client.send(&ack(0x50, first[1].packet_id));
        client.expect_pubrel(first[1].packet_id);
        if sync != "store.sync=always" {
            thread::sleep(Duration::from_millis(300));
        } else {
            // The end of the first may be on its way; a PUBREL is told only when all before it is kept.
            client.expect_alive();
        }
        let broker = again(broker, is_killed, &[sync, "--shards", "3"]);
        let mut client = back(&broker, &connect);
        let mut released = false;
        let mut seen = Vec::new();
        for _ in 0..3 {
            match client.packet() {
                Packet::PubRel(release) => {
                    assert_eq!(release.packet_id, first[1].packet_id);
                    released = true;
                }
                Packet::Publish(publish) => {
                    assert!(publish.dup);
                    seen.push((publish.packet_id, publish.text().to_owned(), publish.qos));
                }
                other => panic!("{other:?}"),
            }
        }
        client.expect_nothing();
        let wanted = first[2..].iter().map(|p| (p.packet_id, p.text().to_owned(), p.qos));
        assert_eq!(seen, wanted.collect::<Vec<_>>());
        assert!(released);
        // New ones get ids that are free.
        let mut publisher = broker.client(V5);
        publisher.publish(&name, "e", 1);
        let new = client.expect_publish();
        assert!(!seen.iter().any(|&(packet_id, ..)| packet_id == new.packet_id));
        assert_ne!(new.packet_id, first[1].packet_id);
    }
}

/// v5: MQTT-4.3.3-10: what was received with QoS 2 is not received again, however often the broker starts.
#[test]
fn mqtt_4_3_3_10_a_received_id_is_known_again() {
    for (sync, is_killed) in WAYS {
        let mut broker = Broker::start(&[sync, "--shards", "3"]);
        let name = topic();
        let (sender, receiver) = (kept(&id(), 300), kept(&id(), 300));
        broker.connect(&receiver).subscribe(&name, 2);
        let mut client = broker.connect(&sender);
        let publish = Publish::new(&name, "once").qos(2, 9);
        client.send_publish(&publish);
        client.expect_pubrec(9);
        for shards in ["2", "1"] {
            broker = again(broker, is_killed, &[sync, "--shards", shards]);
            client = back(&broker, &sender);
            client.send_publish(&publish.clone().dup());
            client.expect_pubrec(9);
        }
        client.send(&ack(0x62, 9));
        client.expect_pubcomp(9);
        let mut got = back(&broker, &receiver);
        got.expect_message(&name, "once");
        got.expect_nothing();
        // The id is free again, also behind another start.
        broker = again(broker, is_killed, &[sync, "--shards", "4"]);
        client = back(&broker, &sender);
        client.send_publish(&Publish::new(&name, "twice").qos(2, 9));
        client.expect_pubrec(9);
        back(&broker, &receiver).expect_message(&name, "twice");
    }
}

/// v5: MQTT-3.1.2-23, MQTT-3.3.2-5, SEED-PUB-13: time goes on while the broker is away.
#[test]
fn mqtt_3_3_2_5_expiry_counts_the_time_the_broker_was_away() {
    for (sync, is_killed) in WAYS {
        let broker = Broker::start(&[sync]);
        let name = topic();
        let (short, long, connected) = (kept(&id(), 2), kept(&id(), 60), kept(&id(), 2));
        for connect in [&short, &long] {
            let mut client = broker.connect(connect);
            client.subscribe(&name, 1);
            client.disconnect();
        }
        let open = broker.connect(&connected);
        let mut publisher = broker.client(V5);
        for (expiry_s, payload) in [(2, "short"), (60, "long")] {
            let message = Publish::new(&name, payload).property(Property::MessageExpiry(expiry_s));
            publisher.publish_whole(message, 1);
            let message = Publish::new(&format!("{name}/{payload}"), payload).retain();
            publisher.publish_whole(message.property(Property::MessageExpiry(expiry_s)), 1);
        }
        let folder = ended(broker, is_killed);
        drop(open);
        thread::sleep(Duration::from_millis(2500));
        let broker = Broker::start_in(&folder, &[sync]);
        expect_none(&broker, &short);
        if is_killed {
            // Its time away began when the broker came back, which saw no end of its connection.
            back(&broker, &connected);
        } else {
            expect_none(&broker, &connected);
        }
        let mut client = back(&broker, &long);
        let message = client.expect_message(&name, "long");
        let left = find(&message.properties, |property| match property {
            Property::MessageExpiry(left) => Some(*left),
            _ => None,
        });
        assert!((40..=58).contains(&left.unwrap()), "{left:?}");
        client.subscribe(&format!("{name}/#"), 1);
        client.expect_message(&format!("{name}/long"), "long");
        client.expect_nothing();
    }
}

/// v5: MQTT-3.1.2-8, MQTT-3.1.3-9: the will of a client that was connected when the broker died is published by the next one; a
/// delay runs from its start.
#[test]
fn mqtt_3_1_2_8_wills_are_published_by_the_next_broker() {
    let sync = "store.sync=always";
    let broker = Broker::start(&[sync, "--shards", "3"]);
    let (name, watcher) = (topic(), kept(&id(), 300));
    broker.connect(&watcher).subscribe(&format!("{name}/#"), 1);
    let will = |last: &str, delay_s: u32| {
        let will = Will::new(&format!("{name}/{last}"), last).qos(1);
        kept(&format!("will-{last}"), 300).will(will.property(Property::WillDelay(delay_s)))
    };
    let now = broker.connect(&will("now", 0));
    let late = broker.connect(&will("late", 2));
    let never = broker.connect(&will("never", 2));
    broker.connect(&will("left", 0)).disconnect();
    // Nobody is told that a DISCONNECT is kept.
    thread::sleep(Duration::from_millis(500));
    let broker = again(broker, true, &[sync, "--shards", "2"]);
    drop((now, late, never));
    let start = Instant::now();
    let mut client = back(&broker, &watcher);
    client.expect_message(&format!("{name}/now"), "now");
    back(&broker, &kept("will-never", 300));
    client.expect_message(&format!("{name}/late"), "late");
    let passed = start.elapsed();
    assert!(passed > Duration::from_millis(1500), "after {passed:?}");
    assert_eq!(client.event(Duration::from_secs(1)), Event::Nothing);
    // What is published is not published again.
    let broker = again(broker, true, &[sync, "--shards", "1"]);
    let mut client = back(&broker, &watcher);
    assert_eq!(client.event(Duration::from_secs(1)), Event::Nothing);
}

/// v5: MQTT-3.1.4-2, MQTT-3.1.2-4, MQTT-3.2.2-2: a session is what its client made of it last.
#[test]
fn mqtt_3_1_2_4_a_fresh_start_removes_the_stored_session() {
    for (sync, is_killed) in WAYS {
        let broker = Broker::start(&[sync, "--shards", "2"]);
        let name = topic();
        let (fresh, over, ended_0, gone) = (id(), id(), id(), id());
        for client_id in [&fresh, &over, &ended_0, &gone] {
            let mut client = broker.connect(&kept(client_id, 300));
            client.subscribe(&name, 1);
        }
        let mut publisher = broker.client(V5);
        publisher.publish(&name, "1", 1);
        // A fresh start of a session that stays; a takeover; a session that ends by DISCONNECT, or with its connection.
        broker.connect(&kept(&fresh, 300).clean(true)).disconnect();
        let mut first = broker.connect(&kept(&over, 300));
        first.expect_message(&name, "1");
        let second = broker.connect(&kept(&over, 300));
        first.expect_disconnect(0x8E);
        let mut client = broker.connect(&kept(&ended_0, 300));
        client.message();
        client.send(&disconnect_v5(0, &[Property::SessionExpiry(0)]));
        client.expect_closed();
        broker.connect(&Connect::new(V5, &gone).clean(true)).disconnect();
        if is_killed {
            // An end is not acknowledged to anybody.
            thread::sleep(Duration::from_millis(300));
        }
        let broker = again(broker, is_killed, &[sync, "--shards", "4"]);
        drop(second);
        let mut client = back(&broker, &kept(&fresh, 300));
        client.expect_nothing();
        let mut publisher = broker.client(V5);
        publisher.publish(&name, "2", 1);
        client.expect_nothing();
        let mut client = back(&broker, &kept(&over, 300));
        client.expect_message(&name, "2");
        client.expect_nothing();
        for client_id in [&ended_0, &gone] {
            let mut client = expect_none(&broker, &kept(client_id, 300));
            client.expect_nothing();
        }
    }
}

/// v5: MQTT-4.8.2-5: members of a shared group stay members, and what waits for the group is not lost.
#[test]
fn mqtt_4_8_2_5_shared_subscriptions_come_back() {
    for (sync, is_killed) in WAYS {
        let broker = Broker::start(&[sync, "--shards", "2"]);
        let (name, members) = (topic(), [kept(&id(), 300), kept(&id(), 300)]);
        for member in &members {
            broker.connect(member).subscribe(&format!("$share/g/{name}"), 2);
        }
        let mut publisher = broker.client(V5);
        (0..10).for_each(|n| publisher.publish(&name, &n.to_string(), 1 + n % 2));
        let broker = again(broker, is_killed, &[sync, "--shards", "3"]);
        let mut publisher = broker.client(V5);
        (10..20).for_each(|n| publisher.publish(&name, &n.to_string(), 1 + n % 2));
        let mut got: Vec<u32> = Vec::new();
        for member in &members {
            let mut client = back(&broker, member);
            while let Event::Packet(Packet::Publish(publish)) = client.event(QUIET * 2) {
                client.acknowledge(&publish);
                got.push(publish.text().parse().unwrap());
            }
        }
        got.sort_unstable();
        if is_killed {
            // What was on its way to the group is sent again, and another member may be the one whose turn it is.
            got.dedup();
        }
        assert_eq!(got, (0..20).collect::<Vec<_>>());
    }
}

/// SEED-SESS-10, SEED-SESS-11: a queue that is in the store only keeps to its length too; QoS 0 is queued if so set.
#[test]
fn queues_keep_to_their_limits_behind_a_restart() {
    for (sync, is_killed) in WAYS {
        let limit = "mqtt.mqueue.max_length=5";
        let broker = Broker::start(&[sync, limit]);
        let (name, connect) = (topic(), kept(&id(), 300));
        broker.connect(&connect).subscribe(&name, 1);
        let mut publisher = broker.client(V311);
        (0..3).for_each(|n| publisher.publish(&name, &n.to_string(), 1));
        let broker = again(broker, is_killed, &[sync, limit]);
        let mut publisher = broker.client(V311);
        (3..9).for_each(|n| publisher.publish(&name, &n.to_string(), 1));
        publisher.publish(&name, "qos 0", 0);
        publisher.publish(&name, "9", 1);
        let broker = again(broker, is_killed, &[sync, limit]);
        let mut client = back(&broker, &connect);
        // The message of QoS 0 is the first to go.
        assert_eq!(client.payloads(5), ["5", "6", "7", "8", "9"]);
        client.expect_nothing();
    }
}

/// SEED-SESS-09
#[test]
fn qos0_of_a_session_that_is_away_is_kept_if_so_set() {
    for (setting, wanted) in [("on", vec!["zero", "one"]), ("off", vec!["one"])] {
        let store_qos0 = format!("mqtt.mqueue.store_qos0={setting}");
        let broker = Broker::start(&[&store_qos0]);
        let (name, connect) = (topic(), kept(&id(), 300));
        broker.connect(&connect).subscribe(&name, 1);
        let mut publisher = broker.client(V311);
        publisher.publish(&name, "zero", 0);
        publisher.publish(&name, "one", 1);
        let broker = again(broker, false, &[&store_qos0]);
        let mut publisher = broker.client(V311);
        publisher.publish(&name, "zero", 0);
        publisher.publish(&name, "one", 1);
        let mut client = back(&broker, &connect);
        assert_eq!(client.payloads(wanted.len() * 2), [wanted.clone(), wanted].concat());
        client.expect_nothing();
    }
}

#[test]
fn a_broker_without_a_store_keeps_nothing_and_writes_nothing() {
    let broker = Broker::start(&["store.enable=off"]);
    let (name, connect) = (topic(), kept(&id(), 300));
    broker.connect(&connect).subscribe(&name, 1);
    let mut publisher = broker.client(V311);
    publisher.publish_retained(&name, "x", 1);
    assert!(!broker.folder().join("store").exists());
    let broker = again(broker, false, &["store.enable=off"]);
    let mut client = expect_none(&broker, &connect);
    client.subscribe(&name, 1);
    client.expect_nothing();
}

/// SEED-CLI-48: what a command has removed stays removed, also if the broker is killed right after its answer.
#[test]
fn what_commands_remove_does_not_come_back() {
    let arguments = ["store.sync=60s", "--shards", "2"];
    let broker = Broker::start(&arguments);
    let name = topic();
    let mut publisher = broker.client(V5);
    for number in 0..10 {
        publisher.publish_retained(&format!("{name}/{number}"), "x", 1);
        publisher.publish(&format!("$delayed/3600/{name}/{number}"), "x", 1);
    }
    let broker = again(broker, false, &arguments);
    let listed = broker.cli(&["delayed", "list", "--json"]);
    assert_eq!(listed.lines().count(), 10, "{listed}");
    for line in listed.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let _ = broker.cli(&["delayed", "delete", row["id"].as_str().unwrap()]);
    }
    let _ = broker.cli(&["retainer", "clean", &format!("{name}/#")]);
    let broker = again(broker, true, &arguments);
    assert_eq!(broker.cli(&["delayed", "list"]), "");
    let mut client = broker.client(V5);
    client.subscribe(&format!("{name}/#"), 0);
    client.expect_nothing();
}

/// SEED-CLI-48: a backup that is taken while messages come is one moment of the store: what was acknowledged before is in it, and
/// nothing behind a gap. Its folder is not the store's.
#[test]
fn a_backup_under_load_is_one_moment() {
    for sync in ["store.sync=always", "store.sync=1h"] {
        backup_under_load(sync);
    }
}

fn backup_under_load(sync: &str) {
    let broker = Broker::start(&[sync, "mqtt.mqueue.max_length=0"]);
    let (name, connect) = (topic(), kept(&id(), 300));
    broker.connect(&connect).subscribe(&name, 1);
    let mut publisher = broker.client(V5);
    (0..100).for_each(|n| publisher.publish(&name, &n.to_string(), 1));
    let saved = ringmq_tests::broker::new_folder().join("saved");
    let folder = broker.folder().join("store");
    for place in [folder.join("saved"), folder, broker.folder().to_path_buf()] {
        let output = broker.command(&["store", "backup", place.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains("name another folder"), "{text}");
    }
    thread::scope(|scope| {
        let backup = scope.spawn(|| broker.cli(&["store", "backup", saved.to_str().unwrap()]));
        let mut number = 100;
        while !backup.is_finished() || number < 300 {
            publisher.publish(&name, &number.to_string(), 1);
            number += 1;
        }
    });
    let _ = broker.cli(&["store", "restore", saved.to_str().unwrap()]);
    let broker = again(broker, true, &[sync, "mqtt.mqueue.max_length=0"]);
    let mut client = back(&broker, &connect);
    for number in 0..100 {
        assert_eq!(client.message().text(), number.to_string());
    }
    let mut next = 100;
    while let Event::Packet(Packet::Publish(publish)) = client.event(QUIET * 2) {
        client.acknowledge(&publish);
        assert_eq!(publish.text(), next.to_string());
        next += 1;
    }
    let _ = std::fs::remove_dir_all(saved.parent().unwrap());
}

#[test]
fn a_second_broker_on_a_data_folder_is_refused() {
    let broker = Broker::start(&[]);
    let (code, output) = refused(broker.folder(), &[]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("already runs on the data folder"), "{output}");
    assert_eq!(output.trim().lines().count(), 1, "{output}");
    broker.client(V5).expect_alive();
}

/// A store that a newer build wrote is refused and left alone.
#[test]
fn a_store_of_a_newer_format_is_refused() {
    use store::codec::{keys, values};
    use store::engine::{Change, Engine, FjallEngine};
    let broker = Broker::start(&[]);
    let folder = ended(broker, false);
    let mut engine = FjallEngine::open_folder(&folder.join("store")).unwrap();
    let key = keys::Key::from_slice(keys::meta::FORMAT);
    let value = Some(values::number(&key, 999));
    engine.write(vec![Change { keyspace: store::Keyspace::Meta, key, value }]).unwrap();
    engine.sync().unwrap();
    drop(engine);
    let (code, output) = refused(&folder, &[]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("format 999") && output.contains("newer"), "{output}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A session keeps what it owes to many subscribers of all versions, whatever the version.
#[test]
fn a_message_for_many_sessions_comes_back_for_each() {
    let (sync, many) = ("store.sync=always", 40);
    let broker = Broker::start(&[sync, "--shards", "2"]);
    let name = topic();
    let connect = |n: usize| Connect::new(Version::ALL[n % 3], &format!("many-{n}")).persistent();
    for n in 0..many {
        let mut client = broker.connect(&connect(n));
        let subscribe = Subscribe::new(1).filter(&name, 2);
        client.send(&subscribe.encode(client.version()));
        client.expect_suback(1);
    }
    let mut publisher = broker.client(V311);
    publisher.publish(&name, "one for all", 2);
    let broker = again(broker, true, &[sync, "--shards", "3"]);
    for n in 0..many / 2 {
        back_of(&broker, &connect(n)).expect_message(&name, "one for all");
    }
    let broker = again(broker, true, &[sync, "--shards", "1"]);
    for n in 0..many {
        let mut client = back_of(&broker, &connect(n));
        if n >= many / 2 {
            client.expect_message(&name, "one for all");
        }
    }
}

/// MQTT 3.1 has no session present flag.
fn back_of(broker: &Broker, connect: &Connect) -> Client {
    let (client, ack) = broker.connect_ack(connect);
    assert!(ack.session_present || connect.version == Version::V31);
    client
}
