//! `console`: the broker itself, from settings to an orderly end.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::panic;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use admin::{Admin, AdminError, DataFolder, DataFolderError, Event, Launch};
use config::{ConfigError, LoadRequest, LogLevel, Origin, Settings, Warning};
use displaydoc::Display;
use node::{Node, NodeError, StoreError};
use thiserror::Error;

use crate::ERROR_PREFIX;
use crate::cli::{RunArgs, SettingArgs};
use crate::notify;

/// Time an orderly end may take in all.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Exit code after a panic.
const EXIT_PANIC: i32 = 101;

/// Why the broker did not start.
#[derive(Debug, Display, Error)]
pub enum ConsoleError {
    /// {0}
    Config(#[from] ConfigError),
    /// {0}
    DataFolder(#[from] DataFolderError),
    /// {0}
    Node(#[from] NodeError),
    /// {0}
    Admin(#[from] AdminError),
    /// the store could not write what was left, which is lost: {0}
    Store(StoreError),
}

/// Reads the settings that arguments, environment and file give. The data folder is always the one the command line found.
///
/// # Errors
/// [`ConfigError`].
pub fn settings(
    folder: &DataFolder,
    sources: &SettingArgs,
) -> Result<(Settings, Vec<Warning>), ConfigError> {
    let mut set = sources.set.clone();
    if let Some(shards) = sources.shards {
        set.push(("node.shards".to_owned(), shards.to_string()));
    }
    let file = sources.config.as_ref().map(PathBuf::from);
    let mut request = LoadRequest::with_process_environment(file, set);
    let other = |entry: &config::Entry| {
        entry.origin != Origin::Default
            && entry.value != entry.default
            && Path::new(&entry.value) != folder.path()
    };
    let named = Settings::load(&request)?.0.get("node.data_dir").filter(other);
    request.set.push(("node.data_dir".to_owned(), folder.path().display().to_string()));
    let (settings, mut warnings) = Settings::load(&request)?;
    if let Some(entry) = named {
        // The other commands do not read the settings, and would not find the broker.
        let text = format!(
            "node.data_dir has no effect: the data folder is {}, as --data or RINGMQ_DATA names it",
            folder.path().display()
        );
        warnings.push(Warning { origin: entry.origin, key: entry.key, text });
    }
    Ok((settings, warnings))
}

/// Runs a broker until it is told to end.
///
/// # Errors
/// [`ConsoleError`]: nothing was started, or all that was is ended.
pub fn run(folder: &DataFolder, run: &RunArgs) -> Result<(), ConsoleError> {
    if run.detached {
        // Fails only for a leader of a group; then there is no terminal to leave either.
        let _ = nix::unistd::setsid();
    }
    let (settings, warnings) = settings(folder, &run.settings)?;
    if run.check {
        node::check_filters(&settings).map_err(NodeError::from)?;
        node::load_acl(&settings).map_err(NodeError::from)?;
        for warning in warnings {
            say(&format!("warning: {warning}"));
        }
        say("The settings are right.");
        return Ok(());
    }
    start_log(settings.log.console_level);
    if let Err(errno) = nix::sys::prctl::set_thp_disable(!settings.node.huge_pages) {
        log::warn!("node.huge_pages could not be set: {errno}");
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    folder.create()?;
    let lock = folder.lock()?;
    let outcome = folder.listen(&lock).map_err(ConsoleError::from).and_then(|socket| {
        let outcome = serve(folder, run, settings, socket);
        let _ = fs::remove_file(folder.socket());
        outcome
    });
    lock.release();
    outcome
}

/// From the start of the shards to their end.
fn serve(
    folder: &DataFolder,
    run: &RunArgs,
    settings: Settings,
    socket: UnixListener,
) -> Result<(), ConsoleError> {
    stop_on_panic();
    let name = settings.node.name.clone();
    say(&format!("starting ringmq on node '{name}'"));
    let sys_interval = Duration::from_millis(settings.broker.sys_interval_ms);
    let node = Arc::new(Node::start(settings)?);
    say(&node.probe_line());
    for line in node.listener_lines() {
        say(&line);
    }
    folder.save_launch(&Launch { node: name, arguments: run.to_arguments() })?;
    let mut admin = Admin::start(socket, Arc::clone(&node), sys_interval)?;
    say(&format!("ringmq {} is running now", node::VERSION));
    notify::state("READY=1");
    match admin.wait() {
        Some(Event::Signal(name)) => log::info!("{name}: shutting down"),
        Some(Event::Stop) => log::info!("stop: shutting down"),
        None => log::error!("the control plane ended: shutting down"),
    }
    notify::state("STOPPING=1");
    let ended = node.shutdown(SHUTDOWN_GRACE);
    if let Ok(left @ 1..) = ended {
        log::warn!("{left} connections did not take what was sent to them in time");
    }
    admin.stop();
    ended.map_err(ConsoleError::Store)?;
    log::info!("ringmq has ended");
    Ok(())
}

/// A line to standard output. Who started the broker may have closed it: that must not end the broker.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush());
}

fn start_log(level: LogLevel) {
    let level = level.log_filter().parse().unwrap_or(log::LevelFilter::Info);
    let engine = if level >= log::LevelFilter::Debug { level } else { log::LevelFilter::Off };
    env_logger::Builder::new()
        .filter_level(level)
        // It prints its errors as Rust values over several lines; what matters of them comes back as our own.
        .filter_module("glommio", log::LevelFilter::Off)
        // The engine of the store tells of its daily work, which is of no use to who runs a broker.
        .filter_module("fjall", level.min(log::LevelFilter::Warn))
        // What these find damaged comes back as our own errors, with the file and what to do.
        .filter_module("fjall::db", engine)
        .filter_module("fjall::recovery", engine)
        .filter_module("lsm_tree", engine)
        .filter_module("sfa", engine)
        .format_target(false)
        .init();
}

/// A panic anywhere is a bug that ends the process with its reason: never a silent loss of a part of the clients.
fn stop_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if node::is_panic_caught() {
            // It becomes an error, which says what was wrong with the store's files.
            return;
        }
        report(info);
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        if name.starts_with("shard-") {
            // Its reactor ends the process, without waiting for anything.
            return;
        }
        let what = if name.starts_with("fjall") {
            "the store's engine stopped while it worked on its files, which may be damaged: the broker ends; start it again, and \
             if that does not help put back a backup (ringmq store restore DIR) or move the folder `store` away"
                .to_owned()
        } else {
            format!("bug in thread {name}: the broker stops")
        };
        let _ = writeln!(io::stderr(), "{ERROR_PREFIX}{what}");
        process::exit(EXIT_PANIC);
    }));
}
