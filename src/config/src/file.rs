//! The lines of a settings file, the names of the environment, and the variables of EMQ's templates.

use std::path::Path;
use std::sync::Arc;

use crate::error::{ConfigError, Origin};
use crate::legacy::EMQ_ENVIRONMENT;

/// One `key = value`, as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Assignment {
    pub key: String,
    pub value: String,
    pub origin: Origin,
}

/// Reads the lines of `path`; errors of single lines are collected in `errors`.
pub(crate) fn read(
    path: &Path,
    errors: &mut Vec<ConfigError>,
) -> Result<Vec<Assignment>, ConfigError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(parse(path, &bytes, errors))
}

/// Parses the text of a file. `path` is only for origins and the folder variables.
pub(crate) fn parse(path: &Path, bytes: &[u8], errors: &mut Vec<ConfigError>) -> Vec<Assignment> {
    let name: Arc<str> = path.display().to_string().into();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut assignments = Vec::new();
    // A missing newline at the end is as good as one (SEED-CONF-18).
    for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let origin = Origin::File { path: Arc::clone(&name), line: index + 1 };
        let parsed = std::str::from_utf8(line)
            .map_err(|_| "it is not UTF-8".to_owned())
            .and_then(|line| parse_line(line, path));
        match parsed {
            Ok(Some((key, value))) => assignments.push(Assignment { key, value, origin }),
            Ok(None) => {}
            Err(reason) => errors.push(ConfigError::Syntax { origin, reason }),
        }
    }
    assignments
}

fn parse_line(line: &str, path: &Path) -> Result<Option<(String, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, value) = line.split_once('=').ok_or_else(|| "there is no =".to_owned())?;
    let key = key.trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if key.is_empty() {
        return Err("there is no key before the =".into());
    }
    if !key.bytes().all(plain) {
        return Err(format!("{key:?} is no key: letters, digits, dots, _ and - make one"));
    }
    Ok(Some((key.to_owned(), substitute(value.trim(), path)?)))
}

/// Puts folders in place of `{{ platform_etc_dir }}` and its kin (SEED-CONF-01).
fn substitute(value: &str, path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, tail)) = rest.split_once("{{") {
        // Braces that do not close are part of a value, a password perhaps.
        let Some((name, after)) = tail.split_once("}}") else { break };
        text.push_str(before);
        text.push_str(&folder(name.trim(), path).ok_or_else(|| {
            format!(
                "the variable {{{{ {} }}}} is not known: platform_ or runner_ with etc_dir, \
                 data_dir, log_dir, bin_dir, lib_dir, plugins_dir or base_dir",
                name.trim()
            )
        })?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn folder(name: &str, path: &Path) -> Option<String> {
    let kind = name.strip_prefix("platform_").or_else(|| name.strip_prefix("runner_"))?;
    Some(match kind {
        // The folder of the file itself: what EMQ's package puts beside emq.conf is beside this file.
        "etc_dir" => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.display().to_string(),
            _ => ".".into(),
        },
        "base_dir" => ".".into(),
        "data_dir" | "log_dir" | "bin_dir" | "lib_dir" | "plugins_dir" => {
            kind.trim_end_matches("_dir").into()
        }
        _ => return None,
    })
}

/// The settings among environment variables, EMQ's names first so that the names of this broker win.
pub(crate) fn environment(variables: &[(String, String)]) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    for (name, key) in EMQ_ENVIRONMENT {
        let found = variables.iter().filter(|(other, _)| other == name);
        // An empty variable is how container files say that it is not set.
        assignments.extend(found.filter(|(_, value)| !value.trim().is_empty()).map(
            |(name, value)| Assignment {
                key: (*key).to_owned(),
                value: value.trim().to_owned(),
                origin: Origin::Environment(name.as_str().into()),
            },
        ));
    }
    let mut own: Vec<Assignment> = Vec::new();
    for (name, value) in variables {
        let lower = name.to_ascii_lowercase();
        // Without `__` it is no setting: container platforms invent RINGMQ_PORT and the like.
        if let Some(rest) = lower.strip_prefix("ringmq_").filter(|rest| rest.contains("__")) {
            own.push(Assignment {
                key: rest.replace("__", "."),
                value: value.trim().to_owned(),
                origin: Origin::Environment(name.as_str().into()),
            });
        }
    }
    own.sort_by(|a, b| a.key.cmp(&b.key));
    assignments.append(&mut own);
    assignments
}
