//! What the settings know and this build does not serve yet. Refused in this one place: to pass over it would open a port that
//! speaks something else than its settings say.

use config::Settings;
use displaydoc::Display;
use thiserror::Error;

/// A listener that cannot be served yet.
#[derive(Debug, Display, Error, PartialEq, Eq)]
pub enum UnreadyError {
    /// {key}: listeners of this kind are not in this build yet; remove the listener, or put a proxy in front of a listener.tcp
    Kind {
        /// The key of its address.
        key: String,
    },
    /// {key}.proxy_protocol: the PROXY protocol is not in this build yet; set it to off, and turn it off in the proxy
    ProxyProtocol {
        /// The key of its address.
        key: String,
    },
}

/// Looks for listeners that cannot be served.
///
/// # Errors
/// [`UnreadyError`] for the first.
pub fn check(settings: &Settings) -> Result<(), UnreadyError> {
    for listener in &settings.listeners {
        let key = listener.key();
        if listener.kind.is_tls() || listener.kind.is_websocket() {
            return Err(UnreadyError::Kind { key });
        }
        if listener.options.proxy_protocol {
            return Err(UnreadyError::ProxyProtocol { key });
        }
    }
    Ok(())
}
