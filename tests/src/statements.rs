//! The lists of normative statements in `tests/statements`.
//!
//! One statement a line: `MQTT-3.1.2-24 | broker | what it asks for`. Lines that start with `##` are comments. Classes: `broker` can be
//! tested on a broker from outside, `client` concerns clients only, `wire` is shown by the codec's unit tests,
//! `untestable` says why in its text.

use std::fs;
use std::path::Path;

/// How a statement can be shown.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Class {
    /// By a test of the running broker.
    Broker,
    /// Not by a broker: it binds clients.
    Client,
    /// By unit tests of the codec.
    Wire,
    /// Not at all; the text says why.
    Untestable,
}

/// One normative statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    /// `MQTT-x.y.z-n`.
    pub id: String,
    /// How it can be shown.
    pub class: Class,
    /// What it asks for, in our words.
    pub text: String,
}

/// Reads one list.
///
/// # Panics
/// When the file cannot be read or a line does not have the form.
#[must_use]
pub fn read(path: &Path) -> Vec<Statement> {
    let text = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("##"));
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("not a statement: {line}"))).collect()
}

fn parse(line: &str) -> Option<Statement> {
    let mut parts = line.splitn(3, " | ");
    let id = parts.next()?.trim();
    let class = match parts.next()?.trim() {
        "broker" => Class::Broker,
        "client" => Class::Client,
        "wire" => Class::Wire,
        "untestable" => Class::Untestable,
        _ => return None,
    };
    let text = parts.next()?.trim();
    (id.starts_with("MQTT-") && !text.is_empty()).then(|| Statement {
        id: id.into(),
        class,
        text: text.into(),
    })
}
