//! Access rules: `acl.conf` (SEED-ACL-01 to SEED-ACL-03, SEED-PUB-15).

use std::fs;
use std::path::PathBuf;

use ringmq_tests::{Broker, Connect, Packet, Publish, V5, V311, Will, id};

/// A file of rules that is removed at the end.
struct Rules(PathBuf);

impl Rules {
    fn new(text: &str) -> Rules {
        let path = std::env::temp_dir().join(format!("ringmq-acl-{}.conf", id()));
        fs::write(&path, text).unwrap();
        Rules(path)
    }
    fn setting(&self) -> String {
        format!("mqtt.acl_file={}", self.0.display())
    }
    fn start(&self, more: &[&str]) -> Broker {
        let setting = self.setting();
        Broker::start(&[&[setting.as_str()], more].concat())
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// SEED-ACL-01: a denied SUBSCRIBE is told in SUBACK.
#[test]
fn seed_acl_01_denied_subscribe() {
    let rules = Rules::new(
        "%% a comment\n{deny, all, subscribe, [\"test/nosubscribe\"]}.\n{allow, all}.\n",
    );
    let broker = rules.start(&[]);
    for (version, code) in [(V5, 0x87), (V311, 0x80)] {
        let mut client = broker.client(version);
        let codes = client.subscribe_with(&[("test/nosubscribe", 2), ("test/other", 2)], &[]);
        assert_eq!(codes, [code, 2]);
        client.publish("test/nosubscribe", "x", 1);
        client.expect_nothing();
    }
}

/// v3.1.1: MQTT-3.3.5-2
/// SEED-ACL-01: a denied PUBLISH is acknowledged (3.1.1), told (5), and never delivered.
#[test]
fn mqtt_3_3_5_2_denied_publish() {
    let rules = Rules::new("{deny, all, publish, [\"no/#\"]}.\n{allow, all}.\n");
    let broker = rules.start(&[]);
    let mut watcher = broker.client(V5);
    watcher.subscribe("no/#", 2);
    let mut old = broker.client(V311);
    for qos in 0..=2 {
        old.publish("no/a", "x", qos);
    }
    old.publish_retained("no/a", "x", 1);
    let mut new = broker.client(V5);
    new.send_publish(&Publish::new("no/a", "x").qos(1, 1));
    assert_eq!(new.expect_puback(1).reason, 0x87);
    new.send_publish(&Publish::new("no/a", "x").qos(2, 2));
    assert_eq!(new.expect_pubrec(2).reason, 0x87);
    new.send_publish(&Publish::new("no/a", "x"));
    match new.event(ringmq_tests::QUIET) {
        ringmq_tests::client::Event::Packet(Packet::Disconnect(answer)) => {
            assert_eq!(answer.reason, 0x87);
        }
        event => assert_eq!(event, ringmq_tests::client::Event::Nothing),
    }
    watcher.expect_nothing();
    let mut late = broker.client(V5);
    late.subscribe("no/#", 1);
    late.expect_nothing();
}

/// SEED-ACL-01: who: client, user, address, all, and their combinations; %c and %u in topics.
#[test]
fn seed_acl_01_who() {
    let rules = Rules::new(concat!(
        "{allow, {client, \"special\"}, publish, [\"a\"]}.\n",
        "{allow, {user, \"boss\"}, pubsub, [\"b\"]}.\n",
        "{allow, {ipaddr, \"127.0.0.0/8\"}, publish, [\"c\"]}.\n",
        "{allow, {ipaddr, \"10.0.0.1\"}, publish, [\"d\"]}.\n",
        "{allow, all, publish, [\"own/%c\", \"user/%u/+\"]}.\n",
        "{allow, {'and', [{client, \"special\"}, {user, \"boss\"}]}, publish, [\"e\"]}.\n",
        "{allow, {'or', [{client, \"special\"}, {user, \"boss\"}]}, publish, [\"f\"]}.\n",
        "{deny, all}.\n"
    ));
    let broker = rules.start(&[]);
    let may = |client_id: &str, user: &str, topic: &str| {
        let mut client = broker.connect(&Connect::new(V5, client_id).username(user));
        client.send_publish(&Publish::new(topic, "x").qos(1, 1));
        client.expect_puback(1).reason < 0x80
    };
    for (client_id, user, topic, expected) in [
        ("special", "u", "a", true),
        ("plain", "u", "a", false),
        ("plain", "boss", "b", true),
        ("special", "u", "b", false),
        ("plain", "u", "c", true),
        ("plain", "u", "d", false),
        ("plain", "u", "own/plain", true),
        ("plain", "u", "own/other", false),
        ("plain", "u", "user/u/x", true),
        ("plain", "u", "user/v/x", false),
        ("special", "boss", "e", true),
        ("special", "u", "e", false),
        ("special", "u", "f", true),
        ("plain", "u", "f", false),
        ("plain", "u", "unnamed", false),
    ] {
        assert_eq!(may(client_id, user, topic), expected, "{client_id} {user} {topic}");
    }
}

/// SEED-ACL-01: `{eq, "#"}` means the filter itself; a plain rule covers what it matches.
#[test]
fn seed_acl_01_eq() {
    let rules =
        Rules::new("{deny, all, subscribe, [{eq, \"#\"}, {eq, \"a/+\"}]}.\n{allow, all}.\n");
    let broker = rules.start(&[]);
    let mut client = broker.client(V5);
    let filters = [("#", 0), ("a/+", 0), ("a/b", 0), ("+/#", 0)];
    assert_eq!(client.subscribe_with(&filters, &[]), [0x87, 0x87, 0, 0]);
}

/// SEED-ACL-03: the first rule that matches decides.
#[test]
fn seed_acl_03_first_match_wins() {
    let rules = Rules::new(concat!(
        "{allow, all, subscribe, [\"a/b\"]}.\n",
        "{deny, all, subscribe, [\"a/#\"]}.\n",
        "{allow, all, subscribe, [\"a/c\"]}.\n",
        "{allow, all}.\n"
    ));
    let broker = rules.start(&[]);
    let mut client = broker.client(V5);
    let filters = [("a/b", 0), ("a/c", 0), ("c", 0)];
    assert_eq!(client.subscribe_with(&filters, &[]), [0, 0x87, 0]);
}

/// SEED-ACL-03: acl_nomatch.
#[test]
fn seed_acl_03_nomatch() {
    let rules = Rules::new("{allow, all, publish, [\"a\"]}.\n");
    for (word, code) in [("allow", 0), ("deny", 0x87)] {
        let broker = rules.start(&[&format!("mqtt.acl_nomatch={word}")]);
        let mut client = broker.client(V5);
        assert_eq!(client.subscribe_with(&[("b", 0)], &[]), [code]);
    }
}

/// SEED-ACL-03, SEED-CLI-55: `acl reload` takes effect for clients that are connected; a broken file changes nothing.
#[test]
fn seed_acl_03_reload() {
    let rules = Rules::new("{allow, all}.\n");
    let broker = rules.start(&[]);
    let mut client = broker.client(V5);
    assert_eq!(client.subscribe_with(&[("a", 0)], &[]), [0]);
    fs::write(&rules.0, "{deny, all, subscribe, [\"a\"]}.\n{allow, all}.\n").unwrap();
    assert_eq!(client.subscribe_with(&[("a", 0)], &[]), [0]);
    let _ = broker.cli(&["acl", "reload"]);
    assert_eq!(client.subscribe_with(&[("a", 0), ("b", 0)], &[]), [0x87, 0]);
    fs::write(&rules.0, "{nonsense, all").unwrap();
    let output = broker.command(&["acl", "reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(client.subscribe_with(&[("a", 0), ("b", 0)], &[]), [0x87, 0]);
}

/// SEED-ACL-02: the rules that ship: this machine may subscribe to `#` and `$SYS/#`.
#[test]
fn seed_acl_02_default_rules_for_localhost() {
    let broker = Broker::start(&[]);
    let mut client = broker.client(V5);
    assert_eq!(client.subscribe_with(&[("#", 0), ("$SYS/#", 0), ("a/#", 0)], &[]), [0, 0, 0]);
}

/// SEED-PUB-15, SEED-ACL-10: the will's topic is checked too.
#[test]
fn seed_pub_15_will_of_a_denied_topic() {
    let rules = Rules::new("{deny, all, publish, [\"no\"]}.\n{allow, all}.\n");
    let broker = rules.start(&[]);
    let mut watcher = broker.client(V311);
    watcher.subscribe("no", 0);
    watcher.subscribe("yes", 0);
    for version in [V311, V5] {
        // Refused at CONNECT or dropped at the end: it is never delivered.
        let mut client = broker.raw(version);
        client.send(&Connect::new(version, &id()).will(Will::new("no", "x")).encode());
        let _ = client.event(ringmq_tests::WAIT);
        client.cut();
        broker.connect(&Connect::new(version, &id()).will(Will::new("yes", "x"))).cut();
        watcher.expect_message("yes", "x");
        watcher.expect_nothing();
    }
}

/// A broken rule file at start: one line that names file and line, exit code 1.
#[test]
fn broken_rules_at_start_are_an_error() {
    let rules = Rules::new("{allow, all}.\n{deny, everybody, subscribe, [\"a\"]}.\n");
    let folder = std::env::temp_dir().join(format!("ringmq-test-{}", id()));
    fs::create_dir_all(&folder).unwrap();
    let output = std::process::Command::new(ringmq_tests::broker::binary())
        .args(["console", "--data"])
        .arg(&folder)
        .args(["--set", "listener.tcp.external=127.0.0.1:0"])
        .args(["--set", "listener.tcp.internal=off", "--set", &rules.setting()])
        .output()
        .unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&rules.0.display().to_string()) && text.contains('2'), "{text}");
}
