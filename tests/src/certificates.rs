//! Certificates made on the spot.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

/// A folder that goes when the test does.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmq-files-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    /// Writes a file in it and gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a temporary file");
        path.display().to_string()
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An authority.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate, in PEM.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is valid, by years.
const VALID: (i32, i32) = (2024, 2090);

impl Authority {
    /// One of this name.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// The certificate and the key of a server at `localhost` and 127.0.0.1.
    #[must_use]
    pub fn server(&self) -> (String, String) {
        self.server_for(&["localhost", "127.0.0.1"])
    }

    /// The certificate and the key of a server with these names.
    ///
    /// # Panics
    /// When they are no names.
    #[must_use]
    pub fn server_for(&self, names: &[&str]) -> (String, String) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// The certificate and the key of a client with this name and serial number, valid from the start of one year to that of another.
    #[must_use]
    pub fn client_valid(&self, name: &str, serial: u64, years: (i32, i32)) -> (String, String) {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial.into());
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Works");
        params.distinguished_name.push(DnType::CommonName, name);
        self.issue(&params)
    }

    /// The certificate and the key of a client.
    #[must_use]
    pub fn client(&self, name: &str, serial: u64) -> (String, String) {
        self.client_valid(name, serial, VALID)
    }

    /// A list of revoked certificates with these serial numbers on it, in PEM.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(VALID.0, 1, 1),
            next_update: date_time_ymd(VALID.1, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// An authority and a server's certificate, in files.
#[derive(Debug)]
pub struct Site {
    /// Where the files are: ca.pem, server.pem, server.key.
    pub folder: Folder,
    /// Who has issued them.
    pub authority: Authority,
}

impl Site {
    /// New ones.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> Site {
        let (folder, authority) = (Folder::new(), Authority::new("Test authority"));
        let (certificate, key) = authority.server();
        let _ = folder.write("server.pem", certificate);
        let _ = folder.write("server.key", key);
        let _ = folder.write("ca.pem", &authority.pem);
        Site { folder, authority }
    }

    /// The settings of a listener with TLS of this kind (`ssl`, `wss`) and name, on a port the kernel picks.
    #[must_use]
    pub fn listener(&self, kind: &str, name: &str) -> Vec<String> {
        let (certificate, key) = (self.folder.path("server.pem"), self.folder.path("server.key"));
        vec![
            format!("listener.{kind}.{name}=127.0.0.1:0"),
            format!("listener.{kind}.{name}.certfile={certificate}"),
            format!("listener.{kind}.{name}.keyfile={key}"),
        ]
    }

    /// The settings of such a listener that asks for certificates.
    #[must_use]
    pub fn verifying(&self, kind: &str, name: &str) -> Vec<String> {
        let mut settings = self.listener(kind, name);
        settings.push(format!("listener.{kind}.{name}.cacertfile={}", self.folder.path("ca.pem")));
        settings.push(format!("listener.{kind}.{name}.verify=verify_peer"));
        settings.push(format!("listener.{kind}.{name}.fail_if_no_peer_cert=on"));
        settings
    }

    /// Writes a client's certificate and key and gives their paths.
    #[must_use]
    pub fn put_client(&self, file: &str, pair: &(String, String)) -> (String, String) {
        let certificate = self.folder.write(&format!("{file}.pem"), &pair.0);
        (certificate, self.folder.write(&format!("{file}.key"), &pair.1))
    }
}
