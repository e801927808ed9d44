//! One TLS connection by rustls, as a byte filter.

use super::error::TlsFailure;
use super::{TlsClient, ciphers, resolver};
use crate::peer::{ClientCertificate, TlsInfo};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedConnectionCommon, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, HandshakeKind, ServerConfig};
use std::ops::DerefMut;
use std::sync::Arc;

/// Most plain bytes in a record (RFC 8446, 5.1).
const RECORD_LEN_MAX: usize = 1 << 14;
/// More than what a record has beside them in any version, with a KeyUpdate or two before it.
const RECORD_OVERHEAD: usize = 256;
/// Longest record on the wire (RFC 5246, 6.2.3), its header included.
const WIRE_RECORD_LEN_MAX: usize = RECORD_LEN_MAX + 2048 + 5;

/// What rustls holds on the heap for a connection that is up, beyond its struct. Measured (`tests/memory.rs`); it tells
/// nobody.
const RUSTLS_HEAP_BYTES: usize = 2048;

/// Which end of TLS a connection is: rustls has a type for each.
pub(crate) trait End: DerefMut<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// What rustls keeps for this end only.
    type Data;

    /// The next step of rustls.
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
}

/// One TLS connection.
pub(crate) struct RustlsConnection<E = UnbufferedServerConnection> {
    rustls: E,
    /// The tail of a record that is cut, or messages of the handshake that are.
    tail: Vec<u8>,
    /// Bytes that came during the handshake.
    handshake_bytes: usize,
    handshake_bytes_max: usize,
    server_name: Option<Box<str>>,
    /// The peer has sent close_notify, or all is over: nothing more is read.
    is_ended: bool,
    is_closed: bool,
}

impl RustlsConnection {
    pub(crate) fn new(
        config: &Arc<ServerConfig>,
        handshake_bytes_max: usize,
    ) -> Result<Self, TlsFailure> {
        let rustls = UnbufferedServerConnection::new(Arc::clone(config))?;
        Ok(Self::of(rustls, handshake_bytes_max))
    }
}

impl RustlsConnection<UnbufferedClientConnection> {
    /// The client's end. It has something to say before it has received anything: its hello comes of receiving nothing.
    pub(crate) fn client(client: &TlsClient) -> Result<Self, TlsFailure> {
        let config = Arc::clone(&client.config);
        let rustls = UnbufferedClientConnection::new(config, client.server_name.clone())?;
        Ok(Self::of(rustls, client.handshake_bytes_max))
    }

    /// Whether the handshake was a short one, by a ticket.
    pub(crate) fn is_resumed(&self) -> bool {
        self.rustls.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl<E: End> RustlsConnection<E> {
    fn of(rustls: E, handshake_bytes_max: usize) -> Self {
        Self {
            rustls,
            tail: Vec::new(),
            handshake_bytes: 0,
            handshake_bytes_max,
            server_name: None,
            is_ended: false,
            is_closed: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.rustls.is_handshaking()
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Takes what came, and overwrites it. Plain bytes go to `take`, record by record; what TLS itself has to say to `wire`.
    pub(crate) fn received(
        &mut self,
        raw: &mut [u8],
        wire: &mut Vec<u8>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), TlsFailure> {
        if self.is_ended {
            return Ok(());
        }
        let handshaking = !self.is_open();
        let result = self.decrypt(raw, wire, take);
        if let Some(name) = resolver::take_asked() {
            self.server_name = Some(name);
        }
        let result = result.map_err(|error| TlsFailure::new(error, handshaking)).and_then(|()| {
            if self.is_open() {
                // A record that is cut; a message cut into many is not what anybody sends then.
                let too_much = self.tail.len() > WIRE_RECORD_LEN_MAX.max(self.handshake_bytes_max);
                return if too_much { Err(Error::PeerSentOversizedRecord.into()) } else { Ok(()) };
            }
            self.handshake_bytes = self.handshake_bytes.saturating_add(raw.len());
            if self.handshake_bytes > self.handshake_bytes_max {
                return Err(TlsFailure::HandshakeTooLong(self.handshake_bytes_max));
            }
            Ok(())
        });
        if result.is_err() {
            self.put_pending(wire);
            self.is_ended = true;
            self.is_closed = true;
        }
        if self.is_ended {
            self.tail = Vec::new();
        }
        result
    }

    fn decrypt(
        &mut self,
        raw: &mut [u8],
        wire: &mut Vec<u8>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        if self.tail.is_empty() {
            let used = self.process(raw, wire, take)?;
            self.tail.extend_from_slice(&raw[used..]);
        } else {
            let mut tail = std::mem::take(&mut self.tail);
            tail.extend_from_slice(raw);
            let used = self.process(&mut tail, wire, take)?;
            // What is left is copied rather than its big buffer kept.
            self.tail = if used == 0 { tail } else { tail[used..].to_vec() };
        }
        Ok(())
    }

    /// Processes the records in `bytes`; how many bytes are done with.
    fn process(
        &mut self,
        bytes: &mut [u8],
        wire: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.rustls.process(&mut bytes[used..]);
            let mut done = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        take(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    put_encoded(&mut data, wire);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.is_ended = true;
                    done = true;
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => done = true,
                // No early data is allowed, and there is nothing else today.
                _ => return Err(Error::General("a state of TLS that is not known".to_owned())),
            }
            used += discard;
            if done {
                return Ok(used);
            }
        }
    }

    /// Puts the alerts and other messages that rustls still wants to send.
    fn put_pending(&mut self, wire: &mut Vec<u8>) {
        // Nothing is read while there is something to send, so no bytes need be given.
        while self.rustls.wants_write() {
            let UnbufferedStatus { state, .. } = self.rustls.process(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            put_encoded(&mut data, wire);
        }
    }

    /// Encrypts these bytes, the head first, as few records. The head is short: it is not divided.
    pub(crate) fn send<'a>(
        &mut self,
        head: &[u8],
        pieces: impl Iterator<Item = &'a [u8]>,
        wire: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        self.put_pending(wire);
        // Small pieces are gathered at the end of `wire`, where they are to be sent from: no other buffer is needed.
        let mut start = wire.len();
        wire.extend_from_slice(head);
        for mut piece in pieces {
            while !piece.is_empty() {
                let gathered = wire.len() - start;
                if gathered == 0 && piece.len() >= RECORD_LEN_MAX {
                    let (now, rest) = piece.split_at(RECORD_LEN_MAX);
                    self.encrypt(now, wire)?;
                    start = wire.len();
                    piece = rest;
                    continue;
                }
                let (now, rest) = piece.split_at(piece.len().min(RECORD_LEN_MAX - gathered));
                wire.extend_from_slice(now);
                piece = rest;
                if wire.len() - start == RECORD_LEN_MAX {
                    self.encrypt_gathered(start, wire)?;
                    start = wire.len();
                }
            }
        }
        if wire.len() > start { self.encrypt_gathered(start, wire) } else { Ok(()) }
    }

    /// Encrypts the end of `wire` in its place.
    fn encrypt_gathered(&mut self, start: usize, wire: &mut Vec<u8>) -> Result<(), TlsFailure> {
        let end = wire.len();
        wire.resize(end + (end - start) + RECORD_OVERHEAD, 0);
        let (plain, to) = wire.split_at_mut(end);
        let result = self.encrypt_into(&plain[start..], to);
        let len = *result.as_ref().unwrap_or(&0);
        wire.copy_within(end..end + len, start);
        wire.truncate(start + len);
        self.sent(result, wire)
    }

    /// Encrypts bytes that lie elsewhere.
    fn encrypt(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), TlsFailure> {
        let start = wire.len();
        wire.resize(start + plain.len() + RECORD_OVERHEAD, 0);
        let result = self.encrypt_into(plain, &mut wire[start..]);
        wire.truncate(start + *result.as_ref().unwrap_or(&0));
        self.sent(result, wire)
    }

    fn encrypt_into(&mut self, plain: &[u8], to: &mut [u8]) -> Result<usize, EncryptError> {
        self.write_traffic(|mut traffic| traffic.encrypt(plain, to))
            .unwrap_or(Err(EncryptError::EncryptExhausted))
    }

    /// Keys are exhausted with TLS 1.2 only, after billions of records; rustls then says goodbye.
    fn sent(
        &mut self,
        result: Result<usize, EncryptError>,
        wire: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        if result.is_err() {
            self.put_pending(wire);
        }
        result.map(|_| ()).map_err(|_| Error::EncryptError.into())
    }

    /// Says goodbye (close_notify), once.
    pub(crate) fn close(&mut self, wire: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_closed, true) || !self.is_open() {
            return;
        }
        self.put_pending(wire);
        // Without room for it the alert is queued, and then put by its true length.
        self.write_traffic(|mut traffic| traffic.queue_close_notify(&mut []).is_ok());
        self.put_pending(wire);
    }

    /// Does something with the right to send; `None` if there is none, because the handshake goes on or all is over.
    fn write_traffic<R>(&mut self, what: impl FnOnce(WriteTraffic<'_, E::Data>) -> R) -> Option<R> {
        loop {
            // The tail is what rustls has seen of the records to come; without it, it would lose its place.
            let UnbufferedStatus { state, .. } = self.rustls.process(&mut self.tail);
            match state {
                Ok(ConnectionState::WriteTraffic(traffic)) => return Some(what(traffic)),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return None,
            }
        }
    }

    /// What the handshake has said; to be asked once.
    pub(crate) fn info(&mut self) -> TlsInfo {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
        TlsInfo {
            version: self.rustls.protocol_version().map_or("unknown", ciphers::version_name),
            cipher: self.rustls.negotiated_cipher_suite().map_or("unknown", ciphers::iana_name),
            resumed: self.rustls.handshake_kind() == Some(HandshakeKind::Resumed),
            server_name: self.server_name.take(),
            alpn: self.rustls.alpn_protocol().map(text),
            certificate: self
                .client_certificate()
                .and_then(ClientCertificate::from_der)
                .map(Box::new),
            psk_identity: None,
        }
    }

    /// The client's own certificate.
    pub(crate) fn client_certificate(&self) -> Option<&[u8]> {
        Some(self.rustls.peer_certificates()?.first()?)
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let chain = self.rustls.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|it| size_of_val(it) + it.len()).sum::<usize>();
        let name = self.server_name.as_deref().map_or(0, str::len);
        RUSTLS_HEAP_BYTES + chain + name + self.tail.capacity()
    }
}

impl<E: End> std::fmt::Debug for RustlsConnection<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RustlsConnection").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// Lets rustls write to the end of `wire`.
fn put_encoded<D>(data: &mut EncodeTlsData<'_, D>, wire: &mut Vec<u8>) {
    let start = wire.len();
    let mut result = data.encode(&mut []);
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = result {
        wire.resize(start + required_size, 0);
        result = data.encode(&mut wire[start..]);
    }
    wire.truncate(start + result.unwrap_or(0));
}
