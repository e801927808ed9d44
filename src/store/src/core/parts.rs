//! Which batches may be applied together: changes that several shards make for one message wait for each other.

use std::collections::VecDeque;

use hashbrown::HashMap;
use session::MessageId;
use shard::storage::StoreBatch;

/// What has come of a change.
#[derive(Default)]
struct Change {
    /// How many parts there are, once the publisher's shard has said it.
    parts: Option<u16>,
    came: u16,
}

impl Change {
    fn is_whole(&self) -> bool {
        self.parts == Some(self.came)
    }
}

/// How many batches of each shard, from the oldest on, can be applied in one write such that no change is applied in part: the
/// most there are.
///
/// Two shards may wait for each other's parts in any order; all that is needed is that a set of batches has all parts of
/// its changes. So it starts with all, and cuts off what lacks a part until nothing does.
pub(super) fn ready(waiting: &[VecDeque<StoreBatch>]) -> Vec<usize> {
    let mut counts: Vec<usize> = waiting.iter().map(VecDeque::len).collect();
    if waiting.iter().flatten().all(|batch| batch.parts.is_empty()) {
        return counts;
    }
    loop {
        let mut changes: HashMap<MessageId, Change> = HashMap::new();
        for (waiting, &count) in waiting.iter().zip(&counts) {
            for part in waiting.iter().take(count).flat_map(|batch| &batch.parts) {
                let change = changes.entry(part.message).or_default();
                change.came += 1;
                change.parts = change.parts.or(part.parts);
            }
        }
        let mut is_stable = true;
        for (waiting, count) in waiting.iter().zip(&mut counts) {
            let lacks = |batch: &StoreBatch| {
                batch.parts.iter().any(|part| !changes[&part.message].is_whole())
            };
            if let Some(cut) = waiting.iter().take(*count).position(lacks) {
                *count = cut;
                is_stable = false;
            }
        }
        if is_stable {
            return counts;
        }
    }
}
