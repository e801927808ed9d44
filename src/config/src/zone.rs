//! Zones: named sets of `mqtt.*` settings for the clients of some listeners (SEED-LSN-11, SEED-X-08).

use crate::nearest::nearest;
use crate::table::{Key, keys};
use crate::{ListenerSettings, MqttSettings, SessionSettings, Settings};

/// The keys a zone can have of its own: those that are about one connection, and looked at when it connects or sends. The others
/// hold for sessions, which may outlive the connection and come back by another listener, or for the broker.
pub(crate) const ZONE_KEYS: &[&str] = &[
    "mqtt.max_clientid_len",
    "mqtt.max_packet_size",
    "mqtt.client.idle_timeout",
    "mqtt.client.max_publish_rate",
    "mqtt.keepalive_backoff",
    "mqtt.allow_anonymous",
    "mqtt.server_keepalive",
    "mqtt.max_topic_alias",
    "mqtt.receive_maximum",
    "mqtt.max_qos_allowed",
    "mqtt.retain_available",
    "mqtt.wildcard_subscription",
    "mqtt.shared_subscription",
    "mqtt.subscription_identifiers",
    "mqtt.max_session_expiry_interval",
    "mqtt.server_moved",
    "mqtt.server_reference",
    "mqtt.response_information",
    "mqtt.session.expiry_interval",
    "mqtt.session.max_awaiting_rel",
    "mqtt.session.max_subscriptions",
];

/// Documentation of the keys.
pub(crate) const ZONE_DOC: &str = "A zone is a named set of settings for the clients of the listeners that name it \
    (listener.tcp.external.zone = external): zone.<name>.mqtt.max_packet_size = 1MB and so on. It can have its own:";

/// A zone: the settings of the broker with its own in their place.
#[derive(Clone, Debug)]
pub struct ZoneSettings {
    /// Its name, as in `zone.<name>.*`.
    pub name: String,
    /// `mqtt.*` for its clients.
    pub mqtt: MqttSettings,
    /// `mqtt.session.*` for its clients.
    pub session: SessionSettings,
    /// The keys it has of its own and their values as canonical text.
    pub(crate) own: Vec<(&'static str, String)>,
}

impl ZoneSettings {
    /// A zone of the broker's settings and these keys, whose values were looked at before.
    pub(crate) fn new(name: &str, broker: &Settings, own: &[(&'static str, String)]) -> Self {
        let mut settings = broker.clone();
        let mut shown = Vec::new();
        for (name, value) in own {
            let key = keys().find(|key| key.name == *name).expect("a zone has keys of the table");
            let fits = (key.assign)(&mut settings, value, &key.kind);
            assert!(fits, "the value was looked at before");
            shown.push((*name, (key.show)(&settings, &key.kind)));
        }
        let Settings { mqtt, session, .. } = settings;
        Self { name: name.to_owned(), mqtt, session, own: shown }
    }
}

/// A key a zone can have, its kind too.
pub(crate) fn zone_key(name: &str) -> Option<&'static Key<Settings>> {
    let key = keys().find(|key| key.name == name || key.aliases.contains(&name))?;
    ZONE_KEYS.contains(&key.name).then_some(key)
}

/// Why a key cannot be in a zone, and what to do.
pub(crate) fn refusal(name: &str) -> String {
    let known = keys().any(|key| key.name == name || key.aliases.contains(&name));
    let near = nearest(name, ZONE_KEYS.iter().copied());
    match near {
        _ if known => format!(
            "it holds for the whole broker: set {name} itself; a zone can have {}",
            ZONE_KEYS.join(", ")
        ),
        Some(near) => format!("a zone has no such key; did you mean {near}?"),
        None => format!("a zone has no such key; it can have {}", ZONE_KEYS.join(", ")),
    }
}

/// `zone.<name>.<key>` as `(name, key)`.
pub(crate) fn split(key: &str) -> Option<(&str, &str)> {
    let (name, rest) = key.strip_prefix("zone.")?.split_once('.')?;
    crate::listener::is_name(name).then_some((name, rest))
}

impl Settings {
    /// `mqtt.*` and `mqtt.session.*` as they are for the clients of a listener.
    #[must_use]
    pub fn of_listener(&self, listener: &ListenerSettings) -> (&MqttSettings, &SessionSettings) {
        let zone = listener.options.zone.as_deref();
        match self.zones.iter().find(|known| Some(known.name.as_str()) == zone) {
            Some(zone) => (&zone.mqtt, &zone.session),
            None => (&self.mqtt, &self.session),
        }
    }
}
