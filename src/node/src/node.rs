//! The node: what was booted, and the one way in for everything that is asked of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use config::Settings;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use displaydoc::Display;
use mqtt::ReasonCode;
use reactor::{FilterTable, ShardThread};
use ring::ShardId;
use shard::command::{DelayedRequest, Reply, Request};
use shard::{Ban, BannedWho};
use store::StoreError;
use thiserror::Error;

use crate::acl::{self, AclFileError};
use crate::action::{
    Action, ActionReply, AlarmList, BrokerInfo, Capacity, ListenerInfo, Listing, RouteInfo,
    SettingInfo,
};
use crate::alarms::Alarms;
use crate::banned::{BannedError, BannedStore};
use crate::boot::{self, Booted, NodeError};
use crate::filters::{self, FilterSetupError};
use crate::links::{LinkError, Links};
use crate::listeners::{ListenerActionError, NodeListeners};
use crate::listing::Pages;
use crate::retainer;
use crate::stats::Stats;
use crate::store::NodeStore;
use crate::watch::Watch;

/// Version of the broker.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the broker is.
pub const SYSDESCR: &str = "RingMQ MQTT Broker";

/// Time a shard has for one command.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// What is left of the time of a shutdown for the threads to end, after the shards have had theirs.
const JOIN_TIME: Duration = Duration::from_millis(500);

/// Pause between two looks at threads that end.
const JOIN_POLL: Duration = Duration::from_millis(2);

/// How often is looked at what there is.
const KEEPER_INTERVAL: Duration = Duration::from_secs(1);

/// Why an action was not done.
#[derive(Debug, Display, Error)]
pub enum ActionError {
    /// {0}
    Link(#[from] LinkError),
    /// {0}
    Acl(#[from] AclFileError),
    /// {0}; every listener keeps the certificate it has
    Filter(#[from] FilterSetupError),
    /// {0}
    Listener(#[from] ListenerActionError),
    /// {0}
    Banned(#[from] BannedError),
    /// it is done, but the store cannot write now, so that a restart may undo it; see `ringmq alarms`, and do it again then
    Unkept,
    /// there is no store: store.enable is off
    NoStore,
    /// {0}
    Store(#[from] StoreError),
}

/// A running node.
pub struct Node {
    settings: Arc<Settings>,
    links: Arc<Links>,
    stats: Arc<Stats>,
    alarms: Arc<Alarms>,
    probe_line: String,
    listeners: NodeListeners,
    filters: Arc<FilterTable>,
    banned: BannedStore,
    /// Held by who changes the bans until all shards know, so that none gets an older list after a newer one.
    bans_change: Mutex<()>,
    connection_slots: u64,
    started: Instant,
    threads: Mutex<Vec<ShardThread>>,
    store: Mutex<Option<Arc<NodeStore>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.settings.node.name)
            .field("shards", &self.links.shards())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Starts a node; returns when every shard accepts connections.
    ///
    /// # Errors
    /// [`NodeError`]: the machine, a setting or an address does not allow it; nothing is left running.
    pub fn start(settings: Settings) -> Result<Node, NodeError> {
        let settings = Arc::new(settings);
        let alarms = Arc::new(Alarms::default());
        let booted = boot::boot(&settings, &alarms)?;
        let Booted {
            probe_line,
            listeners,
            connection_slots,
            links,
            replies,
            stats,
            threads,
            banned,
            filters,
            overload,
            store,
        } = booted;
        let store = store.map(Arc::new);
        if let Some(store) = &store {
            store.wait_ready()?;
            store.tell_bans(&banned)?;
            store.watch().map_err(NodeError::Thread)?;
        }
        let (links, stats) = (Arc::new(links), Arc::new(stats));
        let keeper = Arc::clone(&links);
        let mut watch = Watch::new(
            Arc::clone(&settings),
            overload,
            Arc::clone(&alarms),
            Arc::clone(&stats),
            links.shards(),
        );
        thread::Builder::new()
            .name("ringmq-replies".to_owned())
            .spawn(move || keep(&keeper, &mut watch, &replies))
            .map_err(NodeError::Thread)?;
        let listeners = NodeListeners::new(&settings, listeners);
        Ok(Node {
            settings,
            links,
            stats,
            alarms,
            probe_line,
            listeners,
            filters,
            banned,
            bans_change: Mutex::new(()),
            connection_slots,
            started: Instant::now(),
            threads: Mutex::new(threads),
            store: Mutex::new(store),
        })
    }

    /// The kernel, the features found, the shards and the limits, in one line.
    #[must_use]
    pub fn probe_line(&self) -> String {
        self.probe_line.clone()
    }

    /// A line for each listener (SEED-CLI-64).
    #[must_use]
    pub fn listener_lines(&self) -> Vec<String> {
        let line = |listener: &ListenerInfo| {
            format!(
                "mqtt listen on {} with {} shard{}.",
                listener.address,
                listener.acceptors,
                if listener.acceptors == 1 { "" } else { "s" }
            )
        };
        self.listeners.infos().iter().map(line).collect()
    }

    /// The alarms: whatever runs beside the shards raises and clears its own there, by kind.
    #[must_use]
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// The name of the node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.node.name
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.links.shards()
    }

    /// Does one thing and waits for its end. Never call it on a thread that must not wait.
    ///
    /// # Errors
    /// [`ActionError`] if a shard does not answer or the node shuts down, or a file cannot be read.
    pub fn perform(&self, action: Action) -> Result<ActionReply, ActionError> {
        Ok(match action {
            Action::Broker => ActionReply::Broker(self.broker()),
            Action::Stats => ActionReply::Numbers(self.stats.stats()),
            Action::Metrics => ActionReply::Numbers(self.stats.metrics()),
            Action::Settings => ActionReply::Settings(self.settings()),
            Action::Listeners => ActionReply::Listeners(self.listeners()?),
            Action::ListenerStart(name) => {
                self.listeners.start(&name, &self.links, &self.threads)?;
                ActionReply::Done
            }
            Action::ListenerStop(name) => {
                self.listeners.stop(&name, &self.links, &self.threads)?;
                ActionReply::Done
            }
            Action::ListenerRestart(name) => {
                self.listeners.restart(&name, &self.links, &self.threads)?;
                ActionReply::Done
            }
            Action::Capacity => {
                let listeners = self.listeners()?;
                ActionReply::Capacity(Capacity {
                    shards: self.links.shards(),
                    connections: listeners.iter().map(|listener| listener.current_clients).sum(),
                    connection_slots: self.connection_slots,
                })
            }
            Action::List(listing) => ActionReply::Pages(self.pages(listing)),
            Action::Alarms => ActionReply::Alarms(AlarmList {
                active: self.alarms.active(),
                history: self.alarms.history(),
            }),
            Action::Banned => ActionReply::Bans(self.bans()?),
            Action::BannedAdd(ban) => self.begin_ban(ban)?,
            Action::BannedDel(who) => self.end_ban(&who)?,
            Action::CertificatesReload => {
                filters::set(filters::load(&self.settings)?, &self.filters);
                ActionReply::Done
            }
            Action::AclReload => {
                let acl = Arc::new(acl::load(&self.settings)?);
                self.links.ask_all(&Request::AclReload(acl), COMMAND_TIMEOUT)?;
                ActionReply::Done
            }
            Action::DelayedShow(id) => self.delayed(DelayedRequest::Show(id))?,
            Action::DelayedDelete(id) => self.delayed(DelayedRequest::Delete(id))?,
            Action::RetainerInfo => {
                ActionReply::Retainer(retainer::info(&self.links, &self.settings)?)
            }
            Action::StoreInfo => ActionReply::Store(Box::new(self.store()?.info())),
            Action::StoreBackup { folder } => {
                // What clients were told is in it, though an interval has not passed; while the store fails, what there is.
                self.links.ask_all(&Request::Keep, COMMAND_TIMEOUT)?;
                ActionReply::StoreBackup(self.store()?.backup(&folder)?)
            }
            Action::RetainerClean { filter } => retainer::clean(&self.links, &filter)?,
            Action::RouteShow { filter } => self.route(filter)?,
            Action::ClientShow { client_id } => {
                self.at_home(client_id, |client_id| Request::ClientShow { client_id })?
            }
            Action::ClientKick { client_id } => {
                self.at_home(client_id, |client_id| Request::ClientKick { client_id })?
            }
            Action::SessionShow { client_id } => {
                self.at_home(client_id, |client_id| Request::SessionShow { client_id })?
            }
            Action::SubscriptionAdd { client_id, filter, qos } => {
                self.at_home(client_id, |client_id| Request::SubscriptionAdd {
                    client_id,
                    filter,
                    qos,
                })?
            }
            Action::SubscriptionDel { client_id, filter } => {
                self.at_home(client_id, |client_id| Request::SubscriptionDel { client_id, filter })?
            }
            Action::Publish { topic, payload, qos, retain, sys } => {
                // The topic's home keeps its retained message.
                let home = self.home(&topic);
                let request = Request::Publish { topic, payload, qos, retain, sys };
                answer(self.links.ask(home, request, COMMAND_TIMEOUT)?)
            }
        })
    }

    /// Ends the node: the listeners close, clients of MQTT 5 are told (reason 0x8B), what waits in outboxes is sent, wills that are
    /// due are published; all within `grace`, whatever clients do. Returns how many connections were still open then.
    ///
    /// # Errors
    /// [`StoreError`]: all has ended, but what the store had not written is lost.
    pub fn shutdown(&self, grace: Duration) -> Result<u64, StoreError> {
        let deadline = Instant::now() + grace;
        let shard_grace = grace.saturating_sub(JOIN_TIME);
        let grace_ms = u32::try_from(shard_grace.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Shutdown { reason: ReasonCode::ServerShuttingDown, grace_ms };
        let left = match self.links.ask_all(&request, grace) {
            Ok(replies) => replies
                .into_iter()
                .map(|reply| match reply {
                    Reply::ShutDown { left } => u64::from(left),
                    other => unreachable!("a shutdown was asked for, the shard answered {other:?}"),
                })
                .sum(),
            Err(error) => {
                log::warn!("shutdown: {error}");
                0
            }
        };
        self.links.stop();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while Instant::now() < deadline && !threads.iter().all(ShardThread::is_finished) {
            thread::sleep(JOIN_POLL);
        }
        threads.drain(..).filter(ShardThread::is_finished).for_each(ShardThread::join);
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(store) = store {
            close_store(store, deadline)?;
        }
        Ok(left)
    }

    fn store(&self) -> Result<Arc<NodeStore>, ActionError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or(ActionError::NoStore)
    }

    /// Bans by hand, and those the shards made for flapping.
    fn bans(&self) -> Result<Vec<Ban>, ActionError> {
        if self.store_of_bans()?.is_some() && self.banned.is_reading() {
            return Err(BannedError::Reading.into());
        }
        let mut bans = self.banned.list(unix_s());
        for reply in self.links.ask_all(&Request::FlappingBans, COMMAND_TIMEOUT)? {
            match reply {
                Reply::Bans(more) => bans.extend(more),
                other => unreachable!("bans were asked for, the shard answered {other:?}"),
            }
        }
        let key = |ban: &Ban| match &ban.who {
            BannedWho::ClientId(name) => (0, name.clone()),
            BannedWho::Username(name) => (1, name.clone()),
            BannedWho::PeerHost(host) => (2, host.to_string()),
        };
        bans.sort_by_cached_key(key);
        Ok(bans)
    }

    /// The store that keeps the bans, which knows by then what it had; none if there is no store.
    fn store_of_bans(&self) -> Result<Option<Arc<NodeStore>>, ActionError> {
        if !self.settings.store.enable {
            return Ok(None);
        }
        let store = self.store()?;
        store.tell_bans(&self.banned)?;
        Ok(Some(store))
    }

    fn begin_ban(&self, ban: Ban) -> Result<ActionReply, ActionError> {
        let _change = self.bans_change.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.banned.add(ban, self.store_of_bans()?.as_deref());
        self.spread_if_so(&kept)?;
        kept?;
        Ok(ActionReply::Done)
    }

    fn end_ban(&self, who: &BannedWho) -> Result<ActionReply, ActionError> {
        let _change = self.bans_change.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted = self.banned.delete(who, self.store_of_bans()?.as_deref());
        self.spread_if_so(&deleted)?;
        let mut any = deleted?;
        if let BannedWho::ClientId(client_id) = who {
            let home = self.home(client_id);
            let request = Request::FlappingForgive { client_id: client_id.clone() };
            any |= self.links.ask(home, request, COMMAND_TIMEOUT)? == Reply::Done;
        }
        Ok(if any { ActionReply::Done } else { ActionReply::NotFound })
    }

    /// Tells the shards of a change that is in force, kept or not.
    fn spread_if_so<T>(&self, changed: &Result<T, BannedError>) -> Result<(), LinkError> {
        if !matches!(changed, Ok(_) | Err(BannedError::Store(StoreError::Late))) {
            return Ok(());
        }
        let request = Request::BannedReplace(self.banned.snapshot());
        self.links.ask_all(&request, COMMAND_TIMEOUT).map(drop)
    }

    fn home(&self, key: &str) -> ShardId {
        router::home(router::slot(key.as_bytes()), self.links.shards())
    }

    /// Asks the one shard that has all about a client.
    fn at_home(
        &self,
        client_id: String,
        request: impl FnOnce(String) -> Request,
    ) -> Result<ActionReply, LinkError> {
        let home = self.home(&client_id);
        Ok(answer(self.links.ask(home, request(client_id), COMMAND_TIMEOUT)?))
    }

    fn pages(&self, listing: Listing) -> Pages {
        let home = match &listing {
            Listing::ClientSubscriptions { client_id } => self.home(client_id),
            _ => ShardId::new(0),
        };
        Pages::new(Arc::clone(&self.links), self.settings.node.name.clone(), listing, home)
    }

    fn route(&self, filter: String) -> Result<ActionReply, LinkError> {
        let replies = self.links.ask_all(&Request::RouteShow { filter }, COMMAND_TIMEOUT)?;
        let found = replies.into_iter().find_map(|reply| match reply {
            Reply::Route(row) => row,
            other => unreachable!("a route was asked for, the shard answered {other:?}"),
        });
        Ok(found.map_or(ActionReply::NotFound, |row| {
            let nodes = vec![self.settings.node.name.clone()];
            ActionReply::Route(RouteInfo { filter: row.filter, nodes })
        }))
    }

    /// Asks every shard about one delayed message: its name does not tell which has it.
    fn delayed(&self, request: DelayedRequest) -> Result<ActionReply, ActionError> {
        let replies = self.links.ask_all(&Request::Delayed(request), COMMAND_TIMEOUT)?;
        if replies.contains(&Reply::Unkept) {
            return Err(ActionError::Unkept);
        }
        let mut answers = replies.into_iter().map(answer);
        let found = answers.find(|reply| !matches!(reply, ActionReply::NotFound));
        Ok(found.unwrap_or(ActionReply::NotFound))
    }

    fn broker(&self) -> BrokerInfo {
        BrokerInfo {
            node: self.settings.node.name.clone(),
            sysdescr: SYSDESCR,
            version: VERSION,
            uptime_s: self.started.elapsed().as_secs(),
            unix_s: unix_s(),
            shards: self.links.shards(),
        }
    }

    fn settings(&self) -> Vec<SettingInfo> {
        let info = |entry: config::Entry| SettingInfo {
            key: entry.key,
            value: entry.value,
            origin: entry.origin.to_string(),
            doc: entry.doc,
        };
        self.settings.entries().into_iter().map(info).collect()
    }

    fn listeners(&self) -> Result<Vec<ListenerInfo>, LinkError> {
        let replies = self.links.ask_all(&Request::ListenerCounts, COMMAND_TIMEOUT)?;
        let rows = replies.into_iter().flat_map(|reply| match reply {
            Reply::Listeners(rows) => rows,
            other => unreachable!("listeners were asked for, the shard answered {other:?}"),
        });
        let mut listeners = self.listeners.infos();
        for row in rows {
            let listener = &mut listeners[usize::from(row.listener.0)];
            listener.current_clients += u64::from(row.current_clients);
            for (reason, count) in row.shutdown_count {
                let counts = &mut listener.shutdown_count;
                match counts.binary_search_by_key(&reason, |(name, _)| name) {
                    Ok(place) => counts[place].1 += count,
                    Err(place) => counts.insert(place, (reason, count)),
                }
            }
        }
        Ok(listeners)
    }
}

/// Closes the store when nobody looks at it any more; a backup that still runs is waited for, but not beyond the deadline.
fn close_store(mut store: Arc<NodeStore>, deadline: Instant) -> Result<(), StoreError> {
    loop {
        match Arc::try_unwrap(store) {
            Ok(store) => return store.close(),
            Err(_) if Instant::now() >= deadline => {
                log::warn!("the store is still being read: it is left as it is on disk");
                return Ok(());
            }
            Err(held) => store = held,
        }
        thread::sleep(JOIN_POLL);
    }
}

/// Seconds since the Unix epoch.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a shard's reply means to who asked.
fn answer(reply: Reply) -> ActionReply {
    match reply {
        Reply::Done | Reply::Published { .. } => ActionReply::Done,
        Reply::NotFound
        | Reply::Client(None)
        | Reply::Session(None)
        | Reply::DelayedMessage(None) => ActionReply::NotFound,
        Reply::DelayedMessage(Some(row)) => ActionReply::Delayed(row),
        Reply::Refused(reason) => ActionReply::Refused(reason),
        Reply::Client(Some(row)) => ActionReply::Client(row),
        Reply::Session(Some(row)) => ActionReply::Session(row),
        other => unreachable!("no command for one thing is answered {other:?}"),
    }
}

/// Gives replies to who waits for them, and each second looks at what there is.
fn keep(links: &Links, watch: &mut Watch, replies: &Receiver<(u64, Reply)>) {
    let mut look_at = Instant::now() + KEEPER_INTERVAL;
    loop {
        match replies.recv_deadline(look_at) {
            Ok((token, reply)) => links.resolve(token, reply),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = Instant::now();
        if now >= look_at {
            if watch.look() {
                links.wake_all();
            }
            look_at = now + KEEPER_INTERVAL;
        }
    }
    // Every shard's sender is gone: no reply will come.
    links.stop();
}
