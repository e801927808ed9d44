//! The command line against a running broker (FEATURES CLI-01 to CLI-25, CLI-34 to CLI-39, CLI-45, CLI-55).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use ringmq_tests::broker::binary;
use ringmq_tests::{Broker, Connect, V5, V311, id};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A data folder without a broker, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("ringmq-cli-{}", id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(binary()).args(arguments).arg("--data").arg(&self.0).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The value behind `name` and a colon.
#[track_caller]
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text
        .lines()
        .find(|line| line.split_once(':').is_some_and(|(before, _)| before.trim() == name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.split_once(':').unwrap().1.trim()
}

#[track_caller]
fn number(text: &str, name: &str) -> u64 {
    value(text, name).parse().unwrap_or_else(|_| panic!("{name} is no number in\n{text}"))
}

/// SEED-CLI-01
#[test]
fn seed_cli_01_status() {
    let broker = Broker::start(&[]);
    let text = broker.cli(&["status"]);
    assert_eq!(text, format!("Node 'ringmq@127.0.0.1' is started\nringmq {VERSION} is running\n"));
    assert_eq!(broker.cli(&["ping"]), "pong\n");
    let json: serde_json::Value = serde_json::from_str(&broker.cli(&["status", "--json"])).unwrap();
    assert_eq!(json["running"], true);
    assert!(std::path::Path::new(json["data"].as_str().unwrap()).join("store").is_dir(), "{json}");
}

/// SEED-CLI-01: exit code 1 when it is down, for every command.
#[test]
fn seed_cli_01_commands_without_a_broker_fail() {
    let folder = Folder::new();
    let output = folder.run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("ringmq is not running"), "{output:?}");
    for command in [
        &["ping"][..],
        &["stop"],
        &["broker"],
        &["clients", "list"],
        &["listeners"],
        &["vm"],
        &["acl", "reload"],
    ] {
        let output = folder.run(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        assert!(!text.trim().is_empty() && !text.contains("panicked"), "{command:?}: {text}");
    }
}

/// Exit code 2 for what cannot be understood.
#[test]
fn usage_errors_exit_with_2() {
    let folder = Folder::new();
    for command in [
        &["nonsense"][..],
        &["clients"],
        &["clients", "show"],
        &["console", "--shards", "0"],
        &["console", "--shards", "257"],
        &["console", "--set", "novalue"],
    ] {
        let output = folder.run(command);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
    }
    let help = folder.run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for command in
        ["console", "start", "stop", "clients", "subscriptions", "listeners", "banned", "acl"]
    {
        assert!(stdout(&help).contains(command), "{command} is missing in the help");
    }
}

/// SEED-CLI-02
#[test]
fn seed_cli_02_broker() {
    let broker = Broker::start(&[]);
    let text = broker.cli(&["broker"]);
    let names: Vec<&str> =
        text.lines().map(|line| line.split_once(':').unwrap().0.trim()).collect();
    assert_eq!(names, ["sysdescr", "version", "uptime", "datetime"]);
    assert_eq!(value(&text, "version"), VERSION);
    assert!(value(&text, "uptime").ends_with("seconds"), "{text}");
    let datetime = text.lines().last().unwrap().split_once(": ").unwrap().1;
    let shape: String =
        datetime.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00");
    for line in text.lines() {
        assert_eq!(line.find(':'), Some(10), "{line}");
    }
}

/// SEED-CLI-03
#[test]
fn seed_cli_03_broker_stats() {
    let broker = Broker::start(&["mqtt.broker.sys_interval=0"]);
    let mut client = broker.connect(&Connect::new(V5, "stats").persistent());
    client.subscribe("a", 1);
    client.subscribe("a/#", 1);
    let before = number(&broker.cli(&["broker", "stats"]), "retained/count"); // of $SYS
    client.publish_retained("kept", "x", 1);
    let second = broker.client(V311);
    assert_eq!(number(&broker.cli(&["broker", "stats"]), "clients/count"), 2);
    second.disconnect();
    let text = broker.cli(&["broker", "stats"]);
    assert_eq!(number(&text, "clients/count"), 1, "{text}");
    assert_eq!(number(&text, "clients/max"), 2);
    assert_eq!(number(&text, "sessions/count"), 1);
    assert_eq!(number(&text, "subscriptions/count"), 2);
    assert_eq!(number(&text, "routes/count"), 2);
    assert_eq!(number(&text, "retained/count"), before + 1);
    for name in [
        "topics/count",
        "topics/max",
        "queues/count",
        "queues/max",
        "routes/max",
        "retained/max",
        "subscriptions/max",
        "sessions/max",
    ] {
        number(&text, name);
    }
}

/// SEED-CLI-04, SEED-MET-01, SEED-MET-02, SEED-MET-03
#[test]
fn seed_cli_04_broker_metrics() {
    let broker = Broker::start(&[]);
    let before = broker.cli(&["broker", "metrics"]);
    let names: Vec<&str> =
        before.lines().map(|line| line.split_once(':').unwrap().0.trim()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted, "names are sorted");
    for name in [
        "bytes/received",
        "bytes/sent",
        "packets/received",
        "packets/sent",
        "packets/connect",
        "packets/connack",
        "packets/publish/received",
        "packets/publish/sent",
        "packets/puback/received",
        "packets/puback/sent",
        "packets/puback/missed",
        "packets/pubrec/received",
        "packets/pubrec/sent",
        "packets/pubrec/missed",
        "packets/pubrel/received",
        "packets/pubrel/sent",
        "packets/pubrel/missed",
        "packets/pubcomp/received",
        "packets/pubcomp/sent",
        "packets/pubcomp/missed",
        "packets/subscribe",
        "packets/suback",
        "packets/unsubscribe",
        "packets/unsuback",
        "packets/pingreq",
        "packets/pingresp",
        "packets/disconnect",
        "messages/received",
        "messages/sent",
        "messages/qos0/received",
        "messages/qos0/sent",
        "messages/qos1/received",
        "messages/qos1/sent",
        "messages/qos2/received",
        "messages/qos2/sent",
        "messages/qos2/dropped",
        "messages/retained",
        "messages/dropped",
    ] {
        number(&before, name);
    }
    let mut client = broker.client(V311);
    client.subscribe("a", 2);
    for qos in 0..=2 {
        client.publish("a", "x", qos);
        client.expect_message("a", "x");
    }
    client.expect_alive();
    client.unsubscribe(&["a"]);
    client.disconnect();
    let after = broker.cli(&["broker", "metrics"]);
    for (name, count) in [
        ("packets/connect", 1),
        ("packets/connack", 1),
        ("packets/subscribe", 1),
        ("packets/suback", 1),
        ("packets/unsubscribe", 1),
        ("packets/unsuback", 1),
        ("packets/pingreq", 1),
        ("packets/pingresp", 1),
        ("packets/disconnect", 1),
        ("packets/publish/received", 3),
        ("packets/publish/sent", 3),
        ("packets/puback/received", 1),
        ("packets/puback/sent", 1),
        ("packets/pubrec/sent", 1),
        ("packets/pubrec/received", 1),
        ("packets/pubrel/sent", 1),
        ("packets/pubrel/received", 1),
        ("packets/pubcomp/sent", 1),
        ("packets/pubcomp/received", 1),
        ("messages/qos0/received", 1),
        ("messages/qos1/sent", 1),
        ("messages/qos2/sent", 1),
        ("messages/received", 3),
        ("messages/sent", 3),
    ] {
        let grown = number(&after, name) - number(&before, name);
        assert_eq!(grown, count, "{name}");
    }
    assert!(number(&after, "bytes/received") > number(&before, "bytes/received"));
}

/// SEED-MET-04: acknowledgements nobody waits for are counted as missed.
#[test]
fn seed_met_04_missed_acknowledgements() {
    let broker = Broker::start(&[]);
    let mut client = broker.client(V311);
    client.send(&[0x40, 2, 0, 9]);
    client.send(&[0x50, 2, 0, 9]);
    client.expect_pubrel(9);
    client.send(&[0x70, 2, 0, 8]);
    client.send(&[0x62, 2, 0, 9]);
    client.expect_pubcomp(9);
    client.expect_alive();
    let text = broker.cli(&["broker", "metrics"]);
    for name in ["puback", "pubrec", "pubrel", "pubcomp"] {
        assert_eq!(number(&text, &format!("packets/{name}/missed")), 1, "{name}");
    }
}

/// SEED-CLI-10, SEED-CLI-11, SEED-CLI-12
#[test]
fn seed_cli_10_clients() {
    let broker = Broker::start(&[]);
    let mut first = broker.connect(&Connect::new(V5, "first").username("test"));
    let _second = broker.connect(&Connect::new(V311, "second").persistent());
    let list = broker.cli(&["clients", "list"]);
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(
        lines[0].starts_with("Client(first, clean_sess=true, username=test, peername=127.0.0.1:"),
        "{list}"
    );
    assert!(
        lines[1].starts_with("Client(second, clean_sess=false, username=undefined, "),
        "{list}"
    );
    let (_, at) = lines[0].rsplit_once("connected_at=").unwrap();
    let at: u64 = at.trim_end_matches(')').parse().unwrap();
    assert!(at > 1_700_000_000 && at < 10_000_000_000, "{at} are seconds since 1970");
    assert_eq!(broker.cli(&["clients", "show", "first"]).trim(), lines[0]);
    let missing = broker.command(&["clients", "show", "nobody"]);
    assert!((stdout(&missing) + &stderr(&missing)).contains("Not Found."));
    assert_eq!(missing.status.code(), Some(1));
    assert!(broker.command(&["clients", "kick", "first"]).status.success());
    first.expect_end();
    let list = broker.cli(&["clients", "list"]);
    assert!(!list.contains("first") && list.contains("second"), "{list}");
    let missing = broker.command(&["clients", "kick", "nobody"]);
    assert!((stdout(&missing) + &stderr(&missing)).contains("Not Found."));
    let json = broker.cli(&["clients", "list", "--json"]);
    let row: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(row["client_id"], "second");
}

/// SEED-PROTO-23: a v5 client that is kicked is told 0x98.
#[test]
fn seed_cli_12_kick_tells_v5_clients() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect(&Connect::new(V5, "kicked"));
    let _ = broker.cli(&["clients", "kick", "kicked"]);
    client.expect_disconnect(0x98);
}

/// SEED-CLI-10: many clients, one line each.
#[test]
fn seed_cli_10_a_thousand_clients() {
    let broker = Broker::start(&[]);
    let _clients: Vec<_> = (0..800).map(|_| broker.client(V311)).collect();
    assert_eq!(broker.cli(&["clients", "list"]).lines().count(), 800);
}

/// SEED-CLI-13, SEED-CLI-14, SEED-CLI-15, SEED-CLI-16
#[test]
fn seed_cli_13_sessions() {
    let broker = Broker::start(&[]);
    let connect = Connect::new(V311, "stays").persistent();
    let mut stays = broker.connect(&connect);
    stays.subscribe("a", 1);
    stays.disconnect();
    let _goes = broker.connect(&Connect::new(V311, "goes"));
    let mut publisher = broker.client(V311);
    publisher.publish("a", "x", 1);
    let all = broker.cli(&["sessions", "list"]);
    assert_eq!(all.lines().count(), 3, "{all}");
    let persistent = broker.cli(&["sessions", "list", "persistent"]);
    assert_eq!(persistent.lines().count(), 1, "{persistent}");
    assert!(persistent.starts_with("Session(stays, clean_sess=false, subscriptions=1, "));
    for part in [
        "max_inflight=32",
        "inflight=0",
        "mqueue_len=1",
        "mqueue_dropped=0",
        "awaiting_rel=0",
        "created_at=",
    ] {
        assert!(persistent.contains(part), "{part} in {persistent}");
    }
    let transient = broker.cli(&["sessions", "list", "transient"]);
    assert!(transient.contains("Session(goes, clean_sess=true") && !transient.contains("stays"));
    assert_eq!(broker.cli(&["sessions", "show", "stays"]), persistent);
    let missing = broker.command(&["sessions", "show", "nobody"]);
    assert!((stdout(&missing) + &stderr(&missing)).contains("Not Found."));
}

/// SEED-CLI-17, SEED-CLI-18, SEED-CLI-19, SEED-CLI-20
#[test]
fn seed_cli_17_routes_and_topics() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut clients: Vec<_> = (0..5).map(|_| broker.client(V311)).collect();
    for client in &mut clients {
        client.subscribe("t/+/x", 0);
        client.subscribe("t/y", 0);
    }
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let routes = sorted(broker.cli(&["routes", "list"]));
    assert_eq!(routes, ["t/+/x -> ringmq@127.0.0.1", "t/y -> ringmq@127.0.0.1"]);
    assert_eq!(broker.cli(&["routes", "show", "t/+/x"]).trim(), routes[0]);
    assert_eq!(sorted(broker.cli(&["topics", "list"])), ["t/+/x", "t/y"]);
    assert_eq!(broker.cli(&["topics", "show", "t/y"]).trim(), routes[1]);
    clients.clear();
    // SEED-PUB-04: routes without subscribers go.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(broker.cli(&["routes", "list"]), "");
}

/// SEED-CLI-21, SEED-CLI-23, SEED-CLI-24, SEED-CLI-25
#[test]
fn seed_cli_21_subscriptions() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect(&Connect::new(V311, "sub"));
    client.subscribe("t/y", 1);
    assert_eq!(broker.cli(&["subscriptions", "list"]), "sub -> t/y:1\n");
    assert_eq!(broker.cli(&["subscriptions", "add", "sub", "z/#", "2"]).trim(), "ok");
    let shown = broker.cli(&["subscriptions", "show", "sub"]);
    let shown = shown.trim();
    assert!(
        shown == "sub: [{<<\"t/y\">>,1},{<<\"z/#\">>,2}]"
            || shown == "sub: [{<<\"z/#\">>,2},{<<\"t/y\">>,1}]",
        "{shown}"
    );
    let mut publisher = broker.client(V5);
    publisher.publish("z/a", "by the operator", 2);
    assert_eq!(client.expect_message("z/a", "by the operator").qos, 2);
    assert_eq!(broker.cli(&["subscriptions", "del", "sub", "z/#"]).trim(), "ok");
    publisher.publish("z/a", "no more", 2);
    client.expect_nothing();
    for (arguments, text, code) in [
        (&["subscriptions", "show", "nobody"][..], "Not Found.", 1),
        (&["subscriptions", "add", "nobody", "a", "1"], "Error: Session not found!", 1),
        (&["subscriptions", "add", "sub", "a", "3"], "QoS should be 0, 1, 2", 2),
    ] {
        let output = broker.command(arguments);
        assert!((stdout(&output) + &stderr(&output)).contains(text), "{arguments:?}: {output:?}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

/// SEED-CLI-34 to SEED-CLI-39
#[test]
fn seed_cli_34_vm() {
    let broker = Broker::start(&[]);
    let _clients: Vec<_> = (0..3).map(|_| broker.client(V311)).collect();
    let all = broker.cli(&["vm"]);
    assert_eq!(broker.cli(&["vm", "all"]).lines().count(), all.lines().count());
    for name in ["cpu/load1", "cpu/load5", "cpu/load15"] {
        assert!(value(&all, name).parse::<f64>().is_ok(), "{all}");
    }
    for name in [
        "memory/total",
        "memory/processes",
        "memory/processes_used",
        "memory/system",
        "memory/atom",
        "memory/atom_used",
        "memory/binary",
        "memory/code",
        "memory/ets",
        "process/limit",
        "process/count",
        "io/max_fds",
        "io/active_fds",
        "ports/count",
        "ports/limit",
    ] {
        number(&all, name);
    }
    assert_eq!(number(&all, "ports/count"), 3);
    let memory = number(&all, "memory/total");
    let rss = broker.rss_bytes();
    assert!(memory > rss / 2 && memory < rss * 2, "{memory} bytes, RSS {rss}");
    assert_eq!(broker.cli(&["vm", "load"]).lines().count(), 3);
    assert!(broker.cli(&["vm", "io"]).starts_with("io/"));
    assert!(broker.cli(&["vm", "memory"]).starts_with("memory/total"));
}

/// SEED-CLI-45
#[test]
fn seed_cli_45_listeners() {
    let broker = Broker::start(&["listener.tcp.external.max_clients=512"]);
    let port = broker.address().port();
    let _client = broker.client(V311);
    broker.client(V5).disconnect();
    let text = broker.cli(&["listeners"]);
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("listener on mqtt:tcp:") && first.ends_with(&port.to_string()),
        "{text}"
    );
    let names: Vec<&str> = lines.map(|line| line.split_once(':').unwrap().0).collect();
    let expected = ["acceptors", "max_clients", "current_clients", "shutdown_count"];
    assert_eq!(names, expected.map(|name| format!("  {name:<16}")));
    assert_eq!(number(&text, "max_clients"), 512);
    assert_eq!(number(&text, "current_clients"), 1);
    let count = value(&text, "shutdown_count");
    assert!(count.starts_with('[') && count.ends_with(']'), "{text}");
}

/// SEED-CLI-55: see acl.rs for what it does. `config show` says where a value came from.
#[test]
fn config_show_says_where_a_value_came_from() {
    let broker = Broker::start(&["mqtt.max_packet_size=128KB"]);
    let text = broker.cli(&["config", "show"]);
    let line = text.lines().find(|line| line.starts_with("mqtt.max_packet_size")).unwrap();
    assert!(line.contains("128KB") && line.contains("--set"), "{line}");
    let line = text.lines().find(|line| line.starts_with("mqtt.session.max_inflight")).unwrap();
    assert!(line.contains("32") && line.contains("default"), "{line}");
    let _ = broker.cli(&["acl", "reload"]);
}

/// `start` returns when the broker is ready, `restart` keeps its arguments, `stop` ends it.
#[test]
fn start_restart_stop() {
    let folder = Folder::new();
    let port = {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap().port()
    };
    let address = format!("listener.tcp.external=127.0.0.1:{port}");
    let start = ["start", "--shards", "2", "--set", &address, "--set", "listener.tcp.internal=off"];
    let output = folder.run(&start);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("Node 'ringmq@127.0.0.1' is started"), "{output:?}");
    let connects = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(connects());
    let again = folder.run(&start);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(folder.run(&["restart"]).status.success());
    assert!(connects());
    assert!(stdout(&folder.run(&["status"])).contains("is running"));
    assert!(folder.run(&["stop"]).status.success());
    assert!(!connects());
    assert_eq!(folder.run(&["status"]).status.code(), Some(1));
}

/// A port in use, a wrong key, a wrong value, a missing file: one line that names it, exit code 1.
#[test]
fn errors_at_start_are_one_line_and_exit_code_1() {
    let folder = Folder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let wrong = folder.0.join("wrong.conf");
    fs::write(&wrong, "## fine\nmqtt.max_paket_size = 1KB\n").unwrap();
    let (wrong, missing) =
        (wrong.display().to_string(), folder.0.join("none.conf").display().to_string());
    let busy = format!("listener.tcp.external={taken}");
    for (arguments, names) in [
        (["--set", busy.as_str()], [taken.as_str(), "listener.tcp.external"]),
        (["--set", "mqtt.max_paket_size=1KB"], ["mqtt.max_paket_size", "mqtt.max_packet_size"]),
        (["--set", "mqtt.max_packet_size=large"], ["mqtt.max_packet_size", "large"]),
        (["--config", &wrong], ["wrong.conf:2", "mqtt.max_packet_size"]),
        (["--config", &missing], ["none.conf", ""]),
    ] {
        let mut command = vec!["console", "--set", "listener.tcp.internal=off"];
        command.extend(arguments);
        let output = folder.run(&command);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains(names[0]) && text.contains(names[1]), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

/// SEED-CONF-12: the environment, and that --set wins.
#[test]
fn seed_conf_12_environment() {
    let folder = Folder::new();
    let output = Command::new(binary())
        .args(["console", "--check", "--data"])
        .arg(&folder.0)
        .env("RINGMQ_MQTT__MAX_PACKET_SIZE", "nonsense")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("RINGMQ_MQTT__MAX_PACKET_SIZE"), "{}", stderr(&output));
}

/// Two brokers cannot share a data folder.
#[test]
fn data_folder_has_one_broker() {
    let broker = Broker::start(&[]);
    let output = Command::new(binary())
        .args(["console", "--set", "listener.tcp.external=127.0.0.1:0"])
        .args(["--set", "listener.tcp.internal=off", "--data"])
        .arg(broker.folder())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    broker.client(V5).expect_alive();
}
