//! A metric nobody writes is a lie in a listing: each one declared must be named by another crate.

use metrics_names::{all, sources};

mod metrics_names {
    use ringmq_metrics::{Counter, DropKind, DropReason, Gauge};
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    /// All variants as they are written in code.
    pub fn all() -> Vec<String> {
        let counters = Counter::ALL.iter().map(|c| format!("Counter::{c:?}"));
        let kinds = DropKind::ALL.iter().map(|k| format!("DropKind::{k:?}"));
        let reasons = DropReason::ALL.iter().map(|r| format!("DropReason::{r:?}"));
        let gauges = Gauge::ALL.iter().map(|g| format!("Gauge::{g:?}"));
        counters.chain(kinds).chain(reasons).chain(gauges).collect()
    }

    /// The source text of all other crates in `src/`, tests left out as far as they have files of their own.
    pub fn sources() -> String {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut text = String::new();
        for folder in entries(own.parent().expect("the crates are in src/")) {
            if folder != own {
                read(&folder.join("src"), &mut text);
            }
        }
        assert!(!text.is_empty(), "no source of another crate was found beside {}", own.display());
        text
    }

    fn read(path: &Path, text: &mut String) {
        if path.is_dir() {
            entries(path).iter().for_each(|entry| read(entry, text));
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
            text.push_str(&fs::read_to_string(path).expect("a source file can be read"));
        }
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a source folder can be read");
        entries.map(|entry| entry.expect("its entries too").path()).collect()
    }
}

/// Whether `name` occurs in `text` as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| !goes_on(&text[at + name.len()..]))
}

#[test]
fn every_declared_metric_is_written_by_another_crate() {
    let text = sources();
    let unused: Vec<_> = all().into_iter().filter(|name| !mentions(&text, name)).collect();
    assert!(
        unused.is_empty(),
        "declared in src/metrics but named by no other crate; write them or take them out:\n  {}",
        unused.join("\n  ")
    );
}

#[test]
fn a_longer_name_is_no_mention() {
    assert!(!mentions("x(Counter::PacketsConnected)", "Counter::PacketsConnect"));
    assert!(mentions(
        "x(Counter::PacketsConnected, Counter::PacketsConnect)",
        "Counter::PacketsConnect"
    ));
}
