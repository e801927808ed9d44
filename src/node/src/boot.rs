//! Boot order: access rules, kernel probe, listeners, mesh, shards. Whatever fails, nothing is left half-started.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::geteuid;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;

use config::{OverloadSettings, Settings};
use crossbeam_channel::{Receiver, Sender, bounded};
use displaydoc::Display;
use metrics::ShardMetrics;
use nix::time::{ClockId, clock_gettime};
use reactor::{
    AdmissionSettings, BoundListener, FURTHER_SHARE, Features, FilterTable, ListenerError,
    ProbeError, Reactor, ReactorSettings, ReactorSetup, RingTable, SUBMISSION_ENTRIES_LEAST,
    ShardThread, StartError, WakeHandle,
};
use ring::Mesh;
use session::acl::Acl;
use shard::{
    BannedList, Command, DelayedPlaces, ListenerClients, MeshEndpoint, Now, OverloadBoard, Reply,
    Shard, ShardSetup,
};
use store::StoreError;
use thiserror::Error;

use crate::acl::{self, AclFileError};
use crate::action::ListenerInfo;
use crate::alarms::Alarms;
use crate::banned::{BannedError, BannedStore};
use crate::core::ShardCore;
use crate::filters::{self, FilterSetupError};
use crate::links::{COMMANDS_MAX, Doorbell, Links, replies_max};
use crate::stats::Stats;
use crate::store::{NodeStore, StoreStart};

/// Completions of a tick may be many times the submissions: multishot operations make many.
const COMPLETIONS_PER_SUBMISSION: u32 = 8;

/// The kernel's bound of a completion queue.
const COMPLETION_ENTRIES_MAX: u32 = 65_536;

/// Locked memory of a shard beside its ring, at least: the executor's own rings.
const EXECUTOR_LOCKED_BYTES: u64 = 256 << 10;

/// Locked memory of an entry of a ring: itself and its completions.
const ENTRY_LOCKED_BYTES: u64 = 64 + 16 * COMPLETIONS_PER_SUBMISSION as u64;

/// Bounds of a ring's entries where the limit on locked memory decides.
const RING_ENTRIES_LEAST: u64 = 64;
const RING_ENTRIES_MOST: u64 = 32_768;

/// Memory of the receive buffers of all shards, where their number is not set.
const RECEIVE_BYTES_MAX: usize = 64 << 20;

/// Receive buffers of a shard at the least and at the most, where their number is not set.
const RECEIVE_BUFFERS: (usize, usize) = (32, 1024);

/// Why a node did not start.
#[derive(Debug, Display, Error)]
pub enum NodeError {
    /// {0}
    Acl(#[from] AclFileError),
    /// {0}
    Filter(#[from] FilterSetupError),
    /// {0}
    Banned(#[from] BannedError),
    /// {0}
    Probe(#[from] ProbeError),
    /// {0}
    Listener(#[from] ListenerError),
    /// {0}
    Start(#[from] StartError),
    /// {0}
    Store(#[from] StoreError),
    /// cannot read the clock: {0}
    Clock(io::Error),
    /// cannot start a thread: {0}; raise the limit of processes (ulimit -u)
    Thread(io::Error),
}

/// A node whose shards run.
pub(crate) struct Booted {
    pub probe_line: String,
    pub listeners: Vec<ListenerInfo>,
    pub connection_slots: u64,
    pub links: Links,
    pub replies: Receiver<(u64, Reply)>,
    pub stats: Stats,
    pub threads: Vec<ShardThread>,
    pub filters: Arc<FilterTable>,
    pub banned: BannedStore,
    pub overload: Arc<OverloadBoard>,
    pub store: Option<NodeStore>,
}

/// What all shards of a node have in common.
struct Common {
    settings: Arc<Settings>,
    acl: Arc<Acl>,
    banned: Arc<BannedList>,
    listener_clients: Arc<[ListenerClients]>,
    delayed: Arc<DelayedPlaces>,
    overload: Arc<OverloadBoard>,
    replies: Sender<(u64, Reply)>,
    table: Arc<RingTable>,
    filters: Arc<FilterTable>,
    store: Option<StoreStart>,
    reactor: ReactorSettings,
    features: Features,
    seed: u64,
    now: Now,
}

impl Doorbell for WakeHandle {
    fn ring(&self) {
        self.wake();
    }
}

/// Starts the shards and waits until all of them are up.
pub(crate) fn boot(settings: &Arc<Settings>, alarms: &Arc<Alarms>) -> Result<Booted, NodeError> {
    let filters = Arc::new(FilterTable::default());
    filters::set(filters::load(settings)?, &filters);
    let acl = Arc::new(acl::load(settings)?);
    let banned = BannedStore::load(&settings.node.data_dir)?;
    reactor::raise_open_files();
    let cpus = reactor::available_cpus();
    let shards = shard_count(settings, cpus.len());
    let report = reactor::probe(shards)?;
    let bound = reactor::bind_all(&settings.listeners, shards)?;
    let listeners = listener_infos(settings, &bound);
    if listeners.is_empty() {
        log::warn!("no listener is set: no client can connect");
    }
    let (replies_in, replies) = bounded(replies_max(shards));
    let clients = settings.listeners.iter().map(|l| ListenerClients::new(&l.options));
    let common = Common {
        settings: Arc::clone(settings),
        acl,
        banned: banned.snapshot(),
        listener_clients: clients.collect(),
        delayed: Arc::new(DelayedPlaces::new(settings.delayed.max_messages)),
        overload: Arc::new(OverloadBoard::new(shards)),
        replies: replies_in,
        table: Arc::new(RingTable::new(shards)),
        filters: Arc::clone(&filters),
        store: StoreStart::open(settings, shards, alarms, &banned)?,
        reactor: reactor_settings(settings, shards, locked_bytes_max()),
        features: report.features,
        seed: RandomState::new().hash_one(std::process::id()),
        now: now()?,
    };
    let mut ends: Vec<(Sender<Command>, Box<dyn Doorbell>)> = Vec::with_capacity(shards);
    let mut threads = Vec::with_capacity(shards);
    let metrics: Vec<_> = (0..shards).map(|_| Arc::new(ShardMetrics::default())).collect();
    for (endpoint, sockets) in mesh(settings, shards).into_iter().zip(bound) {
        let index = endpoint.id().index();
        let (commands_in, commands) = bounded(COMMANDS_MAX);
        let cpu = cpus[index % cpus.len()];
        let thread = common.spawn(endpoint, sockets, commands, &metrics[index], cpu)?;
        ends.push((commands_in, Box::new(thread.wake.clone())));
        threads.push(thread);
    }
    common.table.wait_up()?;
    let wakes = threads.iter().map(|thread: &ShardThread| thread.wake.clone());
    let store = common.store.map(|store| store.connect(wakes));
    let counters = threads.iter().map(|thread| Arc::clone(&thread.counters)).collect();
    Ok(Booted {
        probe_line: report.to_string(),
        connection_slots: common.reactor.connections_per_shard() * report.shards as u64,
        listeners,
        links: Links::new(ends),
        replies,
        stats: Stats::new(metrics, counters),
        threads,
        filters,
        banned,
        overload: common.overload,
        store,
    })
}

impl Common {
    fn spawn(
        &self,
        mesh: MeshEndpoint,
        listeners: Vec<BoundListener>,
        commands: Receiver<Command>,
        metrics: &Arc<ShardMetrics>,
        cpu: usize,
    ) -> Result<ShardThread, StartError> {
        let (id, waker) = (mesh.id(), mesh.waker());
        let setup = ShardSetup {
            id,
            settings: Arc::clone(&self.settings),
            mesh,
            metrics: Arc::clone(metrics),
            acl: Arc::clone(&self.acl),
            banned: Arc::clone(&self.banned),
            listeners: Arc::clone(&self.listener_clients),
            delayed: Arc::clone(&self.delayed),
            overload: Arc::clone(&self.overload),
            store: self.store.as_ref().map(|store| store.link(id.index())),
            replies: self.replies.clone(),
            seed: self.seed,
            now: self.now,
        };
        Reactor::spawn(ReactorSetup {
            id,
            cpu,
            build: Box::new(move || ShardCore(Shard::new(setup))),
            listeners,
            table: Arc::clone(&self.table),
            filters: Arc::clone(&self.filters),
            commands,
            waker,
            settings: self.reactor.clone(),
            features: self.features,
        })
    }
}

/// How many shards a broker has on so many CPUs: the setting, or one for each.
#[must_use]
pub fn shard_count(settings: &Settings, cpus: usize) -> usize {
    match usize::from(settings.node.shards) {
        0 => cpus.clamp(1, ring::SHARDS_MAX),
        shards => shards,
    }
}

fn mesh(settings: &Settings, shards: usize) -> Vec<MeshEndpoint> {
    let default = ring::default_capacity(shards);
    let chosen = |setting: u32, default: usize| match setting {
        0 => default,
        // No pointer is narrower than 32 bits where io_uring is.
        capacity => usize::try_from(capacity).unwrap_or(default),
    };
    let data = chosen(settings.mesh.data_capacity, default.data);
    Mesh::build(shards, data, chosen(settings.mesh.control_capacity, default.control))
}

/// The limit on locked memory in bytes, if it counts: not for root, nor where there is none.
fn locked_bytes_max() -> Option<u64> {
    if geteuid().is_root() {
        return None;
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// Locked memory of so many shards with so many rings in all: as large as the settings make them, and as small as they are made
/// where only `locked` bytes may be locked.
#[must_use]
pub fn locked_bytes(settings: &Settings, shards: usize, rings: usize, locked: u64) -> (u64, u64) {
    let [shards_u64, rings] = [shards, rings].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    let of = |main: u32, further: u32| {
        let entries =
            shards_u64 * u64::from(main) + rings.saturating_sub(shards_u64) * u64::from(further);
        shards_u64 * EXECUTOR_LOCKED_BYTES + entries * ENTRY_LOCKED_BYTES
    };
    let wanted = settings.reactor.ring_entries;
    let main = ring_entries(wanted, shards, Some(locked));
    let further = main / FURTHER_SHARE;
    (of(wanted, wanted / FURTHER_SHARE), of(main, further.min(SUBMISSION_ENTRIES_LEAST)))
}

/// Receive buffers of a shard: the setting, or as many as let those of all shards take [`RECEIVE_BYTES_MAX`].
fn receive_buffers(settings: &Settings, shards: usize) -> u16 {
    let size = settings.reactor.recv_buffer_size_bytes as usize;
    match settings.reactor.recv_buffers {
        0 => {
            let share = RECEIVE_BYTES_MAX / shards / size;
            let rounded = 1 << share.clamp(RECEIVE_BUFFERS.0, RECEIVE_BUFFERS.1).ilog2();
            u16::try_from(rounded).expect("at most the larger bound")
        }
        buffers => buffers,
    }
}

/// Entries of a shard's ring: the setting, or fewer if the memory that may be locked would not do for all shards. `locked` is
/// that limit in bytes, where it counts for this process.
fn ring_entries(wanted: u32, shards: usize, locked: Option<u64>) -> u32 {
    let Some(locked) = locked else { return wanted };
    let share = locked / u64::try_from(shards).unwrap_or(u64::MAX).max(1);
    let entries = share.saturating_sub(EXECUTOR_LOCKED_BYTES) / ENTRY_LOCKED_BYTES;
    let rounded = 1 << entries.clamp(RING_ENTRIES_LEAST, RING_ENTRIES_MOST).ilog2();
    wanted.min(rounded)
}

fn reactor_settings(settings: &Settings, shards: usize, locked: Option<u64>) -> ReactorSettings {
    let entries = ring_entries(settings.reactor.ring_entries, shards, locked);
    if entries < settings.reactor.ring_entries {
        log::warn!("little memory may be locked (ulimit -l): rings have {entries} entries each");
    }
    ReactorSettings {
        submission_entries: entries,
        completion_entries: (entries * COMPLETIONS_PER_SUBMISSION)
            .min(COMPLETION_ENTRIES_MAX)
            .max(entries),
        connections_max: Some(settings.reactor.descriptors).filter(|most| *most > 0),
        buffers: receive_buffers(settings, shards),
        buffer_bytes: settings.reactor.recv_buffer_size_bytes,
        tick_bytes_max: u32::try_from(settings.conn.tick_bytes_max).unwrap_or(u32::MAX),
        spin_us: settings.reactor.spin_us,
        multishot_accept: settings.reactor.multishot_accept,
        admission: admission(&settings.overload),
        ..ReactorSettings::default()
    }
}

fn admission(overload: &OverloadSettings) -> AdmissionSettings {
    AdmissionSettings {
        budget: if overload.enable { overload.accept_budget } else { 0 },
        queue_max: overload.accept_queue,
        deadline_ms: overload.accept_deadline_ms,
        prefix_ipv4: overload.prefix_ipv4,
        prefix_ipv6: overload.prefix_ipv6,
    }
}

fn listener_infos(settings: &Settings, bound: &[Vec<BoundListener>]) -> Vec<ListenerInfo> {
    let first_shard = bound.first().map(Vec::as_slice).unwrap_or_default();
    settings
        .listeners
        .iter()
        .zip(first_shard)
        .map(|(listener, socket)| ListenerInfo {
            protocol: listener.kind.protocol(),
            name: listener.name.clone(),
            // The real port, if the settings leave it to the kernel.
            address: socket.address,
            running: true,
            acceptors: bound.len(),
            max_clients: u64::from(listener.options.max_clients),
            current_clients: 0,
            shutdown_count: Vec::new(),
        })
        .collect()
}

/// This instant, on the clocks the reactors read.
fn now() -> Result<Now, NodeError> {
    let read_ms = |clock| {
        let time = clock_gettime(clock).map_err(|errno| NodeError::Clock(errno.into()))?;
        let ms = time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000;
        Ok::<u64, NodeError>(u64::try_from(ms).unwrap_or(0))
    };
    Ok(Now {
        mono_ms: read_ms(ClockId::CLOCK_MONOTONIC)?,
        unix_ms: read_ms(ClockId::CLOCK_REALTIME)?,
    })
}

#[cfg(test)]
mod tests {
    use ring::ShardId;

    use super::*;

    #[test]
    fn locked_memory_is_that_of_main_and_further_rings() {
        let settings = Settings::default();
        let ring = |entries: u64| entries * ENTRY_LOCKED_BYTES;
        let (wanted, least) = locked_bytes(&settings, 2, 12, 1 << 30);
        assert_eq!(wanted, 2 * EXECUTOR_LOCKED_BYTES + ring(2 * 4096 + 10 * 1024));
        assert_eq!(least, 2 * EXECUTOR_LOCKED_BYTES + ring(2 * 4096 + 10 * 256));
        let (_, least) = locked_bytes(&settings, 2, 2, 0);
        assert_eq!(least, 2 * EXECUTOR_LOCKED_BYTES + ring(2 * RING_ENTRIES_LEAST));
    }

    #[test]
    fn shards_are_set_or_one_for_each_cpu() {
        let mut settings = Settings::default();
        assert_eq!(shard_count(&settings, 3), 3);
        assert_eq!(shard_count(&settings, 1_000), ring::SHARDS_MAX);
        settings.node.shards = 8;
        assert_eq!(shard_count(&settings, 3), 8);
    }

    #[test]
    fn default_settings_give_a_ring_the_kernel_takes() {
        assert_eq!(ring_entries(4096, 12, Some(8 << 20)), 2048);
        assert_eq!(ring_entries(4096, 2, Some(8 << 20)), 4096);
        assert_eq!(ring_entries(4096, 64, Some(8 << 20)), 64);
        let reactor = reactor_settings(&Settings::default(), 2, None);
        assert!(reactor.completion_entries >= reactor.submission_entries);
        assert!(reactor.completion_entries <= COMPLETION_ENTRIES_MAX);
        assert_eq!(reactor.connections_max, None);
        assert_eq!(shard_ids(&mesh(&Settings::default(), 3)), [0, 1, 2]);
    }

    fn shard_ids(mesh: &[MeshEndpoint]) -> Vec<usize> {
        mesh.iter().map(|endpoint| endpoint.id()).map(ShardId::index).collect()
    }

    #[test]
    fn the_clocks_run() {
        let now = now().unwrap();
        assert!(now.mono_ms > 0 && now.unix_ms > now.mono_ms);
    }
}
