//! Delayed messages (SEED-PUB-16): `$delayed/<seconds>/<topic>`, the limits, and `ringmq delayed`.

use std::thread;
use std::time::{Duration, Instant};

use ringmq_tests::client::Event;
use ringmq_tests::packet::Packet;
use ringmq_tests::{
    Broker, Client, Connect, Property, Publish, QUIET, V5, V311, Version, id, shared, topic,
};

/// Waits for a message that is due in a second, and for no message before that.
#[track_caller]
fn due_in_a_second(client: &mut Client, published: Instant) -> Publish {
    let quiet = Duration::from_millis(900).saturating_sub(published.elapsed());
    assert_eq!(client.event(quiet), Event::Nothing);
    let message = client.message();
    assert!(published.elapsed() >= Duration::from_millis(990), "{:?}", published.elapsed());
    message
}

/// SEED-PUB-16: with every protocol, at every `QoS`, whoever is whose home; the acknowledgement comes at once.
#[test]
fn seed_pub_16_a_message_comes_when_it_is_due() {
    let broker = shared();
    for (version, prefix) in Version::ALL.into_iter().zip(["$delayed", "$delay", "$delayed"]) {
        let name = topic();
        let mut subscriber = broker.client(version);
        subscriber.subscribe(&name, 2);
        let mut publisher = broker.client(version);
        let begin = Instant::now();
        for qos in 0..=2 {
            publisher.publish(&format!("{prefix}/1/{name}"), &qos.to_string(), qos);
        }
        assert!(begin.elapsed() < Duration::from_millis(900), "acknowledged at once");
        let message = due_in_a_second(&mut subscriber, begin);
        assert_eq!((message.topic.as_str(), message.text()), (name.as_str(), "0"));
        assert_eq!(subscriber.payloads(2), ["1", "2"], "in the order they were published in");
    }
}

/// SEED-PUB-16: 0 seconds is soon; the session and the connection of the publisher need not be there any more; RETAIN, user
/// properties and the rest stay.
#[test]
fn seed_pub_16_the_message_is_published_as_it_was() {
    let broker = shared();
    let name = topic();
    let mut subscriber = broker.client(V5);
    subscriber.subscribe(&name, 1);
    let mut publisher = broker.client(V5);
    let message = Publish::new(&format!("$delayed/1/{name}"), "x").retain();
    let user = Property::User("a".into(), "b".into());
    publisher.publish_whole(message.property(user.clone()), 1);
    publisher.disconnect();
    let message = subscriber.expect_message(&name, "x");
    assert_eq!(message.properties, [user]);
    assert!(!message.retain);
    let mut late = broker.client(V311);
    late.subscribe(&name, 1);
    assert!(late.expect_message(&name, "x").retain, "it was kept when it was due");
    late.publish_retained(&name, "", 1);
}

/// SEED-PUB-16: the message expiry interval runs from when it was received.
#[test]
fn seed_pub_16_what_expires_first_does_not_come() {
    let broker = shared();
    let name = topic();
    let mut subscriber = broker.client(V5);
    subscriber.subscribe(&name, 1);
    let mut publisher = broker.client(V5);
    for (payload, expiry) in [("expired", 1), ("alive", 5)] {
        let message = Publish::new(&format!("$delayed/2/{name}"), payload);
        publisher.publish_whole(message.property(Property::MessageExpiry(expiry)), 1);
    }
    let message = subscriber.expect_message(&name, "alive");
    assert_eq!(message.properties, [Property::MessageExpiry(3)]);
    subscriber.expect_nothing();
}

/// SEED-PUB-16: what is no delay is refused, whatever the `QoS`, and the connection stays.
#[test]
fn seed_pub_16_what_is_no_delay_is_refused() {
    let broker = shared();
    let mut new = broker.client(V5);
    let mut old = broker.client(V311);
    for (number, end) in [(1, "x/a"), (2, "5"), (3, "5/"), (4, "-1/a")] {
        let name = format!("$delayed/{end}");
        new.send_publish(&Publish::new(&name, "x").qos(1, number));
        assert_eq!(new.expect_puback(number).reason, 0x90, "{name}");
        new.send_publish(&Publish::new(&name, "x").qos(2, number));
        assert_eq!(new.expect_pubrec(number).reason, 0x90, "{name}");
        new.send_publish(&Publish::new(&name, "x"));
        for qos in 0..=2 {
            old.publish(&name, "x", qos);
        }
    }
    new.send_publish(&Publish::new("$delayed/4294968/a", "x").qos(1, 9));
    assert_eq!(new.expect_puback(9).reason, 0x97, "longer than delayed.max_delay");
    new.expect_alive();
    old.expect_alive();
}

/// SEED-PUB-16: the limit holds for the node, whichever shard keeps a message; MQTT 5 clients are told.
#[test]
fn seed_pub_16_no_more_than_there_may_be() {
    let broker = Broker::start(&["--shards", "4", "delayed.max_delayed_messages=8"]);
    let mut publisher = broker.client(V5);
    let mut kept = 0;
    for number in 1..=100 {
        let name = format!("$delayed/600/{}", topic());
        let qos = 1 + u8::try_from(number % 2).unwrap();
        publisher.send_publish(&Publish::new(&name, "x").qos(qos, number));
        let answer = if qos == 1 {
            publisher.expect_puback(number)
        } else {
            publisher.expect_pubrec(number)
        };
        match answer.reason {
            0 => kept += 1,
            reason => assert_eq!(reason, 0x97),
        }
    }
    assert_eq!(kept, 8);
    let mut old = broker.client(V311);
    old.publish("$delayed/600/x", "x", 2);
    let stats = broker.cli(&["broker", "stats"]);
    assert!(stats.lines().any(|line| line.starts_with("delayed/count") && line.ends_with(": 8")));
    let metrics = broker.cli(&["broker", "metrics", "--json"]);
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["messages/delayed"], 8);
    let dropped = |qos| metrics[format!("messages/dropped/{qos}/quota_exceeded")].as_u64().unwrap();
    assert_eq!(dropped("qos1") + dropped("qos2"), 93);
}

/// SEED-PUB-16: with `store.sync = always` what was acknowledged outlives the broker, whichever shard keeps it; it comes once.
#[test]
fn seed_pub_16_messages_outlive_a_broker_that_is_killed() {
    let mut broker =
        Broker::start(&["--shards", "2", "store.sync=always", "delayed.max_delayed_messages=41"]);
    let (name, client_id) = (topic(), id());
    let mut subscriber = broker.connect(&Connect::new(V311, &client_id).persistent());
    subscriber.subscribe(&format!("{name}/#"), 2);
    // One session is kept, so that its messages of QoS 2 are on disk before another shard has them; one is not.
    let mut kept = broker.connect(&Connect::new(V5, &id()).persistent());
    let mut transient = broker.client(V5);
    let mut expected = Vec::new();
    for number in 0..20 {
        let publisher = if number % 2 == 0 { &mut kept } else { &mut transient };
        for seconds in [1, 600] {
            let text = format!("{number}");
            let later = format!("$delayed/{seconds}/{name}/{number}");
            publisher.publish(&later, &text, 1 + u8::try_from(number / 2 % 2).unwrap());
        }
        expected.push(number.to_string());
    }
    kept.publish(&format!("$delayed/1/{name}/last"), "last", 1);
    expected.push("last".into());
    broker.kill_and_restart();
    let (mut subscriber, ack) = broker.connect_ack(&Connect::new(V311, &client_id).persistent());
    assert!(ack.session_present);
    let mut seen = subscriber.payloads(21);
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    let mut publisher = broker.client(V5);
    publisher.publish(&format!("{name}/end"), "end", 1);
    subscriber.expect_message(&format!("{name}/end"), "end");
    let waiting = || broker.cli(&["delayed", "list"]).lines().count();
    assert_eq!(waiting(), 20);
    // What waited counts for the limit.
    for number in 1..=22 {
        let later = Publish::new(&format!("$delayed/600/{name}/new"), "x").qos(1, number);
        publisher.send_publish(&later);
        let reason = if number <= 21 { 0 } else { 0x97 };
        assert_eq!(publisher.expect_puback(number).reason, reason, "{number}");
    }
    assert_eq!(waiting(), 41);
    broker.kill_and_restart();
    assert_eq!(broker.cli(&["delayed", "list"]).lines().count(), 41);
    let mut subscriber = broker.connect(&Connect::new(V311, &client_id).persistent());
    loop {
        match subscriber.event(QUIET) {
            // The end of a message of QoS 2 leaves the store later, so it may be asked for again.
            Event::Packet(Packet::PubRel(_)) => {}
            event => break assert_eq!(event, Event::Nothing, "all came before"),
        }
    }
    let stats = broker.cli(&["broker", "stats"]);
    assert!(stats.lines().any(|line| line.starts_with("delayed/count") && line.ends_with(": 41")));
}

/// SEED-PUB-16: `delayed list`, `show`, `delete`.
#[test]
fn seed_pub_16_commands() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut publisher = broker.client(V311);
    for number in 0..600 {
        let qos = u8::try_from(number % 3).unwrap();
        publisher.publish(&format!("$delayed/600/t/{number}"), &format!("p{number}"), qos);
    }
    let binary = Publish::new("$delayed/700/binary", [0xff, 0]).qos(1, 999);
    publisher.send_publish(&binary);
    publisher.expect_puback(999);
    let lines = broker.cli(&["delayed", "list", "--json"]);
    let rows: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 601, "more than one page of each shard");
    let find = |name: &str| rows.iter().find(|row| row["topic"] == name).expect(name);
    let row = find("t/7");
    assert_eq!((&row["qos"], &row["payload_bytes"]), (&1.into(), &2.into()));
    let delay = row["expected_at_ms"].as_u64().unwrap() - row["publish_at_ms"].as_u64().unwrap();
    assert_eq!(delay, 600_000);
    let name = row["id"].as_str().unwrap();
    let shown = broker.cli(&["delayed", "show", name]);
    assert!(shown.contains("topic=t/7, qos=1, retain=false"), "{shown}");
    assert!(shown.trim_end().ends_with(": p7"), "{shown}");
    let name = find("binary")["id"].as_str().unwrap();
    let shown = broker.cli(&["delayed", "show", name, "--json"]);
    assert!(shown.contains("\"payload_hex\":\"ff00\""), "{shown}");
    assert_eq!(broker.cli(&["delayed", "delete", name]), "ok\n");
    for command in ["show", "delete"] {
        let output = broker.command(&["delayed", command, name]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"Not Found.\n");
        let output = broker.command(&["delayed", command, "nonsense"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("nonsense: it is no id of a delayed message"), "{text}");
    }
    assert_eq!(broker.cli(&["delayed", "list"]).lines().count(), 600);
}

/// SEED-PUB-16, SEED-LSN-10: access rules see the topic behind the delay, and the mountpoint stands in front of it.
#[test]
fn seed_pub_16_access_rules_and_mountpoint() {
    let rules = std::env::temp_dir().join(format!("ringmq-delayed-{}.conf", id()));
    std::fs::write(&rules, "{deny, all, publish, [\"no/#\"]}.\n{allow, all}.\n").unwrap();
    let file = format!("mqtt.acl_file={}", rules.display());
    let broker = Broker::start(&[&file, "listener.tcp.external.mountpoint=in/%c/"]);
    let _ = std::fs::remove_file(&rules);
    let client_id = id();
    let mut client = broker.connect(&Connect::new(V5, &client_id));
    client.subscribe("#", 1);
    client.send_publish(&Publish::new("$delayed/0/no/a", "x").qos(1, 7));
    assert_eq!(client.expect_puback(7).reason, 0x87);
    client.publish("$delayed/0/a", "x", 1);
    client.expect_message("a", "x");
    client.publish("$delayed/600/a", "x", 1);
    let listed = broker.cli(&["delayed", "list"]);
    assert!(listed.contains(&format!("topic=in/{client_id}/a,")), "{listed}");
}

/// Many that are due at one time keep nobody waiting.
#[test]
fn many_due_at_once_keep_nobody_waiting() {
    const COUNT: usize = 20_000;
    let broker = Broker::start(&["--shards", "2", "mqtt.mqueue.max_length=0"]);
    let name = topic();
    let mut subscriber = broker.client(V311);
    subscriber.subscribe(&format!("{name}/+"), 0);
    let mut publisher = broker.client(V311);
    // All due in the same second or two, on both shards.
    for number in 0..COUNT {
        let topic = format!("$delayed/1/{name}/{}", number % 50);
        publisher.send_publish(&Publish::new(&topic, number.to_string()));
    }
    let mut other = broker.client(V311);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let begin = Instant::now();
        other.expect_alive();
        assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
        thread::sleep(QUIET / 10);
    }
    let mut seen: Vec<usize> =
        subscriber.payloads(COUNT).iter().map(|text| text.parse().unwrap()).collect();
    for topic in 0..50 {
        let of_topic: Vec<_> = seen.iter().filter(|n| *n % 50 == topic).collect();
        assert!(of_topic.is_sorted(), "one publisher and topic stay in order");
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..COUNT).collect::<Vec<_>>());
}
