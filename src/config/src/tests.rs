//! Tests of the table, the units, the layers and the messages.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::listener::all_options;
use crate::nearest::{distance, nearest};
use crate::table::keys;

mod listeners;

/// A file of its own for one test, gone when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
        let file = format!("ringmq-config-{}-{name}.conf", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, text).expect("write a temporary file");
        Self(path)
    }

    fn load(&self) -> Result<(Settings, Vec<Warning>), ConfigError> {
        Settings::load(&LoadRequest { file: Some(self.0.clone()), ..LoadRequest::default() })
    }

    /// The message with the folder of temporary files taken out.
    fn plain(&self, message: impl std::fmt::Display) -> String {
        message.to_string().replace(&self.0.display().to_string(), "FILE")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn try_set(list: &[(&str, &str)]) -> Result<(Settings, Vec<Warning>), ConfigError> {
    Settings::load(&LoadRequest { set: pairs(list), ..LoadRequest::default() })
}

fn set(list: &[(&str, &str)]) -> Settings {
    try_set(list).expect("settings").0
}

fn set_error(list: &[(&str, &str)]) -> String {
    try_set(list).expect_err("wrong settings").to_string()
}

fn values(settings: &Settings) -> Vec<(String, String)> {
    settings.entries().into_iter().map(|entry| (entry.key, entry.value)).collect()
}

fn addresses(settings: &Settings) -> Vec<String> {
    settings.listeners.iter().map(|one| format!("{} {}", one.name, one.address)).collect()
}

fn texts(warnings: &[Warning]) -> String {
    warnings.iter().map(|warning| format!("{warning}\n")).collect()
}

#[test]
fn nothing_is_needed() {
    let (settings, warnings) = Settings::load(&LoadRequest::default()).expect("defaults");
    assert!(warnings.is_empty());
    assert_eq!(values(&settings), values(&Settings::default()));
    assert_eq!(settings.mqtt.max_packet_size_bytes, 65_536);
    assert_eq!(settings.mqtt.idle_timeout_ms, 30_000);
    assert_eq!(settings.mqtt.keepalive_backoff_permille, 750);
    assert_eq!(settings.session.expiry_interval_s, 7_200);
    assert_eq!(settings.session.retry_interval_ms, 20_000);
    assert_eq!(settings.mqueue.max_length, 1_000);
    assert_eq!(settings.listeners[0].options.max_clients, 1_000_000);
    assert_eq!(addresses(&settings), ["external 0.0.0.0:1883", "internal 127.0.0.1:11883"]);
}

#[test]
fn every_default_is_canonical_and_documented() {
    for entry in Settings::default().entries() {
        assert_eq!(entry.value, entry.default, "{}", entry.key);
        assert_eq!(entry.origin, Origin::Default);
        assert!(entry.doc.len() > 20 && entry.doc.ends_with('.'), "{}: {}", entry.key, entry.doc);
    }
    for key in keys() {
        let example = key.kind.example();
        assert!((key.assign)(&mut Settings::default(), &example, &key.kind), "{}", key.name);
        assert_eq!((key.show)(&Settings::default(), &key.kind), key.default, "{}", key.name);
    }
    for key in all_options() {
        let example = key.kind.example();
        assert!((key.assign)(&mut ListenerOptions::default(), &example, &key.kind), "{}", key.name);
        assert_eq!((key.show)(&ListenerOptions::default(), &key.kind), key.default, "{}", key.name);
        assert!(key.doc.trim_end().ends_with('.'), "{}: {}", key.name, key.doc);
    }
    for name in zone::ZONE_KEYS {
        assert!(zone::zone_key(name).is_some_and(|key| key.name == *name), "{name}");
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> =
        keys().flat_map(|key| [key.name].into_iter().chain(key.aliases.iter().copied())).collect();
    names.extend(legacy::names());
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_example_file_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ringmq.conf.example");
    if std::env::var_os("RINGMQ_WRITE_EXAMPLE").is_some() {
        std::fs::write(&path, Settings::reference()).expect("write the example file");
    }
    let text = std::fs::read_to_string(&path).expect("the example file");
    assert!(
        text == Settings::reference(),
        "ringmq.conf.example differs from the table: run this test with RINGMQ_WRITE_EXAMPLE=1"
    );
    let request = LoadRequest { file: Some(path), ..LoadRequest::default() };
    let (settings, warnings) = Settings::load(&request).expect("the example file loads");
    assert_eq!(texts(&warnings), "");
    assert_eq!(values(&settings), values(&Settings::default()));
}

#[test]
fn shown_values_load_again() {
    let first = set(&[
        ("mqtt.max_packet_size", "1MB"),
        ("mqtt.session.expiry_interval", "infinity"),
        ("mqtt.session.max_inflight", "0"),
        ("mqtt.mqueue.priority", "a=b=10, c/d=2"),
        ("mqtt.keepalive_backoff", "1.25"),
        ("mqtt.client.enable_stats", "on"),
        ("reactor.spin", "50us"),
        ("listener.tcp.v6", "[::1]:1884"),
        ("listener.tcp.v6.sndbuf", "64KB"),
    ]);
    let shown = values(&first);
    let second = Settings::load(&LoadRequest { set: shown.clone(), ..LoadRequest::default() });
    assert_eq!(values(&second.expect("shown values load").0), shown);
    assert_eq!(first.session.max_inflight, u16::MAX);
    assert_eq!(first.mqueue.priorities.0, [("a=b".to_owned(), 10), ("c/d".to_owned(), 2)]);
    assert_eq!(first.get("mqtt.client.enable_stats").expect("known").value, "60s");
    assert_eq!(first.get("mqtt.session.expiry_interval").expect("known").value, "infinity");
}

#[test]
fn units() {
    for (text, ms) in [
        ("30", 30_000),
        ("500ms", 500),
        ("2s", 2_000),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("1m30s", 90_000),
    ] {
        assert_eq!(set(&[("mqtt.client.idle_timeout", text)]).mqtt.idle_timeout_ms, ms, "{text}");
    }
    for (text, s) in [("1d", 86_400), ("1w", 604_800), ("2h", 7_200), ("0", 0), ("60", 60)] {
        let settings = set(&[("mqtt.session.expiry_interval", text)]);
        assert_eq!(settings.session.expiry_interval_s, s, "{text}");
    }
    for (text, bytes) in
        [("1024", 1024), ("1KB", 1024), ("1 kb", 1024), ("2M", 2 << 20), ("1MiB", 1 << 20)]
    {
        let settings = set(&[("mqtt.max_packet_size", text)]);
        assert_eq!(settings.mqtt.max_packet_size_bytes, bytes, "{text}");
    }
    for (text, permille) in [("1", 1000), ("0.5", 500), ("2.125", 2125)] {
        let settings = set(&[("mqtt.keepalive_backoff", text)]);
        assert_eq!(settings.mqtt.keepalive_backoff_permille, permille, "{text}");
    }
    for (text, value) in [("on", true), ("off", false), ("true", true), ("false", false)] {
        assert_eq!(set(&[("mqtt.allow_anonymous", text)]).mqtt.allow_anonymous, value);
    }
    assert_eq!(set(&[("mqtt.mqueue.high_watermark", "80")]).mqueue.high_watermark_percent, 80);
    assert_eq!(set(&[("mqtt.mqueue.max_length", "infinity")]).mqueue.max_length, u32::MAX);
    assert_eq!(set(&[("mqtt.session.max_subscriptions", "0")]).session.max_subscriptions, u32::MAX);
    assert_eq!(
        set(&[("mqtt.acl_file", "etc/acl.conf")]).mqtt.acl_file,
        Some("etc/acl.conf".into())
    );
    assert_eq!(set(&[("mqtt.server_reference", "")]).mqtt.server_reference, None);
}

#[test]
fn wrong_values_say_what_is_allowed() {
    for (key, value, allowed) in [
        ("mqtt.allow_anonymous", "yes", "on, off, true or false, for example on"),
        ("mqtt.max_packet_size", "64XB", "a size from 256 to 256MB, for example 64KB"),
        ("mqtt.max_packet_size", "1GB", "a size from 256 to 256MB, for example 64KB"),
        ("mqtt.client.idle_timeout", "1y", "a duration from 100ms to 1h, for example 30s"),
        ("mqtt.client.idle_timeout", "", "a duration from 100ms to 1h, for example 30s"),
        ("mqtt.client.idle_timeout", "10s5", "a duration from 100ms to 1h, for example 30s"),
        ("mqtt.server_keepalive", "1500ms", "a duration from 0s to 65535s, for example 30s"),
        ("mqtt.mqueue.low_watermark", "101%", "a percentage from 0% to 100%, for example 60%"),
        (
            "overload.memory_high_watermark",
            "0%",
            "off, a size of 1MB or more, or a percentage of memory from 1% to 100%, for example 80%",
        ),
        (
            "overload.memory_high_watermark",
            "80",
            "off, a size of 1MB or more, or a percentage of memory from 1% to 100%, for example 80%",
        ),
        ("mqtt.max_qos_allowed", "3", "a whole number from 0 to 2, for example 1"),
        ("mqtt.max_qos_allowed", "+1", "a whole number from 0 to 2, for example 1"),
        (
            "mqtt.session.max_inflight",
            "65536",
            "a whole number from 1 to 65535, or 0 or infinity for no limit, for example 1000",
        ),
        ("mqtt.acl_nomatch", "maybe", "allow | deny, for example allow"),
        ("mqtt.keepalive_backoff", "0.4", "a fraction from 0.5 to 10, for example 0.5"),
        ("mqtt.keepalive_backoff", "1.", "a fraction from 0.5 to 10, for example 0.5"),
        (
            "mqtt.mqueue.priority",
            "a/+=3",
            "none, or topic=priority pairs with priorities 0 to 255, for example topic/1=10,topic/2=8",
        ),
        (
            "mqtt.mqueue.priority",
            "a=256",
            "none, or topic=priority pairs with priorities 0 to 255, for example topic/1=10,topic/2=8",
        ),
        (
            "reactor.recv_buffers",
            "1000",
            "a power of two from 16 to 32768, or 0 for the broker's choice, for example 1024",
        ),
        (
            "node.name",
            "",
            "text of 1 to 4096 bytes without control characters, for example ringmq@127.0.0.1",
        ),
        (
            "listener.tcp.external",
            "host:1883",
            "off, a port, or address:port, for example 1883, 127.0.0.1:1883 or [::1]:1883",
        ),
        (
            "listener.tcp.external.max_clients",
            "0",
            "a whole number from 1 to 100000000, for example 1",
        ),
    ] {
        let expected = format!("--set: {key} cannot be {value:?}; allowed: {allowed}");
        assert_eq!(set_error(&[(key, value)]), expected);
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (given, near) in [
        ("mqtt.max_packet_sise", "mqtt.max_packet_size"),
        ("mqtt.mqueue.max_lenght", "mqtt.mqueue.max_length"),
        ("max_packet_size", "mqtt.max_packet_size"),
        ("mqtt.session.max_inflihgt", "mqtt.session.max_inflight"),
        ("listener.tcp.external.backlg", "listener.tcp.external.backlog"),
        ("listener.tcp.mine.max_client", "listener.tcp.mine.max_clients"),
        ("node.process_limits", "node.process_limit"),
        ("listner.tcp.external", "listener.tcp.external"),
    ] {
        let message = set_error(&[(given, "1")]);
        assert!(message.starts_with(&format!("--set: unknown key {given}")), "{message}");
        assert!(message.ends_with(&format!("; did you mean {near}?")), "{message}");
    }
    assert!(set_error(&[("qwertyuiop", "1")]).ends_with("; `ringmq config show` lists all keys"));
    assert_eq!(distance("abc", "acb"), 1);
    assert_eq!(distance("kitten", "sitting"), 3);
    assert_eq!(nearest("abcd", ["wxyz"].into_iter()), None);
}

#[test]
fn layers_and_origins() {
    let file = TempFile::new(
        "layers",
        "mqtt.max_clientid_len = 100\nmqtt.max_topic_len = 200\n\nmqtt.max_topic_levels = 10\n",
    );
    let (settings, warnings) = Settings::load(&LoadRequest {
        file: Some(file.0.clone()),
        env: pairs(&[
            ("RINGMQ_MQTT__MAX_TOPIC_LEN", "300"),
            ("ringmq_mqtt__max_topic_levels", "11"),
            ("RINGMQ_PORT", "tcp://10.0.0.1:1883"),
            ("PATH", "/bin"),
            ("EMQ_NODE_NAME", "emq@10.0.0.1"),
            ("EMQ_TCP_PORT", "1999"),
            ("EMQ_MAX_PORTS", ""),
        ]),
        set: pairs(&[("mqtt.max_topic_levels", "12")]),
    })
    .expect("settings");
    assert_eq!(texts(&warnings), "");
    assert_eq!(settings.mqtt.max_client_id_len, 100);
    assert_eq!(settings.mqtt.max_topic_len, 300);
    assert_eq!(settings.mqtt.max_topic_levels, 12);
    assert_eq!(settings.node.name, "emq@10.0.0.1");
    assert_eq!(addresses(&settings), ["external 0.0.0.0:1999", "internal 127.0.0.1:11883"]);
    let origin = |key: &str| settings.get(key).expect("known").origin.to_string();
    assert_eq!(file.plain(origin("mqtt.max_clientid_len")), "FILE:1");
    assert_eq!(origin("mqtt.max_topic_len"), "env RINGMQ_MQTT__MAX_TOPIC_LEN");
    assert_eq!(origin("mqtt.max_topic_levels"), "--set");
    assert_eq!(origin("mqtt.max_packet_size"), "default");
    assert_eq!(origin("node.name"), "env EMQ_NODE_NAME");
    assert_eq!(origin("listener.tcp.external"), "env EMQ_TCP_PORT");
}

#[test]
fn disc_only_needs_a_store() {
    for (word, store, refused) in [
        ("ram", "off", false),
        ("disc", "off", false),
        ("disc_only", "on", false),
        ("disc_only", "off", true),
    ] {
        let set = pairs(&[("retainer.storage_type", word), ("store.enable", store)]);
        match Settings::load(&LoadRequest { set, ..LoadRequest::default() }) {
            Ok((settings, warnings)) => {
                assert!(!refused && warnings.is_empty(), "{word} {store}: {}", texts(&warnings));
                assert_eq!(settings.retainer.storage.word(), word);
            }
            Err(error) => {
                assert!(refused, "{word} {store}: {error}");
                let text = error.to_string();
                let wanted = "retainer.storage_type";
                assert!(text.contains(wanted) && text.contains("write ram"), "{text}");
            }
        }
    }
}

#[test]
fn own_names_win_over_those_of_emq() {
    let env = pairs(&[
        ("RINGMQ_NODE__NAME", "own@h"),
        ("EMQ_NODE_NAME", "emq@h"),
        ("EMQ_HTTP_PORT", "8080"),
    ]);
    let (settings, warnings) =
        Settings::load(&LoadRequest { env, ..LoadRequest::default() }).expect("settings");
    assert_eq!(settings.node.name, "own@h");
    let text = texts(&warnings);
    assert!(text.contains("env EMQ_HTTP_PORT: listener.http.external has no effect"), "{text}");
    let env = pairs(&[("RINGMQ_MQTT__MAX_PACKET", "1")]);
    let error =
        Settings::load(&LoadRequest { env, ..LoadRequest::default() }).expect_err("unknown");
    assert!(
        error.to_string().starts_with("env RINGMQ_MQTT__MAX_PACKET: unknown key mqtt.max_packet")
    );
}

#[test]
fn lines_of_a_file() {
    let file = TempFile::new(
        "lines",
        "\u{feff}## comment = 1\r\n# another\r\n\r\n  node.name=a=b#c@h  \r\nmqtt.server_reference = {{ x\n\
         mqtt.acl_file = {{ platform_etc_dir }}/acl.conf\nnode.data_dir = {{runner_data_dir}}/x",
    );
    let (settings, warnings) = file.load().expect("settings");
    assert_eq!(texts(&warnings), "");
    assert_eq!(settings.node.name, "a=b#c@h");
    assert_eq!(settings.mqtt.server_reference.as_deref(), Some("{{ x"));
    assert_eq!(settings.mqtt.acl_file, Some(std::env::temp_dir().join("acl.conf")));
    assert_eq!(settings.node.data_dir, Path::new("data/x"));
}

#[test]
fn wrong_lines_are_all_reported() {
    let mut text =
        b"nonsense\n= 1\nmqtt max = 1\nmqtt.acl_file = {{ home }}/x\nnode.name = ".to_vec();
    text.extend_from_slice(b"\xff\nmqtt.max_qos_allowed = 9\n");
    let file = TempFile::new("wrong", text);
    let message = file.plain(file.load().expect_err("wrong lines"));
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 6, "{message}");
    let form = "; write it as key = value";
    let start = "cannot read this line as a setting: ";
    assert_eq!(lines[0], format!("FILE:1: {start}there is no ={form}"));
    assert_eq!(lines[1], format!("FILE:2: {start}there is no key before the ={form}"));
    assert!(lines[2].starts_with(&format!("FILE:3: {start}\"mqtt max\" is no key")));
    assert!(
        lines[3].starts_with(&format!("FILE:4: {start}the variable {{{{ home }}}} is not known"))
    );
    assert_eq!(lines[4], format!("FILE:5: {start}it is not UTF-8{form}"));
    assert!(lines[5].starts_with("FILE:6: mqtt.max_qos_allowed cannot be \"9\""));
}

#[test]
fn a_file_that_cannot_be_read() {
    let path = std::env::temp_dir().join("ringmq-config-no-such-file.conf");
    let request = LoadRequest { file: Some(path.clone()), ..LoadRequest::default() };
    let message = Settings::load(&request).expect_err("no file").to_string();
    assert!(
        message.contains(&path.display().to_string()) && message.contains("os error 2"),
        "{message}"
    );
}

#[test]
fn the_last_of_two_lines_holds() {
    let file = TempFile::new("twice", "mqtt.mqueue.qos0 = on\nmqtt.mqueue.store_qos0 = off\n");
    let (settings, warnings) = file.load().expect("settings");
    assert!(!settings.mqueue.store_qos0);
    assert_eq!(
        file.plain(texts(&warnings)),
        "FILE:1: mqtt.mqueue.qos0 is an older name of mqtt.mqueue.store_qos0\n\
         FILE:2: mqtt.mqueue.store_qos0 was given before (FILE:1); the last one, \"off\", holds\n"
    );
}

/// SEED-LSN-11: a zone has the settings of the broker and its own in their place.
#[test]
fn zones() {
    let settings = set(&[
        ("zone.devices.mqtt.max_packet_size", "4KB"),
        ("zone.devices.mqtt.allow_anonymous", "off"),
        ("zone.servers.mqtt.max_packet_size", "8MB"),
        ("mqtt.max_clientid_len", "99"),
        ("listener.tcp.external.zone", "devices"),
    ]);
    let (mqtt, _) = settings.of_listener(&settings.listeners[0]);
    assert_eq!((mqtt.max_packet_size_bytes, mqtt.allow_anonymous), (4096, false));
    assert_eq!(mqtt.max_client_id_len, 99);
    let (mqtt, _) = settings.of_listener(&settings.listeners[1]);
    assert_eq!((mqtt.max_packet_size_bytes, mqtt.allow_anonymous), (65_536, true));
    assert_eq!(settings.conn.pending_bytes_max, 16 << 20, "it fits the largest packet of any zone");
    let shown = values(&settings);
    assert!(shown.contains(&("zone.devices.mqtt.max_packet_size".into(), "4KB".into())));
    let again = Settings::load(&LoadRequest { set: shown.clone(), ..LoadRequest::default() });
    assert_eq!(values(&again.expect("shown values load").0), shown);
    let (_, warnings) = try_set(&[("listener.tcp.external.zone", "x")]).expect("settings");
    assert!(texts(&warnings).contains("there is no key of a zone x"), "{warnings:?}");
    let whole = set_error(&[("zone.x.mqtt.max_topic_levels", "3")]);
    let start = "--set: zone.x.mqtt.max_topic_levels = 3: it holds for the whole broker: set mqtt.max_topic_levels itself; a zone can have mqtt.max_clientid_len, ";
    assert!(whole.starts_with(start), "{whole}");
    assert_eq!(
        set_error(&[("zone.x.mqtt.max_packet_sise", "3")]),
        "--set: zone.x.mqtt.max_packet_sise = 3: a zone has no such key; did you mean mqtt.max_packet_size?"
    );
    assert!(set_error(&[("zone.x.mqtt.max_packet_size", "3")]).starts_with(
        "--set: zone.x.mqtt.max_packet_size cannot be \"3\"; allowed: a size from 256"
    ));
}

#[test]
fn checks_between_keys() {
    let message = set_error(&[("mqtt.mqueue.low_watermark", "70%")]);
    assert_eq!(
        message,
        "--set: mqtt.mqueue.low_watermark = 70%: the low watermark (70%) must be below the high one (60%)"
    );
    let large = set(&[("mqtt.max_packet_size", "8MB")]);
    assert_eq!(large.conn.pending_bytes_max, 16 << 20);
    let both = [("mqtt.max_packet_size", "8MB"), ("mqtt.conn.pending_bytes_max", "1MB")];
    assert!(set_error(&both).contains("it must be at least mqtt.max_packet_size"));
    let (_, warnings) = try_set(&[("mqtt.receive_maximum", "200")]).expect("settings");
    assert!(texts(&warnings).contains("is above mqtt.session.max_awaiting_rel (100)"));
    assert!(
        try_set(&[("mqtt.receive_maximum", "200"), ("mqtt.session.max_awaiting_rel", "0")])
            .is_ok_and(|(_, warnings)| warnings.is_empty())
    );
}

#[test]
fn changes_while_the_broker_runs() {
    let mut settings = Settings::default();
    settings.set_hot("mqtt.acl_nomatch", "deny").expect("hot");
    assert_eq!(settings.mqtt.acl_nomatch, AclNomatch::Deny);
    assert_eq!(settings.get("mqtt.acl_nomatch").expect("known").origin, Origin::Runtime);
    let before = values(&settings);
    for (key, value, start) in [
        ("mqtt.max_packet_size", "1MB", "mqtt.max_packet_size cannot change while the broker runs"),
        (
            "mqtt.acl_nomach",
            "deny",
            "runtime: unknown key mqtt.acl_nomach; did you mean mqtt.acl_nomatch?",
        ),
        ("mqtt.acl_nomatch", "x", "runtime: mqtt.acl_nomatch cannot be \"x\""),
        ("mqtt.mqueue.high_watermark", "10%", "runtime: mqtt.mqueue.high_watermark = 10%"),
    ] {
        let message = settings.set_hot(key, value).expect_err("refused").to_string();
        assert!(message.starts_with(start), "{message}");
    }
    assert_eq!(values(&settings), before);
    // SEED-CONF-13
    for key in [
        "log.console.level",
        "mqtt.acl_file",
        "mqtt.acl_nomatch",
        "mqtt.allow_anonymous",
        "mqtt.broker.sys_interval",
        "mqtt.cache_acl",
        "mqtt.mqueue.low_watermark",
        "mqtt.mqueue.high_watermark",
        "mqtt.client.idle_timeout",
        "mqtt.client.enable_stats",
    ] {
        assert!(settings.get(key).expect(key).hot, "{key}");
    }
}

/// The keys of a full EMQ 2.x installation: each is accepted (SEED-CONF-02 to 11).
const EMQ_KEYS: &str = include_str!("emq_keys.conf");

#[test]
fn a_file_of_emq_loads_with_warnings_only() {
    let file = TempFile::new("emq", EMQ_KEYS);
    let (settings, warnings) = file.load().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        addresses(&settings),
        [
            "external 0.0.0.0:1883",
            "internal 127.0.0.1:11883",
            "external 0.0.0.0:8883",
            "external 0.0.0.0:8083",
            "external 0.0.0.0:8084"
        ]
    );
    let external = &settings.listeners[0].options;
    assert_eq!(external.max_clients, 102_400);
    let burst_and_rate = Rate { count: 10 << 10, per_ms: 1000, burst: 100 << 10 };
    assert_eq!(external.rate_limit, Some(burst_and_rate));
    assert_eq!(settings.mqueue.max_length, u32::MAX);
    assert_eq!(settings.node.name, "emq@127.0.0.1");
    assert_eq!(settings.log.console_level, LogLevel::Error);
    let text = file.plain(texts(&warnings));
    for part in [
        "node.process_limit has no effect: connections are limited by",
        "node.cookie has no effect",
        "sysmon.large_heap has no effect: it tunes the Erlang virtual machine",
        "listener.tcp.external.zone: has no effect: there is no key of a zone external",
        "listener.api.mgmt (3 more of listener.api.mgmt) has no effect: this version has no HTTP interface",
        "listener.tcp.external.acceptors (1 more of listener.tcp.*.acceptors) has no effect",
        "mqtt.mqueue.qos0 is an older name of mqtt.mqueue.store_qos0",
    ] {
        assert!(text.contains(part), "{part}\nnot in\n{text}");
    }
    assert!(!text.contains("secret"), "a cookie is not for the log");
}

proptest! {
    #[test]
    fn any_file_loads_or_fails_cleanly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut errors = Vec::new();
        let lines = file::parse(Path::new("x"), &bytes, &mut errors);
        prop_assert!(lines.len() + errors.len() <= bytes.len() + 1);
    }

    #[test]
    fn any_value_parses_or_fails_and_shows_again(text in "[0-9a-zA-Z.%=, ]{0,12}") {
        for key in keys() {
            let mut settings = Settings::default();
            if (key.assign)(&mut settings, &text, &key.kind) {
                let shown = (key.show)(&settings, &key.kind);
                let mut again = Settings::default();
                prop_assert!((key.assign)(&mut again, &shown, &key.kind), "{} {}", key.name, shown);
                prop_assert_eq!((key.show)(&again, &key.kind), shown);
            }
        }
    }

    #[test]
    fn any_duration_survives_being_shown(ms in 100_u64..3_600_000) {
        let mut settings = set(&[("mqtt.client.idle_timeout", &format!("{ms}ms"))]);
        prop_assert_eq!(settings.mqtt.idle_timeout_ms, ms);
        let shown = settings.get("mqtt.client.idle_timeout").expect("known").value;
        settings.set_hot("mqtt.client.idle_timeout", &shown).expect("shown values load");
        prop_assert_eq!(settings.mqtt.idle_timeout_ms, ms);
    }

    #[test]
    fn any_key_and_value_load_or_fail(key in "[a-z_.]{0,30}", value in "\\PC{0,20}") {
        let _ = try_set(&[(&key, &value)]);
        let _ = try_set(&[(&format!("listener.tcp.{key}"), &value)]);
        let _ = try_set(&[(&format!("listener.wss.external.{key}"), &value)]);
        let _ = try_set(&[(&format!("zone.{key}"), &value)]);
    }
}
