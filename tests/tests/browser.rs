//! A browser as a client: the page tests/clients/page.html in headless Chromium, over ws:// (SEED-LSN-04).

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmq_tests::broker::{root, target};
use ringmq_tests::certificates::Folder;
use ringmq_tests::client::Event;
use ringmq_tests::listening::{address, expect_ended, start};
use ringmq_tests::{Packet, V5, topic};

/// A browser takes seconds to start, more on a busy machine.
const START_WAIT: Duration = Duration::from_secs(60);

/// A browser, ended with the test.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens the page so that it answers below a prefix.
fn open(folder: &Folder, to: SocketAddr, version: &str, prefix: &str) -> Browser {
    let module = target().join("test-node/node_modules/mqtt/dist/mqtt.min.js");
    let script = fs::read(&module).unwrap_or_else(|_| {
        panic!("{} is missing: run scripts/install-test-deps", module.display())
    });
    let _ = folder.write("mqtt.min.js", script);
    let page = fs::read(root().join("tests/clients/page.html")).unwrap();
    let page = folder.write("page.html", page);
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.args(["--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server"]);
    command.arg(format!("--user-data-dir={}", folder.path("profile")));
    // A port for a debugger keeps it open; nobody comes.
    command.arg("--remote-debugging-port=0");
    command.arg(format!(
        "file://{page}?url=ws://127.0.0.1:{}/mqtt&version={version}&echo={prefix}",
        to.port()
    ));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn();
    Browser(child.expect("chromium runs: run scripts/install-test-deps"))
}

/// The page subscribes and publishes at every `QoS` and in both versions it speaks.
#[test]
fn seed_lsn_04_a_page_publishes_and_subscribes() {
    let broker = start(&["--shards", "2"], &[vec!["listener.ws.w=127.0.0.1:0".to_owned()]]);
    let to = address(&broker, "w");
    for version in ["4", "5"] {
        let (folder, prefix) = (Folder::new(), topic());
        let (there, back) = (format!("{prefix}/to"), format!("{prefix}/from"));
        let mut client = broker.client(V5);
        client.subscribe(&back, 2);
        let browser = open(&folder, to, version, &prefix);
        let Event::Packet(Packet::Publish(first)) = client.event(START_WAIT) else {
            panic!("the page did not connect within {START_WAIT:?}");
        };
        client.acknowledge(&first);
        assert_eq!((first.topic, first.payload), (back.clone(), b"ready".to_vec()));
        for qos in 0..=2 {
            for payload in ["hello", "ü€😀", &"x".repeat(40_000)] {
                client.publish(&there, payload, qos);
                assert_eq!(client.expect_message(&back, payload).qos, qos);
            }
        }
        drop(browser);
        expect_ended(&broker, "w", "closed", if version == "4" { 1 } else { 2 });
    }
}
