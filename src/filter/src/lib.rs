//! Byte filters
#![forbid(unsafe_code)]

mod error;
mod filter;
mod peer;
mod proxy;
mod tls;
mod websocket;

pub use error::FilterError;
pub use filter::{Filter, FilterSettings, Stage};
pub use peer::{
    ClientCertificate, PeerInfo, ProxyInfo, ProxyTls, Subprotocol, TlsInfo, WebSocketInfo,
};
pub use proxy::{ProxyError, ProxySettings};
pub use tls::{
    CertificateFiles, SniCertificate, TlsError, TlsFailure, TlsOptions, TlsServer, Warning,
};
pub use websocket::{
    CloseWhy, ForwardedSettings, OriginSettings, Refusal, WebSocketError, WebSocketSettings,
};
