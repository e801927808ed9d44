//! `ringmq doctor`: what would keep a broker on this machine from holding so many clients.

use std::process::{Command, Output};

use ringmq_tests::broker::binary;
use ringmq_tests::certificates::Site;
use ringmq_tests::{Broker, V5, id};
use serde_json::Value;

/// A broker that any machine can run: an address of its own, and none that is fixed.
const SMALL: [&str; 6] = [
    "--set",
    "listener.tcp.external=127.0.0.1:0",
    "--set",
    "listener.tcp.internal=off",
    "--shards",
    "2",
];

fn doctor(arguments: &[&str]) -> Output {
    // Never made: it only reads.
    let folder = std::env::temp_dir().join(format!("ringmq-doctor-{}", id()));
    let mut command = Command::new(binary());
    command.arg("doctor").args(SMALL).args(arguments);
    let output = command.arg("--data").arg(&folder).output().unwrap();
    assert!(!folder.exists(), "doctor made {}", folder.display());
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The findings of a state.
fn of_state<'a>(report: &'a Value, state: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().filter(|finding| finding["state"] == state).collect()
}

#[test]
fn a_few_clients_fit_any_machine() {
    let output = doctor(&["--connections", "10"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let mut lines: Vec<&str> = text.lines().collect();
    let summary = lines.pop().unwrap();
    assert!(summary.starts_with("Nothing stops 2 shards from holding 10 clients; "), "{text}");
    assert!(lines.len() >= 10, "{text}");
    for line in lines {
        assert!(["ok    ", "warn  "].iter().any(|state| line.starts_with(state)), "{line}");
    }
}

#[test]
fn a_billion_clients_do_not_fit_into_memory() {
    let output = doctor(&["--connections", "1000000000"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let memory = text.lines().find(|line| line.contains(" of memory are available; ")).unwrap();
    assert!(memory.starts_with("stop  "), "{memory}");
    assert!(memory.contains("1000000000 idle clients need "), "{memory}");
    assert!(memory.contains(": add memory, or plan for "), "{memory}");
    let summary = text.lines().last().unwrap();
    assert!(summary.contains(" in the way of 1000000000 clients on 2 shards; "), "{summary}");
}

#[test]
fn the_report_is_one_json_object() {
    let output = doctor(&["--connections", "10", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["connections"], 10);
    assert_eq!(report["shards"], 2);
    assert_eq!(report["holds"], true);
    assert!(of_state(&report, "stop").is_empty());

    let output = doctor(&["--connections", "1000000000", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = json(&output);
    assert_eq!(report["holds"], false);
    let stops = of_state(&report, "stop");
    assert!(stops.iter().any(|finding| finding["check"] == "memory"), "{stops:?}");
    for finding in stops {
        assert!(finding["found"].is_string() && finding["remedy"].is_string(), "{finding}");
    }
}

#[test]
fn it_judges_the_settings_it_is_given() {
    let few = "listener.tcp.external.max_clients=5";
    let output = doctor(&["--connections", "10", "--set", few]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = "stop  the listeners take 5 clients, external of them 5; 10 are to connect: \
                    --set listener.tcp.external.max_clients=10";
    assert!(stdout(&output).contains(expected), "{output:?}");

    let output = doctor(&["--config", "/nonexistent/ringmq.conf"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("ringmq: "), "{output:?}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["--connections", "0"][..],
        &["--connections", "many"],
        &["--connections", "-1"],
        &["--nonsense"],
        &["--set", "novalue"],
        &["--check"],
    ] {
        let output = doctor(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let help = doctor(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("--connections <N>") && stdout(&help).contains("Exit codes"));
}

#[test]
fn a_running_broker_holds_its_own_address() {
    let broker = Broker::start(&[]);
    let _client = broker.client(V5);
    let listener = format!("listener.tcp.external={}", broker.address());
    let arguments =
        ["doctor", "--connections", "10", "--set", &listener, "--set", "listener.tcp.internal=off"];
    let text = broker.cli(&arguments);
    let pid = broker.pid();
    let address = broker.address();
    for line in [
        format!("ok    RingMQ runs on this data folder (process {pid}) with 1 connections; "),
        format!("listener external: {address} is that of the running broker (process {pid})\n"),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }

    // To a broker with another data folder the address is taken.
    let output = doctor(&["--connections", "10", "--set", &listener]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let expected = format!("stop  listener external: {address} is in use by another process: ");
    assert!(stdout(&output).contains(&expected), "{output:?}");
}

/// The files of listeners with TLS are opened: what is wrong with them stops the broker, and is told with what to do.
#[test]
fn certificates_and_keys_are_looked_at() {
    let site = Site::new();
    let listeners = [site.listener("ssl", "good"), site.listener("wss", "bad")].concat();
    let (certificate, key) = site.authority.server();
    let other = site.folder.write("other.pem", certificate);
    let wrong = format!("listener.wss.bad.certfile={other}");
    let set: Vec<&str> =
        listeners.iter().chain([&wrong]).flat_map(|setting| ["--set", setting.as_str()]).collect();
    let output = doctor(&[&["--connections", "10"], &set[..]].concat());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = |name: &str| text.lines().find(|line| line.contains(name)).expect(&text).to_owned();
    let good = line("ssl.good");
    assert!(
        good.starts_with("ok    ") && good.contains("certificates and keys are right"),
        "{good}"
    );
    let bad = line("the private key does not belong to the first certificate");
    assert!(bad.starts_with("stop  ") && bad.contains("listener.wss.bad"), "{bad}");
    assert!(bad.contains("give the key that was made with it"), "{bad}");
    let _ = site.folder.write("server.key", key);
    let _ = site.folder.write("server.pem", std::fs::read(&other).unwrap());
    assert_eq!(doctor(&[&["--connections", "10"], &set[..]].concat()).status.code(), Some(0));
}
