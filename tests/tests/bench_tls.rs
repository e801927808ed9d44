//! `ringmq-bench` over TLS and WebSocket: emqtt_bench's options, scenarios, and those in which established clients feel others.

use std::process::{Command, Output};

use ringmq_tests::broker::load_tool;
use ringmq_tests::certificates::Site;
use ringmq_tests::listening::{address, start};
use ringmq_tests::{Broker, id};
use serde_json::Value;

const WS: &str = "listener.ws.w=127.0.0.1:0";

/// A broker with a listener of each kind: `external`, `t` with TLS, `w` with WebSocket, `x` with both.
fn broker(site: &Site) -> Broker {
    let own = vec![WS.to_owned()];
    start(&["--shards", "2"], &[own, site.listener("ssl", "t"), site.listener("wss", "x")])
}

fn run(words: &str) -> Output {
    Command::new(load_tool()).args(words.split_whitespace()).output().expect("it starts")
}

#[track_caller]
fn succeed(words: &str) -> String {
    let output = run(words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a scenario on a listener and gives its result.
#[track_caller]
fn measure(broker: &Broker, listener: &str, words: &str) -> Value {
    let path = std::env::temp_dir().join(format!("ringmq-tls-{}.json", id()));
    let port = address(broker, listener).port();
    succeed(&format!(
        "scenario {words} --port {port} --settle 0.1 --quiet --broker-pid {} --json {}",
        broker.pid(),
        path.display()
    ));
    let text = std::fs::read_to_string(&path).expect("the result");
    std::fs::remove_file(&path).expect("it is there");
    serde_json::from_str(&text).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn scenarios_lose_nothing_over_any_transport() {
    let site = Site::new();
    let broker = broker(&site);
    for (listener, options, transport) in [
        ("t", "--ssl", "tls"),
        ("t", "--ssl-version tlsv1.2", "tls"),
        ("w", "--ws", "ws"),
        ("x", "-S --ws", "wss"),
    ] {
        let words = format!("pairs -n 20 -r 400 -d 1 -q 1 --warmup 0.2 {options}");
        let result = measure(&broker, listener, &words);
        assert_eq!(result["options"]["transport"], transport);
        assert_eq!(result["totals"]["lost"], 0, "{result}");
        assert_eq!(result["totals"]["duplicates"], 0, "{result}");
        assert_eq!(result["failures"], serde_json::json!({}), "{result}");
        assert!(number(&result["window"]["delivered"]) >= 200.0, "{result}");
        assert_eq!(result["handshakes"]["full"], 40, "{result}");
        // Large messages, flat out: records and frames of all lengths.
        let words = format!("pairs -n 2 -r 0 -w 8 -s 40000 -d 0.5 --warmup 0.1 {options}");
        let result = measure(&broker, listener, &words);
        assert_eq!(result["totals"]["lost"], 0, "{result}");
        assert_eq!(result["failures"], serde_json::json!({}), "{result}");
        assert!(number(&result["window"]["delivered"]) >= 10.0, "{result}");
    }
}

#[test]
fn emqtt_benchs_options_for_tls_and_websocket_work() {
    let site = Site::new();
    let own = vec![WS.to_owned()];
    let broker = start(&[], &[own, site.verifying("ssl", "t"), site.listener("wss", "x")]);
    let (certificate, key) = site.put_client("client", &site.authority.client("device", 7));
    let ca = site.folder.path("ca.pem");
    let files = format!("--cacertfile {ca} --certfile {certificate} --keyfile {key}");
    for (listener, options) in [
        ("t", format!("-S {files}")),
        ("t", format!("--ssl-version tlsv1.3 {files}")),
        ("w", "--ws".to_owned()),
        ("x", "--ws true -S true".to_owned()),
    ] {
        let port = address(&broker, listener).port();
        let output = succeed(&format!(
            "pub -h localhost -p {port} -c 5 -R 500 -t bench/%i -q 1 -I 5 -L 100 {options}"
        ));
        let output = output.replace('\r', "");
        assert!(output.contains("pub_nosub total=100 "), "{options}: {output}");
        assert!(output.contains("connect_succ total=5 "), "{options}: {output}");
    }
    // Without a certificate the broker refuses, and the tool says so.
    let port = address(&broker, "t").port();
    let output = run(&format!("conn -h 127.0.0.1 -p {port} -c 1 -S"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("tls_alert_received"), "{said}");
}

#[test]
fn tls_costs_memory_and_the_difference_is_told() {
    let site = Site::new();
    let broker = broker(&site);
    let beside = address(&broker, "external").port();
    let result = measure(&broker, "t", &format!("tls-idle -n 300 -d 0.2 --beside-port {beside}"));
    for group in ["plain", "tls"] {
        assert_eq!(result[group]["clients"], 300, "{result}");
    }
    assert!(number(&result["difference"]["broker_rss_bytes_per_client"]) > 1_000.0, "{result}");
}

#[test]
fn handshakes_are_counted_and_felt() {
    let site = Site::new();
    let broker = broker(&site);
    let beside = address(&broker, "external").port();
    for resume in [false, true] {
        let words = format!(
            "tls-handshakes -r 100 -d 1 --quiet-time 0.5 --warmup 0.1 --probes 5 --probe-rate 200 \
             --resume {resume} --beside-port {beside}"
        );
        let result = measure(&broker, "t", &words);
        for kind in ["handshakes_paced", "handshakes_flat_out"] {
            let found = &result[kind];
            assert!(number(&found["clients"]) >= 20.0, "{result}");
            assert!(number(&found["broker_clients_per_core_s"]) > 0.0, "{result}");
            assert_eq!(found["failures"], serde_json::json!({}), "{result}");
            let [full, resumed] =
                ["full_handshakes", "resumed_handshakes"].map(|name| number(&found[name]));
            assert!(if resume { resumed > full } else { resumed == 0.0 && full > 0.0 }, "{result}");
        }
        for probes in ["probes_other_listener", "probes_same_listener"] {
            let found = &result[probes];
            assert_eq!(found["sent"], found["delivered"], "{result}");
            assert!(number(&found["quiet_us"]["count"]) >= 20.0, "{result}");
            assert!(number(&found["busy_us"]["count"]) >= 20.0, "{result}");
            assert!(number(&found["p99_ratio"]) > 0.0, "{result}");
        }
    }
}

#[test]
fn all_come_back_beside_established_clients() {
    let site = Site::new();
    let broker = broker(&site);
    let beside = address(&broker, "external").port();
    for (listener, options) in [("t", "-S"), ("w", "--ws")] {
        let words = format!(
            "reconnect-storm -n 200 --quiet-time 0.5 --warmup 0.1 --probes 5 --probe-rate 500 \
             --beside-port {beside} {options}"
        );
        let result = measure(&broker, listener, &words);
        let storm = &result["storm"];
        assert_eq!(
            (&storm["lost_clients"], &storm["back"]),
            (&200.into(), &200.into()),
            "{result}"
        );
        assert!(number(&storm["seconds"]) > 0.0, "{result}");
        let found = &result["probes_other_listener"];
        assert_eq!(found["sent"], found["delivered"], "{result}");
        assert!(number(&found["quiet_us"]["count"]) >= 50.0, "{result}");
        assert!(number(&found["busy_us"]["count"]) >= 1.0, "{result}");
    }
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let site = Site::new();
    let broker = broker(&site);
    let port = |listener: &str| address(&broker, listener).port();
    for (words, code, text) in [
        (
            format!("pairs -n 2 --ssl --port {}", port("external")),
            1,
            "only 0 of 4 clients got ready: closed by the broker",
        ),
        (
            format!("pairs -n 2 --ws --port {}", port("external")),
            1,
            "only 0 of 4 clients got ready",
        ),
        (format!("idle -n 2 --ssl --certfile x --port {}", port("t")), 2, "together"),
        (format!("tls-idle -n 2 --port {}", port("t")), 2, "--broker-pid"),
    ] {
        let output = run(&format!("scenario {words} --settle 0.1 --connect-timeout 10"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words}: {said}");
        assert!(said.contains(text), "{words}: {said}");
        assert_eq!(said.lines().count(), 1, "{words}: {said}");
    }
}
