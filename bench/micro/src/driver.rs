//! Runs each group natively and under callgrind, and prints the tables.

use crate::callgrind::{Counts, Folder};
use crate::error::MicroError;
use crate::group::Group;
use crate::meter::{Line, Routes};
use crate::table;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One measured operation.
pub struct Row {
    /// Its name.
    pub name: String,
    /// How often it was done while it was counted.
    pub operations: usize,
    /// Instructions of all of them.
    pub instructions: u64,
    /// Nanoseconds of one, natively.
    pub ns: Option<f64>,
}

/// Measures these groups; with `twice` the instructions of each again, which must be the same.
pub fn run(groups: &[Group], twice: bool) -> Result<(), MicroError> {
    let program = std::env::current_exe().map_err(MicroError::io("cannot find this program"))?;
    let driver = Driver { program, folder: Folder::new()? };
    let (mut rows, mut routes) = (Vec::new(), Vec::new());
    for group in groups {
        eprintln!("ringmq-micro: {}", group.name());
        let counts = driver.count(*group)?;
        if twice {
            same(&counts, &driver.count(*group)?)?;
        }
        for line in driver.lines(Command::new(&driver.program), *group, "natively")? {
            match line {
                Line::Routes(measured) => routes.push(measured),
                Line::Operation { name, operations, ns } => {
                    let instructions = counts.get(&name).copied().filter(|count| *count > 0);
                    let instructions =
                        instructions.ok_or_else(|| MicroError::NotCounted(name.clone()))?;
                    rows.push(Row { name, operations, instructions, ns });
                }
            }
        }
    }
    print(&rows, &routes);
    if twice {
        println!("\nEach of the {} counts was the same in a second run.", rows.len());
    }
    Ok(())
}

fn print(rows: &[Row], routes: &[Routes]) {
    for line in table::operations(rows) {
        println!("{line}");
    }
    if !routes.is_empty() {
        println!();
        for line in table::routes(routes) {
            println!("{line}");
        }
    }
}

fn same(first: &Counts, second: &Counts) -> Result<(), MicroError> {
    let text = |count: Option<&u64>| count.map_or_else(|| "nothing".to_owned(), u64::to_string);
    let names = first.keys().chain(second.keys().filter(|name| !first.contains_key(*name)));
    let differing: Vec<String> = names
        .filter(|name| first.get(*name) != second.get(*name))
        .map(|name| format!("{name}: {}, then {}", text(first.get(name)), text(second.get(name))))
        .collect();
    if differing.is_empty() { Ok(()) } else { Err(MicroError::Differs(differing.join("; "))) }
}

struct Driver {
    program: PathBuf,
    folder: Folder,
}

impl Driver {
    fn count(&self, group: Group) -> Result<Counts, MicroError> {
        let mut command = self.folder.command(&self.program);
        command.args(["--mode", "callgrind"]);
        self.lines(command, group, "under callgrind")?;
        self.folder.take()
    }

    /// What the command says, which is this program with `--child`.
    fn lines(
        &self,
        mut command: Command,
        group: Group,
        how: &'static str,
    ) -> Result<Vec<Line>, MicroError> {
        // The environment lies on the stack: without it the stack is the same in every run.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.args(["--child", &group.name()]).env_clear().env("PATH", path);
        let is_own = Path::new(command.get_program()) == self.program;
        let failed = |source: io::Error| match is_own {
            true => MicroError::Io { what: "cannot start this program again", source },
            false => MicroError::Valgrind(source),
        };
        let output = command.output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason = said.lines().rev().find(|line| !line.trim().is_empty());
            let reason = reason.map_or_else(|| output.status.to_string(), str::to_owned);
            return Err(MicroError::Group { group: group.name(), how, reason });
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let read = |line: &str| {
            let unknown = || MicroError::Line { group: group.name(), line: line.to_owned() };
            Line::parse(line).ok_or_else(unknown)
        };
        text.lines().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_differs_is_named() {
        let counts = |list: &[(&str, u64)]| -> Counts {
            list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let first = counts(&[("a", 1), ("b", 2)]);
        assert!(same(&first, &first).is_ok());
        let error = same(&first, &counts(&[("a", 1), ("b", 3), ("c", 4)])).expect_err("differs");
        let text = error.to_string();
        assert!(text.ends_with("b: 2, then 3; c: nothing, then 4"), "{text}");
    }
}
