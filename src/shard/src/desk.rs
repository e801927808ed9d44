//! A shard on its own for unit tests, with its settings as text.

use std::net::SocketAddr;
use std::sync::Arc;

use config::{LoadRequest, Settings};
use crossbeam_channel::{Receiver, Sender, bounded};
use metrics::ShardMetrics;
use ring::{Mesh, ShardId};
use session::acl::{Acl, AclDecision};

use crate::listeners::ListenerClients;
use crate::storage::{StoreOp, StoreReply, StoreRequest};
use crate::{
    ConnectionId, Effect, ListenerId, Now, Outgoing, OverloadBoard, Reply, Shard, ShardSetup,
    StoreLink, StoreMode,
};

/// One shard, a clock, and what came out of it.
pub(crate) struct Desk {
    pub shard: Shard,
    pub now: Now,
    pub effects: Vec<Effect>,
    pub board: Arc<OverloadBoard>,
    /// Answers to commands.
    pub replies: Receiver<(u64, Reply)>,
    next: u32,
}

impl Desk {
    /// With these settings.
    pub fn new(set: &[(&str, &str)]) -> Desk {
        Desk::with_store(set, None)
    }

    /// With these settings and a store, whose other ends come back.
    pub fn stored(
        set: &[(&str, &str)],
        mode: StoreMode,
    ) -> (Desk, Receiver<StoreRequest>, Sender<StoreReply>) {
        let (requests, requested) = bounded(8);
        let (answers, replies) = bounded(8);
        let desk = Desk::with_store(set, Some(StoreLink { requests, replies, reads: None, mode }));
        (desk, requested, answers)
    }

    /// With these settings and a store, which the test plays.
    pub fn with_store(set: &[(&str, &str)], store: Option<StoreLink>) -> Desk {
        let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let request = LoadRequest { set: set.collect(), ..LoadRequest::default() };
        let settings = Arc::new(Settings::load(&request).expect("settings").0);
        let listeners: Arc<[ListenerClients]> =
            settings.listeners.iter().map(|one| ListenerClients::new(&one.options)).collect();
        let places = Arc::new(crate::DelayedPlaces::new(settings.delayed.max_messages));
        let now = Now { mono_ms: 10_000, unix_ms: 1_700_000_000_000 };
        let mesh = Mesh::build(1, 4, 4).pop().expect("one");
        let board = Arc::new(OverloadBoard::new(1));
        let (replies, replied) = bounded(64);
        let shard = Shard::new(ShardSetup {
            id: ShardId::new(0),
            settings,
            mesh,
            metrics: Arc::new(ShardMetrics::default()),
            acl: Arc::new(Acl::parse("{allow, all}.", AclDecision::Allow).expect("rules")),
            banned: Arc::default(),
            listeners,
            overload: Arc::clone(&board),
            delayed: places,
            store,
            replies,
            seed: 7,
            now,
        });
        Desk { shard, now, effects: Vec::new(), board, replies: replied, next: 0 }
    }

    /// Accepts a connection.
    pub fn accept(&mut self, listener: u16, peer: &str) -> ConnectionId {
        self.next += 1;
        let peer: SocketAddr = peer.parse().expect("an address");
        self.shard.accepted(self.next - 1, ListenerId(listener), peer)
    }

    /// A tick `after_ms` later in which a connection may receive something; what was sent to whom.
    pub fn tick(
        &mut self,
        after_ms: u64,
        input: Option<(ConnectionId, &[u8])>,
    ) -> Vec<(ConnectionId, Vec<u8>)> {
        self.now.mono_ms += after_ms;
        self.now.unix_ms += after_ms;
        self.shard.begin_tick(self.now);
        if let Some((id, bytes)) = input {
            self.shard.received(id, bytes);
        }
        self.shard.run_inbox();
        self.shard.run_timers();
        self.shard.finish_tick();
        let mut effects = Vec::new();
        self.shard.drain_effects(&mut effects);
        let mut sent = Vec::new();
        for effect in &effects {
            if let Effect::Flush(id) = effect
                && let Some(outgoing) = self.shard.take_outgoing(*id)
            {
                let mut bytes = Vec::new();
                match &outgoing {
                    Outgoing::Bytes(all) => bytes.extend_from_slice(all),
                    Outgoing::Shared(all) => bytes.extend_from_slice(all),
                    Outgoing::Segments(all) => {
                        all.iter().for_each(|part| bytes.extend_from_slice(part));
                    }
                }
                self.shard.sent(*id, outgoing, Ok(()));
                sent.push((*id, bytes));
            }
        }
        self.effects = effects;
        sent
    }

    /// Whether the last tick asked for this.
    pub fn asked(&self, effect: Effect) -> bool {
        self.effects.contains(&effect)
    }

    /// How many connections of a listener ended for this reason.
    pub fn ended(&self, listener: u16, reason: &str) -> u64 {
        let rows = self.shard.listeners.rows();
        let counts = &rows[usize::from(listener)].shutdown_count;
        counts.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
    }
}

/// A CONNECT of MQTT 3.1.1 with a clean session and a keepalive in seconds.
pub(crate) fn connect(client_id: &str, keepalive_s: u8) -> Vec<u8> {
    let length = u8::try_from(client_id.len()).expect("short");
    let mut bytes =
        vec![0x10, 12 + length, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, keepalive_s, 0, length];
    bytes.extend_from_slice(client_id.as_bytes());
    bytes
}

/// A PUBLISH of `QoS` 0.
pub(crate) fn publish(topic: &str, payload: &str) -> Vec<u8> {
    let length = |n: usize| u8::try_from(n).expect("short");
    let mut bytes = vec![0x30, length(2 + topic.len() + payload.len()), 0, length(topic.len())];
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(payload.as_bytes());
    bytes
}

/// A desk of which the test plays the store.
pub(crate) fn stored(set: &[(&str, &str)]) -> (Desk, Receiver<StoreRequest>, Sender<StoreReply>) {
    let (requests, batches) = bounded(64);
    let (replies, answers) = bounded(64);
    let link = StoreLink { requests, replies: answers, reads: None, mode: StoreMode::Always };
    (Desk::with_store(set, Some(link)), batches, replies)
}

/// The changes handed over, which are committed then.
pub(crate) fn changes(
    batches: &Receiver<StoreRequest>,
    replies: &Sender<StoreReply>,
) -> Vec<StoreOp> {
    let mut ops = Vec::new();
    for request in batches.try_iter() {
        ops.extend(request.batch.ops);
        replies.send(StoreReply::Committed { sequence: request.batch.sequence }).unwrap();
    }
    ops
}
