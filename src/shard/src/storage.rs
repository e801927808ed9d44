//! What a shard asks of the store, and what the store answers: the border between a core's broker and durable state.
//!
//! A shard gathers [`StoreOp`]s while it works and hands them over as one [`StoreBatch`]. Batches of a shard are applied in
//! their order, each whole or not at all. The store answers with [`StoreReply`]s: first what it has of the shard's slots, then
//! how far it has committed. Everything is keyed by slot, so that another number of shards finds its data.
//!
//! What a later op of a batch makes void is mostly taken out before it is handed over; where it is not, the order counts.

use std::sync::Arc;

use mqtt::{PacketId, QoS};
use ring::ShardId;
use session::{Message, MessageId};
pub use session::{StoredCounts, StoredPlace};

use crate::banned::{Ban, BannedList, BannedWho};

/// Names a stored session: the slot of its client id and a number that no session of this slot had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredSession {
    /// The slot of the client id, 0 to 4095.
    pub slot: u16,
    /// Increases from session to session.
    pub number: u64,
}

/// What the client has to say next about a stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredState {
    /// It waits in the queue.
    Queued,
    /// It was sent with this id; PUBACK (`QoS` 1) or PUBREC (`QoS` 2) has not come.
    Sent(PacketId),
    /// PUBREC has come, PUBCOMP not; the message itself is no longer needed, only who it was: it may be published again after
    /// a crash.
    Released(PacketId, MessageId),
}

/// A message in a session's stored queue.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// What is awaited.
    pub state: StoredState,
    /// The message; of an entry that is [`StoredState::Released`] there is none.
    pub message: Option<Arc<Message>>,
    /// The `QoS` it is delivered with.
    pub qos: QoS,
    /// The RETAIN flag it is delivered with.
    pub retain: bool,
    /// Its priority in the queue.
    pub priority: u8,
    /// Identifiers of the subscriptions that match it.
    pub subscription_ids: Option<Box<[u32]>>,
    /// Whether it came by a shared group: another member may get it.
    pub by_group: bool,
}

/// What is known of a place when an entry is put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutAs {
    /// Nothing is stored there. If the message is kept once for all ([`StoredPlace::is_shared`]) this is one more use of it.
    New,
    /// Nothing is stored there, and the message may have come before, in another place: if any entry of the session has this
    /// [`MessageId`] nothing is put. For messages that are published again after a crash.
    NewUnlessKnown,
    /// It is stored there; its state has changed.
    Changed,
}

/// A will that is kept with its session.
#[derive(Debug, Clone)]
pub struct StoredWill {
    /// The message.
    pub message: Arc<Message>,
    /// Message Expiry Interval in seconds.
    pub expiry_interval_s: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
}

/// What is kept of a session beside its subscriptions and messages.
#[derive(Debug, Clone)]
pub struct SessionHead {
    /// The client id.
    pub client_id: Box<str>,
    /// When it was created, in seconds since the Unix epoch.
    pub created_unix_s: u32,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_interval_s: u32,
    /// When its connection ended, in milliseconds since the Unix epoch; `None` while it is connected.
    pub offline_since_unix_ms: Option<u64>,
    /// Its will, if it is still to be published.
    pub will: Option<StoredWill>,
}

/// A subscription that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSubscription {
    /// The filter as the client named it, with `$share/...` and mountpoint.
    pub filter: Box<str>,
    /// The options in the bits of the specification (MQTT-3.8.3.1).
    pub options: u8,
    /// The subscription identifier; 0 for none.
    pub id: u32,
}

/// A message that is to be published later (SEED-PUB-16); or one on its way to other shards: if the broker ends before they have
/// it, it is published again at the next start. A delayed message may itself be on its way, to the shard of its topic; it is told
/// by its slot.
#[derive(Debug, Clone)]
pub struct StoredDelayed {
    /// The slot of its topic; of one that was on its way, that of its publisher's client id, or another of its shard.
    pub slot: u16,
    /// Tells apart those of one slot.
    pub number: u64,
    /// When it is due, in milliseconds since the Unix epoch; [`ON_ITS_WAY`] or [`PASSED_ON`] for one that was on its way.
    pub due_unix_ms: u64,
    /// The message.
    pub message: Arc<Message>,
}

/// Due at once: a message on its way from its publisher's shard to others.
pub const ON_ITS_WAY: u64 = 0;
/// Due at once: a message of a shared group that is passed on, by a shard to another one or from a member that is gone. Everybody
/// else gets it from its publisher's shard.
pub const PASSED_ON: u64 = 1;

/// One change.
#[derive(Debug, Clone)]
pub enum StoreOp {
    /// A session is new, or its head has changed.
    PutSession {
        /// Which.
        session: StoredSession,
        /// Its head.
        head: Box<SessionHead>,
    },
    /// A session has ended: everything of it goes.
    RemoveSession {
        /// Which.
        session: StoredSession,
        /// Its messages were here only: [`StoreReply::Ended`] is to say which are lost with it.
        tell: bool,
    },
    /// A subscription is new or has changed.
    PutSubscription {
        /// Whose.
        session: StoredSession,
        /// It.
        subscription: StoredSubscription,
    },
    /// A subscription is gone.
    RemoveSubscription {
        /// Whose.
        session: StoredSession,
        /// Its filter.
        filter: Box<str>,
    },
    /// A message is in a session's queue, or its state has changed.
    PutEntry {
        /// Whose.
        session: StoredSession,
        /// Where.
        place: StoredPlace,
        /// What is known of the place.
        put: PutAs,
        /// It.
        entry: StoredEntry,
    },
    /// A message is done.
    RemoveEntry {
        /// Whose.
        session: StoredSession,
        /// Where.
        place: StoredPlace,
    },
    /// A `QoS` 2 message was received; its PUBREL has not come.
    PutReceived {
        /// Whose.
        session: StoredSession,
        /// The id it came with.
        packet_id: PacketId,
    },
    /// Its PUBREL has come.
    RemoveReceived {
        /// Whose.
        session: StoredSession,
        /// The id.
        packet_id: PacketId,
    },
    /// The queue of a session that is not loaded is to hold so many messages at most that are not under way; the oldest go,
    /// `QoS` 0 first, lowest priority first, as in [`session::Mqueue`].
    Trim {
        /// Whose.
        session: StoredSession,
        /// How many stay.
        keep: u32,
    },
    /// A topic's retained message; one without payload says that there is none, and since when.
    PutRetained {
        /// It; it names its topic.
        message: Arc<Message>,
    },
    /// The same for a message that was on its way when the broker ended: not if the topic has one that is as new. Answered by
    /// [`StoreReply::RetainedIs`].
    RetainAgain {
        /// It.
        message: Arc<Message>,
    },
    /// A topic has none any more.
    RemoveRetained {
        /// The topic.
        topic: Box<str>,
    },
    /// A message is to be published later.
    PutDelayed(StoredDelayed),
    /// It was, or is not to be.
    RemoveDelayed {
        /// The slot of its topic.
        slot: u16,
        /// Its number.
        number: u64,
    },
    /// Somebody is banned, or the ban has changed.
    PutBan(Box<Ban>),
    /// It is over.
    RemoveBan(BannedWho),
}

/// What a shard hands over at once.
#[derive(Debug, Default)]
pub struct StoreBatch {
    /// 1 for the first batch of a shard, then one more each.
    pub sequence: u64,
    /// A number above all places, session and delayed numbers given out so far, so that none is given twice after a crash.
    pub numbers_below: u64,
    /// The changes, in order.
    pub ops: Vec<StoreOp>,
    /// Sessions whose messages are to be read when the changes are applied.
    pub loads: Vec<StoredSession>,
}

/// What comes to the store from all shards.
#[derive(Debug)]
pub struct StoreRequest {
    /// Who asks.
    pub shard: ShardId,
    /// What.
    pub batch: StoreBatch,
}

/// Whether a topic's retained message is to stay although `again`, which was on its way when the broker ended, comes now. Ids of one
/// maker tell it exactly, those of two by the clock of their shards.
#[must_use]
pub fn is_as_new(known: MessageId, again: MessageId) -> bool {
    if known.maker() == again.maker() { known >= again } else { known.unix_ms() >= again.unix_ms() }
}

/// Bytes of the longest topic that is retained on disk only: such topics are keys of the store.
pub const RETAINED_TOPIC_LEN_MAX: usize = 60_000;

/// Which retained messages are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetainedQuery {
    /// That of this topic.
    Topic(Box<str>),
    /// Those whose topic a filter with wildcards matches.
    Matching {
        /// The filter, without prefix.
        filter: Box<str>,
        /// The first topic to look at.
        from: Option<Box<str>>,
    },
    /// All.
    All {
        /// The first topic to look at.
        from: Option<Box<str>>,
    },
}

/// Asks for a page of the retained messages of a shard that are committed (`retainer.storage_type = disc_only`). Answered by
/// [`StoreReply::RetainedPage`]. It goes past the batches and does not wait for them.
#[derive(Debug)]
pub struct RetainedRead {
    /// Who asks.
    pub shard: ShardId,
    /// Comes back with the answer.
    pub id: u64,
    /// What.
    pub query: RetainedQuery,
}

/// A page of retained messages, in the order of their topics' bytes.
#[derive(Debug, Default)]
pub struct StoredRetainedPage {
    /// The messages; fewer than fit does not mean the end.
    pub messages: Vec<Arc<Message>>,
    /// The first topic that the next page looks at; `None` at the end.
    pub next: Option<Box<str>>,
}

/// What a shard is told of a retained message that stays on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRetainedRow {
    /// Its topic.
    pub topic: Box<str>,
    /// When it was published, in milliseconds since the Unix epoch.
    pub published_unix_ms: u64,
    /// When it is to be discarded, in milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// It has no payload: it only says that the topic has none.
    pub is_gone: bool,
}

/// A session as it is found at the start: without its messages, which are counted later.
#[derive(Debug, Clone)]
pub struct StoredSessionRow {
    /// Its name.
    pub session: StoredSession,
    /// Its head.
    pub head: SessionHead,
    /// Its subscriptions.
    pub subscriptions: Vec<StoredSubscription>,
}

/// How the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreHealth {
    /// It commits.
    Good,
    /// It cannot write: nothing is committed until it can. What was committed is safe.
    Failing,
}

/// What the store answers to a shard.
#[derive(Debug)]
pub enum StoreReply {
    /// Who is banned. Comes before all else.
    Bans(Arc<BannedList>),
    /// Some of the shard's sessions. Comes before [`StoreReply::Found`].
    Sessions(Vec<StoredSessionRow>),
    /// Some of the shard's retained messages. Comes before [`StoreReply::Found`].
    Retained(Vec<Arc<Message>>),
    /// Some of the shard's retained messages that stay on disk. Comes behind [`StoreReply::Found`]: nobody waits for it.
    RetainedRows(Vec<StoredRetainedRow>),
    /// Those were all.
    RetainedFound,
    /// What a topic has now: answers [`StoreOp::RetainAgain`], before its batch is said to be committed.
    RetainedIs(StoredRetainedRow),
    /// Answers a [`RetainedRead`]; has everything of batches that were said to be committed when it was asked.
    RetainedPage {
        /// The number of the question.
        id: u64,
        /// What is there.
        page: StoredRetainedPage,
    },
    /// Some of the shard's delayed messages.
    Delayed(Vec<StoredDelayed>),
    /// That was all there was at the start. Numbers of places, sessions and delayed messages go on from here.
    Found {
        /// Above all that were ever given out.
        numbers_from: u64,
    },
    /// What sessions had under way at the start, in the order of [`StoreReply::Sessions`]. Comes behind [`StoreReply::Found`]:
    /// nobody waits for it.
    Counts {
        /// Those that had something.
        rows: Vec<(StoredSession, StoredCounts)>,
        /// That was all: the rest had nothing.
        is_last: bool,
    },
    /// The shard's batches up to this one are committed as `store.sync` says: with `always`, they are on disk.
    Committed {
        /// The batch's number.
        sequence: u64,
    },
    /// A session's messages, in order of their places, and its received ids.
    Session {
        /// Whose.
        session: StoredSession,
        /// The messages.
        entries: Vec<(StoredPlace, StoredEntry)>,
        /// Ids of received `QoS` 2 messages.
        received: Vec<PacketId>,
    },
    /// A session's messages cannot be read: what is on disk of it stays there.
    Unread {
        /// Whose.
        session: StoredSession,
    },
    /// A queue was trimmed: so many messages are lost, by `QoS`.
    Trimmed {
        /// Whose.
        session: StoredSession,
        /// Of `QoS` 0, 1 and 2.
        lost: [u32; 3],
    },
    /// Messages of a session that ended while they were here only.
    Ended {
        /// Whose.
        session: StoredSession,
        /// So many are lost, of `QoS` 0, 1 and 2.
        lost: [u32; 3],
        /// These, of `QoS` 1, came by a shared group; another member may get them. Until they are removed they are kept as
        /// [`PASSED_ON`].
        by_group: Vec<StoredDelayed>,
        /// Whether nothing more of it follows.
        is_last: bool,
    },
    /// A message that was to be put unless it was known ([`PutAs::NewUnlessKnown`]) was.
    Known {
        /// Whose.
        session: StoredSession,
    },
    /// The store's health has changed.
    Health(StoreHealth),
}
