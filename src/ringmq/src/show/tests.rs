//! The forms, byte for byte.

use serde_json::json;

use super::*;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("an object") };
    map
}

fn a_client() -> ClientLine {
    ClientLine {
        client_id: "mosqsub/43832-airlee.lo".to_owned(),
        clean_sess: true,
        username: Some("test".to_owned()),
        peername: "127.0.0.1:64896".to_owned(),
        connected_at: 1_452_929_113,
        proto_ver: 4,
        keepalive_s: 60,
        is_bridge: false,
        has_will: false,
        outbox_bytes: 0,
    }
}

#[test]
fn client_line() {
    assert_eq!(
        client(&a_client()),
        "Client(mosqsub/43832-airlee.lo, clean_sess=true, username=test, peername=127.0.0.1:64896, \
         connected_at=1452929113)"
    );
    let nobody = ClientLine { username: None, ..a_client() };
    assert!(client(&nobody).contains("username=undefined,"));
}

#[test]
fn a_name_cannot_fake_a_line() {
    let sly = ClientLine { client_id: "a\nb\u{1b}[2J\u{9b}é".to_owned(), ..a_client() };
    assert!(client(&sly).starts_with("Client(a\\nb\\u{1b}[2J\\u{9b}é, "), "{}", client(&sly));
}

#[test]
fn session_line() {
    let line = SessionLine {
        client_id: "c".to_owned(),
        clean_sess: false,
        connected: true,
        subscriptions: 2,
        max_inflight: 32,
        inflight: 1,
        mqueue_len: 3,
        mqueue_max: 1_000,
        mqueue_dropped: 4,
        awaiting_rel: 5,
        deliver_msg: 6,
        enqueue_msg: 7,
        created_at: 1_452_935_508,
        expiry_interval_s: 7_200,
        expires_at: None,
    };
    assert_eq!(
        session(&line),
        "Session(c, clean_sess=false, subscriptions=2, max_inflight=32, inflight=1, mqueue_len=3, mqueue_dropped=4, \
         awaiting_rel=5, deliver_msg=6, enqueue_msg=7, created_at=1452935508)"
    );
}

#[test]
fn route_topic_and_subscription_lines() {
    let line = RouteLine {
        topic: "t/+/x".to_owned(),
        nodes: vec!["emqttd2@127.0.0.1".to_owned(), "emqttd@127.0.0.1".to_owned()],
    };
    assert_eq!(route(&line), "t/+/x -> emqttd2@127.0.0.1,emqttd@127.0.0.1");
    assert_eq!(topic(&line), "t/+/x");
    let line = SubscriptionLine {
        client_id: "mosqsub/91042-airlee.lo".to_owned(),
        topic: "t/y".to_owned(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        subscription_id: None,
    };
    assert_eq!(subscription(&line), "mosqsub/91042-airlee.lo -> t/y:1");
    assert_eq!(subscription_item(&line), "{<<\"t/y\">>,1}");
}

#[test]
fn listener_lines() {
    let mut line = ListenerLine {
        listener: "mqtt:tcp:1883".to_owned(),
        name: "external".to_owned(),
        address: "0.0.0.0:1883".to_owned(),
        running: true,
        acceptors: 2,
        max_clients: 1_000_000,
        current_clients: 1,
        shutdown_count: Map::new(),
    };
    assert_eq!(
        listener(&line),
        "listener on mqtt:tcp:1883\n  acceptors       : 2\n  max_clients     : 1000000\n  current_clients : 1\n  \
         shutdown_count  : []"
    );
    line.shutdown_count = object(json!({"closed": 530, "conflict": 1}));
    assert!(listener(&line).ends_with(": [{closed,530},{conflict,1}]"));
}

#[test]
fn broker_lines() {
    let line = BrokerLine {
        node: "ringmq@127.0.0.1".to_owned(),
        sysdescr: "RingMQ".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_s: 5_124,
        uptime: "1 hours, 25 minutes, 24 seconds".to_owned(),
        datetime: "2016-01-16 13:17:32".to_owned(),
        pid: 1,
        shards: 2,
    };
    assert_eq!(
        broker(&line),
        "sysdescr  : RingMQ\nversion   : 0.1.0\nuptime    : 1 hours, 25 minutes, 24 seconds\ndatetime  : 2016-01-16 \
         13:17:32"
    );
}

#[test]
fn number_lines_are_sorted() {
    let numbers_of = object(json!({"topics/max": 2, "clients/count": 1}));
    assert_eq!(numbers(&numbers_of, 20), "clients/count       : 1\ntopics/max          : 2");
    let metrics = object(json!({"packets/publish/received": 3}));
    assert_eq!(numbers(&metrics, 24), "packets/publish/received: 3");
}

#[test]
fn vm_lines_stand_in_one_column() {
    let text = vm(&object(json!({
        "cpu/load1": "2.21", "cpu/load15": "0.10", "memory/total": 1, "process/limit": 256, "io/max_fds": 1024,
        "ports/count": 0,
    })));
    assert_eq!(
        text,
        "cpu/load1               : 2.21\ncpu/load15              : 0.10\nmemory/total            : 1\n\
         process/limit           : 256\nio/max_fds              : 1024\nports/count             : 0"
    );
}

#[test]
fn setting_lines_are_lines_of_a_file() {
    let line = SettingLine {
        key: "mqtt.max_packet_size".to_owned(),
        value: "64KB".to_owned(),
        origin: "default".to_owned(),
        doc: "Largest packet.".to_owned(),
    };
    assert_eq!(setting(&line, false).split_once("##").unwrap().1, " default");
    assert_eq!(
        setting(&line, true),
        "## Largest packet.\n## From: default\nmqtt.max_packet_size = 64KB\n"
    );
}
