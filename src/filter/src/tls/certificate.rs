//! What is read from certificates.

use crate::peer::ClientCertificate;
use std::time::Duration;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate that was verified or is ours, so oddities that are not forbidden are overlooked.
type Certificate = CertificateInner<Raw>;

impl ClientCertificate {
    /// Reads whom a certificate was issued to; `None` if it cannot be parsed.
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let subject = certificate.tbs_certificate().subject();
        let common_name =
            subject.common_name().ok().flatten().map(|name| name.value().into_owned());
        Some(Self {
            // It may become a user name: what no MQTT string may have in it (MQTT-1.5.4-2) must not cut it short somewhere.
            common_name: common_name.filter(|name| !name.contains('\0')).map(Into::into),
            distinguished_name: subject.to_string().into(),
        })
    }
}

/// From when to when a certificate is valid, since 1970.
pub(super) fn validity(der: &[u8]) -> Option<(Duration, Duration)> {
    let certificate = Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some((validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration()))
}

/// The DNS names a certificate is for.
pub(super) fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some((_, names))) = certificate.tbs_certificate().get_extension::<SubjectAltName>()
    else {
        return Vec::new();
    };
    let dns = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    };
    names.0.iter().filter_map(dns).collect()
}

/// When the next of this list of revoked certificates should have come, since 1970.
pub(super) fn crl_next_update(der: &[u8]) -> Option<Duration> {
    let list = x509_cert::crl::CertificateList::<Raw>::from_der(der).ok()?;
    Some(list.tbs_cert_list.next_update?.to_unix_duration())
}
