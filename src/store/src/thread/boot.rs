//! The thread that tells the shards what is there at the start.

use std::sync::Arc;
use std::time::Instant;

use super::outlet::send;
use super::shared::Shared;
use super::{ShardOutlet, StoreStage};
use crate::StoreError;
use crate::core::Boot;
use crate::engine::EngineRead;

pub(super) fn run<R: EngineRead>(mut boot: Boot<R>, outlets: &[ShardOutlet], shared: &Arc<Shared>) {
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
            Err(error) => {
                log::error!("the store cannot be read: {error}");
                shared.fail(StoreError::from(error));
                return;
            }
        }
        if boot.has_found_all() && !has_told {
            has_told = true;
            tell(&boot, start, shared);
        }
    }
    let damage = boot.damage();
    if damage.values > 0 {
        log::error!(
            "{} values of the store were damaged and are left out; a backup may have them",
            damage.values
        );
        shared.gauges().damage_read.values += damage.values;
    }
}

/// Shards have what they need to serve.
fn tell<R: EngineRead>(boot: &Boot<R>, start: Instant, shared: &Shared) {
    let found = boot.found();
    log::info!(
        "the store handed over {} sessions, {} retained and {} delayed messages in {:.1} s",
        found.sessions,
        found.retained,
        found.delayed,
        start.elapsed().as_secs_f64()
    );
    shared.gauges().found = Some(found);
    shared.reach(StoreStage::Ready);
}
