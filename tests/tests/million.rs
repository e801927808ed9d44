//! `ringmq-bench million` on a few thousand clients: it holds them, and says so when it does not.

use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use ringmq_tests::Broker;
use ringmq_tests::broker::binary;
use serde_json::Value;

/// Few clients and short times.
fn million(broker: &Broker, json: &str, more: &[&str]) -> Child {
    let bench = binary().with_file_name("ringmq-bench");
    assert!(bench.is_file(), "build it: cargo build --release -p ringmq-bench");
    let mut command = Command::new(bench);
    command
        .args(["million", "--settle", "0.2", "--idle", "0.2", "--ping-time", "0.5"])
        .args(["--port", &broker.address().port().to_string(), "--json", json])
        .args(["--broker-pid", &broker.pid().to_string(), "--threads", "2"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn result(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn clients_are_held_pinged_published_to_and_stormed() {
    for (version, shards) in [("311", "2"), ("5", "3")] {
        let broker = Broker::start(&["--shards", shards]);
        let json = broker.folder().join("million.json").display().to_string();
        let more = ["-n", "3000", "--publish", "500", "-V", version];
        let output = million(&broker, &json, &more).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("3000 clients held: "), "{}", text(&output));
        let result = result(&json);
        assert_eq!(result["publish"]["arrived"], 500);
        assert_eq!(result["ping_1"]["answered"], 3000);
        assert_eq!(result["ping_2"]["answered"], 3000);
        assert_eq!(result["storm"]["closed"], 300);
        assert!(result["memory"]["broker_rss_bytes_per_client"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_broker_that_refuses_some_makes_the_run_fail() {
    let broker = Broker::start(&["listener.tcp.external.max_clients=1500"]);
    let json = broker.folder().join("million.json").display().to_string();
    let output = million(&broker, &json, &["-n", "2000"]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("not all is well: connecting: 1500 of 2000: "), "{said}");
    let failures = result(&json)["failures"].as_object().unwrap().clone();
    assert!(!failures.is_empty(), "counted by reason");
}

#[test]
fn a_broker_that_dies_makes_the_run_fail() {
    let mut broker = Broker::start(&[]);
    let json = broker.folder().join("million.json").display().to_string();
    let run = million(&broker, &json, &["-n", "1000", "--pings", "100"]);
    thread::sleep(Duration::from_secs(3));
    broker.terminate();
    let output = run.wait_with_output().unwrap();
    assert!(broker.wait_end(Duration::from_secs(10)).success());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("not all is well: ") && said.contains("closed by the broker"), "{said}");
}

#[test]
fn bad_options_are_one_line() {
    let broker = Broker::start(&[]);
    for (options, code, what) in [
        (&["-n", "0"][..], 2, "0 is not in 1..=16000000"),
        (&["--ifaddr", "127.0.0.300"], 2, "127.0.0.300"),
        (&["--ifaddr", "nonsense"], 2, "nonsense"),
        (&["--broker-pid", "999999999"], 1, "999999999"),
    ] {
        let output = million(&broker, "/dev/null", options).wait_with_output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{options:?}: {said}");
        assert!(said.contains(what) && said.trim_end().lines().count() == 1, "{options:?}: {said}");
    }
}
