//! The table of settings: every key once, with its older names, kind, default, documentation, and whether it can
//! change at run time. The typed structs, the parser, `config show` and the reference are all made from it.

use std::path::PathBuf;

use crate::Settings;
use crate::kind::{Kind, Setting, TimeUnit};
use crate::modules::{AUTO_SUBSCRIPTIONS, REWRITES};
use crate::rate::Rate;
use crate::types::{
    AclNomatch, LogLevel, MemoryBudget, MqueueKind, Priorities, RetainedStorage, ServerMoved,
    SharedStrategy, StoreSync,
};

/// One key of a struct `T`.
pub(crate) struct Key<T> {
    /// The key; for a listener only the part behind its name.
    pub name: &'static str,
    /// Older names, accepted with a warning.
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    pub default: &'static str,
    pub doc: &'static str,
    pub hot: bool,
    /// Stores the value; false if the kind does not allow the text.
    pub assign: fn(&mut T, &str, &Kind) -> bool,
    pub show: fn(&T, &Kind) -> String,
}

/// Finds the struct `P` of a section in the root its keys are set through.
pub(crate) trait Part<P> {
    fn part(&self) -> &P;
    fn part_mut(&mut self) -> &mut P;
}

pub(crate) const fn any(flags: &[bool]) -> bool {
    !flags.is_empty()
}

/// Declares one struct of settings and its part of the table.
macro_rules! section {
    (
        $(#[$meta:meta])* $name:ident, $table:ident: $root:ty $(, $place:ident)?
            $(=> { $($(#[doc = $more_doc:literal])+ $more:ident: $more_ty:ty),+ })?;
        $($(#[doc = $doc:literal])+ $key:literal $(was [$($alias:literal),+])? => $field:ident: $ty:ty,
            $kind:expr, $default:literal $(, $hot:ident)?;)+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $ty,)+
            $($($(#[doc = $more_doc])+ pub $more: $more_ty,)+)?
        }

        pub(crate) const $table: &[Key<$root>] = &[$(Key {
            name: $key,
            aliases: &[$($($alias),+)?],
            kind: $kind,
            default: $default,
            doc: concat!($($doc),+),
            hot: $crate::table::any(&[$({ let _ = stringify!($hot); true })?]),
            assign: |root, text, kind| match <$ty as Setting>::parse(text, kind) {
                Some(value) => { Part::<$name>::part_mut(root).$field = value; true }
                None => false,
            },
            show: |root, kind| Part::<$name>::part(root).$field.show(kind),
        }),+];

        $(impl Part<$name> for $root {
            fn part(&self) -> &$name {
                &self.$place
            }
            fn part_mut(&mut self) -> &mut $name {
                &mut self.$place
            }
        })?

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: <$ty as Setting>::parse($default, &$kind)
                        .expect(concat!("the default of ", $key, " is allowed")),)+
                    $($($more: <$more_ty>::default(),)+)?
                }
            }
        }
    };
}
pub(crate) use section;

/// All parts of the table but the listeners', with the title of each.
pub(crate) const TABLE: &[(&str, &[Key<Settings>])] = &[
    ("Node", NODE),
    ("MQTT protocol", MQTT),
    ("Sessions", SESSION),
    ("Message queue of a session", MQUEUE),
    ("Connections", CONN),
    ("Broker", BROKER),
    ("Retained messages", RETAINER),
    ("Delayed messages", DELAYED),
    (AUTO_SUBSCRIPTIONS, crate::modules::AUTO_SUBSCRIPTION),
    (REWRITES, crate::modules::REWRITE),
    ("Store on disk", STORE),
    ("Flapping clients", FLAPPING),
    ("Overload", OVERLOAD),
    ("Log", LOG),
    ("Reactor", REACTOR),
    ("Mesh between shards", MESH),
];

pub(crate) fn keys() -> impl Iterator<Item = &'static Key<Settings>> {
    TABLE.iter().flat_map(|(_, keys)| keys.iter())
}

const PERCENT: Kind = Kind::Percent;
const U32_MAX: u64 = u32::MAX as u64;

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn limit(max: u64) -> Kind {
    Kind::Limit { max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

const fn duration_ms(min: u64, max: u64) -> Kind {
    Kind::Duration { unit: TimeUnit::Ms, min, max, infinity: false }
}

const fn duration_s(max: u64, infinity: bool) -> Kind {
    Kind::Duration { unit: TimeUnit::S, min: 0, max, infinity }
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

section! {
    /// `node.*`: the process as a whole.
    NodeSettings, NODE: Settings, node;

    /// Name of the node, name@host. It appears in $SYS topics and listings.
    "node.name" => name: String, Kind::Text, "ringmq@127.0.0.1";

    /// Folder of everything the broker writes: the admin socket and durable state. Relative to the working directory.
    "node.data_dir" => data_dir: PathBuf, Kind::Path, "data";

    /// Number of shards, one core each. 0 takes one per CPU the process may run on.
    "node.shards" => shards: u16, integer(0, 256), "0";

    /// Whether the kernel may back memory with huge pages. Tables of a million routes are searched faster with them; but memory
    /// then grows by 2MB at a time, which is more than a broker with few clients needs.
    "node.huge_pages" => huge_pages: bool, Kind::Bool, "off";
}

section! {
    /// `mqtt.*`: limits and features of the protocol.
    MqttSettings, MQTT: Settings, mqtt;

    /// Longest client identifier in bytes. A longer one is refused with return code 2 (reason 0x85).
    "mqtt.max_clientid_len" => max_client_id_len: usize, integer(23, 65_535), "1024";

    /// Largest packet accepted, fixed header included; advertised to MQTT 5 clients. A larger one closes the connection
    /// (reason 0x95). The default is that of EMQ 2.x: it bounds what an unknown client can make the broker hold, and
    /// the interoperability suites need no more. Raise it for firmware images or pictures.
    "mqtt.max_packet_size" => max_packet_size_bytes: u32, size(256, 256 << 20), "64KB";

    /// A connection that has sent no whole CONNECT after this time is closed.
    "mqtt.client.idle_timeout" was ["mqtt.client_idle_timeout"]
        => idle_timeout_ms: u64, duration_ms(100, HOUR_MS), "30s", hot;

    /// Refresh of the statistics of each client in listings. Counting itself is always on. off reads them when asked.
    "mqtt.client.enable_stats" => client_stats_interval_ms: u64, Kind::StatsInterval, "off", hot;

    /// Messages each client may publish in a time, and how many at once after a quiet time: 100/s,500. A client that is over it is
    /// not read until it may publish again; nothing is dropped. max_publish_rate of its listener goes before.
    "mqtt.client.max_publish_rate" => max_publish_rate: Option<Rate>, Kind::CountRate { what: "messages" }, "none";

    /// A client that is silent for 2 x backoff x keepalive is disconnected and its will published. The protocol asks
    /// for 1.5 x keepalive, which is 0.75; kept in thousandths.
    "mqtt.keepalive_backoff" => keepalive_backoff_permille: u32,
        Kind::Permille { min: 500, max: 10_000 }, "0.75";

    /// Whether a client may connect without authentication.
    "mqtt.allow_anonymous" => allow_anonymous: bool, Kind::Bool, "on", hot;

    /// What happens to a publish or subscribe that no ACL rule matches.
    "mqtt.acl_nomatch" => acl_nomatch: AclNomatch, Kind::Enum(AclNomatch::WORDS), "allow", hot;

    /// File of ACL rules, in the form of acl.conf. builtin uses the rules that ship with the broker. A path is relative
    /// to the working directory.
    "mqtt.acl_file" => acl_file: Option<PathBuf>, Kind::OptionalPath, "builtin", hot;

    /// Whether ACL decisions of slow sources may be remembered per client. The rules of the file are never cached: they
    /// are faster than a cache.
    "mqtt.cache_acl" => cache_acl: bool, Kind::Bool, "on", hot;

    /// Longest keepalive of MQTT 5 clients, at most 65535s: one that asks for a longer one, or for none, is told to use this
    /// (Server Keep Alive). 0 leaves it to the client.
    "mqtt.server_keepalive" => server_keepalive_s: u16, duration_s(65_535, false), "0s";

    /// Topic aliases a client of MQTT 5 may define on one connection. 0 forbids them. The broker keeps the topic of
    /// each alias, so alias count x mqtt.max_topic_len bounds the memory per connection: 256KB by default, where the
    /// 65535 of the protocol would be 256MB.
    "mqtt.max_topic_alias" => max_topic_alias: u16, integer(0, 65_535), "64";

    /// QoS 1 and 2 messages a client of MQTT 5 may have unacknowledged towards the broker. The default is that of
    /// mqtt.session.max_awaiting_rel, so that a client that keeps to it never runs into that limit.
    "mqtt.receive_maximum" => receive_maximum: u16, integer(1, 65_535), "100";

    /// Highest QoS of a publish. A client of MQTT 5 is told so; a publish above it closes the connection (reason 0x9B).
    "mqtt.max_qos_allowed" => max_qos_allowed: u8, integer(0, 2), "2";

    /// Whether retained messages are kept. When off, a publish with retain of an MQTT 5 client is refused (reason 0x9A).
    "mqtt.retain_available" => retain_available: bool, Kind::Bool, "on";

    /// Whether filters may contain wildcards.
    "mqtt.wildcard_subscription" => wildcard_subscription: bool, Kind::Bool, "on";

    /// Whether $share/ and $queue/ filters are allowed.
    "mqtt.shared_subscription" => shared_subscription: bool, Kind::Bool, "on";

    /// Whether subscriptions may carry a subscription identifier.
    "mqtt.subscription_identifiers" => subscription_identifiers: bool, Kind::Bool, "on";

    /// Most levels in a topic or filter: it bounds the depth of the trie.
    "mqtt.max_topic_levels" => max_topic_levels: usize, integer(1, 65_535), "128";

    /// Longest topic or filter in bytes. The protocol allows 65535; the broker holds the text of every filter, retained
    /// topic and alias, and topics in use stay far below 4096.
    "mqtt.max_topic_len" => max_topic_len: usize, integer(1, 65_535), "4096";

    /// Most user properties in one packet of MQTT 5. They are forwarded with each delivery, so they cost as payload does.
    "mqtt.max_user_properties" => max_user_properties: usize, integer(0, 65_535), "64";

    /// Most filters in one SUBSCRIBE or UNSUBSCRIBE: it bounds what a single packet can ask for.
    "mqtt.max_filters_per_packet" => max_filters_per_packet: usize, integer(1, 65_535), "1024";

    /// Longest session expiry a client of MQTT 5 is granted; a longer wish is cut and the client told in CONNACK.
    /// Without a limit a client that never returns would hold its session for ever. infinity grants anything.
    "mqtt.max_session_expiry_interval" => max_session_expiry_interval_s: u32,
        duration_s(U32_MAX - 1, true), "30d";

    /// How a shared group picks the member for a message. round_robin is the default: the load is even in small numbers
    /// too, which random only reaches on average. local prefers a member on the publisher's shard.
    "mqtt.shared_subscription_strategy"
        => shared_strategy: SharedStrategy, Kind::Enum(SharedStrategy::WORDS), "round_robin";

    /// Refuses every CONNECT with 0x9C (temporary) or 0x9D (permanent) and mqtt.server_reference; clients before MQTT 5 with
    /// return code 3, server unavailable.
    "mqtt.server_moved" => server_moved: ServerMoved, Kind::Enum(ServerMoved::WORDS), "off", hot;

    /// The server that mqtt.server_moved names, host:port, several parted by spaces.
    "mqtt.server_reference" => server_reference: Option<String>, Kind::OptionalText, "none", hot;

    /// Whether a WebSocket client must ask for a subprotocol of MQTT. Some, such as the mini programs of WeChat, cannot.
    "mqtt.websocket_protocol_header" => websocket_protocol_header: bool, Kind::Bool, "on", hot;

    /// Prefix of response topics, given to clients of MQTT 5 that ask for response information.
    "mqtt.response_information"
        => response_information: Option<String>, Kind::OptionalText, "none", hot;
}

section! {
    /// `mqtt.session.*`: what is kept for each client.
    SessionSettings, SESSION: Settings, session;

    /// QoS 1 and 2 messages under way to a client at one time. Larger is faster, 1 keeps strict order. The receive
    /// maximum of an MQTT 5 client lowers it. 0 means no limit but the packet identifiers (65535).
    "mqtt.session.max_inflight" => max_inflight: u16, limit(65_535), "32";

    /// Time after which an unacknowledged message is sent again to a client of MQTT 3.1 or 3.1.1 that is connected. 0
    /// means never. MQTT 5 forbids it (MQTT-4.4.0-1): such clients get it again only when they reconnect.
    "mqtt.session.retry_interval" => retry_interval_ms: u64, duration_ms(0, DAY_MS), "20s";

    /// QoS 2 messages of an MQTT 3.1 or 3.1.1 client that may wait for its PUBREL. One more waits unhandled until a PUBREL
    /// comes; for MQTT 5 mqtt.receive_maximum is the limit, and more are refused (reason 0x93). 0 means no limit but the packet identifiers (65535).
    "mqtt.session.max_awaiting_rel" => max_awaiting_rel: u16, limit(65_535), "100";

    /// Time after which a QoS 2 message that waits for PUBREL is forgotten. 0 means never.
    "mqtt.session.await_rel_timeout"
        => await_rel_timeout_ms: u64, duration_ms(0, DAY_MS), "20s";

    /// Whether a message is delivered with the higher of its own QoS and that of the subscription.
    "mqtt.session.upgrade_qos" => upgrade_qos: bool, Kind::Bool, "off";

    /// Life of the session of an MQTT 3.1 or 3.1.1 client with clean session off, after it disconnects. infinity means
    /// that it never ends. Kept in seconds; infinity is 4294967295, as in MQTT 5.
    "mqtt.session.expiry_interval" was ["mqtt.session.expired_after"]
        => expiry_interval_s: u32, duration_s(U32_MAX - 1, true), "2h";

    /// Refresh of the statistics of each session in listings. Counting itself is always on. off reads them when asked.
    "mqtt.session.enable_stats" => stats_interval_ms: u64, Kind::StatsInterval, "off";

    /// Subscriptions of one session; one more is refused (reason 0x97). 0 means no limit. The default lets a service
    /// subscribe to thousands of devices one by one, and holds a client that never stops to 2MB or so.
    "mqtt.session.max_subscriptions" => max_subscriptions: u32, limit(U32_MAX - 1), "10000";

    /// Whether a client of MQTT 3.1 or 3.1.1 does not get its own messages back. MQTT 5 clients say so per subscription.
    "mqtt.session.ignore_loop_deliver" was ["mqtt.ignore_loop_deliver"]
        => ignore_loop_deliver: bool, Kind::Bool, "off";
}

section! {
    /// `mqtt.mqueue.*`: the messages that wait for a client that is away or whose inflight window is full.
    MqueueSettings, MQUEUE: Settings, mqueue;

    /// simple keeps the order of arrival; priority hands out by mqtt.mqueue.priority first.
    "mqtt.mqueue.type" was ["mqtt.queue.type"]
        => kind: MqueueKind, Kind::Enum(MqueueKind::WORDS), "simple";

    /// Priorities 0 to 255 of topic names, as topic/1=10,topic/2=8. A topic that is not named has 0.
    "mqtt.mqueue.priority" was ["mqtt.queue.priority"]
        => priorities: Priorities, Kind::Priorities, "none";

    /// Most messages in the queue of one session. 0 or infinity means no limit.
    "mqtt.mqueue.max_length" was ["mqtt.queue.max_length"]
        => max_length: u32, limit(U32_MAX - 1), "1000";

    /// Fill of the queue below which its alarm is cleared.
    "mqtt.mqueue.low_watermark" was ["mqtt.queue.low_watermark"]
        => low_watermark_percent: u8, PERCENT, "20%", hot;

    /// Fill of the queue above which its alarm is raised.
    "mqtt.mqueue.high_watermark" was ["mqtt.queue.high_watermark"]
        => high_watermark_percent: u8, PERCENT, "60%", hot;

    /// Whether QoS 0 messages are queued too. A full queue drops its oldest message to take a new one.
    "mqtt.mqueue.store_qos0" was ["mqtt.mqueue.qos0", "mqtt.queue.qos0"]
        => store_qos0: bool, Kind::Bool, "on";
}

section! {
    /// `mqtt.conn.*`: bounds of one connection.
    ConnSettings, CONN: Settings, conn;

    /// Bytes that may wait to be sent to one client. Beyond it QoS 0 is dropped and counted, QoS 1 and 2 stay in the
    /// queue of the session.
    "mqtt.conn.pending_bytes_max" => pending_bytes_max: usize, size(4 << 10, 1 << 30), "1MB";

    /// A client that sends a part of a packet must send the rest within this time.
    "mqtt.conn.partial_packet_timeout"
        => partial_packet_timeout_ms: u64, duration_ms(100, HOUR_MS), "30s";

    /// Bytes of one connection that are worked on before the other connections of the shard have their turn. 64KB are
    /// about 800 small publishes, a millisecond of a core or less.
    "mqtt.conn.tick_bytes_max" => tick_bytes_max: usize, size(4 << 10, 16 << 20), "64KB";
}

section! {
    /// `mqtt.broker.*`: the broker's own messages.
    BrokerSettings, BROKER: Settings, broker;

    /// Interval of the $SYS messages. 0 publishes none.
    "mqtt.broker.sys_interval" => sys_interval_ms: u64, duration_ms(0, DAY_MS), "60s", hot;
}

section! {
    /// `retainer.*`: the retained messages, with the keys of EMQ's retainer plugin.
    RetainerSettings, RETAINER: Settings, retainer;

    /// Where retained messages are kept: ram, in memory only, and a restart loses them; disc, in memory and, unless store.enable
    /// is off, on disk; disc_only, on disk, and in memory a few bytes of each: they are read when somebody subscribes.
    "retainer.storage_type" was ["module.retainer.storage_type"]
        => storage: RetainedStorage, Kind::Enum(RetainedStorage::WORDS), "disc";

    /// Most retained messages of the node. When it is reached no new topic is retained; known ones are replaced still.
    /// 0 means no limit.
    "retainer.max_message_num" was ["module.retainer.max_message_num"]
        => max_message_num: u64, limit(U32_MAX), "1000000";

    /// Largest payload that is retained; a larger message is delivered but not kept.
    "retainer.max_payload_size" was ["module.retainer.max_payload_size"]
        => max_payload_size_bytes: u32, size(0, 256 << 20), "64KB";

    /// Life of a retained message without an expiry of its own. 0 means for ever.
    "retainer.expiry_interval" was ["module.retainer.expired_after", "retainer.expired_after"]
        => expiry_interval_s: u32, duration_s(U32_MAX - 1, false), "0s";
}

section! {
    /// `delayed.*`: messages to be published later, by the topic $delayed/<seconds>/<topic> (SEED-PUB-16).
    DelayedSettings, DELAYED: Settings, delayed;

    /// Whether a message to $delayed/<seconds>/<topic>, or $delay/<seconds>/<topic>, is published to <topic> after so many
    /// seconds. When off such topics are topics like any other.
    "delayed.enable" => enable: bool, Kind::Bool, "on";

    /// Most delayed messages of the node. One more is refused (reason 0x97) and dropped. 0 means no limit.
    "delayed.max_delayed_messages" => max_messages: u64, limit(U32_MAX), "1000000";

    /// Longest delay. A message with a longer one is refused (reason 0x97) and dropped. The default is that of EMQX.
    "delayed.max_delay" => max_delay_s: u32, duration_s(U32_MAX - 1, false), "4294967s";
}

section! {
    /// `store.*`: what is kept on disk.
    StoreSettings, STORE: Settings, store;

    /// Whether sessions that outlive their connection, their messages, retained and delayed messages are kept in the folder store of
    /// node.data_dir, and come back when the broker starts again. off keeps them in memory only.
    "store.enable" => enable: bool, Kind::Bool, "on";

    /// When what is written is on disk. always: before PUBACK, PUBREC, SUBACK and CONNACK, so that nothing acknowledged is lost
    /// when the broker is killed or the power fails; acknowledgements wait for the disk, those of all clients together. A time:
    /// after about that time, up to three times it for what went from one shard to another: so much is lost at most; what comes
    /// and goes within it is never written.
    /// never: written each second and left to the kernel; a power failure may lose the last half minute.
    "store.sync" => sync: StoreSync, Kind::StoreSync, "100ms";

    /// How long after its client has left a kept session's messages stay in memory; then they are in the store only, until the client
    /// is back. With store.sync = always and more than one shard at least 5 seconds.
    "store.unload_after" => unload_after_ms: u64, duration_ms(0, HOUR_MS), "1s";
}

section! {
    /// `flapping_detect.*`: clients that come and go without end.
    FlappingSettings, FLAPPING: Settings, flapping;

    /// Whether a client that disconnects too often is banned for a time (SEED-AUTH-19).
    "flapping_detect.enable" => enable: bool, Kind::Bool, "off";

    /// Disconnects of one client in flapping_detect.window_time that ban it.
    "flapping_detect.max_count" => max_count: u32, integer(2, 1_000_000), "15";

    /// The time its disconnects are counted in.
    "flapping_detect.window_time" => window_ms: u64, duration_ms(1000, DAY_MS), "60s";

    /// How long it is banned.
    "flapping_detect.ban_time" => ban_ms: u64, duration_ms(1000, 30 * DAY_MS), "5m";
}

section! {
    /// `overload.*`: when the broker has too much to do, and what it then does not take on (SEED-LSN-24, NONE-09).
    OverloadSettings, OVERLOAD: Settings, overload;

    /// Whether a shard that is overloaded refuses newcomers (connections before TLS, a CONNECT with 0x97 for memory and 0x89 for
    /// the rest, return code 3 before MQTT 5) and drops QoS 0 to clients that are slow to take it. Who is connected stays.
    "overload.enable" => enable: bool, Kind::Bool, "on";

    /// Memory of the process (RssAnon) from which on the node is overloaded, until it is a tenth below: bytes, a part of the
    /// memory of the machine or of the control group if that has less, or off.
    "overload.memory_high_watermark" => memory_high: MemoryBudget, Kind::MemoryBudget, "80%";

    /// Length of the shard's ticks, on average over the time they take, from which on it is overloaded, until it is half. A
    /// newcomer's packet waits about as long. 0 does not watch it. Work flat out makes ticks of some milliseconds.
    "overload.tick_time" => tick_time_ms: u64, duration_ms(0, 60_000), "200ms";

    /// Routes, hand-overs and other messages of a shard that wait because the ring to another shard is full, from which on it
    /// is overloaded, until they are half. 0 does not watch it.
    "overload.mesh_queue" => mesh_queue: usize, integer(0, 10_000_000), "10000";

    /// Connections a shard lets in per tick; more wait for the next ticks, and those of all listeners and source prefixes have
    /// their turn one by one, so that neither the connected clients nor other networks wait for one that storms. 0 means no
    /// limit.
    "overload.accept_budget" => accept_budget: usize, integer(0, 100_000), "32";

    /// Connections of a shard that may wait for that. When there are more, one of the prefix that has the most is closed.
    "overload.accept_queue" => accept_queue: usize, integer(1, 10_000_000), "65536";

    /// A connection that has waited so long to be let in is closed: its client has given up, or soon will.
    "overload.accept_deadline" => accept_deadline_ms: u64, duration_ms(100, HOUR_MS), "10s";

    /// Bits of an IPv4 address that make a source prefix.
    "overload.prefix_ipv4" => prefix_ipv4: u8, integer(0, 32), "24";

    /// The same of an IPv6 address. One customer has a /48 or a /56, so 65,536 or 256 networks of 64 bits: by those
    /// it would have as many turns as all others together. A /48 is at most one customer with
    /// many hosts, or some 256 with a /56 each, about as many as share an IPv4 /24.
    "overload.prefix_ipv6" => prefix_ipv6: u8, integer(0, 128), "48";
}

section! {
    /// `log.*`: what the broker says about itself.
    LogSettings, LOG: Settings, log;

    /// Least severe level that is written to standard error. EMQ 2.x has error; info is the default here because the
    /// log holds a line per event of the broker's life and none per client.
    "log.console.level" => console_level: LogLevel, Kind::Enum(LogLevel::WORDS), "info", hot;
}

section! {
    /// `reactor.*`: the loop of one core.
    ReactorSettings, REACTOR: Settings, reactor;

    /// Receive buffers of a shard, shared by its connections. An idle connection holds none. 0 chooses: 1,024, fewer when the
    /// buffers of all shards would take more than 64MB.
    "reactor.recv_buffers" => recv_buffers: u16,
        Kind::PowerOfTwo { min: 16, max: 32_768, auto: true }, "0";

    /// Size of a receive buffer: buffers x size is memory of each shard, 8MB by default up to 8 shards.
    "reactor.recv_buffer_size" => recv_buffer_size_bytes: u32, size(512, 1 << 20), "8KB";

    /// Submission entries of a shard's ring.
    "reactor.ring_entries" => ring_entries: u32,
        Kind::PowerOfTwo { min: 64, max: 32_768, auto: false }, "4096";

    /// Connections a shard can hold. A ring's descriptor table has at most as many entries as the limit on open files
    /// (RLIMIT_NOFILE); a shard adds rings when its tables fill up. 0 takes as many as 256 rings hold.
    "reactor.descriptors" => descriptors: u32, integer(0, 16_000_000), "0";

    /// Time a shard looks for work before it waits in the kernel. Costs a whole core for a few microseconds of latency:
    /// only for a machine that is the broker's alone. Kept in microseconds.
    "reactor.spin" => spin_us: u32,
        Kind::Duration { unit: TimeUnit::Us, min: 0, max: 1_000_000, infinity: false }, "0s";

    /// Whether one accept request of the ring serves many connections. off is for finding faults.
    "reactor.multishot_accept" => multishot_accept: bool, Kind::Bool, "on";
}

section! {
    /// `mesh.*`: the rings between shards.
    MeshSettings, MESH: Settings, mesh;

    /// Batches that one ring from shard to shard can hold. 0 chooses by the number of shards, so that the memory of all
    /// rings together stays bounded.
    "mesh.data_capacity" => data_capacity: u32,
        Kind::PowerOfTwo { min: 2, max: 65_536, auto: true }, "0";

    /// The same for control messages.
    "mesh.control_capacity" => control_capacity: u32,
        Kind::PowerOfTwo { min: 2, max: 65_536, auto: true }, "0";

    /// Bytes after which a batch to a shard is pushed before its tick has ended.
    "mesh.batch_bytes_max" => batch_bytes_max: usize, size(4 << 10, 64 << 20), "256KB";
}
