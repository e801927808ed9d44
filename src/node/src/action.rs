//! What may be asked of a node and what it answers: [`Action`] and [`ActionReply`] are the only way in.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use config::ListenerKind;
use mqtt::{QoS, ReasonCode};
use shard::command::{
    ClientRow, DelayedRow, RetainedRow, SessionKind, SessionRow, SubscriptionRow,
};
use shard::{Ban, BannedWho, DelayedId};
use store::{BackupInfo, StoreInfo};

use crate::alarms::Alarm;
use crate::listing::Pages;

/// What the command line, the API and the `$SYS` publisher ask of a node.
#[derive(Debug, Clone)]
pub enum Action {
    /// What runs here and since when. Answer: [`ActionReply::Broker`].
    Broker,
    /// Counts of what exists now and the most there was. Answer: [`ActionReply::Numbers`].
    Stats,
    /// Counters since the start. Answer: [`ActionReply::Numbers`].
    Metrics,
    /// The listeners. Answer: [`ActionReply::Listeners`].
    Listeners,
    /// Starts a listener that was stopped. Answer: [`ActionReply::Done`].
    ListenerStart(ListenerName),
    /// Stops a listener and ends its clients. Answer: [`ActionReply::Done`].
    ListenerStop(ListenerName),
    /// Stops a listener, if it runs, and starts it. Answer: [`ActionReply::Done`].
    ListenerRestart(ListenerName),
    /// Shards and connection slots. Answer: [`ActionReply::Capacity`].
    Capacity,
    /// The settings in force. Answer: [`ActionReply::Settings`].
    Settings,
    /// A listing in pages. Answer: [`ActionReply::Pages`].
    List(Listing),
    /// One connected client. Answer: [`ActionReply::Client`] or [`ActionReply::NotFound`].
    ClientShow {
        /// The client.
        client_id: String,
    },
    /// Closes a client's connection and ends its session. Answer: [`ActionReply::Done`] or [`ActionReply::NotFound`].
    ClientKick {
        /// The client.
        client_id: String,
    },
    /// One session. Answer: [`ActionReply::Session`] or [`ActionReply::NotFound`].
    SessionShow {
        /// The client the session belongs to.
        client_id: String,
    },
    /// One filter. Answer: [`ActionReply::Route`] or [`ActionReply::NotFound`].
    RouteShow {
        /// The filter as subscribed.
        filter: String,
    },
    /// Subscribes a session. Answer: [`ActionReply::Done`], [`ActionReply::NotFound`] or [`ActionReply::Refused`].
    SubscriptionAdd {
        /// The client the session belongs to.
        client_id: String,
        /// The filter.
        filter: String,
        /// The maximum `QoS`.
        qos: QoS,
    },
    /// Ends a subscription. Answer: [`ActionReply::Done`] or [`ActionReply::NotFound`].
    SubscriptionDel {
        /// The client the session belongs to.
        client_id: String,
        /// The filter as subscribed.
        filter: String,
    },
    /// Publishes a message through the normal routing. Answer: [`ActionReply::Done`] or [`ActionReply::Refused`].
    Publish {
        /// The topic name.
        topic: String,
        /// The payload.
        payload: Bytes,
        /// The `QoS`.
        qos: QoS,
        /// Whether it becomes the topic's retained message.
        retain: bool,
        /// A `$SYS` message: not counted as client traffic (SEED-SYS-12).
        sys: bool,
    },
    /// One delayed message with its payload. Answer: [`ActionReply::Delayed`] or [`ActionReply::NotFound`].
    DelayedShow(DelayedId),
    /// Deletes a delayed message. Answer: [`ActionReply::Done`] or [`ActionReply::NotFound`].
    DelayedDelete(DelayedId),
    /// How many retained messages there are, and how many there may be. Answer: [`ActionReply::Retainer`].
    RetainerInfo,
    /// Removes retained messages whose topic matches a filter. Answer: [`ActionReply::Count`] or [`ActionReply::Refused`].
    RetainerClean {
        /// The filter; `#` leaves topics that begin with `$`.
        filter: String,
    },
    /// Sizes, rates and health of the store. Answer: [`ActionReply::Store`].
    StoreInfo,
    /// Writes a backup of the store; takes as long as reading all of it. Answer: [`ActionReply::StoreBackup`].
    StoreBackup {
        /// Where to; it must not have one yet.
        folder: PathBuf,
    },
    /// What is wrong now and what was. Answer: [`ActionReply::Alarms`].
    Alarms,
    /// Who may not connect, by hand and for flapping. Answer: [`ActionReply::Bans`].
    Banned,
    /// Bans somebody, or changes their ban. Who is connected stays. Answer: [`ActionReply::Done`].
    BannedAdd(Ban),
    /// Ends a ban. Answer: [`ActionReply::Done`] or [`ActionReply::NotFound`].
    BannedDel(BannedWho),
    /// Reads the certificates of all listeners again; connections that come from now on get them. With a bad one all stays as it
    /// is. Answer: [`ActionReply::Done`].
    CertificatesReload,
    /// Reads the file of access rules again and gives it to every shard. Answer: [`ActionReply::Done`].
    AclReload,
}

/// Names a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerName {
    /// What it speaks.
    pub kind: ListenerKind,
    /// Its name, its port, or its address and port.
    pub name: String,
}

/// What can be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// Connected clients.
    Clients,
    /// Sessions of a kind.
    Sessions(SessionKind),
    /// Filters that have a subscriber.
    Routes,
    /// Subscriptions of all sessions.
    Subscriptions,
    /// Subscriptions of one session; no page at all if there is no such session.
    ClientSubscriptions {
        /// The client the session belongs to.
        client_id: String,
    },
    /// Delayed messages, for each shard in the order they are due.
    Delayed,
    /// Topics with a retained message, for each shard in order.
    Retained {
        /// Most rows; none: all.
        limit: Option<u64>,
    },
}

/// What a node answers.
#[derive(Debug)]
pub enum ActionReply {
    /// Done.
    Done,
    /// There is no such client, session or filter.
    NotFound,
    /// Not done, with the reason in the protocol's terms.
    Refused(ReasonCode),
    /// The broker.
    Broker(BrokerInfo),
    /// Named numbers in order of the name.
    Numbers(Vec<(&'static str, u64)>),
    /// Alarms.
    Alarms(AlarmList),
    /// Bans in force, by what they are about and its name.
    Bans(Vec<Ban>),
    /// The listeners.
    Listeners(Vec<ListenerInfo>),
    /// Shards and connection slots.
    Capacity(Capacity),
    /// The settings in force.
    Settings(Vec<SettingInfo>),
    /// A listing; pages come as they are asked for.
    Pages(Pages),
    /// One client.
    Client(Box<ClientRow>),
    /// One session.
    Session(Box<SessionRow>),
    /// One route.
    Route(RouteInfo),
    /// One delayed message.
    Delayed(Box<DelayedRow>),
    /// The retained messages.
    Retainer(RetainerInfo),
    /// The store.
    Store(Box<StoreInfo>),
    /// A backup was written.
    StoreBackup(BackupInfo),
    /// So many.
    Count(u64),
}

/// The retained messages and their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainerInfo {
    /// Messages.
    pub messages: u64,
    /// Bytes of their topics, properties and payloads.
    pub bytes: u64,
    /// Where they are kept, `retainer.storage_type`.
    pub storage: &'static str,
    /// Most messages; none: no limit.
    pub messages_max: Option<u64>,
    /// Largest payload that is kept, in bytes.
    pub payload_bytes_max: u32,
    /// Life of a message without an expiry of its own, in seconds; 0: for ever.
    pub expiry_interval_s: u32,
}

/// What runs here and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Name of the node, `ringmq@127.0.0.1`.
    pub node: String,
    /// What it is.
    pub sysdescr: &'static str,
    /// Version of the broker.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Now.
    pub unix_s: u64,
    /// Number of shards.
    pub shards: usize,
}

/// The alarms of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmList {
    /// Those that are active, in the order they were raised.
    pub active: Vec<Alarm>,
    /// Those that are over, the last one first.
    pub history: Vec<Alarm>,
}

/// A listener of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Protocol and transport, `mqtt:tcp`.
    pub protocol: &'static str,
    /// Name in the settings.
    pub name: String,
    /// Address it is bound to, or was.
    pub address: SocketAddr,
    /// Whether it accepts.
    pub running: bool,
    /// Number of accepting sockets: one for each shard.
    pub acceptors: usize,
    /// Most clients at a time.
    pub max_clients: u64,
    /// Clients now.
    pub current_clients: u64,
    /// How many connections ended for which reason, in order of the name.
    pub shutdown_count: Vec<(&'static str, u64)>,
}

/// Room of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Number of shards.
    pub shards: usize,
    /// Open connections.
    pub connections: u64,
    /// Direct descriptor slots of all shards.
    pub connection_slots: u64,
}

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingInfo {
    /// Key.
    pub key: String,
    /// Value as text.
    pub value: String,
    /// Where the value came from.
    pub origin: String,
    /// What it is for.
    pub doc: String,
}

/// A filter and the nodes that have a subscriber of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The filter with its prefix.
    pub filter: String,
    /// Names of the nodes.
    pub nodes: Vec<String>,
}

/// Rows of one page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// Clients.
    Clients(Vec<ClientRow>),
    /// Sessions.
    Sessions(Vec<SessionRow>),
    /// Routes.
    Routes(Vec<RouteInfo>),
    /// Subscriptions.
    Subscriptions(Vec<SubscriptionRow>),
    /// Delayed messages.
    Delayed(Vec<DelayedRow>),
    /// Retained messages.
    Retained(Vec<RetainedRow>),
}
