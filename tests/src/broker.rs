//! The broker under test: the built binary as a child process, or one that is already running.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use crate::client::Client;
use crate::packet::{ConnAck, Connect, Version};

/// How long a broker may take to be ready (256 shards of a debug build on two busy cores take some seconds), and to end after SIGTERM.
const START_WAIT: Duration = Duration::from_secs(30);
const STOP_WAIT: Duration = Duration::from_secs(8);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running broker. Dropping it stops it and asserts that it ended without a panic.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    folder: PathBuf,
    arguments: Vec<String>,
}

/// The root folder of the checkout.
///
/// # Panics
/// When this crate has no parent folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// The folder cargo builds into.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The binary under test.
///
/// # Panics
/// When there is none, saying how to build it.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("RINGMQ_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "RINGMQ_BIN names {}, which is not a file", path.display());
        return path;
    }
    let candidates = ["release/ringmq", "debug/ringmq"].map(|name| target().join(name));
    candidates.iter().find(|path| path.is_file()).cloned().unwrap_or_else(|| {
        panic!(
            "no broker to test: build it by `cargo build -p ringmq [--release]`, or name one in \
             RINGMQ_BIN (looked for {} and {})",
            candidates[0].display(),
            candidates[1].display()
        )
    })
}

/// The load tool under test, beside the broker.
///
/// # Panics
/// If none was built.
#[must_use]
pub fn load_tool() -> PathBuf {
    if let Some(path) = env::var_os("RINGMQ_BENCH_BIN") {
        return PathBuf::from(path);
    }
    let path = binary().with_file_name("ringmq-bench");
    assert!(
        path.is_file(),
        "no load tool to test: build it by `cargo build -p ringmq-bench [--release]`, or name one in RINGMQ_BENCH_BIN (looked \
         for {})",
        path.display()
    );
    path
}

/// Waits until something is so.
///
/// # Panics
/// When it is not in time.
#[track_caller]
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + START_WAIT;
    while !so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// True when the binary under test was built with optimisation, by the folder it is in.
#[must_use]
pub fn is_release() -> bool {
    binary().components().any(|part| part.as_os_str() == "release")
}

/// A TCP port nobody listens on, outside the range the kernel picks client ports from.
fn free_port() -> u16 {
    loop {
        let step =
            process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 15_000 + u16::try_from(step % 15_000).expect("below 15,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A folder for the data of a broker that is started more than once; the last one removes it.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn new_folder() -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("ringmq-test-{}-{number}", process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// The broker most tests of one binary share: started for the first that asks, stopped when the last lets go of it. A test holds it until its
/// end (`let broker = shared();`), else it may stop under its clients.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn shared() -> Arc<Broker> {
    static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
    let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(broker) = slot.upgrade() {
        return broker;
    }
    let broker = Arc::new(external().unwrap_or_else(|| Broker::start(&[])));
    *slot = Arc::downgrade(&broker);
    broker
}

fn external() -> Option<Broker> {
    let name = env::var("RINGMQ_TEST_BROKER").ok()?;
    let address = name.to_socket_addrs().ok().and_then(|mut found| found.next());
    let address = address.unwrap_or_else(|| panic!("RINGMQ_TEST_BROKER={name} is not host:port"));
    Some(Broker { address, process: None })
}

/// Starts the binary on a data folder it cannot start on: its exit code and what it printed.
///
/// # Panics
/// When it does not end in time.
#[must_use]
pub fn refused(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let log = new_folder();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut child = Broker::spawn(folder, &log, address, arguments);
    let end = Instant::now() + START_WAIT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let output = fs::read(log.join("output.log")).unwrap_or_default();
            panic!("it runs, which was not expected:\n{}", String::from_utf8_lossy(&output));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let output = fs::read(log.join("output.log")).unwrap_or_default();
    let _ = fs::remove_dir_all(&log);
    (status.code(), String::from_utf8_lossy(&output).into_owned())
}

impl Broker {
    /// Starts the binary with further arguments; one without a leading `--` that is `key=value` is a setting.
    ///
    /// # Panics
    /// When it does not accept a connection in time.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Broker {
        assert!(
            env::var_os("RINGMQ_TEST_BROKER").is_none(),
            "this test needs a broker with settings of its own; it cannot run against RINGMQ_TEST_BROKER"
        );
        Broker::start_in(&new_folder(), arguments)
    }

    /// Starts the binary with `folder` as data folder, which must exist and is removed at the end.
    ///
    /// # Panics
    /// When it does not accept a connection in time.
    #[must_use]
    pub fn start_in(folder: &Path, arguments: &[&str]) -> Broker {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Broker::spawn(folder, folder, address, arguments);
        let (folder, arguments) =
            (folder.to_path_buf(), arguments.iter().map(ToString::to_string).collect());
        let mut broker = Broker { address, process: Some(Process { child, folder, arguments }) };
        broker.wait_ready();
        broker
    }

    /// Kills it as kill -9 does, and starts it again with the same arguments, port and data folder.
    ///
    /// # Panics
    /// When it had panicked, or does not accept a connection in time.
    pub fn kill_and_restart(&mut self) {
        let output = self.output();
        assert!(!output.contains("panicked"), "the broker panicked:\n{output}");
        let process = self.process.as_mut().expect("a broker the tests started");
        process.child.kill().expect("it runs");
        process.child.wait().expect("the child can be waited for");
        let arguments: Vec<&str> = process.arguments.iter().map(String::as_str).collect();
        let folder = &process.folder;
        process.child = Broker::spawn(folder, folder, self.address, &arguments);
        self.wait_ready();
    }

    /// Its output goes to the file output.log of the folder `log`.
    fn spawn(folder: &Path, log: &Path, address: SocketAddr, arguments: &[&str]) -> Child {
        let log = File::create(log.join("output.log")).expect("a log file");
        let mut command = Command::new(binary());
        command.arg("console").arg("--data").arg(folder);
        command.args(["--set", &format!("listener.tcp.external={address}")]);
        command.args(["--set", "listener.tcp.internal=off"]);
        if !arguments.contains(&"--shards") {
            let shards = env::var("RINGMQ_TEST_SHARDS").unwrap_or_else(|_| "2".into());
            command.args(["--shards", &shards]);
        }
        let mut is_value = false;
        for argument in arguments {
            if argument.contains('=') && !is_value && !argument.starts_with("--") {
                command.arg("--set");
            }
            command.arg(argument);
            is_value = argument.starts_with("--");
        }
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle of the log"));
        command.stderr(log);
        command.spawn().expect("the broker's binary runs")
    }

    fn wait_ready(&mut self) {
        let end = Instant::now() + START_WAIT;
        // The line comes when every shard serves; before it a connection waits for its shard to begin.
        while !self.output().contains("is running now") || TcpStream::connect(self.address).is_err()
        {
            let process = self.process.as_mut().expect("a child");
            if let Ok(Some(status)) = process.child.try_wait() {
                let output = self.output();
                self.forget();
                panic!("the broker ended at start with {status}:\n{output}");
            }
            if Instant::now() > end {
                panic!(
                    "the broker does not serve {} in {START_WAIT:?}:\n{}",
                    self.address,
                    self.output()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    ///
    /// # Panics
    /// For a broker the tests did not start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a broker the tests started").child.id()
    }

    /// The data folder.
    ///
    /// # Panics
    /// For a broker the tests did not start.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.process.as_ref().expect("a broker the tests started").folder
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        let Some(process) = &self.process else { return String::new() };
        let bytes = fs::read(process.folder.join("output.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(path).expect("the broker is running");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kilobytes = line.split_whitespace().nth(1).expect("a number").parse::<u64>();
        kilobytes.expect("a number") * 1024
    }

    /// Runs a command of the binary against this broker's data folder.
    ///
    /// # Panics
    /// When the binary does not run.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--data").arg(self.folder());
        command.output().expect("the binary runs")
    }

    /// The standard output of a command that must succeed.
    ///
    /// # Panics
    /// When the exit code is not 0.
    #[must_use]
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "`ringmq {}` ended with {}: {text}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// A TCP connection with no CONNECT sent.
    #[must_use]
    #[track_caller]
    pub fn raw(&self, version: Version) -> Client {
        Client::open(self.address, version)
    }

    /// Sends a CONNECT and expects a CONNACK with code 0.
    #[must_use]
    #[track_caller]
    pub fn connect(&self, connect: &Connect) -> Client {
        self.connect_ack(connect).0
    }

    /// As [`Broker::connect`], with the CONNACK.
    #[must_use]
    #[track_caller]
    pub fn connect_ack(&self, connect: &Connect) -> (Client, ConnAck) {
        let (client, ack) = self.try_connect(connect);
        assert_eq!(ack.code, 0, "CONNECT of {} was refused: {ack:?}", connect.client_id);
        (client, ack)
    }

    /// Sends a CONNECT and gives the CONNACK, whatever it says.
    #[must_use]
    #[track_caller]
    pub fn try_connect(&self, connect: &Connect) -> (Client, ConnAck) {
        let mut client = self.raw(connect.version);
        client.send(&connect.encode());
        let ack = client.expect_connack();
        (client, ack)
    }

    /// A connected client with a clean session and an id of its own.
    #[must_use]
    #[track_caller]
    pub fn client(&self, version: Version) -> Client {
        self.connect(&Connect::new(version, &crate::client::id()))
    }

    /// Sends SIGTERM without waiting.
    ///
    /// # Panics
    /// When `kill` cannot be run.
    pub fn terminate(&self) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.expect("kill runs").success(), "kill -TERM {pid}");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end in `limit`.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            let process = self.process.as_mut().expect("a broker the tests started");
            if let Some(status) = process.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(Instant::now() < end, "the broker still runs after {limit:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it by SIGKILL, in the middle of whatever it does; its folder stays, for [`Broker::start_in`]. What it printed.
    ///
    /// # Panics
    /// For a broker the tests did not start, and when it panicked before.
    pub fn kill(mut self) -> String {
        let mut process = self.process.take().expect("a broker the tests started");
        process.child.kill().expect("our own child can be killed");
        process.child.wait().expect("a killed child ends");
        let bytes = fs::read(process.folder.join("output.log")).unwrap_or_default();
        let output = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!output.contains("panicked"), "the broker panicked:\n{output}");
        output
    }

    /// Ends it by SIGTERM, as it is meant to end; its folder stays, for [`Broker::start_in`]. What it printed.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn stop_and_keep(mut self) -> String {
        let status = self.stop();
        let output = self.output();
        self.process = None;
        let ended_well = status.is_some_and(|status| status.success());
        assert!(ended_well && !output.contains("panicked"), "it ended with {status:?}:\n{output}");
        output
    }

    fn forget(&mut self) {
        if let Some(process) = self.process.take() {
            let _ = fs::remove_dir_all(&process.folder);
        }
    }

    /// SIGTERM, a bounded wait, SIGKILL. None when it had to be killed.
    fn stop(&mut self) -> Option<ExitStatus> {
        let process = self.process.as_mut()?;
        if let Ok(Some(status)) = process.child.try_wait() {
            return Some(status);
        }
        let pid = process.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let end = Instant::now() + STOP_WAIT;
        while Instant::now() < end {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = process.child.kill();
        let _ = process.child.wait();
        None
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.process.is_none() {
            return;
        }
        let status = self.stop();
        let output = self.output();
        self.forget();
        if thread::panicking() {
            eprintln!("--- output of the broker ---\n{output}---");
            return;
        }
        assert!(!output.contains("panicked"), "the broker panicked:\n{output}");
        let status = status.unwrap_or_else(|| {
            panic!("the broker did not end {STOP_WAIT:?} after SIGTERM and was killed:\n{output}")
        });
        assert!(status.success(), "the broker ended with {status}:\n{output}");
    }
}
