//! Why a PROXY header was refused.

/// A PROXY header that is missing or wrong: the proxy in front, or whoever got past it, is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum ProxyError {
    /// the connection does not begin with a PROXY header, which this listener expects; let the proxy send one (HAProxy: `send-proxy-v2`), or turn `proxy_protocol` off
    Missing,
    /// the PROXY header of version 1 has no end within 107 bytes
    V1TooLong,
    /// the PROXY header of version 1 has a wrong {0}
    V1Field(&'static str),
    /// the PROXY header has version {0}; only 1 and 2 are known
    Version(u8),
    /// the PROXY header has command {0}; only LOCAL (0) and PROXY (1) are known
    Command(u8),
    /// the PROXY header has address family and protocol {0:#04x}, which are not assigned
    Family(u8),
    /// the PROXY header has {len} bytes; at most {max} are taken here
    V2TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit it exceeds.
        max: usize,
    },
    /// the PROXY header ends inside its addresses
    AddressesCut,
    /// the PROXY header ends inside a TLV, or has a TLV of the wrong length
    TlvCut,
    /// the PROXY header has a {0} that is not valid UTF-8
    TlvNotUtf8(&'static str),
    /// the PROXY header has a checksum that does not fit: it was changed on its way
    Checksum,
}

impl ProxyError {
    /// A name for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "proxy_missing",
            Self::V1TooLong | Self::V2TooLong { .. } => "proxy_too_long",
            Self::Checksum => "proxy_checksum",
            _ => "proxy_malformed",
        }
    }
}
