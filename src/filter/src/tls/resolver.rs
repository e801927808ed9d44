//! Which of our certificates a client is shown.

use super::error::TlsError;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

thread_local! {
    /// The name the client asked for whose hello this thread reads right now: an unbuffered connection of rustls does
    /// not tell. It is set and taken within one call of `TlsConnection::received`.
    static ASKED: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The name asked for since this was last called, on this thread.
pub(super) fn take_asked() -> Option<Box<str>> {
    ASKED.take()
}

type Certificates = Vec<Arc<CertifiedKey>>;

/// Certificates by name.
#[derive(Debug)]
pub(super) struct Resolver {
    default: Arc<CertifiedKey>,
    exact: HashMap<Box<str>, Certificates>,
    /// By what follows the `*.`.
    wildcard: HashMap<Box<str>, Certificates>,
}

impl Resolver {
    pub(super) fn new(default: Arc<CertifiedKey>) -> Self {
        Self { default, exact: HashMap::new(), wildcard: HashMap::new() }
    }

    pub(super) fn add(
        &mut self,
        name: &str,
        certificate: &Arc<CertifiedKey>,
    ) -> Result<(), TlsError> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let (names, bare) = match name.strip_prefix("*.") {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, &*name),
        };
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if bare.is_empty() || !bare.bytes().all(good) {
            return Err(TlsError::SniName(name));
        }
        names.entry(bare.into()).or_default().push(Arc::clone(certificate));
        Ok(())
    }

    /// Those for this name: an exact one is better than a wildcard, which stands for one level (RFC 6125, 6.4.3).
    fn find(&self, name: &str) -> Option<&Certificates> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let parent = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(&*name).or_else(parent)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(Into::into));
        let named = hello.server_name().and_then(|name| self.find(name));
        let Some(named) = named else { return Some(Arc::clone(&self.default)) };
        let schemes = hello.signature_schemes();
        let verifiable =
            named.iter().find(|certificate| certificate.key.choose_scheme(schemes).is_some());
        verifiable.or(named.first()).cloned()
    }
}
