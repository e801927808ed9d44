//! TLS 1.2 and 1.3, the server's side and the client's: by rustls, and on listeners with pre-shared keys, which rustls does not speak,
//! by OpenSSL.
//!
//! A connection of rustls is an *unbuffered* one: records are decrypted where they were received and encrypted where they will be
//! sent from. Between two receives only the tail of a record that is cut is kept. What an idle connection costs is the
//! state of rustls itself.
//!
//! Both read the wall clock by themselves, to see whether certificates and tickets are still good, and draw on the system's
//! random source. Neither blocks.

mod certificate;
mod ciphers;
mod client;
mod connection;
mod error;
mod load;
mod options;
#[cfg(feature = "psk")]
mod psk;
mod resolver;
mod rustls_connection;

pub use client::{TlsClient, TlsClientOptions};
pub use error::{TlsError, TlsFailure, Warning};
pub use options::{CertificateFiles, SniCertificate, TlsOptions};

pub(crate) use connection::TlsConnection;
pub(crate) use rustls_connection::RustlsConnection;

use std::sync::Arc;

/// All a listener needs to speak TLS: certificates, keys, rules. To reload, load a new one and use it for the connections that
/// come then. Tickets of an old one are not taken by a new one: what they vouch for was checked by rules that may
/// have changed.
#[derive(Debug, Clone)]
pub struct TlsServer {
    engine: Engine,
    handshake_bytes_max: usize,
}

/// Which library speaks.
#[derive(Debug, Clone)]
enum Engine {
    Rustls(Arc<rustls::ServerConfig>),
    #[cfg(feature = "psk")]
    Psk(psk::PskServer),
}
