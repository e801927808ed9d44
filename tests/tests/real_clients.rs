//! Real clients against the broker: mosquitto's, paho-mqtt, MQTT.js, rumqttc. They are installed by `scripts/install-test-deps`; a client
//! that is missing fails its test with that name.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ringmq_tests::broker::{root, target};
use ringmq_tests::certificates::Site;
use ringmq_tests::commands::{Subscriber, run};
use ringmq_tests::listening::{address, start};
use ringmq_tests::{Broker, V5, id, shared, topic};

const VERSIONS: [&str; 3] = ["31", "311", "5"];

/// A mosquitto client with host, port and version.
fn mosquitto(name: &str, broker: &Broker, version: &str) -> Command {
    let mut command = Command::new(name);
    command.args(["-h", "127.0.0.1", "-p", &broker.address().port().to_string(), "-V", version]);
    command
}

/// mosquitto_sub and mosquitto_pub at one QoS, published by each version.
fn publish_and_subscribe(broker: &Broker, version: &str, qos: &str) {
    let prefix = topic();
    let mut command = mosquitto("mosquitto_sub", broker, version);
    command.args([
        "-t",
        &format!("{prefix}/#"),
        "-q",
        qos,
        "-C",
        "3",
        "-W",
        "10",
        "-F",
        "got %t %p %q",
    ]);
    let mut subscriber = Subscriber::start(&mut command);
    for publisher in VERSIONS {
        let name = format!("{prefix}/{publisher}/temperature");
        let mut command = mosquitto("mosquitto_pub", broker, publisher);
        run(command.args(["-t", &name, "-m", "37.5", "-q", qos]));
        assert_eq!(subscriber.wait_for("got "), format!("got {name} 37.5 {qos}"));
    }
    subscriber.end();
}

/// SEED-PROTO-01, SEED-PROTO-02
#[test]
fn mosquitto_clients_at_every_version_and_qos() {
    let broker = shared();
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            publish_and_subscribe(&broker, version, qos);
        }
    }
}

/// The same with 1 and 8 shards at QoS 2.
#[test]
fn mosquitto_clients_with_1_and_8_shards() {
    for shards in ["1", "8"] {
        let broker = Broker::start(&["--shards", shards]);
        for version in VERSIONS {
            publish_and_subscribe(&broker, version, "2");
        }
    }
}

/// SEED-PROTO-25: request and response; mosquitto_rr speaks MQTT 5 by default and 3.1.1 too.
#[test]
fn mosquitto_rr_request_and_response() {
    let broker = shared();
    let (request, response) = (topic(), topic());
    let mut command = mosquitto("mosquitto_sub", &broker, "5");
    command.args(["-t", &request, "-C", "1", "-W", "10", "-F", "got %R %p"]);
    let mut server = Subscriber::start(&mut command);
    let (address, to, back) = (broker.address().port().to_string(), request, response.clone());
    let client = std::thread::spawn(move || {
        let mut command = Command::new("mosquitto_rr");
        command.args(["-h", "127.0.0.1", "-p", &address, "-V", "5", "-t", &to, "-e", &back]);
        run(command.args(["-m", "question", "-W", "10"]))
    });
    assert_eq!(server.wait_for("got "), format!("got {response} question"));
    let mut command = mosquitto("mosquitto_pub", &broker, "5");
    run(command.args(["-t", &response, "-m", "answer"]));
    let output = client.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "answer");
}

/// SEED-PUB-12, SEED-SESS-01: retained messages and a session, by mosquitto's clients.
#[test]
fn mosquitto_retained_and_session() {
    let broker = shared();
    for version in VERSIONS {
        let (name, client_id) = (topic(), id());
        run(mosquitto("mosquitto_pub", &broker, version)
            .args(["-t", &name, "-m", "kept", "-r", "-q", "1"]));
        let mut command = mosquitto("mosquitto_sub", &broker, version);
        let output = run(command.args(["-t", &name, "-C", "1", "-W", "5", "-F", "%r %p"]));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1 kept", "{version}");
        run(mosquitto("mosquitto_pub", &broker, version).args(["-t", &name, "-n", "-r"]));
        let session = |more: &[&str]| {
            let mut command = mosquitto("mosquitto_sub", &broker, version);
            command.args(["-t", &name, "-q", "1", "-i", &client_id, "-c"]).args(more);
            if version == "5" {
                command.args(["-x", "60"]);
            }
            command
        };
        run(&mut session(&["-E"]));
        run(mosquitto("mosquitto_pub", &broker, version)
            .args(["-t", &name, "-m", "waited", "-q", "1"]));
        let output = run(&mut session(&["-C", "1", "-W", "5"]));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "waited", "{version}");
    }
}

/// SEED-PUB-14
#[test]
fn mosquitto_will() {
    let broker = shared();
    let name = topic();
    let mut command = mosquitto("mosquitto_sub", &broker, "5");
    command.args(["-t", &name, "-C", "1", "-W", "10", "-F", "got %p"]);
    let mut watcher = Subscriber::start(&mut command);
    let mut command = mosquitto("mosquitto_sub", &broker, "311");
    command.args(["-t", &topic(), "--will-topic", &name, "--will-payload", "gone"]);
    drop(Subscriber::start(&mut command)); // killed
    watcher.wait_for("got gone");
}

#[track_caller]
fn python() -> PathBuf {
    let path = target().join("test-venv/bin/python");
    assert!(path.is_file(), "{} is missing: run scripts/install-test-deps", path.display());
    path
}

/// paho-mqtt for Python, in its three versions.
#[test]
fn paho_mqtt() {
    let broker = shared();
    let (python, script) = (python(), root().join("tests/clients/paho_client.py"));
    let port = broker.address().port().to_string();
    for version in ["3", "4", "5"] {
        run(Command::new(&python).arg(&script).args(["127.0.0.1", &port, version]));
    }
}

/// MQTT.js, in its three versions.
#[test]
fn mqtt_js() {
    let broker = shared();
    let module = target().join("test-node/node_modules/mqtt");
    assert!(module.is_dir(), "{} is missing: run scripts/install-test-deps", module.display());
    let script = root().join("tests/clients/mqttjs_client.js");
    let port = broker.address().port().to_string();
    for version in ["3", "4", "5"] {
        run(Command::new("node").arg(&script).arg(&module).args(["127.0.0.1", &port, version]));
    }
}

/// SEED-LSN-04, SEED-LSN-05, SEED-LSN-16: paho over TLS with a client certificate that gives the user name, and over WebSocket with and
/// without TLS.
#[test]
fn paho_mqtt_over_tls_and_websocket() {
    let site = Site::new();
    let mut settings = site.verifying("ssl", "t");
    settings.push("listener.ssl.t.peer_cert_as_username=cn".to_owned());
    settings.push("listener.ssl.t.mountpoint=%u/".to_owned());
    settings.push("listener.ws.w=127.0.0.1:0".to_owned());
    let broker = start(&[], &[settings, site.listener("wss", "s")]);
    let (python, script) = (python(), root().join("tests/clients/paho_client.py"));
    let ca = site.folder.path("ca.pem");
    let (certificate, key) = site.put_client("paho", &site.authority.client("paho 1", 1));
    let mut watcher = broker.client(V5);
    watcher.subscribe("paho 1/paho/+/retained", 0);
    for version in ["3", "4", "5"] {
        for (listener, more) in [
            ("t", vec!["tcp", &ca, &certificate, &key]),
            ("w", vec!["websockets"]),
            ("s", vec!["websockets", &ca]),
        ] {
            let port = address(&broker, listener).port().to_string();
            let mut command = Command::new(&python);
            run(command.arg(&script).args(["127.0.0.1", &port, version]).args(more));
        }
        // The prefix shows what the user name was.
        assert!(watcher.message().topic.starts_with("paho 1/paho/"));
        let _ = watcher.message();
    }
}

/// SEED-LSN-03 to SEED-LSN-05: MQTT.js over mqtts://, ws:// and wss://.
#[test]
fn mqtt_js_over_tls_and_websocket() {
    let site = Site::new();
    let mut settings = [site.listener("ssl", "t"), site.listener("wss", "s")].concat();
    settings.push("listener.ws.w=127.0.0.1:0".to_owned());
    let broker = start(&[], &[settings]);
    let module = target().join("test-node/node_modules/mqtt");
    assert!(module.is_dir(), "{} is missing: run scripts/install-test-deps", module.display());
    let script = root().join("tests/clients/mqttjs_client.js");
    let ca = site.folder.path("ca.pem");
    for version in ["3", "4", "5"] {
        for (listener, more) in
            [("t", vec!["mqtts", &ca]), ("w", vec!["ws"]), ("s", vec!["wss", &ca])]
        {
            let port = address(&broker, listener).port().to_string();
            let mut command = Command::new("node");
            command.arg(&script).arg(&module);
            run(command.args(["127.0.0.1", &port, version]).args(more));
        }
    }
}

/// rumqttc with MQTT 3.1.1.
#[test]
fn rumqttc_v4() {
    use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
    let broker: Arc<Broker> = shared();
    let mut options = MqttOptions::new(id(), "127.0.0.1", broker.address().port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 100);
    let name = topic();
    client.subscribe(&name, QoS::ExactlyOnce).unwrap();
    let mut expected = Vec::new();
    for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .cycle()
        .take(30)
        .enumerate()
    {
        client.publish(&name, qos, false, number.to_string()).unwrap();
        expected.push((number.to_string(), qos));
    }
    let mut seen = Vec::new();
    for event in connection.iter() {
        if let Event::Incoming(Packet::Publish(publish)) = event.expect("the connection holds") {
            seen.push((String::from_utf8(publish.payload.to_vec()).unwrap(), publish.qos));
            if seen.len() == expected.len() {
                break;
            }
        }
    }
    // Order is promised for each QoS.
    seen.sort_by_key(|(_, qos)| *qos as u8);
    expected.sort_by_key(|(_, qos)| *qos as u8);
    assert_eq!(seen, expected);
    client.disconnect().unwrap();
}

/// rumqttc with MQTT 5.
#[test]
fn rumqttc_v5() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
    use rumqttc::v5::{Client, Event, MqttOptions};
    let broker: Arc<Broker> = shared();
    let mut options = MqttOptions::new(id(), "127.0.0.1", broker.address().port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 100);
    let name = topic();
    client.subscribe(&name, QoS::ExactlyOnce).unwrap();
    let properties = PublishProperties {
        user_properties: vec![("a".into(), "b".into())],
        content_type: Some("text".into()),
        ..PublishProperties::default()
    };
    let mut expected = Vec::new();
    for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .cycle()
        .take(30)
        .enumerate()
    {
        let properties = properties.clone();
        client.publish_with_properties(&name, qos, false, number.to_string(), properties).unwrap();
        expected.push((number.to_string(), qos));
    }
    let mut seen = Vec::new();
    for event in connection.iter() {
        if let Event::Incoming(Packet::Publish(publish)) = event.expect("the connection holds") {
            let got = publish.properties.expect("properties");
            assert_eq!(got.user_properties, properties.user_properties);
            assert_eq!(got.content_type, properties.content_type);
            seen.push((String::from_utf8(publish.payload.to_vec()).unwrap(), publish.qos));
            if seen.len() == expected.len() {
                break;
            }
        }
    }
    // Order is promised for each QoS.
    seen.sort_by_key(|(_, qos)| *qos as u8);
    expected.sort_by_key(|(_, qos)| *qos as u8);
    assert_eq!(seen, expected);
    client.disconnect().unwrap();
}
