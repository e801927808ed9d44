//! The layers of one connection, one behind the other.

use crate::error::FilterError;
use crate::peer::{PeerInfo, UNKNOWN};
use crate::proxy::{Progress, ProxyReader, ProxySettings};
use crate::tls::{TlsConnection, TlsServer};
use crate::websocket::{CloseWhy, WebSocket, WebSocketSettings};
use std::sync::Arc;

/// Which layers a listener has. It is shared by its connections; a reload makes a new one for those that come then.
#[derive(Debug, Clone, Default)]
pub struct FilterSettings {
    /// Whether a PROXY header comes first.
    pub proxy: Option<ProxySettings>,
    /// Whether TLS is spoken.
    pub tls: Option<TlsServer>,
    /// Whether MQTT is inside a WebSocket.
    pub websocket: Option<WebSocketSettings>,
}

impl FilterSettings {
    /// Whether there is nothing to filter: connections of such a listener need no [`Filter`].
    pub const fn is_plain(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && self.websocket.is_none()
    }
}

/// How far a connection has come. Deadlines and budgets of handshakes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The PROXY header has not come (`proxy_protocol_timeout`).
    Proxy,
    /// The TLS handshake is not done (`handshake_timeout`). Bytes that come now may cost a signature: a millisecond
    /// with RSA.
    Tls,
    /// The request for a WebSocket has not come.
    WebSocket,
    /// MQTT goes both ways.
    Open,
    /// We have said goodbye. Nothing may be sent.
    Closing,
    /// Nothing more will come, and nothing may be sent.
    Ended,
}

/// What stands between the wire and MQTT on one connection: any of a PROXY header, TLS and WebSocket, in this order.
#[derive(Debug)]
pub struct Filter {
    settings: Arc<FilterSettings>,
    /// Until the header is whole.
    proxy: Option<ProxyReader>,
    /// From the first byte of TLS: a client that only connects costs next to nothing.
    tls: Option<Box<TlsConnection>>,
    websocket: Option<WebSocket>,
    /// If anything is known.
    peer: Option<Box<PeerInfo>>,
    is_closing: bool,
    is_ended: bool,
}

impl Filter {
    /// The filter of a connection that begins.
    pub fn new(settings: &Arc<FilterSettings>) -> Box<Self> {
        Box::new(Self {
            settings: Arc::clone(settings),
            proxy: settings.proxy.map(|_| ProxyReader::default()),
            tls: None,
            websocket: settings.websocket.as_ref().map(|_| WebSocket::new()),
            peer: None,
            is_closing: false,
            is_ended: false,
        })
    }

    /// Raw bytes came; they are overwritten. Appends MQTT's bytes to `plain` and what must be sent at once (handshake, pong,
    /// close, an answer in HTTP) to `wire`.
    ///
    /// # Errors
    /// If the connection cannot go on. `plain` may have got whole packets that came before; `wire` has what the peer is
    /// to be told, to be sent before the connection is closed. The filter has ended.
    pub fn received(
        &mut self,
        raw: &mut [u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        if self.is_ended {
            return Ok(());
        }
        let result = self.advance(raw, plain, wire);
        let ended = |socket: &WebSocket| socket.is_ended();
        if result.is_err()
            || self.tls.as_deref().is_some_and(TlsConnection::is_ended)
            || self.websocket.as_ref().is_some_and(ended)
        {
            self.is_ended = true;
            // The last word is TLS's, also if the peer had it first (RFC 5246, 7.2.1).
            if let Some(tls) = &mut self.tls {
                tls.close(wire);
            }
        }
        result
    }

    fn advance(
        &mut self,
        mut raw: &mut [u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        if let (Some(reader), Some(settings)) = (&mut self.proxy, self.settings.proxy) {
            let Progress::Whole(taken, header) = reader.received(raw, settings)? else {
                return Ok(());
            };
            self.proxy = None;
            if header.source.is_some() || header.info.is_some() {
                let peer = self.peer.get_or_insert_default();
                peer.address = header.source;
                peer.destination = header.destination;
                peer.proxy = header.info;
            }
            raw = &mut raw[taken..];
        }
        if raw.is_empty() {
            return Ok(());
        }
        match &self.settings.tls {
            Some(server) => {
                if self.tls.is_none() {
                    self.tls = Some(Box::new(TlsConnection::new(server)?));
                }
                self.advance_tls(raw, plain, wire)
            }
            None => self.above_tls().take(raw, plain, wire),
        }
    }

    fn advance_tls(
        &mut self,
        raw: &mut [u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        let mut tls = self.tls.take().expect("the caller has made it");
        let was_open = tls.is_open();
        let mut above = self.above_tls();
        let (mut replies, mut taken) = (Vec::new(), Ok(()));
        let result = tls.received(raw, wire, |bytes| {
            if taken.is_ok() {
                taken = above.take(bytes, plain, &mut replies);
            }
        });
        if !was_open && tls.is_open() {
            self.peer.get_or_insert_default().tls = Some(Box::new(tls.info()));
        }
        let sent = match result {
            Ok(()) if !replies.is_empty() => tls.send(&replies, std::iter::empty(), wire),
            other => other,
        };
        self.tls = Some(tls);
        sent?;
        taken
    }

    /// What stands between TLS and MQTT.
    fn above_tls(&mut self) -> AboveTls<'_> {
        let socket = self.websocket.as_mut().zip(self.settings.websocket.as_ref());
        AboveTls { socket, peer: &mut self.peer, is_closing: self.is_closing }
    }

    /// MQTT's bytes are to be sent, in pieces; appends what goes on the wire. All pieces become one message of WebSocket, and
    /// as few records of TLS as may be, so they had better be all there is to send now.
    ///
    /// Before [`Self::is_open`] the caller must keep them; after the end they are dropped, as nobody would read them.
    ///
    /// # Errors
    /// If TLS cannot encrypt any more, which takes billions of messages. The connection is to be closed.
    pub fn send<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
        wire: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        if !self.is_open() {
            debug_assert!(
                matches!(self.stage(), Stage::Closing | Stage::Ended),
                "nothing is sent before the handshakes are done"
            );
            return Ok(());
        }
        let mut head = ([0; 10], 0);
        if self.websocket.is_some() {
            let len = pieces.clone().map(<[u8]>::len).sum();
            if len == 0 {
                return Ok(());
            }
            head = WebSocket::header(len);
        }
        let head = &head.0[..head.1];
        if let Some(tls) = &mut self.tls {
            return Ok(tls.send(head, pieces, wire)?);
        }
        wire.extend_from_slice(head);
        pieces.for_each(|piece| wire.extend_from_slice(piece));
        Ok(())
    }

    /// Ends in good order: appends WebSocket's Close and TLS's close_notify, as far as these layers are up. The peer may
    /// still answer; what else it sends is dropped.
    pub fn close(&mut self, why: CloseWhy, wire: &mut Vec<u8>) {
        if self.is_ended || std::mem::replace(&mut self.is_closing, true) {
            return;
        }
        let tls_is_up = self.tls.as_deref().is_some_and(TlsConnection::is_open);
        if self.proxy.is_some() || (self.settings.tls.is_some() && !tls_is_up) {
            // There are no words yet to say it in, and whatever comes now is of no use.
            self.is_ended = true;
            return;
        }
        let mut last = Vec::new();
        if let Some(socket) = &mut self.websocket {
            socket.close(why, &mut last);
            self.is_ended = socket.is_ended();
        }
        match &mut self.tls {
            Some(tls) => {
                // If it cannot be sent, nothing can.
                let _ = tls.send(&last, std::iter::empty(), wire);
                tls.close(wire);
            }
            None => wire.extend_from_slice(&last),
        }
    }

    /// Whether received bytes ask for work of a handshake: a record of that kind (RFC 8446, 5.1), not an alert that says why the peer
    /// has gone.
    pub fn asks_for_handshake(&self, raw: &[u8]) -> bool {
        const HANDSHAKE: u8 = 22;
        self.stage() == Stage::Tls && raw.first() == Some(&HANDSHAKE)
    }

    /// How far the connection has come.
    pub fn stage(&self) -> Stage {
        if self.is_ended {
            Stage::Ended
        } else if self.is_closing {
            Stage::Closing
        } else if self.proxy.is_some() {
            Stage::Proxy
        } else if self.settings.tls.is_some()
            && !self.tls.as_deref().is_some_and(TlsConnection::is_open)
        {
            Stage::Tls
        } else if self.websocket.as_ref().is_some_and(WebSocket::in_handshake) {
            Stage::WebSocket
        } else {
            Stage::Open
        }
    }

    /// Whether all handshakes are done and nobody has said goodbye: whether bytes may be sent.
    pub fn is_open(&self) -> bool {
        self.stage() == Stage::Open
    }

    /// Whether nothing more will come: the peer has ended in good order (close_notify, a Close that is answered), or there was
    /// an error. The connection is to be closed when `wire` is sent.
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// What is known about the peer.
    pub fn peer(&self) -> &PeerInfo {
        self.peer.as_deref().unwrap_or(&UNKNOWN)
    }

    /// Takes what is known about the peer, so that it need not be kept here. For when CONNECT has been answered.
    pub fn take_peer(&mut self) -> PeerInfo {
        self.peer.take().map_or_else(PeerInfo::default, |peer| *peer)
    }

    /// The client's own certificate (DER), verified if the listener verifies. The connection keeps it as long as it lives.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.tls.as_deref()?.client_certificate()
    }

    /// Bytes it holds now, itself included; what TLS holds is measured, not counted.
    pub fn heap_bytes(&self) -> usize {
        let peer = |peer: &PeerInfo| size_of::<PeerInfo>() + peer.heap_bytes();
        let tls = |tls: &TlsConnection| size_of::<TlsConnection>() + tls.heap_bytes();
        size_of::<Self>()
            + self.proxy.as_ref().map_or(0, ProxyReader::heap_bytes)
            + self.tls.as_deref().map_or(0, tls)
            + self.websocket.as_ref().map_or(0, WebSocket::heap_bytes)
            + self.peer.as_deref().map_or(0, peer)
    }
}

/// What stands between TLS, or the wire, and MQTT.
struct AboveTls<'a> {
    socket: Option<(&'a mut WebSocket, &'a WebSocketSettings)>,
    peer: &'a mut Option<Box<PeerInfo>>,
    is_closing: bool,
}

impl AboveTls<'_> {
    fn take(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        match &mut self.socket {
            Some((socket, settings)) => {
                Ok(socket.received(bytes, settings, self.peer, plain, wire)?)
            }
            None if self.is_closing => Ok(()),
            None => {
                plain.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}
