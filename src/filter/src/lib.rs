//! Byte filters.
#![forbid(unsafe_code)]

mod peer;
mod proxy;

pub use peer::{
    ClientCertificate, PeerInfo, ProxyInfo, ProxyTls, Subprotocol, TlsInfo, WebSocketInfo,
};
pub use proxy::{ProxyError, ProxySettings};
