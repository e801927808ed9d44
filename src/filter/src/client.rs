//! The client's side of the layers of one connection: TLS and WebSocket, in this order, each if the server has it.
//!
//! It is driven as [`crate::Filter`] is, with one difference: the client speaks first, so [`ClientFilter::new`] has something
//! to send.

use crate::error::FilterError;
use crate::tls::{RustlsConnection, TlsClient};
use crate::websocket::{ClientWebSocket, WebSocketError};
use rustls::client::UnbufferedClientConnection;

/// Which layers a server has. It is shared by all connections to it.
#[derive(Debug, Clone, Default)]
pub struct ClientFilterSettings {
    /// Whether TLS is spoken.
    pub tls: Option<TlsClient>,
    /// Whether MQTT is inside a WebSocket, and what is asked for.
    pub websocket: Option<WebSocketTarget>,
}

/// What a WebSocket is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketTarget {
    /// The header `Host`: the host, and the port if it is not 80 (443 with TLS).
    pub host: String,
    /// Where MQTT is spoken.
    pub path: String,
}

/// What stands between the wire and MQTT on one connection to a server.
#[derive(Debug)]
pub struct ClientFilter {
    tls: Option<Box<RustlsConnection<UnbufferedClientConnection>>>,
    websocket: Option<Box<ClientWebSocket>>,
    /// The request for a WebSocket, until TLS is up.
    request: Vec<u8>,
}

impl ClientFilter {
    /// The filter of a connection that was just opened; appends what is to be sent at once. Keys and masks of a WebSocket are
    /// made of `seed`.
    ///
    /// # Errors
    /// If TLS cannot begin.
    pub fn new(
        settings: &ClientFilterSettings,
        seed: u64,
        wire: &mut Vec<u8>,
    ) -> Result<Self, FilterError> {
        let tls = settings.tls.as_ref().map(RustlsConnection::client).transpose()?.map(Box::new);
        let websocket = settings.websocket.as_ref().map(|_| Box::new(ClientWebSocket::new(seed)));
        let request = match (&websocket, &settings.websocket) {
            (Some(socket), Some(target)) => socket.request(&target.host, &target.path),
            _ => Vec::new(),
        };
        let mut filter = Self { tls, websocket, request };
        filter.received(&mut [], &mut Vec::new(), wire)?;
        Ok(filter)
    }

    /// Raw bytes came; they are overwritten. Appends MQTT's bytes to `plain` and what must be sent at once to `wire`.
    ///
    /// # Errors
    /// If the connection cannot go on. `wire` has what the server is to be told.
    pub fn received(
        &mut self,
        raw: &mut [u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        let Some(tls) = &mut self.tls else {
            wire.append(&mut self.request);
            return Ok(take(&mut self.websocket, raw, plain, wire)?);
        };
        let (mut replies, mut taken) = (Vec::new(), Ok(()));
        tls.received(raw, wire, |bytes| {
            if taken.is_ok() {
                taken = take(&mut self.websocket, bytes, plain, &mut replies);
            }
        })?;
        if tls.is_open() {
            replies.splice(0..0, self.request.drain(..));
            if !replies.is_empty() {
                tls.send(&[], std::iter::once(replies.as_slice()), wire)?;
            }
        }
        Ok(taken?)
    }

    /// MQTT's bytes are to be sent; appends what goes on the wire. Only when [`Self::is_open`].
    ///
    /// # Errors
    /// If TLS cannot encrypt any more.
    pub fn send(&mut self, bytes: &[u8], wire: &mut Vec<u8>) -> Result<(), FilterError> {
        debug_assert!(self.is_open(), "nothing is sent before the handshakes are done");
        match (&mut self.tls, &mut self.websocket) {
            (Some(tls), Some(socket)) => {
                let mut message = Vec::with_capacity(bytes.len() + 14);
                socket.send(bytes, &mut message);
                tls.send(&[], std::iter::once(message.as_slice()), wire)?;
            }
            (Some(tls), None) => tls.send(&[], std::iter::once(bytes), wire)?,
            (None, Some(socket)) => socket.send(bytes, wire),
            (None, None) => wire.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Ends in good order: appends WebSocket's Close and TLS's close_notify, as far as these layers are up.
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        let mut last = Vec::new();
        if let Some(socket) = &mut self.websocket {
            socket.close(&mut last);
        }
        match &mut self.tls {
            Some(tls) if tls.is_open() => {
                // If it cannot be sent, nothing can.
                let _ = tls.send(&[], std::iter::once(last.as_slice()), wire);
                tls.close(wire);
            }
            Some(_) => {}
            None => wire.append(&mut last),
        }
    }

    /// Whether all handshakes are done.
    pub fn is_open(&self) -> bool {
        self.tls.as_deref().is_none_or(RustlsConnection::is_open)
            && self.websocket.as_deref().is_none_or(ClientWebSocket::is_open)
    }

    /// Whether the server has ended in good order: nothing more will come.
    pub fn is_ended(&self) -> bool {
        self.tls.as_deref().is_some_and(RustlsConnection::is_ended)
            || self.websocket.as_deref().is_some_and(ClientWebSocket::is_ended)
    }

    /// Whether TLS came by a ticket of before instead of a full handshake.
    pub fn is_resumed(&self) -> bool {
        self.tls.as_deref().is_some_and(RustlsConnection::is_resumed)
    }
}

/// Bytes that came out of TLS, or off the wire.
fn take(
    socket: &mut Option<Box<ClientWebSocket>>,
    bytes: &[u8],
    plain: &mut Vec<u8>,
    wire: &mut Vec<u8>,
) -> Result<(), WebSocketError> {
    match socket {
        Some(socket) => socket.received(bytes, plain, wire),
        None => {
            plain.extend_from_slice(bytes);
            Ok(())
        }
    }
}
