//! `start`, `stop`, `restart`, `status`, `ping`: the broker as a process.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use admin::protocol::{AdminRequest, AlarmLine, BrokerLine};
use admin::{DataFolder, DataFolderError};
use clap::Parser;
use config::ConfigError;
use displaydoc::Display;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use thiserror::Error;

use crate::cli::{Cli, Command as CliCommand, Output, RunArgs};
use crate::client::{ClientError, ask_within, broker};
use crate::console;
use crate::show;

/// The name of a node nobody has named.
const NODE_DEFAULT: &str = "ringmq@127.0.0.1";

/// Time a broker has to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time a broker has to end: its own 5 seconds, and the kernel's for closing a great many connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Time for one answer while waiting, and for `ping` and `status`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the end of the log is looked through for the reason of a failed start.
const LOG_TAIL: u64 = 64 * 1024;

/// Why a broker was not started, stopped or reached.
#[derive(Debug, Display, Error)]
pub enum ControlError {
    /// Node '{0}' is already running
    AlreadyRunning(String),
    /// {0}
    NotRunning(String),
    /// {0}
    Config(#[from] ConfigError),
    /// {0}
    DataFolder(#[from] DataFolderError),
    /// cannot run the broker: {0}
    Spawn(io::Error),
    /// {0}
    Failed(String),
    /// the broker was not ready after {0:?} and was ended; see {1}
    NotReady(Duration, PathBuf),
    /// the broker (process {0}) has not ended after {1:?}; `kill -9 {0}` ends it at once, without its clients being told
    NotEnded(i32, Duration),
    /// nothing is known of an earlier start on the data folder {0}; use `ringmq start`
    NoLaunch(PathBuf),
    /// cannot read how the broker was started: {0}; use `ringmq stop` and `ringmq start`
    BadLaunch(String),
    /// {0}
    Client(ClientError),
}

/// The name of the node of a folder, also when it is down.
pub fn node_name(folder: &DataFolder) -> String {
    folder.launch().map_or_else(|| NODE_DEFAULT.to_owned(), |launch| launch.node)
}

/// What is said when nobody answers.
pub fn not_running(folder: &DataFolder) -> String {
    format!("Node '{}' is not responding to pings.", node_name(folder))
}

/// `start`
///
/// # Errors
/// [`ControlError`]: no broker was left behind.
pub fn start(folder: &DataFolder, run: &RunArgs) -> Result<(), ControlError> {
    if folder.is_taken() {
        return Err(ControlError::AlreadyRunning(node_name(folder)));
    }
    let (_, warnings) = console::settings(folder, &run.settings)?;
    for warning in warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    if run.check {
        return say("The settings are right.");
    }
    folder.create()?;
    let (log, log_start) = open_log(folder)?;
    let errors = log.try_clone().map_err(ControlError::Spawn)?;
    keep_descriptors();
    let mut child = Command::new(env::current_exe().map_err(ControlError::Spawn)?)
        .args(["console", "--detached", "--data"])
        .arg(folder.path())
        .args(run.to_arguments())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(ControlError::Spawn)?;
    let broker = wait_ready(folder, &mut child, log_start)?;
    say(&running_text(&broker))
}

/// Descriptors of who called us, a lock of a script perhaps, are not the broker's.
fn keep_descriptors() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|&number: &i32| number > 2) {
        // The one that lists the folder is closed by then.
        let _ = fcntl(number, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
}

fn open_log(folder: &DataFolder) -> Result<(File, u64), ControlError> {
    let failed = |error| ControlError::DataFolder(DataFolderError::File(folder.log(), error));
    let mut options = OpenOptions::new();
    let log = options.create(true).append(true).mode(0o640).open(folder.log()).map_err(failed)?;
    let length = log.metadata().map_err(failed)?.len();
    Ok((log, length))
}

/// Waits until the child answers; if it ends or is too slow, says why.
fn wait_ready(
    folder: &DataFolder,
    child: &mut Child,
    log_start: u64,
) -> Result<BrokerLine, ControlError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(broker) = broker(folder, ANSWER_TIMEOUT)
            && broker.pid == child.id()
        {
            return Ok(broker);
        }
        if let Some(status) = child.try_wait().map_err(ControlError::Spawn)? {
            let reason = last_error(folder, log_start).unwrap_or_else(|| {
                format!("the broker ended ({status}); see {}", folder.log().display())
            });
            return Err(ControlError::Failed(reason));
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(ControlError::NotReady(START_TIMEOUT, folder.log()));
        }
        thread::sleep(POLL);
    }
}

/// The last thing the broker said was wrong, from `start` on in its log.
fn last_error(folder: &DataFolder, start: u64) -> Option<String> {
    let mut log = File::open(folder.log()).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(start.max(length.saturating_sub(LOG_TAIL)))).ok()?;
    let mut text = Vec::new();
    log.take(LOG_TAIL).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut told: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix(crate::ERROR_PREFIX)).collect();
    if told.is_empty() {
        told.extend(text.lines().rfind(|line| !line.trim().is_empty()));
    }
    (!told.is_empty()).then(|| told.join("\n"))
}

/// `stop`
///
/// # Errors
/// [`ControlError`].
pub fn stop(folder: &DataFolder) -> Result<(), ControlError> {
    if !folder.is_taken() {
        return Err(ControlError::NotRunning(not_running(folder)));
    }
    let pid = folder.pid();
    if ask_within(folder, &AdminRequest::Stop, ANSWER_TIMEOUT, |_| Ok(())).is_err()
        && let Some(pid) = pid
    {
        // It does not answer: it may still take a signal.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while folder.is_taken() {
        if Instant::now() >= deadline {
            return Err(ControlError::NotEnded(pid.unwrap_or(0), STOP_TIMEOUT));
        }
        thread::sleep(POLL);
    }
    say("ok")
}

/// `restart`
///
/// # Errors
/// [`ControlError`]; settings that have become wrong are found before the broker is stopped.
pub fn restart(folder: &DataFolder) -> Result<(), ControlError> {
    let launch = folder.launch().ok_or_else(|| ControlError::NoLaunch(folder.path().to_owned()))?;
    let line = ["ringmq", "start"].map(str::to_owned).into_iter().chain(launch.arguments);
    let run = match Cli::try_parse_from(line) {
        Ok(Cli { command: CliCommand::Start(run), .. }) => run,
        Ok(_) => return Err(ControlError::BadLaunch("it is no start".to_owned())),
        Err(error) => return Err(ControlError::BadLaunch(error.to_string())),
    };
    console::settings(folder, &run.settings)?;
    if folder.is_taken() {
        stop(folder)?;
    }
    start(folder, &run)
}

fn running_text(broker: &BrokerLine) -> String {
    format!("Node '{}' is started\nringmq {} is running", broker.node, broker.version)
}

/// What is wrong with the running broker; nothing if it does not tell.
fn active_alarms(folder: &DataFolder) -> Vec<AlarmLine> {
    let mut alarms: Vec<AlarmLine> = Vec::new();
    let asked = ask_within(folder, &AdminRequest::Alarms, ANSWER_TIMEOUT, |row| {
        alarms.push(serde_json::from_str(row)?);
        Ok(())
    });
    if asked.is_err() {
        return Vec::new();
    }
    alarms.retain(|alarm| alarm.active);
    alarms
}

/// `status`: whether it runs.
///
/// # Errors
/// [`ControlError`] if the answer cannot be printed.
pub fn status(folder: &DataFolder, output: Output) -> Result<bool, ControlError> {
    match broker(folder, ANSWER_TIMEOUT) {
        Ok(broker) if output.json => {
            let object = json!({
                "node": broker.node, "running": true, "version": broker.version, "pid": broker.pid,
                "uptime_s": broker.uptime_s, "shards": broker.shards, "data": folder.path(),
                "alarms": active_alarms(folder),
            });
            say(&object.to_string())?;
            Ok(true)
        }
        Ok(broker) => {
            let mut text = running_text(&broker);
            for alarm in active_alarms(folder) {
                text.push('\n');
                text.push_str(&show::alarm(&alarm));
            }
            say(&text)?;
            Ok(true)
        }
        Err(_) if output.json => {
            say(&json!({ "node": node_name(folder), "running": false }).to_string())?;
            Ok(false)
        }
        Err(_) => {
            say(&format!("{}\nringmq is not running", not_running(folder)))?;
            Ok(false)
        }
    }
}

/// `ping`
///
/// # Errors
/// [`ControlError::NotRunning`] if nobody answers.
pub fn ping(folder: &DataFolder) -> Result<(), ControlError> {
    match ask_within(folder, &AdminRequest::Ping, ANSWER_TIMEOUT, |_| Ok(())) {
        Ok(()) => say("pong"),
        Err(_) => Err(ControlError::NotRunning(not_running(folder))),
    }
}

fn say(line: &str) -> Result<(), ControlError> {
    writeln!(io::stdout(), "{line}").map_err(|e| ControlError::Client(ClientError::Output(e)))
}
