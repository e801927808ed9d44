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
    // A store and its crashes take many of the steps.
    let steps = number("SIMULATION_STEPS", if mode.is_some() { 4000 } else { 1500 });
    let steps = usize::try_from(steps).expect("a number of steps");
    let (mut published, mut received, mut starts, mut crashes) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let run = format!("seed {seed}, {shards} shards, {steps} steps, {mode:?}");
        match std::panic::catch_unwind(|| simulation::run(seed, shards, steps, mode)) {
            Ok(Ok(report)) => {
                published += report.published;
                received += report.received;
                starts += report.starts;
                crashes += report.crashes;
            }
            Ok(Err(broken)) => panic!("{run}: {broken}"),
            Err(panic) => {
                eprintln!("{run}: a panic");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!(
        "{seeds} seeds from {first}, {shards} shards, {steps} steps, {mode:?}: {published} messages published, {received} \
         received, {starts} starts, {crashes} of them after a crash"
    );
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
