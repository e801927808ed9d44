//! Byte filters: what stands between the bytes of a connection and those of MQTT. A PROXY header, TLS and WebSocket, in
//! this order, each if the listener has it.
//!
//! Nothing here does I/O (but [`TlsServer::load`], which reads certificates and keys), knows a socket, waits, or calls back. All
//! buffers are the caller's; what is kept between two calls is the tail of a record or frame that is cut, and no
//! more than the limits in the settings. TLS is rustls's, that with pre-shared keys
//! OpenSSL's (feature `psk`); both ask the wall clock and the random source of the system by themselves.
//!
//! # How a reactor drives it
//!
//! - **Listener.** It keeps an `Arc<`[`FilterSettings`]`>`. On reload it loads a new [`TlsServer`] and, if that is good, puts a new
//!   `Arc` in place of the old: connections that are open keep theirs, those that come get the new one. If it is not good
//!   the old one stays. [`FilterSettings::is_plain`]: no filter is needed, and none should be made.
//! - **Accept.** [`Filter::new`], one `Box` in the connection's slot. It costs 144 bytes until TLS begins. It is `Send`: it
//!   moves with the connection to its home shard.
//! - **Deadlines** go by [`Filter::stage`]: `proxy_protocol_timeout` while it is [`Stage::Proxy`], the listener's `handshake_timeout`
//!   while it is [`Stage::Tls`] or [`Stage::WebSocket`], the one for CONNECT after that. A client that is late is closed
//!   ([`Filter::close`] says so if it can be said) and counted by its stage.
//! - **Receive.** [`Filter::received`] with the bytes in the buffer they were received into, which are overwritten; two scratch
//!   vectors of the shard, cleared before. Then, in this order: what is in `plain` goes to the shard as if it had been
//!   received; what is in `wire` is to be sent, before all that the shard answers. Both are to be done also when an error is
//!   returned. One call is at most one signature of ours or one
//!   client's certificate checked; a budget per tick counts the calls made while the stage is
//!   [`Stage::Tls`], and connections beyond it wait for the next tick with their bytes in their buffers.
//! - **Send.** What the shard wants to send to a connection in a tick is given to [`Filter::send`] at once, in pieces: it becomes one
//!   frame and as few records as may be. Only when [`Filter::is_open`]; before that the shard has nothing to say, as no
//!   CONNECT has come. The order of bytes on the wire is the order of calls: nothing that was put on it may be dropped.
//! - **End.** On an error: count it by [`FilterError::reason`], log it (at a limited rate), send `wire`, shut down, close.
//!   When [`Filter::is_ended`] after a receive without error: the same, as an orderly end by the peer. When it is the shard that
//!   ends the connection: [`Filter::close`], send, shut down the sending side, wait a little for the peer's own end, close.
//! - **Peer.** From [`Filter::is_open`] on, [`Filter::peer`] has all that is known: the real address for access rules, logs and
//!   listings, the certificate's names for `peer_cert_as_username`, cookies for authentication. [`Filter::take_peer`] when
//!   CONNECT has been answered gives that memory back.
//!
//! [`ClientFilter`] is the other end of TLS and WebSocket, for the load tool.
//!
//! ```
//! # use ringmq_filter as filter;
//! use filter::{Filter, FilterSettings, WebSocketSettings};
//! use std::sync::Arc;
//!
//! let websocket = Some(WebSocketSettings::default());
//! let settings = Arc::new(FilterSettings { websocket, ..FilterSettings::default() });
//! let mut filter = Filter::new(&settings);
//! let (mut plain, mut wire) = (Vec::new(), Vec::new());
//! let mut raw = b"GET / HTTP/1.1\r\nHost: localhost:8083\r\n\r\n".to_vec();
//! let error = filter.received(&mut raw, &mut plain, &mut wire).unwrap_err();
//! assert_eq!(error.reason(), "ws_path");
//! assert!(wire.starts_with(b"HTTP/1.1 404 Not Found\r\n"));
//! ```
#![forbid(unsafe_code)]

mod client;
mod error;
mod filter;
mod peer;
mod proxy;
mod tls;
mod websocket;

pub use client::{ClientFilter, ClientFilterSettings, WebSocketTarget};
pub use error::FilterError;
pub use filter::{Filter, FilterSettings, Stage};
pub use peer::{
    ClientCertificate, PeerInfo, ProxyInfo, ProxyTls, Subprotocol, TlsInfo, WebSocketInfo,
};
pub use proxy::{ProxyError, ProxySettings};
pub use tls::{
    CertificateFiles, SniCertificate, TlsClient, TlsClientOptions, TlsError, TlsFailure,
    TlsOptions, TlsServer, Warning,
};
pub use websocket::{
    CloseWhy, ForwardedSettings, OriginSettings, Refusal, WebSocketError, WebSocketSettings,
};
