//! From keys and options to a [`PskServer`].

use super::connection::text;
use super::keys::{IDENTITY_LEN_MAX, PskKeys};
use super::{Asked, PskServer};
use crate::tls::error::{TlsError, Warning};
use crate::tls::options::TlsOptions;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef,
    SslSessionCacheMode, SslVersion,
};
use openssl::x509::X509;
use std::sync::{Mutex, PoisonError};

/// Cipher suites of TLS 1.2 for clients with a key, those with forward secrecy first. Those of CBC are left out, as for rustls.
const PSK_CIPHERS: &str = "ECDHE-PSK-CHACHA20-POLY1305:PSK-AES256-GCM-SHA384:\
    PSK-AES128-GCM-SHA256:PSK-CHACHA20-POLY1305:PSK-AES256-CCM:PSK-AES128-CCM";
/// Those for clients without, where there is a certificate.
const CERTIFICATE_CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";
/// Those of TLS 1.3. A key belongs to one hash (RFC 8446, 4.2.11), and one that does not say to which to SHA-256.
const TLS13_CIPHERS: [&str; 2] = ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

/// A certificate, its chain and its key, in DER.
pub(crate) struct Certificate {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: Vec<u8>,
}

/// Versions and ciphers by the names OpenSSL has for them.
struct Spoken {
    min: SslVersion,
    max: SslVersion,
    tls12: String,
    tls13: String,
}

impl PskServer {
    /// A server of these keys.
    pub(crate) fn new(
        options: &TlsOptions,
        keys: PskKeys,
        certificate: Option<&Certificate>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, TlsError> {
        let spoken = spoken(options, certificate.is_some(), warnings)?;
        let asked = asked_index().map_err(|errors| config_error(&errors))?;
        let context = context(options, &spoken, keys, certificate, asked)
            .map_err(|errors| config_error(&errors))?;
        Ok(Self { context, asked, has_certificate: certificate.is_some() })
    }
}

fn config_error(errors: &ErrorStack) -> TlsError {
    TlsError::Config(text(errors))
}

/// The place for what a connection asked for. OpenSSL has a bounded number of such places and gives none back: one is enough for
/// all listeners and reloads.
fn asked_index() -> Result<Index<Ssl, Asked>, ErrorStack> {
    static INDEX: Mutex<Option<Index<Ssl, Asked>>> = Mutex::new(None);
    let mut index = INDEX.lock().unwrap_or_else(PoisonError::into_inner);
    match *index {
        Some(index) => Ok(index),
        None => Ok(*index.insert(Ssl::new_ex_index()?)),
    }
}

fn context(
    options: &TlsOptions,
    spoken: &Spoken,
    keys: PskKeys,
    certificate: Option<&Certificate>,
    asked: Index<Ssl, Asked>,
) -> Result<SslContext, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(spoken.min))?;
    builder.set_max_proto_version(Some(spoken.max))?;
    builder.set_cipher_list(&spoken.tls12)?;
    builder.set_ciphersuites(&spoken.tls13)?;
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    builder.set_options(
        SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION | SslOptions::NO_TICKET,
    );
    if options.honor_cipher_order {
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
    }
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_num_tickets(0)?;
    if let Some(Certificate { chain, key }) = certificate {
        set_certificate(&mut builder, chain, key)?;
    }
    if !options.alpn.is_empty() {
        set_alpn(&mut builder, &options.alpn);
    }
    builder.set_psk_server_callback(move |ssl, identity, to| {
        Ok(find(ssl, identity.unwrap_or_default(), &keys, asked, to))
    });
    Ok(builder.build())
}

/// Puts the key of an identity in its place and gives its length; 0 if there is none.
fn find(
    ssl: &mut SslRef,
    identity: &[u8],
    keys: &PskKeys,
    asked: Index<Ssl, Asked>,
    to: &mut [u8],
) -> usize {
    let identity = String::from_utf8_lossy(&identity[..identity.len().min(IDENTITY_LEN_MAX)]);
    let key = keys.get(&identity).filter(|key| key.len() <= to.len());
    ssl.set_ex_data(asked, Asked { is_known: key.is_some(), identity: identity.into() });
    let Some(key) = key else { return 0 };
    to[..key.len()].copy_from_slice(key);
    key.len()
}

fn set_certificate(
    builder: &mut SslContextBuilder,
    chain: &[Vec<u8>],
    key: &[u8],
) -> Result<(), ErrorStack> {
    let mut chain = chain.iter().map(|der| X509::from_der(der));
    if let Some(own) = chain.next() {
        builder.set_certificate(own?.as_ref())?;
    }
    for above in chain {
        builder.add_extra_chain_cert(above?)?;
    }
    builder.set_private_key(PKey::private_key_from_der(key)?.as_ref())?;
    builder.check_private_key()
}

/// As rustls: a client that offers only other protocols is refused, one that offers none is not.
fn set_alpn(builder: &mut SslContextBuilder, names: &[String]) {
    let ours = names.to_vec();
    builder.set_alpn_select_callback(move |_, theirs| {
        let chosen = ours.iter().find_map(|name| offered(theirs, name.as_bytes()));
        chosen.ok_or(AlpnError::ALERT_FATAL)
    });
}

/// A name in a client's list: each has its length before it (RFC 7301, 3.1).
fn offered<'a>(mut list: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    while let Some((len, rest)) = list.split_first() {
        let (found, behind) = rest.split_at_checked(usize::from(*len))?;
        if found == name {
            return Some(found);
        }
        list = behind;
    }
    None
}

fn spoken(
    options: &TlsOptions,
    has_certificate: bool,
    warnings: &mut Vec<Warning>,
) -> Result<Spoken, TlsError> {
    let [mut has12, mut has13] = [options.versions.is_empty(); 2];
    for version in &options.versions {
        match version.as_str() {
            "tlsv1.2" => has12 = true,
            "tlsv1.3" => has13 = true,
            _ => warnings.push(Warning::Version(version.clone())),
        }
    }
    let (min, max) = match (has12, has13) {
        (true, true) => (SslVersion::TLS1_2, SslVersion::TLS1_3),
        (true, false) => (SslVersion::TLS1_2, SslVersion::TLS1_2),
        (false, true) => (SslVersion::TLS1_3, SslVersion::TLS1_3),
        (false, false) => return Err(TlsError::NoVersion(options.versions.join(", "))),
    };
    let (mut tls12, mut tls13) = (Vec::new(), Vec::new());
    for name in &options.ciphers {
        if TLS13_CIPHERS.contains(&name.as_str()) {
            tls13.push(name.as_str());
        } else if !name.starts_with("TLS_") && is_known(name) {
            tls12.push(name.as_str());
        } else {
            let why =
                "OpenSSL, which speaks on a listener with psk_file, has none of this name for it";
            warnings.push(Warning::Cipher { name: name.clone(), why });
        }
    }
    if options.ciphers.is_empty() {
        tls12.push(PSK_CIPHERS);
        tls12.extend(has_certificate.then_some(CERTIFICATE_CIPHERS));
    } else if tls12.is_empty() && has12 {
        return Err(TlsError::NoCipher("TLSv1.2"));
    }
    if tls13.is_empty() {
        tls13.extend(TLS13_CIPHERS);
    }
    // OpenSSL wants some, even if TLS 1.2 is not spoken.
    let tls12 = if tls12.is_empty() { PSK_CIPHERS.to_owned() } else { tls12.join(":") };
    Ok(Spoken { min, max, tls12, tls13: tls13.join(":") })
}

/// Whether OpenSSL has a cipher suite of this name. A list of which it knows none is an error.
fn is_known(name: &str) -> bool {
    let builder = SslContext::builder(SslMethod::tls_server());
    builder.is_ok_and(|mut builder| builder.set_cipher_list(name).is_ok())
}
