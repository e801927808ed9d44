//! What the control plane asks one shard and what the shard answers.
//!
//! Plain data: the control plane pushes a [`Command`] into the shard's bounded command channel and the shard answers every
//! command with exactly one `(token, Reply)` in its bounded reply channel. The node keeps the commands it has outstanding at a
//! shard below the capacity of that shard's reply channel ([`OUTSTANDING_MAX`]), so a shard's reply always finds room: the shard
//! asserts that `try_send` succeeds and never waits for the control plane.
//!
//! Listings are pages: a request names a cursor and a limit of at most [`PAGE_ROWS_MAX`] rows, the answer names the next cursor.
//! A shard looks at a bounded number of slots for one page ([`PAGE_SLOTS_MAX`]), so a page may hold few rows, or none, and still
//! have a next cursor. A listing is no snapshot: what comes or goes while it runs may or may not be in it, what stays throughout
//! is in it exactly once.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mqtt::{ProtocolVersion, QoS, ReasonCode, RetainHandling};
use ring::ShardSet;
use session::DelayedId;
use session::acl::Acl;

use crate::ListenerId;
use crate::banned::{Ban, BannedList};

/// Commands the node may have outstanding at one shard; the shard's command and reply channels hold at least this many.
pub const OUTSTANDING_MAX: usize = 64;

/// Most rows of one page.
pub const PAGE_ROWS_MAX: u32 = 256;

/// Most slots (connections, sessions, filters) a shard looks at for one page.
pub const PAGE_SLOTS_MAX: u32 = 4096;

/// One thing to do or to tell, and the token its reply carries.
#[derive(Debug, Clone)]
pub struct Command {
    /// Chosen by the node; the reply carries it back.
    pub token: u64,
    /// What is asked.
    pub request: Request,
}

/// What the control plane may ask of a shard.
#[derive(Debug, Clone)]
pub enum Request {
    /// Connected clients of this shard, by connection index. Reply: [`Reply::Clients`].
    ClientsPage {
        /// First connection index to look at; 0 starts.
        cursor: u32,
        /// Most rows to give, at most [`PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// One connected client; asked of its home shard. Reply: [`Reply::Client`].
    ClientShow {
        /// The client.
        client_id: String,
    },
    /// Closes a client's connection (v5: DISCONNECT 0x98 administrative action) and ends its session. Reply: [`Reply::Done`] or [`Reply::NotFound`].
    ClientKick {
        /// The client.
        client_id: String,
    },
    /// Sessions of this shard, connected or not, by session index. Reply: [`Reply::Sessions`].
    SessionsPage {
        /// First session index to look at; 0 starts.
        cursor: u32,
        /// Most rows to give, at most [`PAGE_ROWS_MAX`].
        limit: u32,
        /// Which sessions.
        kind: SessionKind,
    },
    /// One session; asked of its home shard. Reply: [`Reply::Session`].
    SessionShow {
        /// The client the session belongs to.
        client_id: String,
    },
    /// Filters that have a subscriber on this shard. Reply: [`Reply::Routes`].
    RoutesPage {
        /// Where the page before ended; [`RouteCursor::START`] starts.
        cursor: RouteCursor,
        /// Most rows to give, at most [`PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// One filter, if it has a subscriber on this shard. Reply: [`Reply::Route`].
    RouteShow {
        /// The filter as subscribed, with its `$share/group/`, `$queue/` or `$local/` prefix.
        filter: String,
    },
    /// Subscriptions of this shard's sessions. Reply: [`Reply::Subscriptions`].
    SubscriptionsPage {
        /// Where the page before ended; [`SubscriptionCursor::START`] starts.
        cursor: SubscriptionCursor,
        /// Most rows to give, at most [`PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// Subscriptions of one session; asked of its home shard. Reply: [`Reply::ClientSubscriptions`] or [`Reply::NotFound`].
    SubscriptionsShow {
        /// The client the session belongs to.
        client_id: String,
        /// How many subscriptions to skip.
        offset: u32,
        /// Most rows to give, at most [`PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// Subscribes a session as if its client had asked (options: plain). Replied to when every shard has applied the
    /// route. Reply: [`Reply::Done`], [`Reply::NotFound`] (no such session) or [`Reply::Refused`].
    SubscriptionAdd {
        /// The client the session belongs to.
        client_id: String,
        /// The filter, with its prefix if it has one.
        filter: String,
        /// The maximum `QoS`.
        qos: QoS,
    },
    /// Ends a subscription of a session. Reply: [`Reply::Done`] (also if the session had no such subscription) or
    /// [`Reply::NotFound`] (no such session).
    SubscriptionDel {
        /// The client the session belongs to.
        client_id: String,
        /// The filter as subscribed.
        filter: String,
    },
    /// Publishes a message of the broker itself through the normal routing, from this shard. Reply: [`Reply::Published`] or
    /// [`Reply::Refused`] (topic name invalid).
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
    /// What is asked about delayed messages.
    Delayed(DelayedRequest),
    /// What is asked about retained messages.
    Retainer(RetainerRequest),
    /// Hands all changes to the store. Reply: [`Reply::Done`] when they are committed, [`Reply::Unkept`] if the store fails.
    Keep,
    /// Replaces the rules of access; applies to what clients ask from now on. Reply: [`Reply::Done`].
    AclReload(Arc<Acl>),
    /// Replaces the list of who may not connect. Reply: [`Reply::Done`].
    BannedReplace(Arc<BannedList>),
    /// Clients of this shard that are banned for flapping. Reply: [`Reply::Bans`].
    FlappingBans,
    /// Ends the ban of a client for flapping; asked of its home shard. Reply: [`Reply::Done`] or [`Reply::NotFound`].
    FlappingForgive {
        /// The client.
        client_id: String,
    },
    /// Clients and ended connections of each listener on this shard. Reply: [`Reply::Listeners`].
    ListenerCounts,
    /// Ends the clients of a listener and lets none in by it. Done in slices. Reply, when all have been told to go:
    /// [`Reply::Done`].
    ListenerStop(ListenerId),
    /// Lets clients in by a listener again. Reply: [`Reply::Done`].
    ListenerStart(ListenerId),
    /// How long ticks took on this shard since the start. Reply: [`Reply::TickHistogram`].
    TickHistogram,
    /// Accept no more, tell each client (v5: DISCONNECT with `reason`), flush the outboxes, publish the wills that are due,
    /// close. Done in slices; ends at the latest after `grace_ms`. Reply, when no connection is left or the time is up:
    /// [`Reply::ShutDown`].
    Shutdown {
        /// What v5 clients are told (0x8B server shutting down).
        reason: ReasonCode,
        /// Time the shard has for it.
        grace_ms: u32,
    },
}

/// What may be asked about the delayed messages of a shard.
#[derive(Debug, Clone, Copy)]
pub enum DelayedRequest {
    /// Those that wait, in the order they are due. Reply: [`Reply::Delayed`].
    Page {
        /// The last one of the page before.
        cursor: Option<DelayedId>,
        /// Most rows to give, at most [`PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// One with its payload. Reply: [`Reply::DelayedMessage`].
    Show(DelayedId),
    /// Deletes one. Reply: [`Reply::Done`] or [`Reply::NotFound`].
    Delete(DelayedId),
}

/// What may be asked about the retained messages of a shard. Each looks at a bounded number of them.
#[derive(Debug, Clone)]
pub enum RetainerRequest {
    /// Topics with a retained message, in order. Reply: [`Reply::Retained`].
    Page {
        /// Where the page before ended.
        cursor: Option<String>,
        /// Most rows to give, at most [`PAGE_ROWS_MAX`].
        limit: u32,
    },
    /// Counts messages and their bytes. Reply: [`Reply::RetainedPart`].
    Measure {
        /// Where the part before ended.
        cursor: Option<String>,
    },
    /// Removes messages. Reply: [`Reply::RetainedPart`] or [`Reply::Refused`].
    Clean {
        /// Those whose topic matches it.
        filter: String,
        /// Where the part before ended.
        cursor: Option<String>,
    },
}

/// Which sessions a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionKind {
    /// All.
    #[default]
    Any,
    /// Those that outlive their connection.
    Persistent,
    /// Those that end with their connection.
    Transient,
}

/// Where a listing of routes stands; opaque to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteCursor(pub u64);

impl RouteCursor {
    /// The beginning.
    pub const START: RouteCursor = RouteCursor(0);
}

/// Where a listing of subscriptions stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SubscriptionCursor {
    /// Session index.
    pub session: u32,
    /// How many of that session's subscriptions were given.
    pub offset: u32,
}

impl SubscriptionCursor {
    /// The beginning.
    pub const START: SubscriptionCursor = SubscriptionCursor { session: 0, offset: 0 };
}

/// What a shard answers; every command gets exactly one.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done, nothing to say.
    Done,
    /// There is no such client or session on this shard.
    NotFound,
    /// Not done, with the reason in the protocol's terms (invalid filter or topic, quota).
    Refused(ReasonCode),
    /// Done, but the store cannot write: a restart may undo it.
    Unkept,
    /// A page of clients.
    Clients(Page<ClientRow, u32>),
    /// One client.
    Client(Option<Box<ClientRow>>),
    /// A page of sessions.
    Sessions(Page<SessionRow, u32>),
    /// One session.
    Session(Option<Box<SessionRow>>),
    /// A page of routes.
    Routes(Page<RouteRow, RouteCursor>),
    /// One route.
    Route(Option<Box<RouteRow>>),
    /// A page of subscriptions.
    Subscriptions(Page<SubscriptionRow, SubscriptionCursor>),
    /// A page of one session's subscriptions; the cursor is the next offset.
    ClientSubscriptions(Page<SubscriptionRow, u32>),
    /// The message was routed.
    Published {
        /// Local subscriptions that matched, plus other shards it was sent to.
        destinations: u32,
    },
    /// Bans in no order.
    Bans(Vec<Ban>),
    /// One row for each listener.
    Listeners(Vec<ListenerRow>),
    /// A page of delayed messages.
    Delayed(Page<DelayedRow, DelayedId>),
    /// One delayed message.
    DelayedMessage(Option<Box<DelayedRow>>),
    /// A page of retained messages.
    Retained(Page<RetainedRow, String>),
    /// A part of them was looked at.
    RetainedPart(RetainedPart),
    /// Buckets in rising order.
    TickHistogram(Vec<TickBucket>),
    /// The shard has shut down.
    ShutDown {
        /// Connections that were still open when the time was up.
        left: u32,
    },
}

/// Rows of a listing and where it goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<R, C> {
    /// The rows; may be empty although there is more.
    pub rows: Vec<R>,
    /// Where the next page starts; none: this was the last one.
    pub next: Option<C>,
}

/// A connected client.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientRow {
    /// Client identifier.
    pub client_id: String,
    /// User name it gave.
    pub username: Option<String>,
    /// Clean Session (3.x) or Clean Start (5.0) of its CONNECT.
    pub clean_start: bool,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// Keep alive in force, in seconds; 0: none.
    pub keepalive_s: u16,
    /// Its address.
    pub peer: SocketAddr,
    /// The listener it came by.
    pub listener: ListenerId,
    /// When its CONNECT was accepted.
    pub connected_at_unix_s: u64,
    /// Whether it said it is a bridge.
    pub is_bridge: bool,
    /// Whether it has a will.
    pub has_will: bool,
    /// Bytes that wait in its outbox.
    pub outbox_bytes: u64,
}

/// A session, connected or not.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// Client identifier.
    pub client_id: String,
    /// Whether its client is connected.
    pub connected: bool,
    /// Whether it ends with its connection.
    pub clean_start: bool,
    /// How long it lives after its connection, in seconds; `u32::MAX`: for ever.
    pub expiry_interval_s: u32,
    /// When it will end, if its client is away and it does not live for ever.
    pub expires_at_unix_s: Option<u64>,
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
    /// Messages dropped because they could not wait.
    pub mqueue_dropped: u64,
    /// `QoS` 2 messages received whose PUBREL has not come.
    pub awaiting_rel: u32,
    /// Messages delivered.
    pub deliver_msg: u64,
    /// Messages that were put in the queue.
    pub enqueue_msg: u64,
    /// When it was made.
    pub created_at_unix_s: u64,
}

/// A filter with a subscriber.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRow {
    /// The filter with its prefix.
    pub filter: String,
    /// The shards of this node that have a subscriber, as the answering shard's replica sees it. In a listing the
    /// lowest of them tells the route, so a filter is listed once.
    pub shards: ShardSet,
    /// Subscribers on the answering shard.
    pub subscribers: u32,
}

/// A subscription of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionRow {
    /// The client the session belongs to.
    pub client_id: String,
    /// The filter with its prefix.
    pub filter: String,
    /// Maximum `QoS`.
    pub qos: QoS,
    /// Messages the client published itself are not sent to it.
    pub no_local: bool,
    /// The retain flag is passed on as published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
    /// Subscription identifier.
    pub subscription_id: Option<u32>,
}

/// A message that waits to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct DelayedRow {
    /// Its name, and when it is due.
    pub id: DelayedId,
    /// The topic it will be published to.
    pub topic: String,
    /// Its `QoS`.
    pub qos: QoS,
    /// Its RETAIN.
    pub retain: bool,
    /// When it was received.
    pub published_unix_ms: u64,
    /// Bytes of the payload.
    pub payload_len: u64,
    /// The payload, where one message was asked for.
    pub payload: Option<Vec<u8>>,
}

/// A retained message.
#[derive(Debug, Clone, PartialEq)]
pub struct RetainedRow {
    /// Its topic.
    pub topic: String,
    /// Its `QoS`.
    pub qos: QoS,
    /// When it was received.
    pub published_unix_ms: u64,
    /// Bytes of the payload.
    pub payload_len: u64,
}

/// What was found, or removed, in a part of a shard's retained messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedPart {
    /// How many messages.
    pub messages: u64,
    /// Bytes of their topics, properties and payloads.
    pub bytes: u64,
    /// Where the next part begins; none: this was the last one.
    pub next: Option<String>,
}

/// What one shard knows of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerRow {
    /// Which.
    pub listener: ListenerId,
    /// Connections that came by it and are open.
    pub current_clients: u32,
    /// How many connections ended for which reason, in order of the name; no zero counts.
    pub shutdown_count: Vec<(&'static str, u64)>,
}

/// Ticks that took at most so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickBucket {
    /// Upper bound in microseconds, inclusive; `u64::MAX`: the rest.
    pub upper_us: u64,
    /// Number of ticks.
    pub count: u64,
}
