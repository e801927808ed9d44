//! The rules of access: from the file the settings name, or those that ship with the broker.

use std::fs;
use std::io;
use std::path::PathBuf;

use config::Settings;
use displaydoc::Display;
use session::acl::{Acl, AclError};
use thiserror::Error;

/// Why the rules of access could not be had.
#[derive(Debug, Display, Error)]
pub enum AclFileError {
    /// cannot read the ACL file {0}: {1}; mqtt.acl_file names it
    Read(PathBuf, io::Error),
    /// {0}: {1}
    Parse(PathBuf, AclError),
}

/// Reads the rules.
///
/// # Errors
/// [`AclFileError`].
pub fn load(settings: &Settings) -> Result<Acl, AclFileError> {
    let nomatch = settings.mqtt.acl_nomatch;
    let Some(path) = &settings.mqtt.acl_file else { return Ok(Acl::builtin(nomatch)) };
    let text = fs::read_to_string(path).map_err(|error| AclFileError::Read(path.clone(), error))?;
    Acl::parse(&text, nomatch).map_err(|error| AclFileError::Parse(path.clone(), error))
}
