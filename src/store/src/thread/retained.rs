//! The thread that reads retained messages which shards do not hold in memory. It reads what was committed last and waits for no
//! batch: who subscribes while the disk is busy with a sync gets them all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use shard::storage::{RetainedRead, StoreReply, StoredRetainedPage};

use super::outlet::send;
use super::shared::Shared;
use super::{OnEvent, ShardOutlet, StoreEvent};
use crate::core::{Damage, RetainedOf, read_retained};
use crate::engine::EngineRead;

/// How often it is looked whether there is something to read again.
const WAIT: Duration = Duration::from_millis(20);

/// The state of the last commit; none while the store cannot write and its files are opened anew.
pub(super) struct Latest<S>(Mutex<Option<Arc<S>>>);

impl<S> Latest<S> {
    pub(super) fn new(snapshot: S) -> Self {
        Self(Mutex::new(Some(Arc::new(snapshot))))
    }

    pub(super) fn set(&self, snapshot: Option<S>) {
        let before = std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            snapshot.map(Arc::new),
        );
        // Letting go of one takes locks of the engine: not under this one.
        drop(before);
    }

    fn get(&self) -> Option<Arc<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers until `stop` is dropped, or all who could ask have ended.
pub(super) fn run<S: EngineRead>(
    reads: &Receiver<RetainedRead>,
    stop: &Receiver<()>,
    latest: &Latest<S>,
    outlets: &[ShardOutlet],
    shared: &Shared,
    on_event: &OnEvent,
) {
    loop {
        let RetainedRead { shard, id, query } = select! {
            recv(reads) -> read => match read {
                Ok(read) => read,
                Err(_) => return,
            },
            recv(stop) -> _ => return,
        };
        let snapshot = loop {
            match latest.get() {
                Some(snapshot) => break snapshot,
                None if shared.is_closing() => return,
                None => std::thread::sleep(WAIT),
            }
        };
        let of = RetainedOf { shard, shards: outlets.len() };
        let mut damage = Damage::default();
        let mut said = None;
        let page = read_retained(&*snapshot, of, &query, &mut damage).unwrap_or_else(|error| {
            damage.values += 1;
            said = Some(format!("retained messages cannot be read: {error}"));
            StoredRetainedPage::default()
        });
        drop(snapshot);
        if let Some(text) = said.or_else(|| damage.text()) {
            on_event(StoreEvent::Damaged(&text));
        }
        if damage.values > 0 {
            shared.gauges().damage_read.values += damage.values;
        }
        if !send(&outlets[shard.index()], StoreReply::RetainedPage { id, page }, shared)
            && shared.is_closing()
        {
            return;
        }
    }
}
