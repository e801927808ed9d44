//! What shards say to each other, and the batches on their way out.
//!
//! Messages to one shard are gathered during a tick and pushed as one batch. A full ring never blocks and never
//! loses a message: the batch stays here, the connections that add to it are paused, and the shard goes on
//! draining its own inbox, so that two full rings cannot lock each other.

use std::sync::Arc;

use mqtt::QoS;
use ring::{Endpoint, ShardId, ShardSet};
use router::RouteDelta;
use session::{Message, Origin, Publication};

use crate::effect::ListenerId;
use crate::names::ConnectNames;

/// Messages up to this size travel inside the batch; larger ones, and all of `QoS` 1 and 2, by reference.
const INLINE_MAX: usize = 4096;

/// Capacity above which an emptied batch gives its memory back instead of keeping it for the next round.
const KEEP_BYTES_MAX: usize = 64 * 1024;
const KEEP_ITEMS_MAX: usize = 2048;

/// The data lane: publications.
#[derive(Debug, Default)]
pub struct DataBatch {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// Bytes of the messages that travel by reference.
    shared_bytes: usize,
}

/// The control lane: routes, hand-overs, retained messages on request.
#[derive(Debug, Default)]
pub struct ControlBatch {
    items: Vec<ControlMessage>,
}

/// The endpoint of one shard.
pub type MeshEndpoint = Endpoint<DataBatch, ControlBatch>;

/// Whom a publication is for on the shard it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// The subscribers of matching filters.
    Subscribers,
    /// One member of a shared group.
    Group {
        group: &'a str,
        filter: &'a str,
        /// To how many more shards it may move in search of a connected member.
        hops: u16,
    },
    /// The retained index: the message becomes its topic's retained message. `is_again`: it was on its way when the broker ended.
    Retained { is_again: bool },
    /// Those that wait for their time, in milliseconds since the Unix epoch.
    Delayed { due_unix_ms: u64 },
}

#[derive(Debug, Clone, Copy)]
enum ItemTarget {
    Subscribers,
    /// Group and filter stand in the bytes from `start` on.
    Group {
        start: u32,
        group_len: u16,
        filter_len: u16,
        hops: u16,
    },
    Retained {
        is_again: bool,
    },
    Delayed {
        due_unix_ms: u64,
    },
}

#[derive(Debug)]
enum Body {
    Inline {
        start: u32,
        topic_len: u16,
        forwarded_len: u16,
        payload_len: u16,
        retain: bool,
        sys: bool,
        expires_unix_ms: Option<u64>,
        origin: Option<Origin>,
    },
    Shared(Arc<Message>),
}

#[derive(Debug)]
struct Item {
    target: ItemTarget,
    body: Body,
}

impl DataBatch {
    fn push(&mut self, target: Target<'_>, body: Body) {
        let target = match target {
            Target::Subscribers => ItemTarget::Subscribers,
            Target::Retained { is_again } => ItemTarget::Retained { is_again },
            Target::Delayed { due_unix_ms } => ItemTarget::Delayed { due_unix_ms },
            Target::Group { group, filter, hops } => {
                let start = self.position();
                self.bytes.extend_from_slice(group.as_bytes());
                self.bytes.extend_from_slice(filter.as_bytes());
                ItemTarget::Group {
                    start,
                    group_len: short(group),
                    filter_len: short(filter),
                    hops,
                }
            }
        };
        self.items.push(Item { target, body });
    }

    fn push_inline(&mut self, target: Target<'_>, publication: &Publication<'_>) {
        let start = self.position();
        self.bytes.extend_from_slice(publication.topic.as_bytes());
        self.bytes.extend_from_slice(publication.forwarded);
        self.bytes.extend_from_slice(publication.payload);
        let length = |n: usize| u16::try_from(n).expect("at most INLINE_MAX");
        let body = Body::Inline {
            start,
            topic_len: length(publication.topic.len()),
            forwarded_len: length(publication.forwarded.len()),
            payload_len: length(publication.payload.len()),
            retain: publication.retain,
            sys: publication.sys,
            expires_unix_ms: publication.expires_unix_ms,
            origin: publication.origin,
        };
        self.push(target, body);
    }

    fn position(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a batch is bounded far below 4 GB")
    }

    /// What the batch weighs against its limit.
    fn weight(&self) -> usize {
        self.bytes.len() + self.shared_bytes + self.items.len() * size_of::<Item>()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Each publication with its target, and the message it is part of where it is shared already.
    pub(crate) fn iter(
        &self,
    ) -> impl Iterator<Item = (Target<'_>, Publication<'_>, Option<&Arc<Message>>)> {
        self.items.iter().map(|item| {
            let target = match item.target {
                ItemTarget::Subscribers => Target::Subscribers,
                ItemTarget::Retained { is_again } => Target::Retained { is_again },
                ItemTarget::Delayed { due_unix_ms } => Target::Delayed { due_unix_ms },
                ItemTarget::Group { start, group_len, filter_len, hops } => {
                    let (group, rest) = self.text(start).split_at(usize::from(group_len));
                    let filter = text(&rest[..filter_len.into()]);
                    Target::Group { group: text(group), filter, hops }
                }
            };
            match &item.body {
                Body::Shared(message) => (target, message.publication(), Some(message)),
                inline => (target, self.inline(inline), None),
            }
        })
    }

    fn text(&self, start: u32) -> &[u8] {
        &self.bytes[start as usize..]
    }

    fn inline(&self, body: &Body) -> Publication<'_> {
        let &Body::Inline {
            start,
            topic_len,
            forwarded_len,
            payload_len,
            retain,
            sys,
            expires_unix_ms,
            origin,
        } = body
        else {
            unreachable!("the caller has looked")
        };
        let (topic, rest) = self.text(start).split_at(topic_len.into());
        let (forwarded, rest) = rest.split_at(forwarded_len.into());
        Publication {
            topic: text(topic),
            payload: &rest[..payload_len.into()],
            forwarded,
            qos: QoS::AtMostOnce,
            retain,
            sys,
            expires_unix_ms,
            origin,
        }
    }

    /// Empties the batch for its next round.
    pub fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        self.shared_bytes = 0;
        if self.bytes.capacity() > KEEP_BYTES_MAX {
            self.bytes = Vec::new();
        }
        if self.items.capacity() > KEEP_ITEMS_MAX {
            self.items = Vec::new();
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the bytes were copied from a str")
}

fn short(text: &str) -> u16 {
    u16::try_from(text.len()).expect("MQTT strings are at most 65,535 bytes")
}

impl ControlBatch {
    /// Takes the messages out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = ControlMessage> + '_ {
        self.items.drain(..)
    }

    pub(crate) fn shrink(&mut self) {
        if self.items.capacity() > KEEP_ITEMS_MAX {
            self.items = Vec::new();
        }
    }
}

/// Where a client's connection was, and what came on it, for the shard that is its home.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub token: u64,
    pub peer: std::net::SocketAddr,
    pub listener: ListenerId,
    /// What takes the place of the names in the CONNECT.
    pub names: Option<Box<ConnectNames>>,
    /// The CONNECT and everything behind it.
    pub bytes: Vec<u8>,
}

/// Asks for the retained messages that match a filter, or for the next of them.
#[derive(Debug)]
pub(crate) struct RetainedRequest {
    /// The replay on the asking shard.
    pub replay: u32,
    pub filter: Box<str>,
    /// The topic after which to go on.
    pub cursor: Option<Box<str>>,
}

/// Retained messages that match, and where to go on.
#[derive(Debug)]
pub(crate) struct RetainedPage {
    pub replay: u32,
    pub messages: Vec<Arc<Message>>,
    pub next: Option<Box<str>>,
}

/// What goes by the control lane.
#[derive(Debug)]
pub(crate) enum ControlMessage {
    /// Changes of the sender's routes; after them `sequence` is in force.
    Routes { deltas: Arc<[RouteDelta]>, sequence: u64 },
    /// The sender has applied the receiver's routes up to `sequence`.
    RoutesApplied { sequence: u64 },
    /// A connection whose home is the receiver; its descriptor comes by the ring.
    HandOver(Box<HandOver>),
    /// The descriptor of this hand-over could not be passed.
    HandOverFailed { token: u64 },
    /// So many publications of the receiver that are to be kept, of all there ever were, are kept by the sender.
    Kept { count: u64 },
    /// The sender has read its part of the store; its routes came before.
    StoreFound,
    /// What the sender published again at its start has arrived.
    StoreReady,
    /// The sender stops, and has sent everything.
    Ended,
    /// Asks for retained messages.
    RetainedRequest(RetainedRequest),
    /// Answers.
    RetainedPage(RetainedPage),
}

/// Batches on their way out to one shard.
#[derive(Debug, Default)]
struct Outgoing {
    data: DataBatch,
    control: ControlBatch,
}

/// Room in the batches to a shard after something was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Free,
    /// The batch is full and its ring too: whoever fills it has to wait.
    Full,
}

/// The mesh as one shard sees it: its endpoint and the batches it is filling.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub endpoint: MeshEndpoint,
    out: Vec<Outgoing>,
    /// Shards with something in `out`.
    waiting: ShardSet,
    /// Shards whose ring was full when their batch was to be pushed.
    full: ShardSet,
    batch_bytes_max: usize,
    /// Pushes that found a ring full, for the metrics.
    pub pushes_full: u64,
    /// Batches pushed, for the metrics.
    pub pushes: u64,
}

impl Mesh {
    pub fn new(endpoint: MeshEndpoint, batch_bytes_max: usize) -> Self {
        let out = (0..endpoint.shards()).map(|_| Outgoing::default()).collect();
        Self {
            endpoint,
            out,
            waiting: ShardSet::default(),
            full: ShardSet::default(),
            batch_bytes_max,
            pushes_full: 0,
            pushes: 0,
        }
    }

    /// Adds a publication of `QoS` 0 that is small enough to travel inside the batch; false if it is not.
    pub fn send_inline(
        &mut self,
        to: ShardId,
        target: Target<'_>,
        publication: &Publication<'_>,
    ) -> Option<Room> {
        let size =
            publication.topic.len() + publication.forwarded.len() + publication.payload.len();
        if publication.qos != QoS::AtMostOnce || size > INLINE_MAX {
            return None;
        }
        self.out[to.index()].data.push_inline(target, publication);
        Some(self.added(to))
    }

    /// Adds a message by reference.
    pub fn send_shared(&mut self, to: ShardId, target: Target<'_>, message: Arc<Message>) -> Room {
        let data = &mut self.out[to.index()].data;
        data.shared_bytes += message.len();
        data.push(target, Body::Shared(message));
        self.added(to)
    }

    /// Adds a control message.
    pub fn send_control(&mut self, to: ShardId, message: ControlMessage) {
        self.out[to.index()].control.items.push(message);
        self.waiting.insert(to);
    }

    fn added(&mut self, to: ShardId) -> Room {
        self.waiting.insert(to);
        if self.out[to.index()].data.weight() < self.batch_bytes_max {
            return Room::Free;
        }
        if !self.full.contains(to) {
            self.push(to);
        }
        if self.out[to.index()].data.is_empty() { Room::Free } else { Room::Full }
    }

    /// Whether the batch to a shard is at its limit and its ring full.
    pub fn is_full(&self, to: ShardId) -> bool {
        self.full.contains(to) && self.out[to.index()].data.weight() >= self.batch_bytes_max
    }

    /// Whether nothing is on its way out.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether anything waits for room in a ring.
    pub fn has_blocked(&self) -> bool {
        !self.full.is_empty()
    }

    /// Control messages that wait for room in a ring.
    pub fn control_waiting(&self) -> usize {
        self.full.iter().map(|to| self.out[to.index()].control.items.len()).sum()
    }

    /// Pushes everything that waits; what finds its ring full stays.
    pub fn push_all(&mut self) {
        for to in self.waiting.iter() {
            self.push(to);
        }
    }

    fn push(&mut self, to: ShardId) {
        let out = &mut self.out[to.index()];
        let mut full = false;
        if !out.control.items.is_empty() {
            full |= self.endpoint.push_control(to, &mut out.control).is_err();
        }
        if !out.data.is_empty() {
            full |= self.endpoint.push_data(to, &mut out.data).is_err();
        }
        self.pushes += u64::from(!full);
        if full {
            self.pushes_full += 1;
            self.full.insert(to);
        } else {
            assert!(
                out.data.is_empty() && out.control.items.is_empty(),
                "a ring gives back emptied batches"
            );
            self.full.remove(to);
            self.waiting.remove(to);
        }
    }
}
