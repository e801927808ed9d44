//! Replays the fuzz corpus. The seeds are made by the table in this file: with `RINGMQ_WRITE_CORPUS=1` they are
//! written, without it they must be there as they are here.

mod common;

use std::path::PathBuf;
use std::{env, fs};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/decode")
}

/// Every kind of packet, whole, cut, joined and broken. Names say version and packet.
const SEEDS: &[(&str, &[u8])] = &[
    ("v31-connect", b"\x10\x10\0\x06MQIsdp\x03\x02\0\x3c\0\x02c1"),
    ("v31-connect-bridge", b"\x10\x10\0\x06MQIsdp\x83\x02\0\x3c\0\x02c1"),
    ("v31-connect-lacks-user", b"\x10\x10\0\x06MQIsdp\x03\xc2\0\x3c\0\x02c1"),
    ("v31-pubrel-dup", b"\x6a\x02\x12\x34"),
    ("v31-subscribe-dup", b"\x8a\x06\x12\x34\0\x01a\x01"),
    ("v3-connect", b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02c1"),
    (
        "v3-connect-full",
        b"\x10\x20\0\x04MQTT\x04\xf4\0\0\0\x02c1\0\x03w/t\0\x02\xff\0\0\x02me\0\x03\x01\0\x02",
    ),
    ("v3-connect-level-6", b"\x10\x0e\0\x04MQTT\x06\x02\0\x3c\0\x02c1"),
    ("v3-connect-name", b"\x10\x0e\0\x04MQTX\x04\x02\0\x3c\0\x02c1"),
    ("v3-connect-reserved", b"\x10\x0e\0\x04MQTT\x04\x03\0\x3c\0\x02c1"),
    ("v3-connect-empty-id", b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"),
    ("v3-connack", b"\x20\x02\x01\0"),
    ("v3-connack-refusal", b"\x20\x02\0\x05"),
    ("v3-publish-0", b"\x31\x07\0\x03a/bhi"),
    ("v3-publish-1", b"\x3a\x09\0\x03a/b\x12\x34hi"),
    ("v3-publish-2", b"\x34\x09\0\x03a/b\x12\x34hi"),
    ("v3-publish-3", b"\x36\x09\0\x03a/b\x12\x34hi"),
    ("v3-publish-utf8", b"\x30\x09\0\x06\xc3\xa4/\xe2\x82\xacx"),
    ("v3-publish-surrogate", b"\x30\x05\0\x03\xed\xa0\x80"),
    ("v3-publish-nul", b"\x30\x04\0\x02a\0"),
    ("v3-publish-wildcard", b"\x30\x05\0\x03a/+"),
    ("v3-publish-levels", b"\x30\x0c\0\x0a//////////"),
    ("v3-publish-dollar", b"\x30\x08\0\x06$SYS/x"),
    ("v3-puback", b"\x40\x02\x12\x34"),
    ("v3-pubrec", b"\x50\x02\x12\x34"),
    ("v3-pubrel", b"\x62\x02\x12\x34"),
    ("v3-pubrel-flags-0", b"\x60\x02\x12\x34"),
    ("v3-pubcomp", b"\x70\x02\x12\x34"),
    ("v3-subscribe", b"\x82\x0c\x12\x34\0\x03a/+\0\0\x01#\x02"),
    ("v3-subscribe-share", b"\x82\x0f\x12\x34\0\x0a$share/g/a\x01"),
    ("v3-subscribe-queue-local", b"\x82\x1a\x12\x34\0\x08$queue/a\x01\0\x0a$local/a/#\x00"),
    ("v3-subscribe-bad-filter", b"\x82\x08\x12\x34\0\x03a#b\0"),
    ("v3-subscribe-none", b"\x82\x02\x12\x34"),
    ("v3-suback", b"\x90\x06\x12\x34\0\x01\x02\x80"),
    ("v3-unsubscribe", b"\xa2\x0a\x12\x34\0\x03a/b\0\x01c"),
    ("v3-unsuback", b"\xb0\x02\x12\x34"),
    ("ping-request", b"\xc0\0"),
    ("ping-response", b"\xd0\0"),
    ("disconnect", b"\xe0\0"),
    ("length-too-long", b"\xc0\xff\xff\xff\xff\x01"),
    ("length-not-minimal", b"\xc0\x80\0"),
    ("length-only", b"\x30\xff\xff\xff\x7f"),
    ("type-0", b"\0\0"),
    (
        "stream-v3",
        b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02c1\x82\x06\x12\x34\0\x01a\0\x30\x05\0\x01ahi\xc0\0\xe0\0",
    ),
    ("v5-connect", b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02c1"),
    (
        "v5-connect-properties",
        b"\x10\x34\0\x04MQTT\x05\x02\0\x3c\x25\x11\0\0\0\x0a\x21\0\x14\x27\0\0\x01\0\x22\0\x05\x19\x01\x17\0\x15\0\x01m\x16\0\x02\x01\0\x26\0\x01k\0\x02vw\0\x02c1",
    ),
    (
        "v5-connect-will",
        b"\x10\x26\0\x04MQTT\x05\xce\0\x3c\0\0\x01c\x0b\x18\0\0\0\x07\x01\x01\x08\0\x01r\0\x01w\0\x01b\0\x01u\0\x01p",
    ),
    ("v5-connect-password", b"\x10\x12\0\x04MQTT\x05\x42\0\x3c\0\0\x02c1\0\x01p"),
    ("v5-connack", b"\x20\x0a\0\0\x07\x24\x01\x13\0\x1e\x25\0"),
    ("v5-publish", b"\x30\x08\0\x03a/b\0hi"),
    ("v5-publish-alias", b"\x30\x08\0\0\x03\x23\x01\x02hi"),
    (
        "v5-publish-properties",
        b"\x30\x29\0\x03a/b\x21\x26\0\x01b\0\x010\x02\0\0\0\x09\x26\0\x01a\0\x011\x23\0\x01\x0b\x80\x01\x01\x01\x0b\x05\x03\0\x01thi",
    ),
    ("v5-publish-request", b"\x32\x13\0\x01a\x12\x34\x0a\x08\0\x01r\x09\0\x03xyzq?!"),
    ("v5-publish-no-topic", b"\x30\x04\0\0\0x"),
    ("v5-puback-reason", b"\x40\x03\x12\x34\x10"),
    ("v5-pubrec-properties", b"\x50\x09\x12\x34\x97\x05\x1f\0\x02no"),
    ("v5-pubrel-long", b"\x62\x04\x12\x34\x92\0"),
    (
        "v5-subscribe",
        b"\x82\x18\x12\x34\x02\x0b\x05\0\x01a\x2d\0\x0c$share/g/b/+\x02",
    ),
    ("v5-subscribe-no-local-share", b"\x82\x10\x12\x34\0\0\x0a$share/g/a\x04"),
    ("v5-suback", b"\x90\x0a\x12\x34\x04\x1f\0\x01r\x02\x8f\xa2"),
    ("v5-unsubscribe", b"\xa2\x0d\x12\x34\x07\x26\0\x01k\0\x01v\0\x01x"),
    ("v5-unsuback", b"\xb0\x05\x12\x34\0\0\x11"),
    ("v5-disconnect", b"\xe0\x07\x04\x05\x11\0\0\0\x3c"),
    ("v5-disconnect-reason", b"\xe0\x01\x8e"),
    ("v5-auth", b"\xf0\x0a\x18\x08\x15\0\x01m\x16\0\x01d"),
    ("v5-auth-bare", b"\xf0\0"),
    (
        "stream-v5",
        b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02c1\x30\x09\0\x01a\x03\x23\0\x01hi\x30\x08\0\0\x03\x23\0\x01hi\xe0\0",
    ),
];

#[test]
fn every_file_of_the_corpus_holds() {
    let folder = folder();
    if env::var_os("RINGMQ_WRITE_CORPUS").is_some() {
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, bytes) in SEEDS {
            fs::write(folder.join(name), bytes).expect("the seed can be written");
        }
    }
    for (name, bytes) in SEEDS {
        let stored = fs::read(folder.join(name)).expect("the seed is there");
        assert_eq!(stored, *bytes, "{name} is not as in the table: run with RINGMQ_WRITE_CORPUS=1");
    }
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        common::check_stream(&fs::read(&path).expect("readable"));
    }
}

/// Each seed cut at each place, and with each bit turned.
#[test]
fn neighbours_of_the_seeds_hold() {
    for (_, seed) in SEEDS {
        for len in 0..seed.len() {
            common::check_stream(&seed[..len]);
        }
        let mut bytes = seed.to_vec();
        for bit in 0..seed.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            common::check_stream(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Seeds named after a version are meant to be whole packets, right or wrong.
#[test]
fn seeds_have_a_right_remaining_length() {
    for (name, bytes) in SEEDS.iter().filter(|(name, _)| name.starts_with('v')) {
        assert_eq!(usize::from(bytes[1]) + 2, bytes.len(), "{name}");
    }
}
