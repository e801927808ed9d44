//! A broker that ends and starts again: with the power gone at any moment, or in order; with another number of shards each
//! time, from what its disk has.

use std::sync::Arc;

use mqtt::ReasonCode;
use ring::{Mesh, ShardId};
use session::acl::{Acl, AclDecision};
use shard::command::{Reply, Request};
use shard::{Command, DelayedPlaces, ListenerClients, OverloadBoard, Shard, ShardSetup, StoreMode};
use store::engine::SimulatedEngine;

use super::World;
use super::client::Client;
use super::network::Station;
use super::retained::RetainedEnd;
use super::store::Disk;

/// Shards of a start.
const SHARDS: [usize; 7] = [1, 2, 2, 3, 3, 4, 8];
/// How much of the time of a machine its store has, in percent.
pub(super) const PACES: [u64; 4] = [10, 20, 30, 50];
/// Steps an orderly stop may take.
const STOP_STEPS: usize = 60_000;
/// Milliseconds an orderly stop may take.
const GRACE_MS: u32 = 60_000;
/// Within how many intervals what was acknowledged is on disk, if the store is not `always`: a shard gathers for one, its
/// message is on its way to another shard that gathers for one, the disk syncs after one more; and each may have just missed.
const INTERVALS: u64 = 6;
/// How long the late removals of the store may take, and some.
const LATE_MS: u64 = 6000;

impl World {
    /// Starts shards, on the disk if there is one.
    pub(super) fn start(&mut self, shards: usize) {
        let capacity = *self.random.pick(&[1, 2, 4]);
        let listeners: Arc<[ListenerClients]> =
            self.settings.listeners.iter().map(|one| ListenerClients::new(&one.options)).collect();
        let acl = Acl::parse("{allow, all}.", AclDecision::Allow).expect("it is well-formed");
        let acl = Arc::new(acl);
        self.stations.clear();
        self.replies.clear();
        self.metrics.clear();
        let delayed = Arc::new(DelayedPlaces::new(self.settings.delayed.max_messages));
        let overload = Arc::new(OverloadBoard::new(shards));
        for (n, mesh) in Mesh::build(shards, capacity, capacity).into_iter().enumerate() {
            let (sender, receiver) = crossbeam_channel::bounded(64);
            let metrics = Arc::default();
            self.stations.push(Station::new(Shard::new(ShardSetup {
                id: ShardId::new(n),
                settings: self.settings.clone(),
                mesh,
                metrics: Arc::clone(&metrics),
                acl: acl.clone(),
                banned: Arc::default(),
                listeners: listeners.clone(),
                delayed: delayed.clone(),
                overload: overload.clone(),
                store: self.disk.as_mut().and_then(|disk| disk.link(n)),
                replies: sender,
                seed: self.seed.wrapping_add(self.starts),
                now: self.now(),
            })));
            self.replies.push(receiver);
            self.metrics.push(metrics);
        }
        self.starts += 1;
        let slow = self.disk.is_some() && self.random.chance(50);
        self.slow = slow.then(|| self.random.below(shards));
    }

    /// Ends the broker now and then.
    pub(super) fn end_perhaps(&mut self) -> Result<(), String> {
        let is_due = self.crash_in == Some(0);
        self.crash_in = if is_due { None } else { self.crash_in.map(|steps| steps - 1) };
        match self.random.below(1000) {
            n if (n < self.crashes_permille || is_due) && self.may_crash => self.crash(),
            990..992 => self.stop_in_order(),
            _ => Ok(()),
        }
    }

    fn crash(&mut self) -> Result<(), String> {
        let Some(disk) = self.disk.take() else { return Ok(()) };
        let engine = disk.crash(&mut self.random);
        super::trace(|| format!("crash at {} ms", self.now_ms));
        if let Some(StoreMode::EveryMs(interval_ms)) = self.mode {
            self.forgive(self.now_ms.saturating_sub(INTERVALS * interval_ms));
        }
        self.crashes += 1;
        self.start_again(engine)
    }

    /// What was acknowledged at or after `since_ms` may be lost.
    fn forgive(&mut self, since_ms: u64) {
        for published in self.published.values_mut() {
            published.acknowledged_ms = published.acknowledged_ms.filter(|&at| at < since_ms);
        }
        self.retained_since.retain(|_, versions| {
            versions.retain(|&(at, _)| at < since_ms);
            !versions.is_empty()
        });
        self.subscribed_ms.retain(|_, at| *at < since_ms);
        for client in self.clients.iter_mut().filter(|client| client.persistent) {
            client.subscribed &= self.subscribed_ms.contains_key(&client.index);
        }
        for published in self.published.values_mut() {
            published.expected.retain(|(client, _)| self.subscribed_ms.contains_key(client));
            let group = super::GROUP.clone().all(|member| self.subscribed_ms.contains_key(&member));
            published.group = published.group.filter(|_| group);
        }
    }

    fn stop_in_order(&mut self) -> Result<(), String> {
        if self.disk.is_none() {
            return Ok(());
        }
        super::trace(|| format!("stop at {} ms", self.now_ms));
        // Who stops has all the time it needs.
        self.slow = None;
        for station in &mut self.stations {
            let reason = ReasonCode::ServerShuttingDown;
            let request = Request::Shutdown { reason, grace_ms: GRACE_MS };
            station.shard.command(Command { token: 2, request });
        }
        let mut left = STOP_STEPS;
        while self.stations.iter().any(|station| !station.shard.is_stopped()) {
            self.step(false)?;
            left -= 1;
            if left == 0 {
                return Err("the broker does not stop".to_owned());
            }
        }
        for replies in &self.replies {
            match replies.try_recv() {
                Ok((2, Reply::ShutDown { left: 0 })) => {}
                other => return Err(format!("a shard ended with {other:?}")),
            }
        }
        self.check_counts()?;
        let disk = self.disk.take().expect("looked at above");
        let engine = disk.close(self.now_ms, &mut self.random)?;
        self.start_again(engine)
    }

    /// What shards tell of sessions is what the disk has of them, wherever their messages are. Everything was kept.
    fn check_counts(&mut self) -> Result<(), String> {
        // A broker that was stopped as soon as it was started may still have to read what it has.
        for _ in 0..10 {
            for shard in 0..self.stations.len() {
                self.tick_with(shard, true);
            }
            let Some(disk) = &mut self.disk else { return Ok(()) };
            disk.settle(self.now_ms, &mut self.random)?;
        }
        let kept = self.disk.as_ref().map(Disk::counts).unwrap_or_default();
        for shard in 0..self.stations.len() {
            for row in self.session_rows(shard)? {
                let told = [row.mqueue_len, row.inflight, row.awaiting_rel];
                let found = kept.get(&row.client_id).copied().unwrap_or_default();
                if told != found {
                    return Err(format!("the store has {found:?} of {row:?}"));
                }
                self.unloaded += usize::from(told != [0; 3]);
            }
        }
        Ok(())
    }

    fn start_again(&mut self, engine: SimulatedEngine) -> Result<(), String> {
        self.stations.clear();
        if self.has_refused {
            self.late.extend(self.clients.iter().flat_map(Client::unanswered));
        }
        let mode = self.mode.expect("only a broker with a store starts again");
        for pipe in &mut self.pipes {
            let left = match mode {
                StoreMode::Always if self.random.chance(50) => usize::MAX,
                StoreMode::Always => self.random.below(200),
                // What is acknowledged by what comes after the end is not older than the interval.
                StoreMode::EveryMs(_) => 0,
            };
            pipe.broken(left);
        }
        // No clock stands still while a process starts.
        self.now_ms += 1 + self.random.number() % 2000;
        let shards = *self.random.pick(&SHARDS);
        let pace = *self.random.pick(&PACES);
        self.disk = Some(Disk::open(engine, shards, mode, self.is_disc_only(), pace)?);
        self.clients.iter_mut().for_each(Client::broker_ended);
        super::trace(|| format!("start with {shards} shards at {} ms", self.now_ms));
        self.start(shards);
        Ok(())
    }

    /// Keeps the times of a broker that is not overloaded: with an interval, everything of it is done by the end of it.
    pub(super) fn keep_interval(&mut self) -> Result<(), String> {
        let Some(StoreMode::EveryMs(interval_ms)) = self.mode else { return Ok(()) };
        if self.now_ms < self.interval_ends_ms {
            return Ok(());
        }
        self.interval_ends_ms = self.now_ms + interval_ms;
        for _ in 0..3 {
            for shard in 0..self.stations.len() {
                self.tick_fully(shard);
            }
        }
        if let Some(disk) = &mut self.disk {
            disk.settle(self.now_ms, &mut self.random)?;
            disk.sync()?;
        }
        Ok(())
    }

    /// At rest nothing is left on disk but what is to be there.
    pub(super) fn check_disk(&mut self) -> Result<(), String> {
        if self.disk.is_none() {
            return Ok(());
        }
        self.now_ms += LATE_MS;
        let mut quiet = 0;
        for _ in 0..100_000 {
            self.step(false)?;
            let is_quiet = self.disk.as_ref().is_some_and(Disk::is_quiet);
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet > 300 * self.stations.len() {
                break;
            }
        }
        let persistent: Vec<&Client> = self.clients.iter().filter(|c| c.persistent).collect();
        let subscriptions = persistent.iter().map(|client| client.filters.len()).sum();
        let disk = self.disk.as_ref().expect("looked at above");
        let surely = |end: &RetainedEnd| matches!(end, RetainedEnd::Is(_));
        let perhaps = |end: &RetainedEnd| !matches!(end, RetainedEnd::None);
        let ends: Vec<RetainedEnd> =
            self.retained.iter().map(|(topic, name)| self.retained_end(topic, *name)).collect();
        let count = |is: fn(&RetainedEnd) -> bool| ends.iter().filter(|end| is(end)).count();
        disk.check_at_rest(persistent.len(), subscriptions, count(surely)..=count(perhaps))
    }
}
