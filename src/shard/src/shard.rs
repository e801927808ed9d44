//! The shard: its state, its tick, and what its reactor asks of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use config::Settings;
use metrics::ShardMetrics;
use mqtt::DecodeLimits;
use ring::{ShardId, ShardSet};
use router::{Matches, RetainedIndex, RouteDelta, Router, SharedStrategy, Subscriber};
use session::acl::Acl;
use session::{DelayedMessages, Message, MessageIds};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::away::Away;
use crate::banned::{BannedList, Flapping};
use crate::barrier::Barrier;
use crate::clients::Clients;
use crate::command::{Command, Reply};
use crate::connection::Connections;
use crate::control::Eviction;
use crate::delayed::DelayedPlaces;
use crate::disc_only::DiscOnly;
use crate::effect::{ConnectionId, Effect, Now, Outgoing};
use crate::handover::HandOvers;
use crate::journal::{Journal, StoreMode};
use crate::listeners::Listeners;
use crate::mesh::{Mesh, MeshEndpoint};
use crate::names::ConnectNames;
use crate::outbox::Outboxes;
use crate::overload::{Guard, OverloadBoard};
use crate::profile::Profiles;
use crate::random::SplitMix64;
use crate::recovery::Recovery;
use crate::retained::Replays;
use crate::rewrite::Rewrites;
use crate::sessions::Sessions;
use crate::shutdown::Shutdown;
use crate::stash::Stashes;
use crate::storage::{RetainedRead, StoreReply, StoreRequest};
use crate::subscribe::PendingSubacks;
use crate::turns::Turns;
use crate::wheel::Wheel;

/// While a batch waits for room in a full ring the shard looks again after this time.
const BLOCKED_RETRY_MS: u64 = 1;

/// What a shard is made from.
#[derive(Debug)]
pub struct ShardSetup {
    /// This shard.
    pub id: ShardId,
    /// The settings of the node.
    pub settings: Arc<Settings>,
    /// This shard's end of the mesh.
    pub mesh: MeshEndpoint,
    /// Its counters; the control plane reads them.
    pub metrics: Arc<ShardMetrics>,
    /// The rules of access.
    pub acl: Arc<Acl>,
    /// Who may not connect.
    pub banned: Arc<BannedList>,
    /// Clients per listener, of all shards.
    pub listeners: Arc<[crate::ListenerClients]>,
    /// How many delayed messages there may be and are, of all shards.
    pub delayed: Arc<DelayedPlaces>,
    /// What shards and control plane tell each other of overload.
    pub overload: Arc<OverloadBoard>,
    /// The store; `None` for a broker that keeps nothing.
    pub store: Option<StoreLink>,
    /// Where replies to commands go; never full, see `command`.
    pub replies: crossbeam_channel::Sender<(u64, Reply)>,
    /// Seeds the hashes of the process and what is random in this shard. The same for all shards of a node.
    pub seed: u64,
    /// The time of the start.
    pub now: Now,
}

/// A shard's way to the store and back.
#[derive(Debug)]
pub struct StoreLink {
    /// Takes the shard's changes; has room for [`crate::BATCHES_MAX`] batches of each shard.
    pub requests: crossbeam_channel::Sender<StoreRequest>,
    /// The store's answers. Who puts one there rings the shard's doorbell.
    pub replies: crossbeam_channel::Receiver<StoreReply>,
    /// Takes questions for retained messages that are on disk only; has room for [`crate::READS_MAX`] of each shard. `None` where
    /// shards hold them all.
    pub reads: Option<crossbeam_channel::Sender<RetainedRead>>,
    /// When changes are handed over.
    pub mode: StoreMode,
}

/// One core's broker.
pub struct Shard {
    pub(crate) id: ShardId,
    pub(crate) shards: usize,
    pub(crate) settings: Rc<Settings>,
    /// What holds for the clients of each listener.
    pub(crate) profiles: Profiles,
    pub(crate) limits: DecodeLimits,
    pub(crate) clients: Clients,
    pub(crate) router: Router,
    pub(crate) retained: RetainedIndex<Arc<Message>>,
    /// What there is instead where they are on disk only.
    pub(crate) disc_only: Option<DiscOnly>,
    pub(crate) delayed: DelayedMessages,
    pub(crate) delayed_places: Arc<DelayedPlaces>,
    pub(crate) rewrites: Rewrites,
    pub(crate) mesh: Mesh,
    pub(crate) acl: Arc<Acl>,
    pub(crate) banned: Arc<BannedList>,
    pub(crate) flapping: Flapping,
    pub(crate) listeners: Listeners,
    pub(crate) handovers: HandOvers,
    /// Of connections whose CONNECT has not come, those that have a certificate which names them.
    pub(crate) names: HashMap<u32, Box<ConnectNames>>,
    pub(crate) random: SplitMix64,
    pub(crate) seed: u64,
    /// Client ids assigned so far; begins at a number nobody knows.
    pub(crate) assigned: u64,
    /// The shared groups of sessions that ended while their messages were in the store only: they may go to other members.
    pub(crate) groups_of_ended: HashMap<u64, Vec<crate::leave::GroupName>>,
    pub(crate) shared_strategy: SharedStrategy,
    pub(crate) replies: crossbeam_channel::Sender<(u64, Reply)>,
    /// Route changes of this tick, for the other shards.
    pub(crate) deltas: Vec<RouteDelta>,
    pub(crate) subacks: PendingSubacks,
    pub(crate) replays: Replays,
    pub(crate) recovery: Recovery,
    pub(crate) store_replies: Option<crossbeam_channel::Receiver<StoreReply>>,
    /// Connections that wait for room in the mesh.
    pub(crate) mesh_paused: Vec<ConnectionId>,
    /// Connections that have more work than ticks have time for.
    pub(crate) turns: Turns,
    /// Connections that wait for the store to take more.
    pub(crate) store_paused: Vec<ConnectionId>,
    /// Connections of which the stash may be handled again at the end of the tick.
    pub(crate) resumable: VecDeque<ConnectionId>,
    /// Sessions of which the timer has fired.
    pub(crate) due_sessions: VecDeque<u32>,
    /// Clients that rest for their rate: until when, and the connection.
    pub(crate) rests: BTreeSet<(u64, u32)>,
    /// A producer still has batches for us after our share of a tick.
    pub(crate) inbox_left: bool,
    /// When the sends and stashes were last looked at for being overdue.
    pub(crate) swept_ms: u64,
    pub(crate) evictions: Vec<Eviction>,
    /// Answers to commands that wait until a batch is committed: its number, and who asked.
    pub(crate) unanswered: VecDeque<(u64, u64, Reply)>,
    pub(crate) shutdown: Option<Shutdown>,
    /// Other shards that have said that nothing more comes from them.
    pub(crate) ended: ShardSet,
    pub(crate) tick_histogram: metrics::Histogram,
    pub(crate) guard: Guard,
    pub(crate) overload_board: Arc<OverloadBoard>,
    /// Used again from message to message.
    pub(crate) scratch: Scratch,
}

/// Buffers that are used again, so that a steady load allocates nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    pub matches: Matches,
    pub overlapping: Vec<(Subscriber, u32)>,
    pub subscription_ids: Vec<u32>,
    pub forwarded: Vec<u8>,
    pub topic: String,
    pub due: Vec<u32>,
    pub data: crate::mesh::DataBatch,
    pub control: crate::mesh::ControlBatch,
}

impl Shard {
    /// A shard without clients.
    #[must_use]
    pub fn new(setup: ShardSetup) -> Self {
        let ShardSetup {
            id,
            settings,
            mesh,
            metrics,
            acl,
            banned,
            listeners,
            delayed,
            overload,
            store,
            replies,
            seed,
            now,
        } = setup;
        let settings = Rc::new(Settings::clone(&settings));
        let shards = mesh.shards();
        let limits = DecodeLimits {
            topic_levels_max: settings.mqtt.max_topic_levels,
            topic_len_max: settings.mqtt.max_topic_len,
            user_properties_max: settings.mqtt.max_user_properties,
            filters_per_packet_max: settings.mqtt.max_filters_per_packet,
        };
        let shard = u16::try_from(id.index()).expect("at most 256 shards");
        let mut random = SplitMix64::new(xxh3_64_with_seed(&shard.to_le_bytes(), seed));
        let source = u32::try_from(random.next() & 0x00ff_ffff).expect("24 bits") << 8;
        let has_store = store.is_some();
        let (journal, store_replies, reads) = match store {
            Some(StoreLink { requests, replies, reads, mode }) => {
                (Some(Journal::new(id, shards, requests, mode)), Some(replies), reads)
            }
            None => (None, None, None),
        };
        let counts_all = journal.as_ref().is_some_and(Journal::is_always);
        let clients = Clients {
            shard,
            now,
            settings: settings.clone(),
            metrics,
            connections: Connections::default(),
            sessions: Sessions::new(seed),
            outboxes: Outboxes::default(),
            stashes: Stashes::default(),
            connection_timers: Wheel::new(now.mono_ms),
            session_timers: Wheel::new(now.mono_ms),
            effects: Vec::new(),
            message_ids: MessageIds::new(shard, source | u32::from(shard & 0xff)),
            work: 0,
            qos0_bytes_max: settings.conn.pending_bytes_max,
            journal,
            barrier: Barrier::new(shards, counts_all),
            away: Away::default(),
            is_recovering: has_store,
        };
        Self {
            id,
            shards,
            profiles: Profiles::new(&settings),
            limits,
            clients,
            router: Router::new(id, shards, seed),
            retained: RetainedIndex::new(),
            disc_only: reads.map(|reads| DiscOnly::new(id, reads, seed)),
            delayed: DelayedMessages::default(),
            delayed_places: delayed,
            rewrites: Rewrites::new(&settings.rewrite),
            mesh: Mesh::new(mesh, settings.mesh.batch_bytes_max),
            acl,
            banned,
            flapping: Flapping::new(settings.flapping.clone()),
            listeners: Listeners::new(listeners),
            handovers: HandOvers::default(),
            names: HashMap::new(),
            assigned: random.next() >> 8,
            groups_of_ended: HashMap::new(),
            random,
            seed,
            shared_strategy: router_strategy(settings.mqtt.shared_strategy),
            replies,
            deltas: Vec::new(),
            subacks: PendingSubacks::new(shards),
            replays: Replays::default(),
            recovery: Recovery::new(has_store),
            store_replies,
            mesh_paused: Vec::new(),
            turns: Turns::new(),
            store_paused: Vec::new(),
            resumable: VecDeque::new(),
            due_sessions: VecDeque::new(),
            rests: BTreeSet::new(),
            inbox_left: false,
            swept_ms: now.mono_ms,
            evictions: Vec::new(),
            unanswered: VecDeque::new(),
            shutdown: None,
            ended: ShardSet::EMPTY,
            tick_histogram: metrics::Histogram::new(),
            guard: Guard::new(&settings.overload, now.mono_ms),
            overload_board: overload,
            scratch: Scratch::default(),
            settings,
        }
    }

    /// This shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Starts a tick: everything until the next one happens at `now`.
    pub fn begin_tick(&mut self, now: Now) {
        self.clients.now = now;
        self.clients.work = 0;
        self.watch_overload();
    }

    /// Pushes the batches of this tick to the other shards, and goes on with connections that can go on.
    pub fn finish_tick(&mut self) {
        self.announce_routes();
        self.mesh.push_all();
        self.resume_paused();
        if !self.turns.is_empty() {
            self.run_turns();
        }
        // What the resumed connections sent leaves in this tick too.
        self.announce_routes();
        self.continue_recovery();
        self.run_disc_only();
        self.finish_durable();
        self.mesh.push_all();
        for to in self.mesh.endpoint.take_doorbells().iter() {
            self.clients.effects.push(Effect::Doorbell(to));
        }
        self.count_mesh();
        self.continue_evictions();
        self.continue_shutdown();
    }

    fn count_mesh(&mut self) {
        let metrics = &self.clients.metrics;
        metrics.add(metrics::Counter::MeshBatchesSent, std::mem::take(&mut self.mesh.pushes));
        metrics.add(metrics::Counter::MeshFull, std::mem::take(&mut self.mesh.pushes_full));
    }

    /// Hands out the effects of this tick, in order; `effects` must be empty and its room is kept.
    pub fn drain_effects(&mut self, effects: &mut Vec<Effect>) {
        assert!(effects.is_empty(), "the effects of the tick before were not handled");
        std::mem::swap(effects, &mut self.clients.effects);
    }

    /// Takes what a connection has to send, unless a send of it is in flight.
    pub fn take_outgoing(&mut self, id: ConnectionId) -> Option<Outgoing> {
        self.clients.take_outgoing(id)
    }

    /// When the shard wants its next tick at the latest, on the monotonic clock.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let now = self.clients.now.mono_ms;
        // A slice of them per tick, without waiting.
        let evicts = (!self.evictions.is_empty()).then_some(now);
        let blocked = self.mesh.has_blocked().then_some(now + BLOCKED_RETRY_MS);
        [
            blocked,
            evicts,
            self.clients.connection_timers.next_ms(),
            self.next_session_timer_ms(),
            self.next_recovery_ms(),
            self.rests.first().map(|&(until_ms, _)| until_ms),
            self.next_sweep_ms(),
            self.replays.next_ms(),
            self.next_delayed_ms(),
            self.guard.next_look_ms(),
            self.durable_deadline_ms(),
            self.clients.barrier.has_current().then_some(now),
            self.shutdown_deadline_ms(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Says that the shard is about to wait. False: there is work, do not wait.
    pub fn prepare_park(&mut self) -> bool {
        !self.inbox_left
            && self.resumable.is_empty()
            && self.turns.is_empty()
            && self.clients.effects.is_empty()
            && !self.clients.barrier.has_current()
            && if self.is_journal_full() {
                // The store wakes it when it has committed what waits.
                self.mesh.endpoint.prepare_park_without_data()
            } else {
                self.mesh.endpoint.prepare_park()
            }
            // Only now: who puts an answer there after this look sees the shard parked and rings.
            && !self.has_store_replies()
    }

    /// Says that the shard waits no more.
    pub fn unpark(&mut self) {
        self.mesh.endpoint.unpark();
    }

    /// Whether the control plane has rung since the last look.
    pub fn take_foreign(&mut self) -> bool {
        self.mesh.endpoint.take_foreign()
    }

    /// For the control plane, to ring the doorbell of a waiting shard.
    #[must_use]
    pub fn waker(&self) -> ring::Waker {
        self.mesh.endpoint.waker()
    }

    /// The counters of this shard.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ShardMetrics> {
        &self.clients.metrics
    }

    /// All other shards.
    pub(crate) fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.id;
        (0..self.shards).map(ShardId::new).filter(move |&shard| shard != own)
    }

    /// Distinct routes of the whole node, as this shard's replica knows them.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.router.route_count()
    }

    /// Answers a command.
    pub(crate) fn reply(&self, token: u64, reply: Reply) {
        let sent = self.replies.try_send((token, reply));
        // A node that is gone wants no answer; a full channel would break the bound the node keeps.
        assert!(
            !matches!(sent, Err(crossbeam_channel::TrySendError::Full(_))),
            "more commands outstanding than the node may have"
        );
    }

    /// Answers a command when what it has changed is kept; at once, with [`Reply::Unkept`], if the store cannot write.
    pub(crate) fn reply_when_kept(&mut self, token: u64, reply: Reply) {
        match &mut self.clients.journal {
            Some(journal) if journal.is_failing => self.reply(token, Reply::Unkept),
            Some(journal) => {
                let sequence = journal.hurry();
                self.unanswered.push_back((sequence, token, reply));
                self.answer_kept();
            }
            None => self.reply(token, reply),
        }
    }

    /// Answers the commands whose changes are kept, or cannot be.
    pub(crate) fn answer_kept(&mut self) {
        let Some(journal) = &self.clients.journal else { return };
        let (committed, is_failing) = (journal.committed_sequence(), journal.is_failing);
        while let Some((sequence, ..)) = self.unanswered.front()
            && (is_failing || *sequence <= committed)
            && let Some((_, token, reply)) = self.unanswered.pop_front()
        {
            self.reply(token, if is_failing { Reply::Unkept } else { reply });
        }
    }

    /// Handles a command of the control plane.
    pub fn command(&mut self, command: Command) {
        self.perform(command.token, command.request);
    }
}

fn router_strategy(strategy: config::SharedStrategy) -> SharedStrategy {
    match strategy {
        config::SharedStrategy::Random => SharedStrategy::Random,
        config::SharedStrategy::RoundRobin => SharedStrategy::RoundRobin,
        config::SharedStrategy::Sticky => SharedStrategy::Sticky,
        config::SharedStrategy::HashClientId => SharedStrategy::HashClientId,
        config::SharedStrategy::HashTopic => SharedStrategy::HashTopic,
        config::SharedStrategy::Local => SharedStrategy::Local,
    }
}
