//! Overload: who is let in, what is dropped, which alarm says so, and that it ends by itself (SEED-LSN-24, SEED-OBS-03, SEED-SYS-09).

use ringmq_tests::client::Event;
use ringmq_tests::listening::ended;
use ringmq_tests::{Broker, Client, Connect, QUIET, V5, V311, id, wait_until};
use serde_json::Value;

/// The listener the harness's clients come by.
fn listener(broker: &Broker) -> String {
    let text = broker.cli(&["listeners", "--json"]);
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    first["name"].as_str().unwrap().to_owned()
}

fn alarms(broker: &Broker) -> Vec<Value> {
    let text = broker.cli(&["alarms", "--json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn metric(broker: &Broker, name: &str) -> u64 {
    let metrics: Value =
        serde_json::from_str(&broker.cli(&["broker", "metrics", "--json"])).unwrap();
    metrics[name].as_u64().unwrap_or_else(|| panic!("there is no metric {name}"))
}

/// The alarm of this id that comes as a message.
fn told(client: &mut Client, word: &str) -> Value {
    let publish = client.message();
    let wanted = format!("$SYS/brokers/ringmq@127.0.0.1/alarms/overload_memory/{word}");
    assert_eq!(publish.topic, wanted);
    serde_json::from_str(publish.text()).unwrap()
}

/// SEED-LSN-24, SEED-OBS-03, SEED-SYS-09: memory over its watermark keeps newcomers out, is said everywhere, and ends by itself when
/// the memory has been given back.
#[test]
fn seed_lsn_24_memory_keeps_newcomers_out_until_it_is_given_back() {
    // Each of these retained messages is 60 KB; the broker itself has some 20 MB.
    let (size, most) = (60_000, 3000);
    let broker = Broker::start(&["overload.memory_high_watermark=128MB"]);
    let mut watcher = broker.client(V5);
    watcher.subscribe("$SYS/brokers/+/alarms/#", 0);
    let mut publisher = broker.client(V311);
    assert!(!broker.cli(&["status"]).contains("Alarm("));
    assert_eq!(broker.cli(&["alarms"]), "");

    let payload = "x".repeat(size);
    let mut kept = 0;
    while !broker.cli(&["status"]).contains("Alarm(overload_memory, severity=critical") {
        assert!(kept < most, "no alarm with {} MB retained", (kept * size) >> 20);
        for _ in 0..100 {
            publisher.publish_retained(&format!("fill/{kept}"), &payload, 1);
            kept += 1;
        }
        // The memory is looked at each second.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let alert = told(&mut watcher, "alert");
    assert_eq!((&alert["id"], &alert["severity"]), (&"overload_memory".into(), &"critical".into()));
    assert!(
        alert["summary"].as_str().unwrap().contains("overload.memory_high_watermark is 128 MB")
    );
    assert!(alert["ts"].as_u64().unwrap() > 1_700_000_000 && alert["title"].is_string());
    let status: Value = serde_json::from_str(&broker.cli(&["status", "--json"])).unwrap();
    assert_eq!(status["alarms"][0]["id"], "overload_memory");

    // Newcomers are closed without a word; who is there goes on.
    let name = listener(&broker);
    for count in 1..=3 {
        let mut newcomer = broker.raw(V5);
        newcomer.try_send(&Connect::new(V5, &id()).encode());
        newcomer.expect_closed();
        assert_eq!(ended(&broker, &name, "overloaded"), count);
    }
    watcher.expect_alive();
    watcher.subscribe("still/+", 1);
    publisher.publish("still/here", "yes", 1);
    watcher.expect_message("still/here", "yes");

    // The memory is given back: all is as before, without anybody's doing.
    for number in 0..kept {
        publisher.publish_retained(&format!("fill/{number}"), "", 1);
    }
    wait_until("the alarm is over", || {
        publisher.publish("still/here", "yes", 0);
        !broker.cli(&["status"]).contains("Alarm(")
    });
    let clear = loop {
        let publish = watcher.message();
        if publish.topic != "still/here" {
            assert!(publish.topic.ends_with("/alarms/overload_memory/clear"), "{}", publish.topic);
            break serde_json::from_str::<Value>(publish.text()).unwrap();
        }
    };
    assert_eq!(clear["id"], "overload_memory");
    wait_until("the shards know", || {
        let mut newcomer = broker.raw(V5);
        newcomer.try_send(&Connect::new(V5, &id()).encode())
            && matches!(newcomer.event(QUIET), Event::Packet(_))
    });
    let history = alarms(&broker);
    assert_eq!((history.len(), &history[0]["active"]), (1, &false.into()));
    assert!(history[0]["cleared_at"].as_u64() >= history[0]["raised_at"].as_u64());
    let log = broker.output();
    assert!(
        log.contains("alarm overload_memory raised") && log.contains("overload_memory cleared")
    );
}

/// SEED-LSN-24, SEED-SESS-16: what waits for clients that are away fills the disk and not the memory, so it keeps nobody out, and those
/// who come for it get it.
#[test]
fn seed_lsn_24_queues_of_clients_that_are_away_keep_nobody_out() {
    // 300 MB of messages.
    let (sessions, messages, size) = (10, 500, 60_000);
    let high = "overload.memory_high_watermark=160MB";
    let broker = Broker::start(&[high, "store.unload_after=200ms"]);
    let connect = |n: usize| Connect::new(V311, &format!("away-{n}")).persistent();
    for n in 0..sessions {
        let mut away = broker.connect(&connect(n));
        away.subscribe(&format!("away/{n}"), 1);
        away.disconnect();
    }
    let mut publisher = broker.client(V311);
    let payload = "x".repeat(size);
    for number in 0..messages {
        for n in 0..sessions {
            publisher.publish(&format!("away/{n}"), &format!("{number} {payload}"), 1);
        }
    }
    wait_until("the memory is given back", || {
        broker.rss_bytes() < 160 << 20 && !broker.cli(&["status"]).contains("Alarm(")
    });
    let listed = broker.cli(&["sessions", "show", "away-3"]);
    assert!(listed.contains(&format!("mqueue_len={messages}, mqueue_dropped=0")), "{listed}");
    for n in 0..sessions {
        let (mut back, ack) = broker.connect_ack(&connect(n));
        assert!(ack.session_present);
        for number in 0..messages {
            let message = back.message();
            assert!(message.text().starts_with(&format!("{number} ")), "number {number}");
        }
        back.disconnect();
    }
    assert!(!broker.cli(&["status"]).contains("Alarm("));
    let listed = broker.cli(&["sessions", "show", "away-3"]);
    assert!(listed.contains("mqueue_len=0"), "{listed}");
}

/// SEED-LSN-24: a client that does not read costs no more than its limit, what it loses is counted, and nobody else loses anything.
#[test]
fn seed_lsn_24_a_slow_reader_of_a_hot_topic_costs_its_limit_only() {
    let (messages, size) = (4000_u64, 8000);
    let broker = Broker::start(&["mqtt.conn.pending_bytes_max=1MB"]);
    let mut publisher = broker.client(V311);
    let mut fast = broker.client(V311);
    fast.subscribe("hot", 0);
    let mut slow: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = broker.client(V311);
            client.subscribe("hot", 0);
            client
        })
        .collect();
    let before = broker.rss_bytes();
    let payload = "y".repeat(size);
    // In step with the fast reader, so that nothing is lost on its way to it.
    for _ in 0..messages / 20 {
        for _ in 0..20 {
            publisher.publish("hot", &payload, 0);
        }
        for _ in 0..20 {
            assert_eq!(fast.message().payload.len(), size);
        }
    }
    let grown = broker.rss_bytes().saturating_sub(before);
    // 32 MB were sent to each, of which the kernel takes some; 1 MB may wait, and as much again be on its way to the kernel or not yet given back.
    assert!(grown < 16 << 20, "{} KB more for four clients that do not read", grown >> 10);
    let dropped = metric(&broker, "messages/dropped/qos0/outbox_full");
    let sent = metric(&broker, "messages/qos0/sent");
    assert!(dropped > messages, "{dropped}");
    assert_eq!(sent + dropped, 5 * messages, "each message was sent to each client or counted");
    // They get what there was room for, in whole packets, and then the answer to their ping.
    slow.iter_mut().for_each(Client::expect_alive);
}
