//! Files of the store that somebody, or a disk, has changed: it is said which, before anybody is served, and nothing is lost silently
//! (SEED-SESS-01).

use std::fs;
use std::path::{Path, PathBuf};

use ringmq_tests::broker::{new_folder, refused};
use ringmq_tests::{Broker, Connect, Property, Publish, V5, V311, id, topic, wait_until};
use store::engine::{Engine, FjallEngine};

/// The files below a folder, by their path.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Writes what is in the journal to tables, as it comes to be in time.
fn to_tables(data: &Path) {
    let engine = FjallEngine::open_folder(&data.join("store")).unwrap();
    for keyspace in store::Keyspace::ALL {
        engine.compaction(keyspace)().unwrap();
    }
}

/// SEED-SESS-01: each file, but for tables, of a stopped broker with one byte flipped, cut off, or gone: it starts and has all, or one line says what is
/// wrong, where, and what to do. Never a panic.
#[test]
fn a_changed_file_is_named_at_the_start() {
    let data = new_folder();
    let (name, session) = (topic(), Connect::new(V311, &id()).clean(false));
    let broker = Broker::start_in(&data, &[]);
    broker.connect(&session).subscribe(&name, 1);
    let mut publisher = broker.client(V5);
    publisher.publish(&name, "queued", 1);
    publisher.publish_retained(&format!("{name}/kept"), "retained", 1);
    broker.stop_and_keep();
    to_tables(&data);
    drop(Broker::start_in(&data, &[]).stop_and_keep());
    let mut refusals = 0;
    // What holds nobody's data is made anew.
    let aids = ["complete", "data/lock"].map(|name| data.join("store").join(name));
    // A table that others have replaced may still be there; nothing of it is missed.
    let is_table = |path: &Path| path.parent().is_some_and(|folder| folder.ends_with("tables"));
    // So may the list of tables before the last.
    let version = |path: &Path| path.file_name()?.to_str()?.strip_prefix('v')?.parse::<u64>().ok();
    let is_replaced = |path: &PathBuf| {
        let beside = files(path.parent().expect("it is in a folder"));
        version(path).is_some_and(|of| beside.iter().any(|it| version(it) > Some(of)))
    };
    let needed = |path: &PathBuf| !aids.contains(path) && !is_table(path) && !is_replaced(path);
    for path in files(&data.join("store")).into_iter().filter(needed) {
        let whole = fs::read(&path).unwrap();
        let used = whole.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let mut flipped = whole.clone();
        if let Some(byte) = flipped.get_mut(used / 2) {
            *byte ^= 0x10;
        }
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        for harm in [Some(&flipped[..]), Some(&whole[..used / 2]), None] {
            // A table of nothing, or a journal that is empty: no harm done.
            if harm == Some(&whole[..]) {
                continue;
            }
            match harm {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let file = path.strip_prefix(&data).unwrap().display().to_string();
            let (code, output) = refused(&data, &[]);
            assert_eq!(code, Some(1), "{file}: {output}");
            let lines: Vec<&str> =
                output.lines().filter(|line| !line.starts_with("starting ")).collect();
            assert_eq!(lines.len(), 1, "{file}: {output}");
            let is_named = lines[0].contains(&file) || is_journal && lines[0].contains(".jnl");
            assert!(is_named && lines[0].contains("put back a backup"), "{file}: {output}");
            refusals += 1;
            fs::write(&path, &whole).unwrap();
        }
    }
    assert!(refusals > 30, "{refusals}");
    for path in &aids {
        fs::remove_file(path).unwrap();
        Broker::start_in(&data, &[]).stop_and_keep();
        fs::write(path, "something else").unwrap();
        Broker::start_in(&data, &[]).stop_and_keep();
    }
    let broker = Broker::start_in(&data, &[]);
    let (mut client, ack) = broker.connect_ack(&session);
    assert!(ack.session_present);
    client.expect_message(&name, "queued");
    let mut other = broker.client(V5);
    other.subscribe(&format!("{name}/#"), 0);
    other.expect_message(&format!("{name}/kept"), "retained");
}

/// SEED-SESS-01: what becomes unreadable while the broker runs is an alarm, and the session is refused, not begun anew.
#[test]
fn a_session_that_becomes_unreadable_is_refused_and_there_when_it_is_mended() {
    let data = new_folder();
    let (name, session) = (topic(), Connect::new(V5, &id()).clean(false));
    let session = session.property(Property::SessionExpiry(300));
    let many = 3000;
    let arguments = ["mqtt.mqueue.max_length=0"];
    let broker = Broker::start_in(&data, &arguments);
    broker.connect(&session).subscribe(&name, 1);
    let mut publisher = broker.client(V311);
    for number in 0..many {
        let packet_id = publisher.packet_id();
        publisher.send_publish(&Publish::new(&name, payload(number)).qos(1, packet_id));
        publisher.expect_puback(packet_id);
    }
    broker.stop_and_keep();
    to_tables(&data);
    let broker = Broker::start_in(&data, &arguments);
    let table = files(&data.join("store/data/keyspaces"))
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let whole = fs::read(&table).unwrap();
    let mut changed = whole.clone();
    // The front was read at the start and may still be known; the rest is more than the store keeps in memory.
    changed[whole.len() / 3..whole.len() * 2 / 3]
        .iter_mut()
        .step_by(512)
        .for_each(|byte| *byte ^= 1);
    write_in_place(&table, &changed);
    for _ in 0..2 {
        assert_eq!(broker.try_connect(&session).1.code, 0x88);
    }
    let alarms = broker.cli(&["alarms"]);
    assert!(alarms.contains("Alarm(store_damaged") && alarms.contains("has changed"), "{alarms}");
    assert!(broker.cli(&["status"]).contains("store_damaged"));
    // Others are served.
    broker.client(V5).expect_alive();
    write_in_place(&table, &whole);
    wait_until("it is read again", || broker.try_connect(&session).1.code == 0);
    let (mut client, ack) = broker.connect_ack(&session);
    assert!(ack.session_present);
    for number in 0..many {
        assert_eq!(client.message().text(), payload(number));
    }
}

/// Sixteen kilobytes that cannot be made smaller.
fn payload(number: u32) -> String {
    let mut state = u64::from(number) + 1;
    let words = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    });
    words.take(2048).collect()
}

/// As a disk changes it: the broker has it open.
fn write_in_place(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all(bytes).unwrap();
}
