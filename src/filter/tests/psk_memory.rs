//! What a connection with a pre-shared key costs that does nothing. OpenSSL allocates by itself, so that is measured by the
//! memory of the process; there is one test in this file, as others beside it would be counted too.
#![allow(missing_docs, reason = "tests have no readers of documentation")]
#![cfg(feature = "psk")]

mod common;

use common::openssl_client::client;
use common::{Folder, settings};
use filter::{Filter, TlsOptions};
use openssl::ssl::SslVersion;
use ringmq_filter as filter;

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn idle_connections_with_a_key_cost_little() {
    const COUNT: usize = 1000;
    let folder = Folder::new();
    let options =
        TlsOptions::with_keys(folder.write("keys", "meter:000102030405060708090a0b0c0d0e0f"));
    let settings = settings(&options);
    let key: Vec<u8> = (0..16).collect();
    // Those of the first version are kept, or their memory would be used again.
    let mut all = Vec::new();
    for (version, name) in [(SslVersion::TLS1_2, "TLS 1.2"), (SslVersion::TLS1_3, "TLS 1.3")] {
        let open = || {
            let mut client = client(version, Some(("meter", &key)), b"\x04mqtt");
            let mut filter = Filter::new(&settings);
            for _ in 0..6 {
                let _ = client.do_handshake();
                let mut raw = std::mem::take(&mut client.get_mut().1);
                let (mut plain, mut wire) = (vec![], vec![]);
                filter.received(&mut raw, &mut plain, &mut wire).unwrap();
                client.get_mut().0.extend(wire);
            }
            assert!(filter.is_open());
            let mut wire = vec![];
            filter.send([&b"\x20\x02\0\0"[..]].into_iter(), &mut wire).unwrap();
            drop(filter.take_peer());
            filter
        };
        // What is made once, and what the allocator keeps of clients.
        drop((0..200).map(|_| open()).collect::<Vec<_>>());
        let before = resident();
        all.extend((0..COUNT).map(|_| open()));
        let each = resident().saturating_sub(before) / COUNT;
        let said = all[all.len() - 1].heap_bytes();
        println!("{name} with a pre-shared key: {each} bytes (says {said})");
        assert!(each <= 16 * 1024, "{name}: {each}");
        assert!(said.abs_diff(each) * 100 / each <= 20, "{name}: says {said}, has {each}");
    }
}
