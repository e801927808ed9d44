//! From files and names to a [`TlsServer`]. Only this module reads files, and only when told to.

use super::error::{TlsError, Warning, shown};
use super::options::{CertificateFiles, TlsOptions};
use super::resolver::Resolver;
use super::{Engine, TlsServer, certificate, ciphers};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long before the end it is said that a certificate expires.
const SOON: Duration = Duration::from_secs(14 * DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 3600;

impl TlsServer {
    /// Reads the files these options name and makes a server of them. `now` decides what is said about expiry.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(options: &TlsOptions, now: SystemTime) -> Result<(Self, Vec<Warning>), TlsError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut loader = Loader { now, warnings: Vec::new() };
        let server = loader.server(options)?;
        Ok((server, loader.warnings))
    }
}

struct Loader {
    now: Duration,
    warnings: Vec<Warning>,
}

impl Loader {
    fn server(&mut self, options: &TlsOptions) -> Result<TlsServer, TlsError> {
        let engine = match &options.psk_file {
            Some(file) => self.with_keys(options, file)?,
            None => self.with_certificates(options)?,
        };
        Ok(TlsServer { engine, handshake_bytes_max: options.handshake_bytes_max })
    }

    #[cfg(not(feature = "psk"))]
    fn with_keys(&mut self, _: &TlsOptions, _: &Path) -> Result<Engine, TlsError> {
        Err(TlsError::PskNotBuilt)
    }

    #[cfg(feature = "psk")]
    fn with_keys(&mut self, options: &TlsOptions, file: &Path) -> Result<Engine, TlsError> {
        use super::psk::{Certificate, PskKeys, PskServer};
        for (is_set, what) in [
            (options.verify_peer, "verify = verify_peer"),
            (options.crl_file.is_some(), "crlfile"),
            (!options.sni.is_empty(), "sni"),
        ] {
            if is_set {
                return Err(TlsError::PskWith(what));
            }
        }
        let keys = PskKeys::read(file, &mut self.warnings)?;
        let certificate = match &options.certificate {
            None => None,
            Some(files) => {
                let certified = self.certified_key(files, &ring::default_provider())?;
                let chain = certified.cert.iter().map(|der| der.to_vec()).collect();
                let key = private_key(&files.key_file)?.secret_der().to_vec();
                Some(Certificate { chain, key })
            }
        };
        let server = PskServer::new(options, keys, certificate.as_ref(), &mut self.warnings)?;
        Ok(Engine::Psk(server))
    }

    fn with_certificates(&mut self, options: &TlsOptions) -> Result<Engine, TlsError> {
        let mut versions = ciphers::versions(&options.versions, &mut self.warnings)?;
        let cipher_suites = ciphers::suites(&options.ciphers, &mut self.warnings);
        // A version that is asked for needs a cipher; one that is only not forbidden goes without.
        versions.retain(|version| {
            !options.versions.is_empty()
                || cipher_suites.iter().any(|suite| suite.version() == *version)
        });
        for version in &versions {
            if !cipher_suites.iter().any(|suite| suite.version() == *version) {
                return Err(TlsError::NoCipher(ciphers::version_name(version.version)));
            }
        }
        let provider = Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() });
        let resolver = self.resolver(options, &provider)?;
        let verifier = self.verifier(options, &provider)?;
        if options.dh_file.is_some() {
            self.warnings.push(Warning::DhFile);
        }
        if options.secure_renegotiate {
            self.warnings.push(Warning::Renegotiation);
        }

        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| TlsError::Config(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(resolver));
        config.ignore_client_order = options.honor_cipher_order;
        config.alpn_protocols = options.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        // What a client needs to come back is in its ticket: nothing is stored here, and no lock is shared by shards.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // One ticket is what a client needs that makes one connection at a time.
        config.send_tls13_tickets = usize::from(options.reuse_sessions);
        if options.reuse_sessions {
            config.ticketer =
                ring::Ticketer::new().map_err(|error| TlsError::Config(error.to_string()))?;
        }
        Ok(Engine::Rustls(Arc::new(config)))
    }

    fn resolver(
        &mut self,
        options: &TlsOptions,
        provider: &CryptoProvider,
    ) -> Result<Resolver, TlsError> {
        let files = options.certificate.as_ref().ok_or(TlsError::NothingToShow)?;
        let default = self.certified_key(files, provider)?;
        let mut resolver = Resolver::new(default);
        for sni in &options.sni {
            let certificate = self.certified_key(&sni.files, provider)?;
            let own = certificate::dns_names(&certificate.cert[0]);
            let names = if sni.names.is_empty() { &own } else { &sni.names };
            if names.is_empty() {
                return Err(TlsError::SniNoName(shown(&sni.files.cert_file)));
            }
            for name in names {
                resolver.add(name, &certificate)?;
            }
        }
        Ok(resolver)
    }

    fn certified_key(
        &mut self,
        files: &CertificateFiles,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = certificates(&files.cert_file)?;
        self.check_validity(&chain[0], &files.cert_file);
        let key = private_key(&files.key_file)?;
        let (cert_file, key_file) = (shown(&files.cert_file), shown(&files.key_file));
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| TlsError::Key { file: key_file.clone(), error: error.to_string() })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(Arc::new(certified))
            }
            Err(Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch { key_file, cert_file }),
            Err(error) => Err(TlsError::Certificate { file: cert_file, error: error.to_string() }),
        }
    }

    fn check_validity(&mut self, certificate: &[u8], file: &Path) {
        let Some((from, until)) = certificate::validity(certificate) else { return };
        let file = shown(file);
        let days = |span: Duration| span.as_secs() / DAY_SECONDS;
        if self.now > until {
            self.warnings.push(Warning::Expired { file, days: days(self.now - until) });
        } else if self.now < from {
            self.warnings.push(Warning::NotYetValid(file));
        } else if until - self.now < SOON {
            self.warnings.push(Warning::ExpiresSoon { file, days: days(until - self.now) });
        }
    }

    fn verifier(
        &mut self,
        options: &TlsOptions,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        if !options.verify_peer {
            if options.fail_if_no_peer_cert {
                self.warnings.push(Warning::FailWithoutVerify);
            }
            if options.crl_file.is_some() {
                self.warnings.push(Warning::CrlWithoutVerify);
            }
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let ca_file = options.ca_file.as_deref().ok_or(TlsError::NoCaFile)?;
        let mut roots = RootCertStore::empty();
        let (added, skipped) = roots.add_parsable_certificates(certificates(ca_file)?);
        if added == 0 {
            let error = "it is none of an authority".to_owned();
            return Err(TlsError::Certificate { file: shown(ca_file), error });
        }
        if skipped > 0 {
            self.warnings.push(Warning::CaSkipped { file: shown(ca_file), count: skipped });
        }
        let roots = Arc::new(roots);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
            // As OpenSSL's X509_V_FLAG_CRL_CHECK and mosquitto's crlfile: of the client's own certificate.
            .only_check_end_entity_revocation();
        let crl_file = options.crl_file.as_deref();
        if let Some(file) = crl_file {
            builder = builder.with_crls(self.revocation_lists(file)?);
        }
        if !options.fail_if_no_peer_cert {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| match (error, crl_file) {
            (VerifierBuilderError::InvalidCrl(error), Some(file)) => {
                TlsError::Crl { file: shown(file), error: format!("{error:?}") }
            }
            (error, _) => TlsError::Config(error.to_string()),
        })
    }

    fn revocation_lists(
        &mut self,
        file: &Path,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let lists = blocks::<CertificateRevocationListDer<'static>>(&read(file)?, file)?;
        if lists.is_empty() {
            return Err(TlsError::NoCrl(shown(file)));
        }
        let old = |list: &CertificateRevocationListDer<'_>| {
            certificate::crl_next_update(list).is_some_and(|next| next < self.now)
        };
        if lists.iter().any(old) {
            self.warnings.push(Warning::CrlExpired(shown(file)));
        }
        Ok(lists)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| TlsError::Read { file: shown(file), error })
}

/// All blocks of one kind in a file.
fn blocks<T: PemObject>(bytes: &[u8], file: &Path) -> Result<Vec<T>, TlsError> {
    let blocks = T::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    blocks.map_err(|error| TlsError::Pem { file: shown(file), error: error.to_string() })
}

/// The certificates in a file, at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = blocks::<CertificateDer<'static>>(&read(file)?, file)?;
    if certificates.is_empty() {
        Err(TlsError::NoCertificate(shown(file)))
    } else {
        Ok(certificates)
    }
}

/// The first private key in a file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    // PKCS #8 says it in the block's name, what OpenSSL wrote before in a header (RFC 1421, 4.6.1.1).
    let says = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    if says(b"BEGIN ENCRYPTED PRIVATE KEY") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey(shown(file)));
    }
    let keys = blocks::<(SectionKind, Vec<u8>)>(&bytes, file)?;
    let mut keys = keys.into_iter().filter_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der));
    keys.next().ok_or_else(|| TlsError::NoKey(shown(file)))
}
