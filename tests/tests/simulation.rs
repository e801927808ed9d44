//! The simulation, for many seeds. A failing seed is printed and fails again: `scripts/simulate --seed N --shards N`, for those
//! with a disk `scripts/simulate --store always|interval --seed N --shards N`.

use ringmq_tests::simulation;
use shard::StoreMode;

const INTERVAL_MS: u64 = 100;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn simulate(shards: usize, mode: Option<StoreMode>, seeds: u64) {
    let first = number("SIMULATION_FIRST_SEED", 0);
    let seeds = number("SIMULATION_SEEDS", seeds);
    let steps = usize::try_from(number("SIMULATION_STEPS", 1500)).expect("a number of steps");
    let (mut received, mut crashes) = (0, 0);
    for seed in first..first + seeds {
        let run = format!("seed {seed}, {shards} shards, {steps} steps, {mode:?}");
        match std::panic::catch_unwind(|| simulation::run(seed, shards, steps, mode)) {
            Ok(Ok(report)) => {
                received += report.received;
                crashes += report.crashes;
            }
            Ok(Err(broken)) => panic!("{run}: {broken}"),
            Err(panic) => {
                eprintln!("{run}: a panic");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(received > 0, "a simulation in which nobody receives anything shows nothing");
    assert!(mode.is_none() || seeds < 10 || crashes > 0, "nothing crashed");
}

fn with_store(shards: usize, mode: StoreMode) {
    simulate(shards, Some(mode), 100);
}

#[test]
fn one_shard() {
    simulate(1, None, 300);
}

#[test]
fn two_shards() {
    simulate(2, None, 300);
}

#[test]
fn three_shards() {
    simulate(3, None, 300);
}

#[test]
fn eight_shards() {
    simulate(8, None, 300);
}

#[test]
fn one_shard_that_crashes() {
    with_store(1, StoreMode::Always);
}

#[test]
fn two_shards_that_crash() {
    with_store(2, StoreMode::Always);
}

#[test]
fn three_shards_that_crash() {
    with_store(3, StoreMode::Always);
}

#[test]
fn eight_shards_that_crash() {
    with_store(8, StoreMode::Always);
}

#[test]
fn two_shards_that_crash_between_intervals() {
    with_store(2, StoreMode::EveryMs(INTERVAL_MS));
}
