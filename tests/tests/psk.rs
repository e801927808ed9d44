//! TLS with pre-shared keys, end to end: mosquitto's clients and `openssl s_client` (SEED-LSN-17, SEED-PLUG-28).

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use ringmq_tests::certificates::{Folder, Site};
use ringmq_tests::commands::{Subscriber, run};
use ringmq_tests::listening::{address, ended, expect_ended, start};
use ringmq_tests::{Broker, V5, id, topic};

const KEY: &str = "000102030405060708090a0b0c0d0e0f";
const OTHER_KEY: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";

/// A mosquitto client with an identity and a key.
fn mosquitto(name: &str, to: SocketAddr, identity: &str, key: &str) -> Command {
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &to.port().to_string(), "-V", "5"]);
    command.args(["--psk", key, "--psk-identity", identity]);
    command
}

/// `openssl s_client` for a moment.
fn s_client(to: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string()]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl runs: run scripts/install-test-deps");
    let mut input = child.stdin.take().unwrap();
    thread::sleep(Duration::from_millis(300));
    let _ = input.write_all(b"Q\n");
    child.wait_with_output().unwrap()
}

#[track_caller]
fn fails(command: &mut Command) {
    let output = command.args(["-t", "t", "-m", "x", "-q", "1"]).output().unwrap();
    assert!(!output.status.success(), "{command:?} was let in");
}

/// A broker with a listener `t` that has keys only, and `both` that has a certificate too.
fn broker(shards: &str, site: &Site, keys: &str) -> Broker {
    let file = site.folder.write("keys", keys);
    let mut both = site.listener("ssl", "both");
    both.push(format!("listener.ssl.both.psk_file={file}"));
    let alone = vec![
        "listener.ssl.t=127.0.0.1:0".to_owned(),
        format!("listener.ssl.t.psk_file={file}"),
        "listener.ssl.t.psk_identity_as_username=on".to_owned(),
        "listener.ssl.t.mountpoint=%u/".to_owned(),
    ];
    start(&["--shards", shards, "log.console.level=debug"], &[alone, both])
}

/// SEED-LSN-17: mosquitto's clients, on 1 and 8 shards: connections move with their TLS. The identity is the user name.
#[test]
fn seed_lsn_17_mosquitto_with_a_key() {
    let site = Site::new();
    for shards in ["1", "8"] {
        let broker = broker(shards, &site, &format!("meter 7:{KEY}\nurn:8:{OTHER_KEY}\n"));
        let to = address(&broker, "t");
        let mut watcher = broker.client(V5);
        watcher.subscribe("+/#", 0);
        for (identity, key) in [("meter 7", KEY), ("urn:8", OTHER_KEY)] {
            let (name, client_id) = (topic(), id());
            let mut command = mosquitto("mosquitto_sub", to, identity, key);
            command
                .args(["-t", &name, "-i", &client_id, "-u", "other", "-W", "20", "-F", "got %p"]);
            let mut subscriber = Subscriber::start(&mut command);
            let shown = broker.cli(&["clients", "show", &client_id]);
            assert!(shown.contains(identity) && !shown.contains("other"), "{shown}");
            for version in ["tlsv1.2", "tlsv1.3"] {
                let mut command = mosquitto("mosquitto_pub", to, identity, key);
                command.args(["--tls-version", version, "-t", &name, "-m", version, "-q", "2"]);
                run(&mut command);
                subscriber.wait_for(&format!("got {version}"));
                watcher.expect_message(&format!("{identity}/{name}"), version);
            }
        }
    }
}

/// Both versions by `openssl s_client`; without a key only where there is a certificate.
#[test]
fn openssl_with_and_without_a_key() {
    let site = Site::new();
    let broker = broker("2", &site, &format!("meter 7:{KEY}\n"));
    let with_key = ["-psk", KEY, "-psk_identity", "meter 7"];
    for listener in ["t", "both"] {
        let to = address(&broker, listener);
        for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
            let cipher = ["-cipher", "PSK"];
            let output = s_client(to, &[&with_key[..], &cipher, &[version]].concat());
            let text = String::from_utf8_lossy(&output.stdout);
            // A session of TLS 1.3 with a key of one's own counts as resumed.
            assert!(text.contains(&format!("{name}, Cipher is")), "{text}");
            assert!(text.contains("no peer certificate available"), "{text}");
            let ca = site.folder.path("ca.pem");
            let output = s_client(to, &[version, "-CAfile", &ca]);
            let text = String::from_utf8_lossy(&output.stdout);
            if listener == "both" {
                assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
            } else {
                assert!(!output.status.success(), "{text}");
            }
        }
    }
    expect_ended(&broker, "t", "tls_no_common_cipher", 2);
    let old = ["-tls1_1", "-cipher", "PSK:@SECLEVEL=0"];
    let output = s_client(address(&broker, "t"), &[&with_key[..], &old].concat());
    assert!(!output.status.success());
    expect_ended(&broker, "t", "tls_version", 1);
}

/// A wrong key and an unknown identity are refused, counted, and in the log; who is in goes on.
#[test]
fn wrong_keys_and_unknown_identities_are_refused() {
    let site = Site::new();
    let broker = broker("2", &site, &format!("meter 7:{KEY}\n"));
    let mut watcher = broker.client(V5);
    for listener in ["t", "both"] {
        let to = address(&broker, listener);
        for version in ["tlsv1.2", "tlsv1.3"] {
            for (identity, key, reason) in [
                ("meter 7", OTHER_KEY, "tls_psk_wrong_key"),
                ("meter 8", KEY, "tls_psk_unknown_identity"),
            ] {
                let before = ended(&broker, listener, reason);
                let mut command = mosquitto("mosquitto_pub", to, identity, key);
                fails(command.args(["--tls-version", version]));
                expect_ended(&broker, listener, reason, before + 1);
            }
        }
    }
    let log = broker.output();
    assert!(log.contains("\"meter 8\", which is not in psk_file"), "{log}");
    assert!(log.contains("another pre-shared key for \"meter 7\" than psk_file"), "{log}");
    assert!(!log.contains(KEY), "keys are not logged");
    watcher.expect_alive();
}

/// SEED-PLUG-28: the file is read again while the broker runs; a bad one changes nothing and is told.
#[test]
fn seed_plug_28_keys_are_reloaded() {
    let site = Site::new();
    let broker = broker("2", &site, &format!("meter 7:{KEY}\n"));
    let to = address(&broker, "t");
    let file = site.folder.path("keys");
    let publish = || {
        let mut command = mosquitto("mosquitto_pub", to, "meter 8", OTHER_KEY);
        command.args(["-t", "t", "-m", "x", "-q", "1"]).output().unwrap().status.success()
    };
    assert!(!publish());
    let mut command = mosquitto("mosquitto_sub", to, "meter 7", KEY);
    let mut open = Subscriber::start(command.args(["-t", "t", "-W", "20", "-F", "got %p"]));
    fs::write(&file, format!("meter 7:{KEY}\nmeter 8:{OTHER_KEY}\nmeter 9\n")).unwrap();
    let output = broker.command(&["listeners", "reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("keys:3: there is no ':' in it; a line is identity:key"), "{said}");
    assert!(said.contains("every listener keeps"), "{said}");
    assert!(!publish());
    fs::write(&file, format!("meter 8:{OTHER_KEY}\n")).unwrap();
    let _ = broker.cli(&["listeners", "reload"]);
    assert!(publish());
    // Who is in stays in, but does not come back.
    let mut command = Command::new("mosquitto_pub");
    let port = broker.address().port().to_string();
    run(command.args(["-p", &port, "-t", "meter 7/t", "-m", "still here", "-q", "1"]));
    open.wait_for("got still here");
    fails(&mut mosquitto("mosquitto_pub", to, "meter 7", KEY));
}

/// What is wrong with the settings is one line.
#[test]
fn bad_settings_are_one_line() {
    let folder = Folder::new();
    let site = Site::new();
    let keys = folder.write("keys", format!("a:{KEY}\n"));
    let short = folder.write("bad", "a:00\nb:0\n");
    let (missing, ca) = (folder.path("none"), site.folder.path("ca.pem"));
    let psk = |file: &str| format!("listener.ssl.t.psk_file = {file}\n");
    for (lines, what) in [
        (psk(&missing), "none: cannot be read"),
        (psk(&short), "bad:2: the key is no even number of hexadecimal digits; a line is"),
        (
            psk(&keys) + "listener.ssl.t.verify = verify_peer\nlistener.ssl.t.cacertfile = " + &ca,
            "it cannot be together with verify = verify_peer: give the other",
        ),
        (psk(&keys) + "listener.ssl.t.certfile = " + &ca, "needs a keyfile"),
        (String::new(), "needs a certfile"),
    ] {
        let lines = format!("listener.ssl.t = 127.0.0.1:0\n{lines}\n");
        let file = folder.write("my.conf", &lines);
        let mut command = Command::new(ringmq_tests::broker::binary());
        command.args(["console", "--check", "--config", &file, "--data"]).arg(folder.folder());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{lines} {said}");
        let first = said.lines().find(|line| line.contains(what));
        assert!(first.is_some_and(|line| line.contains("my.conf:")), "{lines} {said}");
    }
}
