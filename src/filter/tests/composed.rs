//! All layers together, and input that nobody meant well.
#![allow(missing_docs, reason = "tests have no readers of documentation")]

mod common;

use common::{Authority, ClientKind, Pair, Site, client_config, load};
use filter::{
    CloseWhy, Filter, FilterError, FilterSettings, ForwardedSettings, PeerInfo, ProxySettings,
    Stage, Subprotocol, TlsOptions, TlsServer, WebSocketSettings,
};
use proptest::prelude::*;
use ringmq_filter as filter;
use std::sync::{Arc, OnceLock};

const PROXY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x30\x39\x07\x5b";
const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: token=secret\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A client's frame with the mask 1, 2, 3, 4.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
        _ => frame.extend([0xFE, len[0], len[1]]),
    }
    frame.extend([1, 2, 3, 4]);
    frame
        .extend(payload.iter().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn wss(site: &Site) -> Arc<FilterSettings> {
    let options = TlsOptions { alpn: vec!["http/1.1".to_owned()], ..site.verifying() };
    Arc::new(FilterSettings {
        proxy: Some(ProxySettings::default()),
        tls: Some(load(&options).0),
        websocket: Some(WebSocketSettings {
            forwarded: Some(ForwardedSettings::default()),
            ..WebSocketSettings::default()
        }),
    })
}

fn browser(site: &Site) -> ClientKind {
    ClientKind {
        certificate: Some(site.authority.client("device-7", 7)),
        alpn: &["http/1.1"],
        ..ClientKind::default()
    }
}

/// Gives a filter its PROXY header, which a client does not send.
fn introduce(pair: &mut Pair) {
    let (mut plain, mut wire) = (vec![], vec![]);
    assert_eq!(pair.filter.stage(), Stage::Proxy);
    for piece in PROXY.to_vec().chunks_mut(pair.step) {
        pair.filter.received(piece, &mut plain, &mut wire).unwrap();
    }
    assert_eq!(pair.filter.stage(), Stage::Tls);
    assert!(plain.is_empty() && wire.is_empty());
}

#[test]
fn wss_behind_a_proxy() {
    let site = Site::new();
    let settings = wss(&site);
    let config = client_config(&site.authority, &browser(&site));
    for step in [usize::MAX, 1, 5, 100] {
        let mut pair = Pair::new(&settings, &config, "localhost");
        pair.step = step;
        introduce(&mut pair);
        pair.pump().unwrap();
        assert_eq!(pair.filter.stage(), Stage::WebSocket);
        pair.say(REQUEST).unwrap();
        assert!(pair.filter.is_open());
        assert!(pair.heard.starts_with(b"HTTP/1.1 101 ") && pair.heard.ends_with(b"\r\n\r\n"));
        pair.heard.clear();
        let said = [masked(0x02, b"CONN"), masked(0x89, b"ping"), masked(0x80, b"ECT")].concat();
        pair.say(&said).unwrap();
        assert_eq!(pair.plain, b"CONNECT");
        assert_eq!(pair.heard, b"\x8A\x04ping");
        pair.heard.clear();
        pair.answer(&[b"CONN", b"ACK"]);
        pair.answer(&[b""]);
        pair.answer(&[]);
        assert_eq!(pair.heard, b"\x82\x07CONNACK");

        let peer = pair.filter.take_peer();
        assert_eq!(peer.address, Some("192.0.2.1:12345".parse().unwrap()));
        assert_eq!(peer.destination, Some("198.51.100.2:1883".parse().unwrap()));
        assert_eq!(peer.common_name(), Some("device-7"));
        let websocket = peer.websocket.unwrap();
        assert_eq!(websocket.subprotocol, Some(Subprotocol::Mqtt));
        assert_eq!(websocket.cookie("token"), Some("secret"));
        assert_eq!(*pair.filter.peer(), PeerInfo::default());

        let idle = pair.filter.heap_bytes();
        pair.say(&masked(0x82, b"PINGREQ")).unwrap();
        assert_eq!(pair.filter.heap_bytes(), idle, "the peer is forgotten for good");

        pair.heard.clear();
        pair.say(&masked(0x88, b"\x03\xe8")).unwrap();
        assert_eq!(pair.heard, b"\x88\x02\x03\xe8");
        assert!(pair.filter.is_ended());
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn one_send_may_be_many_records_and_is_one_frame() {
    let site = Site::new();
    let config = client_config(&site.authority, &browser(&site));
    let mut pair = Pair::new(&wss(&site), &config, "localhost");
    introduce(&mut pair);
    pair.pump().unwrap();
    pair.say(REQUEST).unwrap();
    pair.heard.clear();
    let big = vec![9; 100_000];
    pair.answer(&[b"head", &big, b"tail"]);
    let header = [&[0x82, 127][..], &100_008u64.to_be_bytes()].concat();
    assert_eq!(pair.heard, [&header, &b"head"[..], &big, b"tail"].concat());
}

#[test]
fn what_is_wrong_inside_is_said_inside() {
    let site = Site::new();
    let config = client_config(&site.authority, &browser(&site));
    for (inputs, answer, reason) in [
        (&[&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]][..], &b"HTTP/1.1 404 "[..], "ws_path"),
        (&[REQUEST, b"\x81\x80mask"], b"\x88\x1a\x03\xeb", "ws_text_frame"),
        (&[b"\x10\x0c\0\x04MQTT"], b"", "ws_not_http"),
    ] {
        let mut pair = Pair::new(&wss(&site), &config, "localhost");
        introduce(&mut pair);
        pair.pump().unwrap();
        let mut result = Ok(());
        for input in inputs {
            pair.heard.clear();
            result = result.and_then(|()| pair.say(input));
        }
        assert_eq!(result.unwrap_err().reason(), reason);
        assert!(pair.heard.starts_with(answer), "{:?}", String::from_utf8_lossy(&pair.heard));
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        assert!(pair.filter.is_ended());
    }
}

#[test]
fn goodbye_at_every_stage() {
    let site = Site::new();
    let (settings, config) = (wss(&site), client_config(&site.authority, &browser(&site)));
    let goodbye = |pair: &mut Pair| {
        pair.heard.clear();
        let mut wire = vec![];
        pair.filter.close(CloseWhy::GoingAway, &mut wire);
        assert!(!pair.filter.is_open());
        pair.hear(&wire);
        wire.len()
    };
    let mut pair = Pair::new(&settings, &config, "localhost");
    assert_eq!(goodbye(&mut pair), 0);
    let mut pair = Pair::new(&settings, &config, "localhost");
    introduce(&mut pair);
    assert_eq!(goodbye(&mut pair), 0);
    assert!(pair.filter.is_ended());
    pair.pump().unwrap();
    assert_eq!((pair.client_error, pair.wire_bytes), (None, 0), "what comes after is not read");

    let mut pair = Pair::new(&settings, &config, "localhost");
    introduce(&mut pair);
    pair.pump().unwrap();
    goodbye(&mut pair);
    assert!(pair.heard.starts_with(b"HTTP/1.1 503 "));
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());

    let mut pair = Pair::new(&settings, &config, "localhost");
    introduce(&mut pair);
    pair.pump().unwrap();
    pair.say(REQUEST).unwrap();
    goodbye(&mut pair);
    assert_eq!(pair.heard, b"\x88\x12\x03\xe9the server stops");
    assert!(!pair.filter.is_ended());
    pair.say(&[masked(0x82, b"late"), masked(0x88, b"\x03\xe9")].concat()).unwrap();
    assert!(pair.filter.is_ended() && pair.plain.is_empty());
}

#[test]
fn x_forwarded_for_is_nearer_to_the_client_than_proxy() {
    let settings = Arc::new(FilterSettings {
        proxy: Some(ProxySettings::default()),
        websocket: Some(WebSocketSettings {
            forwarded: Some(ForwardedSettings::default()),
            ..WebSocketSettings::default()
        }),
        ..FilterSettings::default()
    });
    let request = String::from_utf8(REQUEST.to_vec()).unwrap();
    let request = request.replace("Host:", "X-Forwarded-For: 203.0.113.9\r\nHost:");
    let mut raw = [PROXY, request.as_bytes(), &masked(0x82, b"CONNECT")].concat();
    let (mut plain, mut wire) = (vec![], vec![]);
    let mut filter = Filter::new(&settings);
    filter.received(&mut raw, &mut plain, &mut wire).unwrap();
    assert_eq!(filter.peer().address, Some("203.0.113.9:0".parse().unwrap()));
    assert_eq!(plain, b"CONNECT");
}

#[test]
fn proxy_alone_and_nothing_at_all() {
    let proxied =
        Arc::new(FilterSettings { proxy: Some(ProxySettings::default()), ..Default::default() });
    assert!(!proxied.is_plain() && FilterSettings::default().is_plain());
    let mut filter = Filter::new(&proxied);
    let (mut plain, mut wire) = (vec![], vec![]);
    let mut raw = [PROXY, b"CONNECT"].concat();
    filter.received(&mut raw, &mut plain, &mut wire).unwrap();
    filter.send([&b"CONN"[..], b"ACK"].into_iter(), &mut wire).unwrap();
    assert_eq!((&plain[..], &wire[..]), (&b"CONNECT"[..], &b"CONNACK"[..]));
    let mut filter = Filter::new(&proxied);
    let error = filter.received(&mut b"CONNECT".to_vec(), &mut plain, &mut wire).unwrap_err();
    assert!(matches!(error, FilterError::Proxy(_)) && error.reason() == "proxy_missing");
}

/// The settings the fuzz tests pick from: each set of layers.
fn all_settings() -> &'static [Arc<FilterSettings>] {
    static SETTINGS: OnceLock<(Site, Vec<Arc<FilterSettings>>)> = OnceLock::new();
    let (_, settings) = SETTINGS.get_or_init(|| {
        let site = Site::new();
        let server = load(&TlsOptions { handshake_bytes_max: 4096, ..site.options.clone() }).0;
        let pick = |bits: usize| {
            let proxy = (bits & 1 > 0).then_some(ProxySettings { v2_len_max: 256 });
            let tls: Option<TlsServer> = (bits & 2 > 0).then(|| server.clone());
            let websocket = (bits & 4 > 0)
                .then(|| WebSocketSettings { head_len_max: 512, ..Default::default() });
            Arc::new(FilterSettings { proxy, tls, websocket })
        };
        let settings = (0..8).map(pick).collect();
        (site, settings)
    });
    settings
}

/// Something like what the layers hope for, and not.
fn a_piece() -> impl Strategy<Value = Vec<u8>> {
    let record =
        (20u8..25, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(kind, body)| {
            let len = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&[kind, 3, 3][..], &len, &body].concat()
        });
    let frame = (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200))
        .prop_map(|(first, payload)| masked(first, &payload));
    prop_oneof![
        Just(PROXY.to_vec()),
        Just(REQUEST.to_vec()),
        Just(hello().to_vec()),
        record,
        frame,
        proptest::collection::vec(any::<u8>(), 0..300),
    ]
}

/// The first bytes of a client of TLS.
fn hello() -> &'static [u8] {
    static HELLO: OnceLock<Vec<u8>> = OnceLock::new();
    HELLO.get_or_init(|| {
        let config = client_config(&Authority::new("any"), &ClientKind::default());
        let mut pair = Pair::new(&all_settings()[2], &config, "localhost");
        let mut hello = Vec::new();
        pair.client.write_tls(&mut hello).unwrap();
        hello
    })
}

/// Feeds a filter and watches its limits.
fn feed(
    settings: &Arc<FilterSettings>,
    bytes: &[u8],
    step: usize,
) -> (Vec<u8>, Option<FilterError>) {
    let mut filter = Filter::new(settings);
    let (mut plain, mut wire) = (vec![], vec![]);
    let mut failed = None;
    for piece in bytes.chunks(step) {
        let before = wire.len();
        if let Err(error) = filter.received(&mut piece.to_vec(), &mut plain, &mut wire) {
            assert!(failed.is_none(), "an error ends it");
            assert!(!error.reason().is_empty() && !error.to_string().is_empty());
            failed = Some(error);
        } else if failed.is_some() {
            assert_eq!(wire.len(), before, "after an error nothing is said");
        }
        assert!(filter.heap_bytes() < 64 * 1024, "{}", filter.heap_bytes());
        assert_eq!(filter.is_ended(), filter.stage() == Stage::Ended);
        if filter.is_open() {
            filter.send([&b"answer"[..]].into_iter(), &mut wire).unwrap();
        }
    }
    filter.close(CloseWhy::Policy, &mut wire);
    (plain, failed)
}

proptest! {
    #[test]
    fn no_input_panics_and_none_is_kept_beyond_the_limits(
        layers in 0usize..8,
        pieces in proptest::collection::vec(a_piece(), 0..8),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
        step in prop_oneof![Just(1), Just(usize::MAX), 1usize..500],
    ) {
        let mut bytes = pieces.concat();
        if !bytes.is_empty() {
            for (at, to) in changes {
                *at.get_mut(&mut bytes) = to;
            }
        }
        let settings = &all_settings()[layers];
        let whole = feed(settings, &bytes, usize::MAX);
        let cut = feed(settings, &bytes, step);
        if settings.tls.is_none() {
            prop_assert_eq!(whole, cut);
        }
    }

    #[test]
    fn a_broken_stream_inside_tls_does_not_panic(
        said in proptest::collection::vec(a_piece(), 0..4),
        with_request in any::<bool>(),
        flip in proptest::option::of((any::<proptest::sample::Index>(), 1u8..)),
        step in 1usize..2000,
    ) {
        static CONFIG: OnceLock<(Site, Arc<FilterSettings>)> = OnceLock::new();
        let (site, settings) = CONFIG.get_or_init(|| {
            let site = Site::new();
            let settings = FilterSettings {
                tls: Some(load(&site.options).0),
                websocket: Some(WebSocketSettings::default()),
                ..Default::default()
            };
            (site, Arc::new(settings))
        });
        let config = client_config(&site.authority, &ClientKind::default());
        let mut pair = Pair::new(settings, &config, "localhost");
        pair.step = step;
        pair.pump().unwrap();
        if with_request {
            pair.say(REQUEST).unwrap();
        }
        let mut raw = Vec::new();
        for piece in said {
            std::io::Write::write_all(&mut pair.client.writer(), &piece).unwrap();
            pair.client.write_tls(&mut raw).unwrap();
        }
        if let Some((at, by)) = flip && !raw.is_empty() {
            *at.get_mut(&mut raw) ^= by;
        }
        let (mut wire, mut failed) = (vec![], false);
        for piece in raw.chunks_mut(step) {
            failed |= pair.filter.received(piece, &mut pair.plain, &mut wire).is_err();
            prop_assert!(pair.filter.heap_bytes() < 64 * 1024);
            // While a record is cut.
            if pair.filter.is_open() {
                pair.filter.send([&b"answer"[..]].into_iter(), &mut wire).unwrap();
            }
        }
        prop_assert!(!failed || pair.filter.is_ended());
        pair.filter.close(CloseWhy::Internal, &mut wire);
        pair.hear(&wire);
        // What it hears is TLS in any case.
        let told = matches!(pair.client_error, None | Some(rustls::Error::AlertReceived(_)));
        prop_assert!(told, "{:?}", pair.client_error);
    }
}
