//! Certificates made on the spot, and clients that talk to a filter through memory.
#![allow(dead_code, reason = "not every test uses all")]

#[cfg(feature = "psk")]
pub mod openssl_client;

use filter::{Filter, FilterError, FilterSettings, TlsOptions, TlsServer, Warning};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use ringmq_filter as filter;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// A folder that goes when the test does.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ringmq-filter-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pem {
    pub cert: String,
    pub key: String,
}

impl Pem {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert.as_bytes()).map(Result::unwrap).collect()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// An authority.
pub struct Authority {
    pub pem: Pem,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.self_signed(&key).unwrap();
        let pem = Pem { cert: cert.pem(), key: key.serialize_pem() };
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate, after `change` has had a look.
    pub fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let key = KeyPair::generate().unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pem { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A client's, with this common name and serial number.
    pub fn client(&self, name: &str, serial: u64) -> Pem {
        self.issue(&[], |params| {
            params.serial_number = Some(serial.into());
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CountryName, "AT");
            params.distinguished_name.push(DnType::OrganizationName, "Works, Inc.");
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    /// A list with these serial numbers on it.
    pub fn revoke(&self, serials: &[u64], until_year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until_year, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// An authority, a server's certificate and the options that name its files.
pub struct Site {
    pub folder: Folder,
    pub authority: Authority,
    pub options: TlsOptions,
}

impl Site {
    pub fn new() -> Self {
        let (folder, authority) = (Folder::new(), Authority::new("Test authority"));
        let server = authority.issue(&["localhost"], |_| {});
        let options = TlsOptions::new(
            folder.write("server.pem", &server.cert),
            folder.write("server.key", &server.key),
        );
        folder.write("ca.pem", &authority.pem.cert);
        Self { folder, authority, options }
    }

    /// The options of a listener that asks for certificates.
    pub fn verifying(&self) -> TlsOptions {
        TlsOptions {
            verify_peer: true,
            fail_if_no_peer_cert: true,
            ca_file: Some(self.folder.path("ca.pem")),
            ..self.options.clone()
        }
    }
}

pub fn load(options: &TlsOptions) -> (TlsServer, Vec<Warning>) {
    TlsServer::load(options, SystemTime::now()).unwrap()
}

pub fn settings(options: &TlsOptions) -> Arc<FilterSettings> {
    Arc::new(FilterSettings { tls: Some(load(options).0), ..FilterSettings::default() })
}

/// What a client is like.
pub struct ClientKind {
    pub certificate: Option<Pem>,
    pub versions: &'static [&'static rustls::SupportedProtocolVersion],
    pub alpn: &'static [&'static str],
}

impl Default for ClientKind {
    fn default() -> Self {
        Self { certificate: None, versions: rustls::ALL_VERSIONS, alpn: &["mqtt"] }
    }
}

pub fn client_config(authority: &Authority, kind: &ClientKind) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.pem.chain().remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(kind.versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match &kind.certificate {
        Some(pem) => config.with_client_auth_cert(pem.chain(), pem.key()).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = kind.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A client and the filter it talks to. What one sends the other has at once.
pub struct Pair {
    pub client: ClientConnection,
    pub filter: Box<Filter>,
    /// MQTT's bytes that came out of the filter.
    pub plain: Vec<u8>,
    /// Bytes that came out of the client's TLS.
    pub heard: Vec<u8>,
    /// How the client's TLS failed.
    pub client_error: Option<rustls::Error>,
    /// Bytes the filter has put on the wire.
    pub wire_bytes: usize,
    /// Longest piece the filter gets at once.
    pub step: usize,
}

impl Pair {
    pub fn new(settings: &Arc<FilterSettings>, config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self {
            client: ClientConnection::new(Arc::clone(config), name).unwrap(),
            filter: Filter::new(settings),
            plain: Vec::new(),
            heard: Vec::new(),
            client_error: None,
            wire_bytes: 0,
            step: usize::MAX,
        }
    }

    /// Lets bytes flow until none do.
    pub fn pump(&mut self) -> Result<(), FilterError> {
        loop {
            let mut raw = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut raw).unwrap();
            }
            if raw.is_empty() {
                return Ok(());
            }
            let mut wire = Vec::new();
            let mut result = Ok(());
            for piece in raw.chunks_mut(self.step) {
                result = result.and(self.filter.received(piece, &mut self.plain, &mut wire));
            }
            self.hear(&wire);
            result?;
        }
    }

    /// Gives the client what the filter has put on the wire.
    pub fn hear(&mut self, mut wire: &[u8]) {
        self.wire_bytes += wire.len();
        while !wire.is_empty() && self.client_error.is_none() {
            if self.client.read_tls(&mut wire).unwrap() == 0 {
                return;
            }
            match self.client.process_new_packets() {
                Ok(state) => {
                    let mut heard = vec![0; state.plaintext_bytes_to_read()];
                    self.client.reader().read_exact(&mut heard).unwrap();
                    self.heard.extend(heard);
                }
                Err(error) => self.client_error = Some(error),
            }
        }
    }

    /// The client says this.
    pub fn say(&mut self, bytes: &[u8]) -> Result<(), FilterError> {
        for piece in bytes.chunks(10_000) {
            self.client.writer().write_all(piece).unwrap();
            self.pump()?;
        }
        Ok(())
    }

    /// The filter's side says this.
    pub fn answer(&mut self, pieces: &[&[u8]]) {
        let mut wire = Vec::new();
        self.filter.send(pieces.iter().copied(), &mut wire).unwrap();
        self.hear(&wire);
    }
}

pub fn file(path: &Path) -> String {
    path.display().to_string()
}
