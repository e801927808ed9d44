//! Where a value came from, what can be wrong with it, and what is worth a warning.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// The table.
    #[default]
    Default,
    /// A line of a file.
    File {
        /// Path as it was given.
        path: Arc<str>,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// `--set key=value`.
    CommandLine,
    /// A change while the broker ran.
    Runtime,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment(name) => write!(f, "env {name}"),
            Origin::CommandLine => f.write_str("--set"),
            Origin::Runtime => f.write_str("runtime"),
        }
    }
}

/// Something accepted that does not do what its author may expect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    /// Where it stands.
    pub origin: Origin,
    /// The key as it was written.
    pub key: String,
    /// What it is about, as a sentence without the place.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Why settings could not be loaded.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum ConfigError {
    /// cannot read the settings file {path:?}: {source}
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// {origin}: cannot read this line as a setting: {reason}; write it as key = value
    Syntax {
        /// Where it stands.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
    /// {origin}: unknown key {key}{hint}
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key as it was written.
        key: String,
        /// The nearest key, as the end of the message; empty if none is near.
        hint: String,
    },
    /// {0}
    BadValue(Box<BadValue>),
    /// {0}
    Refused(Box<Refused>),
    /// {key} cannot change while the broker runs; put it into the settings file and restart
    NotHot {
        /// The key.
        key: String,
    },
    /// {0}
    Several(Problems),
}

/// {origin}: {key} cannot be {given:?}; allowed: {allowed}, for example {example}
#[derive(Debug, displaydoc::Display)]
pub struct BadValue {
    /// Where it stands.
    pub origin: Origin,
    /// The key.
    pub key: String,
    /// What was given.
    pub given: String,
    /// What is allowed.
    pub allowed: String,
    /// A value that would be accepted.
    pub example: String,
}

/// {origin}: {key} = {given}: {reason}
#[derive(Debug, displaydoc::Display)]
pub struct Refused {
    /// Where it stands.
    pub origin: Origin,
    /// The key.
    pub key: String,
    /// What was given.
    pub given: String,
    /// Why it cannot be, and what to do instead.
    pub reason: String,
}

impl From<BadValue> for ConfigError {
    fn from(value: BadValue) -> Self {
        Self::BadValue(Box::new(value))
    }
}

impl From<Refused> for ConfigError {
    fn from(value: Refused) -> Self {
        Self::Refused(Box::new(value))
    }
}

/// More than one error, one a line.
#[derive(Debug)]
pub struct Problems(pub Vec<ConfigError>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}
