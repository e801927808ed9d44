//! Pre-shared keys through the filter, with OpenSSL as the client (SEED-LSN-17).
#![allow(missing_docs, reason = "tests have no readers of documentation")]
#![cfg(feature = "psk")]

mod common;

use common::openssl_client::{Wire, client};
use common::{Folder, Site, load, settings};
use filter::{CloseWhy, Filter, FilterError, Stage, TlsError, TlsOptions, TlsServer, Warning};
use openssl::ssl::{ErrorCode, SslStream, SslVersion};
use ringmq_filter as filter;
use std::time::SystemTime;

const KEYS: &str = "# devices\nmeter 7:000102030405060708090a0b0c0d0e0f\r\n\nurn:dev:8:ffff";
const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

struct Pair {
    client: SslStream<Wire>,
    filter: Box<Filter>,
    plain: Vec<u8>,
    step: usize,
    /// The client's handshake failed.
    has_failed: bool,
}

impl Pair {
    fn new(options: &TlsOptions, client: SslStream<Wire>, step: usize) -> Self {
        let filter = Filter::new(&settings(options));
        Self { client, filter, plain: vec![], step, has_failed: false }
    }

    /// Lets bytes flow until none do.
    fn pump(&mut self) -> Result<(), FilterError> {
        loop {
            if !self.client.ssl().is_init_finished()
                && let Err(error) = self.client.do_handshake()
            {
                self.has_failed |= error.code() != ErrorCode::WANT_READ;
            }
            let mut raw = std::mem::take(&mut self.client.get_mut().1);
            if raw.is_empty() {
                return Ok(());
            }
            let (mut wire, mut result) = (vec![], Ok(()));
            for piece in raw.chunks_mut(self.step) {
                result = result.and(self.filter.received(piece, &mut self.plain, &mut wire));
            }
            self.client.get_mut().0.extend(wire);
            if result.is_err() {
                self.has_failed |= self.client.do_handshake().is_err();
                return result;
            }
        }
    }

    fn answer(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut wire = vec![];
        self.filter.send(pieces.iter().copied(), &mut wire).unwrap();
        self.client.get_mut().0.extend(wire);
        let mut heard = vec![0; pieces.iter().map(|piece| piece.len()).sum()];
        let mut at = 0;
        while at < heard.len() {
            at += self.client.ssl_read(&mut heard[at..]).unwrap();
        }
        heard
    }
}

fn with_keys(folder: &Folder) -> TlsOptions {
    TlsOptions::with_keys(folder.write("keys", KEYS))
}

const VERSIONS: [(SslVersion, &str); 2] =
    [(SslVersion::TLS1_2, "TLSv1.2"), (SslVersion::TLS1_3, "TLSv1.3")];

#[test]
fn both_versions_carry_bytes_both_ways_cut_anywhere() {
    let site = Site::new();
    let alone = with_keys(&site.folder);
    let both = TlsOptions { psk_file: alone.psk_file.clone(), ..site.options.clone() };
    for ((version, name), options) in
        VERSIONS.into_iter().flat_map(|version| [(version, &alone), (version, &both)])
    {
        for (step, identity, key) in
            [(usize::MAX, "meter 7", &KEY[..]), (1, "urn:dev:8", &[255, 255]), (7, "meter 7", &KEY)]
        {
            let own = Some((identity, key));
            let mut pair = Pair::new(options, client(version, own, b"\x04mqtt"), step);
            assert_eq!(pair.filter.stage(), Stage::Tls);
            pair.pump().unwrap();
            assert!(pair.filter.is_open() && !pair.has_failed);
            let said = (0..70_000_u32).flat_map(u32::to_le_bytes).take(70_000).collect::<Vec<_>>();
            let mut at = 0;
            while at < said.len() {
                at += pair.client.ssl_write(&said[at..]).unwrap();
                pair.pump().unwrap();
            }
            assert_eq!(pair.plain, said);
            let heard = pair.answer(&[b"a", &said, b"", b"b", &said[..20_000]]);
            assert!(heard == [b"a", &said[..], b"b", &said[..20_000]].concat());
            let tls = pair.filter.peer().tls.clone().unwrap();
            assert_eq!((tls.version, tls.psk_identity.as_deref()), (name, Some(identity)));
            assert_eq!((tls.alpn.as_deref(), tls.certificate), (Some("mqtt"), None));
            assert_eq!(tls.server_name.as_deref(), Some("localhost"));
            assert_eq!(pair.filter.peer().psk_identity(), Some(identity));
            assert!(tls.cipher.starts_with("TLS_"), "{}", tls.cipher);
            // Both ways of ending.
            let mut wire = vec![];
            if step == 7 {
                pair.client.shutdown().unwrap();
                pair.pump().unwrap();
                assert!(pair.filter.is_ended());
            } else {
                pair.filter.close(CloseWhy::Normal, &mut wire);
                pair.client.get_mut().0.extend(wire);
                let error = pair.client.ssl_read(&mut [0]).unwrap_err();
                assert_eq!(error.code(), ErrorCode::ZERO_RETURN);
            }
        }
    }
}

#[test]
fn wrong_keys_and_unknown_identities_are_refused_and_told() {
    let site = Site::new();
    let alone = with_keys(&site.folder);
    let both = TlsOptions { psk_file: alone.psk_file.clone(), ..site.options.clone() };
    let wrong = [7; 16];
    for (version, _) in VERSIONS {
        for options in [&alone, &both] {
            for (own, reason, text) in [
                (
                    ("meter 7", &wrong),
                    "tls_psk_wrong_key",
                    "another pre-shared key for \"meter 7\"",
                ),
                (("meter\t9", &KEY), "tls_psk_unknown_identity", "\"meter\\t9\", which is not in"),
            ] {
                let client = client(version, Some((own.0, own.1)), b"\x04mqtt");
                let mut pair = Pair::new(options, client, usize::MAX);
                let error = pair.pump().expect_err("it should have been refused");
                assert_eq!(error.reason(), reason, "{version:?} {error}");
                assert!(error.to_string().contains(text), "{error}");
                assert!(pair.filter.is_ended() && !pair.filter.is_open());
                assert!(pair.plain.is_empty());
                let is_told_later = options.certificate.is_some()
                    && version == SslVersion::TLS1_3
                    && reason == "tls_psk_unknown_identity";
                assert!(pair.has_failed || is_told_later, "{version:?}: it is told by an alert");
            }
        }
    }
}

#[test]
fn without_a_key_a_client_needs_a_certificate_here() {
    let site = Site::new();
    let alone = with_keys(&site.folder);
    let both = TlsOptions { psk_file: alone.psk_file.clone(), ..site.options.clone() };
    for (version, _) in VERSIONS {
        let mut pair = Pair::new(&alone, client(version, None, b"\x04mqtt"), usize::MAX);
        let error = pair.pump().unwrap_err();
        assert_eq!(error.reason(), "tls_no_common_cipher", "{error}");
        let mut pair = Pair::new(&both, client(version, None, b"\x04mqtt"), usize::MAX);
        pair.pump().unwrap();
        assert!(pair.filter.is_open());
        assert_eq!(pair.filter.peer().psk_identity(), None);
        let own = Some(("meter 7", &KEY[..]));
        let mut pair = Pair::new(&alone, client(version, own, b"\x02h2"), usize::MAX);
        assert_eq!(pair.pump().unwrap_err().reason(), "tls_alpn");
    }
    let only = TlsOptions { versions: vec!["tlsv1.3".to_owned()], ..alone.clone() };
    let own = Some(("meter 7", &KEY[..]));
    let mut pair = Pair::new(&only, client(SslVersion::TLS1_2, own, b"\x04mqtt"), usize::MAX);
    assert_eq!(pair.pump().unwrap_err().reason(), "tls_version");
    for mut plain in [b"\x10\x0c\0\x04MQTT".to_vec(), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let (mut to, mut wire) = (vec![], vec![]);
        let mut filter = Filter::new(&settings(&alone));
        let error = filter.received(&mut plain, &mut to, &mut wire).unwrap_err();
        assert_eq!(error.reason(), "tls_not_tls");
    }
    // A handshake has an end, and garbage none to wait for.
    let mut filter = Filter::new(&settings(&alone));
    let (mut to, mut wire, mut error) = (vec![], vec![], None);
    for _ in 0..1000 {
        let mut raw = [&[22, 3, 1, 0x40, 0][..], &[1, 0x7f, 0xff, 0xff], &[0; 1000]].concat();
        error = error.or(filter.received(&mut raw, &mut to, &mut wire).err());
    }
    assert!(error.is_some() && filter.is_ended() && wire.len() < 100 && to.is_empty());
}

#[test]
fn settings_are_checked() {
    let site = Site::new();
    let refused =
        |options: &TlsOptions| TlsServer::load(options, SystemTime::now()).unwrap_err().to_string();
    let alone = with_keys(&site.folder);
    let warnings = load(&alone).1;
    let short = |warning: &Warning| matches!(warning, Warning::ShortPsk { count: 1, .. });
    assert!(warnings.len() == 1 && short(&warnings[0]), "{warnings:?}");
    for (keys, what) in [
        ("", "has no pre-shared key in it"),
        ("# only words\n", "has no pre-shared key in it"),
        ("a:00\nb=01\n", "bad:2: there is no ':' in it; a line is identity:key"),
        ("a:00\n\na:01\n", "bad:3: the identity was given before"),
    ] {
        let options = TlsOptions::with_keys(site.folder.write("bad", keys));
        let error = refused(&options);
        assert!(error.contains(what), "{error}");
    }
    let missing = TlsOptions::with_keys(site.folder.path("none"));
    assert!(refused(&missing).contains("cannot be read"));
    let verifying = TlsOptions { psk_file: alone.psk_file.clone(), ..site.verifying() };
    assert!(refused(&verifying).contains("verify = verify_peer"));
    assert!(matches!(
        TlsServer::load(&TlsOptions::default(), SystemTime::now()),
        Err(TlsError::NothingToShow)
    ));
    let with = |ciphers: &[&str]| TlsOptions {
        ciphers: ciphers.iter().map(|name| (*name).to_owned()).collect(),
        ..alone.clone()
    };
    assert!(refused(&with(&["TLS_AES_128_GCM_SHA256", "NONSENSE"])).contains("TLSv1.2"));
    let warnings = load(&with(&["PSK-AES128-GCM-SHA256", "RC9"])).1;
    assert!(warnings.iter().any(|it| it.to_string().contains("RC9")), "{warnings:?}");
    let options = with(&["PSK-AES128-CBC-SHA256"]);
    let own = Some(("meter 7", &KEY[..]));
    let mut pair = Pair::new(&options, client(SslVersion::TLS1_2, own, b"\x04mqtt"), usize::MAX);
    pair.pump().unwrap();
    let cipher = pair.filter.peer().tls.as_deref().unwrap().cipher;
    assert_eq!(cipher, "TLS_PSK_WITH_AES_128_CBC_SHA256");
}
