//! `ringmq retainer` (SEED-CLI-58), and what a client is told of retained messages that are not kept (SEED-PUB-09).

use ringmq_tests::{Broker, Publish, V5, V311};

/// SEED-CLI-58
#[test]
fn seed_cli_58_info_topics_clean() {
    let broker = Broker::start(&[
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
        "messages        : 701\nbytes           : {}\nstorage_type    : disc\nmax_message_num : 2000\n\
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
