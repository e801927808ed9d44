//! Keys of listeners.

use super::*;
use crate::listener::parse_address;

#[test]
fn addresses_of_listeners() {
    for (text, address) in [
        ("1883", "0.0.0.0:1883"),
        ("127.0.0.1:1883", "127.0.0.1:1883"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("::1:1883", "[::1]:1883"),
        ("[::1]:1883", "[::1]:1883"),
        ("[::]:1883", "[::]:1883"),
        (":::1883", "[::]:1883"),
    ] {
        assert_eq!(parse_address(text).expect(text).to_string(), address, "{text}");
    }
    for text in
        ["", ":", "a:1", "1.2.3.4", "65536", "1.2.3.4:+1", "[::1:1", "::1]:1", "[1.2.3.4]:1", "-1"]
    {
        assert_eq!(parse_address(text), None, "{text}");
    }
}

#[test]
fn listeners_by_layer() {
    let one = |text: &str| {
        let file = TempFile::new("listeners", text);
        addresses(&file.load().expect("settings").0)
    };
    let both = ["external 0.0.0.0:1884", "internal 127.0.0.1:11883"];
    assert_eq!(addresses(&set(&[("listener.tcp.external", "1884")])), both);
    assert_eq!(one("listener.tcp.external = 1884"), ["external 0.0.0.0:1884"]);
    assert_eq!(one("listener.tcp.mine = 127.0.0.1:7"), ["mine 127.0.0.1:7"]);
    assert_eq!(one("listener.tcp.internal = off"), ["external 0.0.0.0:1883"]);
    assert_eq!(one("listener.tcp.external.backlog = 7").len(), 2);
    assert_eq!(set(&[("listener.tcp.a", "1"), ("listener.tcp.b", "2")]).listeners.len(), 4);
    let (none, warnings) =
        try_set(&[("listener.tcp.external", "off"), ("listener.tcp.internal", "off")])
            .expect("none");
    assert!(none.listeners.is_empty() && texts(&warnings).contains("no listener is left"));
    assert!(set_error(&[("listener.tcp.a", "1883")]).ends_with(" has this address already"));
    assert!(try_set(&[("listener.tcp.a", "0"), ("listener.tcp.b", "0")]).is_ok());
    assert_eq!(
        set_error(&[("listener.tcp.externl.max_clients", "5")]),
        "--set: unknown key listener.tcp.externl.max_clients: there is no listener externl; give \
         listener.tcp.externl = [address:]port (listeners: external, internal)"
    );
    let options = &set(&[("listener.tcp.max_clients", "5"), ("listener.tcp", "1")]).listeners[0];
    assert_eq!((options.address.port(), options.options.max_clients), (1, 5));
}

#[test]
fn what_must_not_be_ignored_is_refused() {
    let message = set_error(&[("cluster.discovery", "static")]);
    assert!(message.starts_with("--set: cluster.discovery = static: this version "), "{message}");
    let (_, warnings) = try_set(&[("cluster.discovery", "manual")]).expect("manual");
    assert!(texts(&warnings).contains("has no effect"));
}

/// SEED-LSN-01, 03 to 05: any number of each kind, each with a name of its own.
#[test]
fn listeners_of_all_kinds() {
    let file = TempFile::new(
        "kinds",
        "listener.tcp.a = 1883\nlistener.ws.a = [::]:8083\nlistener.ws.b = 8084\n\
         listener.ssl.a = 127.0.0.1:8883\nlistener.ssl.a.certfile = c.pem\nlistener.ssl.a.keyfile = k.pem\n\
         listener.ws.b.mqtt_path = /mq\nlistener.ssl.a.tls_versions = tlsv1.3, tlsv1.2\n\
         listener.ssl.a.verify = verify_peer\nlistener.ssl.a.cacertfile = ca.pem\n\
         listener.tcp.a.peer_cert_as_username = cn\nlistener.tcp.a.proxy_protocol = on\n\
         listener.ws.b.check_origins = https://a.example, https://b.example\n",
    );
    let (settings, warnings) = file.load().expect("settings");
    let all: Vec<String> =
        settings.listeners.iter().map(|one| format!("{} {}", one.key(), one.address)).collect();
    assert_eq!(
        all,
        [
            "listener.tcp.a 0.0.0.0:1883",
            "listener.ssl.a 127.0.0.1:8883",
            "listener.ws.a [::]:8083",
            "listener.ws.b 0.0.0.0:8084"
        ]
    );
    let options = |number: usize| &settings.listeners[number].options;
    assert_eq!(options(1).tls.tls_versions, ["tlsv1.3", "tlsv1.2"]);
    assert_eq!(options(1).tls.verify, VerifyPeer::VerifyPeer);
    assert_eq!(options(1).tls.ca_cert_file, Some("ca.pem".into()));
    assert_eq!(options(0).peer_cert_as_username, PeerCertAs::Cn);
    assert!(options(0).proxy_protocol && !options(2).proxy_protocol);
    assert_eq!(options(3).websocket.path, "/mq");
    assert_eq!(options(3).websocket.check_origins.len(), 2);
    assert_eq!(
        file.plain(texts(&warnings)),
        "FILE:7: listener.ws.b.mqtt_path is an older name of listener.ws.b.path\n"
    );
    let shown = Settings::load(&LoadRequest {
        set: pairs(&[("listener.tcp.external", "off"), ("listener.tcp.internal", "off")])
            .into_iter()
            .chain(values(&settings))
            .collect(),
        ..LoadRequest::default()
    });
    assert_eq!(values(&shown.expect("shown values load").0), values(&settings));
}

/// Each error is one line with its place and what to do.
#[test]
fn wrong_options_of_listeners() {
    for (key, value, message) in [
        (
            "listener.tcp.external.access.1",
            "allow 10.0.0.0/33",
            "--set: listener.tcp.external.access.1 cannot be \"allow 10.0.0.0/33\"; allowed: allow or deny, then all, an \
             address or a CIDR, for example allow 192.168.0.0/24, or deny all",
        ),
        (
            "listener.tcp.external.rate_limit",
            "10",
            "--set: listener.tcp.external.rate_limit cannot be \"10\"; allowed: none, bytes in a time and a burst, or \
             burst,rate in KB a second, for example 10KB/s,100KB",
        ),
        (
            "listener.tcp.external.max_conn_rate",
            "0",
            "--set: listener.tcp.external.max_conn_rate cannot be \"0\"; allowed: none, or connections in a time and a \
             burst, for example 100/s,500",
        ),
        (
            "listener.tcp.external.mountpoint",
            "a/+/",
            "--set: listener.tcp.external.mountpoint cannot be \"a/+/\"; allowed: none, or text of at most 256 bytes without \
             wildcards and control characters that does not begin with $, for example external/%c/",
        ),
        (
            "listener.tcp.external.certfile",
            "c.pem",
            "--set: listener.tcp.external.certfile = c.pem: a listener.tcp has no certfile; listener.ssl or listener.wss has",
        ),
        (
            "listener.ws.external.path",
            "mqtt",
            "--set: listener.ws.external.path cannot be \"mqtt\"; allowed: a path of a URL that begins with /, for example \
             /mqtt",
        ),
        (
            "listener.ssl.external.certfle",
            "x",
            "--set: unknown key listener.ssl.external.certfle; did you mean listener.ssl.external.certfile?",
        ),
        (
            "listener.ssl.mine.certfile",
            "x",
            "--set: unknown key listener.ssl.mine.certfile: there is no listener mine; give listener.ssl.mine = \
             [address:]port (listeners: external, internal)",
        ),
        (
            "listener.ws.a",
            "1883",
            "--set: listener.ws.a = 0.0.0.0:1883: listener.tcp.external has this address already",
        ),
    ] {
        assert_eq!(set_error(&[(key, value)]), message);
    }
    let both = set_error(&[("listener.wss.a", "8084")]);
    assert_eq!(
        both,
        "--set: listener.wss.a = 0.0.0.0:8084: a listener with TLS needs a certfile: give listener.wss.a.certfile, or psk_file for pre-shared keys\n\
         --set: listener.wss.a = 0.0.0.0:8084: a listener with TLS needs a keyfile: give listener.wss.a.keyfile, or psk_file for pre-shared keys"
    );
    let tls = [
        ("listener.ssl.a", "8883"),
        ("listener.ssl.a.certfile", "c"),
        ("listener.ssl.a.keyfile", "k"),
    ];
    let verify = [&tls[..], &[("listener.ssl.a.verify", "verify_peer")]].concat();
    assert_eq!(
        set_error(&verify),
        "--set: listener.ssl.a.verify = verify_peer: the certificates of clients need an authority: give cacertfile too"
    );
    let fail = [&tls[..], &[("listener.ssl.a.fail_if_no_peer_cert", "true")]].concat();
    let (_, warnings) = try_set(&fail).expect("settings");
    assert!(texts(&warnings).contains("fail_if_no_peer_cert: has no effect"), "{warnings:?}");
}

/// SEED-LSN-15: certificates by name; SEED-LSN-17: pre-shared keys.
#[test]
fn certificates_by_name_and_keys() {
    let tls = [
        ("listener.ssl.a", "8883"),
        ("listener.ssl.a.certfile", "c"),
        ("listener.ssl.a.keyfile", "k"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&tls[..], more].concat();
    let settings = set(&with(&[
        ("listener.ssl.a.sni.2.certfile", "c2"),
        ("listener.ssl.a.sni.2.keyfile", "k2"),
        ("listener.ssl.a.sni.2.host", "*.b.example, b.example"),
    ]));
    let listener = settings.listeners.iter().find(|it| it.name == "a").unwrap();
    let (number, certificate) = listener.options.sni.iter().next().unwrap();
    assert_eq!((number, certificate.hosts.len()), (2, 2));
    let shown = values(&settings);
    assert!(shown.contains(&("listener.ssl.a.sni.2.host".into(), "*.b.example,b.example".into())));
    let again = Settings::load(&LoadRequest { set: shown.clone(), ..LoadRequest::default() });
    assert_eq!(values(&again.expect("shown values load").0), shown);
    for (more, message) in [
        (
            &[("listener.ssl.a.sni.1.host", "*")][..],
            "--set: listener.ssl.a.sni.1.host cannot be \"*\"; allowed: default, or host names parted by commas, for at \
             most 10000 certificates, for example default",
        ),
        (
            &[("listener.ssl.a.sni.1.certfile", "c")],
            "--set: listener.ssl.a.sni.1.certfile = c: a certificate needs both files: give listener.ssl.a.sni.1.keyfile",
        ),
        (
            &[("listener.ssl.a.sni.1.certfle", "c")],
            "--set: unknown key listener.ssl.a.sni.1.certfle; did you mean listener.ssl.a.sni.1.certfile?",
        ),
        (
            &[("listener.tcp.external.sni.1.host", "b")],
            "--set: listener.tcp.external.sni.1.host = b: a listener.tcp has no sni.1.host; listener.ssl or listener.wss has",
        ),
        (
            &[
                ("listener.ssl.k", "8884"),
                ("listener.ssl.k.psk_file", "p"),
                ("listener.ssl.k.keyfile", "k"),
            ],
            "--set: listener.ssl.k = 0.0.0.0:8884: a listener with TLS needs a certfile: give listener.ssl.k.certfile",
        ),
        (
            &[
                ("listener.ssl.a.psk_file", "p"),
                ("listener.ssl.a.sni.1.certfile", "c"),
                ("listener.ssl.a.sni.1.keyfile", "c"),
            ],
            "--set: listener.ssl.a.psk_file = p: it cannot be together with sni: give the other a listener of its own",
        ),
    ] {
        assert_eq!(set_error(&with(more)), message);
    }
    let keys = set(&[("listener.ssl.k", "8884"), ("listener.ssl.k.psk_file", "p")]);
    assert!(keys.listeners.iter().any(|it| it.options.tls.psk_file.is_some()));
    let (_, warnings) =
        try_set(&with(&[("listener.ssl.a.psk_identity_as_username", "on")])).unwrap();
    assert!(
        texts(&warnings).contains("without psk_file no client has an identity"),
        "{warnings:?}"
    );
}

/// SEED-LSN-08: rules in the order of their numbers, a later layer replaces one by its number.
#[test]
fn access_rules_of_a_listener() {
    let file = TempFile::new(
        "access",
        "listener.tcp.external.access.2 = deny all\nlistener.tcp.external.access.1 = allow 10.0.0.0/8\n",
    );
    let (settings, warnings) = file.load().expect("settings");
    assert_eq!(texts(&warnings), "");
    let access = &settings.listeners[0].options.access;
    assert!(access.allows("10.1.1.1".parse().unwrap()));
    assert!(!access.allows("127.0.0.1".parse().unwrap()));
    let entry = settings.get("listener.tcp.external.access.1").expect("known");
    assert_eq!(entry.value, "allow 10.0.0.0/8");
    assert_eq!(file.plain(entry.origin), "FILE:2");
    let request = LoadRequest {
        file: Some(file.0.clone()),
        set: pairs(&[("listener.tcp.external.access.2", "allow all")]),
        ..LoadRequest::default()
    };
    let (settings, warnings) = Settings::load(&request).expect("settings");
    assert!(settings.listeners[0].options.access.allows("127.0.0.1".parse().unwrap()));
    assert!(texts(&warnings).contains("the rules keep nobody out"), "{warnings:?}");
    let (_, warnings) = try_set(&[("listener.tcp.external.access.1", "allow all")]).unwrap();
    assert_eq!(texts(&warnings), "", "EMQ's own file has it");
}
