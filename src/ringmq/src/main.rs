//! The `ringmq` program: runs a broker, and asks and commands a running one.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod console;
mod control;
mod doctor;
mod notify;
mod query;
mod show;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use admin::DataFolder;
use admin::protocol::ErrorKind;
use clap::Parser;

use crate::cli::{Cli, Command};
use crate::client::ClientError;
use crate::control::ControlError;
use crate::doctor::DoctorError;

/// The shards make and drop many small things; the system's allocator would hand memory back late and share locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Starts each line that says why a command failed.
pub(crate) const ERROR_PREFIX: &str = "ringmq: ";

/// Done.
const OK: u8 = 0;

/// Failed, or no broker runs.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(perform(cli))
}

fn perform(cli: Cli) -> u8 {
    let folder = match data_folder(cli.data) {
        Ok(folder) => folder,
        Err(error) => return fail(&error),
    };
    match cli.command {
        Command::Console(run) => match console::run(&folder, &run) {
            Ok(()) => OK,
            Err(error) => fail(&error.to_string()),
        },
        Command::Start(run) => controlled(control::start(&folder, &run)),
        Command::Stop => controlled(control::stop(&folder)),
        Command::Restart => controlled(control::restart(&folder)),
        Command::Ping => controlled(control::ping(&folder)),
        Command::Status(output) => match control::status(&folder, output) {
            Ok(running) => {
                if running {
                    OK
                } else {
                    FAILED
                }
            }
            Err(error) => controlled(Err(error)),
        },
        Command::Broker { part, output } => answered(&folder, query::broker(&folder, part, output)),
        Command::Clients(command) => answered(&folder, query::clients(&folder, command)),
        Command::Sessions(command) => answered(&folder, query::sessions(&folder, command)),
        Command::Routes(command) => answered(&folder, query::routes(&folder, command)),
        Command::Topics(command) => answered(&folder, query::topics(&folder, command)),
        Command::Subscriptions(command) => {
            answered(&folder, query::subscriptions(&folder, command))
        }
        Command::Listeners { command: None, output } => {
            answered(&folder, query::listeners(&folder, output))
        }
        Command::Listeners { command: Some(command), .. } => {
            answered(&folder, query::listener(&folder, command))
        }
        Command::Vm { part, output } => answered(&folder, query::vm(&folder, part, output)),
        Command::Delayed(command) => answered(&folder, query::delayed(&folder, command)),
        Command::Retainer(command) => answered(&folder, query::retainer(&folder, command)),
        Command::Store(command) => answered(&folder, query::store(&folder, command)),
        Command::Alarms(output) => answered(&folder, query::alarms(&folder, output)),
        Command::Banned(command) => answered(&folder, query::banned(&folder, command)),
        Command::Acl(command) => answered(&folder, query::acl(&folder, &command)),
        Command::Config(command) => answered(&folder, query::config(&folder, &command)),
        Command::Doctor(arguments) => match doctor::run(&folder, &arguments) {
            Ok(holds) => {
                if holds {
                    OK
                } else {
                    FAILED
                }
            }
            Err(DoctorError::Output(error)) => output_failed(&error),
            Err(error) => fail(&error.to_string()),
        },
        Command::Version => {
            let _ = writeln!(io::stdout(), "ringmq {}", env!("CARGO_PKG_VERSION"));
            OK
        }
    }
}

/// The data folder: the argument, `RINGMQ_DATA`, or a place of the user's.
fn data_folder(argument: Option<PathBuf>) -> Result<DataFolder, String> {
    let named = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let path = argument
        .or_else(|| named("RINGMQ_DATA"))
        .or_else(|| nix::unistd::geteuid().is_root().then(|| PathBuf::from("/var/lib/ringmq")))
        .or_else(|| named("XDG_STATE_HOME").map(|state| state.join("ringmq")))
        .or_else(|| named("HOME").map(|home| home.join(".local/state/ringmq")))
        .ok_or("no data folder: there is neither --data nor RINGMQ_DATA nor HOME")?;
    // The broker and its commands may run in different folders.
    let path = std::path::absolute(&path)
        .map_err(|error| format!("cannot use the data folder {}: {error}", path.display()))?;
    Ok(DataFolder::new(path))
}

fn fail(text: &str) -> u8 {
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "{ERROR_PREFIX}{line}");
    }
    FAILED
}

fn controlled(outcome: Result<(), ControlError>) -> u8 {
    match outcome {
        Ok(()) => OK,
        Err(ControlError::NotRunning(text)) => {
            let _ = writeln!(io::stderr(), "{text}");
            FAILED
        }
        Err(ControlError::Client(ClientError::Output(error))) => output_failed(&error),
        Err(error) => fail(&error.to_string()),
    }
}

fn answered(folder: &DataFolder, outcome: Result<(), ClientError>) -> u8 {
    match outcome {
        Ok(()) => OK,
        Err(ClientError::NotRunning) => {
            let _ = writeln!(io::stderr(), "{}", control::not_running(folder));
            FAILED
        }
        // What is not there is an answer, and the form of the field's command lines.
        Err(ClientError::Refused { kind: ErrorKind::NotFound, text }) => {
            let _ = writeln!(io::stdout(), "{text}");
            FAILED
        }
        Err(ClientError::Output(error)) => output_failed(&error),
        Err(error) => fail(&error.to_string()),
    }
}

/// Who reads has had enough, as with `| head`: that is no failure.
fn output_failed(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        OK
    } else {
        fail(&format!("cannot write: {error}"))
    }
}
