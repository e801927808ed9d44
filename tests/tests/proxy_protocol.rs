//! The PROXY protocol in front of MQTT, TLS and WebSocket (SEED-LSN-12), by headers made here and by HAProxy.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringmq_tests::certificates::{Folder, Site};
use ringmq_tests::listening::{address, expect_ended, start};
use ringmq_tests::packet::{DISCONNECT, PINGREQ};
use ringmq_tests::websocket::{Stream, WebSocket, read_end, tcp};
use ringmq_tests::{Broker, Client, Connect, V5, V311, WAIT, id, tls};

/// Where the header says the client is.
const CLIENT: &str = "203.0.113.7:4711";

/// A header of version 1.
fn v1(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let (kind, to) = if source.is_ipv4() { ("TCP4", "192.0.2.1") } else { ("TCP6", "2001:db8::1") };
    format!("PROXY {kind} {} {to} {} 1883\r\n", source.ip(), source.port()).into_bytes()
}

/// A header of version 2 with this command and what follows the addresses.
fn v2(command: u8, source: &str, more: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let (source, to): (SocketAddr, SocketAddr) = (source.parse().unwrap(), source.parse().unwrap());
    let mut ports = source.port().to_be_bytes().to_vec();
    ports.extend(1883_u16.to_be_bytes());
    let family = match (source, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            body.extend([from.ip().octets(), to.ip().octets()].concat());
            0x11
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            body.extend([from.ip().octets(), to.ip().octets()].concat());
            0x21
        }
        _ => unreachable!(),
    };
    body.extend(ports);
    body.extend_from_slice(more);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

/// Connects over a stream without a layer in between.
#[track_caller]
fn connect(to: SocketAddr, header: &[u8], client_id: &str) -> Client {
    let mut client = Client::open(to, V5);
    client.send(header);
    client.send(&Connect::new(V5, client_id).encode());
    assert_eq!(client.expect_connack().code, 0);
    client
}

#[track_caller]
fn expect_shown(broker: &Broker, client_id: &str, address: &str) {
    let shown = broker.cli(&["clients", "show", client_id]);
    assert!(shown.contains(address), "{address} is not in {shown}");
    let list = broker.cli(&["clients", "list"]);
    let ip = address.rsplit_once(':').unwrap().0;
    let line = list.lines().find(|line| line.contains(client_id));
    assert!(line.is_some_and(|line| line.contains(ip)), "{list}");
}

/// SEED-LSN-12: both versions, IPv4 and IPv6, with 2 and 8 shards; whole, in bytes, and with the CONNECT in one segment.
#[test]
fn seed_lsn_12_real_address() {
    for shards in ["2", "8"] {
        let settings =
            ["listener.tcp.p=127.0.0.1:0", "listener.tcp.p.proxy_protocol=on"].map(str::to_owned);
        let broker = start(&["--shards", shards], &[settings.to_vec()]);
        let to = address(&broker, "p");
        let v6 = "[2001:db8::7]:4711";
        let alpn = [1, 0, 4, b'm', b'q', b't', b't'];
        for (header, address) in [
            (v1(CLIENT), CLIENT),
            (v1(v6), v6),
            (v2(1, CLIENT, &[]), CLIENT),
            (v2(1, CLIENT, &alpn), CLIENT),
            (v2(1, v6, &[]), v6),
            // The proxy's own check, and what it does not know: the socket's address holds.
            (v2(0, CLIENT, &[]), "127.0.0.1:0"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1:0"),
        ] {
            let address = address
                .strip_suffix(":0")
                .map_or_else(|| address.to_owned(), |ip| format!("{ip}:"));
            for _ in 0..3 {
                let client_id = id();
                let mut client = connect(to, &header, &client_id);
                expect_shown(&broker, &client_id, &address);
                client.expect_alive();
            }
            let client_id = id();
            let mut client = Client::open(to, V5);
            for byte in &header {
                client.send(&[*byte]);
                thread::sleep(Duration::from_millis(1));
            }
            client.send(&Connect::new(V5, &client_id).encode());
            assert_eq!(client.expect_connack().code, 0);
            expect_shown(&broker, &client_id, &address);
            let mut client = Client::open(to, V5);
            let mut all = header.clone();
            all.extend(Connect::new(V5, &id()).encode());
            all.extend(PINGREQ);
            all.extend(DISCONNECT);
            client.send(&all);
            assert_eq!(client.expect_connack().code, 0);
            let _ = client.packet();
            client.expect_closed();
        }
    }
}

/// SEED-LSN-12: before TLS, WebSocket and both.
#[test]
fn seed_lsn_12_before_other_layers() {
    let site = Site::new();
    let mut settings = site.listener("ssl", "ssl");
    settings.extend(site.listener("wss", "wss"));
    settings.push("listener.ws.ws=127.0.0.1:0".to_owned());
    for kind in ["ssl", "ws", "wss"] {
        settings.push(format!("listener.{kind}.{kind}.proxy_protocol=on"));
    }
    let broker = start(&[], &[settings]);
    for header in [v1(CLIENT), v2(1, CLIENT, &[])] {
        for kind in ["ssl", "ws", "wss"] {
            let mut stream = tcp(address(&broker, kind));
            stream.write_all(&header).unwrap();
            let mut stream: Box<dyn Stream> = match kind {
                "ws" => Box::new(stream),
                _ => Box::new(tls::begin(stream, &site.authority.pem)),
            };
            let client_id = id();
            let connect = Connect::new(V311, &client_id);
            if kind == "ssl" {
                stream.write_all(&connect.encode()).unwrap();
                let mut ack = [0; 4];
                stream.read_exact(&mut ack).unwrap();
                assert_eq!(ack, [0x20, 2, 0, 0]);
                expect_shown(&broker, &client_id, CLIENT);
            } else {
                let _socket = WebSocket::connect(stream, &connect);
                expect_shown(&broker, &client_id, CLIENT);
            }
        }
    }
}

/// SEED-LSN-08, SEED-LSN-12: rules hold for the real address.
#[test]
fn access_rules_hold_for_the_real_address() {
    let broker = Broker::start(&[
        "listener.tcp.p=127.0.0.1:0",
        "listener.tcp.p.proxy_protocol=on",
        "listener.tcp.p.access.1=deny 203.0.113.0/24",
        "listener.tcp.p.access.2=allow all",
    ]);
    let to = address(&broker, "p");
    let mut client = Client::open(to, V5);
    client.send(&v1(CLIENT));
    client.try_send(&Connect::new(V5, &id()).encode());
    client.expect_closed();
    expect_ended(&broker, "p", "access_denied", 1);
    let _client = connect(to, &v1("198.51.100.9:1"), &id());
}

/// SEED-LSN-12: what is no header, and one that does not come in time, is closed and counted.
#[test]
fn seed_lsn_12_garbage_and_slow_headers() {
    let broker = Broker::start(&[
        "listener.tcp.p=127.0.0.1:0",
        "listener.tcp.p.proxy_protocol=on",
        "listener.tcp.p.proxy_protocol_timeout=1s",
    ]);
    let to = address(&broker, "p");
    let mut bad_v2 = v2(1, CLIENT, &[]);
    bad_v2[12] = 0x31;
    for (bytes, reason) in [
        (Connect::new(V5, &id()).encode(), "proxy_missing"),
        (b"PROXY TCP4 1.2.3.4 nonsense\r\n".to_vec(), "proxy_malformed"),
        (bad_v2, "proxy_malformed"),
        (format!("PROXY TCP4 {}", "1".repeat(200)).into_bytes(), "proxy_too_long"),
    ] {
        let mut stream = tcp(to);
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_end(&mut stream), b"");
        let text = broker.cli(&["listeners", "--json"]);
        assert!(text.contains(reason), "{reason}: {text}");
    }
    let began = Instant::now();
    let mut slow: Vec<TcpStream> = (0..5).map(|_| tcp(to)).collect();
    slow[1].write_all(b"PROXY TCP4 ").unwrap();
    slow[2].write_all(&v2(1, CLIENT, &[])[..20]).unwrap();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(100));
        let _ = slow[3].write_all(b"P"); // the second is none
        let _ = slow[4].write_all(b"\r");
    }
    for stream in &mut slow {
        assert_eq!(read_end(stream), b"");
    }
    assert!((900..2500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    expect_ended(&broker, "p", "proxy_timeout", 3);
    let mut client = connect(to, &v1(CLIENT), &id());
    thread::sleep(Duration::from_millis(1200));
    client.expect_alive();
}

/// HAProxy, which ends with the test.
struct HaProxy {
    child: Child,
    address: SocketAddr,
    _folder: Folder,
}

impl HaProxy {
    fn start(to: SocketAddr, option: &str) -> HaProxy {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = Folder::new();
        let file = folder.write(
            "haproxy.cfg",
            format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
                 listen mqtt\n  bind 127.0.0.1:{port}\n  server broker {to} {option}\n"
            ),
        );
        // Debian has it where only root looks.
        let debian = Path::new("/usr/sbin/haproxy");
        let program = if debian.is_file() { debian } else { Path::new("haproxy") };
        let mut command = Command::new(program);
        command.args(["-db", "-f", &file]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("haproxy runs: run scripts/install-test-deps");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let end = Instant::now() + WAIT;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "haproxy does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        HaProxy { child, address, _folder: folder }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SEED-LSN-12: HAProxy in front, with both versions.
#[test]
fn seed_lsn_12_haproxy() {
    let broker = Broker::start(&["listener.tcp.p=127.0.0.1:0", "listener.tcp.p.proxy_protocol=on"]);
    let to = address(&broker, "p");
    for option in ["send-proxy", "send-proxy-v2"] {
        let proxy = HaProxy::start(to, option);
        let client_id = id();
        let mut client = connect(proxy.address, b"", &client_id);
        let own = client.stream().local_addr().unwrap().to_string();
        expect_shown(&broker, &client_id, &own);
        client.subscribe("t", 1);
        client.publish("t", &"x".repeat(60_000), 1);
        assert_eq!(client.message().text().len(), 60_000);
    }
}
