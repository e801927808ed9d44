//! The steady `QoS` 0 path allocates nothing: receive, decode, access check, match, encode, flush, with the reactor's
//! part played here. On one shard, and from one shard to another by the mesh.

use std::sync::Arc;

use config::Settings;
use metrics::ShardMetrics;
use ring::{Mesh, ShardId, default_capacity};
use ringmq_tests::packet::{Connect, Publish, Subscribe, Version};
use session::acl::{Acl, AclDecision};
use shard::{
    ConnectionId, DelayedPlaces, Effect, ListenerClients, ListenerId, Now, Outgoing, OverloadBoard,
    Shard, ShardSetup,
};

struct Desk {
    shards: Vec<Shard>,
    effects: Vec<Effect>,
    sent: Vec<(ConnectionId, Outgoing)>,
    bytes_sent: usize,
    now: Now,
}

impl Desk {
    fn new(count: usize) -> Self {
        let settings = Arc::new(Settings::default());
        let listeners: Arc<[ListenerClients]> =
            settings.listeners.iter().map(|one| ListenerClients::new(&one.options)).collect();
        let acl = Arc::new(Acl::builtin(AclDecision::Allow));
        let now = Now { mono_ms: 1000, unix_ms: 1_700_000_000_000 };
        let delayed = Arc::new(DelayedPlaces::new(settings.delayed.max_messages));
        let capacity = default_capacity(count);
        let overload = Arc::new(OverloadBoard::new(count));
        let mesh = Mesh::build(count, capacity.data, capacity.control);
        let shards = mesh.into_iter().enumerate().map(|(n, mesh)| {
            Shard::new(ShardSetup {
                id: ShardId::new(n),
                settings: settings.clone(),
                store: None,
                mesh,
                metrics: Arc::new(ShardMetrics::default()),
                acl: acl.clone(),
                banned: Arc::default(),
                listeners: listeners.clone(),
                delayed: delayed.clone(),
                overload: overload.clone(),
                replies: crossbeam_channel::bounded(64).0,
                seed: 7,
                now,
            })
        });
        let shards = shards.collect();
        Self { shards, effects: Vec::new(), sent: Vec::new(), bytes_sent: 0, now }
    }

    /// A tick of one shard: what came, then everything it asks for, as a reactor would do it.
    fn tick(&mut self, shard: usize, input: Option<(ConnectionId, &[u8])>) {
        let Desk { shards, effects, sent, bytes_sent, now } = self;
        let shard = &mut shards[shard];
        now.mono_ms += 1;
        shard.begin_tick(*now);
        if let Some((id, bytes)) = input {
            shard.received(id, bytes);
        }
        shard.run_inbox();
        shard.run_timers();
        shard.finish_tick();
        shard.drain_effects(effects);
        for effect in effects.drain(..) {
            if let Effect::Flush(id) = effect
                && let Some(outgoing) = shard.take_outgoing(id)
            {
                sent.push((id, outgoing));
            }
        }
        for (id, outgoing) in sent.drain(..) {
            *bytes_sent += outgoing.len();
            shard.sent(id, outgoing, Ok(()));
        }
    }

    /// Connects a client whose home is `shard`.
    fn connect(&mut self, shard: usize, index: u32, name: &str) -> ConnectionId {
        let count = self.shards.len();
        let at_home =
            |id: &String| router::home(router::slot(id.as_bytes()), count) == ShardId::new(shard);
        let client_id = (0..).map(|n| format!("{name}-{n}")).find(at_home).expect("one of them");
        let id = self.shards[shard].accepted(index, ListenerId(0), ([127, 0, 0, 1], 9).into());
        let connect = Connect::new(Version::V311, &client_id).encode();
        self.tick(shard, Some((id, &connect)));
        id
    }
}

fn allocations_per_10_000(shards: usize, subscriber: usize) -> (u64, usize) {
    let mut desk = Desk::new(shards);
    let publisher_id = desk.connect(0, 0, "publisher");
    let subscriber_id = desk.connect(subscriber, 1, "subscriber");
    let subscribe = Subscribe::new(1).filter("sensor/+/temperature", 0).encode(Version::V311);
    desk.tick(subscriber, Some((subscriber_id, &subscribe)));
    for _ in 0..4 {
        (0..shards).for_each(|shard| desk.tick(shard, None));
    }
    let publish = Publish::new("sensor/1/temperature", [b'x'; 64]).encode(Version::V311);
    let mut round = |count: usize| {
        let before = desk.bytes_sent;
        for _ in 0..count {
            desk.tick(0, Some((publisher_id, &publish)));
            if subscriber != 0 {
                desk.tick(subscriber, None);
            }
        }
        desk.bytes_sent - before
    };
    round(2000);
    let mut bytes = 0;
    let counted = allocation_counter::measure(|| bytes = round(10_000));
    assert_eq!(bytes, 10_000 * publish.len(), "every message was delivered");
    (counted.count_total, bytes)
}

#[test]
fn a_steady_qos0_flow_within_a_shard_allocates_nothing() {
    assert_eq!(allocations_per_10_000(1, 0).0, 0);
}

#[test]
fn a_steady_qos0_flow_between_shards_allocates_nothing() {
    assert_eq!(allocations_per_10_000(2, 1).0, 0);
}
