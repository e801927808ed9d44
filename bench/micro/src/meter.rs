//! Measures an operation, and says so in lines that the process which started this one reads.

use crate::hooks;
use clap::ValueEnum;
use std::ffi::CString;
use std::fmt;
use std::time::{Duration, Instant};

/// Operations before any is counted: buffers are as large then as they get, and rings have gone round.
const WARM_UP: usize = 1_024;
/// Native passes; the fastest is reported, because others of this machine only ever make one slower.
const PASSES: usize = 9;

/// How to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Mode {
    /// Wall time
    Native,
    /// Instructions; the process runs under callgrind
    Callgrind,
}

/// What a measuring process says.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// An operation was measured.
    Operation {
        /// Its name.
        name: String,
        /// How often it was done while it was counted.
        operations: usize,
        /// Nanoseconds each, natively.
        ns: Option<f64>,
    },
    /// Routes take memory.
    Routes(Routes),
}

/// The memory of routes.
#[derive(Debug, PartialEq)]
pub struct Routes {
    /// What they are.
    pub kind: String,
    /// How many.
    pub count: usize,
    /// Bytes on the shard that has the subscribers.
    pub own_bytes: usize,
    /// Bytes on another shard.
    pub other_bytes: usize,
    /// Bytes by which the process grew, with both.
    pub resident_bytes: usize,
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation { name, operations, ns } => {
                write!(out, "operation\t{name}\t{operations}\t")?;
                ns.map_or(Ok(()), |ns| write!(out, "{ns}"))
            }
            Self::Routes(routes) => {
                let Routes { kind, count, own_bytes, other_bytes, resident_bytes } = routes;
                write!(out, "routes\t{kind}\t{count}\t{own_bytes}\t{other_bytes}\t{resident_bytes}")
            }
        }
    }
}

impl Line {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split('\t').collect();
        match fields[..] {
            ["operation", name, operations, ns] => Some(Self::Operation {
                name: name.to_owned(),
                operations: operations.parse().ok().filter(|count| *count > 0)?,
                ns: if ns.is_empty() { None } else { Some(ns.parse().ok()?) },
            }),
            ["routes", kind, count, own, other, resident] => Some(Self::Routes(Routes {
                kind: kind.to_owned(),
                count: count.parse().ok().filter(|count| *count > 0)?,
                own_bytes: own.parse().ok()?,
                other_bytes: other.parse().ok()?,
                resident_bytes: resident.parse().ok()?,
            })),
            _ => None,
        }
    }
}

/// Measures operations one after the other.
pub struct Meter {
    mode: Mode,
}

impl Meter {
    /// One that measures in this way.
    pub const fn new(mode: Mode) -> Self {
        Self { mode }
    }

    /// Does `operation` so often, with the numbers from 0 on, and reports what each cost. Its result
    /// and what it works on should go through [`std::hint::black_box`].
    pub fn measure(&mut self, name: &str, operations: usize, mut operation: impl FnMut(usize)) {
        pass(operations.min(WARM_UP), &mut operation);
        let ns = match self.mode {
            Mode::Callgrind => {
                let name = CString::new(name).expect("a name has no zero byte");
                hooks::start_counting();
                pass(operations, &mut operation);
                hooks::stop_counting(&name);
                None
            }
            Mode::Native => {
                let time = |_| {
                    let start = Instant::now();
                    pass(operations, &mut operation);
                    start.elapsed()
                };
                let best = (0..PASSES).map(time).min();
                best.map(|best| nanoseconds(best, operations))
            }
        };
        println!("{}", Line::Operation { name: name.to_owned(), operations, ns });
    }

    /// Reports memory.
    pub fn routes(&mut self, routes: Routes) {
        println!("{}", Line::Routes(routes));
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn nanoseconds(time: Duration, operations: usize) -> f64 {
    time.as_secs_f64() * 1e9 / operations as f64
}

/// What is counted. A function of its own, so that the loop is the same for all.
#[inline(never)]
fn pass(operations: usize, operation: &mut impl FnMut(usize)) {
    for number in 0..operations {
        operation(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let lines = [
            Line::Operation { name: "a b, c".to_owned(), operations: 7, ns: Some(1.25) },
            Line::Operation { name: "d".to_owned(), operations: 1, ns: None },
            Line::Routes(Routes {
                kind: "exact".to_owned(),
                count: 1,
                own_bytes: 2,
                other_bytes: 3,
                resident_bytes: 4,
            }),
        ];
        for line in lines {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
        for bad in ["", "operation\ta\t1", "operation\ta\t0\t", "operation\ta\tx\t", "routes\ta\t1"]
        {
            assert_eq!(Line::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn each_number_comes_once_a_pass() {
        let mut seen = [0_usize; 3];
        Meter::new(Mode::Native).measure("a test", 3, |number| seen[number] += 1);
        assert_eq!(seen, [PASSES + 1; 3]);
    }
}
