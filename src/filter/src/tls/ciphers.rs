//! Versions and cipher suites by the names people have for them.

use super::error::{TlsError, Warning};
use rustls::crypto::ring::cipher_suite as suite;
use rustls::{ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion, version};

/// A suite and the names IANA and OpenSSL have for it.
struct Named(SupportedCipherSuite, &'static str, &'static str);

/// All that rustls has. AES-128 comes first: as strong as the curves of the handshake, whose many hashes are SHA-256 then instead
/// of SHA-384, which took a tenth of a handshake's time where the CPU has instructions for the former only.
static SUITES: [Named; 9] = [
    Named(suite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    Named(suite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    Named(
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    Named(
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    Named(
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    Named(
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    Named(
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    Named(
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    Named(
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
];

/// The IANA name of a suite.
pub(super) fn iana_name(of: SupportedCipherSuite) -> &'static str {
    let named = SUITES.iter().find(|named| named.0.suite() == of.suite());
    named.map_or("unknown", |named| named.1)
}

fn is_tls13(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

/// The suites of these names in their order; all for an empty list.
pub(super) fn suites(names: &[String], warnings: &mut Vec<Warning>) -> Vec<SupportedCipherSuite> {
    let mut chosen = Vec::new();
    for name in names {
        let known = SUITES
            .iter()
            .find(|named| named.1.eq_ignore_ascii_case(name) || named.2.eq_ignore_ascii_case(name));
        match known {
            Some(named) if chosen.contains(&named.0) => {}
            Some(named) => chosen.push(named.0),
            None => warnings.push(Warning::Cipher { name: name.clone(), why: why_not(name) }),
        }
    }
    let all = SUITES.iter().map(|named| named.0);
    if names.is_empty() {
        chosen.extend(all);
    } else if !chosen.iter().any(is_tls13) {
        // OpenSSL's list of ciphers is about TLS 1.2 and below; who copied it from there did not mean to lose 1.3.
        chosen.splice(0..0, all.filter(is_tls13));
    }
    chosen
}

/// Why there is no such cipher suite here.
fn why_not(name: &str) -> &'static str {
    let name = name.to_ascii_uppercase().replace('_', "-");
    let has = |part: &str| name.split('-').any(|is| is == part);
    if has("PSK") {
        "it is for pre-shared keys, which a listener has with psk_file"
    } else if ["RC4", "DES", "3DES", "CBC3", "NULL", "EXP", "EXPORT", "ANON", "MD5", "RC2", "IDEA"]
        .into_iter()
        .any(has)
    {
        "it is broken"
    } else if !name.starts_with("TLS-AES") && !name.starts_with("TLS-CHACHA20") && !has("ECDHE") {
        "its key exchange has no forward secrecy by ECDHE"
    } else if has("GCM") || has("POLY1305") || has("CCM") || has("CCM8") {
        "this TLS library does not have it"
    } else {
        "its mode (CBC) is open to padding oracles; use AES-GCM or CHACHA20-POLY1305"
    }
}

/// The name of a version as OpenSSL has it.
pub(super) const fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "unknown",
    }
}

/// The versions of these names; all for an empty list.
pub(super) fn versions(
    names: &[String],
    warnings: &mut Vec<Warning>,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let mut chosen = Vec::new();
    for name in names {
        let bare = name.to_ascii_lowercase().replace(['v', ' ', '_', '-'], "");
        let version = match bare.as_str() {
            "tls1.3" => &version::TLS13,
            "tls1.2" => &version::TLS12,
            _ => {
                warnings.push(Warning::Version(name.clone()));
                continue;
            }
        };
        if !chosen.contains(&version) {
            chosen.push(version);
        }
    }
    match (names, &chosen[..]) {
        ([], _) => Ok(vec![&version::TLS13, &version::TLS12]),
        (_, []) => Err(TlsError::NoVersion(names.join(", "))),
        _ => Ok(chosen),
    }
}
