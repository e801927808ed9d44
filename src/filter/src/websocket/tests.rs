use super::*;
use crate::peer::Subprotocol;
use proptest::prelude::*;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame of a server.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_header(first & 0x0F, payload.len(), &mut bytes);
    bytes[0] = first;
    bytes.extend_from_slice(payload);
    bytes
}

/// A frame of a client.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_header(first & 0x0F, payload.len(), &mut bytes);
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    bytes
}

pub(super) fn close_frame(code: Option<u16>, reason: &[u8]) -> Vec<u8> {
    let code = code.map(u16::to_be_bytes);
    let code = code.as_ref().map_or(&[][..], |code| &code[..]);
    frame(0x88, &[code, reason].concat())
}

/// A socket whose handshake is done.
pub(super) fn open() -> WebSocket {
    WebSocket::Open(FrameReader::default())
}

/// The request of RFC 6455, 1.2, for MQTT.
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, mqttv3.1.1, mqtt\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// What came of an input.
#[derive(Debug, PartialEq)]
struct Outcome {
    plain: Vec<u8>,
    wire: Vec<u8>,
    peer: Option<Box<PeerInfo>>,
    error: Option<WebSocketError>,
    ended: bool,
}

fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, settings: &WebSocketSettings) -> Outcome {
    let mut socket = WebSocket::new();
    let mut peer = None;
    let (mut plain, mut wire) = (vec![], vec![]);
    let mut error = None;
    for piece in pieces {
        let result = socket.received(piece, settings, &mut peer, &mut plain, &mut wire);
        error = error.or(result.err());
        assert!(socket.heap_bytes() <= 2 * settings.head_len_max.max(125));
    }
    Outcome { plain, wire, peer, error, ended: socket.is_ended() }
}

fn ask(request: &str, settings: &WebSocketSettings) -> Outcome {
    feed([request.as_bytes()], settings)
}

/// Status and whole text of the answer to a request that is refused.
fn refused(request: &str, settings: &WebSocketSettings) -> (u16, String, Refusal) {
    let outcome = ask(request, settings);
    assert!(outcome.ended && outcome.plain.is_empty());
    let Some(WebSocketError::Refused(refusal)) = outcome.error else { panic!("{outcome:?}") };
    let answer = String::from_utf8(outcome.wire).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    (head["HTTP/1.1 ".len()..][..3].parse().unwrap(), answer, refusal)
}

#[test]
fn example_of_section_1() {
    let settings = WebSocketSettings::default();
    let outcome = ask(REQUEST, &settings);
    assert_eq!(
        String::from_utf8(outcome.wire).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: mqttv3.1.1\r\n\r\n"
    );
    let peer = outcome.peer.unwrap();
    assert_eq!(peer.address, None);
    let info = peer.websocket.unwrap();
    assert_eq!(info.subprotocol, Some(Subprotocol::MqttV311));
    assert_eq!(info.origin.as_deref(), Some("http://example.com"));
    assert_eq!(info.host.as_deref(), Some("server.example.com"));
    assert_eq!((&*info.target, info.cookies), ("/mqtt", None));
}

#[test]
fn what_browsers_send_is_understood() {
    let settings = WebSocketSettings::default();
    let request = REQUEST
        .replace("Upgrade: websocket", "upgrade: h2c, WebSocket")
        .replace("Connection: Upgrade", "connection: keep-alive, Upgrade")
        .replace("/mqtt ", "/mqtt?token=a?b ")
        .replace("Origin", "Cookie: a=1; session=\"x=y\"\r\nCookie: b=2\r\nOrigin");
    let info = ask(&request, &settings).peer.unwrap().websocket.unwrap();
    assert_eq!((info.path(), &*info.target), ("/mqtt", "/mqtt?token=a?b"));
    assert_eq!(info.cookie("session"), Some("x=y"));
    assert_eq!((info.cookie("b"), info.cookie("c")), (Some("2"), None));
    let absolute = REQUEST.replace("GET /mqtt", "GET http://server.example.com/mqtt");
    assert_eq!(ask(&absolute, &settings).error, None);
}

#[test]
fn refused_requests() {
    let settings = WebSocketSettings { head_len_max: 1024, headers_max: 8, ..Default::default() };
    let long = format!("Origin: {}", "x".repeat(1000));
    for (from, to, status, reason) in [
        ("GET", "POST", 405, "ws_method"),
        ("/mqtt", "/", 404, "ws_path"),
        ("/mqtt", "/mqtt/", 404, "ws_path"),
        ("Upgrade: websocket\r\n", "", 426, "ws_plain_http"),
        ("Upgrade: websocket", "Upgrade: h2c", 426, "ws_plain_http"),
        ("Connection: Upgrade", "Connection: close", 400, "ws_bad_request"),
        ("HTTP/1.1", "HTTP/1.0", 400, "ws_bad_request"),
        ("HTTP/1.1", "HTTP/2.0", 400, "ws_bad_request"),
        ("GET /mqtt", "GET", 400, "ws_bad_request"),
        ("Version: 13", "Version: 8", 426, "ws_version"),
        ("Sec-WebSocket-Version: 13\r\n", "", 426, "ws_version"),
        ("Host: server.example.com\r\n", "", 400, "ws_bad_request"),
        ("Host:", "Host: other\r\nHost:", 400, "ws_bad_request"),
        ("Host:", "Ho st:", 400, "ws_bad_request"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-No", 400, "ws_bad_request"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400, "ws_bad_request"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400, "ws_bad_request"),
        ("chat, mqttv3.1.1, mqtt", "chat, MQTT", 400, "ws_subprotocol"),
        ("Sec-WebSocket-Protocol: chat, mqttv3.1.1, mqtt\r\n", "", 400, "ws_subprotocol"),
        ("Origin: http://example.com", &long, 431, "ws_head_too_long"),
        ("Host:", "a:1\r\nb:1\r\nHost:", 431, "ws_head_too_long"),
    ] {
        let request = REQUEST.replacen(from, to, 1);
        let (is, answer, refusal) = refused(&request, &settings);
        assert_eq!((is, refusal.reason()), (status, reason), "{request}\n{answer}");
        assert_eq!(answer.contains("Sec-WebSocket-Version: 13\r\n"), reason == "ws_version");
        assert_eq!(answer.contains("Upgrade: websocket\r\n"), status == 426);
        assert_eq!(answer.contains("Allow: GET\r\n"), status == 405);
    }
}

#[test]
fn a_person_with_a_browser_is_told_what_this_is() {
    let settings = WebSocketSettings::default();
    let (status, answer, refusal) =
        refused("GET /mqtt HTTP/1.1\r\nHost: localhost:8083\r\n\r\n", &settings);
    assert_eq!((status, refusal), (426, Refusal::PlainHttp));
    assert!(answer.contains("MQTT client to ws://") && answer.contains("text/plain"));
    let (status, answer, _) = refused("GET / HTTP/1.1\r\nHost: localhost:8083\r\n\r\n", &settings);
    assert_eq!(status, 404);
    assert!(answer.contains("spoken at /mqtt"));
}

#[test]
fn what_is_no_http_is_not_waited_for() {
    for input in [&b"\x10\x0c"[..], b"\x16", b"\0"] {
        let outcome = feed([input], &WebSocketSettings::default());
        assert_eq!((outcome.error, outcome.wire), (Some(WebSocketError::NotHttp), vec![]));
    }
}

#[test]
fn subprotocol_may_be_missing_if_the_listener_says_so() {
    let settings = WebSocketSettings { subprotocol_required: false, ..Default::default() };
    for to in ["Sec-WebSocket-Protocol: chat\r\n", ""] {
        let request = REQUEST.replace("Sec-WebSocket-Protocol: chat, mqttv3.1.1, mqtt\r\n", to);
        let outcome = ask(&request, &settings);
        assert_eq!(outcome.error, None);
        assert!(!String::from_utf8(outcome.wire).unwrap().contains("Sec-WebSocket-Protocol"));
        assert_eq!(outcome.peer.unwrap().websocket.unwrap().subprotocol, None);
    }
}

#[test]
fn origins() {
    let rule = |absent_allowed| WebSocketSettings {
        origins: Some(OriginSettings {
            allowed: vec!["https://Example.com".to_owned()],
            absent_allowed,
        }),
        ..Default::default()
    };
    let with = |origin: &str| REQUEST.replace("Origin: http://example.com\r\n", origin);
    assert_eq!(ask(&with("Origin: https://example.com\r\n"), &rule(false)).error, None);
    assert_eq!(ask(&with(""), &rule(true)).error, None);
    assert_eq!(refused(REQUEST, &rule(true)).0, 403);
    assert_eq!(refused(&with("Origin: null\r\n"), &rule(true)).0, 403);
    assert_eq!(refused(&with(""), &rule(false)).0, 403);
}

#[test]
fn forwarded_addresses() {
    let settings = |hops| WebSocketSettings {
        forwarded: Some(ForwardedSettings { hops, ..Default::default() }),
        ..Default::default()
    };
    let address = |headers: &str, settings: &WebSocketSettings| {
        let outcome = ask(&REQUEST.replace("Origin:", &format!("{headers}Origin:")), settings);
        assert_eq!(outcome.error, None);
        outcome.peer.unwrap().address.map(|address| address.to_string())
    };
    let list = "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nx-forwarded-for: 10.0.0.1\r\n";
    assert_eq!(address(list, &WebSocketSettings::default()), None);
    assert_eq!(address(list, &settings(1)).as_deref(), Some("10.0.0.1:0"));
    assert_eq!(address(list, &settings(2)).as_deref(), Some("192.0.2.1:0"));
    assert_eq!(address(list, &settings(9)), None);
    for (headers, wanted) in [
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: 4711\r\n", Some("192.0.2.1:4711")),
        ("X-Forwarded-For: 192.0.2.1:99\r\n", Some("192.0.2.1:99")),
        ("X-Forwarded-For: 2001:db8::1\r\n", Some("[2001:db8::1]:0")),
        ("X-Forwarded-For: [2001:db8::1]:7\r\n", Some("[2001:db8::1]:7")),
        ("X-Forwarded-For: [2001:db8::1]\r\n", Some("[2001:db8::1]:0")),
        ("X-Forwarded-For: unknown\r\nX-Forwarded-Port: 1\r\n", None),
        ("X-Forwarded-Port: 1\r\n", None),
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: x\r\n", Some("192.0.2.1:0")),
    ] {
        assert_eq!(address(headers, &settings(1)).as_deref(), wanted, "{headers}");
    }
}

#[test]
fn frames_may_follow_the_request_at_once() {
    let bytes = [REQUEST.as_bytes(), &masked(0x82, b"CONNECT")].concat();
    assert_eq!(feed([&bytes[..]], &WebSocketSettings::default()).plain, b"CONNECT");
}

#[test]
fn our_close_is_answered_and_data_after_it_dropped() {
    let (settings, mut peer) = (WebSocketSettings::default(), None);
    let (mut plain, mut wire) = (vec![], vec![]);
    let mut socket = open();
    socket.close(CloseWhy::TryAgainLater, &mut wire);
    socket.close(CloseWhy::Normal, &mut wire);
    assert_eq!(wire, close_frame(Some(1013), b"too many clients, try again later"));
    wire.clear();
    let late = [masked(0x82, b"late"), masked(0x89, b"ping")].concat();
    socket.received(&late, &settings, &mut peer, &mut plain, &mut wire).unwrap();
    assert!(!socket.is_ended() && !socket.is_open());
    let answer = close_frame(None, b"");
    let answer = masked(0x88, &answer[2..]);
    socket.received(&answer, &settings, &mut peer, &mut plain, &mut wire).unwrap();
    assert!(socket.is_ended() && plain.is_empty() && wire.is_empty());
}

#[test]
fn close_before_the_request_is_an_answer_in_http() {
    let (mut socket, mut wire) = (WebSocket::new(), vec![]);
    socket.close(CloseWhy::TryAgainLater, &mut wire);
    assert!(wire.starts_with(b"HTTP/1.1 503 ") && socket.is_ended());
}

#[test]
fn headers_of_ours_have_the_shortest_length() {
    for (len, wanted) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65535, &[0x82, 126, 0xFF, 0xFF]),
        (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let (header, len) = WebSocket::header(len);
        assert_eq!(&header[..len], wanted);
    }
}

fn a_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        2 => proptest::collection::vec(any::<u8>(), 120..130),
        1 => proptest::collection::vec(any::<u8>(), 65530..65540),
    ];
    let first = prop_oneof![
        6 => prop_oneof![Just(0x82u8), Just(0x02), Just(0x00), Just(0x80), Just(0x89)],
        1 => prop_oneof![Just(0x8Au8), Just(0x88)],
        1 => any::<u8>(),
    ];
    (first, payload).prop_map(|(first, payload)| masked(first, &payload))
}

fn a_request() -> impl Strategy<Value = Vec<u8>> {
    let header = prop_oneof![
        Just("Cookie: a=b\r\n".to_owned()),
        Just("X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n".to_owned()),
        "[A-Za-z-]{1,12}: [ -~]{0,20}\r\n",
    ];
    proptest::collection::vec(header, 0..4).prop_map(|more| {
        REQUEST.replace("Origin", &format!("{}Origin", more.concat())).into_bytes()
    })
}

fn in_pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let ends = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]);
    let mut at = 0;
    let ends = ends.collect::<std::collections::BTreeSet<_>>().into_iter();
    ends.map(|end| &bytes[std::mem::replace(&mut at, end)..end]).collect()
}

fn trusting() -> WebSocketSettings {
    WebSocketSettings { forwarded: Some(ForwardedSettings::default()), ..Default::default() }
}

proptest! {
    #[test]
    fn cut_anywhere_is_the_same(
        request in a_request(),
        frames in proptest::collection::vec(a_frame(), 0..8),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let bytes = [request, frames.concat()].concat();
        let whole = feed([&bytes[..]], &trusting());
        prop_assert_eq!(&whole, &feed(in_pieces(&bytes, &cuts), &trusting()));
        if bytes.len() < 2000 {
            prop_assert_eq!(&whole, &feed(bytes.chunks(1), &trusting()));
        }
    }

    #[test]
    fn bytes_cut_anywhere_are_the_same(
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        behind_request in any::<bool>(),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let request = if behind_request { REQUEST } else { "" };
        let bytes = [request.as_bytes(), &garbage].concat();
        let whole = feed([&bytes[..]], &trusting());
        prop_assert_eq!(whole, feed(in_pieces(&bytes, &cuts), &trusting()));
    }

    #[test]
    fn requests_with_changed_bytes_do_not_panic(
        at in any::<proptest::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut bytes = REQUEST.as_bytes().to_vec();
        *at.get_mut(&mut bytes) = to;
        let _ = feed([&bytes[..]], &trusting());
    }
}
