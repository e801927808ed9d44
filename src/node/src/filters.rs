//! What the listeners put in front of MQTT, made of their settings: PROXY header, TLS, WebSocket (SEED-LSN-03 to 05, 12, 13, 15, 17).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use config::{ListenerSettings, Origin, Settings, VerifyPeer};
use displaydoc::Display;
use filter::{
    CertificateFiles, FilterSettings, ForwardedSettings, OriginSettings, ProxySettings,
    SniCertificate, TlsError, TlsOptions, TlsServer, WebSocketSettings,
};
use reactor::{FilterTable, FilterTimes, ListenerFilter};
use shard::ListenerId;
use thiserror::Error;

/// A listener's TLS cannot be served.
#[derive(Debug, Display, Error)]
pub enum FilterSetupError {
    /// {origin}: {key}: {error}
    Tls {
        /// Where that stands.
        origin: Origin,
        /// The key of its address.
        key: String,
        /// What is wrong with its certificates or options.
        error: TlsError,
    },
}

/// Makes the filters of all listeners.
///
/// # Errors
/// [`FilterSetupError`] for the first listener that cannot be served.
pub(crate) fn load(settings: &Settings) -> Result<Vec<Option<ListenerFilter>>, FilterSetupError> {
    settings.listeners.iter().map(|listener| of(settings, listener)).collect()
}

/// What is wrong with each listener that has TLS, by its name, `ssl.external`: certificates and keys are read.
pub fn check_tls(settings: &Settings) -> Vec<(String, Option<FilterSetupError>)> {
    let with_tls = settings.listeners.iter().filter(|listener| listener.kind.is_tls());
    with_tls
        .map(|listener| {
            let name = format!("{}.{}", listener.kind, listener.name);
            (name, of(settings, listener).err())
        })
        .collect()
}

/// Whether all listeners can be served: certificates and keys are read.
///
/// # Errors
/// [`FilterSetupError`] for the first that cannot.
pub fn check(settings: &Settings) -> Result<(), FilterSetupError> {
    load(settings).map(drop)
}

/// Puts filters in place.
pub(crate) fn set(filters: Vec<Option<ListenerFilter>>, table: &FilterTable) {
    for (number, filter) in filters.into_iter().enumerate() {
        table.set(ListenerId(u16::try_from(number).expect("few listeners")), filter);
    }
}

/// The filter of one listener.
fn of(
    settings: &Settings,
    listener: &ListenerSettings,
) -> Result<Option<ListenerFilter>, FilterSetupError> {
    let options = &listener.options;
    let proxy = options.proxy_protocol.then(ProxySettings::default);
    let tls = if listener.kind.is_tls() { Some(tls(settings, listener)?) } else { None };
    let websocket = listener.kind.is_websocket().then(|| websocket(settings, listener));
    let filter = FilterSettings { proxy, tls, websocket };
    let times = FilterTimes {
        proxy_ms: options.proxy_protocol_timeout_ms,
        handshake_ms: options.handshake.handshake_timeout_ms,
    };
    Ok((!filter.is_plain()).then(|| (Arc::new(filter), times)))
}

fn tls(settings: &Settings, listener: &ListenerSettings) -> Result<TlsServer, FilterSetupError> {
    let (key, tls) = (listener.key(), &listener.options.tls);
    // The settings have seen to it that there are both files or none.
    let files = |cert_file: &Option<PathBuf>, key_file: &Option<PathBuf>| {
        let (cert_file, key_file) = (cert_file.clone()?, key_file.clone()?);
        Some(CertificateFiles { cert_file, key_file })
    };
    let sni = listener.options.sni.iter().filter_map(|(_, certificate)| {
        let files = files(&certificate.cert_file, &certificate.key_file)?;
        Some(SniCertificate { names: certificate.hosts.clone(), files })
    });
    let options = TlsOptions {
        certificate: files(&tls.cert_file, &tls.key_file),
        sni: sni.collect(),
        psk_file: tls.psk_file.clone(),
        ca_file: tls.ca_cert_file.clone(),
        crl_file: tls.crl_file.clone(),
        verify_peer: tls.verify == VerifyPeer::VerifyPeer,
        fail_if_no_peer_cert: tls.fail_if_no_peer_cert,
        versions: tls.tls_versions.clone(),
        ciphers: tls.ciphers.clone(),
        honor_cipher_order: tls.honor_cipher_order,
        reuse_sessions: tls.reuse_sessions,
        dh_file: tls.dh_file.clone(),
        // rustls never negotiates anew, which is what `on` is for.
        secure_renegotiate: false,
        alpn: if listener.kind.is_websocket() {
            vec!["http/1.1".to_owned()]
        } else {
            vec!["mqtt".to_owned()]
        },
        ..TlsOptions::default()
    };
    let (server, warnings) = TlsServer::load(&options, SystemTime::now()).map_err(|error| {
        let origin = settings.get(&key).map(|entry| entry.origin).unwrap_or_default();
        FilterSetupError::Tls { origin, key: key.clone(), error }
    })?;
    for warning in warnings {
        log::warn!("{key}: {warning}");
    }
    Ok(server)
}

fn websocket(settings: &Settings, listener: &ListenerSettings) -> WebSocketSettings {
    let options = &listener.options.websocket;
    let origins = (!options.check_origins.is_empty()).then(|| OriginSettings {
        allowed: options.check_origins.clone(),
        absent_allowed: options.allow_origin_absence,
    });
    let default = ForwardedSettings::default();
    let forwarded = options.proxy_address_header.clone().map(|address_header| ForwardedSettings {
        address_header,
        port_header: options.proxy_port_header.clone().unwrap_or(default.port_header),
        hops: default.hops,
    });
    let packet_max = settings.mqtt.max_packet_size_bytes.into();
    WebSocketSettings {
        path: options.path.clone(),
        subprotocol_required: options.verify_protocol_header
            && settings.mqtt.websocket_protocol_header,
        origins,
        forwarded,
        // Several packets may be in one frame, but a frame need not be larger than a few of the largest.
        frame_len_max: WebSocketSettings::default().frame_len_max.max(packet_max),
        ..WebSocketSettings::default()
    }
}
