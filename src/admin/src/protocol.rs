//! The admin socket's language: one JSON line asks, JSON lines answer.
//!
//! A connection carries one request. The answer is any number of rows, each a JSON object on a line, and one last line
//! `{"done":true}` or `{"error":"...","kind":"..."}`. No row has a member `done` or `error`.

use node::{Alarm, Ban, BannedWho, ListenerInfo, RetainerInfo, RouteInfo, SettingInfo};
use serde::{Deserialize, Serialize};
use shard::command::{ClientRow, DelayedRow, RetainedRow, SessionRow, SubscriptionRow};

/// Longest request line in bytes: a topic filter and a client identifier of 64 KiB each, escaped at the worst.
pub const REQUEST_LEN_MAX: usize = 1024 * 1024;

/// What may be asked over the admin socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum AdminRequest {
    /// Whether the broker answers. No row.
    Ping,
    /// Who runs here. One [`BrokerLine`].
    Broker,
    /// Ends the broker. No row; the answer comes before the end.
    Stop,
    /// Statistics: one object, name to number.
    Stats,
    /// Metrics: one object, name to number.
    Metrics,
    /// Listeners: a [`ListenerLine`] each.
    Listeners,
    /// Starts a listener that was stopped. No row.
    ListenersStart {
        /// `tcp`, `ssl`, `ws` or `wss`.
        protocol: String,
        /// Its name, port, or address and port.
        name: String,
    },
    /// Stops a listener and ends its clients. No row.
    ListenersStop {
        /// As for [`AdminRequest::ListenersStart`].
        protocol: String,
        /// As for [`AdminRequest::ListenersStart`].
        name: String,
    },
    /// Stops a listener, if it runs, and starts it. No row.
    ListenersRestart {
        /// As for [`AdminRequest::ListenersStart`].
        protocol: String,
        /// As for [`AdminRequest::ListenersStart`].
        name: String,
    },
    /// Alarms: an [`AlarmLine`] each, those that are active first.
    Alarms,
    /// Who may not connect: a [`BanLine`] each.
    BannedList,
    /// Bans somebody, or changes their ban. No row.
    BannedAdd {
        /// `clientid`, `username` or `peerhost`.
        kind: String,
        /// The client id, user name or address.
        who: String,
        /// Why, for people.
        reason: String,
        /// Who bans.
        by: String,
        /// For how many seconds; none: for ever.
        seconds: Option<u64>,
    },
    /// Ends a ban. No row.
    BannedDel {
        /// `clientid`, `username` or `peerhost`.
        kind: String,
        /// The client id, user name or address.
        who: String,
    },
    /// The process and the machine: one object, name to number or text.
    Vm {
        /// Which part.
        part: VmPart,
    },
    /// Settings: a [`SettingLine`] each.
    ConfigShow,
    /// Reads the access rules again. No row.
    AclReload,
    /// Reads the certificates of all listeners again.
    ListenersReload,
    /// Connected clients: a [`ClientLine`] each.
    ClientsList,
    /// One [`ClientLine`].
    ClientsShow {
        /// The client.
        client_id: String,
    },
    /// Ends a client's connection and session. No row.
    ClientsKick {
        /// The client.
        client_id: String,
    },
    /// Sessions: a [`SessionLine`] each.
    SessionsList {
        /// Only those that outlive their connection (true), only those that do not (false), or all.
        persistent: Option<bool>,
    },
    /// One [`SessionLine`].
    SessionsShow {
        /// The client the session belongs to.
        client_id: String,
    },
    /// Routes: a [`RouteLine`] each.
    RoutesList,
    /// One [`RouteLine`].
    RoutesShow {
        /// The filter.
        topic: String,
    },
    /// Subscriptions: a [`SubscriptionLine`] each.
    SubscriptionsList,
    /// Subscriptions of one client: a [`SubscriptionLine`] each.
    SubscriptionsShow {
        /// The client.
        client_id: String,
    },
    /// Subscribes a client. No row.
    SubscriptionsAdd {
        /// The client.
        client_id: String,
        /// The filter.
        topic: String,
        /// 0, 1 or 2.
        qos: u8,
    },
    /// Ends a client's subscription. No row.
    SubscriptionsDel {
        /// The client.
        client_id: String,
        /// The filter.
        topic: String,
    },
    /// Messages that wait to be published: a [`DelayedLine`] each.
    DelayedList,
    /// One [`DelayedLine`] with its payload.
    DelayedShow {
        /// Its name, as in the listing.
        id: String,
    },
    /// Deletes a message that waits to be published. No row.
    DelayedDelete {
        /// Its name, as in the listing.
        id: String,
    },
    /// The store: one [`StoreLine`](crate::store_line::StoreLine).
    StoreInfo,
    /// Writes a backup: one [`BackupLine`](crate::store_line::BackupLine).
    StoreBackup {
        /// The folder, an absolute path of the broker's machine.
        folder: String,
    },
    /// The retained messages: one [`RetainerLine`].
    RetainerInfo,
    /// Topics with a retained message: a [`RetainedLine`] each.
    RetainerTopics {
        /// Most of them; none: all.
        limit: Option<u64>,
    },
    /// Removes retained messages. One [`RemovedLine`].
    RetainerClean {
        /// Those whose topic matches it.
        filter: String,
    },
}

/// Parts of `vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmPart {
    /// All parts.
    All,
    /// Load of the machine.
    Load,
    /// Memory of the process.
    Memory,
    /// Threads of the process.
    Process,
    /// File descriptors of the process.
    Io,
    /// Connections.
    Ports,
}

/// The last line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum End {
    /// The answer is complete.
    Done {
        /// Always true.
        done: bool,
    },
    /// It could not be done, or not to the end.
    Error {
        /// What went wrong, for people.
        error: String,
        /// What went wrong, for programs.
        kind: ErrorKind,
    },
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is not one.
    BadRequest,
    /// There is no such client, session, route.
    NotFound,
    /// The broker refuses it.
    Refused,
    /// It failed.
    Failed,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerLine {
    /// Name of the node.
    pub node: String,
    /// What it is.
    pub sysdescr: String,
    /// Version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// `1 hours, 25 minutes, 24 seconds`.
    pub uptime: String,
    /// `2016-01-16 13:17:32`, UTC.
    pub datetime: String,
    /// Process id.
    pub pid: u32,
    /// Number of shards.
    pub shards: usize,
}

/// A connected client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLine {
    /// Client identifier.
    pub client_id: String,
    /// Clean Session or Clean Start.
    pub clean_sess: bool,
    /// User name.
    pub username: Option<String>,
    /// Address and port.
    pub peername: String,
    /// Unix time in seconds.
    pub connected_at: u64,
    /// Protocol level of its CONNECT: 3, 4 or 5.
    pub proto_ver: u8,
    /// Keep alive in seconds; 0: none.
    pub keepalive_s: u16,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// Whether it has a will.
    pub has_will: bool,
    /// Bytes that wait to be sent to it.
    pub outbox_bytes: u64,
}

impl From<ClientRow> for ClientLine {
    fn from(row: ClientRow) -> ClientLine {
        ClientLine {
            client_id: row.client_id,
            clean_sess: row.clean_start,
            username: row.username,
            peername: row.peer.to_string(),
            connected_at: row.connected_at_unix_s,
            proto_ver: row.version as u8,
            keepalive_s: row.keepalive_s,
            is_bridge: row.is_bridge,
            has_will: row.has_will,
            outbox_bytes: row.outbox_bytes,
        }
    }
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLine {
    /// Client identifier.
    pub client_id: String,
    /// Whether it ends with its connection.
    pub clean_sess: bool,
    /// Whether its client is connected.
    pub connected: bool,
    /// Number of subscriptions.
    pub subscriptions: u32,
    /// Inflight window; 0: no limit.
    pub max_inflight: u32,
    /// Messages sent and not acknowledged.
    pub inflight: u32,
    /// Messages that wait.
    pub mqueue_len: u32,
    /// Most messages that may wait; 0: no limit.
    pub mqueue_max: u32,
    /// Messages dropped.
    pub mqueue_dropped: u64,
    /// `QoS` 2 messages received whose PUBREL has not come.
    pub awaiting_rel: u32,
    /// Messages delivered.
    pub deliver_msg: u64,
    /// Messages queued.
    pub enqueue_msg: u64,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Seconds it lives after its connection; 4294967295: for ever.
    pub expiry_interval_s: u32,
    /// Unix time in seconds at which it ends, if its client is away.
    pub expires_at: Option<u64>,
}

impl From<SessionRow> for SessionLine {
    fn from(row: SessionRow) -> SessionLine {
        SessionLine {
            client_id: row.client_id,
            clean_sess: row.clean_start,
            connected: row.connected,
            subscriptions: row.subscriptions,
            max_inflight: row.max_inflight,
            inflight: row.inflight,
            mqueue_len: row.mqueue_len,
            mqueue_max: row.mqueue_max,
            mqueue_dropped: row.mqueue_dropped,
            awaiting_rel: row.awaiting_rel,
            deliver_msg: row.deliver_msg,
            enqueue_msg: row.enqueue_msg,
            created_at: row.created_at_unix_s,
            expiry_interval_s: row.expiry_interval_s,
            expires_at: row.expires_at_unix_s,
        }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLine {
    /// The filter.
    pub topic: String,
    /// Nodes with a subscriber.
    pub nodes: Vec<String>,
}

impl From<RouteInfo> for RouteLine {
    fn from(route: RouteInfo) -> RouteLine {
        RouteLine { topic: route.filter, nodes: route.nodes }
    }
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionLine {
    /// The client.
    pub client_id: String,
    /// The filter.
    pub topic: String,
    /// Maximum `QoS`.
    pub qos: u8,
    /// Messages the client published itself are not sent to it.
    pub no_local: bool,
    /// The retain flag is passed on as published.
    pub retain_as_published: bool,
    /// 0: retained messages at each subscribe, 1: at the first, 2: never.
    pub retain_handling: u8,
    /// Subscription identifier.
    pub subscription_id: Option<u32>,
}

impl From<SubscriptionRow> for SubscriptionLine {
    fn from(row: SubscriptionRow) -> SubscriptionLine {
        SubscriptionLine {
            client_id: row.client_id,
            topic: row.filter,
            qos: row.qos as u8,
            no_local: row.no_local,
            retain_as_published: row.retain_as_published,
            retain_handling: row.retain_handling as u8,
            subscription_id: row.subscription_id,
        }
    }
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerLine {
    /// `mqtt:tcp:1883`, with the address if it is bound to one.
    pub listener: String,
    /// Name in the settings.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// Whether it accepts.
    pub running: bool,
    /// Number of accepting sockets.
    pub acceptors: usize,
    /// Most clients at a time.
    pub max_clients: u64,
    /// Clients now.
    pub current_clients: u64,
    /// How many connections ended for which reason.
    pub shutdown_count: serde_json::Map<String, serde_json::Value>,
}

impl From<ListenerInfo> for ListenerLine {
    fn from(info: ListenerInfo) -> ListenerLine {
        let place = if info.address.ip().is_unspecified() {
            info.address.port().to_string()
        } else {
            info.address.to_string()
        };
        ListenerLine {
            listener: format!("{}:{place}", info.protocol),
            name: info.name,
            address: info.address.to_string(),
            running: info.running,
            acceptors: info.acceptors,
            max_clients: info.max_clients,
            current_clients: info.current_clients,
            shutdown_count: info
                .shutdown_count
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count.into()))
                .collect(),
        }
    }
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanLine {
    /// `clientid`, `username` or `peerhost`.
    pub kind: String,
    /// The client id, user name or address.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Who banned.
    pub by: String,
    /// Unix time in seconds.
    pub at: u64,
    /// Unix time in seconds; none: for ever.
    pub until: Option<u64>,
}

impl From<Ban> for BanLine {
    fn from(ban: Ban) -> BanLine {
        let (kind, who) = match ban.who {
            BannedWho::ClientId(name) => ("clientid", name),
            BannedWho::Username(name) => ("username", name),
            BannedWho::PeerHost(host) => ("peerhost", host.to_string()),
        };
        BanLine {
            kind: kind.to_owned(),
            who,
            reason: ban.reason,
            by: ban.by,
            at: ban.at_unix_s,
            until: ban.until_unix_s,
        }
    }
}

/// A message that waits to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedLine {
    /// Its name.
    pub id: String,
    /// The topic it will be published to.
    pub topic: String,
    /// Its `QoS`.
    pub qos: u8,
    /// Its RETAIN.
    pub retain: bool,
    /// When it was received, Unix time in milliseconds.
    pub publish_at_ms: u64,
    /// When it is due, Unix time in milliseconds.
    pub expected_at_ms: u64,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// The payload, if it is text and one message was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload in hexadecimal digits, if it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_hex: Option<String>,
}

impl From<DelayedRow> for DelayedLine {
    fn from(row: DelayedRow) -> DelayedLine {
        let (payload, payload_hex) = match row.payload.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(error)) => {
                let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                (None, Some(hex))
            }
        };
        DelayedLine {
            id: row.id.to_string(),
            topic: row.topic,
            qos: row.qos as u8,
            retain: row.retain,
            publish_at_ms: row.published_unix_ms,
            expected_at_ms: row.id.due_unix_ms,
            payload_bytes: row.payload_len,
            payload,
            payload_hex,
        }
    }
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmLine {
    /// Its id.
    pub id: String,
    /// `warning`, `error` or `critical`.
    pub severity: String,
    /// What it is.
    pub title: String,
    /// What was found.
    pub summary: String,
    /// Whether it is active.
    pub active: bool,
    /// Unix time in seconds.
    pub raised_at: u64,
    /// Unix time in seconds, if it is over.
    pub cleared_at: Option<u64>,
}

impl From<Alarm> for AlarmLine {
    fn from(alarm: Alarm) -> AlarmLine {
        AlarmLine {
            id: alarm.kind.id.to_owned(),
            severity: alarm.kind.severity.word().to_owned(),
            title: alarm.kind.title.to_owned(),
            summary: alarm.summary,
            active: alarm.cleared_unix_ms.is_none(),
            raised_at: alarm.raised_unix_ms / 1000,
            cleared_at: alarm.cleared_unix_ms.map(|at_ms| at_ms / 1000),
        }
    }
}

/// The retained messages and their limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainerLine {
    /// Messages.
    pub messages: u64,
    /// Bytes of their topics, properties and payloads.
    pub bytes: u64,
    /// `ram`, `disc` or `disc_only`.
    pub storage_type: String,
    /// Most messages; none: no limit.
    pub max_message_num: Option<u64>,
    /// Largest payload that is kept, in bytes.
    pub max_payload_size: u32,
    /// Life of a message without an expiry of its own, in seconds; 0: for ever.
    pub expiry_interval_s: u32,
}

impl From<RetainerInfo> for RetainerLine {
    fn from(info: RetainerInfo) -> RetainerLine {
        RetainerLine {
            messages: info.messages,
            bytes: info.bytes,
            storage_type: info.storage.to_owned(),
            max_message_num: info.messages_max,
            max_payload_size: info.payload_bytes_max,
            expiry_interval_s: info.expiry_interval_s,
        }
    }
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedLine {
    /// Its topic.
    pub topic: String,
    /// Its `QoS`.
    pub qos: u8,
    /// When it was received, Unix time in milliseconds.
    pub publish_at_ms: u64,
    /// Bytes of the payload.
    pub payload_bytes: u64,
}

impl From<RetainedRow> for RetainedLine {
    fn from(row: RetainedRow) -> RetainedLine {
        RetainedLine {
            topic: row.topic,
            qos: row.qos as u8,
            publish_at_ms: row.published_unix_ms,
            payload_bytes: row.payload_len,
        }
    }
}

/// How many were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedLine {
    /// Messages.
    pub removed: u64,
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingLine {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Where the value came from.
    pub origin: String,
    /// What it is for.
    pub doc: String,
}

impl From<SettingInfo> for SettingLine {
    fn from(info: SettingInfo) -> SettingLine {
        SettingLine { key: info.key, value: info.value, origin: info.origin, doc: info.doc }
    }
}
