//! `sni.N` of a listener with TLS: certificates for clients that ask for certain names (SEED-LSN-15).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::kind::{Kind, Setting};

/// Documentation of the keys.
pub(crate) const SNI_DOC: &str = "A certificate for clients that ask for certain names (SNI), N from 1 on: sni.N.host is the names, \
    parted by commas, such as example.com or, for all names one level below, *.example.com; default takes those in the certificate. An \
    exact name is better than one with *. Who asks for no name, or for one that nobody has, is shown certfile of the listener.";
/// What is allowed, by key.
pub(crate) const SNI_ALLOWED: [(SniPart, &str, &str); 3] = [
    (SniPart::Host, "default, or host names parted by commas", "default"),
    (SniPart::CertFile, "the path of a file", "etc/certs/example.com.pem"),
    (SniPart::KeyFile, "the path of a file", "etc/certs/example.com.key"),
];
/// Most certificates of a listener besides its own: a file with a slip of the pen must not be read for hours.
pub(crate) const SNI_MAX: usize = 10_000;

/// The keys of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SniPart {
    Host,
    CertFile,
    KeyFile,
}

impl SniPart {
    /// The word in the key: `host` of `sni.1.host`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::CertFile => "certfile",
            Self::KeyFile => "keyfile",
        }
    }
}

/// `sni.<number>.<part>`.
pub(crate) fn split(option: &str) -> Option<(u32, SniPart)> {
    let (digits, word) = option.strip_prefix("sni.")?.split_once('.')?;
    let (part, ..) = SNI_ALLOWED.into_iter().find(|(part, ..)| part.word() == word)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    Some((plain.then(|| digits.parse().ok()).flatten()?, part))
}

/// A certificate for some names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SniCertificateSettings {
    /// The names; none: those in the certificate.
    pub hosts: Vec<String>,
    /// The certificate and those between it and its authority, in PEM.
    pub cert_file: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key_file: Option<PathBuf>,
}

impl SniCertificateSettings {
    /// The value of a key as text the settings file accepts; `None` if it was not given.
    pub(crate) fn show(&self, part: SniPart) -> Option<String> {
        match part {
            SniPart::Host => Some(self.hosts.show(&Kind::List(None))),
            SniPart::CertFile => Some(self.cert_file.as_ref()?.show(&Kind::Path)),
            SniPart::KeyFile => Some(self.key_file.as_ref()?.show(&Kind::Path)),
        }
    }
}

/// The certificates of a listener besides its own, by their numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SniCertificates(BTreeMap<u32, SniCertificateSettings>);

impl SniCertificates {
    /// The certificates and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &SniCertificateSettings)> {
        self.0.iter().map(|(number, certificate)| (*number, certificate))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a key; false if its value is not allowed, or there are too many.
    pub(crate) fn set(&mut self, number: u32, part: SniPart, value: &str) -> bool {
        if self.0.len() >= SNI_MAX && !self.0.contains_key(&number) {
            return false;
        }
        let mut changed = self.0.get(&number).cloned().unwrap_or_default();
        let file = || PathBuf::parse(value, &Kind::Path);
        let fits = match part {
            SniPart::Host => {
                let hosts = Vec::parse(value, &Kind::List(None));
                let hosts = hosts.filter(|hosts: &Vec<String>| hosts.iter().all(|it| is_host(it)));
                hosts.map(|hosts| changed.hosts = hosts).is_some()
            }
            SniPart::CertFile => file().map(|file| changed.cert_file = Some(file)).is_some(),
            SniPart::KeyFile => file().map(|file| changed.key_file = Some(file)).is_some(),
        };
        if fits {
            self.0.insert(number, changed);
        }
        fits
    }
}

/// `example.com` or `*.example.com`.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix("*.").unwrap_or(text);
    let good = |label: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
    };
    bare.len() <= 253 && bare.split('.').all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_hosts() {
        assert_eq!(split("sni.12.host"), Some((12, SniPart::Host)));
        for option in ["sni.host", "sni.x.host", "sni..host", "sni.1.path", "sni.1", "sni.+1.host"]
        {
            assert_eq!(split(option), None, "{option}");
        }
        let mut sni = SniCertificates::default();
        for value in ["example.com", "*.example.com, b.example.com", "default", "localhost"] {
            assert!(sni.set(1, SniPart::Host, value), "{value}");
        }
        for value in ["*", "a*.example.com", "*.*.com", "exa mple.com", "a..b", ".a", "a,", "ü.de"]
        {
            assert!(!sni.set(1, SniPart::Host, value), "{value}");
        }
        assert!(sni.set(1, SniPart::CertFile, "a.pem") && !sni.set(1, SniPart::KeyFile, ""));
    }
}
