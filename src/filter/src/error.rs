//! Why a filter gave up.

use crate::{ProxyError, TlsFailure, WebSocketError};

/// Why a connection cannot go on. What the peer is to be told about it (an alert, a Close, an answer in HTTP) has been put
/// on the wire before this is returned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FilterError {
    /// The PROXY header is missing or wrong.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsFailure),
    /// The WebSocket was refused or broken.
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
}

impl FilterError {
    /// A name for counters (`shutdown_count`): one of a few dozen, in lower case.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Proxy(error) => error.reason(),
            Self::Tls(failure) => failure.reason(),
            Self::WebSocket(error) => error.reason(),
        }
    }
}
