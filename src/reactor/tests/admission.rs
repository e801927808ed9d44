//! Connections that come faster than they are let in, on the kernel's own sockets (NONE-09).

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::{Echoes, small, start, start_filtered, until};
use filter::{FilterSettings, WebSocketSettings};
use ringmq_reactor::{
    AdmissionSettings, FilterTable, FilterTimes, ListenerId, ReactorCounter, ReactorSettings, probe,
};

fn letting_in(budget: usize, queue_max: usize, deadline_ms: u64) -> ReactorSettings {
    let admission =
        AdmissionSettings { budget, queue_max, deadline_ms, ..AdmissionSettings::default() };
    ReactorSettings { admission, ..small() }
}

/// Connections that come while the shard is busy, so that it finds all of them at once.
fn storm(echoes: &Echoes, count: usize) -> Vec<TcpStream> {
    echoes.shards[0].tell(|_| std::thread::sleep(Duration::from_millis(300)));
    let connect = |_| {
        let stream = TcpStream::connect(echoes.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Whether a connection is echoed, or was closed.
fn is_served(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"hello");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).is_ok_and(|()| answer == *b"hello")
}

fn counted(echoes: &Echoes, counter: ReactorCounter) -> u64 {
    echoes.shards[0].thread.counters.get(counter)
}

#[test]
fn who_is_over_the_budget_waits_and_is_served() {
    let echoes = start(&[letting_in(2, 1000, 10_000)], false);
    let mut streams = storm(&echoes, 100);
    assert!(streams.iter_mut().all(is_served));
    // A tick or two found all of them.
    let waited = counted(&echoes, ReactorCounter::AcceptWaited);
    assert!((80..=98).contains(&waited), "{waited}");
    assert_eq!(counted(&echoes, ReactorCounter::AcceptQueueFull), 0);
    echoes.stop();
}

#[test]
fn who_finds_the_queue_full_is_closed_and_the_others_are_served() {
    let echoes = start(&[letting_in(1, 10, 10_000)], false);
    let mut streams = storm(&echoes, 100);
    let served = streams.iter_mut().map(is_served).filter(|served| *served).count();
    let refused = counted(&echoes, ReactorCounter::AcceptQueueFull);
    assert_eq!(served as u64 + refused, 100);
    assert!(served >= 11 && refused >= 50, "{served} served, {refused} refused");
    // When it is over all is as before.
    assert!(is_served(&mut TcpStream::connect(echoes.address).unwrap()));
    echoes.stop();
}

#[test]
fn who_has_left_before_its_handshake_gets_none() {
    let filters = Arc::new(FilterTable::default());
    let settings =
        FilterSettings { websocket: Some(WebSocketSettings::default()), ..Default::default() };
    let times = FilterTimes { proxy_ms: 5000, handshake_ms: 5000 };
    filters.set(ListenerId(0), Some((Arc::new(settings), times)));
    let features = probe(1).expect("io_uring is there").features;
    let settings = [letting_in(1, 1000, 10_000)];
    let echoes = start_filtered("127.0.0.1:0", &settings, false, features, &filters);
    let mut streams = storm(&echoes, 50);
    // All but the first and the last leave while the shard is still busy.
    drop(streams.drain(1..49));
    until("all are let in or have left", || {
        echoes.shards[0].seen.accepted.load(Relaxed) + counted(&echoes, ReactorCounter::AcceptLeft)
            == 50
    });
    let left = counted(&echoes, ReactorCounter::AcceptLeft);
    assert!((40..=48).contains(&left), "{left}");
    for stream in &mut streams {
        let request = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Protocol: mqtt\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
    }
    echoes.stop();
}

#[test]
fn who_has_waited_too_long_is_closed() {
    let echoes = start(&[letting_in(1, 1000, 100)], false);
    // Each tick in which somebody is let in takes a while.
    echoes.shards[0].ask(|echo| echo.accept_pause = Duration::from_millis(30));
    let mut streams = storm(&echoes, 50);
    let served = streams.iter_mut().map(is_served).filter(|served| *served).count();
    let late = counted(&echoes, ReactorCounter::AcceptLate);
    assert_eq!(served as u64 + late, 50);
    assert!((2..=10).contains(&served), "{served}");
    echoes.stop();
}
