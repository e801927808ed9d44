//! What a request is answered.

use super::error::{Refusal, WebSocketError};
use super::handshake::Request;
use super::settings::WebSocketSettings;
use std::fmt::Write;

/// 4.2.2 (5).
pub(super) fn accept(request: &Request, wire: &mut Vec<u8>) {
    wire.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    wire.extend_from_slice(request.accept.as_bytes());
    if let Some(subprotocol) = request.info.subprotocol {
        wire.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        wire.extend_from_slice(subprotocol.name().as_bytes());
    }
    wire.extend_from_slice(b"\r\n\r\n");
}

/// Tells a client why there will be no WebSocket, in words for the person behind it.
pub(super) fn refuse(error: &WebSocketError, settings: &WebSocketSettings, wire: &mut Vec<u8>) {
    let path = &settings.path;
    // Who does not speak HTTP would not understand an answer in it.
    let WebSocketError::Refused(refusal) = error else { return };
    let (status, header, text) = match refusal {
        Refusal::PlainHttp => (
            "426 Upgrade Required",
            // RFC 9110, 15.5.22.
            "Upgrade: websocket\r\nConnection: Upgrade, close\r\n",
            format!(
                "This is RingMQ, an MQTT broker. MQTT over WebSocket is spoken here, and no web page.\n\
                 Connect with an MQTT client to ws://<this host and port>{path} \
                 (wss:// if you came by https), subprotocol mqtt.\n"
            ),
        ),
        Refusal::Path(_) => (
            "404 Not Found",
            CLOSE,
            format!("There is nothing here. MQTT over WebSocket is spoken at {path}.\n"),
        ),
        Refusal::Method => (
            "405 Method Not Allowed",
            "Allow: GET\r\nConnection: close\r\n",
            format!("Only GET is served here, to open a WebSocket at {path}.\n"),
        ),
        Refusal::Malformed(_) => {
            ("400 Bad Request", CLOSE, format!("The request was refused: {refusal}.\n"))
        }
        Refusal::HeadTooLong(_) | Refusal::TooManyHeaders(_) => (
            "431 Request Header Fields Too Large",
            CLOSE,
            format!("The request was refused: {refusal}.\n"),
        ),
        Refusal::Version => (
            "426 Upgrade Required",
            // 4.2.2 (4), 4.4.
            "Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n",
            "Only version 13 of the WebSocket protocol (RFC 6455) is spoken here.\n".to_owned(),
        ),
        Refusal::Origin(_) => {
            ("403 Forbidden", CLOSE, "Pages from this origin may not connect here.\n".to_owned())
        }
        Refusal::Subprotocol => (
            "400 Bad Request",
            CLOSE,
            "The request was refused: it must ask for a subprotocol (Sec-WebSocket-Protocol): \
             mqtt, mqttv3.1 or mqttv3.1.1.\n"
                .to_owned(),
        ),
    };
    put(status, header, &text, wire);
}

const CLOSE: &str = "Connection: close\r\n";

/// The connection ends before a request was answered.
pub(super) fn unavailable(wire: &mut Vec<u8>) {
    put("503 Service Unavailable", CLOSE, "The server does not take connections now.\n", wire);
}

fn put(status: &str, headers: &str, text: &str, wire: &mut Vec<u8>) {
    let mut answer = String::with_capacity(256 + text.len());
    let _ = write!(
        answer,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{headers}\r\n{text}",
        text.len()
    );
    wire.extend_from_slice(answer.as_bytes());
}
