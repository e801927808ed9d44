//! Subscriptions made when a client connects (SEED-PUB-17, SEED-MOD-02).

use ringmq_tests::{Broker, Connect, Publish, V5, V311, Version, id};

/// SEED-PUB-17: with every protocol, for the client id and the user name; no SUBACK; listed; whatever the access rules say.
#[test]
fn seed_pub_17_clients_are_subscribed_when_they_connect() {
    let rules = std::env::temp_dir().join(format!("ringmq-auto-{}.conf", id()));
    std::fs::write(&rules, "{deny, all, subscribe, [\"#\"]}.\n{allow, all}.\n").unwrap();
    let file = format!("mqtt.acl_file={}", rules.display());
    let broker = Broker::start(&[
        &file,
        "module.subscription=on",
        "module.subscription.1.topic=$client/%c",
        "module.subscription.1.qos=1",
        "module.subscription.2.topic=user/%u",
        "module.subscription.2.qos=2",
        "module.subscription.3.topic=all",
        "module.subscription.3.nl=1",
        "module.subscription.3.rap=on",
    ]);
    let _ = std::fs::remove_file(&rules);
    let mut publisher = broker.client(V5);
    for version in Version::ALL {
        let (name, user) = (id(), id());
        let mut client = broker.connect(&Connect::new(version, &name).username(&user));
        client.expect_nothing();
        publisher.publish(&format!("$client/{name}"), "1", 2);
        assert_eq!(client.expect_message(&format!("$client/{name}"), "1").qos, 1);
        publisher.publish(&format!("user/{user}"), "2", 2);
        assert_eq!(client.expect_message(&format!("user/{user}"), "2").qos, 2);
        publisher.send_publish(&Publish::new("all", "3").retain());
        let message = client.expect_message("all", "3");
        assert_eq!((message.qos, message.retain), (0, true), "retain as published");
        client.publish("all", "own", 0);
        client.expect_nothing();
        let listed = broker.cli(&["subscriptions", "show", &name]);
        for part in [format!("<<\"$client/{name}\">>,1"), format!("<<\"user/{user}\">>,2")] {
            assert!(listed.contains(&part), "{listed}");
        }
        publisher.publish_retained("all", "", 1);
    }
    // Who has no user name has no subscription by it.
    let name = id();
    let _client = broker.connect(&Connect::new(V311, &name));
    assert!(!broker.cli(&["subscriptions", "show", &name]).contains("user/"));
}

/// SEED-PUB-17: a new session gets retained messages; one that comes back has its subscription and gets none again.
#[test]
fn seed_pub_17_a_session_that_comes_back() {
    let broker = Broker::start(&[
        "module.subscription=on",
        "module.subscription.1.topic=news/%c",
        "module.subscription.1.qos=1",
        "module.subscription.7.topic=quiet",
        "module.subscription.7.rh=2",
    ]);
    let name = id();
    let news = format!("news/{name}");
    let mut publisher = broker.client(V311);
    publisher.publish_retained(&news, "kept", 1);
    publisher.publish_retained("quiet", "not sent", 1);
    let connect = Connect::new(V311, &name).persistent();
    let mut client = broker.connect(&connect);
    assert!(client.expect_message(&news, "kept").retain);
    client.expect_nothing();
    client.disconnect();
    publisher.publish(&news, "while away", 1);
    let mut client = broker.connect(&connect);
    assert!(!client.expect_message(&news, "while away").retain);
    client.expect_nothing();
    // What it unsubscribed from is there again when it comes back: the operator decides.
    client.unsubscribe(&[&news]);
    client.disconnect();
    let mut client = broker.connect(&connect);
    assert!(client.expect_message(&news, "kept").retain);
}

/// SEED-LSN-10: behind the mountpoint of its listener.
#[test]
fn seed_pub_17_behind_the_mountpoint() {
    let broker = Broker::start(&[
        "listener.tcp.external.mountpoint=%c/",
        "module.subscription=on",
        "module.subscription.1.topic=inbox",
    ]);
    let name = id();
    let mut client = broker.connect(&Connect::new(V5, &name));
    client.publish("inbox", "x", 0);
    client.expect_message("inbox", "x");
    let listed = broker.cli(&["subscriptions", "list"]);
    assert_eq!(listed, format!("{name} -> {name}/inbox:0\n"));
}
