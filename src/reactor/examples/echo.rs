//! A bare echo over the reactor: what the machine gives before anything is MQTT. `echo <address> <shards>`.

#[path = "../tests/common/mod.rs"]
mod common;

use ringmq_reactor::ReactorSettings;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7007".to_owned());
    let shards = arguments.next().map_or(1, |number| number.parse().expect("a number of shards"));
    ringmq_reactor::raise_open_files();
    let report = ringmq_reactor::probe(shards).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1);
    });
    eprintln!("{report}");
    let settings = vec![ReactorSettings::default(); shards];
    let echoes = common::start_at(&address, &settings, false, report.features);
    eprintln!("echoes on {}", echoes.address);
    loop {
        std::thread::park();
    }
}
