//! Micro-benchmarks of RingMQ's hot paths that report instructions per operation.
//!
//! Time on a shared machine moves by a fifth from hour to hour; the number of instructions does not
//! move at all. So each group of operations runs twice, each time in a process of its own: natively,
//! for the wall time and the memory, and under callgrind, for the instructions. Callgrind counts only
//! between two requests that the [`meter`] makes, so that building ten million routes neither counts
//! nor takes callgrind's time.

mod callgrind;
mod codec;
mod driver;
mod error;
mod group;
mod hooks;
mod meter;
mod rings;
mod routes;
mod table;

use clap::Parser;
use group::Group;
use meter::{Meter, Mode};
use std::process::ExitCode;

/// Counts the instructions of RingMQ's hot paths with callgrind.
#[derive(Parser)]
#[command(name = "ringmq-micro", version)]
struct Cli {
    /// Leave out what takes long: a million routes and more
    #[arg(long)]
    quick: bool,
    /// Only this group (repeatable)
    #[arg(long, value_enum)]
    only: Vec<Group>,
    /// Count everything twice, and fail if two counts differ
    #[arg(long)]
    twice: bool,
    /// What the processes started by this one do: run one group
    #[arg(long, hide = true, value_enum)]
    child: Option<Group>,
    /// Of such a process: how it measures
    #[arg(long, hide = true, value_enum, default_value = "native")]
    mode: Mode,
}

impl Cli {
    fn groups(&self) -> Vec<Group> {
        let is_wanted = |group: &Group| match self.only.is_empty() {
            true => !self.quick || group.is_quick(),
            false => self.only.contains(group),
        };
        Group::ALL.into_iter().filter(is_wanted).collect()
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.child {
        Some(group) => group.run(&mut Meter::new(cli.mode)),
        None => driver::run(&cli.groups(), cli.twice),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmq-micro: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_quick_mode_has_no_million() {
        let quick = Cli::parse_from(["ringmq-micro", "--quick"]).groups();
        assert!(quick.contains(&Group::Exact100K) && !quick.contains(&Group::Exact1M));
        assert_eq!(Cli::parse_from(["ringmq-micro"]).groups(), Group::ALL);
        let only = Cli::parse_from(["ringmq-micro", "--quick", "--only", "exact-10m"]).groups();
        assert_eq!(only, [Group::Exact10M]);
    }
}
