//! TLS through the filter: handshakes, certificates, resumption, and what is said about files that are wrong.
#![allow(missing_docs, reason = "tests have no readers of documentation")]

mod common;

use common::{Authority, ClientKind, Pair, Site, client_config, file, load, settings};
use filter::{
    CertificateFiles, CloseWhy, Filter, FilterError, SniCertificate, Stage, TlsError, TlsOptions,
    TlsServer, Warning,
};
use rcgen::date_time_ymd;
use ringmq_filter as filter;
use rustls::{CipherSuite, version};
use std::time::{Duration, SystemTime};

static TLS12: [&rustls::SupportedProtocolVersion; 1] = [&version::TLS12];
static TLS13: [&rustls::SupportedProtocolVersion; 1] = [&version::TLS13];

fn kind12() -> ClientKind {
    ClientKind { versions: &TLS12, ..ClientKind::default() }
}

/// The label of the error a client of this kind is refused with.
fn refusal(site: &Site, options: &TlsOptions, kind: &ClientKind) -> (&'static str, String) {
    let config = client_config(&site.authority, kind);
    let mut pair = Pair::new(&settings(options), &config, "localhost");
    let error = pair.pump().expect_err("the client should have been refused");
    assert!(pair.client_error.is_some(), "the client is told by an alert");
    assert!(pair.filter.is_ended() && !pair.filter.is_open());
    (error.reason(), error.to_string())
}

#[test]
fn both_versions_carry_bytes_both_ways_cut_anywhere() {
    let site = Site::new();
    for (versions, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        for step in [usize::MAX, 1, 7, 1000] {
            let kind = ClientKind { versions, ..ClientKind::default() };
            let config = client_config(&site.authority, &kind);
            let mut pair = Pair::new(&settings(&site.options), &config, "localhost");
            pair.step = step;
            assert_eq!(pair.filter.stage(), Stage::Tls);
            pair.pump().unwrap();
            assert!(pair.filter.is_open());
            let said = (0..100_000u32).flat_map(u32::to_le_bytes).take(70_000).collect::<Vec<_>>();
            pair.say(&said).unwrap();
            assert_eq!(pair.plain, said, "{name}, {step} at a time");
            pair.answer(&[b"a", &said, b"", b"b", &said[..20_000]]);
            assert_eq!(pair.heard, [b"a", &said[..], b"b", &said[..20_000]].concat());
            let tls = pair.filter.peer().tls.clone().unwrap();
            assert_eq!((tls.version, tls.server_name.as_deref()), (name, Some("localhost")));
            assert_eq!((tls.alpn.as_deref(), tls.resumed), (Some("mqtt"), false));
            assert!(tls.cipher.contains("AES_128_GCM"), "{}", tls.cipher);
            assert_eq!((tls.certificate, pair.filter.client_certificate()), (None, None));
        }
    }
}

#[test]
fn small_pieces_become_one_record() {
    let site = Site::new();
    let config = client_config(&site.authority, &ClientKind::default());
    let mut pair = Pair::new(&settings(&site.options), &config, "localhost");
    pair.pump().unwrap();
    let before = pair.wire_bytes;
    pair.answer(&[&[1; 10][..]; 20]);
    assert_eq!(pair.wire_bytes - before, 200 + 22);
    let before = pair.wire_bytes;
    pair.answer(&[&[1; 16_384][..]; 2]);
    assert_eq!(pair.wire_bytes - before, 2 * (16_384 + 22));
}

#[test]
fn a_client_comes_back_with_a_ticket() {
    let site = Site::new();
    for kind in [ClientKind::default(), kind12()] {
        let config = client_config(&site.authority, &kind);
        let server = settings(&site.options);
        for resumed in [false, true, true] {
            let mut pair = Pair::new(&server, &config, "localhost");
            pair.pump().unwrap();
            pair.answer(&[b"x"]);
            assert_eq!(pair.filter.peer().tls.as_ref().unwrap().resumed, resumed);
            assert_eq!(
                pair.filter.peer().tls.as_ref().unwrap().server_name.as_deref(),
                Some("localhost")
            );
        }
        // A reload forgets them: the rules may have changed.
        let mut pair = Pair::new(&settings(&site.options), &config, "localhost");
        pair.pump().unwrap();
        assert!(!pair.filter.peer().tls.as_ref().unwrap().resumed);
        // And so does a listener that was told to.
        let without = settings(&TlsOptions { reuse_sessions: false, ..site.options.clone() });
        for _ in 0..2 {
            let mut pair = Pair::new(&without, &config, "localhost");
            pair.pump().unwrap();
            assert!(!pair.filter.peer().tls.as_ref().unwrap().resumed);
        }
    }
}

#[test]
fn client_certificates_tell_who_comes_also_on_resumption() {
    let site = Site::new();
    let pem = site.authority.client("device-7", 7);
    for versions in [&TLS12, &TLS13] {
        let kind = ClientKind { certificate: Some(pem.clone()), versions, ..Default::default() };
        let config = client_config(&site.authority, &kind);
        let server = settings(&site.verifying());
        for resumed in [false, true] {
            let mut pair = Pair::new(&server, &config, "localhost");
            pair.pump().unwrap();
            pair.answer(&[b"x"]);
            let peer = pair.filter.peer();
            assert_eq!(peer.tls.as_ref().unwrap().resumed, resumed);
            assert_eq!(peer.common_name(), Some("device-7"));
            // Country first in the certificate, last in RFC 4514's text.
            assert_eq!(peer.distinguished_name(), Some("CN=device-7,O=Works\\, Inc.,C=AT"));
            assert_eq!(pair.filter.client_certificate(), Some(&pem.chain()[0][..]));
        }
    }
}

#[test]
fn bad_clients_are_refused_and_told() {
    let site = Site::new();
    let options = site.verifying();
    let with = |pem| ClientKind { certificate: Some(pem), ..ClientKind::default() };
    let (reason, message) = refusal(&site, &options, &ClientKind::default());
    assert_eq!(reason, "tls_no_client_certificate");
    assert!(message.starts_with("the client has shown no certificate"), "{message}");

    let stranger = Authority::new("Stranger").client("device-7", 7);
    assert_eq!(refusal(&site, &options, &with(stranger)).0, "tls_certificate_unknown_ca");

    let old = site.authority.issue(&[], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let (reason, message) = refusal(&site, &options, &with(old));
    assert_eq!(reason, "tls_certificate_expired");
    assert!(message.contains("the client's certificate is refused: "), "{message}");

    let server_only = site.authority.issue(&["x"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(refusal(&site, &options, &with(server_only)).0, "tls_certificate_bad");

    let h2 = ClientKind { alpn: &["h2"], ..ClientKind::default() };
    assert_eq!(refusal(&site, &site.options, &h2).0, "tls_alpn");
    let only13 = TlsOptions { versions: vec!["tlsv1.3".to_owned()], ..site.options.clone() };
    assert_eq!(refusal(&site, &only13, &kind12()).0, "tls_version");
    let rsa_only = TlsOptions {
        ciphers: vec!["ECDHE-RSA-AES128-GCM-SHA256".to_owned()],
        ..site.options.clone()
    };
    assert_eq!(refusal(&site, &rsa_only, &kind12()).0, "tls_no_common_cipher");
}

#[test]
fn without_fail_if_no_peer_cert_a_client_may_have_none_but_no_wrong_one() {
    let site = Site::new();
    let options = TlsOptions { fail_if_no_peer_cert: false, ..site.verifying() };
    let config = client_config(&site.authority, &ClientKind::default());
    let mut pair = Pair::new(&settings(&options), &config, "localhost");
    pair.pump().unwrap();
    assert!(pair.filter.is_open());
    assert_eq!(pair.filter.peer().common_name(), None);
    let stranger = Authority::new("Stranger").client("device-7", 7);
    let kind = ClientKind { certificate: Some(stranger), ..ClientKind::default() };
    assert_eq!(refusal(&site, &options, &kind).0, "tls_certificate_unknown_ca");
}

#[test]
fn revoked_certificates() {
    let site = Site::new();
    let options = |list: &str| TlsOptions {
        crl_file: Some(site.folder.write("crl.pem", list)),
        ..site.verifying()
    };
    let client = |serial| ClientKind {
        certificate: Some(site.authority.client("device", serial)),
        ..ClientKind::default()
    };
    let revoking = options(&site.authority.revoke(&[7, 9], 2100));
    assert_eq!(refusal(&site, &revoking, &client(7)).0, "tls_certificate_revoked");
    let config = client_config(&site.authority, &client(8));
    let mut pair = Pair::new(&settings(&revoking), &config, "localhost");
    pair.pump().unwrap();
    assert!(pair.filter.is_open());
    // A list of another authority says nothing.
    let other = options(&Authority::new("Other").revoke(&[7], 2100));
    assert_eq!(refusal(&site, &other, &client(8)).0, "tls_certificate_no_crl");
    // One that is out of date is better than none.
    let old = options(&site.authority.revoke(&[7], 2025));
    assert!(matches!(load(&old).1[..], [Warning::CrlExpired(_)]));
    assert_eq!(refusal(&site, &old, &client(7)).0, "tls_certificate_revoked");
}

#[test]
fn names_choose_certificates() {
    let site = Site::new();
    let sni = |file: &str, in_certificate: &[&str], names: &[&str]| {
        let pem = site.authority.issue(in_certificate, |_| {});
        let files = CertificateFiles {
            cert_file: site.folder.write(&format!("{file}.pem"), &pem.cert),
            key_file: site.folder.write(&format!("{file}.key"), &pem.key),
        };
        (SniCertificate { names: names.iter().map(|&it| it.to_owned()).collect(), files }, pem)
    };
    let (exact, exact_pem) = sni("exact", &["mqtt.example.com"], &[]);
    let (wild, wild_pem) = sni("wild", &["*.example.com", "Example.com"], &[]);
    let (given, given_pem) = sni("given", &["whatever"], &["*.given.example.org"]);
    let options = TlsOptions { sni: vec![exact, wild, given], ..site.options.clone() };
    let server = settings(&options);
    let default =
        std::fs::read_to_string(&options.certificate.as_ref().unwrap().cert_file).unwrap();
    for (name, cert) in [
        ("mqtt.example.com", &exact_pem.cert),
        ("MQTT.Example.COM", &exact_pem.cert),
        ("other.example.com", &wild_pem.cert),
        ("example.com", &wild_pem.cert),
        ("a.given.example.org", &given_pem.cert),
        ("a.b.example.com", &default),
        ("given.example.org", &default),
        ("192.0.2.1", &default),
    ] {
        let config = client_config(&site.authority, &ClientKind::default());
        let mut pair = Pair::new(&server, &config, name);
        let _ = pair.pump();
        // The client may not like it, but it has seen it.
        let wanted = common::Pem { cert: cert.clone(), key: String::new() }.chain();
        match (&pair.client_error, pair.client.peer_certificates()) {
            (None, Some(seen)) => assert_eq!(seen[0], wanted[0], "{name}"),
            (error, _) => {
                assert!(format!("{error:?}").contains("NotValidForName"), "{name}: {error:?}");
                assert!(
                    ["whatever", "localhost"]
                        .iter()
                        .any(|only| { format!("{error:?}").contains(only) }),
                    "{name}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn ciphers_and_versions_by_either_name() {
    let site = Site::new();
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (name, suite) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        (
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        let options = TlsOptions { ciphers: names(&[name]), ..site.options.clone() };
        let config = client_config(&site.authority, &kind12());
        let mut pair = Pair::new(&settings(&options), &config, "localhost");
        pair.pump().unwrap();
        assert_eq!(pair.client.negotiated_cipher_suite().unwrap().suite(), suite);
        // 1.3 is still spoken.
        let config = client_config(&site.authority, &ClientKind::default());
        let mut pair = Pair::new(&settings(&options), &config, "localhost");
        pair.pump().unwrap();
        assert_eq!(pair.filter.peer().tls.as_ref().unwrap().version, "TLSv1.3");
    }
    // The list of EMQ's default settings, shortened.
    let emq = TlsOptions {
        ciphers: names(&[
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES256-SHA384",
            "DHE-DSS-AES256-GCM-SHA384",
            "AES256-GCM-SHA384",
            "ECDHE-RSA-DES-CBC3-SHA",
            "PSK-AES128-CBC-SHA",
            "TLS_AES_128_CCM_SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        ]),
        versions: names(&["tlsv1.2", "TLSv1.3", "tlsv1.1", "tlsv1"]),
        dh_file: Some("dh.pem".into()),
        secure_renegotiate: true,
        fail_if_no_peer_cert: true,
        ..site.options.clone()
    };
    let warnings = load(&emq).1.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (warning, part) in warnings.iter().zip([
        "'tlsv1.1' is not spoken",
        "'tlsv1' is not spoken",
        "'ECDHE-ECDSA-AES256-SHA384' is not used: its mode (CBC)",
        "forward secrecy",
        "'AES256-GCM-SHA384' is not used: its key exchange has no forward secrecy",
        "'ECDHE-RSA-DES-CBC3-SHA' is not used: it is broken",
        "pre-shared keys",
        "'TLS_AES_128_CCM_SHA256' is not used: this TLS library",
        "fail_if_no_peer_cert",
        "dhfile",
        "secure_renegotiate",
    ]) {
        assert!(warning.contains(part), "{warning} / {part}");
    }
    assert_eq!(warnings.len(), 11, "{warnings:?}");
    let load = |options: &TlsOptions| TlsServer::load(options, SystemTime::now());
    let old = TlsOptions { versions: names(&["tlsv1.1"]), ..site.options.clone() };
    assert!(matches!(load(&old), Err(TlsError::NoVersion(_))));
    let none = TlsOptions {
        ciphers: names(&["TLS_AES_128_GCM_SHA256"]),
        versions: names(&["tlsv1.2"]),
        ..site.options.clone()
    };
    assert!(matches!(load(&none), Err(TlsError::NoCipher(_))));
}

#[test]
fn what_is_wrong_with_files_is_said() {
    let site = Site::new();
    let now = SystemTime::now();
    let other = site.authority.issue(&["other"], |_| {});
    let write = |name: &str, text: &str| site.folder.write(name, text);
    let with = |cert: &std::path::Path, key: &std::path::Path| TlsOptions {
        certificate: Some(CertificateFiles { cert_file: cert.into(), key_file: key.into() }),
        ..site.options.clone()
    };
    let CertificateFiles { cert_file, key_file } = site.options.certificate.clone().unwrap();
    let verifying = |ca: &std::path::Path, crl: Option<&std::path::Path>| TlsOptions {
        ca_file: Some(ca.into()),
        crl_file: crl.map(Into::into),
        ..site.verifying()
    };
    let empty = write("empty", "");
    let broken = write("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let junk = write("junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let junk_key =
        write("junk.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let junk_crl = write("junk.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    let encrypted = write("enc.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n");
    let legacy = write(
        "legacy.key",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n",
    );
    let other_key = write("other.key", &other.key);
    let ca = site.folder.path("ca.pem");
    let missing = site.folder.path("missing");
    let no_ca = TlsOptions { ca_file: None, ..site.verifying() };
    for (options, at_fault, remedy) in [
        (with(&missing, &key_file), &missing, "cannot be read: No such file"),
        (with(&empty, &key_file), &empty, "has no certificate in it"),
        (with(&broken, &key_file), &broken, "is not well-formed PEM"),
        (with(&junk, &key_file), &junk, "has a certificate that cannot be used"),
        (with(&cert_file, &empty), &empty, "has no private key in it"),
        (with(&cert_file, &cert_file), &cert_file, "has no private key in it"),
        (with(&cert_file, &junk_key), &junk_key, "the private key cannot be used"),
        (with(&cert_file, &encrypted), &encrypted, "openssl pkey -in FILE -out NEW"),
        (with(&cert_file, &legacy), &legacy, "openssl pkey -in FILE -out NEW"),
        (with(&cert_file, &other_key), &other_key, "does not belong to the first certificate"),
        (verifying(&empty, None), &empty, "has no certificate in it"),
        (verifying(&junk, None), &junk, "none of an authority"),
        (verifying(&ca, Some(&ca)), &ca, "has no list of revoked certificates"),
        (verifying(&ca, Some(&junk_crl)), &junk_crl, "has a list of revoked certificates"),
    ] {
        let message = TlsServer::load(&options, now).expect_err(remedy).to_string();
        assert!(message.starts_with(&file(at_fault)), "{message}");
        assert!(message.contains(remedy), "{message}");
    }
    let message = TlsServer::load(&no_ca, now).unwrap_err().to_string();
    assert!(message.contains("cacertfile"), "{message}");
    for name in ["", "*.", "a b", "*.*.com", "ä.com"] {
        let sni = SniCertificate {
            names: vec![name.to_owned()],
            files: site.options.certificate.clone().unwrap(),
        };
        let options = TlsOptions { sni: vec![sni], ..site.options.clone() };
        assert!(matches!(TlsServer::load(&options, now), Err(TlsError::SniName(_))), "{name}");
    }
}

#[test]
fn a_certificate_that_expires_is_warned_of() {
    let site = Site::new();
    let pem = site.authority.issue(&["localhost"], |params| {
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2030, 12, 31);
    });
    let options = TlsOptions::new(
        site.folder.write("x.pem", &pem.cert),
        site.folder.write("x.key", &pem.key),
    );
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_924_905_600); // 2030-12-31
    let day = Duration::from_secs(24 * 3600);
    let at = |now| TlsServer::load(&options, now).unwrap().1;
    assert_eq!(at(end - 100 * day), []);
    assert!(matches!(at(end - 10 * day)[..], [Warning::ExpiresSoon { days: 10, .. }]));
    assert!(matches!(at(end + 3 * day)[..], [Warning::Expired { days: 3, .. }]));
    assert!(matches!(at(end - 1000 * day)[..], [Warning::NotYetValid(_)]));
}

#[test]
fn either_side_says_goodbye() {
    let site = Site::new();
    for kind in [ClientKind::default(), kind12()] {
        let config = client_config(&site.authority, &kind);
        let server = settings(&site.options);
        let mut pair = Pair::new(&server, &config, "localhost");
        pair.pump().unwrap();
        pair.client.send_close_notify();
        pair.pump().unwrap();
        assert!(pair.filter.is_ended());
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed(), "it is answered");

        let mut pair = Pair::new(&server, &config, "localhost");
        pair.pump().unwrap();
        let mut wire = Vec::new();
        pair.filter.close(CloseWhy::Normal, &mut wire);
        pair.filter.close(CloseWhy::Normal, &mut wire);
        pair.hear(&wire);
        assert_eq!(pair.filter.stage(), Stage::Closing);
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        let mut more = Vec::new();
        pair.filter.send([&b"late"[..]].into_iter(), &mut more).unwrap();
        assert!(more.is_empty());
        pair.say(b"late").unwrap();
        assert!(pair.plain.is_empty());
        pair.client.send_close_notify();
        pair.pump().unwrap();
        assert!(pair.filter.is_ended());
    }
}

#[test]
fn a_handshake_has_an_end_and_garbage_none_to_wait_for() {
    let site = Site::new();
    let server = settings(&site.options);
    let refused = |inputs: &[&[u8]]| {
        let mut filter = Filter::new(&server);
        let (mut plain, mut wire) = (vec![], vec![]);
        for input in inputs {
            match filter.received(&mut input.to_vec(), &mut plain, &mut wire) {
                Err(error) => return Some(error.reason()),
                Ok(()) => assert!(filter.heap_bytes() < 300_000),
            }
        }
        None
    };
    assert_eq!(refused(&[b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"]), Some("tls_not_tls"));
    assert_eq!(refused(&[b"GET /mqtt HTTP/1.1\r\n\r\n"]), Some("tls_not_tls"));
    // A hello of 60 KB in records of one byte: its limit comes first.
    let endless = std::iter::once(&b"\x16\x03\x01\0\x04\x01\0\xea\x60"[..])
        .chain(std::iter::repeat_n(&b"\x16\x03\x01\0\x01\0"[..], 20_000))
        .collect::<Vec<_>>();
    assert_eq!(refused(&endless), Some("tls_handshake_too_long"));
    let empty = vec![&b"\x16\x03\x01\0\0"[..]; 100];
    assert!(refused(&empty).is_some());
}

#[test]
fn a_changed_record_ends_the_connection_with_an_alert() {
    let site = Site::new();
    for kind in [ClientKind::default(), kind12()] {
        let config = client_config(&site.authority, &kind);
        let mut pair = Pair::new(&settings(&site.options), &config, "localhost");
        pair.pump().unwrap();
        let mut raw = b"\x17\x03\x03\0\x20".to_vec();
        raw.extend([0; 32]);
        let mut wire = vec![];
        let error = pair.filter.received(&mut raw, &mut pair.plain, &mut wire).unwrap_err();
        assert!(matches!(error, FilterError::Tls(_)));
        assert_eq!(error.reason(), "tls_decrypt_error");
        pair.hear(&wire);
        assert!(matches!(pair.client_error, Some(rustls::Error::AlertReceived(_))));
        assert!(pair.filter.is_ended());
        let mut wire = vec![];
        pair.filter.close(CloseWhy::Normal, &mut wire);
        assert!(wire.is_empty());
    }
}

#[test]
fn keys_are_updated_when_the_client_wants_it() {
    let site = Site::new();
    let kind = ClientKind { versions: &TLS13, ..ClientKind::default() };
    let config = client_config(&site.authority, &kind);
    let mut pair = Pair::new(&settings(&site.options), &config, "localhost");
    pair.pump().unwrap();
    for round in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.say(b"to the server").unwrap();
        pair.answer(&[b"to the client"]);
        assert_eq!(pair.client_error, None, "round {round}");
    }
    assert_eq!(pair.plain, b"to the server".repeat(3));
    assert_eq!(pair.heard, b"to the client".repeat(3));
}

#[test]
fn a_filter_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Filter>();
}
