//! The PROXY protocol, versions 1 and 2: the header a proxy sends before a client's first byte.
//!
//! The text meant by sections is HAProxy's `proxy-protocol.txt`. The header is collected until it is whole, and what it
//! says is believed: a listener with this filter must be out of reach of everyone but its proxies.

mod crc32c;
mod error;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

pub use error::ProxyError;

use crate::peer::ProxyInfo;
use std::net::SocketAddr;

/// What a listener expects of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxySettings {
    /// Longest header of version 2 in bytes, its 16 fixed ones included. Version 1 has at most 107 (section 2.1).
    pub v2_len_max: usize,
}

impl Default for ProxySettings {
    /// 2 KiB: addresses, TLVs of all kinds and some left over; certificates of clients do not fit.
    fn default() -> Self {
        Self { v2_len_max: 2048 }
    }
}

/// What a PROXY header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// The client; `None` if the proxy speaks for itself (LOCAL, a health check) or does not know (UNKNOWN), or if the
    /// client has no IP address (a Unix socket).
    pub(crate) source: Option<SocketAddr>,
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) info: Option<Box<ProxyInfo>>,
}

/// How far a header has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on; all bytes were taken.
    Partial,
    /// It is whole, and took this many of the bytes given last.
    Whole(usize, ProxyHeader),
}

/// Collects one header.
#[derive(Debug, Default)]
pub(crate) struct ProxyReader {
    /// What came of a header that is cut.
    head: Vec<u8>,
}

impl ProxyReader {
    /// Takes bytes of the header and never more than it has.
    pub(crate) fn received(
        &mut self,
        raw: &[u8],
        settings: ProxySettings,
    ) -> Result<Progress, ProxyError> {
        let before = self.head.len();
        if before == 0 {
            let progress = parse(raw, settings)?;
            if progress == Progress::Partial {
                self.head.extend_from_slice(raw);
            }
            return Ok(progress);
        }
        // A whole header or an error comes of this many bytes, so `head` has that bound.
        let room = v1::LEN_MAX.max(settings.v2_len_max) - before;
        self.head.extend_from_slice(&raw[..raw.len().min(room)]);
        Ok(match parse(&self.head, settings)? {
            Progress::Whole(len, header) => Progress::Whole(len - before, header),
            Progress::Partial => Progress::Partial,
        })
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.head.capacity()
    }
}

/// Parses the header these bytes begin with.
fn parse(bytes: &[u8], settings: ProxySettings) -> Result<Progress, ProxyError> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(is, wanted)| is == wanted);
    if begins(&v2::SIGNATURE) {
        v2::parse(bytes, settings.v2_len_max)
    } else if begins(v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}
