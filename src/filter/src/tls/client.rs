//! The client's side: what a load tool needs, which meets brokers with certificates of any kind.

use super::error::{TlsError, Warning, shown};
use super::{ciphers, load};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, NamedGroup, SignatureScheme};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes of a server's handshake: a chain of certificates has 10 KB.
const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;
/// Tickets kept for those who connect next.
const TICKETS_MAX: usize = 16 * 1024;

/// What clients of TLS are to do. The server's certificate is not verified: this is for measuring, not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClientOptions {
    /// The host as it is asked for (SNI); an address is asked for without a name (RFC 6066, 3).
    pub host: String,
    /// Certificates of authorities, in PEM; they must be readable, and are not needed.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, in PEM; with [`Self::key_file`].
    pub cert_file: Option<PathBuf>,
    /// Its private key, not encrypted.
    pub key_file: Option<PathBuf>,
    /// Versions, such as `tlsv1.3`; empty: all that are spoken (1.2 and 1.3).
    pub versions: Vec<String>,
    /// Cipher suites by the name OpenSSL or IANA has for them; empty: all.
    pub ciphers: Vec<String>,
    /// Whether who connects takes the ticket of one that did before, whichever client that was.
    pub resumes: bool,
}

/// All clients need to speak TLS to one server.
#[derive(Debug, Clone)]
pub struct TlsClient {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    pub(super) handshake_bytes_max: usize,
}

impl TlsClient {
    /// Reads the files these options name.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(options: &TlsClientOptions) -> Result<(Self, Vec<Warning>), TlsError> {
        let mut warnings = Vec::new();
        let config_error = |error: Error| TlsError::Config(error.to_string());
        let mut versions = ciphers::versions(&options.versions, &mut warnings)?;
        let cipher_suites = ciphers::suites(&options.ciphers, &mut warnings);
        versions.retain(|version| cipher_suites.iter().any(|it| it.version() == *version));
        if let Some(file) = &options.ca_file {
            load::certificates(file)?;
        }
        let provider = Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(config_error)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)));
        let mut config = match (&options.cert_file, &options.key_file) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(load::certificates(cert)?, load::private_key(key)?)
                .map_err(|error| TlsError::Key { file: shown(key), error: error.to_string() })?,
            (None, None) => builder.with_no_client_auth(),
            _ => {
                let text = "a certificate and its key are given together or not at all";
                return Err(TlsError::Config(text.to_owned()));
            }
        };
        config.resumption = match options.resumes {
            true => Resumption::store(Arc::new(Tickets::default())),
            false => Resumption::disabled(),
        };
        let server_name = ServerName::try_from(options.host.clone())
            .map_err(|_| TlsError::SniName(options.host.clone()))?;
        let handshake_bytes_max = HANDSHAKE_BYTES_MAX;
        Ok((Self { config: Arc::new(config), server_name, handshake_bytes_max }, warnings))
    }
}

/// Takes any certificate, and does not look at signatures by it.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The tickets of one server, whoever of its clients got them: each is used once, the oldest first.
#[derive(Debug, Default)]
struct Tickets(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tls13.len() < TICKETS_MAX {
            kept.tls13.push_back(value);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tls13.pop_front()
    }
}
