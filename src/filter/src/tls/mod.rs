//! TLS 1.2 and 1.3, the server's side and the client's, by rustls.
//!
//! A connection is rustls's *unbuffered* one: records are decrypted where they were received and encrypted where they will be
//! sent from. Between two receives only the tail of a record that is cut is kept. What an idle connection costs is the
//! state of rustls itself.
//!
//! rustls reads the wall clock by itself, to see whether certificates and tickets are still good, and draws on the system's
//! random source. Neither blocks.

mod certificate;
mod ciphers;
mod client;
mod connection;
mod error;
mod load;
mod options;
mod resolver;

pub use client::{TlsClient, TlsClientOptions};
pub use error::{TlsError, TlsFailure, Warning};
pub use options::{CertificateFiles, SniCertificate, TlsOptions};

pub(crate) use connection::TlsConnection;

use std::sync::Arc;

/// All a listener needs to speak TLS: certificates, keys, rules. To reload, load a new one and use it for the connections that
/// come then. Tickets of an old one are not taken by a new one: what they vouch for was checked by rules that may
/// have changed.
#[derive(Debug, Clone)]
pub struct TlsServer {
    config: Arc<rustls::ServerConfig>,
    handshake_bytes_max: usize,
}
