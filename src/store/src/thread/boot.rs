//! The thread that tells the shards what is there at the start.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::outlet::send;
use super::shared::Shared;
use super::{OnEvent, ShardOutlet, StoreEvent, StoreStage};
use crate::StoreError;
use crate::core::Boot;
use crate::engine::EngineRead;

pub(super) fn run<R: EngineRead>(
    mut boot: Boot<R>,
    outlets: &[ShardOutlet],
    shared: &Arc<Shared>,
    folder: &Path,
    on_event: &OnEvent,
) {
    let start = Instant::now();
    let mut has_told = false;
    loop {
        let step = boot.step(&mut |shard, reply| {
            // A shard that has ended is not waited for; the others go on.
            send(&outlets[shard.index()], reply, shared);
        });
        if shared.is_closing() {
            return;
        }
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if !boot.has_found_all() => {
                shared.fail(StoreError::from(error).at_start(folder));
                return;
            }
            // The shards serve, and who is not damaged goes on.
            Err(error) => {
                shared.gauges().damage_read.values += 1;
                on_event(StoreEvent::Damaged(&error.to_string()));
                boot.pass_over(&mut |shard, reply| {
                    send(&outlets[shard.index()], reply, shared);
                });
            }
        }
        if boot.has_found_all() && !has_told {
            has_told = true;
            tell(&boot, start, shared, on_event);
        }
    }
}

/// Shards have what they need to serve.
fn tell<R: EngineRead>(boot: &Boot<R>, start: Instant, shared: &Shared, on_event: &OnEvent) {
    shared.found_bans(boot.bans());
    let (found, damage) = (boot.found(), boot.damage());
    if let Some(text) = damage.text() {
        on_event(StoreEvent::Damaged(&text));
    }
    log::info!(
        "the store handed over {} sessions, {} retained and {} delayed messages in {:.1} s",
        found.sessions,
        found.retained,
        found.delayed,
        start.elapsed().as_secs_f64()
    );
    let mut gauges = shared.gauges();
    gauges.found = Some(found);
    gauges.damage_read.values += damage.values;
    drop(gauges);
    shared.reach(StoreStage::Ready);
}
