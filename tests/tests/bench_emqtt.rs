//! `ringmq-bench conn`, `sub` and `pub`: emqtt_bench's command lines beside each other against the broker, and single clients
//! against a broker that answers what a test wants.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringmq_tests::broker::load_tool;
use ringmq_tests::{Broker, id};

/// How long a tool may take for what it is asked for; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(40);

/// The tool as it runs. Dropping it kills it.
struct Tool {
    child: Child,
    folder: PathBuf,
}

impl Tool {
    fn start(arguments: &[&str]) -> Tool {
        let folder = std::env::temp_dir().join(format!("ringmq-bench-{}", id()));
        fs::create_dir_all(&folder).unwrap();
        let log = fs::File::create(folder.join("output")).unwrap();
        let child = Command::new(load_tool())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Tool { child, folder }
    }

    fn output(&self) -> String {
        let bytes = fs::read(self.folder.join("output")).unwrap();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Waits for a text.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.output().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                Instant::now() < end && (ended.is_none() || self.output().contains(text)),
                "no {text:?} in\n{}\n{ended:?}",
                self.output()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end.
    #[track_caller]
    fn end(&mut self) -> (ExitStatus, String) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.output());
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.output());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    fn interrupt(&mut self) -> (ExitStatus, String) {
        let killed = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        self.end()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The last total of a counter.
fn total(output: &str, counter: &str) -> Option<u64> {
    let begin = format!(" {counter} total=");
    let line = output.lines().rfind(|line| line.contains(&begin))?;
    let (_, rest) = line.split_once(&begin)?;
    rest.split(' ').next()?.parse().ok()
}

/// A command line for a broker: `{port}` is filled in.
fn words(text: &str, address: SocketAddr) -> Vec<String> {
    let text = text.replace("{port}", &address.port().to_string());
    text.split_whitespace().map(str::to_owned).collect()
}

fn start(text: &str, address: SocketAddr) -> Tool {
    let words = words(text, address);
    Tool::start(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The two command lines of the issue, with a QoS.
fn pair(qos: u8) {
    let broker = Broker::start(&[]);
    let common = format!("-h 127.0.0.1 -p {{port}} -c 50 -R 500 -t bench/%i -q {qos}");
    let mut subscribers = start(&format!("sub {common}"), broker.address());
    subscribers.wait_for("sub total=50 ");
    let mut publishers = start(&format!("pub {common} -I 10 -s 64 -L 5000"), broker.address());
    let (status, output) = publishers.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_eq!(total(&output, "pub"), Some(5000), "{output}");
    assert_eq!(total(&output, "connect_succ"), Some(50), "{output}");
    assert_eq!(total(&output, "pub_succ"), (qos > 0).then_some(5000), "{output}");
    assert!(output.ends_with("publish complete\n"), "{output}");
    assert!(output.starts_with("Start with "), "{output}");
    subscribers.wait_for("recv total=5000 ");
    let (status, output) = subscribers.interrupt();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("total: recv=5000 sub=50 connect_succ=50"), "{output}");
}

#[test]
fn sub_beside_pub_qos_0() {
    pair(0);
}

#[test]
fn sub_beside_pub_qos_1() {
    pair(1);
}

#[test]
fn sub_beside_pub_qos_2() {
    pair(2);
}

#[test]
fn flat_out_publishes_the_limit_exactly() {
    let broker = Broker::start(&[]);
    let mut subscriber = start(
        "sub -h 127.0.0.1 -p {port} -c 1 -t flat/# -q 1 --payload-hdrs ts,cnt64",
        broker.address(),
    );
    subscriber.wait_for("sub total=1 ");
    let mut publisher = start(
        "pub -h 127.0.0.1 -p {port} -c 3 -i 0 -t flat/%i -q 1 -I 0 -s 16 -L 3001 --payload-hdrs ts,cnt64",
        broker.address(),
    );
    let (status, output) = publisher.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_eq!(total(&output, "pub"), Some(3001), "{output}");
    assert_eq!(total(&output, "pub_overrun"), None, "flat out is never late: {output}");
    subscriber.wait_for("recv total=3001 ");
    let (_, output) = subscriber.interrupt();
    assert!(output.contains(" publish_latency avg="), "{output}");
    assert_eq!(total(&output, "recv_lost"), None, "{output}");
}

#[test]
fn every_version_connects_and_keeps_its_clients() {
    let broker = Broker::start(&[]);
    for version in ["3", "4", "5"] {
        let text = format!(
            "conn -h 127.0.0.1 -p {{port}} -c 20 -R 1000 -V {version} --shortids --prefix v{version}x"
        );
        let mut clients = start(&text, broker.address());
        clients.wait_for("connect_succ total=20 ");
        let list = broker.cli(&["clients", "list"]);
        assert!(list.contains(&format!("v{version}x20")), "{list}");
        let (status, output) = clients.interrupt();
        assert_eq!(status.code(), Some(0), "{output}");
        assert!(output.contains("total: connect_succ=20"), "{output}");
    }
}

#[test]
fn several_topics_wait_for_all_clients_and_are_rendered() {
    let broker = Broker::start(&[]);
    let spec = std::env::temp_dir().join(format!("ringmq-bench-{}.json", id()));
    let text = r#"{"topics":[
        {"name":"m/%i/a","interval_ms":"20","QoS":1,"inject_timestamp":"ms","payload":{"x":1}},
        {"name":"m/%i/b","interval_ms":"10","QoS":2,"render":"f","payload":{"f":"<%c>"}}]}"#;
    fs::write(&spec, text).unwrap();
    let mut subscriber =
        start("sub -h 127.0.0.1 -p {port} -c 1 -t m/+/a -t m/+/b -q 2", broker.address());
    subscriber.wait_for("sub total=1 ");
    let text = format!(
        "pub -h 127.0.0.1 -p {{port}} -c 2 -R 100 --topics-payload {} -F 4 -L 60 -w",
        spec.display()
    );
    let mut publishers = start(&text, broker.address());
    let (status, output) = publishers.end();
    fs::remove_file(&spec).unwrap();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("'go' signals, start publishing"), "{output}");
    assert_eq!(total(&output, "pub_succ"), Some(60), "{output}");
    subscriber.wait_for("recv total=60 ");
}

#[test]
fn metrics_are_served() {
    let broker = Broker::start(&[]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let rest = free.local_addr().unwrap();
    drop(free);
    let text =
        format!("conn -h 127.0.0.1 -p {{port}} -c 5 -R 500 -Q true --prometheus --restapi {rest}");
    let mut clients = start(&text, broker.address());
    clients.wait_for("connect_succ total=5 ");
    let get = |path: &str| {
        let mut stream = TcpStream::connect(rest).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\n# HELP connect_succ connect_succ\n"), "{answer}");
    assert!(answer.contains("\nconnect_succ 5\n"), "{answer}");
    assert!(answer.contains("\nmqtt_client_connect_duration_count 5\n"), "{answer}");
    assert!(get("/").starts_with("HTTP/1.1 404 "));
    let (_, output) = clients.interrupt();
    assert!(output.contains("handshake, avg: ") && output.contains("ms, Max: "), "{output}");
    // The port is taken: one line.
    let _taken = TcpListener::bind(rest).unwrap();
    let (status, output) = start(&text, broker.address()).end();
    assert_eq!(status.code(), Some(1), "{output}");
    assert_eq!(output.lines().count(), 1, "{output}");
}

#[test]
fn what_is_wrong_with_a_command_line_is_one_line() {
    for (text, code, reason) in [
        ("conn --nonsense", 2, "--nonsense"),
        ("sub -h 127.0.0.1", 2, "--topic"),
        ("pub -h 127.0.0.1", 2, "--topic"),
        ("conn -p 70000", 2, "70000"),
        ("conn -c", 2, "--count"),
        ("conn --quic true", 2, "QUIC"),
        ("conn --ssl-version tlsv1.1", 2, "tlsv1.2"),
        ("conn --ssl --certfile a", 2, "together"),
        ("conn -h no-such-host.invalid", 1, "no-such-host.invalid"),
        ("pub -t a -m template:///no/such/file", 1, "/no/such/file"),
    ] {
        let mut tool = start(text, SocketAddr::from(([127, 0, 0, 1], 1)));
        let (status, output) = tool.end();
        assert_eq!(status.code(), Some(code), "{text}: {output}");
        assert!(
            output.starts_with("ringmq-bench: ") && output.contains(reason),
            "{text}: {output}"
        );
        assert_eq!(output.lines().count(), 1, "{text}: {output}");
    }
    let (status, output) = start("pub --help", SocketAddr::from(([127, 0, 0, 1], 1))).end();
    assert!(status.success() && output.contains("-h, --host"), "{output}");
}

#[test]
fn a_host_that_refuses_is_counted_and_said_once_all_have_failed() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = "conn -h 127.0.0.1 -p {port} -c 30 -i 0 --num-retry-connect 1 --threads 1";
    let (status, output) = start(text, address).end();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("client(1): connect error - econnrefused\n"), "{output}");
    let said = output.matches(": connect error - econnrefused\n").count();
    let unsaid = output.lines().filter_map(|line| {
        let line = line.strip_prefix("... and ")?;
        line.strip_suffix(" more of: client(...): connect error")?.parse::<usize>().ok()
    });
    // Ten in each second, and this takes one if the machine is not busy.
    assert!((10..60).contains(&said) && said.is_multiple_of(10), "{output}");
    assert_eq!(said + unsaid.sum::<usize>(), 60, "{output}");
    assert_eq!(total(&output, "connect_fail"), Some(60), "{output}");
    assert_eq!(total(&output, "connection_refused"), Some(60), "{output}");
    assert_eq!(total(&output, "connect_retried"), Some(30), "{output}");
    let last = output.lines().last().unwrap();
    assert!(last.starts_with("ringmq-bench: no client is left; "), "{output}");
}

// ---- a broker that answers what a test wants

/// One connection of the tool.
struct Peer(TcpStream);

impl Peer {
    fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    /// The next packet: its first byte and its body. None: the tool has closed.
    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        let first = byte[0];
        let (mut len, mut shift) = (0, 0);
        loop {
            self.0.read_exact(&mut byte).unwrap();
            len |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        Some((first, body))
    }

    #[track_caller]
    fn expect(&mut self, first: u8) -> Vec<u8> {
        let (found, body) = self.packet().expect("a packet");
        assert_eq!(found, first, "{body:02x?}");
        body
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn the_brokers_limits_are_kept() {
    let (listener, address) = listen();
    let text = "pub -h 127.0.0.1 -p {port} -c 1 -t a -I 0 -q 1 -s 100 -L 5";
    let mut tool = start(text, address);
    let mut peer = Peer::accept(&listener);
    peer.expect(0x10);
    // Maximum Packet Size 50.
    peer.send(&[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 50]);
    assert_eq!(peer.expect(0xE0), [0_u8; 0], "nothing too large is sent");
    let (status, output) = tool.end();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("client(1): publish error - packet_too_large\n"), "{output}");
    assert_eq!(total(&output, "pub_fail"), Some(1), "{output}");

    let spec = std::env::temp_dir().join(format!("ringmq-bench-{}.json", id()));
    fs::write(&spec, r#"{"topics":[{"name":"a","interval_ms":"1","QoS":1}]}"#).unwrap();
    let text =
        format!("pub -h 127.0.0.1 -p {{port}} -c 1 --topics-payload {} -F 0 -L 5", spec.display());
    let mut tool = start(&text, address);
    let mut peer = Peer::accept(&listener);
    peer.expect(0x10);
    // Receive Maximum 2.
    peer.send(&[0x20, 6, 0, 0, 3, 0x21, 0, 2]);
    let ids: Vec<Vec<u8>> = (0..2).map(|_| peer.expect(0x32)[3..5].to_vec()).collect();
    peer.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(peer.packet().is_none(), "two are not acknowledged");
    peer.0.set_read_timeout(Some(PATIENCE)).unwrap();
    for id in ids {
        peer.send(&[0x40, 2, id[0], id[1]]);
    }
    // No subscribers, then an error, then success.
    for code in [0x10, 0x97, 0] {
        let id = peer.expect(0x32)[3..5].to_vec();
        peer.send(&[0x40, 3, id[0], id[1], code]);
    }
    assert_eq!(peer.expect(0xE0), [0_u8; 0]);
    let (status, output) = tool.end();
    fs::remove_file(&spec).unwrap();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_eq!(total(&output, "pub_succ"), Some(3), "{output}");
    assert_eq!(total(&output, "pub_nosub"), Some(1), "{output}");
    assert_eq!(total(&output, "pub_fail"), Some(1), "{output}");
    assert!(output.contains("publish error - quota_exceeded\n"), "{output}");
}

#[test]
fn unacknowledged_messages_go_again_after_the_retry_interval() {
    let (listener, address) = listen();
    let text = "pub -h 127.0.0.1 -p {port} -c 1 -t a -q 2 -s 3 -L 1 --retry-interval 1";
    let mut tool = start(text, address);
    let mut peer = Peer::accept(&listener);
    peer.expect(0x10);
    peer.send(&[0x20, 3, 0, 0, 0]);
    let first = peer.expect(0x34);
    assert_eq!(first, b"\x00\x01a\x00\x01\x00aaa");
    assert_eq!(peer.expect(0x3C), first, "again, with DUP");
    peer.send(&[0x50, 2, 0, 1]);
    assert_eq!(peer.expect(0x62), [0, 1]);
    assert_eq!(peer.expect(0x62), [0, 1], "PUBREL again");
    peer.send(&[0x70, 2, 0, 1]);
    peer.expect(0xE0);
    let (status, output) = tool.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_eq!(total(&output, "pub"), Some(1), "{output}");
    assert_eq!(total(&output, "pub_succ"), Some(1), "{output}");
}

#[test]
fn a_kept_session_gets_its_messages_again_and_a_new_one_does_not() {
    let (listener, address) = listen();
    let text = "pub -h 127.0.0.1 -p {port} -c 1 -t a -q 1 -s 3 -L 2 -C false -x 60 --reconnect 3";
    let mut tool = start(text, address);
    let mut peer = Peer::accept(&listener);
    let connect = peer.expect(0x10);
    assert_eq!(connect[7] & 2, 0, "no clean start");
    assert_eq!(connect[11..16], [0x11, 0, 0, 0, 60]);
    peer.send(&[0x20, 3, 0, 0, 0]);
    let message = peer.expect(0x32);
    drop(peer);
    let mut peer = Peer::accept(&listener);
    peer.expect(0x10);
    peer.send(&[0x20, 3, 1, 0, 0]);
    assert_eq!(peer.expect(0x3A), message, "the session is there: again, with DUP");
    peer.send(&[0x40, 2, 0, 1]);
    let second = peer.expect(0x32);
    assert_ne!(second[3..5], message[3..5]);
    drop(peer);
    let mut peer = Peer::accept(&listener);
    peer.expect(0x10);
    peer.send(&[0x20, 3, 0, 0, 0]);
    peer.expect(0xE0);
    let (status, output) = tool.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert_eq!(total(&output, "pub_succ"), Some(1), "{output}");
    assert_eq!(total(&output, "pub_fail"), Some(1), "its session is gone: {output}");
    assert_eq!(total(&output, "reconnect_succ"), Some(2), "{output}");
    assert!(output.contains("client(1): EXIT for {shutdown,tcp_closed}\n"), "{output}");
}

#[test]
fn the_brokers_keep_alive_holds_and_silence_is_noticed() {
    let (listener, address) = listen();
    let mut tool = start("conn -h 127.0.0.1 -p {port} -c 1 -k 300", address);
    let mut peer = Peer::accept(&listener);
    peer.expect(0x10);
    // Server Keep Alive 1.
    peer.send(&[0x20, 6, 0, 0, 3, 0x13, 0, 1]);
    let begin = Instant::now();
    peer.expect(0xC0);
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    peer.send(&[0xD0, 0]);
    peer.expect(0xC0);
    // Not answered: the tool gives up at the next.
    assert!(peer.packet().is_none());
    let (status, output) = tool.end();
    assert_eq!(status.code(), Some(1), "{output}");
    assert_eq!(total(&output, "connection_idle"), Some(1), "{output}");
}

#[test]
fn refusals_and_disconnects_are_named() {
    let (listener, address) = listen();
    let mut tool = start("sub -h 127.0.0.1 -p {port} -c 3 -R 1000 -t a -t b -q 1", address);
    let mut peers: Vec<Peer> = (0..3).map(|_| Peer::accept(&listener)).collect();
    for peer in &mut peers {
        peer.expect(0x10);
    }
    peers[0].send(&[0x20, 3, 0, 0x87, 0]);
    peers[1].send(&[0x20, 3, 0, 0, 0]);
    let subscribe = peers[1].expect(0x82);
    assert_eq!(subscribe[3..], *b"\x00\x01a\x01\x00\x01b\x01", "all topics in one SUBSCRIBE");
    peers[1].send(&[0x90, 5, 0, 1, 0, 1, 0x87]);
    peers[1].send(&[0xE0, 1, 0x8D]);
    peers[2].send(&[0x20, 3, 0, 0, 0]);
    peers[2].expect(0x82);
    peers[2].send(&[0x90, 5, 0, 1, 0, 1, 1]);
    // QoS 2 twice before its PUBREL counts once; packets cut anywhere are whole again.
    for byte in [0x34, 7, 0, 1, b'a', 0, 9, 0, b'x', 0x3C, 7, 0, 1, b'a', 0, 9, 0, b'x'] {
        peers[2].send(&[byte]);
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(peers[2].expect(0x50), [0, 9]);
    assert_eq!(peers[2].expect(0x50), [0, 9]);
    peers[2].send(&[0x62, 2, 0, 9]);
    assert_eq!(peers[2].expect(0x70), [0, 9]);
    // Not MQTT: five bytes of length.
    peers[2].send(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
    let (status, output) = tool.end();
    assert_eq!(status.code(), Some(1), "{output}");
    for line in [
        ": connect error - not_authorized\n",
        ": subscribe error - not_authorized\n",
        ": disconnected with reason 141: keepalive_timeout\n",
        ": EXIT for {shutdown,malformed_packet}\n",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    for (counter, value) in
        [("recv", 1), ("sub", 1), ("sub_fail", 1), ("connect_fail", 1), ("connection_idle", 1)]
    {
        assert_eq!(total(&output, counter), Some(value), "{counter}: {output}");
    }
}
