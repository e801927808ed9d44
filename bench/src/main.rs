//! Measures MQTT brokers: offered and delivered rates, latency from the intended send time, losses and duplicates, and
//! the broker's CPU time and memory per message and per client.

mod beside;
mod cases;
mod cli;
mod clients;
mod compare;
mod durable;
mod echo;
mod emqtt;
mod engine;
mod error;
mod hostile;
mod million;
mod names;
mod plan;
mod report;
mod run;
mod sources;
mod sys;
mod transport;
mod wire;

use clap::Parser;
use cli::{Cli, Command, Scenario, ScenarioArgs};
use error::BenchError;
use serde_json::{Value, json};
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return usage(&error),
    };
    let result = match command {
        Command::Conn(args) => emqtt::conn(&args),
        Command::Sub(args) => emqtt::sub(&args),
        Command::Pub(args) => emqtt::publish(&args),
        Command::Scenario(args) => scenario(&args),
        Command::Million(args) => million::run(&args),
        Command::EchoServer(args) => echo::serve(&args),
        Command::Compare(args) => compare::compare(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmq-bench: {error}");
            match error {
                BenchError::Option(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints the help, or one line about what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has gone needs no help.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    // Its first paragraph says what is wrong; the usage and the tips behind it are in --help.
    let lines = text.lines().take_while(|line| !line.is_empty());
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let reason = words.join(" ");
    let reason = reason.strip_prefix("error: ").unwrap_or(&reason);
    eprintln!("ringmq-bench: {reason} (see --help)");
    ExitCode::from(2)
}

fn scenario(args: &ScenarioArgs) -> Result<(), BenchError> {
    let plan = args.plan()?;
    let load = args.load(&plan)?;
    let course = args.course()?;
    if !args.cpu.is_empty() {
        sys::pin(&args.cpu).map_err(|source| BenchError::Pin { cpus: args.cpu.clone(), source })?;
    }
    sys::sharpen_timers().map_err(BenchError::io("cannot set the timer slack"))?;
    let measured = match args.name {
        Scenario::Hostile => hostile::run(&plan, &load, &course, &args.hostile)?,
        Scenario::TlsIdle | Scenario::TlsHandshakes | Scenario::ReconnectStorm => {
            beside::run(args, &plan, &load, &course)?
        }
        Scenario::DurablePub | Scenario::OfflineQueue | Scenario::RetainedMany => {
            durable::run(args, &load, &course)?
        }
        _ => report::outcome(&run::run(&plan, &load, &course)?, &plan, &load, &course),
    };
    let mut value = json!({
        "label": args.label.clone().unwrap_or_else(|| args.name.name()),
        "scenario": args.name.name(),
        "broker": args.broker,
        "count": args.count.unwrap_or(args.name.case().count),
    });
    if let (Value::Object(to), Value::Object(from)) = (&mut value, measured) {
        to.extend(from);
    }
    report::print(&value);
    match &args.json {
        Some(path) => report::save(&value, path),
        None => Ok(()),
    }
}
