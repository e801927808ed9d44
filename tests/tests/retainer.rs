//! `ringmq retainer` (SEED-CLI-58), and what a client is told of retained messages that are not kept (SEED-PUB-09).

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use ringmq_tests::broker::{new_folder, refused, wait_until};
use ringmq_tests::{Broker, Client, Property, Publish, V5, V311};

const DISC_ONLY: &str = "retainer.storage_type=disc_only";

/// What a filter brings to a new client, by topic; nothing twice.
fn retained(broker: &Broker, filter: &str) -> BTreeMap<String, String> {
    let mut client = broker.client(V5);
    client.subscribe(filter, 1);
    let found = read_retained(&mut client);
    client.expect_nothing();
    found
}

fn read_retained(client: &mut Client) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // The last one is known by its end: a message to a topic of its own.
    let end = ringmq_tests::topic();
    client.subscribe(&end, 0);
    thread::sleep(Duration::from_millis(300));
    client.publish(&end, "end", 0);
    loop {
        let message = client.message();
        if message.topic == end {
            return found;
        }
        assert!(message.retain, "{message:?}");
        let before = found.insert(message.topic.clone(), message.text().to_owned());
        assert_eq!(before, None, "{} came twice", message.topic);
    }
}

fn count(broker: &Broker) -> u64 {
    let stats = broker.cli(&["broker", "stats", "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    stats["retained/count"].as_u64().unwrap()
}

/// SEED-CLI-58
#[test]
fn seed_cli_58_info_topics_clean() {
    info_topics_clean("disc");
}

/// SEED-CLI-58, of messages that are on disk only.
#[test]
fn seed_cli_58_info_topics_clean_on_disk() {
    info_topics_clean("disc_only");
}

fn info_topics_clean(storage: &str) {
    let storage_type = format!("retainer.storage_type={storage}");
    let broker = Broker::start(&[
        &storage_type,
        "--shards",
        "2",
        "mqtt.broker.sys_interval=0",
        "retainer.max_message_num=2000",
        "retainer.max_payload_size=10KB",
        "retainer.expiry_interval=1h",
    ]);
    let mut publisher = broker.client(V311);
    for number in 0..700 {
        publisher.send_publish(&Publish::new(&format!("r/{}/{number}", number % 2), "x").retain());
    }
    publisher.publish_retained("$secret/a", "x", 1);
    publisher.expect_alive();
    let info = broker.cli(&["retainer", "info"]);
    let bytes: usize = (0..700).map(|n| format!("r/{}/{n}", n % 2).len() + 1).sum();
    let expected = format!(
        "messages        : 701\nbytes           : {}\nstorage_type    : {storage}\nmax_message_num : 2000\n\
         max_payload_size: 10240\nexpiry_interval : 3600s\n",
        bytes + 10
    );
    assert_eq!(info, expected);
    let topics = broker.cli(&["retainer", "topics"]);
    assert_eq!(topics.lines().count(), 701, "more than one page of each shard");
    let mut lines: Vec<&str> = topics.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 701);
    for limit in [0, 1, 300, 900] {
        let topics = broker.cli(&["retainer", "topics", "--limit", &limit.to_string(), "--json"]);
        assert_eq!(topics.lines().count(), limit.min(701));
    }
    assert_eq!(broker.cli(&["retainer", "clean", "r/0/+"]), "350 removed\n");
    assert_eq!(broker.cli(&["retainer", "clean", "r/1/1"]), "1 removed\n");
    assert_eq!(broker.cli(&["retainer", "clean", "r/1/1"]), "0 removed\n");
    let mut client = broker.client(V5);
    client.subscribe("r/0/#", 0);
    client.expect_nothing();
    let output = broker.command(&["retainer", "clean", "a/#/b"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("0x8f"));
    assert_eq!(broker.cli(&["retainer", "clean", "--json"]), "{\"removed\":349}\n");
    assert_eq!(broker.cli(&["retainer", "topics"]), "$secret/a\n");
    let stats = broker.cli(&["broker", "stats"]);
    assert!(stats.lines().any(|line| line.starts_with("retained/count") && line.ends_with(": 1")));
}

/// SEED-PUB-09: a message that cannot be kept is delivered, so its publisher is told it was; it is counted.
#[test]
fn seed_pub_09_what_cannot_be_kept_is_delivered() {
    let broker = Broker::start(&[
        "mqtt.broker.sys_interval=0",
        "retainer.max_message_num=2",
        "retainer.max_payload_size=10",
        "retainer.storage_type=ram",
    ]);
    let mut watcher = broker.client(V5);
    watcher.subscribe("#", 1);
    let mut publisher = broker.client(V5);
    for number in 1..=6 {
        let name = format!("r/{number}");
        let payload = if number == 6 { "longer than ten bytes" } else { "short" };
        publisher.send_publish(&Publish::new(&name, payload).retain().qos(1, number));
        assert_eq!(publisher.expect_puback(number).reason, 0);
        watcher.expect_message(&name, payload);
    }
    let metrics = broker.cli(&["broker", "metrics", "--json"]);
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    let dropped = |reason| metrics[format!("messages/dropped/retained/{reason}")].as_u64();
    assert_eq!(dropped("too_large"), Some(1));
    let over = dropped("quota_exceeded").unwrap_or(0);
    let kept = metrics["messages/retained"].as_u64().unwrap();
    // Each of the two shards keeps one.
    assert!((1..=2).contains(&kept) && over == 5 - kept, "{metrics}");
    assert_eq!(metrics["messages/dropped"], 0);
}

/// SEED-PUB-09, SEED-PUB-11: on disk only, over ends of both kinds and another number of shards each time.
#[test]
fn seed_pub_09_messages_on_disk_only_come_back() {
    for sync in ["store.sync=always", "store.sync=100ms"] {
        let start = ["mqtt.broker.sys_interval=0", DISC_ONLY, sync, "--shards"];
        let with = |shards| [&start[..], &[shards]].concat();
        let broker = Broker::start(&with("2"));
        let mut publisher = broker.client(V5);
        for number in 0..1000 {
            let name = format!("d/{}/{number}", number % 10);
            publisher.send_publish(&Publish::new(&name, "old").retain());
        }
        publisher.publish_retained("d/3/3", "new", 1);
        publisher.publish_retained("d/3/13", "", 1);
        publisher.publish_retained("d/3", "above", 1);
        publisher.publish_retained("$d/3", "hidden", 1);
        let mut expected: BTreeMap<String, String> =
            (0..100).map(|n| (format!("d/3/{}", n * 10 + 3), "old".to_owned())).collect();
        expected.insert("d/3/3".to_owned(), "new".to_owned());
        expected.remove("d/3/13");
        assert_eq!(retained(&broker, "d/3/+"), expected, "before anything was read back");
        assert_eq!(count(&broker), 1001);
        let folder = broker.folder().to_path_buf();
        broker.stop_and_keep();
        let broker = Broker::start_in(&folder, &with("3"));
        wait_until("all are known", || count(&broker) == 1001);
        assert_eq!(retained(&broker, "d/3/+"), expected);
        assert_eq!(retained(&broker, "d/3/3")["d/3/3"], "new");
        assert!(retained(&broker, "d/3/13").is_empty() && retained(&broker, "none").is_empty());
        assert_eq!(retained(&broker, "d/3/#").len(), 100);
        assert_eq!(retained(&broker, "#").len(), 1000);
        assert_eq!(retained(&broker, "$d/#").len(), 1);
        // What changes now is there at once, and what was is not.
        let mut publisher = broker.client(V5);
        publisher.publish_retained("d/3/3", "", 1);
        publisher.publish_retained("d/3/23", "newer", 1);
        publisher.publish_retained("d/3/13", "again", 2);
        expected.remove("d/3/3");
        expected.insert("d/3/23".to_owned(), "newer".to_owned());
        expected.insert("d/3/13".to_owned(), "again".to_owned());
        assert_eq!(retained(&broker, "d/3/+"), expected);
        assert_eq!(count(&broker), 1001);
        // In the interval mode a kill may take what is younger.
        thread::sleep(Duration::from_millis(400));
        broker.kill();
        let broker = Broker::start_in(&folder, &with("1"));
        assert_eq!(retained(&broker, "d/3/+"), expected);
        wait_until("all are known", || count(&broker) == 1001);
        // Back in memory, and what was removed stays so.
        broker.stop_and_keep();
        let broker = Broker::start_in(&folder, &["mqtt.broker.sys_interval=0", "--shards", "2"]);
        assert_eq!(retained(&broker, "d/3/+"), expected);
        assert_eq!(count(&broker), 1001);
    }
}

/// v5: MQTT-3.3.2-5 for what is on disk only: it is not sent, and goes; over a restart too.
#[test]
fn messages_on_disk_only_expire() {
    let folder = new_folder();
    let arguments = ["mqtt.broker.sys_interval=0", DISC_ONLY, "store.sync=always"];
    let broker = Broker::start_in(&folder, &arguments);
    let mut publisher = broker.client(V5);
    let publish = |publisher: &mut Client, name: &str, seconds| {
        let message = Publish::new(name, "x").retain();
        publisher.publish_whole(message.property(Property::MessageExpiry(seconds)), 1);
    };
    for number in 0..50 {
        publish(&mut publisher, &format!("e/{number}"), 1);
        publish(&mut publisher, &format!("e/later/{number}"), 4);
    }
    publisher.publish_retained("e/stays", "x", 1);
    // Given a longer life before its time.
    publish(&mut publisher, "e/0", 300);
    assert_eq!(count(&broker), 101);
    wait_until("those of a second are gone", || count(&broker) == 52);
    assert_eq!(retained(&broker, "e/+").len(), 2);
    broker.stop_and_keep();
    let broker = Broker::start_in(&folder, &arguments);
    wait_until("the others are gone", || count(&broker) == 2);
    let found = retained(&broker, "e/#");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["e/0", "e/stays"]);
}

/// v5: MQTT-3.3.1-9 to MQTT-3.3.1-11: Retain Handling.
#[test]
fn retain_handling_of_messages_on_disk_only() {
    let broker = Broker::start(&["mqtt.broker.sys_interval=0", DISC_ONLY]);
    let mut publisher = broker.client(V5);
    publisher.publish_retained("h/a", "x", 1);
    let mut client = broker.client(V5);
    for (options, count) in [(0x21, 0), (0x11, 0), (0x01, 1), (0x11, 0)] {
        client.subscribe("h/+", options);
        assert_eq!(read_retained(&mut client).len(), count, "{options:#x}");
    }
    let mut other = broker.client(V5);
    other.subscribe("h/+", 0x11);
    assert_eq!(read_retained(&mut other).len(), 1);
}

/// Back-pressure: who does not read what it asked for does not fill the broker's memory, and gets all of it when it does.
#[test]
fn a_slow_reader_of_messages_on_disk_only_costs_little() {
    let broker = Broker::start(&[
        "mqtt.broker.sys_interval=0",
        DISC_ONLY,
        "--shards",
        "2",
        "store.sync=100ms",
    ]);
    let mut publisher = broker.client(V311);
    let payload = "x".repeat(10_000);
    for number in 0..5000 {
        publisher.send_publish(&Publish::new(&format!("s/{number}"), &payload).retain());
    }
    publisher.expect_alive();
    wait_until("all are kept", || count(&broker) == 5000);
    thread::sleep(Duration::from_millis(500));
    let before = broker.rss_bytes();
    let mut slow = broker.client(V311);
    slow.subscribe("s/#", 1);
    thread::sleep(Duration::from_millis(500));
    for number in 0..100 {
        // Others are served meanwhile, also those that read the same.
        let name = format!("s/{number}");
        assert_eq!(retained_of(&broker, &name), payload);
    }
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown < 30 << 20, "{grown} bytes more for 50 MB that nobody reads");
    let mut seen = vec![0; 5000];
    for _ in 0..5000 {
        let message = slow.message();
        let number: usize = message.topic[2..].parse().unwrap();
        seen[number] += 1;
    }
    assert!(seen.iter().all(|&times| times == 1));
}

fn retained_of(broker: &Broker, name: &str) -> String {
    let mut client = broker.client(V5);
    client.subscribe(name, 0);
    client.message().text().to_owned()
}

/// Without a store there is nothing to read from: one line says so.
#[test]
fn disc_only_without_a_store_is_refused() {
    let folder = new_folder();
    let (code, output) = refused(&folder, &[DISC_ONLY, "store.enable=off"]);
    assert_ne!(code, Some(0));
    assert!(output.contains("retainer.storage_type") && output.contains("write ram"), "{output}");
}
