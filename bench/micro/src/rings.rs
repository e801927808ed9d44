//! Pushing to and popping from the rings between shards, without the wait for another core.

use crate::meter::Meter;
use ring::{Capacities, Endpoint, Mesh, ShardId, default_capacity, spsc};
use std::hint::black_box;

const OPERATIONS: usize = 10_000;
/// Batches pushed before the other shard looks, in the row that shows what a doorbell costs each.
const TOGETHER: usize = 64;
const SHARDS: usize = 2;

/// As large as the batches of the data lane.
type Batch = [u64; 7];

/// Measures all of it.
pub fn run(meter: &mut Meter) {
    let Capacities { data, control } = default_capacity(SHARDS);
    let (mut producer, mut consumer) = spsc::channel::<Batch>(data);
    let (mut sent, mut received) = (Batch::default(), Batch::default());
    meter.measure("ring: push and pop", OPERATIONS, |_| {
        let is_pushed = producer.push(black_box(&mut sent)).is_ok();
        let is_popped = consumer.pop(black_box(&mut received));
        black_box((is_pushed, is_popped));
    });

    let endpoints = Mesh::build::<Batch, Batch>(SHARDS, data, control);
    let [mut one, mut two] = <[_; SHARDS]>::try_from(endpoints).expect("an endpoint per shard");
    meter.measure("mesh: push, doorbell, pop, find empty", OPERATIONS, |_| {
        push(&mut one, two.id(), &mut sent);
        black_box(one.take_doorbells());
        drain(&mut two, &mut received);
    });
    // The rounds are fewer; each operation stands for a batch.
    meter.measure(
        "mesh: the same, 64 batches together",
        OPERATIONS / TOGETHER * TOGETHER,
        |number| {
            push(&mut one, two.id(), &mut sent);
            if (number + 1).is_multiple_of(TOGETHER) {
                black_box(one.take_doorbells());
                drain(&mut two, &mut received);
            }
        },
    );
}

#[inline]
fn push(from: &mut Endpoint<Batch, Batch>, to: ShardId, batch: &mut Batch) {
    let is_pushed = from.push_data(to, black_box(batch)).is_ok();
    assert!(is_pushed, "the ring has room");
}

/// What a shard does in a tick, for both lanes.
#[inline]
fn drain(shard: &mut Endpoint<Batch, Batch>, batch: &mut Batch) {
    let pending = shard.next_pending();
    for from in pending.iter() {
        while shard.pop_control(from, batch) {
            black_box(&batch);
        }
        while shard.pop_data(from, batch) {
            black_box(&batch);
        }
    }
}
