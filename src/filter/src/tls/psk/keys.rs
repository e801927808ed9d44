//! The file of pre-shared keys, as mosquitto's `psk_file`: a line for each client, `identity:key` with the key in hexadecimal.

use super::super::error::{TlsError, Warning, shown};
use std::collections::HashMap;
use std::path::Path;

/// Longest identity in bytes (OpenSSL's PSK_MAX_IDENTITY_LEN; RFC 4279 asks for 128).
pub(super) const IDENTITY_LEN_MAX: usize = 256;
/// Longest key in bytes (OpenSSL's PSK_MAX_PSK_LEN; RFC 4279 asks for 64).
const KEY_LEN_MAX: usize = 256;
/// Shorter keys can be guessed from one recorded handshake (RFC 9257, section 6).
const KEY_LEN_GOOD: usize = 16;

/// Keys by identity.
#[derive(Debug, Default)]
pub(crate) struct PskKeys(HashMap<Box<str>, Box<[u8]>>);

impl PskKeys {
    /// Reads a file. Empty lines and those that begin with `#` are passed over.
    pub(crate) fn read(file: &Path, warnings: &mut Vec<Warning>) -> Result<Self, TlsError> {
        let bytes =
            std::fs::read(file).map_err(|error| TlsError::Read { file: shown(file), error })?;
        let mut keys = Self::default();
        let mut short = 0;
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |what| TlsError::PskLine { file: shown(file), line: number + 1, what };
            let line = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (identity, key) = parse(line).map_err(wrong)?;
            short += usize::from(key.len() < KEY_LEN_GOOD);
            if keys.0.insert(identity.into(), key).is_some() {
                return Err(wrong("the identity was given before"));
            }
        }
        if keys.0.is_empty() {
            return Err(TlsError::NoPsk(shown(file)));
        }
        if short > 0 {
            warnings.push(Warning::ShortPsk { file: shown(file), count: short });
        }
        Ok(keys)
    }

    pub(super) fn get(&self, identity: &str) -> Option<&[u8]> {
        self.0.get(identity).map(AsRef::as_ref)
    }
}

fn parse(line: &str) -> Result<(&str, Box<[u8]>), &'static str> {
    // The last colon: an identity may have some itself.
    let (identity, key) = line.rsplit_once(':').ok_or("there is no ':' in it")?;
    if identity.is_empty() {
        return Err("the identity is empty");
    }
    if identity.len() > IDENTITY_LEN_MAX {
        return Err("the identity has more than 256 bytes");
    }
    if identity.contains(char::is_control) {
        return Err("the identity has a control character in it");
    }
    let key = unhex(key).ok_or("the key is no even number of hexadecimal digits")?;
    match key.len() {
        0 => Err("the key is empty"),
        1..=KEY_LEN_MAX => Ok((identity, key)),
        _ => Err("the key has more than 256 bytes"),
    }
}

fn unhex(text: &str) -> Option<Box<[u8]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match *pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_identity_and_key() {
        assert_eq!(parse("a:00fF"), Ok(("a", [0, 255].into())));
        assert_eq!(parse("urn:dev:7:0a"), Ok(("urn:dev:7", [10].into())));
        for (line, what) in [
            ("a", "no ':'"),
            (":00", "the identity is empty"),
            ("a:", "the key is empty"),
            ("a:0", "hexadecimal"),
            ("a:0g", "hexadecimal"),
            ("a:+1", "hexadecimal"),
            ("a:é0", "hexadecimal"),
            ("a\u{1}:00", "control"),
        ] {
            assert!(parse(line).unwrap_err().contains(what), "{line}");
        }
        assert!(parse(&format!("{}:00", "i".repeat(257))).unwrap_err().contains("more than 256"));
        assert!(parse(&format!("i:{}", "00".repeat(257))).unwrap_err().contains("more than 256"));
        assert!(parse(&format!("{}:{}", "i".repeat(256), "00".repeat(256))).is_ok());
    }
}
