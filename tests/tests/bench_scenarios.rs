//! `ringmq-bench scenario`: short runs of the scenarios against the broker. What is lost or missing in the result fails.

use std::process::{Command, Output};
use std::sync::Arc;

use ringmq_tests::broker::{load_tool, shared};
use ringmq_tests::{Broker, id};
use serde_json::Value;

fn run(port: u16, arguments: &str) -> Output {
    let arguments = arguments.split_whitespace();
    let ending = ["--port", &port.to_string(), "--settle", "0.1"].map(str::to_owned);
    let words = ["scenario".to_owned()].into_iter().chain(arguments.map(str::to_owned));
    Command::new(load_tool()).args(words.chain(ending)).output().expect("it starts")
}

/// Runs a scenario against the common broker, gives the result; checks what all have in common.
#[track_caller]
fn measure(broker: &Arc<Broker>, scenario: &str) -> Value {
    let path = std::env::temp_dir().join(format!("ringmq-scenario-{}.json", id()));
    // Each run has names of its own: tests share the broker.
    let prefix: String = id().chars().rev().filter(char::is_ascii_alphanumeric).take(7).collect();
    let more = format!(
        "--json {} --prefix {prefix} --broker-pid {} --warmup 0.2",
        path.display(),
        broker.pid()
    );
    let output = run(broker.address().port(), &format!("{scenario} {more}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{scenario}: {said}");
    let text = std::fs::read_to_string(&path).expect("the result");
    std::fs::remove_file(&path).expect("it is there");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    for (group, fields) in [
        ("machine", &["kernel", "cpus_online"][..]),
        ("options", &["target", "qos", "rate_per_s", "payload_bytes", "threads"]),
        (
            "connect",
            &["clients", "ready", "clients_per_s", "latency_us", "broker_cpu_us_per_client"],
        ),
        (
            "memory",
            &[
                "broker_rss_bytes_per_client",
                "generator_rss_bytes_per_client",
                "kernel_both_ends_tcp_bytes_per_client",
                "kernel_both_ends_slab_bytes_per_client",
            ],
        ),
        (
            "window",
            &["offered_per_s", "sent_per_s", "delivered_per_s", "broker_cpu_us_per_delivery"],
        ),
        ("totals", &["lost", "duplicates", "reordered", "foreign", "pings_sent"]),
    ] {
        for field in fields {
            assert!(result[group].get(field).is_some(), "{scenario}: no {group}.{field} in {text}");
        }
    }
    assert_eq!(result["totals"]["lost"], 0, "{scenario}: {text}");
    assert_eq!(result["totals"]["duplicates"], 0, "{scenario}: {text}");
    assert_eq!(result["totals"]["foreign"], 0, "{scenario}: {text}");
    assert_eq!(result["failures"], serde_json::json!({}), "{scenario}: {text}");
    result
}

/// Whether about so many messages were delivered, and each had a latency.
#[track_caller]
fn assert_delivered(result: &Value, least: u64) {
    let delivered = result["window"]["delivered"].as_u64().expect("a number");
    assert!(delivered >= least, "{delivered} of {least}: {result}");
    for percentile in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        let value = result["latency_us"][percentile].as_f64().expect("a number");
        assert!(value > 0.0 && value < 30e6, "{percentile}: {value}");
    }
    let per_delivery = result["window"]["broker_cpu_us_per_delivery"].as_f64();
    assert!(per_delivery.is_some_and(|us| us >= 0.0), "{result}");
}

#[test]
fn pairs_lose_nothing_at_any_qos() {
    let broker = shared();
    for (qos, version) in [(0, "311"), (1, "5"), (2, "31"), (2, "5")] {
        let result = measure(&broker, &format!("pairs -n 20 -r 400 -d 1 -q {qos} -V {version}"));
        assert_delivered(&result, 200);
        assert_eq!(result["connect"]["ready"], 40);
    }
    // Flat out, on two threads.
    let result = measure(&broker, "pairs -n 20 -r 0 -w 8 -d 0.5 -q 1 --threads 2");
    assert_delivered(&result, 200);
}

#[test]
fn one_publisher_reaches_all_and_all_reach_one() {
    let broker = shared();
    assert_delivered(&measure(&broker, "fanout -n 50 -r 20 -d 1"), 500);
    // Several topics, subscribers on both threads.
    let result = measure(&broker, "fanout-5-1000-5-250K -n 40 -r 50 -d 1 --threads 2");
    assert_delivered(&result, 1_000);
    assert_eq!(result["options"]["publishers"], 5);
    assert_eq!(result["options"]["payload_bytes"], 16);
    assert_delivered(&measure(&broker, "fan-in -n 20 -r 400 -d 1 -q 1 --threads 2"), 200);
    assert_delivered(&measure(&broker, "hot-pair -w 100 -d 0.5"), 1_000);
}

#[test]
fn shared_subscribers_hear_each_message_once() {
    let broker = shared();
    for threads in [1, 2] {
        let scenario = format!("sharedsub-1K-5-1K-1K -n 100 -r 400 -d 1 --threads {threads}");
        let result = measure(&broker, &scenario);
        assert_delivered(&result, 200);
        assert_eq!(result["options"]["subscribers"], 5);
        assert_eq!(result["options"]["version"], "V5");
    }
}

#[test]
fn a_few_are_active_among_many_idle_clients() {
    let broker = shared();
    let result = measure(&broker, "p2p-idle-100K -n 400 --active 5 -r 100 -d 1 --keep-alive 2");
    assert_delivered(&result, 50);
    assert_eq!(result["options"]["idle_clients"], 380);
    assert_eq!(result["options"]["publishers"], 10);
    assert!(result["totals"]["pings_answered"].as_u64().expect("a number") > 100, "{result}");
}

#[test]
fn clients_only_connect_at_their_rate() {
    let broker = shared();
    let result = measure(&broker, "conn-tcp-10k-100 -n 100 --connect-rate 200 -d 0.2");
    let per_s = result["connect"]["clients_per_s"].as_f64().expect("a number");
    assert!(per_s <= 205.0, "{per_s} clients/s");
    assert_eq!(result["connect"]["ready"], 100);
}

#[test]
fn all_come_back_after_a_storm() {
    let broker = shared();
    for threads in [1, 2] {
        let result = measure(&broker, &format!("storm -n 300 -r 300 -d 1 --threads {threads}"));
        let storm = &result["storm"];
        assert_eq!((&storm["lost_clients"], &storm["back"]), (&300.into(), &300.into()), "{storm}");
        assert!(storm["seconds"].as_f64().is_some_and(|s| s > 0.0), "{storm}");
        assert_eq!(storm["latency_us"]["count"], 300);
        assert_delivered(&result, 150);
    }
}

#[test]
fn churning_clients_all_get_through() {
    let broker = shared();
    for options in ["-r 200", "-r 200 --hold 0.05 --threads 2", "-r 0 -n 8 --hold 0.02"] {
        let result = measure(&broker, &format!("churn -d 1 {options}"));
        let connect = &result["connect"];
        assert!(connect["ready"].as_u64().expect("a number") >= 100, "{options}: {connect}");
        assert_eq!(connect["failed"], 0, "{options}");
        assert!(connect["latency_us"]["p50"].as_f64().expect("a number") > 0.0, "{options}");
    }
}

#[test]
fn progress_is_told_every_second() {
    let broker = shared();
    let port = broker.address().port();
    let output = run(port, "idle -n 30 --connect-rate 20 -d 1.5 --prefix slow");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("connecting: ") && said.contains(" of 30 ready"), "{said}");
    assert!(said.contains("measuring: "), "{said}");
    let output = run(port, "idle -n 30 --connect-rate 20 -d 1.5 --prefix slow --quiet");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let broker = shared();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let nobody = free.expect("an address").port();
    for (port, arguments, code, text) in [
        (
            nobody,
            "pairs -n 5",
            1,
            "only 0 of 10 clients got ready: connect: Connection refused (10)",
        ),
        (nobody, "churn -r 100 -d 0.3 --warmup 0", 1, "connect: Connection refused"),
        (broker.address().port(), "pairs --ifaddr 192.0.2.7", 2, "192.0.2.7 is no address"),
        (broker.address().port(), "pairs --publishers 2", 2, "--publishers is not for pairs"),
        (broker.address().port(), "no-such-case", 2, "no-such-case"),
    ] {
        let output = run(port, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        assert!(said.contains(text), "{arguments}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments}: {said}");
    }
}

#[test]
fn a_single_failing_client_does_not_stop_a_run() {
    let broker = Broker::start(&["listener.tcp.external.max_clients=30"]);
    let output = run(broker.address().port(), "idle -n 40 -d 0.1 --quiet --connect-timeout 5");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("clients fail: "), "{said}");
}
