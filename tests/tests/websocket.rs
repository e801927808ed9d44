//! WebSocket, end to end, by frames made here (SEED-LSN-04, SEED-LSN-05, SEED-LSN-13; RFC 6455).

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use ringmq_tests::broker::{root, target};
use ringmq_tests::certificates::Site;
use ringmq_tests::commands::run;
use ringmq_tests::listening::{address, expect_ended, start};
use ringmq_tests::packet::{DISCONNECT, PINGREQ};
use ringmq_tests::websocket::{
    BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, Stream, TEXT, WebSocket, answer, frame, request,
    tcp,
};
use ringmq_tests::{
    Broker, Connect, Packet, Publish, Subscribe, V5, V31, V311, Version, WAIT, Will, id, tls, topic,
};

const LAST: u8 = 0x80;
const WS: &str = "listener.ws.w=127.0.0.1:0";

fn open(to: SocketAddr, version: Version) -> WebSocket {
    WebSocket::connect(Box::new(tcp(to)), &Connect::new(version, &id()))
}

#[track_caller]
fn subscribe(socket: &mut WebSocket, version: Version, filter: &str) {
    socket.send(&Subscribe::new(1).filter(filter, 1).encode(version));
    assert!(matches!(socket.packet(), Packet::SubAck(_)));
}

#[track_caller]
fn expect_alive(socket: &mut WebSocket) {
    socket.send(&PINGREQ);
    assert_eq!(socket.packet(), Packet::PingResp);
}

/// SEED-LSN-04, SEED-LSN-05: subscribe and publish over ws and wss, at every version, with 2 and 8 shards; with plain clients too.
#[test]
fn seed_lsn_04_seed_lsn_05_publish_and_subscribe() {
    let site = Site::new();
    for shards in ["2", "8"] {
        let own = [WS, "mqtt.max_packet_size=1MB"].map(str::to_owned).to_vec();
        let settings = [own, site.listener("wss", "s")];
        let broker = start(&["--shards", shards], &settings);
        let (ws, wss) = (address(&broker, "w"), address(&broker, "s"));
        for version in [V31, V311, V5] {
            let ca = &site.authority.pem;
            let streams: [Box<dyn Stream>; 2] =
                [Box::new(tcp(ws)), Box::new(tls::begin(tcp(wss), ca))];
            for stream in streams {
                let name = topic();
                let mut socket = WebSocket::connect(stream, &Connect::new(version, &id()));
                assert!(
                    socket.head.contains("Sec-WebSocket-Protocol: mqtt\r\n"),
                    "{}",
                    socket.head
                );
                subscribe(&mut socket, version, &name);
                let mut plain = broker.client(version);
                plain.subscribe(&name, 1);
                plain.publish(&name, "from plain", 1);
                assert_eq!(socket.expect_publish().text(), "from plain");
                plain.expect_message(&name, "from plain");
                for number in 2..20 {
                    socket.send(&Publish::new(&name, "x").qos(1, number).encode(version));
                    let got = [socket.packet(), socket.packet()];
                    assert!(got.iter().any(|p| matches!(p, Packet::Publish(_))), "{got:?}");
                    assert!(got.iter().any(|p| matches!(p, Packet::PubAck(_))), "{got:?}");
                    plain.expect_message(&name, "x");
                }
                // 70 KB need the length in 64 bits.
                let big = "0123456789".repeat(7000);
                socket.send(&Publish::new(&name, &big).encode(version));
                assert_eq!(socket.expect_publish().text(), big);
                plain.expect_message(&name, &big);
                if version == V5 {
                    socket.send(&DISCONNECT);
                    assert_eq!(socket.expect_close(), Some(1000));
                }
            }
        }
        // Who is there is listed.
        let (client_id, mut socket) = (id(), open(ws, V5));
        let _other = WebSocket::connect(Box::new(tcp(ws)), &Connect::new(V5, &client_id));
        assert!(broker.cli(&["clients", "list"]).contains(&client_id));
        expect_alive(&mut socket);
    }
}

/// v5: MQTT-6.0.0-2: packets and frames need not end together.
#[test]
fn packets_and_frames_do_not_end_together() {
    let broker = Broker::start(&[WS]);
    let to = address(&broker, "w");
    let name = topic();
    let mut socket = WebSocket::open(Box::new(tcp(to)), V311);
    // One packet over messages of a byte each, then over the frames of one message.
    for byte in Connect::new(V311, &id()).encode() {
        socket.send(&[byte]);
    }
    assert_eq!(socket.expect_connack().code, 0);
    let packet = Subscribe::new(1).filter(&name, 0).encode(V311);
    let (first, rest) = packet.split_at(3);
    let (second, third) = rest.split_at(2);
    socket.send_raw(&frame(BINARY, first));
    socket.send_raw(&frame(LAST | PING, b"in between"));
    socket.send_raw(&frame(CONTINUATION, second));
    socket.send_raw(&frame(CONTINUATION, b""));
    socket.send_raw(&frame(LAST | CONTINUATION, third));
    assert_eq!(socket.frame(), Some((PONG, b"in between".to_vec())));
    assert!(matches!(socket.packet(), Packet::SubAck(_)));
    // Many packets in one frame, the last of them cut.
    let mut many = Vec::new();
    for number in 0..100 {
        many.extend(Publish::new(&name, number.to_string()).encode(V311));
    }
    let cut = many.len() - 2;
    socket.send(&many[..cut]);
    socket.send(&[]);
    socket.send(&many[cut..]);
    for number in 0..100 {
        assert_eq!(socket.expect_publish().text(), number.to_string());
    }
    // Frames over segments of TCP of a byte each.
    for byte in frame(LAST | BINARY, &Publish::new(&name, "slowly").encode(V311)) {
        socket.send_raw(&[byte]);
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(socket.expect_publish().text(), "slowly");
    // The request, a CONNECT and more at once.
    let mut all = request("/mqtt", &["Sec-WebSocket-Protocol: mqtt"]);
    let mut early = tcp(to);
    let mut bytes = std::mem::take(&mut all).into_bytes();
    bytes.extend(frame(LAST | BINARY, &Connect::new(V311, &id()).encode()));
    bytes.extend(frame(LAST | BINARY, &PINGREQ));
    std::io::Write::write_all(&mut early, &bytes).unwrap();
    let mut early = WebSocket::open_with(Box::new(early), V311, "");
    assert_eq!(early.expect_connack().code, 0);
    assert_eq!(early.packet(), Packet::PingResp);
}

/// Ping, pong and Close (RFC 6455, 5.5), and what must not be sent is answered by its code (7.4.1).
#[test]
fn control_frames_and_errors() {
    let broker = Broker::start(&[WS]);
    let to = address(&broker, "w");
    let mut socket = open(to, V5);
    for payload in [&b""[..], b"x", &[7; 125]] {
        socket.send_raw(&frame(LAST | PING, payload));
        assert_eq!(socket.frame(), Some((PONG, payload.to_vec())));
    }
    socket.send_raw(&frame(LAST | PONG, b"nobody asked"));
    expect_alive(&mut socket);
    socket.send_raw(&frame(LAST | CLOSE, &[0x03, 0xe8, b'b', b'y', b'e']));
    assert_eq!(socket.expect_close(), Some(1000));
    let mut socket = open(to, V5);
    socket.send_raw(&frame(LAST | CLOSE, b""));
    assert_eq!(socket.expect_close(), None);

    let unmasked = [LAST | BINARY, 2, 0xc0, 0];
    let mut protocol = 0;
    for (bytes, code) in [
        (frame(LAST | TEXT, b"text"), 1003),
        (unmasked.to_vec(), 1002),
        (frame(LAST | 0x40 | BINARY, b"x"), 1002),
        (frame(LAST | 3, b"x"), 1002),
        (frame(LAST | 11, b"x"), 1002),
        (frame(LAST | CONTINUATION, b"x"), 1002),
        ([frame(BINARY, b"\xc0"), frame(LAST | BINARY, b"\0")].concat(), 1002),
        (frame(PING, b"a part"), 1002),
        (frame(LAST | PING, &[0; 126]), 1002),
        (frame(LAST | CLOSE, b"x"), 1002),
        (frame(LAST | CLOSE, &[0x03, 0xed]), 1002),
        (frame(LAST | CLOSE, &[0x03, 0xe8, 0xff]), 1007),
        (vec![LAST | BINARY, 0x80 | 127, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3, 4], 1009),
    ] {
        let mut socket = open(to, V5);
        socket.send_raw(&bytes);
        assert_eq!(socket.expect_close(), Some(code), "{bytes:02x?}");
        protocol += u64::from(code == 1002);
    }
    expect_ended(&broker, "w", "ws_protocol_error", protocol);
    for reason in ["ws_text_frame", "ws_not_utf8", "ws_too_big"] {
        expect_ended(&broker, "w", reason, 1);
    }
    // An error of MQTT's: what MQTT has to say, then a Close.
    let mut socket = open(to, V5);
    socket.send(&[0xf1, 0]);
    assert!(matches!(socket.packet(), Packet::Disconnect(_)));
    assert!(socket.expect_close().is_some());
    // A connection that is cut has its will published.
    let mut watcher = broker.client(V311);
    let name = topic();
    watcher.subscribe(&name, 0);
    let will = Some(Will::new(&name, "gone"));
    let connect = Connect { will, ..Connect::new(V5, &id()) };
    drop(WebSocket::connect(Box::new(tcp(to)), &connect));
    watcher.expect_message(&name, "gone");
}

/// What a request that is no WebSocket for MQTT is answered.
#[test]
fn requests_that_are_refused() {
    let broker = Broker::start(&[
        WS,
        "listener.ws.o=127.0.0.1:0",
        "listener.ws.o.path=/other",
        "listener.ws.o.check_origins=https://example.com",
        "listener.ws.o.allow_origin_absence=off",
        "listener.ws.o.verify_protocol_header=off",
    ]);
    let (to, other) = (address(&broker, "w"), address(&broker, "o"));
    let mqtt = "Sec-WebSocket-Protocol: mqtt";
    let plain = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let long = format!("X-Long: {}", "x".repeat(9000));
    let old = request("/mqtt", &[mqtt]).replace("Version: 13", "Version: 8");
    let post = request("/mqtt", &[mqtt]).replace("GET", "POST");
    let keyless = request("/mqtt", &[mqtt]).replace(KEY, "short");
    for (listener, request, status, text, reason) in [
        ("w", plain, "426", "This is RingMQ, an MQTT broker", "ws_plain_http"),
        ("w", request("/", &[mqtt]), "404", "spoken at /mqtt", "ws_path"),
        ("w", post, "405", "Only GET", "ws_method"),
        ("w", request("/mqtt", &[]), "400", "Sec-WebSocket-Protocol", "ws_subprotocol"),
        ("w", request("/mqtt", &["Sec-WebSocket-Protocol: amqp"]), "400", "mqttv3.1", ""),
        ("w", old, "426", "Sec-WebSocket-Version: 13", "ws_version"),
        ("w", keyless, "400", "refused", "ws_bad_request"),
        ("w", request("/mqtt", &[mqtt, &long]), "431", "refused", "ws_head_too_long"),
        ("o", request("/mqtt", &[]), "404", "spoken at /other", "ws_path"),
        ("o", request("/other", &["Origin: https://evil.example"]), "403", "origin", ""),
        ("o", request("/other", &[]), "403", "origin", ""),
    ] {
        let text_of = answer(if listener == "w" { to } else { other }, &request);
        assert!(text_of.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{text_of}");
        assert!(text_of.contains(text), "{text_of}");
        if !reason.is_empty() {
            expect_ended(&broker, listener, reason, 1);
        }
    }
    expect_ended(&broker, "w", "ws_subprotocol", 2);
    expect_ended(&broker, "o", "ws_origin", 2);
    // No answer to what is no HTTP.
    assert_eq!(answer(to, "\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"), "");
    expect_ended(&broker, "w", "ws_not_http", 1);
    let good = request("/other?token=1", &["Origin: https://example.com"]);
    let socket = WebSocket::open_with(Box::new(tcp(other)), V5, &good);
    assert!(!socket.head.contains("Sec-WebSocket-Protocol"), "{}", socket.head);
    for name in ["mqtt", "mqttv3.1", "mqttv3.1.1"] {
        let wanted = request("/mqtt", &[&format!("Sec-WebSocket-Protocol: chat, {name}")]);
        let socket = WebSocket::open_with(Box::new(tcp(to)), V5, &wanted);
        let line = format!("Sec-WebSocket-Protocol: {name}\r\n");
        assert!(socket.head.contains(&line), "{}", socket.head);
    }
}

/// SEED-LSN-13: a proxy's headers tell where the client is, if they are believed; access rules hold for it.
#[test]
fn seed_lsn_13_forwarded_address() {
    let broker = Broker::start(&[
        WS,
        "listener.ws.f=127.0.0.1:0",
        "listener.ws.f.proxy_address_header=X-Forwarded-For",
        "listener.ws.f.proxy_port_header=X-Forwarded-Port",
        "listener.ws.f.access.1=deny 198.51.100.0/24",
        "listener.ws.f.access.2=allow all",
    ]);
    let (plain, believed) = (address(&broker, "w"), address(&broker, "f"));
    let head = |ip: &str| {
        let forwarded = format!("X-Forwarded-For: {ip}");
        request("/mqtt", &["Sec-WebSocket-Protocol: mqtt", &forwarded, "X-Forwarded-Port: 4711"])
    };
    let client_id = id();
    let mut socket =
        WebSocket::open_with(Box::new(tcp(believed)), V5, &head("192.0.2.1, 203.0.113.7"));
    socket.send(&Connect::new(V5, &client_id).encode());
    assert_eq!(socket.expect_connack().code, 0);
    let shown = broker.cli(&["clients", "show", &client_id]);
    assert!(shown.contains("203.0.113.7:4711"), "{shown}");
    // Not believed without the setting.
    let client_id = id();
    let mut socket = WebSocket::open_with(Box::new(tcp(plain)), V5, &head("203.0.113.7"));
    socket.send(&Connect::new(V5, &client_id).encode());
    assert_eq!(socket.expect_connack().code, 0);
    let shown = broker.cli(&["clients", "show", &client_id]);
    assert!(shown.contains("127.0.0.1") && !shown.contains("203.0.113.7"), "{shown}");
    let _ = answer(believed, &head("198.51.100.9"));
    expect_ended(&broker, "f", "access_denied", 1);
}

/// The cases of Autobahn's test suite, driven by wsproto for Python over a real socket: tests/clients/websocket_cases.py.
#[test]
fn seed_lsn_04_the_cases_of_autobahn() {
    let broker = Broker::start(&["--shards", "2", WS, "mqtt.max_packet_size=17MB"]);
    let to = address(&broker, "w");
    let python = target().join("test-venv/bin/python");
    assert!(python.is_file(), "{} is missing: run scripts/install-test-deps", python.display());
    let script = root().join("tests/clients/websocket_cases.py");
    let output = run(Command::new(python).arg(script).args(["127.0.0.1", &to.port().to_string()]));
    let said = String::from_utf8_lossy(&output.stdout);
    let cases = said.split(' ').next().and_then(|count| count.parse::<u32>().ok());
    assert!(said.trim_end().ends_with(" cases, 0 failed") && cases >= Some(190), "{said}");
    let mut client = broker.client(V5);
    client.expect_alive();
}

/// Why MQTT ends a connection is the code of WebSocket's Close (RFC 6455, 7.4.1).
#[test]
fn ends_of_mqtt_have_close_codes() {
    let mut broker = Broker::start(&[WS, "listener.ws.s=127.0.0.1:0", "mqtt.max_packet_size=4KB"]);
    let to = address(&broker, "w");
    for version in [V311, V5] {
        let closed = |bytes: &[u8]| {
            let mut socket = open(to, version);
            socket.send(bytes);
            close_code(&mut socket)
        };
        assert_eq!(closed(&DISCONNECT), Some(1000), "all is done");
        assert_eq!(closed(&[0, 0]), Some(1002), "a packet of type 0");
        assert_eq!(closed(&Connect::new(version, &id()).encode()), Some(1002), "a second CONNECT");
        let large = Publish::new("t", "x".repeat(5000)).encode(version);
        assert_eq!(closed(&large), Some(1009), "a packet above mqtt.max_packet_size");
        let mut socket = WebSocket::open(Box::new(tcp(to)), version);
        socket.send(&PINGREQ);
        assert_eq!(close_code(&mut socket), Some(1002), "no CONNECT");
        // Taken over, kicked, its listener stopped.
        let client_id = id();
        let connect = Connect::new(version, &client_id);
        let mut old = WebSocket::connect(Box::new(tcp(to)), &connect);
        let mut new = WebSocket::connect(Box::new(tcp(to)), &connect);
        assert_eq!(close_code(&mut old), Some(1000), "the same client id connected again");
        let _ = broker.cli(&["clients", "kick", &client_id]);
        assert_eq!(close_code(&mut new), Some(1008), "an administrator ended it");
        let mut socket = open(address(&broker, "s"), version);
        let _ = broker.cli(&["listeners", "restart", "ws", "s"]);
        assert_eq!(close_code(&mut socket), Some(1001), "its listener stops");
    }
    let mut socket = WebSocket::open(Box::new(tcp(to)), V311);
    socket.send(&Connect::new(V311, "").clean(false).encode());
    assert_eq!(close_code(&mut socket), Some(1008), "its client id is refused");
    let mut socket = open(to, V5);
    broker.terminate();
    assert_eq!(close_code(&mut socket), Some(1001), "the broker stops");
    assert!(broker.wait_end(WAIT).success());
}

/// The code of a Close, after packets that say the same.
#[track_caller]
fn close_code(socket: &mut WebSocket) -> Option<u16> {
    loop {
        let (opcode, payload) = socket.frame().expect("a Close, not the end");
        if opcode == CLOSE {
            return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        }
        assert_eq!(opcode, BINARY, "{payload:02x?}");
    }
}
