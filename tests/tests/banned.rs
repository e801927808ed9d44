//! Who may not connect: bans by hand, and for flapping (SEED-AUTH-19).

use std::fs;
use std::thread;
use std::time::Duration;

use ringmq_tests::broker::{new_folder, refused};
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

/// SEED-AUTH-19: what a command has answered outlives a kill right after, and the number of shards.
#[test]
fn bans_outlive_a_kill() {
    for sync in ["store.sync=always", "store.sync=60s"] {
        let broker = Broker::start(&[sync, "--shards", "2"]);
        let folder = broker.folder().to_path_buf();
        let _ = broker.cli(&["banned", "add", "clientid", "gone", "--by", "ann"]);
        let _ = broker.cli(&["banned", "add", "clientid", "short", "--for", "2s"]);
        let _ = broker.cli(&["banned", "del", "clientid", "gone"]);
        let _ = broker.cli(&["banned", "add", "username", "mallory", "--for", "1h"]);
        let listed =
            broker.cli(&["banned", "add", "clientid", "bad", "--reason", "why", "--by", "ann"]);
        assert_eq!(listed, "ok\n");
        let listed = broker.cli(&["banned", "list"]);
        broker.kill();
        let broker = Broker::start_in(&folder, &[sync, "--shards", "3"]);
        assert!(listed.contains("reason=why") && listed.lines().count() == 3, "{listed}");
        for line in listed.lines().filter(|line| !line.contains("short")) {
            assert!(broker.cli(&["banned", "list"]).contains(line), "{line}");
        }
        assert_eq!(code(&broker, &Connect::new(V5, "bad")), 0x8A);
        assert_eq!(code(&broker, &Connect::new(V5, "gone")), 0);
        thread::sleep(Duration::from_millis(2100));
        assert_eq!(code(&broker, &Connect::new(V5, "short")), 0);
        assert!(!folder.join("banned.json").exists());
    }
}

/// SEED-AUTH-19: a list of before there was a store is taken over once; without a store it stays a file.
#[test]
fn a_file_of_bans_is_taken_over_by_the_store() {
    let folder = new_folder();
    let file = folder.join("banned.json");
    let off = ["store.enable=off"];
    let broker = Broker::start_in(&folder, &off);
    let _ = broker.cli(&["banned", "add", "clientid", "bad", "--by", "ann"]);
    broker.kill();
    let broker = Broker::start_in(&folder, &off);
    assert_eq!(code(&broker, &Connect::new(V5, "bad")), 0x8A);
    broker.stop_and_keep();
    assert!(file.exists());
    let broker = Broker::start_in(&folder, &[]);
    assert_eq!(code(&broker, &Connect::new(V5, "bad")), 0x8A);
    assert!(broker.cli(&["banned", "list"]).contains("Banned(clientid, bad, reason=, by=ann"));
    assert!(!file.exists());
    // A backup has them too.
    let saved = new_folder().join("saved");
    let _ = broker.cli(&["store", "backup", saved.to_str().unwrap()]);
    let _ = broker.cli(&["banned", "del", "clientid", "bad"]);
    broker.kill();
    let broker = Broker::start_in(&folder, &[]);
    assert_eq!(broker.cli(&["banned", "list"]), "");
    let _ = broker.cli(&["store", "restore", saved.to_str().unwrap()]);
    broker.stop_and_keep();
    let broker = Broker::start_in(&folder, &[]);
    assert_eq!(code(&broker, &Connect::new(V5, "bad")), 0x8A);
    let _ = fs::remove_dir_all(saved.parent().unwrap());
}

/// SEED-AUTH-19: a file that cannot be read stops the start with one line.
#[test]
fn a_broken_file_of_bans_is_told() {
    let folder = new_folder();
    let file = folder.join("banned.json");
    fs::write(&file, "rubbish\n").unwrap();
    let (status, text) = refused(&folder, &[]);
    assert_eq!(status, Some(1), "{text}");
    let start = format!("ringmq: {}:1: this line is no ban: ", file.display());
    assert!(text.lines().last().unwrap().starts_with(&start), "{text}");
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
