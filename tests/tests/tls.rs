//! TLS, end to end: mosquitto's clients and `openssl s_client` against listener.ssl (SEED-LSN-03, SEED-LSN-15, SEED-LSN-16).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use ringmq_tests::broker::binary;
use ringmq_tests::certificates::{Authority, Folder, Site};
use ringmq_tests::commands::{Subscriber, run};
use ringmq_tests::listening::{address, ended, expect_ended, start};
use ringmq_tests::tls::TlsStream;
use ringmq_tests::websocket::{WebSocket, tcp};
use ringmq_tests::{Client, Connect, Packet, Publish, Subscribe, V5, V311, WAIT, id, tls, topic};

const VERSIONS: [&str; 2] = ["311", "5"];

/// A mosquitto client that trusts the authority of a site.
fn mosquitto(name: &str, to: SocketAddr, version: &str, site: &Site) -> Command {
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &to.port().to_string(), "-V", version]);
    command.args(["--cafile", &site.folder.path("ca.pem")]);
    command
}

/// A mosquitto client with a certificate.
fn with_certificate(
    name: &str,
    to: SocketAddr,
    site: &Site,
    file: &str,
    pair: &(String, String),
) -> Command {
    let (certificate, key) = site.put_client(file, pair);
    let mut command = mosquitto(name, to, "5", site);
    command.args(["--cert", &certificate, "--key", &key]);
    command
}

fn publish_and_subscribe(to: SocketAddr, site: &Site, version: &str, qos: &str) {
    let name = topic();
    let mut command = mosquitto("mosquitto_sub", to, version, site);
    command.args(["-t", &name, "-q", qos, "-C", "2", "-W", "10", "-F", "got %p %q"]);
    let mut subscriber = Subscriber::start(&mut command);
    for publisher in VERSIONS {
        let mut command = mosquitto("mosquitto_pub", to, publisher, site);
        run(command.args(["-t", &name, "-m", publisher, "-q", qos]));
        assert_eq!(subscriber.wait_for("got "), format!("got {publisher} {qos}"));
    }
    subscriber.end();
}

/// SEED-LSN-03: every version of MQTT and TLS, with 1, 2 and 8 shards: connections move to another shard with their TLS.
#[test]
fn seed_lsn_03_mosquitto_over_tls() {
    let site = Site::new();
    for shards in ["1", "2", "8"] {
        let broker = start(&["--shards", shards], &[site.listener("ssl", "t")]);
        let to = address(&broker, "t");
        for version in VERSIONS {
            for qos in ["0", "1", "2"] {
                publish_and_subscribe(to, &site, version, qos);
            }
        }
        for tls in ["tlsv1.2", "tlsv1.3"] {
            let mut command = mosquitto("mosquitto_pub", to, "5", &site);
            run(command.args(["--tls-version", tls, "-t", &topic(), "-m", "x", "-q", "1"]));
        }
    }
}

/// Messages of many records and receive buffers, both ways.
#[test]
fn big_messages_through_tls() {
    let site = Site::new();
    let settings = vec!["mqtt.max_packet_size=1MB".to_owned()];
    let broker = start(&[], &[site.listener("ssl", "t"), settings]);
    let to = address(&broker, "t");
    let payload: String =
        (0..20_000_u32).map(|n| format!("{:010}", n.wrapping_mul(2_654_435_761))).collect();
    let file = site.folder.write("payload", &payload);
    let name = topic();
    for qos in ["0", "1", "2"] {
        let mut command = mosquitto("mosquitto_sub", to, "5", &site);
        command.args(["-t", &name, "-q", qos, "-C", "3", "-W", "20", "-F", "got %l %p"]);
        let mut subscriber = Subscriber::start(&mut command);
        for _ in 0..3 {
            let mut command = mosquitto("mosquitto_pub", to, "311", &site);
            run(command.args(["-t", &name, "-f", &file, "-q", qos]));
            assert_eq!(subscriber.wait_for("got "), format!("got {} {payload}", payload.len()));
        }
        subscriber.end();
    }
}

/// Many small messages, so that records and packets do not end together.
#[test]
fn many_small_messages_through_tls() {
    const COUNT: usize = 5000;
    let site = Site::new();
    let broker = start(&["mqtt.mqueue.max_length=10000"], &[site.listener("ssl", "t")]);
    let to = address(&broker, "t");
    let name = topic();
    let mut command = mosquitto("mosquitto_sub", to, "311", &site);
    let count = COUNT.to_string();
    command.args(["-t", &name, "-q", "1", "-C", &count, "-W", "30", "-F", "got %p"]);
    let mut subscriber = Subscriber::start(&mut command);
    let mut command = mosquitto("mosquitto_pub", to, "5", &site);
    command.args(["-t", &name, "-q", "1", "-l"]).stdin(Stdio::piped());
    let mut publisher = command.spawn().unwrap();
    let lines: String = (0..COUNT).map(|n| format!("{n}\n")).collect();
    publisher.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    for number in 0..COUNT {
        assert_eq!(subscriber.wait_for("got "), format!("got {number}"));
    }
    assert!(publisher.wait().unwrap().success());
    subscriber.end();
}

/// A client that is killed says neither DISCONNECT nor close_notify: its will is published, nothing is left behind.
#[test]
fn abrupt_ends() {
    let site = Site::new();
    let broker = start(&[], &[site.listener("ssl", "t")]);
    let to = address(&broker, "t");
    let name = topic();
    let mut watcher = broker.client(V311);
    watcher.subscribe(&name, 0);
    let mut command = mosquitto("mosquitto_sub", to, "5", &site);
    command.args(["-t", &topic(), "--will-topic", &name, "--will-payload", "gone"]);
    drop(Subscriber::start(&mut command)); // killed
    watcher.expect_message(&name, "gone");
    // Gone in the middle of the handshake.
    for hello in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]] {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(hello).unwrap();
    }
    publish_and_subscribe(to, &site, "5", "1");
    watcher.expect_alive();
}

/// What is no TLS is closed and counted, the helpful text is in the log.
#[test]
fn what_is_no_tls_is_closed() {
    let site = Site::new();
    let broker = start(&["log.console.level=debug"], &[site.listener("ssl", "t")]);
    let to = address(&broker, "t");
    let mut client = Client::open(to, V311);
    client.send(&Connect::new(V311, &id()).encode());
    let mut rest = Vec::new();
    client.stream().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut stream = client.stream();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() <= 7, "an alert at most: {rest:02x?}");
    expect_ended(&broker, "t", "tls_not_tls", 1);
    assert!(
        broker.output().contains("plain MQTT or HTTP on a TLS listener"),
        "{}",
        broker.output()
    );
    // Who does not trust the listener says so.
    let other = Authority::new("Somebody else");
    let foreign = site.folder.write("other.pem", &other.pem);
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &to.port().to_string(), "--cafile", &foreign]);
    fails(command.args(["-t", "t", "-m", "x"]));
    expect_ended(&broker, "t", "tls_alert_received", 1);
}

#[track_caller]
fn fails(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} was let in");
}

/// SEED-LSN-15: who shows no certificate, or one that is foreign, expired or revoked, is refused, and counted by the reason.
/// SEED-LSN-16: the name in the certificate is the user name.
#[test]
fn seed_lsn_15_seed_lsn_16_client_certificates() {
    let site = Site::new();
    let crl = site.folder.write("crl.pem", site.authority.revoke(&[66]));
    let mut settings = site.verifying("ssl", "t");
    settings.push(format!("listener.ssl.t.crlfile={crl}"));
    settings.push("listener.ssl.t.peer_cert_as_username=cn".to_owned());
    let mut by_dn = site.verifying("ssl", "dn");
    by_dn.push("listener.ssl.dn.peer_cert_as_username=dn".to_owned());
    by_dn.push("listener.ssl.dn.peer_cert_as_clientid=cn".to_owned());
    for shards in ["2", "8"] {
        let broker = start(
            &["--shards", shards, "log.console.level=debug"],
            &[settings.clone(), by_dn.clone()],
        );
        let to = address(&broker, "t");
        let (client_id, name) = (id(), topic());
        let pair = site.authority.client("meter 7", 7);
        let mut command = with_certificate("mosquitto_sub", to, &site, "good", &pair);
        command.args(["-t", &name, "-i", &client_id, "-u", "other", "-W", "20", "-F", "got %p"]);
        let mut subscriber = Subscriber::start(&mut command);
        let shown = broker.cli(&["clients", "show", &client_id]);
        assert!(shown.contains("meter 7") && !shown.contains("other"), "{shown}");
        let mut command = with_certificate("mosquitto_pub", to, &site, "good", &pair);
        run(command.args(["-t", &name, "-m", "let in", "-q", "1"]));
        subscriber.wait_for("got let in");
        let dn = address(&broker, "dn");
        let mut command = with_certificate("mosquitto_sub", dn, &site, "good", &pair);
        let subscriber = Subscriber::start(command.args(["-t", &name, "-i", &id(), "-W", "20"]));
        let shown = broker.cli(&["clients", "show", "meter 7"]);
        assert!(shown.contains("CN=meter 7,O=Works"), "{shown}");
        drop(subscriber);

        let refused = |reason: &str, command: &mut Command| {
            let before = ended(&broker, "t", reason);
            fails(command.args(["-t", &name, "-m", "x", "-q", "1"]));
            expect_ended(&broker, "t", reason, before + 1);
        };
        refused("tls_no_client_certificate", &mut mosquitto("mosquitto_pub", to, "5", &site));
        let foreign = Authority::new("Test authority").client("meter 7", 7);
        let expired = site.authority.client_valid("meter 7", 7, (2020, 2021));
        let revoked = site.authority.client("meter 7", 66);
        for (reason, pair) in
            [("tls_certificate_expired", expired), ("tls_certificate_revoked", revoked)]
        {
            refused(reason, &mut with_certificate("mosquitto_pub", to, &site, "bad", &pair));
        }
        let before = ["tls_certificate_unknown_ca", "tls_certificate_bad"]
            .map(|reason| ended(&broker, "t", reason));
        let mut command = with_certificate("mosquitto_pub", to, &site, "bad", &foreign);
        fails(command.args(["-t", &name, "-m", "x", "-q", "1"]));
        thread::sleep(Duration::from_millis(200));
        let after = ["tls_certificate_unknown_ca", "tls_certificate_bad"]
            .map(|reason| ended(&broker, "t", reason));
        assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 1);
        let log = broker.output();
        assert!(log.contains("the client's certificate is refused"), "{log}");
        assert!(log.contains("the client has shown no certificate"), "{log}");
    }
}

/// SEED-LSN-15: asked, but not forced.
#[test]
fn a_certificate_may_be_optional() {
    let site = Site::new();
    let mut settings = site.verifying("ssl", "t");
    settings.retain(|setting| !setting.contains("fail_if_no_peer_cert"));
    settings.push("listener.ssl.t.peer_cert_as_username=cn".to_owned());
    let broker = start(&[], &[settings]);
    let to = address(&broker, "t");
    let mut command = mosquitto("mosquitto_sub", to, "5", &site);
    let client_id = id();
    command.args(["-t", "t", "-i", &client_id, "-u", "ann", "-W", "20"]);
    let subscriber = Subscriber::start(&mut command);
    let shown = broker.cli(&["clients", "show", &client_id]);
    assert!(shown.contains("ann"), "{shown}");
    drop(subscriber);
    let expired = site.authority.client_valid("meter", 7, (2020, 2021));
    let mut command = with_certificate("mosquitto_pub", to, &site, "bad", &expired);
    fails(command.args(["-t", "t", "-m", "x"]));
    expect_ended(&broker, "t", "tls_certificate_expired", 1);
}

/// More handshakes at once than a tick has time for: all come in, and who is in is served meanwhile.
#[test]
fn a_crowd_of_handshakes() {
    const CROWD: usize = 200;
    let site = Site::new();
    for shards in ["1", "8"] {
        let broker = start(&["--shards", shards], &[site.listener("ssl", "t")]);
        let to = address(&broker, "t");
        let mut plain = broker.client(V311);
        let mut crowd: Vec<TlsStream> =
            (0..CROWD).map(|_| tls::begin(tcp(to), &site.authority.pem)).collect();
        for stream in &mut crowd {
            // The ClientHello only: all of them wait for the broker at once.
            stream.conn.write_tls(&mut stream.sock).unwrap();
        }
        plain.expect_alive();
        for stream in &mut crowd {
            stream.write_all(&Connect::new(V311, &id()).encode()).unwrap();
        }
        plain.expect_alive();
        for stream in &mut crowd {
            let mut ack = [0; 4];
            stream.read_exact(&mut ack).unwrap();
            assert_eq!(ack, [0x20, 2, 0, 0]);
        }
        // With all of them there, one message reaches each.
        for stream in &mut crowd {
            let subscribe = Subscribe::new(1).filter("all", 0);
            stream.write_all(&subscribe.encode(V311)).unwrap();
            let mut ack = [0; 5];
            stream.read_exact(&mut ack).unwrap();
        }
        let message = Publish::new("all", "x".repeat(20_000));
        plain.send_publish(&message);
        let expected = message.encode(V311);
        for stream in &mut crowd {
            let mut got = vec![0; expected.len()];
            stream.read_exact(&mut got).unwrap();
            assert!(got == expected);
        }
    }
}

/// What MQTT has to say last is said before TLS and WebSocket end in good order.
#[test]
fn the_last_word_is_sent() {
    let site = Site::new();
    let mut broker = start(&[], &[site.listener("ssl", "t"), site.listener("wss", "w")]);
    let addresses = ["t", "w"].map(|name| address(&broker, name));
    let open = |number: usize| tls::begin(tcp(addresses[number]), &site.authority.pem);
    // A CONNECT that is refused: an empty client id without a clean session.
    let refused = Connect::new(V311, "").clean(false).encode();
    let (mut stream, mut all) = (open(0), Vec::new());
    stream.write_all(&refused).unwrap();
    stream.read_to_end(&mut all).expect("TLS ends by close_notify");
    assert_eq!(all, [0x20, 2, 0, 2]);
    // The broker ends.
    let (mut stream, mut all) = (open(0), Vec::new());
    stream.write_all(&Connect::new(V5, &id()).encode()).unwrap();
    let mut socket = WebSocket::connect(Box::new(open(1)), &Connect::new(V5, &id()));
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    broker.terminate();
    stream.read_to_end(&mut all).expect("TLS ends by close_notify");
    assert!(all.windows(3).any(|bytes| bytes[0] == 0xe0 && bytes[2] == 0x8b), "{all:02x?}");
    assert!(matches!(socket.packet(), Packet::Disconnect(it) if it.reason == 0x8b));
    assert!(socket.expect_close().is_some());
    assert!(broker.wait_end(WAIT).success());
}

/// Runs `openssl s_client` for a moment.
fn s_client(to: SocketAddr, site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string(), "-CAfile", &site.folder.path("ca.pem")]);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl runs: run scripts/install-test-deps");
    let mut input = child.stdin.take().unwrap();
    // Tickets of TLS 1.3 come after the handshake.
    thread::sleep(Duration::from_millis(500));
    let _ = input.write_all(b"Q\n");
    child.wait_with_output().unwrap()
}

/// SEED-LSN-15: TLS 1.3 and 1.2, sessions that are resumed, also on another shard; ALPN; TLS 1.1 is refused.
#[test]
fn seed_lsn_15_versions_and_resumption() {
    let site = Site::new();
    let mut without = site.listener("ssl", "without");
    without.push("listener.ssl.without.reuse_sessions=off".to_owned());
    let mut only = site.listener("ssl", "only");
    only.push("listener.ssl.only.tls_versions=tlsv1.3".to_owned());
    let settings = [site.listener("ssl", "t"), without, only];
    let broker = start(&["--shards", "8"], &settings);
    let to = address(&broker, "t");
    let session = site.folder.path("session");
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let first = s_client(to, &site, &[version, "-alpn", "mqtt", "-sess_out", &session]);
        let text = String::from_utf8_lossy(&first.stdout);
        assert!(text.contains(&format!("New, {name}")), "{text}");
        assert!(text.contains("ALPN protocol: mqtt"), "{text}");
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        for _ in 0..4 {
            let again = s_client(to, &site, &[version, "-sess_in", &session]);
            let text = String::from_utf8_lossy(&again.stdout);
            assert!(text.contains(&format!("Reused, {name}")), "{text}");
        }
    }
    let without = address(&broker, "without");
    let _ = fs::remove_file(&session);
    let first = s_client(without, &site, &["-tls1_3", "-sess_out", &session]);
    assert!(String::from_utf8_lossy(&first.stdout).contains("New, TLSv1.3"));
    assert!(!fs::exists(&session).unwrap(), "no ticket may come");
    // TLS 1.1, which openssl itself only speaks when told that all is allowed.
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    assert!(!s_client(to, &site, &old).status.success());
    expect_ended(&broker, "t", "tls_version", 1);
    let only = address(&broker, "only");
    assert!(!s_client(only, &site, &["-tls1_2"]).status.success());
    expect_ended(&broker, "only", "tls_version", 1);
    // A protocol that is not ours.
    assert!(!s_client(to, &site, &["-alpn", "h2"]).status.success());
    expect_ended(&broker, "t", "tls_alpn", 1);
}

/// SEED-LSN-15: `sni.N`: each client is shown the certificate of the name it asks for, an exact name before a wildcard, and the
/// listener's own if none fits; on wss too.
#[test]
fn seed_lsn_15_certificates_by_name() {
    let site = Site::new();
    let mut settings = Vec::new();
    for (kind, listener) in [("ssl", "t"), ("wss", "w")] {
        settings.extend(site.listener(kind, listener));
        for (number, hosts, names) in [
            (1, Some("*.example.com"), &["*.example.com"][..]),
            (2, None, &["a.example.com", "other.net"]),
            (10, Some("third.org,*.third.org"), &["third.org", "*.third.org"]),
        ] {
            let (certificate, key) = site.authority.server_for(names);
            let key_of = |part| format!("listener.{kind}.{listener}.sni.{number}.{part}");
            let certificate = site.folder.write(&format!("{number}.pem"), certificate);
            let key = site.folder.write(&format!("{number}.key"), key);
            settings.push(format!("{}={certificate}", key_of("certfile")));
            settings.push(format!("{}={key}", key_of("keyfile")));
            settings.extend(hosts.map(|hosts| format!("{}={hosts}", key_of("host"))));
        }
    }
    let broker = start(&["--shards", "2"], &[settings]);
    for listener in ["t", "w"] {
        let to = address(&broker, listener);
        for version in ["-tls1_3", "-tls1_2"] {
            for (asked, shown) in [
                ("a.example.com", "a.example.com"),
                ("A.Example.Com", "a.example.com"),
                ("other.net", "a.example.com"),
                ("b.example.com", "*.example.com"),
                ("third.org", "third.org"),
                ("x.third.org", "third.org"),
                ("x.y.third.org", "localhost"),
                ("example.com", "localhost"),
                ("localhost", "localhost"),
            ] {
                let output = s_client(to, &site, &[version, "-servername", asked]);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let certificate = text.split("-----BEGIN CERTIFICATE-----").nth(1).expect(&text);
                let pem = format!("-----BEGIN CERTIFICATE-----{certificate}");
                let file = site.folder.write("shown.pem", &pem);
                let mut command = Command::new("openssl");
                command.args(["x509", "-noout", "-ext", "subjectAltName", "-in", &file]);
                let names = String::from_utf8_lossy(&run(&mut command).stdout).into_owned();
                assert!(names.contains(&format!("DNS:{shown}")), "{asked}: {names}");
            }
        }
        // Who asks for no name.
        let output = s_client(to, &site, &["-noservername"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Verify return code: 0 (ok)"));
    }
    let shown = broker.cli(&["config", "show"]);
    assert!(shown.contains("listener.ssl.t.sni.10.host = third.org,*.third.org"), "{shown}");
}

/// A certificate that is renewed is shown after a reload; a bad one changes nothing, and the broker says so (SEED-LSN-15).
#[test]
fn certificates_are_reloaded() {
    let site = Site::new();
    let broker = start(&[], &[site.listener("ssl", "t")]);
    let to = address(&broker, "t");
    let shown = || {
        let output = s_client(to, &site, &["-showcerts"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        text.split("-----").nth(2).expect("a certificate").to_owned()
    };
    let first = shown();
    let (certificate, key) = site.authority.server();
    let _ = site.folder.write("server.pem", certificate);
    // The certificate without its key: neither by the command nor by SIGHUP.
    let output = broker.command(&["listeners", "reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("the private key does not belong to the first certificate"), "{said}");
    assert!(said.contains("every listener keeps the certificate it has"), "{said}");
    let pid = broker.pid().to_string();
    run(Command::new("kill").args(["-HUP", &pid]));
    let end = std::time::Instant::now() + WAIT;
    while !broker.output().contains("every listener keeps the certificate it has") {
        assert!(std::time::Instant::now() < end, "{}", broker.output());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(shown(), first);
    let _ = site.folder.write("server.key", key);
    let _ = broker.cli(&["listeners", "reload"]);
    assert_ne!(shown(), first);
}

/// What the broker says to these settings at start, and to `console --check`: it must be one and the same line and exit code 1.
#[track_caller]
fn refusal(settings: &[String]) -> String {
    let folder = Folder::new();
    let lines: String = settings.iter().map(|line| format!("{line}\n")).collect();
    let file = folder.write("my.conf", lines);
    let said = [&["console", "--check"][..], &["console"]].map(|words| {
        let mut command = Command::new(binary());
        command.args(words).args(["--config", &file, "--data"]).arg(folder.folder());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?} {settings:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    });
    for text in &said {
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("ringmq: "), "{text}");
    }
    said[0].clone()
}

/// Bad certificates and keys: one line with what is wrong and what to do.
#[test]
fn bad_files_are_one_line() {
    let site = Site::new();
    let (_, other_key) = site.authority.server();
    let other = site.folder.write("other.key", other_key);
    let garbage = site.folder.write("garbage", "-----BEGIN CERTIFICATE-----\n!!\n");
    let empty = site.folder.write("empty", "");
    let good = site.listener("ssl", "t");
    let with = |option: &str, value: &str| {
        let key = format!("listener.ssl.t.{option}=");
        let mut settings = good.clone();
        settings.retain(|setting| !setting.starts_with(&key));
        settings.push(format!("{key}{value}"));
        refusal(&settings)
    };
    for (option, value, what) in [
        ("certfile", site.folder.path("none.pem"), "cannot be read"),
        ("keyfile", site.folder.path("none.key"), "cannot be read"),
        ("keyfile", other, "the private key does not belong to the first certificate"),
        ("certfile", garbage, "is not well-formed PEM"),
        ("certfile", empty.clone(), "has no certificate in it"),
        ("keyfile", site.folder.path("server.pem"), "has no private key in it"),
        ("keyfile", empty, "has no private key in it"),
        ("verify", "verify_peer".to_owned(), "give cacertfile too"),
        ("tls_versions", "tlsv1.1".to_owned(), "none of the versions"),
    ] {
        let said = with(option, &value);
        assert!(said.contains("listener.ssl.t") && said.contains(what), "{said}");
    }
}

/// SEED-LSN-16: the whole certificate, in base64, as the user name.
#[test]
fn seed_lsn_16_the_whole_certificate() {
    let site = Site::new();
    let mut settings = site.verifying("ssl", "t");
    settings.push("listener.ssl.t.peer_cert_as_username=crt".to_owned());
    let broker = start(&[], &[settings]);
    let (client_id, pair) = (id(), site.authority.client("meter 7", 7));
    let mut command =
        with_certificate("mosquitto_sub", address(&broker, "t"), &site, "good", &pair);
    let subscriber = Subscriber::start(command.args(["-t", "t", "-i", &client_id, "-W", "20"]));
    let shown = broker.cli(&["clients", "show", &client_id]);
    let lines = pair.0.lines().filter(|line| !line.starts_with("-----"));
    assert!(shown.contains(&lines.collect::<String>()), "{shown}");
    drop(subscriber);
}
