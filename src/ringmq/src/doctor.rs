//! `doctor`: what on this machine would keep a broker from holding so many clients.
//!
//! `machine` gathers the facts and is the only part that looks at the machine; `diagnose` judges them and touches nothing.

mod diagnose;
mod machine;

use std::io::{self, Write};

use admin::DataFolder;
use config::ConfigError;
use displaydoc::Display;
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

use crate::cli::DoctorArgs;
use crate::console;
use diagnose::{Plan, diagnose};
use machine::Machine;

/// Why there is no diagnosis.
#[derive(Debug, Display, Error)]
pub enum DoctorError {
    /// {0}
    Config(#[from] ConfigError),
    /// cannot write: {0}
    Output(#[from] io::Error),
}

/// What a finding means for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Nothing is in the way.
    Ok,
    /// It runs, but worse than it could, or not under every load.
    Warn,
    /// It cannot hold the clients.
    Stop,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Stop => "stop",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    check: String,
    state: State,
    /// How it is.
    found: String,
    /// How it should be, and why.
    needed: Option<String>,
    /// What to do.
    remedy: Option<String>,
}

impl Finding {
    /// `stop  fs.file-max is 65536; 1000000 clients need at least 1010000: sysctl -w fs.file-max=2097152`
    fn line(&self) -> String {
        let mut line = format!("{:<4}  {}", self.state.word(), self.found);
        for (mark, part) in [("; ", &self.needed), (": ", &self.remedy)] {
            if let Some(part) = part {
                line.push_str(mark);
                line.push_str(part);
            }
        }
        line
    }
}

/// Looks, judges and prints; whether nothing stops the broker.
///
/// # Errors
/// [`DoctorError`].
pub fn run(folder: &DataFolder, arguments: &DoctorArgs) -> Result<bool, DoctorError> {
    let (settings, warnings) = console::settings(folder, &arguments.settings)?;
    for warning in warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let machine = Machine::look(folder, &settings);
    let plan = Plan::new(arguments.connections, &machine, settings);
    let findings = diagnose(&machine, &plan);
    let stops = findings.iter().filter(|f| f.state == State::Stop).count();
    let warns = findings.iter().filter(|f| f.state == State::Warn).count();
    let mut out = io::stdout().lock();
    if arguments.json {
        let report = json!({
            "connections": plan.connections, "shards": plan.shards, "holds": stops == 0,
            "findings": findings,
        });
        writeln!(out, "{report}")?;
    } else {
        for finding in &findings {
            writeln!(out, "{}", finding.line())?;
        }
        writeln!(out, "{}", summary(&plan, stops, warns))?;
    }
    Ok(stops == 0)
}

/// The last line.
fn summary(plan: &Plan, stops: usize, warns: usize) -> String {
    let of = |count: usize, one: &str| match count {
        0 => format!("no {one}s"),
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    };
    let shards = of(plan.shards, "shard");
    let warnings = of(warns, "warning");
    match stops {
        0 => {
            format!("Nothing stops {shards} from holding {} clients; {warnings}.", plan.connections)
        }
        _ => format!(
            "{} in the way of {} clients on {shards}; {warnings}.",
            of(stops, "obstacle"),
            plan.connections
        ),
    }
}
