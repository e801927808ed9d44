//! `ringmq-bench` and what a broker keeps: acknowledgements, sessions that come back for their messages, retained messages.

use std::process::{Command, Output};

use ringmq_tests::broker::{load_tool, shared};
use ringmq_tests::{Broker, id};
use serde_json::Value;

fn run(words: &str) -> Output {
    Command::new(load_tool()).args(words.split_whitespace()).output().expect("it starts")
}

/// Runs a scenario and gives its result.
#[track_caller]
fn measure(broker: &Broker, words: &str) -> Value {
    let path = std::env::temp_dir().join(format!("ringmq-durable-{}.json", id()));
    let output = run(&format!(
        "scenario {words} --port {} --settle 0.1 --quiet --broker-pid {} --json {}",
        broker.address().port(),
        broker.pid(),
        path.display()
    ));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}: {said}");
    let text = std::fs::read_to_string(&path).expect("the result");
    std::fs::remove_file(&path).expect("it is there");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(result["failures"], serde_json::json!({}), "{result}");
    result
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Names of its own for each run: tests share the broker.
fn prefix() -> String {
    id().chars().rev().filter(char::is_ascii_alphanumeric).take(7).collect()
}

#[test]
fn acknowledgements_to_absent_sessions_are_timed() {
    let broker = shared();
    for (qos, version) in [(1, "5"), (2, "311")] {
        let words = format!(
            "durable-pub -n 10 -w 5 -q {qos} -V {version} -d 0.5 --warmup 0.1 --prefix {}",
            prefix()
        );
        let result = measure(&broker, &words);
        let publish = &result["publish"];
        assert_eq!(result["create"]["sessions"], 10, "{result}");
        assert!(number(&publish["acknowledged"]) >= 50.0, "{result}");
        assert!(number(&publish["broker_cpu_us_per_message"]) > 0.0, "{result}");
        assert!(number(&publish["latency_us"]["p99"]) > 0.0, "{result}");
        assert_eq!(publish["refused"], 0, "{result}");
    }
}

#[test]
fn sessions_come_back_for_all_their_messages_in_another_run() {
    let broker = shared();
    for qos in [1, 2] {
        let prefix = prefix();
        let words =
            format!("offline-queue -n 50 --publishers 3 --messages 7 -q {qos} --prefix {prefix}");
        let result = measure(&broker, &format!("{words} --phases create,publish"));
        assert_eq!(result["create"]["sessions"], 50, "{result}");
        assert_eq!(result["publish"]["acknowledged"], 350, "{result}");
        for returning in [20, 50] {
            let messages = if returning == 20 { 20 * 7 } else { 50 * 7 };
            if returning == 50 {
                // Who has been there has no messages left: all get new ones.
                let _ = measure(&broker, &format!("{words} --phases discard,create,publish"));
            }
            let result =
                measure(&broker, &format!("{words} --phases return --returning {returning}"));
            let back = &result["return"];
            assert_eq!(
                (&back["messages"], &back["expected"]),
                (&messages.into(), &messages.into())
            );
            for wrong in ["lost", "repeated", "foreign", "sessions_missing"] {
                assert_eq!(back[wrong], 0, "{wrong}: {result}");
            }
            assert_eq!(back["latency_us"]["count"], returning, "{result}");
        }
        let _ = measure(&broker, &format!("{words} --phases discard"));
    }
}

#[test]
fn filters_get_all_retained_messages_that_match() {
    let broker = shared();
    let words = format!(
        "retained-many -n 400 --matching 20 --asks 12 --quiet-time 0.3 --warmup 0.1 --probes 3 --probe-rate 200 --prefix {}",
        prefix()
    );
    let result = measure(&broker, &words);
    assert_eq!(result["publish"]["acknowledged"], 400, "{result}");
    let retained = &result["retained"];
    assert_eq!(retained["messages"], 240, "{result}");
    assert_eq!((&retained["repeated"], &retained["foreign"]), (&0.into(), &0.into()), "{result}");
    assert_eq!(retained["latency_us"]["count"], 12, "{result}");
    assert_eq!(result["probes"]["sent"], result["probes"]["delivered"], "{result}");
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    for (words, text) in [
        ("durable-pub -q 0", "--qos is 1 or 2"),
        ("offline-queue --threads 2", "one thread"),
        ("durable-pub --publishers 3", "--publishers is not for durable-pub"),
    ] {
        let output = run(&format!("scenario {words}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}: {said}");
        assert!(said.contains(text) && said.lines().count() == 1, "{words}: {said}");
    }
}
