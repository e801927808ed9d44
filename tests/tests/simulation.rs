//! The simulation, for many seeds. A failing seed is printed and fails again: `scripts/simulate --seed N --shards N`.

use ringmq_tests::simulation;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn simulate(shards: usize) {
    let first = number("SIMULATION_FIRST_SEED", 0);
    let seeds = number("SIMULATION_SEEDS", 300);
    let steps = usize::try_from(number("SIMULATION_STEPS", 1500)).expect("a number of steps");
    let mut received = 0;
    for seed in first..first + seeds {
        match std::panic::catch_unwind(|| simulation::run(seed, shards, steps)) {
            Ok(Ok(report)) => received += report.received,
            Ok(Err(broken)) => panic!("seed {seed}, {shards} shards, {steps} steps: {broken}"),
            Err(panic) => {
                eprintln!("seed {seed}, {shards} shards, {steps} steps: a panic");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(received > 0, "a simulation in which nobody receives anything shows nothing");
}

#[test]
fn one_shard() {
    simulate(1);
}

#[test]
fn two_shards() {
    simulate(2);
}

#[test]
fn three_shards() {
    simulate(3);
}

#[test]
fn eight_shards() {
    simulate(8);
}
