//! Names that a client's certificate or pre-shared key gives it in place of those in its CONNECT (SEED-LSN-16, SEED-LSN-17).

use config::PeerCertAs;

/// What is known of a client's certificate and key.
#[derive(Clone, Debug, Default)]
pub struct PeerNames {
    /// The common name of its subject.
    pub common_name: Option<Box<str>>,
    /// Its subject, as RFC 4514 writes it.
    pub distinguished_name: Option<Box<str>>,
    /// The whole of it, DER in base64.
    pub certificate: Option<Box<str>>,
    /// The identity of the pre-shared key it came with.
    pub psk_identity: Option<Box<str>>,
}

impl PeerNames {
    /// The part a setting asks for, if the certificate has it.
    pub(crate) fn pick(&self, part: PeerCertAs) -> Option<Box<str>> {
        match part {
            PeerCertAs::None => None,
            PeerCertAs::Cn => self.common_name.clone(),
            PeerCertAs::Dn => self.distinguished_name.clone(),
            PeerCertAs::Crt => self.certificate.clone(),
        }
    }
}

/// What takes the place of the names in a CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct ConnectNames {
    pub username: Option<Box<str>>,
    pub client_id: Option<Box<str>>,
}
