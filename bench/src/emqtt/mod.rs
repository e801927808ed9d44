//! `conn`, `sub` and `pub`: emqtt_bench's options and its output, on our own engine.

mod clients;
mod config;
mod context;
mod counters;
mod headers;
mod lines;
mod names;
mod options;
mod output;
mod packets;
mod payload;
mod prometheus;
mod publisher;
mod qoe;
mod random;
mod reason;
mod run;
mod subscriber;
mod topic;
mod topics_payload;

pub use options::{ConnArgs, PubArgs, SubArgs};

use crate::error::BenchError;
use config::Config;

/// `ringmq-bench conn`
pub fn conn(args: &ConnArgs) -> Result<(), BenchError> {
    run::run(Config::conn(args)?)
}

/// `ringmq-bench sub`
pub fn sub(args: &SubArgs) -> Result<(), BenchError> {
    run::run(Config::sub(args)?)
}

/// `ringmq-bench pub`
pub fn publish(args: &PubArgs) -> Result<(), BenchError> {
    run::run(Config::publish(args)?)
}
