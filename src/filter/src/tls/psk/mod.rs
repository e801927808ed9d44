//! TLS with pre-shared keys, by OpenSSL (SEED-LSN-17): RFC 4279 and 5489 for TLS 1.2, RFC 8446 section 2.2 for 1.3.
//!
//! Such a listener may have a certificate besides, for clients that have no key. It asks no client for a certificate, and it
//! gives out no tickets: coming back with the key costs no more.

mod connection;
mod keys;
mod load;

pub(super) use connection::PskConnection;
pub(super) use keys::PskKeys;
pub(super) use load::Certificate;

use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslContext};

/// What a listener with pre-shared keys has.
#[derive(Clone)]
pub(crate) struct PskServer {
    context: SslContext,
    /// Where the key callback leaves what a connection asked for.
    asked: Index<Ssl, Asked>,
    /// It has a certificate too.
    has_certificate: bool,
}

impl std::fmt::Debug for PskServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PskServer").field("has_certificate", &self.has_certificate).finish()
    }
}

/// The identity a client came with.
struct Asked {
    identity: Box<str>,
    is_known: bool,
}
