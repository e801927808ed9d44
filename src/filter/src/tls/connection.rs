//! One TLS connection, as a byte filter, by whichever library its listener has.

use super::error::TlsFailure;
#[cfg(feature = "psk")]
use super::psk::PskConnection;
use super::rustls_connection::RustlsConnection;
use super::{Engine, TlsServer};
use crate::peer::TlsInfo;

/// One TLS connection.
#[derive(Debug)]
#[cfg_attr(
    feature = "psk",
    expect(
        clippy::large_enum_variant,
        reason = "the large one is the usual one, and both are in a box"
    )
)]
pub(crate) enum TlsConnection {
    Rustls(RustlsConnection),
    #[cfg(feature = "psk")]
    Psk(PskConnection),
}

/// Calls the connection's own method.
macro_rules! either {
    ($self:expr, $connection:ident => $call:expr) => {
        match $self {
            TlsConnection::Rustls($connection) => $call,
            #[cfg(feature = "psk")]
            TlsConnection::Psk($connection) => $call,
        }
    };
}

impl TlsConnection {
    pub(crate) fn new(server: &TlsServer) -> Result<Self, TlsFailure> {
        let max = server.handshake_bytes_max;
        match &server.engine {
            Engine::Rustls(config) => RustlsConnection::new(config, max).map(Self::Rustls),
            #[cfg(feature = "psk")]
            Engine::Psk(server) => PskConnection::new(server, max).map(Self::Psk),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        either!(self, it => it.is_open())
    }

    pub(crate) const fn is_ended(&self) -> bool {
        either!(self, it => it.is_ended())
    }

    /// Takes what came, and overwrites it. Plain bytes go to `take`, record by record; what TLS itself has to say to `wire`.
    pub(crate) fn received(
        &mut self,
        raw: &mut [u8],
        wire: &mut Vec<u8>,
        take: impl FnMut(&[u8]),
    ) -> Result<(), TlsFailure> {
        either!(self, it => it.received(raw, wire, take))
    }

    /// Encrypts these bytes, the head first, as few records.
    pub(crate) fn send<'a>(
        &mut self,
        head: &[u8],
        pieces: impl Iterator<Item = &'a [u8]>,
        wire: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        either!(self, it => it.send(head, pieces, wire))
    }

    /// Says goodbye (close_notify), once.
    pub(crate) fn close(&mut self, wire: &mut Vec<u8>) {
        either!(self, it => it.close(wire));
    }

    /// What the handshake has said; to be asked once.
    pub(crate) fn info(&mut self) -> TlsInfo {
        either!(self, it => it.info())
    }

    /// The client's own certificate.
    pub(crate) fn client_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Rustls(connection) => connection.client_certificate(),
            // Clients with pre-shared keys are asked for none.
            #[cfg(feature = "psk")]
            Self::Psk(_) => None,
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        either!(self, it => it.heap_bytes())
    }
}
