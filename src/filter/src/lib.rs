//! Byte filters.
#![forbid(unsafe_code)]

mod peer;
mod proxy;
mod websocket;

pub use peer::{
    ClientCertificate, PeerInfo, ProxyInfo, ProxyTls, Subprotocol, TlsInfo, WebSocketInfo,
};
pub use proxy::{ProxyError, ProxySettings};
pub use websocket::{
    CloseWhy, ForwardedSettings, OriginSettings, Refusal, WebSocketError, WebSocketSettings,
};
