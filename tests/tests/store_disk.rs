//! A disk that is full, or may not be written (SEED-SESS-16): who publishes is told, nothing acknowledged is lost, and it
//! goes on when there is room.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ringmq_tests::broker::{new_folder, refused};
use ringmq_tests::client::Event;
use ringmq_tests::packet::ack;
use ringmq_tests::{
    Broker, Client, Connect, Packet, Property, Publish, QUIET, V5, V311, id, topic,
};

/// Size of the small disk.
const DISK_MB: usize = 96;
/// How long a store may take to see that it cannot write, or that it can again.
const SOON: Duration = Duration::from_secs(20);

/// A small file system in memory, at the folder of the store.
struct Disk(PathBuf);

impl Disk {
    /// `None`, with a line that says so, where file systems cannot be mounted.
    fn mount(data: &Path, options: &str) -> Option<Disk> {
        let folder = data.join("store");
        fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Disk(folder));
        }
        eprintln!("skipped: a tmpfs cannot be mounted here ({mounted:?})");
        fs::remove_dir_all(data).unwrap();
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            let zeros = vec![0; size];
            while file.write_all(&zeros).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount {}", self.0.display());
    }
}

fn numbered(number: u32) -> String {
    format!("{number:05}{}", "x".repeat(4000))
}

/// Sends a message of QoS 1; its PUBACK's reason, if it comes soon.
fn publish(client: &mut Client, name: &str, payload: &str, limit: Duration) -> Option<u8> {
    let packet_id = client.packet_id();
    client.send_publish(&Publish::new(name, payload).qos(1, packet_id));
    match client.event(limit) {
        Event::Packet(Packet::PubAck(ack)) => {
            assert_eq!(ack.packet_id, packet_id);
            Some(ack.reason)
        }
        Event::Nothing => None,
        other => panic!("{other:?}"),
    }
}

fn dropped(broker: &Broker, name: &str) -> u64 {
    let text = broker.cli(&["broker", "metrics"]);
    let name = format!("messages/dropped/{name}/store_failing");
    let line = text.lines().find(|line| line.starts_with(&name));
    let line = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn a_full_disk_is_told_and_nothing_acknowledged_is_lost() {
    let data = new_folder();
    let Some(disk) = Disk::mount(&data, &format!("size={DISK_MB}M")) else { return };
    let arguments = ["store.sync=always", "--shards", "2", "mqtt.mqueue.max_length=0"];
    let broker = Broker::start_in(&data, &arguments);
    let name = topic();
    let durable = Connect::new(V311, &id()).clean(false);
    broker.connect(&durable).subscribe(&name, 2);
    let (mut first, mut v5, mut v3) = (broker.client(V5), broker.client(V5), broker.client(V311));
    let mut acknowledged = Vec::new();
    for number in 0..50 {
        assert_eq!(publish(&mut first, &name, &numbered(number), SOON), Some(0));
        acknowledged.push(number);
    }
    disk.fill();
    // What is written first may still find room in the file's last page.
    let mut number = 50;
    while let Some(reason) = publish(&mut first, &name, &numbered(number), SOON / 4) {
        assert_eq!(reason, 0, "of number {number}");
        acknowledged.push(number);
        number += 1;
        assert!(number < 5000, "the disk is not full");
    }
    let waits = number;
    let log = broker.output();
    let is_told = |line: &str| line.contains("store_failing raised: no space left");
    assert!(log.lines().any(is_told), "{log}");
    assert!(log.lines().filter(|line| is_told(line)).count() < 5, "{log}");
    // MQTT 5 is told, before it the connection ends; QoS 0 goes on, and so does what nobody would keep.
    let mut live = broker.client(V5);
    live.subscribe(&name, 0);
    assert_eq!(publish(&mut v5, &name, "refused", SOON), Some(0x97));
    v5.send_publish(&Publish::new(&name, "refused").qos(2, 900));
    assert_eq!(v5.expect_pubrec(900).reason, 0x97);
    let retained = Publish::new(&topic(), "refused").retain().qos(1, 901);
    v5.send_publish(&retained);
    assert_eq!(v5.expect_puback(901).reason, 0x97);
    v3.send_publish(&Publish::new(&name, "later").qos(2, 7));
    v3.expect_closed();
    let mut other = broker.client(V311);
    other.send_publish(&Publish::new(&name, "also later").qos(1, 8));
    other.expect_closed();
    let listeners = broker.cli(&["listeners"]);
    assert!(listeners.contains("store_failing"), "{listeners}");
    v5.publish(&name, "at once", 0);
    live.expect_message(&name, "at once");
    assert_eq!(publish(&mut v5, &topic(), "nobody", SOON), Some(0x10));
    let new = Connect::new(V5, &id()).clean(false).property(Property::SessionExpiry(60));
    assert_eq!(broker.try_connect(&new).1.code, 0x88);
    assert_eq!(broker.try_connect(&Connect::new(V311, &id()).clean(false)).1.code, 3);
    assert_eq!((dropped(&broker, "qos1"), dropped(&broker, "qos2")), (3, 2));
    assert_eq!(first.event(QUIET), Event::Nothing);
    disk.make_room();
    let Event::Packet(Packet::PubAck(_)) = first.event(SOON) else { panic!("no PUBACK") };
    acknowledged.push(waits);
    // What was not answered is sent again, and taken as if it came for the first time.
    let mut v3 = broker.client(V311);
    v3.send_publish(&Publish::new(&name, "later").qos(2, 7).dup());
    v3.expect_pubrec(7);
    v3.send(&ack(0x62, 7));
    v3.expect_pubcomp(7);
    let end = Instant::now() + SOON;
    while publish(&mut v5, &name, "taken", SOON) != Some(0) {
        assert!(Instant::now() < end, "it goes on refusing");
    }
    assert!(broker.output().contains("store_failing cleared"));
    let (_, accepted) = broker.connect_ack(&new);
    assert!(!accepted.session_present);
    broker.kill();
    let broker = Broker::start_in(&data, &arguments);
    let (mut client, _) = broker.connect_ack(&durable);
    for number in acknowledged {
        assert_eq!(client.message().text(), numbered(number));
    }
    client.expect_message(&name, "at once");
    client.expect_message(&name, "later");
    client.expect_message(&name, "taken");
    client.expect_nothing();
    drop(client);
    broker.stop_and_keep();
    drop(disk);
    fs::remove_dir_all(&data).unwrap();
}

/// One line, exit code 1, nothing harmed.
#[test]
fn a_broker_does_not_start_on_a_store_it_may_not_write() {
    let data = new_folder();
    let Some(disk) = Disk::mount(&data, &format!("size={DISK_MB}M")) else { return };
    let connect = Connect::new(V311, &id()).clean(false);
    let broker = Broker::start_in(&data, &[]);
    drop(broker.connect(&connect));
    broker.stop_and_keep();
    let remount = |options: &str| {
        let status = Command::new("mount").args(["-o", options]).arg(&disk.0).status();
        assert!(status.unwrap().success(), "mount -o {options}");
    };
    remount("remount,ro");
    let (code, output) = refused(&data, &[]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("cannot open the store"), "{output}");
    assert_eq!(output.lines().filter(|line| line.contains("store")).count(), 1, "{output}");
    remount("remount,rw");
    let broker = Broker::start_in(&data, &[]);
    assert!(broker.connect_ack(&connect).1.session_present);
    broker.stop_and_keep();
    drop(disk);
    fs::remove_dir_all(&data).unwrap();
}
