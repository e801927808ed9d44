//! One TLS connection by OpenSSL, as a byte filter: what it would read from a socket and write to one lies in memory.

use super::super::error::TlsFailure;
use super::{Asked, PskServer};
use crate::peer::TlsInfo;
use openssl::error::ErrorStack;
use openssl::ssl::{Error, ErrorCode, NameType, Ssl, SslStream};
use std::io::{self, Read, Write};

/// Most plain bytes in a record (RFC 8446, 5.1).
const RECORD_LEN_MAX: usize = 1 << 14;
/// The first byte of a record of the handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// What OpenSSL holds on the heap for a connection that is up. Measured (`tests/memory.rs`); it tells nobody.
const OPENSSL_HEAP_BYTES: usize = 13 * 1024;

/// One TLS connection of a listener with pre-shared keys.
pub(crate) struct PskConnection {
    stream: SslStream<Pipe>,
    server: PskServer,
    /// Bytes that came during the handshake.
    handshake_bytes: usize,
    handshake_bytes_max: usize,
    is_open: bool,
    /// The peer has sent close_notify, or all is over: nothing more is read.
    is_ended: bool,
    is_closed: bool,
}

impl PskConnection {
    pub(crate) fn new(server: &PskServer, handshake_bytes_max: usize) -> Result<Self, TlsFailure> {
        let ssl = Ssl::new(&server.context);
        let stream = ssl.and_then(|ssl| SslStream::new(ssl, Pipe::default()));
        Ok(Self {
            stream: stream.map_err(|errors| library_failure(&errors))?,
            server: server.clone(),
            handshake_bytes: 0,
            handshake_bytes_max,
            is_open: false,
            is_ended: false,
            is_closed: false,
        })
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// As `TlsConnection::received`.
    pub(crate) fn received(
        &mut self,
        raw: &mut [u8],
        wire: &mut Vec<u8>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), TlsFailure> {
        if self.is_ended || raw.is_empty() {
            return Ok(());
        }
        if self.handshake_bytes == 0 && raw[0] != HANDSHAKE {
            (self.is_ended, self.is_closed) = (true, true);
            return Err(TlsFailure::NotTls);
        }
        self.stream.get_mut().came(raw);
        let result = self.advance(raw, take);
        self.stream.get_mut().put(wire);
        if result.is_err() {
            (self.is_ended, self.is_closed) = (true, true);
        }
        result
    }

    fn advance(&mut self, raw: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<(), TlsFailure> {
        if !self.is_open {
            self.handshake_bytes = self.handshake_bytes.saturating_add(raw.len());
            match self.stream.accept() {
                Ok(()) => self.check_identity()?,
                Err(error) if error.code() == ErrorCode::WANT_READ => {
                    let too_much = self.handshake_bytes > self.handshake_bytes_max;
                    return if too_much {
                        Err(TlsFailure::HandshakeTooLong(self.handshake_bytes_max))
                    } else {
                        Ok(())
                    };
                }
                Err(error) => return Err(self.failure(&error)),
            }
            self.is_open = true;
        }
        loop {
            // OpenSSL has a copy of what was received, so its place is free for what becomes of it.
            match self.stream.ssl_read(raw) {
                Ok(len) => take(&raw[..len]),
                Err(error) => match error.code() {
                    ErrorCode::WANT_READ => return Ok(()),
                    ErrorCode::ZERO_RETURN => {
                        self.is_ended = true;
                        return Ok(());
                    }
                    _ => return Err(self.failure(&error)),
                },
            }
        }
    }

    /// TLS 1.3 goes on without an identity that is not known, if there is a certificate. Who comes with one is to be told that
    /// it is wrong rather than be let in as nobody.
    fn check_identity(&self) -> Result<(), TlsFailure> {
        match self.asked() {
            Some(asked) if !asked.is_known => {
                Err(TlsFailure::UnknownPskIdentity(asked.identity.clone()))
            }
            _ => Ok(()),
        }
    }

    fn asked(&self) -> Option<&Asked> {
        self.stream.ssl().ex_data(self.server.asked)
    }

    /// What an error means: OpenSSL says it by its codes (sslerr.h), which do not change.
    fn failure(&self, error: &Error) -> TlsFailure {
        let errors = error.ssl_error();
        let asked = self.asked().filter(|_| !self.is_open);
        let code = errors.and_then(|errors| Some(errors.errors().first()?.reason_code()));
        match (code, asked) {
            (_, Some(asked)) if !asked.is_known => {
                TlsFailure::UnknownPskIdentity(asked.identity.clone())
            }
            // A binder that does not verify (1.3); a Finished that cannot be decrypted, or is wrong (1.2).
            (Some(253 | 281 | 149), Some(asked)) => TlsFailure::WrongPsk(asked.identity.clone()),
            (Some(code), _) => {
                let text = errors.map_or_else(String::new, text);
                TlsFailure::OpenSsl { reason: self.reason(code), text }
            }
            (None, _) => {
                TlsFailure::OpenSsl { reason: "tls_protocol_error", text: error.to_string() }
            }
        }
    }

    /// A name for counters, as rustls's errors have.
    const fn reason(&self, code: i32) -> &'static str {
        match code {
            // No shared cipher, groups or signature algorithms, and none that suits what there is: this is also what comes of a
            // client without a key where there is no certificate.
            193 | 410 | 376 | 295 | 101 | 118 | 179 => "tls_no_common_cipher",
            // Unsupported protocol, no protocols available, wrong version, version too low.
            258 | 191 | 266 | 267 | 396 => "tls_version",
            235 => "tls_alpn",
            281 => "tls_decrypt_error",
            // 1000 and the number of an alert.
            1000.. => "tls_alert_received",
            _ => "tls_protocol_error",
        }
    }

    /// As `TlsConnection::send`.
    pub(crate) fn send<'a>(
        &mut self,
        head: &[u8],
        pieces: impl Iterator<Item = &'a [u8]>,
        wire: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        // Small pieces are gathered, so that records are few.
        let mut gathered = head.to_vec();
        for piece in pieces {
            if gathered.len() + piece.len() <= RECORD_LEN_MAX {
                gathered.extend_from_slice(piece);
                continue;
            }
            self.write(&gathered)?;
            gathered.clear();
            if piece.len() < RECORD_LEN_MAX {
                gathered.extend_from_slice(piece);
            } else {
                self.write(piece)?;
            }
        }
        self.write(&gathered)?;
        self.stream.get_mut().put(wire);
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), TlsFailure> {
        while !bytes.is_empty() {
            let len = self.stream.ssl_write(bytes).map_err(|error| self.failure(&error))?;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// As `TlsConnection::close`.
    pub(crate) fn close(&mut self, wire: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_closed, true) || !self.is_open {
            return;
        }
        // If it cannot be said, nothing can.
        let _ = self.stream.shutdown();
        self.stream.get_mut().put(wire);
    }

    /// As `TlsConnection::info`.
    pub(crate) fn info(&self) -> TlsInfo {
        let ssl = self.stream.ssl();
        let cipher = ssl.current_cipher().and_then(|cipher| cipher.standard_name());
        let alpn = ssl.selected_alpn_protocol();
        let asked = self.asked().filter(|asked| asked.is_known);
        TlsInfo {
            version: ssl.version_str(),
            cipher: cipher.unwrap_or("unknown"),
            resumed: false,
            server_name: ssl.servername(NameType::HOST_NAME).map(Into::into),
            alpn: alpn.map(|name| String::from_utf8_lossy(name).into()),
            certificate: None,
            psk_identity: asked.map(|asked| asked.identity.clone()),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let asked = self.asked().map_or(0, |asked| size_of::<Asked>() + asked.identity.len());
        let pipe = self.stream.get_ref();
        OPENSSL_HEAP_BYTES + asked + pipe.incoming.capacity() + pipe.outgoing.capacity()
    }
}

impl std::fmt::Debug for PskConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PskConnection").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

fn library_failure(errors: &ErrorStack) -> TlsFailure {
    TlsFailure::OpenSsl { reason: "tls_protocol_error", text: text(errors) }
}

/// What OpenSSL says, without its file names and line numbers.
pub(super) fn text(errors: &ErrorStack) -> String {
    let reasons = errors.errors().iter().filter_map(openssl::error::Error::reason);
    let text = reasons.collect::<Vec<_>>().join(", ");
    if text.is_empty() { errors.to_string() } else { text }
}

/// Both directions of the wire.
#[derive(Debug, Default)]
struct Pipe {
    incoming: Vec<u8>,
    /// How much of it was read.
    read: usize,
    outgoing: Vec<u8>,
}

impl Pipe {
    fn came(&mut self, raw: &[u8]) {
        self.incoming.extend_from_slice(raw);
    }

    /// Puts what OpenSSL has written on the wire. Gives back the buffers: an idle connection holds none.
    fn put(&mut self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(&std::mem::take(&mut self.outgoing));
        if self.read == self.incoming.len() {
            (self.incoming, self.read) = (Vec::new(), 0);
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.incoming[self.read..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
