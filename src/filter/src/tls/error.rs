//! What can be wrong with a listener's files and settings, and what with a client's handshake.

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};
use std::path::PathBuf;

/// Why no TLS server came of a listener's options. Whoever runs the broker can put it right.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum TlsError {
    /// {file}: cannot be read: {error}; check that it exists and that the broker's user may read it
    Read {
        /// The file, for display.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// {file}: is not well-formed PEM: {error}; make it anew or copy it again, whole
    Pem {
        /// The file.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// {0}: has no certificate in it; it needs blocks 'BEGIN CERTIFICATE', the server's own first (DER becomes PEM by: openssl x509 -inform der -in FILE)
    NoCertificate(String),
    /// {file}: has a certificate that cannot be used: {error}; let it be issued anew as X.509 version 3
    Certificate {
        /// The file.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// {0}: has no private key in it; it needs a block 'BEGIN PRIVATE KEY' (or 'RSA PRIVATE KEY', 'EC PRIVATE KEY')
    NoKey(String),
    /// {0}: the private key is encrypted, and there is nobody to ask for the password at start; decrypt it into a file only the broker's user can read: openssl pkey -in FILE -out NEW
    EncryptedKey(String),
    /// {file}: the private key cannot be used: {error}; RSA (2048 to 8192 bits), ECDSA (P-256, P-384) and Ed25519 can
    Key {
        /// The file.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// {key_file}: the private key does not belong to the first certificate in {cert_file}; put the server's own certificate first, or give the key that was made with it
    KeyMismatch {
        /// Where the key is.
        key_file: String,
        /// Where the certificate is.
        cert_file: String,
    },
    /// clients are to be verified (verify_peer), but no cacertfile says by whom their certificates must be issued; give one, or set verify = verify_none
    NoCaFile,
    /// {0}: has no list of revoked certificates in it; it needs blocks 'BEGIN X509 CRL' (DER becomes PEM by: openssl crl -inform der -in FILE)
    NoCrl(String),
    /// {file}: has a list of revoked certificates that cannot be used: {error}
    Crl {
        /// The file.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// {file}:{line}: {what}; a line is identity:key, the key in hexadecimal (openssl rand -hex 32 makes one)
    PskLine {
        /// The file of pre-shared keys.
        file: String,
        /// The number of the line.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// {0}: has no pre-shared key in it; it needs lines identity:key, the key in hexadecimal (openssl rand -hex 32 makes one)
    NoPsk(String),
    /// pre-shared keys are not in this binary: it was built without the feature psk; build it with, or leave out psk_file
    PskNotBuilt,
    /// {0} has no effect with psk_file, and clients would be less safe than meant; give it a listener without psk_file
    PskWith(&'static str),
    /// there is neither a certificate nor a file of pre-shared keys: give certfile and keyfile, or psk_file
    NothingToShow,
    /// '{0}' is no name to choose a certificate by; names are such as example.com or *.example.com
    SniName(String),
    /// {0}: the certificate has no DNS name in it to be chosen by; say for which names it is
    SniNoName(String),
    /// none of the versions {0} is spoken here; allow tlsv1.2 or tlsv1.3
    NoVersion(String),
    /// none of the ciphers listed can be used with {0}; leave the list empty for all good ones
    NoCipher(&'static str),
    /// the settings for TLS contradict each other: {0}
    Config(String),
}

/// What works, but perhaps not as meant.
#[derive(Debug, Clone, PartialEq, Eq, displaydoc::Display)]
pub enum Warning {
    /// TLS version '{0}' is not spoken: it is broken (RFC 8996), clients must speak 1.2 or 1.3
    Version(String),
    /// cipher '{name}' is not used: {why}
    Cipher {
        /// The name in the settings.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// dhfile has no effect: there is no DHE here, forward secrecy comes from elliptic curves (ECDHE)
    DhFile,
    /// secure_renegotiate has no effect: a session is never negotiated anew here
    Renegotiation,
    /// fail_if_no_peer_cert has no effect without verify = verify_peer
    FailWithoutVerify,
    /// crl_file has no effect without verify = verify_peer
    CrlWithoutVerify,
    /// {file}: the certificate has expired {days} days ago; clients will refuse it, renew it
    Expired {
        /// The file.
        file: String,
        /// Since when.
        days: u64,
    },
    /// {file}: the certificate expires in {days} days; renew it and reload
    ExpiresSoon {
        /// The file.
        file: String,
        /// When.
        days: u64,
    },
    /// {0}: the certificate is not valid yet; check this machine's clock
    NotYetValid(String),
    /// {file}: {count} pre-shared keys have fewer than 16 bytes and can be guessed from a handshake that was overheard; make longer ones (openssl rand -hex 32)
    ShortPsk {
        /// The file.
        file: String,
        /// How many.
        count: usize,
    },
    /// {0}: a list of revoked certificates is out of date (nextUpdate has passed); it is used all the same, fetch a new one
    CrlExpired(String),
    /// {file}: {count} certificates of authorities in it cannot be used and are left out
    CaSkipped {
        /// The file.
        file: String,
        /// How many.
        count: usize,
    },
}

/// Why a connection's TLS failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsFailure {
    /// What came is no TLS.
    #[error(
        "the connection does not begin with a TLS handshake: does the client speak plain MQTT or \
         HTTP on a TLS listener?"
    )]
    NotTls,
    /// The client talks on and on.
    #[error("the client's TLS handshake is not done after {0} bytes")]
    HandshakeTooLong(usize),
    /// Its key cannot be looked up.
    #[error("the client has come with the pre-shared key of {0:?}, which is not in psk_file")]
    UnknownPskIdentity(Box<str>),
    /// It does not know the key.
    #[error("the client has another pre-shared key for {0:?} than psk_file")]
    WrongPsk(Box<str>),
    /// All else that fails with pre-shared keys.
    #[error(
        "TLS failed on a listener with pre-shared keys: {text} (a client without one needs a \
         certificate here)"
    )]
    OpenSsl {
        /// As [`Self::reason`].
        reason: &'static str,
        /// What OpenSSL says.
        text: String,
    },
    /// All else.
    #[error("{}: {error}", explain(.error))]
    Tls {
        /// What rustls says.
        #[from]
        error: Error,
    },
}

impl TlsFailure {
    pub(super) fn new(error: Error, handshaking: bool) -> Self {
        use InvalidMessage::{InvalidContentType, UnknownProtocolVersion};
        match error {
            Error::InvalidMessage(InvalidContentType | UnknownProtocolVersion) if handshaking => {
                Self::NotTls
            }
            error => Self::Tls { error },
        }
    }

    /// A name for counters.
    pub const fn reason(&self) -> &'static str {
        use CertificateError::{
            Expired, ExpiredContext, Revoked, UnknownIssuer, UnknownRevocationStatus,
        };
        let error = match self {
            Self::NotTls => return "tls_not_tls",
            Self::HandshakeTooLong(_) => return "tls_handshake_too_long",
            Self::UnknownPskIdentity(_) => return "tls_psk_unknown_identity",
            Self::WrongPsk(_) => return "tls_psk_wrong_key",
            Self::OpenSsl { reason, .. } => return reason,
            Self::Tls { error } => error,
        };
        match error {
            Error::NoCertificatesPresented => "tls_no_client_certificate",
            Error::InvalidCertificate(Expired | ExpiredContext { .. }) => "tls_certificate_expired",
            Error::InvalidCertificate(Revoked) => "tls_certificate_revoked",
            Error::InvalidCertificate(UnknownIssuer) => "tls_certificate_unknown_ca",
            Error::InvalidCertificate(UnknownRevocationStatus) => "tls_certificate_no_crl",
            Error::InvalidCertificate(_) => "tls_certificate_bad",
            Error::AlertReceived(_) => "tls_alert_received",
            Error::PeerIncompatible(
                PeerIncompatible::NoCipherSuitesInCommon
                | PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::NoSignatureSchemesInCommon,
            ) => "tls_no_common_cipher",
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // Of TLS 1.2, and the first thing missed in the hello of a client that only speaks 1.1.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => "tls_version",
            Error::NoApplicationProtocol => "tls_alpn",
            Error::DecryptError => "tls_decrypt_error",
            _ => "tls_protocol_error",
        }
    }
}

/// Who is to blame, as far as that can be said.
fn explain(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "the client has shown no certificate",
        Error::InvalidCertificate(_) => "the client's certificate is refused",
        Error::AlertReceived(_) => {
            "the client has ended TLS (does it know the authority of this listener's certificate?)"
        }
        Error::PeerIncompatible(_) => "the client's TLS has nothing in common with this listener's",
        _ => "TLS failed",
    }
}

/// A path for a message.
pub(super) fn shown(file: &std::path::Path) -> String {
    PathBuf::from(file).display().to_string()
}
