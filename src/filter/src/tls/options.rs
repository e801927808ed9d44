//! What a listener's settings say about TLS.

use std::path::PathBuf;

/// What a listener's settings say about TLS. `TlsServer::load` makes something useful of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// For clients that ask for no name or for one that nobody has. Only with [`Self::psk_file`] there may be none.
    pub certificate: Option<CertificateFiles>,
    /// Pre-shared keys, lines of `identity:key`, for clients that have no certificates to check ours by. With it no client is asked
    /// for a certificate, and there is one of ours at most.
    pub psk_file: Option<PathBuf>,
    /// For clients that ask for certain names.
    pub sni: Vec<SniCertificate>,
    /// Certificates of the authorities that clients' certificates must come from, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Lists of revoked certificates (CRL), in PEM. With such a file each authority in [`Self::ca_file`] that issues
    /// clients' certificates needs its list in it: a client whose authority has none is refused.
    pub crl_file: Option<PathBuf>,
    /// Whether clients are asked for a certificate (`verify = verify_peer`).
    pub verify_peer: bool,
    /// Whether one that has none is refused (`fail_if_no_peer_cert`).
    pub fail_if_no_peer_cert: bool,
    /// Versions, such as `tlsv1.3`; empty: all that are spoken (1.2 and 1.3).
    pub versions: Vec<String>,
    /// Cipher suites in the order of preference, by the name OpenSSL or IANA has for them; empty: all, the strongest first.
    /// As with OpenSSL, a list without any of TLS 1.3 is about TLS 1.2 only.
    pub ciphers: Vec<String>,
    /// Whether our order of cipher suites counts and not the client's (`honor_cipher_order`).
    pub honor_cipher_order: bool,
    /// Whether a client may come back with a ticket instead of a full handshake (`reuse_sessions`).
    pub reuse_sessions: bool,
    /// Protocols to agree on (ALPN), the best first: `mqtt` (RFC 9431 and the IANA registry), `http/1.1` for WebSocket. A
    /// client that offers only others is refused; one that offers none is not. Empty: none is agreed on.
    pub alpn: Vec<String>,
    /// Most bytes a client may send before its handshake is done.
    pub handshake_bytes_max: usize,
    /// Parameters for DHE (`dhfile`), which rustls does not have: only to warn.
    pub dh_file: Option<PathBuf>,
    /// Whether a client may negotiate anew (`secure_renegotiate`), which rustls never does: only to warn.
    pub secure_renegotiate: bool,
}

impl TlsOptions {
    /// Those of a listener with this certificate that asks its clients for none.
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        let (cert_file, key_file) = (cert_file.into(), key_file.into());
        Self { certificate: Some(CertificateFiles { cert_file, key_file }), ..Self::default() }
    }

    /// Those of a listener for clients with pre-shared keys.
    pub fn with_keys(psk_file: impl Into<PathBuf>) -> Self {
        Self { psk_file: Some(psk_file.into()), ..Self::default() }
    }
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            certificate: None,
            psk_file: None,
            sni: Vec::new(),
            ca_file: None,
            crl_file: None,
            verify_peer: false,
            fail_if_no_peer_cert: false,
            versions: Vec::new(),
            ciphers: Vec::new(),
            honor_cipher_order: true,
            reuse_sessions: true,
            alpn: vec!["mqtt".to_owned()],
            // A hello of today (post-quantum key share included) has 2 KB, a chain of certificates 10 KB.
            handshake_bytes_max: 64 * 1024,
            dh_file: None,
            secure_renegotiate: false,
        }
    }
}

/// A certificate of ours and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and, behind it, those between it and the authority's.
    pub cert_file: PathBuf,
    /// Its private key, not encrypted.
    pub key_file: PathBuf,
}

/// A certificate of ours for some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SniCertificate {
    /// `example.com` or, for all names one level below, `*.example.com`. Empty: the names in the certificate. Several
    /// certificates for a name (RSA and ECDSA) may be given: the first the client can verify is used.
    pub names: Vec<String>,
    /// Where it is.
    pub files: CertificateFiles,
}
