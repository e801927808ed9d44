//! The settings of the broker: one table of keys, read from a file, the environment and the command line.
//!
//! Sources from low to high: the default of the table, the file, the environment, `--set`. Every value knows where it
//! came from ([`Settings::entries`]). No setting is needed to start ([`Settings::default`]).
//!
//! The file is flat: `key = value` lines, and comments that start with `#`. A value reaches to the end of its line, so
//! it may hold `=` and `#`. In the environment `mqtt.max_packet_size` is `RINGMQ_MQTT__MAX_PACKET_SIZE`; a `RINGMQ_`
//! name without `__` is no setting, so that names a container platform invents for services do no harm.
//!
//! A limit that is off holds the largest value of its type, so that code only compares.
#![forbid(unsafe_code)]

mod access;
mod error;
mod file;
mod kind;
mod legacy;
mod listener;
mod load;
mod modules;
mod nearest;
mod rate;
mod show;
mod sni;
mod table;
mod types;
mod zone;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use access::{AccessRule, AccessRules, Cidr};
pub use error::{BadValue, ConfigError, Origin, Problems, Refused, Warning};
pub use kind::{Kind, TimeUnit, duration_seconds};
pub use listener::{
    ListenerHandshakeOptions, ListenerKind, ListenerOptions, ListenerSettings, ListenerTlsOptions,
    ListenerWebSocketOptions,
};
pub use load::LoadRequest;
pub use modules::{
    AutoSubscription, AutoSubscriptionSettings, AutoSubscriptions, RewriteRule, RewriteRules,
    RewriteSettings,
};
pub use rate::Rate;
pub use show::Entry;
pub use sni::{SniCertificateSettings, SniCertificates};
pub use table::{
    BrokerSettings, ConnSettings, DelayedSettings, FlappingSettings, LogSettings, MeshSettings,
    MqttSettings, MqueueSettings, NodeSettings, OverloadSettings, ReactorSettings,
    RetainerSettings, SessionSettings, StoreSettings,
};
pub use types::{
    AclNomatch, LogLevel, MemoryBudget, MqueueKind, PeerCertAs, Priorities, RetainedStorage,
    ServerMoved, SharedStrategy, StoreSync, VerifyPeer,
};
pub use zone::ZoneSettings;

/// All settings. Fields are plain values in the unit their name ends with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `node.*`
    pub node: NodeSettings,
    /// `listener.*`, in the order of their kinds and names.
    pub listeners: Vec<ListenerSettings>,
    /// `zone.*`, in the order of their names.
    pub zones: Vec<ZoneSettings>,
    /// `mqtt.*` but for the sections below.
    pub mqtt: MqttSettings,
    /// `mqtt.session.*`
    pub session: SessionSettings,
    /// `mqtt.mqueue.*`
    pub mqueue: MqueueSettings,
    /// `mqtt.conn.*`
    pub conn: ConnSettings,
    /// `mqtt.broker.*`
    pub broker: BrokerSettings,
    /// `retainer.*`
    pub retainer: RetainerSettings,
    /// `delayed.*`
    pub delayed: DelayedSettings,
    /// `module.subscription` and `module.subscription.N.*`
    pub auto_subscription: AutoSubscriptionSettings,
    /// `module.rewrite` and `module.rewrite.rule.N`
    pub rewrite: RewriteSettings,
    /// `flapping_detect.*`
    pub flapping: FlappingSettings,
    /// `overload.*`
    pub overload: OverloadSettings,
    /// `log.*`
    pub log: LogSettings,
    /// `reactor.*`
    pub reactor: ReactorSettings,
    /// `store.*`
    pub store: StoreSettings,
    /// `mesh.*`
    pub mesh: MeshSettings,
    /// Where the values that are no defaults came from, by canonical key.
    origins: BTreeMap<String, Origin>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: NodeSettings::default(),
            listeners: listener::defaults(),
            zones: Vec::new(),
            mqtt: MqttSettings::default(),
            session: SessionSettings::default(),
            mqueue: MqueueSettings::default(),
            conn: ConnSettings::default(),
            broker: BrokerSettings::default(),
            retainer: RetainerSettings::default(),
            delayed: DelayedSettings::default(),
            auto_subscription: AutoSubscriptionSettings::default(),
            rewrite: RewriteSettings::default(),
            flapping: FlappingSettings::default(),
            overload: OverloadSettings::default(),
            log: LogSettings::default(),
            reactor: ReactorSettings::default(),
            store: StoreSettings::default(),
            mesh: MeshSettings::default(),
            origins: BTreeMap::new(),
        }
    }
}
