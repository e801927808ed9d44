//! The simulation, for many seeds. A failing seed is printed and fails again: `scripts/simulate --store none|always|interval
//! --shards N --seed N`, with `--trace` to see why.

use ringmq_tests::simulation;
use shard::StoreMode;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn simulate(shards: usize, mode: Option<StoreMode>, seeds: u64) {
    let first = number("SIMULATION_FIRST_SEED", 0);
    let seeds = number("SIMULATION_SEEDS", seeds);
    // A store and its crashes take many of the steps.
    let steps = number("SIMULATION_STEPS", if mode.is_some() { 4000 } else { 1500 });
    let steps = usize::try_from(steps).expect("a number of steps");
    let (mut published, mut received, mut starts, mut crashes, mut counted) = (0, 0, 0, 0, 0);
    for seed in first..first + seeds {
        let run = format!("seed {seed}, {shards} shards, {steps} steps, {mode:?}");
        match std::panic::catch_unwind(|| simulation::run(seed, shards, steps, mode)) {
            Ok(Ok(report)) => {
                published += report.published;
                received += report.received;
                starts += report.starts;
                crashes += report.crashes;
                counted += report.counted;
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
         received, {starts} starts, {crashes} of them after a crash, {counted} queues counted"
    );
    assert!(received > 0, "a simulation in which nobody receives anything shows nothing");
    assert!(mode.is_none() || seeds < 10 || crashes > 0, "nothing crashed");
    assert!(mode.is_none() || seeds < 10 || counted > 0, "no session had messages at a stop");
}

/// Without a store.
mod none {
    use super::simulate;

    const SEEDS: u64 = 300;

    #[test]
    fn one_shard() {
        simulate(1, None, SEEDS);
    }

    #[test]
    fn two_shards() {
        simulate(2, None, SEEDS);
    }

    #[test]
    fn three_shards() {
        simulate(3, None, SEEDS);
    }

    #[test]
    fn eight_shards() {
        simulate(8, None, SEEDS);
    }
}

/// With a store that keeps everything before it is acknowledged, and a broker that crashes.
mod always {
    use shard::StoreMode::Always;

    use super::simulate;

    const SEEDS: u64 = 50;

    #[test]
    fn one_shard() {
        simulate(1, Some(Always), SEEDS);
    }

    #[test]
    fn two_shards() {
        simulate(2, Some(Always), SEEDS);
    }

    #[test]
    fn three_shards() {
        simulate(3, Some(Always), SEEDS);
    }

    #[test]
    fn four_shards() {
        simulate(4, Some(Always), SEEDS);
    }

    #[test]
    fn eight_shards() {
        simulate(8, Some(Always), SEEDS);
    }
}

/// With a store that keeps everything within an interval, and a broker that crashes.
mod interval {
    use shard::StoreMode::EveryMs;

    use super::simulate;

    const INTERVAL_MS: u64 = 100;
    const SEEDS: u64 = 50;

    #[test]
    fn one_shard() {
        simulate(1, Some(EveryMs(INTERVAL_MS)), SEEDS);
    }

    #[test]
    fn two_shards() {
        simulate(2, Some(EveryMs(INTERVAL_MS)), SEEDS);
    }

    #[test]
    fn eight_shards() {
        simulate(8, Some(EveryMs(INTERVAL_MS)), SEEDS);
    }
}
