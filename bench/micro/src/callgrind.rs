//! Runs a program under callgrind and reads what it has counted.

use crate::error::MicroError;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

/// What callgrind writes before the name that was given to a dump.
const NAME: &str = "desc: Trigger: Client Request: ";
/// The instructions of a dump.
const TOTALS: &str = "totals: ";

/// Instructions by name.
pub type Counts = BTreeMap<String, u64>;

/// A folder for callgrind's files; it goes with this value.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one.
    pub fn new() -> Result<Self, MicroError> {
        let path = std::env::temp_dir().join(format!("ringmq-micro-{}", process::id()));
        fs::create_dir_all(&path)
            .map_err(|source| MicroError::File { path: path.clone(), source })?;
        Ok(Self(path))
    }

    /// The command that runs a program under callgrind, which counts nothing until it is asked to.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("valgrind");
        let file = self.0.join("out");
        command.args(["-q", "--tool=callgrind", "--instr-atstart=no"]);
        command.arg(format!("--callgrind-out-file={}", file.display())).arg(program);
        command
    }

    /// What was counted since the last call.
    pub fn take(&self) -> Result<Counts, MicroError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| MicroError::File { path, source }
        };
        let mut counts = Counts::new();
        for entry in fs::read_dir(&self.0).map_err(failed(&self.0))? {
            let path = entry.map_err(failed(&self.0))?.path();
            // The first file is what is left at the end: nothing.
            if path.extension().is_some() {
                let text = fs::read_to_string(&path).map_err(failed(&path))?;
                let (name, count) =
                    read(&text).map_err(|what| MicroError::Profile { path: path.clone(), what })?;
                counts.insert(name, count);
            }
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        Ok(counts)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it: it lies among the temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The name and the instructions of one dump; otherwise what is missing.
fn read(text: &str) -> Result<(String, u64), &'static str> {
    let field = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    let name = field(NAME).ok_or("name")?;
    let count = field(TOTALS).and_then(|count| count.trim().parse().ok()).ok_or("total")?;
    Ok((name.to_owned(), count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_a_name_and_a_total() {
        let text = "# callgrind format\npart: 1\n\ndesc: Timerange: Basic block 0 - 9\n\
            desc: Trigger: Client Request: ring: push, pop\n\nevents: Ir\nsummary: 0\n\n\
            fn=(1) a\n16 5\n\ntotals: 12345\n";
        assert_eq!(read(text), Ok(("ring: push, pop".to_owned(), 12_345)));
        assert_eq!(read(&text.replace("totals", "x")), Err("total"));
        assert_eq!(read(&text.replace("desc: Trigger", "x")), Err("name"));
        assert_eq!(read(&text.replace("12345", "many")), Err("total"));
    }
}
