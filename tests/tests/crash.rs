//! A broker that is killed in the middle of load loses nothing it acknowledged: `scripts/crash --rounds N --seed S`.

use ringmq_tests::crash;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let seed = number("CRASH_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.expect("the clock is set").subsec_nanos()) % 1_000_000
    });
    let rounds = usize::try_from(number("CRASH_ROUNDS").unwrap_or(3)).expect("a number of rounds");
    println!("seed {seed}, {rounds} rounds");
    let report = crash::run(seed, rounds).unwrap_or_else(|lost| panic!("{lost}"));
    assert!(report.acknowledged > 0 && report.received > 0, "nothing was shown: {report:?}");
    println!("{report:?}");
}
