//! Frames and what must come of them, by the sections of Autobahn's test suite and of RFC 6455. Its text cases end with
//! 1003 here, those of compression are not ours, those of performance are in the benchmarks.

use super::tests::{close_frame, frame, masked, open};
use super::*;
use WebSocketError::{CloseReasonNotUtf8, Protocol, TextFrame, TooBig};

/// What must come of a case: MQTT bytes, bytes to the peer, the error.
struct Outcome {
    plain: Vec<u8>,
    wire: Vec<u8>,
    error: Option<WebSocketError>,
    ended: bool,
}

fn data(plain: &[u8]) -> Outcome {
    Outcome { plain: plain.to_vec(), wire: vec![], error: None, ended: false }
}

fn pong(payload: &[u8]) -> Outcome {
    Outcome { plain: vec![], wire: frame(0x8A, payload), error: None, ended: false }
}

/// A Close that is answered in kind.
fn closed(code: Option<u16>) -> Outcome {
    Outcome { plain: vec![], wire: close_frame(code, b""), error: None, ended: true }
}

fn failed(code: u16, error: WebSocketError) -> Outcome {
    let mut wire = vec![];
    close::put_error(&error, &mut wire);
    assert_eq!(wire[2..4], code.to_be_bytes());
    Outcome { plain: vec![], wire, error: Some(error), ended: true }
}

impl Outcome {
    fn after(mut self, plain: &[u8], wire: &[u8]) -> Self {
        self.plain = [plain, &self.plain].concat();
        self.wire = [wire, &self.wire].concat();
        self
    }
}

fn cat(frames: &[&[u8]]) -> Vec<u8> {
    frames.concat()
}

/// Runs a case in one piece and byte by byte.
fn run(name: &str, input: &[u8], outcome: &Outcome) {
    for step in [input.len().max(1), 1, 7] {
        let settings = WebSocketSettings { message_len_max: 1 << 20, ..Default::default() };
        let (mut socket, mut peer) = (open(), None);
        let (mut plain, mut wire) = (vec![], vec![]);
        let mut error = None;
        for piece in input.chunks(step) {
            let result = socket.received(piece, &settings, &mut peer, &mut plain, &mut wire);
            error = error.or(result.err());
        }
        assert_eq!(error, outcome.error, "{name}, {step} at a time");
        assert_eq!(plain, outcome.plain, "{name}, {step} at a time");
        assert_eq!(wire, outcome.wire, "{name}, {step} at a time");
        assert_eq!(socket.is_ended(), outcome.ended, "{name}, {step} at a time");
        assert_eq!(socket.heap_bytes(), 0, "{name}: between frames nothing is kept");
    }
}

fn bin(payload: &[u8]) -> Vec<u8> {
    masked(0x82, payload)
}

#[test]
fn section_1_framing() {
    let case = |name: &str, len: usize| {
        let payload = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>();
        run(name, &bin(&payload), &data(&payload));
    };
    for (name, len) in [("1.2.1", 0), ("1.2.2", 125), ("1.2.3", 126), ("1.2.4", 127)] {
        case(name, len);
    }
    for (name, len) in [("1.2.5", 128), ("1.2.6", 65535), ("1.2.7", 65536), ("9.2.2", 262_144)] {
        case(name, len);
    }
    run("1.1.1 empty text", &masked(0x81, b""), &failed(1003, TextFrame));
    run("1.1.2 text", &masked(0x81, &[b'*'; 125]), &failed(1003, TextFrame));
}

#[test]
fn section_2_pings_and_pongs() {
    run("2.1", &masked(0x89, b""), &pong(b""));
    run("2.2", &masked(0x89, b"Hello, world!"), &pong(b"Hello, world!"));
    run("2.3 binary", &masked(0x89, &[0, 255, 254, 253]), &pong(&[0, 255, 254, 253]));
    run("2.4 longest", &masked(0x89, &[0xFE; 125]), &pong(&[0xFE; 125]));
    let long = failed(1002, Protocol("a control frame of more than 125 bytes"));
    run("2.5 too long", &masked(0x89, &[0xFE; 126]), &long);
    run("2.7 unsolicited pong", &masked(0x8A, b""), &data(b""));
    run("2.8 unsolicited pong", &masked(0x8A, b"unsolicited"), &data(b""));
    let ping = masked(0x89, b"ping");
    run("2.9", &cat(&[&masked(0x8A, b"pong"), &ping]), &pong(b"ping"));
    let many = (0..10).map(|n| [n]).collect::<Vec<_>>();
    let pings = many.iter().flat_map(|n| masked(0x89, n)).collect::<Vec<_>>();
    let pongs = many.iter().flat_map(|n| frame(0x8A, n)).collect::<Vec<_>>();
    run("2.10", &pings, &data(b"").after(b"", &pongs));
}

#[test]
fn section_3_reserved_bits() {
    let reserved = || failed(1002, Protocol("a frame with reserved bits set"));
    for bits in 1..8 {
        for opcode in [0x1, 0x2, 0x8, 0x9] {
            run("3.1-3.7", &masked(0x80 | bits << 4 | opcode, b"x"), &reserved());
        }
    }
    let input = cat(&[&bin(b"data"), &masked(0xC2, b"compressed"), &masked(0x89, b"")]);
    run("3.2", &input, &reserved().after(b"data", b""));
}

#[test]
fn section_4_opcodes() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let outcome = failed(1002, Protocol("a frame with a reserved opcode"));
        let input = cat(&[&bin(b"data"), &masked(0x80 | opcode, b""), &masked(0x89, b"")]);
        run("4.1-4.2", &input, &outcome.after(b"data", b""));
    }
}

#[test]
fn section_5_fragments() {
    let (first, middle) = (masked(0x02, b"one "), masked(0x00, b"two "));
    let (last, ping) = (masked(0x80, b"three"), masked(0x89, b"ping"));
    let pong = frame(0x8A, b"ping");
    let fragmented = || failed(1002, Protocol("a control frame in fragments"));
    run("5.1", &masked(0x09, b"fragment1"), &fragmented());
    run("5.2", &masked(0x0A, b"fragment1"), &fragmented());
    run("close in fragments", &masked(0x08, b""), &fragmented());
    let whole = || data(b"one two three");
    run("5.3", &cat(&[&first, &middle, &last]), &whole());
    run("5.6", &cat(&[&first, &ping, &middle, &last]), &whole().after(b"", &pong));
    run("5.7", &cat(&[&first, &middle, &ping, &last]), &whole().after(b"", &pong));
    let orphan = || failed(1002, Protocol("a continuation of no message"));
    run("5.9", &cat(&[&masked(0x80, b"non"), &bin(b"x")]), &orphan());
    run("5.12", &cat(&[&masked(0x00, b"non"), &bin(b"x")]), &orphan());
    let input = cat(&[&first, &last, &masked(0x80, b"late")]);
    run("5.15", &input, &orphan().after(b"one three", b""));
    let new = || failed(1002, Protocol("a new message before the last one's end"));
    run("5.18", &cat(&[&first, &bin(b"other")]), &new().after(b"one ", b""));
    let input = cat(&[&first, &masked(0x81, b"other")]);
    run("5.18 text", &input, &new().after(b"one ", b""));
    let input = cat(&[&first, &middle, &ping, &masked(0x00, b""), &masked(0x00, b""), &last]);
    run("5.19, 5.20", &input, &whole().after(b"", &pong));
    run("6.1.2 empty fragments", &cat(&[&masked(0x02, b""), &masked(0x80, b"")]), &data(b""));
}

#[test]
fn section_7_close() {
    run(
        "7.1.1",
        &cat(&[&bin(b"x"), &close_masked(1000, b"")]),
        &closed(Some(1000)).after(b"x", b""),
    );
    let input = cat(&[&close_masked(1000, b""), &close_masked(1000, b"")]);
    run("7.1.2 two closes", &input, &closed(Some(1000)));
    run("7.1.3", &cat(&[&close_masked(1000, b""), &masked(0x89, b"")]), &closed(Some(1000)));
    run("7.1.4", &cat(&[&close_masked(1000, b""), &bin(b"late")]), &closed(Some(1000)));
    let input = cat(&[&masked(0x02, b"cut"), &close_masked(1000, b""), &masked(0x80, b"late")]);
    run("7.1.5", &input, &closed(Some(1000)).after(b"cut", b""));
    run("7.3.1", &masked(0x88, b""), &closed(None));
    run("7.3.2", &masked(0x88, b"a"), &failed(1002, Protocol("a Close of one byte")));
    run("7.3.4", &close_masked(1000, b"Hello"), &closed(Some(1000)));
    run("7.3.5", &close_masked(1000, &[b'*'; 123]), &closed(Some(1000)));
    let long = failed(1002, Protocol("a control frame of more than 125 bytes"));
    run("7.3.6", &close_masked(1000, &[b'*'; 124]), &long);
    let not_utf8 = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    run("7.5.1", &close_masked(1000, not_utf8), &failed(1007, CloseReasonNotUtf8));
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014] {
        run("7.7", &close_masked(code, b""), &closed(Some(code)));
    }
    for code in [3000, 3999, 4000, 4999] {
        run("7.7", &close_masked(code, b""), &closed(Some(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        let outcome = failed(1002, Protocol("a Close with a code that must not be sent"));
        run("7.9, 7.13", &close_masked(code, b""), &outcome);
    }
}

#[test]
fn section_9_limits() {
    let mebibyte = vec![7; 1 << 20];
    run("9.2", &bin(&mebibyte), &data(&mebibyte));
    let parts = [masked(0x02, &mebibyte), masked(0x00, b""), masked(0x80, b"x")].concat();
    let outcome = failed(1009, TooBig { len: (1 << 20) + 1, max: 1 << 20 });
    run("message too long", &parts, &outcome.after(&mebibyte, b""));
    // It is refused at its header: nobody waits for the payload.
    let outcome = failed(1009, TooBig { len: 1 << 40, max: 1 << 28 });
    run("frame too long", b"\x82\xFF\0\0\x01\0\0\0\0\0mask", &outcome);
}

#[test]
fn rfc_5_1_masks_and_5_2_lengths() {
    run("5.1", &frame(0x82, b"x"), &failed(1002, Protocol("a frame without a mask")));
    for input in [
        &b"\x82\xFE\0\x7Dmask"[..],
        b"\x82\xFE\0\0mask",
        b"\x82\xFF\0\0\0\0\0\0\xFF\xFFmask",
        b"\x89\xFE\0\x01mask",
    ] {
        let outcome = failed(1002, Protocol("a length in more bytes than it needs"));
        run("5.2 not minimal", input, &outcome);
    }
    let outcome = failed(1002, Protocol("a length of more than 63 bits"));
    run("5.2 sign", b"\x82\xFF\x80\0\0\0\0\0\0\0mask", &outcome);
    // 5.7, with the mask of the example.
    run("5.7", b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &data(b"Hello"));
    run("5.7 ping", b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &pong(b"Hello"));
}

fn close_masked(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(0x88, &[&code.to_be_bytes(), reason].concat())
}
