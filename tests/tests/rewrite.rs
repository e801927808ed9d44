//! Rules that rewrite topics (SEED-PUB-18, SEED-MOD-03).

use std::fs;
use std::process::Command;

use ringmq_tests::broker::binary;
use ringmq_tests::{Broker, Connect, Publish, V5, V311, Version, Will, id};

/// SEED-PUB-18: EMQ's own two rules, with every protocol.
#[test]
fn seed_pub_18_publish_and_subscribe_are_rewritten() {
    let broker = Broker::start(&[
        "module.rewrite=on",
        "module.rewrite.rule.1=x/# ^x/y/(.+)$ z/y/$1",
        "module.rewrite.rule.2=y/+/z/# ^y/(.+)/z/(.+)$ y/z/$2",
    ]);
    let mut watcher = broker.client(V5);
    watcher.subscribe("#", 1);
    for version in Version::ALL {
        let mut client = broker.client(version);
        for (sent, arrives) in [("x/y/1", "z/y/1"), ("y/a/z/b", "y/z/b"), ("x/1", "x/1")] {
            client.publish(sent, "p", 1);
            watcher.expect_message(arrives, "p");
        }
        client.subscribe("x/y/+", 1);
        client.publish("z/y/2", "direct", 1);
        client.expect_message("z/y/2", "direct");
        watcher.expect_message("z/y/2", "direct");
        client.unsubscribe(&["x/y/+"]);
        client.publish("x/y/3", "none", 1);
        client.expect_nothing();
        watcher.expect_message("z/y/3", "none");
    }
    // Behind the prefix of a shared subscription.
    let mut shared = broker.client(V5);
    shared.subscribe("$share/g/x/y/s", 1);
    let listed = broker.cli(&["subscriptions", "list"]);
    assert!(listed.contains("$share/g/z/y/s"), "{listed}");
    let connect = Connect::new(V311, &id()).will(Will::new("x/y/will", "gone"));
    broker.connect(&connect).cut();
    assert_eq!(watcher.message().topic, "z/y/will");
}

/// SEED-PUB-18, SEED-ACL-01: access rules see what the client sent; the last rule that fits holds; a mountpoint stands in front.
#[test]
fn seed_pub_18_order_of_rules_access_and_mountpoint() {
    let rules = std::env::temp_dir().join(format!("ringmq-rewrite-{}.conf", id()));
    fs::write(&rules, "{deny, all, publish, [\"a/secret\"]}.\n{allow, all}.\n").unwrap();
    let file = format!("mqtt.acl_file={}", rules.display());
    let broker = Broker::start(&[
        &file,
        "listener.tcp.external.mountpoint=m/",
        "module.rewrite=on",
        "module.rewrite.rule.1=a/# ^a/(.+)$ first/$1",
        "module.rewrite.rule.2=a/+ ^a/(.+)$ second/$1",
        "module.rewrite.rule.3=later/# ^later/(.+)$ $delayed/600/$1",
    ]);
    let _ = fs::remove_file(&rules);
    let mut client = broker.client(V5);
    client.subscribe("#", 1);
    client.publish("a/b", "x", 1);
    client.expect_message("second/b", "x");
    client.publish("a/b/c", "x", 1);
    client.expect_message("first/b/c", "x");
    client.send_publish(&Publish::new("a/secret", "x").qos(1, 7));
    assert_eq!(client.expect_puback(7).reason, 0x87);
    client.publish("later/z", "x", 1);
    client.expect_nothing();
    assert!(broker.cli(&["delayed", "list"]).contains("topic=m/z,"));
    assert!(broker.cli(&["routes", "list"]).starts_with("m/# ->"));
}

/// SEED-PUB-18: what is no rule is told with file, line and remedy; off, nothing is rewritten.
#[test]
fn seed_pub_18_bad_rules_are_told() {
    let path = std::env::temp_dir().join(format!("ringmq-rewrite-{}.conf", id()));
    fs::write(&path, "module.rewrite = on\nmodule.rewrite.rule.1 = x/# ^x/(y z/$1\n").unwrap();
    let mut command = Command::new(binary());
    let output = command.args(["console", "--check", "--config"]).arg(&path).output().unwrap();
    let _ = fs::remove_file(&path);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    let place = format!("{}:2: module.rewrite.rule.1 = x/# ^x/(y z/$1: ", path.display());
    assert!(text.contains(&place) && text.contains("unclosed group"), "{text}");
    let broker = Broker::start(&["module.rewrite.rule.1=x/# ^x/y/(.+)$ z/y/$1"]);
    let mut client = broker.client(V5);
    client.subscribe("x/#", 1);
    client.publish("x/y/1", "p", 1);
    client.expect_message("x/y/1", "p");
}
