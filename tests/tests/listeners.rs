//! Listeners: kinds, access rules, rates, mountpoints, zones, start and stop (SEED-LSN-01 to SEED-LSN-25).

use std::fs;
use std::process::Command;

use ringmq_tests::broker::binary;
use ringmq_tests::id;

/// What a broker with these lines in its settings file says, and whether it would start.
fn check(lines: &str) -> (bool, String) {
    let folder = std::env::temp_dir().join(format!("ringmq-listeners-{}", id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("my.conf");
    fs::write(&file, lines).unwrap();
    let output = Command::new(binary())
        .args(["console", "--check", "--config"])
        .arg(&file)
        .arg("--data")
        .arg(&folder)
        .output()
        .unwrap();
    let _ = fs::remove_dir_all(&folder);
    let text = String::from_utf8_lossy(if output.status.success() {
        &output.stdout
    } else {
        &output.stderr
    })
    .replace(&file.display().to_string(), "FILE");
    (output.status.success(), text)
}

/// A bad setting of a listener: one line with file, line and remedy.
#[test]
fn a_bad_setting_of_a_listener_is_one_line() {
    for (lines, expected) in [
        (
            "listener.tcp.external = 1883\nlistener.tcp.external.access.1 = deny 10.0.0.0/40\n",
            "ringmq: FILE:2: listener.tcp.external.access.1 cannot be \"deny 10.0.0.0/40\"; allowed: allow or deny, then all, an \
             address or a CIDR, for example allow 192.168.0.0/24, or deny all\n",
        ),
        (
            "listener.tcp.external = 1883\nlistener.tcp.external.rate_limit = fast\n",
            "ringmq: FILE:2: listener.tcp.external.rate_limit cannot be \"fast\"; allowed: none, bytes in a time and a burst, or \
             burst,rate in KB a second, for example 10KB/s,100KB\n",
        ),
        (
            "\nlistener.ssl.a = 8883\nlistener.ssl.a.keyfile = k.pem\n",
            "ringmq: FILE:2: listener.ssl.a = 0.0.0.0:8883: a listener with TLS needs a certfile: give listener.ssl.a.certfile\n",
        ),
        (
            "listener.ws.a = 99999\n",
            "ringmq: FILE:1: listener.ws.a cannot be \"99999\"; allowed: off, a port, or address:port, for example 1883, \
             127.0.0.1:1883 or [::1]:1883\n",
        ),
    ] {
        assert_eq!(check(lines), (false, expected.to_owned()));
    }
    let (right, text) = check(
        "listener.tcp.a = 127.0.0.1:1\nlistener.tcp.a.access.1 = allow ::1\nlistener.tcp.a.access.2 = deny all\n\
         listener.tcp.b = [::1]:1\nlistener.tcp.b.rate_limit = 100,10\nlistener.tcp.b.mountpoint = b/%u/\n",
    );
    assert!(right && text == "The settings are right.\n", "{text}");
}

/// What this build does not serve is not passed over.
#[test]
fn what_is_not_in_this_build_is_refused() {
    for (lines, key) in [
        ("listener.ws.a = 8083\n", "listener.ws.a"),
        ("listener.tcp.a = 1\nlistener.tcp.a.proxy_protocol = on\n", "listener.tcp.a"),
    ] {
        let (right, text) = check(lines);
        assert!(!right && text.starts_with(&format!("ringmq: {key}")), "{text}");
        assert!(text.contains("not in this build yet") && text.lines().count() == 1, "{text}");
    }
}
