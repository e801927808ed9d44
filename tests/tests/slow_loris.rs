//! Connections that send nothing, or a byte now and then, are closed at their deadline and counted, on every transport.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ringmq_tests::certificates::Site;
use ringmq_tests::listening::{address, expect_ended, start};
use ringmq_tests::websocket::{WebSocket, frame, request, tcp};
use ringmq_tests::{Broker, Connect, V5, V311, id, tls};

/// How long until the other side has ended, while `bytes` are sent one by one.
fn ends_after(mut stream: TcpStream, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bytes = bytes.iter();
    loop {
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(0) => return began.elapsed(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return began.elapsed(),
        }
        assert!(began.elapsed() < Duration::from_secs(8), "it is still open");
        if let Some(byte) = bytes.next() {
            let _ = stream.write_all(&[*byte]);
        }
    }
}

/// Ten of each kind at once: silent ones, and some that send `bytes` slowly.
fn attack(broker: &Broker, name: &str, bytes: &[u8], reason: &str, within_ms: (u128, u128)) {
    let to = address(broker, name);
    thread::scope(|scope| {
        let ends = |bytes: &'static [u8]| scope.spawn(move || ends_after(tcp(to), bytes));
        let bytes: &'static [u8] = bytes.to_vec().leak();
        let threads: Vec<_> =
            (0..20).map(|number| ends(if number % 2 == 0 { b"" } else { bytes })).collect();
        for thread in threads {
            let took = thread.join().unwrap().as_millis();
            assert!((within_ms.0..within_ms.1).contains(&took), "{name}: {took} ms");
        }
    });
    expect_ended(broker, name, reason, 20);
}

fn established(broker: &Broker, site: &Site) -> Vec<WebSocket> {
    let open = |to: SocketAddr| WebSocket::connect(Box::new(tcp(to)), &Connect::new(V5, &id()));
    let wss = tls::begin(tcp(address(broker, "wss")), &site.authority.pem);
    let wss = WebSocket::connect(Box::new(wss), &Connect::new(V5, &id()));
    vec![open(address(broker, "ws")), wss]
}

/// A handshake has a deadline of its own; bytes that come slowly do not prolong it, and who is in is not concerned.
#[test]
fn handshakes_have_a_deadline() {
    let site = Site::new();
    let mut settings: Vec<String> =
        [site.listener("ssl", "ssl"), site.listener("wss", "wss")].concat();
    settings.push("listener.ws.ws=127.0.0.1:0".to_owned());
    for kind in ["ssl", "ws", "wss"] {
        settings.push(format!("listener.{kind}.{kind}.handshake_timeout=1s"));
    }
    let broker = start(&[], &[settings]);
    let mut others = established(&broker, &site);
    let mut plain = broker.client(V311);
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
    let within_ms = (900, 2500);
    attack(&broker, "ssl", &hello, "tls_timeout", within_ms);
    attack(&broker, "wss", &hello, "tls_timeout", within_ms);
    attack(&broker, "ws", request("/mqtt", &[]).as_bytes(), "ws_timeout", within_ms);
    // TLS is done, but the request does not come.
    let mut stream = tls::begin(tcp(address(&broker, "wss")), &site.authority.pem);
    stream.write_all(b"GET /mqtt HTTP/1.1\r\n").unwrap();
    let began = Instant::now();
    let _ = stream.read_to_end(&mut Vec::new());
    assert!((900..2500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    expect_ended(&broker, "wss", "ws_timeout", 1);
    for socket in &mut others {
        socket.send_raw(&frame(0x89, b"still here"));
        assert_eq!(socket.frame(), Some((10, b"still here".to_vec())));
    }
    plain.expect_alive();
}

/// When the layers are open the deadline for CONNECT holds; slow bytes do not prolong it either.
#[test]
fn connect_has_a_deadline_on_every_transport() {
    let site = Site::new();
    let mut settings = site.listener("ssl", "ssl");
    settings.extend(
        [
            "listener.tcp.tcp=127.0.0.1:0",
            "listener.ws.ws=127.0.0.1:0",
            "mqtt.client.idle_timeout=1s",
        ]
        .map(str::to_owned),
    );
    let broker = start(&[], &[settings]);
    let connect = Connect::new(V5, &id()).encode();
    let to = address(&broker, "tcp");
    for bytes in [&b""[..], &connect[..connect.len() - 1]] {
        let took = ends_after(tcp(to), bytes).as_millis();
        assert!((900..2500).contains(&took), "{took} ms");
    }
    let began = Instant::now();
    let mut stream = tls::begin(tcp(address(&broker, "ssl")), &site.authority.pem);
    stream.write_all(&connect[..5]).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    let request = request("/mqtt", &["Sec-WebSocket-Protocol: mqtt"]);
    let mut socket = WebSocket::open_with(Box::new(tcp(address(&broker, "ws"))), V5, &request);
    while socket.frame().is_some() {}
    assert!((1800..4500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    let text = broker.cli(&["listeners", "--json"]);
    let counted = text
        .lines()
        .filter(|line| line.contains("idle_timeout") || line.contains("partial_packet"));
    assert_eq!(counted.count(), 3, "{text}");
}
