//! Listeners: kinds, access rules, rates, mountpoints, zones, start and stop (SEED-LSN-01 to SEED-LSN-25).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use ringmq_tests::broker::binary;
use ringmq_tests::client::Event;
use ringmq_tests::{
    Broker, Client, ConnAck, Connect, Property, Publish, V5, V311, WAIT, Will, id, topic,
};

/// What a broker with these lines in its settings file says, and whether it would start.
fn check(lines: &str) -> (bool, String) {
    let folder = std::env::temp_dir().join(format!("ringmq-listeners-{}", id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("my.conf");
    fs::write(&file, lines).unwrap();
    let output = Command::new(binary())
        .args(["console", "--check", "--config"])
        .arg(&file)
        .arg("--data")
        .arg(&folder)
        .output()
        .unwrap();
    let _ = fs::remove_dir_all(&folder);
    let text = String::from_utf8_lossy(if output.status.success() {
        &output.stdout
    } else {
        &output.stderr
    })
    .replace(&file.display().to_string(), "FILE");
    (output.status.success(), text)
}

/// A bad setting of a listener: one line with file, line and remedy.
#[test]
fn a_bad_setting_of_a_listener_is_one_line() {
    for (lines, expected) in [
        (
            "listener.tcp.external = 1883\nlistener.tcp.external.access.1 = deny 10.0.0.0/40\n",
            "ringmq: FILE:2: listener.tcp.external.access.1 cannot be \"deny 10.0.0.0/40\"; allowed: allow or deny, then all, an \
             address or a CIDR, for example allow 192.168.0.0/24, or deny all\n",
        ),
        (
            "listener.tcp.external = 1883\nlistener.tcp.external.rate_limit = fast\n",
            "ringmq: FILE:2: listener.tcp.external.rate_limit cannot be \"fast\"; allowed: none, bytes in a time and a burst, or \
             burst,rate in KB a second, for example 10KB/s,100KB\n",
        ),
        (
            "\nlistener.ssl.a = 8883\nlistener.ssl.a.keyfile = k.pem\n",
            "ringmq: FILE:2: listener.ssl.a = 0.0.0.0:8883: a listener with TLS needs a certfile: give listener.ssl.a.certfile, or psk_file for pre-shared keys\n",
        ),
        (
            "listener.ws.a = 99999\n",
            "ringmq: FILE:1: listener.ws.a cannot be \"99999\"; allowed: off, a port, or address:port, for example 1883, \
             127.0.0.1:1883 or [::1]:1883\n",
        ),
    ] {
        assert_eq!(check(lines), (false, expected.to_owned()));
    }
    let (right, text) = check(
        "listener.tcp.a = 127.0.0.1:1\nlistener.tcp.a.access.1 = allow ::1\nlistener.tcp.a.access.2 = deny all\n\
         listener.tcp.b = [::1]:1\nlistener.tcp.b.rate_limit = 100,10\nlistener.tcp.b.mountpoint = b/%u/\n",
    );
    assert!(right && text == "The settings are right.\n", "{text}");
}

/// A listener beside the harness's own: its address, by its name.
fn address(broker: &Broker, name: &str) -> SocketAddr {
    let text = broker.cli(&["listeners", "--json"]);
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["name"] == name);
    row.unwrap()["address"].as_str().unwrap().parse().unwrap()
}

/// How many connections of a listener ended for a reason.
fn ended(broker: &Broker, name: &str, reason: &str) -> u64 {
    let text = broker.cli(&["listeners", "--json"]);
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["name"] == name).unwrap();
    row["shutdown_count"][reason].as_u64().unwrap_or(0)
}

#[track_caller]
fn connect(address: SocketAddr, connect: &Connect) -> (Client, ConnAck) {
    let mut client = Client::open(address, connect.version);
    client.send(&connect.encode());
    let ack = client.expect_connack();
    (client, ack)
}

/// SEED-LSN-08: rules by address, IPv4 and IPv6; a refused connection is closed at once and counted.
#[test]
fn seed_lsn_08_access() {
    let broker = Broker::start(&[
        "listener.tcp.none=127.0.0.1:0",
        "listener.tcp.none.access.1=allow 10.0.0.0/8",
        "listener.tcp.none.access.2=deny all",
        "listener.tcp.some=[::1]:0",
        "listener.tcp.some.access.1=deny 127.0.0.0/8",
        "listener.tcp.some.access.2=allow ::1/128",
        "listener.tcp.some.access.3=deny all",
    ]);
    for _ in 0..3 {
        let mut refused = Client::open(address(&broker, "none"), V311);
        refused.expect_end();
    }
    assert_eq!(ended(&broker, "none", "access_denied"), 3);
    let (mut client, ack) = connect(address(&broker, "some"), &Connect::new(V5, &id()));
    assert_eq!(ack.code, 0);
    client.expect_alive();
    assert_eq!(ended(&broker, "some", "access_denied"), 0);
}

/// SEED-LSN-22: connections over the rate are refused, and come in again when it allows.
#[test]
fn seed_lsn_22_max_conn_rate() {
    let broker =
        Broker::start(&["listener.tcp.slow=127.0.0.1:0", "listener.tcp.slow.max_conn_rate=2/s,3"]);
    let slow = address(&broker, "slow");
    let mut held: Vec<Client> = (0..8).map(|_| Client::open(slow, V311)).collect();
    for client in &mut held {
        client.try_send(&Connect::new(V311, &id()).encode());
    }
    let answered = |client: &mut Client| client.event(WAIT) != Event::Closed;
    let let_in = held.iter_mut().filter_map(|c| answered(c).then_some(())).count();
    assert!((3..=4).contains(&let_in), "{let_in}");
    assert_eq!(ended(&broker, "slow", "max_conn_rate"), 8 - let_in as u64);
    broker.client(V311).expect_alive(); // another listener is not concerned
    thread::sleep(Duration::from_millis(600));
    assert_eq!(connect(slow, &Connect::new(V311, &id())).1.code, 0);
}

/// SEED-LSN-22: messages a second of each client; it waits, nothing is lost, others are not concerned.
#[test]
fn seed_lsn_22_max_publish_rate() {
    let broker = Broker::start(&["listener.tcp.external.max_publish_rate=100/s,10"]);
    let mut subscriber = broker.client(V311);
    let topic = topic();
    subscriber.subscribe(&topic, 1);
    let mut publisher = broker.connect(&Connect { keep_alive_s: 1, ..Connect::new(V311, &id()) });
    let start = Instant::now();
    for number in 0..110_u16 {
        let payload = number.to_string();
        publisher.send_publish(&Publish::new(&topic, &payload).qos(1, number + 1));
    }
    let mut other = broker.client(V311);
    other.publish(&topic, "other", 0);
    assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
    for number in 0..110_u16 {
        publisher.expect_puback(number + 1);
    }
    let took = start.elapsed();
    assert!((900..3000).contains(&took.as_millis()), "{took:?}");
    let mut texts: Vec<String> = (0..111).map(|_| subscriber.message().text().to_owned()).collect();
    texts.retain(|text| text != "other");
    assert_eq!(texts, (0..110).map(|n| n.to_string()).collect::<Vec<_>>());
    publisher.expect_alive();
    let metrics = broker.cli(&["broker", "metrics"]);
    let line = metrics.lines().find(|line| line.starts_with("client/rate_limited")).unwrap();
    assert!(!line.ends_with(" 0"), "{line}");
}

/// SEED-LSN-09: bytes a second of each client, in EMQ's form: burst,rate in KB. A keepalive shorter than the wait is not held
/// against the client.
#[test]
fn seed_lsn_09_rate_limit() {
    let broker = Broker::start(&["listener.tcp.external.rate_limit=20,10"]);
    let mut subscriber = broker.client(V311);
    let topic = topic();
    subscriber.subscribe(&topic, 0);
    let mut publisher = broker.connect(&Connect { keep_alive_s: 1, ..Connect::new(V311, &id()) });
    let start = Instant::now();
    let payload = "x".repeat(10_000);
    for _ in 0..5 {
        publisher.send_publish(&Publish::new(&topic, &payload));
    }
    for _ in 0..5 {
        assert_eq!(subscriber.message().text().len(), 10_000);
    }
    let took = start.elapsed();
    assert!((2400..5000).contains(&took.as_millis()), "{took:?}");
    publisher.expect_alive();
}

/// SEED-LSN-10: a prefix per listener, for publish, subscribe, retained, wills and shared subscriptions; clients do not see it.
#[test]
fn seed_lsn_10_mountpoint() {
    let broker = Broker::start(&[
        "listener.tcp.a=127.0.0.1:0",
        "listener.tcp.a.mountpoint=a/",
        "listener.tcp.b=127.0.0.1:0",
        "listener.tcp.b.mountpoint=b/",
    ]);
    let [a, b] = ["a", "b"].map(|name| address(&broker, name));
    for version in [V311, V5] {
        let mut whole = broker.client(version);
        whole.subscribe("+/x/#", 1);
        let (mut of_a, _) = connect(a, &Connect::new(version, &id()));
        let (mut of_b, _) = connect(b, &Connect::new(version, &id()));
        of_a.subscribe("x/#", 1);
        of_b.subscribe("x/#", 1);
        of_a.publish("x/1", "from a", 1);
        of_a.expect_message("x/1", "from a");
        whole.expect_message("a/x/1", "from a");
        of_b.expect_nothing();
        whole.publish("b/x/2", "to b", 0);
        of_b.expect_message("x/2", "to b");
        whole.expect_message("b/x/2", "to b");
        of_a.expect_nothing();
        // Who has unsubscribed gets nothing more.
        assert!(of_a.unsubscribe(&["x/#"]).iter().all(|code| *code == 0));
        whole.publish("a/x/3", "late", 0);
        of_a.expect_nothing();
        whole.expect_message("a/x/3", "late");
        // Retained messages.
        of_a.publish_retained("x/r", "kept", 1);
        whole.expect_message("a/x/r", "kept");
        let (mut late, _) = connect(a, &Connect::new(version, &id()));
        late.subscribe("x/+", 0);
        late.expect_message("x/r", "kept");
        late.publish_retained("x/r", "", 0);
        // A will.
        whole.expect_message("a/x/r", "");
        let will = Will::new("x/will", "gone");
        let (leaves, _) = connect(a, &Connect { will: Some(will), ..Connect::new(version, &id()) });
        leaves.cut();
        whole.expect_message("a/x/will", "gone");
    }
    // The ids of shares stay in front of the prefix.
    for (filter, seen) in [("$share/g/s/+", "s/1"), ("$queue/q/+", "q/1")] {
        let (mut first, _) = connect(a, &Connect::new(V5, &id()));
        let (mut second, _) = connect(a, &Connect::new(V5, &id()));
        first.subscribe(filter, 0);
        second.subscribe(filter, 0);
        let mut whole = broker.client(V5);
        let topic = format!("a/{seen}");
        for _ in 0..10 {
            whole.publish(&topic, "x", 1);
        }
        for client in [&mut first, &mut second] {
            for _ in 0..5 {
                client.expect_message(seen, "x");
            }
            client.expect_nothing();
        }
    }
}

/// SEED-LSN-10: %c and %u; a name that would reach other prefixes is refused. Access rules see what the client sees.
#[test]
fn seed_lsn_10_mountpoint_with_names() {
    let broker = Broker::start(&["listener.tcp.m=127.0.0.1:0", "listener.tcp.m.mountpoint=%u/%c/"]);
    let m = address(&broker, "m");
    let mut whole = broker.client(V5);
    whole.subscribe("#", 0);
    let client_id = id();
    let (mut client, _) = connect(m, &Connect::new(V5, &client_id).username("ann"));
    client.publish("t", "x", 1);
    whole.expect_message(&format!("ann/{client_id}/t"), "x");
    for (client_id, user, v5, v3) in [
        ("a/b", "ann", 0x85, 2),
        ("+", "ann", 0x85, 2),
        ("fine", "#", 0x86, 4),
        ("fine", "$SYS", 0x85, 2),
    ] {
        for (version, code) in [(V5, v5), (V311, v3)] {
            let (mut client, ack) = connect(m, &Connect::new(version, client_id).username(user));
            assert_eq!(ack.code, code, "{client_id} {user}");
            client.expect_closed();
        }
    }
    let (_, ack) = connect(m, &Connect::new(V5, &id()));
    assert_eq!(ack.code, 0x86, "there is no user name");
    assert_eq!(ended(&broker, "m", "connect_refused"), 9);
    // An id the broker assigns is one for the prefix too.
    let (mut client, ack) = connect(m, &Connect::new(V5, "").username("bob"));
    assert_eq!(ack.code, 0);
    client.publish("t", "y", 0);
    let message = whole.message();
    assert!(
        message.topic.starts_with("bob/ringmq-") && message.topic.ends_with("/t"),
        "{message:?}"
    );
    // With its prefix a topic must keep to the limits.
    client.send_publish(&Publish::new(&"x/".repeat(127), "deep"));
    assert_eq!(client.expect_end(), Some(0x90));
}

/// SEED-LSN-11: a zone has settings of its own for its listeners.
#[test]
fn seed_lsn_11_zone() {
    let broker = Broker::start(&[
        "listener.tcp.z=127.0.0.1:0",
        "listener.tcp.z.zone=devices",
        "zone.devices.mqtt.max_packet_size=1KB",
        "zone.devices.mqtt.max_qos_allowed=1",
        "zone.devices.mqtt.max_clientid_len=40",
        "zone.devices.mqtt.server_keepalive=7s",
    ]);
    let z = address(&broker, "z");
    let (mut device, ack) = connect(z, &Connect::new(V5, &id()));
    for property in [Property::MaximumPacketSize(1024), Property::ServerKeepAlive(7)] {
        assert!(ack.properties.contains(&property), "{ack:?}");
    }
    assert_eq!(device.subscribe_with(&[("t", 2)], &[]), [1]);
    device.send_publish(&Publish::new("t", "x".repeat(1100)));
    assert_eq!(device.expect_end(), Some(0x95));
    assert_eq!(connect(z, &Connect::new(V5, &"x".repeat(41))).1.code, 0x85);
    let mut other = broker.connect(&Connect::new(V5, &"x".repeat(41)));
    assert_eq!(other.subscribe_with(&[("t", 2)], &[]), [2]);
    other.publish("t", &"x".repeat(1100), 2);
    let shown = broker.cli(&["config", "show"]);
    assert!(shown.contains("zone.devices.mqtt.max_packet_size = 1KB"), "{shown}");
}

/// SEED-LSN-19, SEED-CLI-46, SEED-CLI-47: stop closes the socket and the clients of the listener, no others; start opens it again.
#[test]
fn seed_lsn_19_stop_and_start() {
    let broker = Broker::start(&["listener.tcp.two=127.0.0.1:0"]);
    let two = address(&broker, "two");
    let port = two.port().to_string();
    let mut own = broker.client(V311);
    let (mut new, _) = connect(two, &Connect::new(V5, &id()));
    let mut old: Vec<Client> = (0..5).map(|_| connect(two, &Connect::new(V311, &id())).0).collect();
    let mut silent = Client::open(two, V311);
    let text = broker.cli(&["listeners", "stop", "tcp", &port]);
    assert_eq!(text, format!("Stop mqtt:tcp listener on {port} successfully.\n"));
    assert_eq!(new.expect_end(), Some(0x98));
    old.iter_mut().for_each(Client::expect_closed);
    silent.expect_closed();
    own.expect_alive();
    let gone = Instant::now();
    while TcpStream::connect(two).is_ok() {
        assert!(gone.elapsed() < Duration::from_secs(2), "it listens still");
        thread::sleep(Duration::from_millis(10));
    }
    let listed = broker.cli(&["listeners"]);
    assert!(listed.contains("  running         : false"), "{listed}");
    assert_eq!(ended(&broker, "two", "listener_stopped"), 7);
    let again = broker.command(&["listeners", "stop", "tcp", "two"]);
    assert_eq!(again.status.code(), Some(1));
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(
        text,
        "ringmq: Failed to stop mqtt:tcp listener on two, error: it is stopped already\n"
    );
    for round in 0..5 {
        let how = if round == 0 { "start" } else { "restart" };
        let _ = broker.cli(&["listeners", how, "tcp", "two"]);
        let (mut client, ack) = connect(two, &Connect::new(V5, &id()));
        assert_eq!(ack.code, 0);
        client.expect_alive();
    }
    own.expect_alive();
    for (arguments, text) in [
        (
            ["start", "tcp", "two"],
            "Failed to start mqtt:tcp listener on two, error: it runs already",
        ),
        (
            ["stop", "tcp", "1"],
            "Failed to stop mqtt:tcp listener on 1, error: there is no such listener",
        ),
        (
            ["stop", "ws", "two"],
            "Failed to stop mqtt:ws listener on two, error: there is no such listener",
        ),
    ] {
        let output = broker.command(&[&["listeners"][..], &arguments].concat());
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.starts_with(&format!("ringmq: {text}")), "{error}");
    }
    assert_eq!(broker.command(&["listeners", "stop", "udp", "1"]).status.code(), Some(2));
}

/// SEED-LSN-19: a port another has taken meanwhile is told, and the listener can be started later.
#[test]
fn a_listener_whose_port_was_taken() {
    let broker = Broker::start(&["listener.tcp.two=127.0.0.1:0"]);
    let two = address(&broker, "two");
    let _ = broker.cli(&["listeners", "stop", "tcp", "two"]);
    let start = Instant::now();
    let other = loop {
        match TcpListener::bind(two) {
            Ok(other) => break other,
            Err(error) => assert!(start.elapsed() < WAIT, "{error}"),
        }
    };
    let output = broker.command(&["listeners", "start", "tcp", "two"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("in use by another process"), "{error}");
    drop(other);
    let _ = broker.cli(&["listeners", "start", "tcp", "two"]);
    assert_eq!(connect(two, &Connect::new(V311, &id())).1.code, 0);
}

/// SEED-LSN-19: a WebSocket listener as well, and those that have not begun to speak.
#[test]
fn a_websocket_listener_is_stopped_and_started() {
    let broker = Broker::start(&["listener.ws.w=127.0.0.1:0"]);
    let w = address(&broker, "w");
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = || {
        let mut stream = TcpStream::connect(w).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(get).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    assert!(answer().starts_with("HTTP/1.1 "), "it speaks HTTP");
    let mut silent = TcpStream::connect(w).unwrap();
    silent.set_read_timeout(Some(WAIT)).unwrap();
    let stopped = broker.cli(&["listeners", "stop", "ws", "w"]);
    assert_eq!(stopped, "Stop mqtt:ws listener on w successfully.\n");
    // It may be told in the words of HTTP, but is closed.
    silent.read_to_end(&mut Vec::new()).unwrap();
    let _ = broker.cli(&["listeners", "start", "mqtt:ws", &w.port().to_string()]);
    assert!(answer().starts_with("HTTP/1.1 "), "it speaks HTTP again");
}
