//! What a connection costs that does nothing, by a counting allocator. The figures are printed (`--nocapture`).
#![allow(missing_docs, reason = "tests have no readers of documentation")]

mod common;

use common::{ClientKind, Site, client_config, load};
use filter::{Filter, FilterSettings, TlsOptions, WebSocketSettings};
use ringmq_filter as filter;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, version};
use std::io::Write;
use std::sync::Arc;

/// Bytes that are held after this call and were not before.
fn held(call: impl FnOnce()) -> i64 {
    allocation_counter::measure(call).bytes_current
}

const REQUEST: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: broker.example.com:8084\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

static TLS12: [&rustls::SupportedProtocolVersion; 1] = [&version::TLS12];
static TLS13: [&rustls::SupportedProtocolVersion; 1] = [&version::TLS13];

/// Bytes held by the allocator for one filter, by its own account, and after its peer was taken.
struct Cost {
    allocated: usize,
    said: usize,
    without_peer: usize,
}

/// Opens a connection and looks at what its filter holds when all has been said.
fn cost(settings: &Arc<FilterSettings>, mut client: Option<ClientConnection>) -> Cost {
    let (mut plain, mut wire) = (Vec::with_capacity(1 << 16), Vec::with_capacity(1 << 16));
    let mut made = None;
    let mut allocated = held(|| made = Some(Filter::new(settings)));
    let mut filter = made.expect("it was just made");
    let is_websocket = settings.websocket.is_some();
    let mut asked = false;
    for _ in 0..10 {
        let mut raw = Vec::new();
        match &mut client {
            Some(client) => {
                if !client.is_handshaking() && is_websocket && !asked {
                    client.writer().write_all(REQUEST).unwrap();
                    asked = true;
                }
                client.write_tls(&mut raw).unwrap();
            }
            None if is_websocket && !asked => {
                raw.extend_from_slice(REQUEST);
                asked = true;
            }
            None => {}
        }
        allocated += held(|| {
            filter.received(&mut raw, &mut plain, &mut wire).unwrap();
            if filter.is_open() {
                filter.send([&b"\x20\x02\0\0"[..]].into_iter(), &mut wire).unwrap();
            }
        });
        if let Some(client) = &mut client {
            let mut wire = &wire[..];
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        wire.clear();
    }
    assert!(filter.is_open());
    let said = filter.heap_bytes();
    let without_peer = allocated + held(|| drop(filter.take_peer()));
    let bytes = |all: i64| usize::try_from(all).expect("a filter holds something");
    Cost { allocated: bytes(allocated), said, without_peer: bytes(without_peer) }
}

#[test]
fn idle_connections_cost_little() {
    let site = Site::new();
    let tls = |options: &TlsOptions, websocket| {
        let websocket: Option<WebSocketSettings> = websocket;
        Arc::new(FilterSettings { tls: Some(load(options).0), websocket, ..Default::default() })
    };
    let websocket = Some(WebSocketSettings::default());
    let client = |kind: &ClientKind| {
        let name = ServerName::try_from("localhost").unwrap();
        Some(ClientConnection::new(client_config(&site.authority, kind), name).unwrap())
    };
    let tls12 = ClientKind { versions: &TLS12, ..Default::default() };
    let tls13 = ClientKind { versions: &TLS13, ..Default::default() };
    let certified = ClientKind {
        certificate: Some(site.authority.client("device-7", 7)),
        versions: &TLS13,
        ..Default::default()
    };
    let verifying = site.verifying();
    let chacha = TlsOptions {
        ciphers: vec!["TLS_CHACHA20_POLY1305_SHA256".to_owned()],
        ..site.options.clone()
    };
    let plain_websocket =
        Arc::new(FilterSettings { websocket: websocket.clone(), ..Default::default() });
    let cases = [
        ("ws", plain_websocket, None, 512),
        ("TLS 1.2", tls(&site.options, None), client(&tls12), 12 * 1024),
        ("TLS 1.3", tls(&site.options, None), client(&tls13), 12 * 1024),
        ("TLS 1.3, ChaCha20", tls(&chacha, None), client(&tls13), 12 * 1024),
        ("TLS 1.3, client certificate", tls(&verifying, None), client(&certified), 12 * 1024),
        (
            "wss (TLS 1.3)",
            tls(&TlsOptions { alpn: vec![], ..site.options.clone() }, websocket),
            client(&tls13),
            12 * 1024,
        ),
    ];
    for (name, settings, client, max) in cases {
        let Cost { allocated, said, without_peer } = cost(&settings, client);
        println!(
            "{name}: {allocated} bytes allocated (says {said}), {without_peer} when its peer is taken"
        );
        assert!(allocated <= max, "{name}: {allocated} of {max}");
        let off = allocated.abs_diff(said) * 100 / allocated;
        assert!(off <= 20, "{name}: says {said}, has {allocated}: {off}% off");
    }
}
