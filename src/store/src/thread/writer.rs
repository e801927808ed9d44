//! The thread that writes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use shard::storage::{StoreHealth, StoreOp, StoreReply, StoreRequest};

use super::outlet::WriterOutlet;
use super::reader::{self, Job};
use super::retained::{self, Latest};
use super::shared::Shared;
use super::{Control, OnEvent, StoreEvent, StoreSetup, StoreStage, StoreSync, boot};
use crate::StoreError;
use crate::core::{Boot, Core, Outcome, RetainedBoot};
use crate::engine::{Engine, EngineError, Keyspace};

/// How long after an error it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// After how long a quiet time keyspaces are compacted from which much was removed.
const QUIET: Duration = Duration::from_secs(10);
/// What is much: keys.
const REMOVED_MUCH: u64 = 20_000;
/// How often a reply that a shard's channel had no room for is tried again.
const RESEND: Duration = Duration::from_millis(2);
/// How often the sizes on disk are asked for while there is work.
const SIZES: Duration = Duration::from_secs(1);
/// How long batches are gathered at most where nobody waits for a sync: what is put and removed within it costs no write.
const GATHER_MAX: Duration = Duration::from_millis(20);

pub(super) struct Writer<E: Engine> {
    folder: PathBuf,
    core: Core<E>,
    sync: StoreSync,
    shared: Arc<Shared>,
    requests: Receiver<StoreRequest>,
    control: Receiver<Control>,
    outlets: Vec<WriterOutlet>,
    jobs: Sender<Job<E::Snapshot>>,
    /// What retained messages are read from, if shards do not hold them.
    latest: Option<Arc<Latest<E::Snapshot>>>,
    /// Dropped, it ends the thread that reads them.
    stop_reading: Option<Sender<()>>,
    helpers: Vec<JoinHandle<()>>,
    on_event: OnEvent,
    /// Who waits for changes that are no shard's, in their order.
    keepers: VecDeque<Sender<()>>,
    /// Since when batches are gathered.
    gathering_since: Option<Instant>,
    /// Written and not synced, since when.
    unsynced_since: Option<Instant>,
    /// When to try again; `None` while all is well.
    retry_at: Option<Instant>,
    /// When it was last looked at whether the files are where they were.
    checked_at: Instant,
    sizes_at: Instant,
    last_round: Instant,
    /// Keys removed since the last compaction, by keyspace.
    removed: [u64; Keyspace::COUNT],
    /// The thread that compacts.
    compacting: Option<JoinHandle<()>>,
    /// A shard's channel was full.
    has_unsent: bool,
    has_ended: bool,
    is_closing: bool,
}

impl<E: Engine + 'static> Writer<E> {
    pub(super) fn start(
        engine: E,
        setup: StoreSetup,
        shared: Arc<Shared>,
        requests: Receiver<StoreRequest>,
        control: Receiver<Control>,
    ) -> Result<Self, StoreError> {
        let StoreSetup { folder, sync, bans, shards, retained_reads, on_event } = setup;
        let bans: Vec<_> = bans.into_iter().map(|ban| StoreOp::PutBan(Box::new(ban))).collect();
        let core = Core::open_with(engine, shards.len(), &bans)?;
        let boots =
            if retained_reads.is_some() { RetainedBoot::Rows } else { RetainedBoot::Messages };
        let from_start = Boot::new(core.snapshot(), shards.len(), core.numbers_from(), boots);
        let (jobs, jobs_taken) = unbounded();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(EngineError::Io)
        };
        shared.reach(StoreStage::Loading);
        let (outlets, for_boot, at) = (shards.clone(), Arc::clone(&shared), folder.clone());
        let tell = Arc::clone(&on_event);
        let booting = spawn(
            "store-boot",
            Box::new(move || boot::run(from_start, &outlets, &for_boot, &at, &tell)),
        )?;
        let (outlets, for_reader) = (shards.clone(), Arc::clone(&shared));
        let tell = Arc::clone(&on_event);
        let reading = spawn(
            "store-read",
            Box::new(move || reader::run(&jobs_taken, &outlets, &for_reader, &tell)),
        )?;
        let mut helpers = vec![booting, reading];
        let (mut latest, mut stop_reading) = (None, None);
        if let Some(reads) = retained_reads {
            let from = Arc::new(Latest::new(core.snapshot()));
            latest = Some(Arc::clone(&from));
            let (stop, stopped) = bounded(0);
            stop_reading = Some(stop);
            let (outlets, shared) = (shards.clone(), Arc::clone(&shared));
            let tell = Arc::clone(&on_event);
            let run = move || retained::run(&reads, &stopped, &from, &outlets, &shared, &tell);
            helpers.push(spawn("store-retained", Box::new(run))?);
        }
        let mut writer = Self {
            folder,
            has_ended: core.has_ended(),
            core,
            sync,
            shared,
            requests,
            control,
            outlets: shards.into_iter().map(WriterOutlet::new).collect(),
            jobs,
            latest,
            stop_reading,
            helpers,
            on_event,
            keepers: VecDeque::new(),
            gathering_since: None,
            unsynced_since: None,
            retry_at: None,
            sizes_at: Instant::now(),
            checked_at: Instant::now(),
            last_round: Instant::now(),
            removed: [0; Keyspace::COUNT],
            compacting: None,
            has_unsent: false,
            is_closing: false,
        };
        writer.refresh_sizes();
        writer.shared.gauges().cut = writer.core.engine().cut();
        Ok(writer)
    }

    /// Until it is closed.
    pub(super) fn run(mut self) -> Result<(), StoreError> {
        while !self.is_closing {
            self.receive();
            self.work();
        }
        self.close()
    }

    /// Waits for something to do and takes all batches there are.
    fn receive(&mut self) {
        let now = Instant::now();
        let timer = match self.next_due() {
            Some(due) => crossbeam_channel::at(due.max(now)),
            None => never(),
        };
        select! {
            recv(self.requests) -> request => match request {
                Ok(request) => self.core.take(request),
                Err(_) => self.is_closing = true,
            },
            recv(self.control) -> control => match control {
                Ok(Control::Snapshot(answer)) => {
                    if self.retry_at.is_none() {
                        // Who asked may have given up.
                        let _ = answer.send(Arc::new(self.core.snapshot()));
                    }
                }
                Ok(Control::Keep(ops, answer)) => {
                    self.core.take_own(ops);
                    self.keepers.push_back(answer);
                }
                Ok(Control::Close) | Err(_) => self.is_closing = true,
            },
            recv(timer) -> _ => {}
        }
        while let Ok(request) = self.requests.try_recv() {
            self.core.take(request);
        }
    }

    /// When there is something to do even if nothing comes.
    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let resend = self.has_unsent.then(|| now + RESEND);
        if let Some(retry) = self.retry_at {
            return Some(resend.map_or(retry, |resend| resend.min(retry)));
        }
        let gathered = self.gathering_since.map(|since| since + self.gather());
        let sync = match (self.sync, self.unsynced_since) {
            (StoreSync::Every(interval), Some(since)) => Some(since + interval),
            _ => None,
        };
        let sweep = (self.has_ended && !self.core.has_waiting()).then_some(now);
        let compaction = self.removed_much().map(|_| self.last_round + QUIET);
        [resend, gathered, sync, sweep, compaction].into_iter().flatten().min()
    }

    fn gather(&self) -> Duration {
        match self.sync {
            StoreSync::Always => Duration::ZERO,
            StoreSync::Every(interval) => (interval / 4).min(GATHER_MAX),
            StoreSync::Never => GATHER_MAX,
        }
    }

    fn work(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|retry| now < retry) {
            self.flush();
            return;
        }
        if let Err(error) = self.try_work(now) {
            self.failed(&error, now.elapsed());
        } else if self.retry_at.take().is_some() {
            self.recovered();
        }
        self.flush();
        if now.duration_since(self.sizes_at) >= SIZES {
            self.refresh_sizes();
        }
    }

    fn try_work(&mut self, now: Instant) -> Result<(), EngineError> {
        if self.retry_at.is_some() {
            let outcome = self.core.recover()?;
            self.has_ended = self.core.has_ended();
            if let Some(outcome) = outcome {
                self.done(outcome);
            }
        }
        if now.duration_since(self.checked_at) >= SIZES {
            self.checked_at = now;
            self.core.engine_mut().check()?;
        }
        if self.is_due(now) {
            self.round()?;
        }
        if let (StoreSync::Every(interval), Some(since)) = (self.sync, self.unsynced_since)
            && now.duration_since(since) >= interval
        {
            self.sync()?;
        }
        if self.has_ended && !self.core.has_waiting() {
            let outcome = self.core.sweep()?;
            self.note_removed(outcome.removed);
            self.done(outcome);
            self.unsynced_since.get_or_insert(now);
            self.last_round = now;
        }
        if now.duration_since(self.last_round) >= QUIET {
            self.compact();
        }
        Ok(())
    }

    fn note_removed(&mut self, more: [u64; Keyspace::COUNT]) {
        for (removed, more) in self.removed.iter_mut().zip(more) {
            *removed += more;
        }
    }

    fn removed_much(&self) -> Option<Keyspace> {
        let is_busy = self.compacting.as_ref().is_some_and(|thread| !thread.is_finished());
        let much = |&keyspace: &Keyspace| self.removed[keyspace.index()] >= REMOVED_MUCH;
        Keyspace::ALL.into_iter().find(much).filter(|_| !is_busy)
    }

    /// Gives space back. At work the engine merges its tables as they come; what was removed last would stay on disk until as
    /// much has come again.
    fn compact(&mut self) {
        let Some(keyspace) = self.removed_much() else { return };
        self.removed[keyspace.index()] = 0;
        // The next one comes after another quiet time.
        self.last_round = Instant::now();
        let compaction = self.core.engine().compaction(keyspace);
        let thread = std::thread::Builder::new().name("store-compact".to_owned());
        let spawned = thread.spawn(move || {
            if let Err(error) = compaction() {
                log::warn!("the store could not give space back: {error}");
            }
        });
        match spawned {
            Ok(thread) => self.compacting = Some(thread),
            Err(error) => log::warn!("the store could not give space back: {error}"),
        }
    }

    /// Whether what waits is to be applied now.
    fn is_due(&mut self, now: Instant) -> bool {
        if !self.core.has_waiting() {
            self.gathering_since = None;
            return false;
        }
        let since = *self.gathering_since.get_or_insert(now);
        let is_due =
            now.duration_since(since) >= self.gather() || self.is_closing || self.core.is_urgent();
        if is_due {
            self.gathering_since = None;
        }
        is_due
    }

    fn round(&mut self) -> Result<(), EngineError> {
        let start = Instant::now();
        let is_always = self.sync == StoreSync::Always;
        let shared = &self.shared;
        let outcome = self.core.commit(|engine| {
            if is_always {
                timed(shared, || engine.sync())?;
            }
            Ok(is_always)
        })?;
        let Some(outcome) = outcome else { return Ok(()) };
        if !is_always {
            self.unsynced_since.get_or_insert(start);
        }
        self.shared.gauges().round(&outcome, start.elapsed());
        self.last_round = start;
        self.note_removed(outcome.removed);
        self.done(outcome);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        timed(&self.shared, || self.core.sync())?;
        self.unsynced_since = None;
        Ok(())
    }

    fn done(&mut self, outcome: Outcome) {
        // Before shards are told that it is committed: what they ask then has it.
        self.publish_latest();
        for (shard, reply) in outcome.replies {
            self.outlets[shard.index()].push(reply);
        }
        for (shard, sequence) in outcome.committed {
            self.outlets[shard.index()].commit(sequence);
        }
        for keeper in self.keepers.drain(..outcome.own) {
            // Who asked may have given up.
            let _ = keeper.send(());
        }
        if !outcome.loads.is_empty() {
            let snapshot = Arc::new(self.core.snapshot());
            for (shard, session) in outcome.loads {
                // The reader ends only after this thread has.
                let _ = self.jobs.send(Job { snapshot: Arc::clone(&snapshot), shard, session });
            }
        }
        self.has_ended = self.core.has_ended();
        let damage = self.core.damage();
        let before = std::mem::replace(&mut self.shared.gauges().damage_written, damage);
        if let Some(text) = damage.text().filter(|_| damage != before) {
            (self.on_event)(StoreEvent::Damaged(&text));
        }
    }

    fn publish_latest(&self) {
        if let Some(latest) = &self.latest {
            latest.set(Some(self.core.snapshot()));
        }
    }

    fn flush(&mut self) {
        self.has_unsent = false;
        for outlet in &mut self.outlets {
            self.has_unsent |= !outlet.flush();
        }
    }

    fn failed(&mut self, error: &EngineError, took: Duration) {
        let is_new = self.retry_at.is_none();
        // Opening a long journal anew takes a while; it is not to be all this thread does.
        self.retry_at = Some(Instant::now() + RETRY.max(took * 2));
        // The files are not opened anew while somebody has them open.
        if let Some(latest) = &self.latest {
            latest.set(None);
        }
        let why = error.to_string();
        self.shared.gauges().failed(&why);
        if is_new {
            self.tell_shards(StoreHealth::Failing);
            (self.on_event)(StoreEvent::Failing(&why));
        }
    }

    fn recovered(&mut self) {
        self.publish_latest();
        self.shared.gauges().recovered();
        self.tell_shards(StoreHealth::Good);
        (self.on_event)(StoreEvent::Good);
    }

    fn tell_shards(&mut self, health: StoreHealth) {
        for outlet in &mut self.outlets {
            outlet.push(StoreReply::Health(health));
        }
    }

    fn refresh_sizes(&mut self) {
        self.sizes_at = Instant::now();
        self.shared.gauges().sizes = self.core.engine().sizes();
    }

    fn close(mut self) -> Result<(), StoreError> {
        while let Ok(request) = self.requests.try_recv() {
            self.core.take(request);
        }
        let mut end = if self.retry_at.is_some() {
            self.core.recover().map(|outcome| outcome.map(|outcome| self.done(outcome)))
        } else {
            Ok(None)
        };
        if end.is_ok() {
            end = self.round().map(Some);
        }
        if end.is_ok() {
            end = self.sync().map(Some);
        }
        self.flush();
        self.refresh_sizes();
        self.shared.close();
        drop(self.jobs);
        drop(self.stop_reading);
        for helper in self.helpers.into_iter().chain(self.compacting) {
            if let Err(panic) = helper.join() {
                std::panic::resume_unwind(panic);
            }
        }
        end.map_err(|error| StoreError::at_work(&self.folder, error))?;
        if let Err(error) = self.core.engine_mut().end() {
            log::warn!("the store could not note its end: {error}; nothing is lost by that");
        }
        Ok(())
    }
}

fn timed(
    shared: &Shared,
    sync: impl FnOnce() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let start = Instant::now();
    sync()?;
    shared.gauges().synced(start.elapsed());
    Ok(())
}
