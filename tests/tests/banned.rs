//! Who may not connect: bans by hand, and for flapping (SEED-AUTH-19).

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ringmq_tests::{Broker, Connect, V5, V31, V311, id};

/// What CONNACK says to a client.
fn code(broker: &Broker, connect: &Connect) -> u8 {
    let (mut client, ack) = broker.try_connect(connect);
    if ack.code != 0 {
        client.expect_closed();
    }
    ack.code
}

/// SEED-AUTH-19: by client id, user name and address; 0x8A for MQTT 5, 5 before.
#[test]
fn seed_auth_19_bans_by_hand() {
    let broker = Broker::start(&[]);
    let by_user = |version| Connect::new(version, &id()).username("mallory");
    let mut before = broker.connect(&Connect::new(V5, "bad"));
    assert_eq!(broker.cli(&["banned", "list"]), "");
    let add = ["banned", "add", "clientid", "bad", "--reason", "sends rubbish", "--by", "ann"];
    assert_eq!(broker.cli(&add), "ok\n");
    let _ = broker.cli(&["banned", "add", "username", "mallory", "--for", "1h"]);
    before.expect_alive(); // who is connected stays
    assert_eq!(code(&broker, &Connect::new(V5, "bad")), 0x8A);
    before.expect_alive(); // and is not taken over by who is refused
    assert_eq!(code(&broker, &Connect::new(V311, "bad")), 5);
    assert_eq!(code(&broker, &Connect::new(V31, "bad")), 5);
    assert_eq!(code(&broker, &by_user(V5)), 0x8A);
    assert_eq!(code(&broker, &by_user(V311)), 5);
    assert_eq!(code(&broker, &Connect::new(V5, "badly").username("mallor")), 0);
    let listed = broker.cli(&["banned", "list"]);
    let mut lines = listed.lines();
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("Banned(clientid, bad, reason=sends rubbish, by=ann, at=20")
            && first.ends_with(", until=never)"),
        "{listed}"
    );
    assert!(lines.next().unwrap().starts_with("Banned(username, mallory, reason=, "), "{listed}");
    let counts = broker.cli(&["listeners"]);
    assert!(counts.contains("{banned,5}"), "{counts}");
    assert_eq!(broker.cli(&["banned", "del", "clientid", "bad"]), "ok\n");
    assert_eq!(code(&broker, &Connect::new(V5, "bad")), 0);
    let output = broker.command(&["banned", "del", "clientid", "bad"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"Not Found.\n"[..]));
    // The address of everybody here.
    let _ = broker.cli(&["banned", "add", "peerhost", "127.0.0.1", "--for", "1s"]);
    assert_eq!(code(&broker, &Connect::new(V5, &id())), 0x8A);
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(code(&broker, &Connect::new(V5, &id())), 0);
    let json = broker.cli(&["banned", "list", "--json"]);
    assert_eq!(json.lines().count(), 1, "{json}");
    for wrong in [&["banned", "add", "peerhost", "nowhere"][..], &["banned", "add", "clientid", ""]]
    {
        assert_eq!(broker.command(wrong).status.code(), Some(1), "{wrong:?}");
    }
    for wrong in [
        &["banned", "add", "client", "x"][..],
        &["banned", "add", "clientid", "x", "--for", "soon"],
        &["banned"],
    ] {
        assert_eq!(broker.command(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// SEED-AUTH-19: the list outlives the broker; one that cannot be read stops the start with one line.
#[test]
fn bans_are_kept() {
    let folder: PathBuf = std::env::temp_dir().join(format!("ringmq-banned-{}", id()));
    let file = folder.join("banned.json");
    fs::create_dir_all(&folder).unwrap();
    let kept = {
        let broker = Broker::start_in(&folder, &[]);
        let _ = broker.cli(&["banned", "add", "clientid", "bad", "--by", "ann"]);
        fs::read(&file).unwrap()
    };
    fs::create_dir_all(&folder).unwrap();
    fs::write(&file, &kept).unwrap();
    {
        let broker = Broker::start_in(&folder, &[]);
        assert_eq!(code(&broker, &Connect::new(V5, "bad")), 0x8A);
        assert!(broker.cli(&["banned", "list"]).contains("Banned(clientid, bad, reason=, by=ann"));
    }
    fs::create_dir_all(&folder).unwrap();
    fs::write(&file, "rubbish\n").unwrap();
    let output = std::process::Command::new(ringmq_tests::broker::binary())
        .args(["console", "--set", "listener.tcp.external=127.0.0.1:0", "--data"])
        .arg(&folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let start = format!("ringmq: {}:1: this line is no ban: ", file.display());
    assert!(text.starts_with(&start) && text.lines().count() == 1, "{text}");
    let _ = fs::remove_dir_all(&folder);
}

/// SEED-AUTH-19: a client that comes and goes too often is banned for a time; others are not.
#[test]
fn seed_auth_19_flapping() {
    let broker = Broker::start(&[
        "flapping_detect.enable=on",
        "flapping_detect.max_count=4",
        "flapping_detect.window_time=30s",
        "flapping_detect.ban_time=2s",
    ]);
    for _ in 0..4 {
        broker.connect(&Connect::new(V311, "restless")).cut_and_wait();
    }
    assert_eq!(code(&broker, &Connect::new(V5, "restless")), 0x8A);
    assert_eq!(code(&broker, &Connect::new(V5, "calm")), 0);
    let listed = broker.cli(&["banned", "list"]);
    let start = "Banned(clientid, restless, reason=4 disconnects in 30 s, by=flapping detector, ";
    assert!(listed.starts_with(start) && listed.lines().count() == 1, "{listed}");
    assert!(!broker.folder().join("banned.json").exists(), "it does not outlive the broker");
    assert_eq!(broker.cli(&["banned", "del", "clientid", "restless"]), "ok\n");
    for _ in 0..4 {
        broker.connect(&Connect::new(V5, "restless")).disconnect();
    }
    assert_eq!(code(&broker, &Connect::new(V5, "restless")), 0x8A);
    thread::sleep(Duration::from_millis(3000));
    assert_eq!(code(&broker, &Connect::new(V5, "restless")), 0);
}
