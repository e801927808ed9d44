//! What stands between the wire and MQTT: the options for TLS and WebSocket.

use crate::error::BenchError;
use clap::{ArgAction, Args};
use filter::{ClientFilterSettings, TlsClient, TlsClientOptions, WebSocketTarget};
use std::path::PathBuf;

/// Options of TLS and WebSocket, as emqtt_bench has them.
#[derive(Args, Clone, Debug, Default)]
pub struct TransportArgs {
    /// TLS; the broker's certificate is not verified, and it is asked for by the host's name
    #[arg(short = 'S', long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub ssl: bool,
    /// TLS version: tlsv1.2 or tlsv1.3; implies --ssl
    #[arg(long)]
    pub ssl_version: Option<String>,
    /// TLS: file with the CA certificates; read, but the broker's certificate is not verified
    #[arg(long)]
    pub cacertfile: Option<PathBuf>,
    /// TLS: file with the clients' certificate, in PEM
    #[arg(long)]
    pub certfile: Option<PathBuf>,
    /// TLS: file with its key, in PEM
    #[arg(long)]
    pub keyfile: Option<PathBuf>,
    /// TLS: ciphers by their OpenSSL names, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub ciphers: Vec<String>,
    /// TLS: come back with a ticket of an earlier connection instead of a full handshake
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub resume: bool,
    /// WebSocket, path /mqtt; with --ssl wss
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub ws: bool,
}

impl TransportArgs {
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.ssl || self.ssl_version.is_some()
    }

    /// The layers of connections to `host`; none if MQTT's bytes are on the wire.
    pub fn settings(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Option<ClientFilterSettings>, BenchError> {
        let tls = if self.is_tls() { Some(self.tls(host)?) } else { None };
        let websocket = self.ws.then(|| WebSocketTarget {
            host: if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            },
            path: "/mqtt".to_owned(),
        });
        let is_plain = tls.is_none() && websocket.is_none();
        Ok((!is_plain).then_some(ClientFilterSettings { tls, websocket }))
    }

    fn tls(&self, host: &str) -> Result<TlsClient, BenchError> {
        let bad = |text: String| BenchError::Option(format!("TLS: {text}"));
        // What OTP calls a TLS 1.3 without the disguise as 1.2, which rustls always wears.
        let version = self.ssl_version.as_deref().map(|name| name.trim_end_matches("_nocompat"));
        let (client, warnings) = TlsClient::load(&TlsClientOptions {
            host: host.to_owned(),
            ca_file: self.cacertfile.clone(),
            cert_file: self.certfile.clone(),
            key_file: self.keyfile.clone(),
            versions: version.into_iter().map(str::to_owned).collect(),
            ciphers: self.ciphers.clone(),
            resumes: self.resume,
        })
        .map_err(|error| bad(error.to_string()))?;
        match warnings.first() {
            // A run with other ciphers than asked for would be another measurement.
            Some(warning) => Err(bad(warning.to_string())),
            None => Ok(client),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_what_the_options_say() {
        let plain = TransportArgs::default();
        assert!(plain.settings("localhost", 1883).expect("valid").is_none());
        let both = TransportArgs { ssl: true, ws: true, ..TransportArgs::default() };
        let settings = both.settings("::1", 8084).expect("valid").expect("layers");
        assert!(settings.tls.is_some());
        assert_eq!(settings.websocket.expect("one").host, "[::1]:8084");
        for version in ["tlsv1.2", "tlsv1.3", "tlsv1.3_nocompat"] {
            let version = Some(version.to_owned());
            let args = TransportArgs { ssl_version: version, ..TransportArgs::default() };
            assert!(args.settings("localhost", 1).expect("valid").expect("layers").tls.is_some());
        }
    }

    #[test]
    fn what_cannot_be_spoken_is_said_in_one_line() {
        let of = |args: TransportArgs| {
            let error = args.settings("localhost", 1).expect_err("wrong").to_string();
            assert!(!error.contains('\n'), "{error}");
            error
        };
        let old = Some("tlsv1.1".to_owned());
        let args = TransportArgs { ssl_version: old, ..TransportArgs::default() };
        assert!(of(args).contains("tlsv1.2"));
        let args =
            TransportArgs { ssl: true, certfile: Some("x".into()), ..TransportArgs::default() };
        assert!(of(args).contains("together"));
        let ca = Some("/no/such/file".into());
        let args = TransportArgs { ssl: true, cacertfile: ca, ..TransportArgs::default() };
        assert!(of(args).contains("/no/such/file"));
        let ciphers = vec!["RC4-SHA".to_owned()];
        let args = TransportArgs { ssl: true, ciphers, ..TransportArgs::default() };
        assert!(of(args).contains("RC4"));
    }
}
