//! MQTT 3.1 (`MQIsdp`, level 3), on the same port as the others (SEED-PROTO-01).

use ringmq_tests::packet::{ack, field, frame};
use ringmq_tests::{Connect, Publish, V5, V31, V311, Will, id, shared, topic};

/// SEED-PROTO-01, SEED-PROTO-02
#[test]
fn seed_proto_01_v31_publishes_and_subscribes_at_every_qos() {
    let broker = shared();
    for qos in 0..=2 {
        let name = topic();
        let mut client = broker.client(V31);
        client.subscribe(&name, qos);
        client.publish(&name, "x", qos);
        assert_eq!(client.expect_message(&name, "x").qos, qos);
        assert!(client.unsubscribe(&[&name]).is_empty());
        client.expect_alive();
        client.disconnect();
    }
}

/// SEED-PROTO-01: the three versions hear each other.
#[test]
fn seed_proto_01_versions_hear_each_other() {
    let broker = shared();
    let name = topic();
    let mut clients = [broker.client(V31), broker.client(V311), broker.client(V5)];
    for client in &mut clients {
        client.subscribe(&name, 2);
    }
    for publisher in 0..3 {
        for qos in 0..=2 {
            let text = format!("{publisher} at {qos}");
            clients[publisher].publish(&name, &text, qos);
            for client in &mut clients {
                assert_eq!(client.expect_message(&name, &text).qos, qos);
            }
        }
    }
}

/// SEED-PROTO-01: CONNECT of 3.1 as the bytes are.
#[test]
fn seed_proto_01_connect_of_3_1_is_told_by_name_and_level() {
    let broker = shared();
    let mut body = field(b"MQIsdp");
    body.extend([3, 2, 0, 60]);
    body.extend(field(id().as_bytes()));
    let mut client = broker.raw(V31);
    client.send(&frame(0x10, &body));
    assert_eq!(client.expect_connack().code, 0);
    client.expect_alive();
    // Level 4 with the old name, or level 3 with the new one, is neither.
    let connect = Connect::new(V31, &id());
    for (name, level) in [("MQTT", 3), ("MQIsdp", 5)] {
        let mut client = broker.raw(V31);
        client.send(&connect.encode_with(name, level, connect.flags(), &connect.payload()));
        match client.event(ringmq_tests::WAIT) {
            ringmq_tests::client::Event::Packet(ringmq_tests::Packet::ConnAck(answer)) => {
                assert_eq!(answer.code, 1);
                client.expect_closed();
            }
            event => assert_eq!(event, ringmq_tests::client::Event::Closed),
        }
    }
}

/// SEED-PROTO-07: 3.1 asks for 1 to 23 characters; longer ids are accepted, an empty one is not.
#[test]
fn seed_proto_07_client_ids_of_3_1() {
    let broker = shared();
    let long = format!("{:x<60}", id());
    broker.connect(&Connect::new(V31, &long)).disconnect();
    let (mut client, answer) = broker.try_connect(&Connect::new(V31, ""));
    assert_eq!(answer.code, 2);
    client.expect_closed();
}

/// SEED-SESS-01, SEED-PROTO-03: sessions and retransmission as with 3.1.1.
#[test]
fn seed_sess_01_v31_session_is_resumed() {
    let broker = shared();
    let (name, connect) = (topic(), Connect::new(V31, &id()).persistent());
    let mut client = broker.connect(&connect);
    client.subscribe(&name, 2);
    broker.client(V311).publish(&name, "under way", 2);
    let first = client.expect_publish();
    client.cut_and_wait();
    broker.client(V311).publish(&name, "waiting", 1);
    let mut client = broker.connect(&connect);
    assert_eq!(client.message(), first.dup());
    client.expect_message(&name, "waiting");
}

/// SEED-PUB-14
#[test]
fn seed_pub_14_v31_will() {
    let broker = shared();
    let name = topic();
    let mut watcher = broker.client(V31);
    watcher.subscribe(&name, 1);
    let connect = Connect::new(V31, &id()).will(Will::new(&name, "gone").qos(1));
    broker.connect(&connect).disconnect();
    watcher.expect_nothing();
    broker.connect(&connect).cut();
    watcher.expect_message(&name, "gone");
}

/// 3.1 allows DUP on SUBSCRIBE, UNSUBSCRIBE and PUBREL that are sent again (chapter 2.1); a server may not close for it.
#[test]
fn v31_dup_flag_of_requests_is_accepted() {
    let broker = shared();
    let name = topic();
    let mut client = broker.client(V31);
    let mut body = vec![0, 1];
    body.extend(field(name.as_bytes()));
    body.push(1);
    client.send(&frame(0x8A, &body));
    assert_eq!(client.expect_suback(1).codes, [1]);
    client.send_publish(&Publish::new(&name, "x").qos(2, 2));
    client.expect_pubrec(2);
    client.send(&ack(0x6A, 2));
    client.expect_pubcomp(2);
    client.expect_message(&name, "x");
    body.pop();
    client.send(&frame(0xAA, &body));
    client.expect_unsuback(1);
}
