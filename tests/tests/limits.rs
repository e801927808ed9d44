//! Limits against abuse (issue 2, chapter 3): each has a default and a setting.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use ringmq_tests::packet::{field, frame};
use ringmq_tests::{Broker, Connect, Packet, Property, Publish, Subscribe, V5, V311, id, shared};

/// SEED-PROTO-08: a socket without CONNECT is closed.
#[test]
fn seed_proto_08_idle_timeout() {
    let broker = Broker::start(&["mqtt.client.idle_timeout=1s"]);
    let start = Instant::now();
    let mut silent = broker.raw(V311);
    let mut half = broker.raw(V311);
    half.send(&Connect::new(V311, &id()).encode()[..9]);
    let mut client = broker.client(V311);
    silent.expect_closed();
    half.expect_closed();
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(900), "closed already after {waited:?}");
    assert!(waited < Duration::from_secs(3), "closed only after {waited:?}");
    client.expect_alive(); // it concerns only those without CONNECT
}

/// Half a packet may not stay half for ever.
#[test]
fn partial_packet_timeout() {
    let broker = Broker::start(&["mqtt.conn.partial_packet_timeout=1s"]);
    for version in [V311, V5] {
        let mut client = broker.client(version);
        client.send(&Publish::new("a", "0123456789").encode(version)[..8]);
        thread::sleep(Duration::from_millis(300));
        client.send(b"8");
        client.expect_end();
        let mut client = broker.client(version);
        client.expect_nothing();
        thread::sleep(Duration::from_millis(1300));
        client.expect_alive(); // no packet at all is no half packet
    }
}

/// SEED-PROTO-07: max_clientid_len as set.
#[test]
fn seed_proto_07_max_clientid_len() {
    let broker = Broker::start(&["mqtt.max_clientid_len=30"]);
    broker.connect(&Connect::new(V311, &"x".repeat(30))).disconnect();
    for (version, code) in [(V311, 2), (V5, 0x85)] {
        let (mut client, answer) = broker.try_connect(&Connect::new(version, &"x".repeat(31)));
        assert_eq!(answer.code, code);
        client.expect_closed();
    }
}

/// SEED-PROTO-07: max_packet_size is 64 KB by default.
#[test]
fn seed_proto_07_default_packet_size() {
    let broker = shared();
    let mut client = broker.client(V311);
    // 65,536 bytes in all: 4 header, 3 topic.
    client.publish_whole(Publish::new("z", "x".repeat(65_536 - 7)), 0);
    client.expect_alive();
    client.try_send(&Publish::new("z", "x".repeat(65_536 - 6)).encode(V311));
    client.expect_closed();
}

/// Topic levels and length.
#[test]
fn topic_levels_and_length() {
    let broker = Broker::start(&["mqtt.max_topic_levels=4", "mqtt.max_topic_len=20"]);
    let mut client = broker.client(V5);
    client.subscribe("a/b/c/d", 0);
    client.publish("a/b/c/d", "x", 0);
    client.expect_message("a/b/c/d", "x");
    for name in ["a/b/c/d/e", "/////", &"x".repeat(21)] {
        for version in [V311, V5] {
            let mut client = broker.client(version);
            client.send(&Subscribe::new(1).filter(name, 0).encode(version));
            match client.packet() {
                Packet::SubAck(answer) if version == V5 => assert!(answer.codes[0] >= 0x80),
                Packet::SubAck(answer) => assert_eq!(answer.codes, [0x80]),
                Packet::Disconnect(answer) => assert!([0x8F, 0x97].contains(&answer.reason)),
                other => panic!("{other:?}"),
            }
            let mut client = broker.client(version);
            client.send_publish(&Publish::new(name, "x"));
            if let Some(reason) = client.expect_end() {
                assert!([0x90, 0x97].contains(&reason), "0x{reason:02x}");
            }
        }
    }
}

/// User properties in a packet.
#[test]
fn user_properties_in_a_packet() {
    let broker = Broker::start(&["mqtt.max_user_properties=3"]);
    let properties = |count: usize| vec![Property::user("k", "v"); count];
    let mut client = broker.client(V5);
    client.subscribe("a", 0);
    client.send_publish(&Publish { properties: properties(3), ..Publish::new("a", "x") });
    assert_eq!(client.message().user_properties().len(), 3);
    client.send_publish(&Publish { properties: properties(4), ..Publish::new("a", "x") });
    assert!(client.expect_end().is_some_and(|reason| reason >= 0x80));
    let connect = Connect { properties: properties(4), ..Connect::new(V5, &id()) };
    let (mut client, answer) = broker.try_connect(&connect);
    assert!(answer.code >= 0x80);
    client.expect_closed();
}

/// Filters in a packet.
#[test]
fn filters_in_a_packet() {
    let broker = Broker::start(&["mqtt.max_filters_per_packet=3"]);
    let names = ["a", "b", "c", "d"];
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (*name, 0)).collect();
    let mut client = broker.client(V5);
    assert_eq!(client.subscribe_with(&filters[..3], &[]), [0; 3]);
    let mut subscribe = Subscribe::new(9);
    for name in names {
        subscribe = subscribe.filter(name, 0);
    }
    client.send(&subscribe.encode(V5));
    assert!(client.expect_end().is_some_and(|reason| reason >= 0x80));
}

/// SEED-LSN-07: max_clients of a listener.
#[test]
fn seed_lsn_07_max_clients() {
    let broker = Broker::start(&["listener.tcp.external.max_clients=3"]);
    thread::sleep(Duration::from_millis(100)); // the harness's own connection is gone
    let mut clients: Vec<_> = (0..3).map(|_| broker.client(V311)).collect();
    let mut over = broker.raw(V311);
    over.try_send(&Connect::new(V311, &id()).encode());
    over.expect_end();
    for client in &mut clients {
        client.expect_alive();
    }
    clients.pop().unwrap().disconnect();
    thread::sleep(Duration::from_millis(100));
    broker.client(V311).expect_alive();
}

/// A client that does not read: QoS 0 is dropped, the broker's memory stays, others are served.
#[test]
fn pending_bytes_of_a_slow_reader_are_bounded() {
    let broker = Broker::start(&["mqtt.conn.pending_bytes_max=64KB"]);
    let mut slow = broker.client(V311);
    slow.subscribe("a", 0);
    let mut publisher = broker.client(V311);
    let before = broker.rss_bytes();
    let payload = "x".repeat(10_000);
    for _ in 0..5000 {
        publisher.send_publish(&Publish::new("a", &payload)); // 50 MB
    }
    publisher.expect_alive();
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown < 30 << 20, "the broker grew by {grown} bytes for one slow reader");
    let mut other = broker.client(V311);
    other.subscribe("b", 1);
    publisher.publish("b", "x", 1);
    other.expect_message("b", "x");
    slow.message(); // what was sent before is there
}

/// QoS 1 to a slow reader waits in the queue and is not lost.
#[test]
fn pending_bytes_keep_qos_1() {
    let broker = Broker::start(&[
        "mqtt.max_packet_size=16KB",
        "mqtt.conn.pending_bytes_max=16KB",
        "mqtt.session.max_inflight=1000",
        "mqtt.mqueue.max_length=10000",
    ]);
    let mut slow = broker.client(V311);
    slow.subscribe("a", 1);
    let mut publisher = broker.client(V311);
    let payload = "x".repeat(5_000);
    for number in 0..1000 {
        publisher.publish("a", &format!("{number} {payload}"), 1);
    }
    for number in 0..1000 {
        let message = slow.message();
        assert!(message.text().starts_with(&format!("{number} ")), "{number} is missing");
    }
}

/// Connections that send garbage or nothing do not stop others from connecting.
#[test]
fn half_open_connections_do_not_block_accept() {
    let broker = shared();
    let mut held: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(broker.address()).unwrap()).collect();
    for stream in &mut held {
        let _ = stream.write_all(&[0x10]);
    }
    let start = Instant::now();
    broker.client(V5).expect_alive();
    assert!(start.elapsed() < Duration::from_secs(1));
}

/// SEED-SESS-05: await_rel_timeout forgets a QoS 2 message that waits for PUBREL: its identifier is free again.
#[test]
fn seed_sess_05_await_rel_timeout() {
    let broker = Broker::start(&["mqtt.session.await_rel_timeout=1s"]);
    let mut watcher = broker.client(V311);
    watcher.subscribe("a", 0);
    let mut client = broker.client(V311);
    client.send_publish(&Publish::new("a", "first").qos(2, 1));
    client.expect_pubrec(1);
    watcher.expect_message("a", "first");
    thread::sleep(Duration::from_millis(2100));
    client.send_publish(&Publish::new("a", "second").qos(2, 1));
    client.expect_pubrec(1);
    watcher.expect_message("a", "second");
}

/// A SUBSCRIBE as large as a packet may be.
#[test]
fn many_filters_in_one_packet_of_64_kb() {
    let broker = shared();
    let mut client = broker.client(V5);
    let mut body = vec![0, 1, 0];
    let prefix = id();
    let mut count = 0;
    while count < 1024 {
        body.extend(field(format!("{prefix}/{count}").as_bytes()));
        body.push(0);
        count += 1;
    }
    client.send(&frame(0x82, &body));
    assert_eq!(client.expect_suback(1).codes, vec![0; 1024]);
}
