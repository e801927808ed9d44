//! The driver on the kernel's own sockets, with a stand-in for the shard.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::{Echoes, small, start, start_at, until};
use ring::ShardId;
use ringmq_reactor::{self as reactor, Connect, Features, ReactorCounter, ReactorSettings};
use shard::Effect;

fn connect(echoes: &Echoes) -> TcpStream {
    let stream = TcpStream::connect(echoes.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn echoed(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    expect(stream, text);
}

fn expect(stream: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

#[test]
fn an_accepted_connection_is_echoed_and_closed() {
    let echoes = start(&[small()], false);
    let mut stream = connect(&echoes);
    let local = stream.local_addr().unwrap();
    echoed(&mut stream, b"hello");
    assert_eq!(echoes.shards[0].ask(|echo| echo.peers.clone()), [local]);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    until("it is closed", || echoes.shards[0].seen.closed.load(Relaxed) == 1);
    // The slot is used again, under another generation.
    let mut stream = connect(&echoes);
    echoed(&mut stream, b"again");
    echoes.stop();
}

#[test]
fn one_shot_accepts_and_ipv6_know_the_peer_too() {
    for (address, features) in [
        ("127.0.0.1:0", Features::default()),
        ("[::1]:0", Features::default()),
        ("[::]:0", Features { socket_options: true, ..Features::default() }),
    ] {
        let echoes = start_at(address, &[small()], false, features);
        let target = ("localhost", echoes.address.port());
        let mut streams: Vec<_> = (0..40)
            .map(|_| {
                TcpStream::connect(target).or_else(|_| TcpStream::connect(echoes.address)).unwrap()
            })
            .collect();
        for stream in &mut streams {
            echoed(stream, b"x");
        }
        let peers = echoes.shards[0].ask(|echo| echo.peers.clone());
        for stream in &streams {
            let local = stream.local_addr().unwrap();
            assert!(
                peers
                    .iter()
                    .any(|peer| peer.ip() == local.ip().to_canonical()
                        && peer.port() == local.port())
            );
        }
        echoes.stop();
    }
}

#[test]
fn a_thousand_connections_are_echoed_by_two_shards() {
    let echoes = start(&[small(), small()], false);
    let mut streams: Vec<_> = (0..1000).map(|_| connect(&echoes)).collect();
    for round in 0..5u32 {
        let text = format!("round {round}");
        for stream in &mut streams {
            stream.write_all(text.as_bytes()).unwrap();
        }
        for stream in &mut streams {
            expect(stream, text.as_bytes());
        }
    }
    let accepted = |shard: usize| echoes.shards[shard].seen.accepted.load(Relaxed);
    assert_eq!(accepted(0) + accepted(1), 1000);
    assert!(accepted(0) > 100 && accepted(1) > 100, "the kernel spreads them");
    drop(streams);
    let closed = |shard: usize| echoes.shards[shard].seen.closed.load(Relaxed);
    until("all are closed", || closed(0) + closed(1) == 1000);
    echoes.stop();
}

#[test]
fn what_is_larger_than_all_buffers_comes_back_whole() {
    // 64 buffers of 2 KiB: the ring runs empty and receives end with ENOBUFS, again and again.
    let settings = ReactorSettings { buffers: 4, tick_bytes_max: u32::MAX, ..small() };
    let echoes = start(&[settings], false);
    let text = common::text(3_000_000, 2..=254);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (mut stream, text) = (connect(&echoes), text.clone());
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let copy = text.clone();
                let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
                expect(&mut stream, &text);
                writing.join().unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let counters = &echoes.shards[0].thread.counters;
    assert!(counters.get(ReactorCounter::ReceiveNoBuffers) > 0);
    echoes.stop();
}

#[test]
fn a_crowd_that_leaves_at_once_is_let_go_in_slices() {
    let echoes = start(&[small()], false);
    let crowd: Vec<_> = (0..600).map(|_| connect(&echoes)).collect();
    let mut stays = connect(&echoes);
    let seen = &echoes.shards[0].seen;
    until("all are in", || seen.accepted.load(Relaxed) == 601);
    // The shard does nothing while they leave, so that it finds all of their ends at once.
    let (asleep, sleeps) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            echoes.shards[0].ask(move |_| {
                asleep.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(300));
            });
        });
        sleeps.recv().unwrap();
        drop(crowd);
        echoed(&mut stays, b"still here");
    });
    until("they have gone", || seen.closed.load(Relaxed) == 600);
    let most = seen.ended_in_tick_max.load(Relaxed);
    assert!((1..=32).contains(&most), "{most} ends in one tick");
    echoed(&mut stays, b"and alone");
    echoes.stop();
}

#[test]
fn a_connection_has_a_bounded_share_of_a_tick() {
    let settings = ReactorSettings { tick_bytes_max: 4096, ..small() };
    let echoes = start(&[settings], false);
    let mut stream = connect(&echoes);
    let text = common::text(1_000_000, 2..=242);
    let mut writer = stream.try_clone().unwrap();
    let copy = text.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    expect(&mut stream, &text);
    writing.join().unwrap();
    let seen = &echoes.shards[0].seen;
    // One buffer may go beyond the share.
    assert!(seen.received_bytes_in_tick_max.load(Relaxed) < 4096 + 2048);
    assert!(echoes.shards[0].thread.counters.get(ReactorCounter::ReceiveShareUsed) > 0);
    until("the end comes after all bytes", || seen.closed.load(Relaxed) == 1);
    assert_eq!(seen.received_bytes.load(Relaxed), 1_000_000);
    echoes.stop();
}

#[test]
fn a_paused_connection_receives_nothing_until_it_resumes() {
    let echoes = start(&[small()], false);
    let mut stream = connect(&echoes);
    echoed(&mut stream, b"one");
    let index = 0;
    echoes.shards[0].ask(move |echo| {
        let id = echo.id(index);
        echo.effects.push(Effect::PauseReceive(id));
    });
    // The pause takes hold in the tick of the order; another answer means that tick is over.
    echoes.shards[0].ask(|_| ());
    stream.write_all(b"two").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = stream.read(&mut [0; 8]).unwrap_err();
    let nothing = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(nothing, "{error}");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Resume, pause and resume in one tick: the last counts.
    echoes.shards[0].ask(move |echo| {
        let id = echo.id(index);
        echo.effects.push(Effect::ResumeReceive(id));
        echo.effects.push(Effect::PauseReceive(id));
        echo.effects.push(Effect::ResumeReceive(id));
    });
    expect(&mut stream, b"two");
    echoed(&mut stream, b"three");
    echoes.stop();
}

#[test]
fn a_connection_moves_with_its_unread_bytes() {
    let echoes = start(&[small(), small()], true);
    let mut stream = connect(&echoes);
    echoed(&mut stream, b"here");
    stream.write_all(b"\x01MOVE 1\nunread").unwrap();
    expect(&mut stream, b"MOVED:unread");
    echoed(&mut stream, b"there");
    // And back again.
    stream.write_all(b"\x01MOVE 0\n").unwrap();
    expect(&mut stream, b"MOVED:");
    echoed(&mut stream, b"back");
    until("the slots left are free", || {
        echoes.shards.iter().all(|shard| shard.seen.closed.load(Relaxed) == 1)
    });
    drop(stream);
    until("the end is seen", || echoes.shards[0].seen.closed.load(Relaxed) == 2);
    echoes.stop();
}

#[test]
fn many_connections_move_while_bytes_come() {
    let echoes = start(&[small(), small()], true);
    let mut streams: Vec<_> = (0..400).map(|_| connect(&echoes)).collect();
    for stream in &mut streams {
        stream.write_all(b"\x01MOVE 1\n").unwrap();
        stream.write_all(b"first").unwrap();
        stream.write_all(b"second").unwrap();
    }
    for stream in &mut streams {
        expect(stream, b"MOVED:firstsecond");
    }
    assert_eq!(echoes.shards[1].seen.adopted.load(Relaxed), 400);
    drop(streams);
    for shard in &echoes.shards {
        until("all are closed", || shard.seen.closed.load(Relaxed) == 400);
    }
    echoes.stop();
}

#[test]
fn a_move_to_a_full_shard_gives_the_connection_back() {
    let tiny = ReactorSettings { connections_max: Some(2), ..small() };
    let echoes = start(&[small(), tiny], true);
    let mut streams: Vec<_> = (0..3).map(|_| connect(&echoes)).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(b"\x01MOVE 1\n").unwrap();
        expect(stream, if number < 2 { b"MOVED:" } else { b"FULL" });
    }
    assert_eq!(streams[2].read(&mut [0; 8]).unwrap(), 0, "it is closed in good order");
    assert_eq!(echoes.shards[0].thread.counters.get(ReactorCounter::HandOversFailed), 1);
    echoes.stop();
}

#[test]
fn a_lingering_close_delivers_the_last_bytes() {
    let echoes = start(&[small()], false);
    let mut stream = connect(&echoes);
    // More segments than one call takes, more bytes than the socket holds, and unread input when it closes.
    let total = 3_000_000;
    stream.write_all(format!("\x01BIG {total}\n").as_bytes()).unwrap();
    stream.write_all(&[b'x'; 5000]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == common::text(total, 0..=250), "{} bytes", answer.len());
    drop(stream);
    until("it is closed", || echoes.shards[0].seen.closed.load(Relaxed) == 1);
    assert_eq!(echoes.shards[0].thread.counters.get(ReactorCounter::LingerTimeouts), 0);
    echoes.stop();
}

#[test]
fn lingering_ends_when_the_peer_does_nothing() {
    let settings = ReactorSettings { linger_send_ms: 200, linger_drain_ms: 200, ..small() };
    let echoes = start(&[settings], false);
    // One that does not take its bytes, one that takes them but does not close.
    let mut slow = connect(&echoes);
    slow.write_all(b"\x01BIG 20000000\n").unwrap();
    let mut open = connect(&echoes);
    open.write_all(b"\x01BIG 10\n").unwrap();
    until("both are closed", || echoes.shards[0].seen.closed.load(Relaxed) == 2);
    assert_eq!(echoes.shards[0].thread.counters.get(ReactorCounter::LingerTimeouts), 2);
    assert_eq!(echoes.shards[0].seen.sends_failed.load(Relaxed), 1, "its buffers came back");
    echoes.stop();
}

#[test]
fn a_close_at_once_ends_a_stuck_send() {
    let echoes = start(&[small()], false);
    let mut stream = connect(&echoes);
    // It writes and never reads, until its echo is stuck.
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write(&[b'x'; 65536]).is_ok() {
        if echoes.shards[0].seen.received_bytes.load(Relaxed) > 8 << 20 {
            break;
        }
    }
    echoes.shards[0].tell(|echo| {
        let id = echo.id(0);
        echo.effects.push(Effect::Close { id, mode: shard::CloseMode::Now });
    });
    until("it is closed", || echoes.shards[0].seen.closed.load(Relaxed) == 1);
    echoes.stop();
}

#[test]
fn a_full_table_backs_off_and_recovers() {
    let settings = ReactorSettings { connections_max: Some(4), ..small() };
    let echoes = start(&[settings], false);
    let mut streams: Vec<_> = (0..4).map(|_| connect(&echoes)).collect();
    for stream in &mut streams {
        echoed(stream, b"in");
    }
    let more: Vec<_> = (0..20).map(|_| connect(&echoes)).collect();
    let ticks = echoes.shards[0].seen.ticks.load(Relaxed);
    std::thread::sleep(Duration::from_millis(350));
    let full = echoes.shards[0].thread.counters.get(ReactorCounter::AcceptTableFull);
    assert!((2..=6).contains(&full), "one attempt per 100 ms, not {full}");
    let ticks = echoes.shards[0].seen.ticks.load(Relaxed) - ticks;
    assert!(ticks < 40, "it rests in between, not {ticks} ticks");
    drop((streams, more));
    // What was refused was reset; a new one gets in when a slot is free and the rest is over.
    until("a new connection is served", || {
        let mut stream = connect(&echoes);
        let _ = stream.write_all(b"new");
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).is_ok() && answer == *b"new"
    });
    echoes.stop();
}

#[test]
fn a_peer_that_resets_is_seen_and_its_slot_freed() {
    let echoes = start(&[small()], false);
    for _ in 0..50 {
        let stream = connect(&echoes);
        // Closing with unread bytes resets; some resets come before the peer's name is asked for.
        (&stream).write_all(b"abc").unwrap();
    }
    let seen = &echoes.shards[0].seen;
    until("all are closed", || {
        let accepted = seen.accepted.load(Relaxed);
        echoes.shards[0].thread.counters.get(ReactorCounter::Accepted) == 50
            && seen.closed.load(Relaxed) == accepted
    });
    echoes.stop();
}

#[test]
fn a_doorbell_wakes_a_waiting_shard_soon() {
    let echoes = start(&[small(), small()], true);
    let mut worst = Duration::ZERO;
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let (rung, ringing) = crossbeam_channel::bounded(1);
        echoes.shards[1].ask(move |echo| {
            echo.on_doorbell = Some(Box::new(move || rung.send(Instant::now()).unwrap()));
        });
        std::thread::sleep(Duration::from_millis(2));
        let start = echoes.shards[0].ask(|echo| {
            echo.poke(ShardId::new(1));
            Instant::now()
        });
        let took = ringing.recv_timeout(Duration::from_secs(5)).unwrap() - start;
        (worst, best) = (worst.max(took), best.min(took));
    }
    println!("doorbell: {best:?} to {worst:?}");
    assert!(best < Duration::from_millis(5));
    echoes.stop();
}

#[test]
fn an_idle_shard_has_no_ticks() {
    let echoes = start(&[small(), small()], false);
    let _stream = connect(&echoes);
    std::thread::sleep(Duration::from_millis(100));
    let ticks = |shard: usize| echoes.shards[shard].seen.ticks.load(Relaxed);
    let before = ticks(0) + ticks(1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ticks(0) + ticks(1), before);
    // A deadline of the shard is kept.
    echoes.shards[0].ask(|echo| echo.deadline_ms = Some(echo.now.mono_ms + 50));
    until("the timer ran", || echoes.shards[0].ask(|echo| echo.deadline_ms.is_none()));
    echoes.stop();
}

#[test]
fn background_work_is_done_between_ticks() {
    let echoes = start(&[small()], false);
    let mut stream = connect(&echoes);
    for _ in 0..3 {
        echoes.shards[0].ask(|echo| echo.background = 200);
        echoed(&mut stream, b"meanwhile");
        until("the work is done", || echoes.shards[0].ask(|echo| echo.background == 0));
    }
    assert_eq!(echoes.shards[0].seen.background.load(Relaxed), 600);
    let ticks = echoes.shards[0].seen.ticks.load(Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    assert!(echoes.shards[0].seen.ticks.load(Relaxed) <= ticks + 2, "then it waits again");
    echoes.stop();
}

#[test]
fn spinning_finds_what_comes_and_then_waits() {
    let echoes = start(&[ReactorSettings { spin_us: 200, ..small() }, small()], false);
    let mut streams: Vec<_> = (0..8).map(|_| connect(&echoes)).collect();
    for _ in 0..50 {
        for stream in &mut streams {
            echoed(stream, b"spin");
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let ticks = echoes.shards[0].seen.ticks.load(Relaxed);
    std::thread::sleep(Duration::from_millis(100));
    assert!(echoes.shards[0].seen.ticks.load(Relaxed) <= ticks + 2);
    echoes.stop();
}

#[test]
fn listeners_come_and_go_while_it_runs() {
    let echoes = start(&[small()], false);
    let mut first = connect(&echoes);
    echoed(&mut first, b"one");
    echoes.shards[0].thread.remove_listener(shard::ListenerId(0));
    until("it refuses", || TcpStream::connect(echoes.address).is_err());
    echoed(&mut first, b"still here");
    let settings = [common::listener("127.0.0.1:0")];
    let bound = reactor::bind_one(shard::ListenerId(0), &settings, 1).unwrap().remove(0);
    let address = bound.address;
    echoes.shards[0].thread.add_listener(bound);
    let mut second = TcpStream::connect(address).unwrap();
    echoed(&mut second, b"two");
    echoes.stop();
}

#[test]
fn slots_are_used_again_and_again() {
    // Fewer slots than clients at a time: some are refused, none is mixed up.
    let settings = ReactorSettings { connections_max: Some(24), accept_backoff_ms: 1, ..small() };
    let echoes = start(&[settings, small()], true);
    let address = echoes.address;
    let threads: Vec<_> = (0..32u32)
        .map(|client| {
            std::thread::spawn(move || {
                let mut served = 0u64;
                for round in 0..60u32 {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    let text = format!("client {client} round {round}");
                    let order = if (client + round) % 3 == 0 { "\x01MOVE 1\n" } else { "" };
                    let moved = if order.is_empty() { "" } else { "MOVED:" };
                    let wanted = format!("{moved}{text}");
                    let mut answer = vec![0; wanted.len()];
                    let wrote = stream.write_all(format!("{order}{text}").as_bytes());
                    // The last reset, the others close in good order.
                    if wrote.is_ok() && stream.read_exact(&mut answer).is_ok() {
                        assert_eq!(String::from_utf8(answer).unwrap(), wanted);
                        served += 1;
                    }
                    if round % 5 == 0 {
                        let _ = stream.write_all(b"unread");
                    }
                }
                served
            })
        })
        .collect();
    let served: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(served > 200, "{served}");
    let seen = [&echoes.shards[0].seen, &echoes.shards[1].seen];
    until("all are closed", || {
        seen[0].accepted.load(Relaxed) == seen[0].closed.load(Relaxed)
            && seen[1].adopted.load(Relaxed) == seen[1].closed.load(Relaxed)
    });
    echoes.stop();
}

#[test]
fn a_panic_stops_the_process_and_says_why() {
    const CHILD: &str = "RINGMQ_TEST_PANIC";
    if std::env::var_os(CHILD).is_some() {
        let echoes = start(&[small(), small()], false);
        echoes.shards[1].tell(|_| panic!("the reason"));
        std::thread::sleep(Duration::from_secs(10));
        unreachable!("the process has ended");
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_stops_the_process_and_says_why", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(101));
    let told = String::from_utf8(child.stderr).unwrap();
    assert!(told.contains("shard 1 panicked") && told.ends_with("the reason\n"), "{told}");
}

#[test]
fn a_shard_that_cannot_start_stops_all() {
    let table = Arc::new(reactor::RingTable::new(2));
    let mut threads = Vec::new();
    for endpoint in ring::Mesh::build::<Vec<u8>, common::Moved>(2, 4, 4) {
        let id = endpoint.id();
        let (_jobs, commands) = crossbeam_channel::bounded::<common::Job>(1);
        // There is no such CPU.
        let cpu = if id.index() == 1 { 100_000 } else { 0 };
        threads.push(
            reactor::Reactor::spawn(reactor::ReactorSetup::<common::Echo> {
                id,
                cpu,
                waker: endpoint.waker(),
                build: Box::new(move || common::Echo::new_for_test(endpoint)),
                listeners: Vec::new(),
                filters: Arc::default(),
                table: Arc::clone(&table),
                commands,
                settings: small(),
                features: Features::default(),
            })
            .unwrap(),
        );
    }
    let error = table.wait_up().unwrap_err();
    assert!(error.to_string().contains("CPU 100000"), "{error}");
    threads.into_iter().for_each(reactor::ShardThread::join);
}

/// Rings with small tables, so that a shard needs many.
fn narrow(connections: u32) -> ReactorSettings {
    ReactorSettings {
        connections_max: Some(connections),
        table_entries_max: Some(20),
        accept_backoff_ms: 20,
        ..small()
    }
}

#[test]
fn a_shard_adds_rings_when_its_tables_fill_up() {
    for features in [
        Features::default(),
        Features { socket_options: true, ..reactor::probe(1).unwrap().features },
    ] {
        let echoes = start_at("127.0.0.1:0", &[narrow(200)], false, features);
        let mut streams: Vec<_> = (0..200)
            .map(|number| {
                let mut stream = connect(&echoes);
                // Waiting for each keeps the shard from being given more than one ring has room for at once.
                echoed(&mut stream, format!("in {number}").as_bytes());
                stream
            })
            .collect();
        // Ten tables of 20.
        let added = echoes.shards[0].thread.counters.get(ReactorCounter::RingsAdded);
        assert_eq!(added, 9);
        for (number, stream) in streams.iter_mut().enumerate() {
            echoed(stream, format!("again {number}").as_bytes());
        }
        // Big transfers at the same time on all of them: sends, held receives, lingering.
        for stream in &mut streams {
            stream.write_all(b"\x01BIG 100000\n").unwrap();
        }
        for stream in &mut streams {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer == common::text(100_000, 0..=250));
        }
        drop(streams);
        until("all are closed", || echoes.shards[0].seen.closed.load(Relaxed) == 200);
        // All slots are to be had again, in whichever ring.
        let second = |_| {
            let mut stream = connect(&echoes);
            echoed(&mut stream, b"second");
            stream
        };
        let streams: Vec<_> = (0..200).map(second).collect();
        drop(streams);
        assert_eq!(echoes.shards[0].thread.counters.get(ReactorCounter::RingsAdded), added);
        echoes.stop();
    }
}

#[test]
fn connections_move_into_and_out_of_further_rings() {
    let echoes = start(&[narrow(100), narrow(100)], true);
    let mut streams: Vec<_> = (0..90)
        .map(|_| {
            let mut stream = connect(&echoes);
            echoed(&mut stream, b"here");
            stream
        })
        .collect();
    for round in [1, 0, 1] {
        for stream in &mut streams {
            stream.write_all(format!("\x01MOVE {round}\ntail").as_bytes()).unwrap();
            expect(stream, b"MOVED:tail");
        }
    }
    for shard in &echoes.shards {
        assert_eq!(shard.thread.counters.get(ReactorCounter::HandOversFailed), 0);
        assert!(shard.thread.counters.get(ReactorCounter::RingsAdded) >= 4);
    }
    echoes.stop();
}

#[test]
fn a_core_opens_connections_from_the_addresses_it_wants() {
    let server = start(&[small()], false);
    let client = start(&[narrow(100)], false);
    let to = server.address;
    let refused = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    client.shards[0].ask(move |echo| {
        // An echo greets and echoes; two of them go on for ever: the server is told to be quiet.
        echo.sink = true;
        for token in 0..90 {
            let from = format!("127.0.7.{}:0", 1 + token % 9).parse().unwrap();
            echo.connects.push(Connect { token, from: Some(from), to });
        }
        echo.connects.push(Connect { token: 90, from: None, to: refused });
        let foreign = Some("192.0.2.1:0".parse().unwrap());
        echo.connects.push(Connect { token: 91, from: foreign, to });
    });
    until("all are open", || client.shards[0].ask(|echo| echo.opened.len()) == 92);
    let mut opened = client.shards[0].ask(|echo| echo.opened.clone());
    opened.sort_unstable_by_key(|(token, _)| *token);
    assert!(opened[..90].iter().all(|(_, result)| result.is_ok()), "{opened:?}");
    assert_eq!(opened[90].1, Err(libc::ECONNREFUSED));
    assert_eq!(opened[91].1, Err(libc::EADDRNOTAVAIL));
    let seen = &client.shards[0].seen;
    until("all greetings are back", || seen.received_bytes.load(Relaxed) == 90 * 5);
    let mut peers = server.shards[0].ask(|echo| echo.peers.clone());
    peers.sort_unstable_by_key(std::net::SocketAddr::ip);
    peers.dedup_by_key(|peer| peer.ip());
    assert_eq!(peers.len(), 9, "{peers:?}");
    // The tables are full: 100 and no more.
    client.shards[0].ask(move |echo| {
        echo.opened.clear();
        for token in 0..20 {
            echo.connects.push(Connect { token, from: None, to });
        }
    });
    until("all have an answer", || client.shards[0].ask(|echo| echo.opened.len()) == 20);
    let opened = client.shards[0].ask(|echo| echo.opened.clone());
    let full = opened.iter().filter(|(_, result)| *result == Err(libc::ENFILE)).count();
    assert_eq!(full, 10, "{opened:?}");
    client.stop();
    server.stop();
}

#[test]
fn more_connections_than_buffers_are_all_served() {
    // Two buffers, and two hundred connections that all have bytes at once, again and again.
    let settings = ReactorSettings { buffers: 2, buffer_bytes: 512, ..small() };
    let echoes = start(&[settings], false);
    let mut streams: Vec<_> = (0..200).map(|_| connect(&echoes)).collect();
    let text = vec![b'x'; 3000];
    for _ in 0..5 {
        echoes.shards[0].ask(|_| std::thread::sleep(Duration::from_millis(5)));
        for stream in &mut streams {
            stream.write_all(&text).unwrap();
        }
        for stream in &mut streams {
            expect(stream, &text);
        }
    }
    let counters = &echoes.shards[0].thread.counters;
    let starved = counters.get(ReactorCounter::ReceiveNoBuffers);
    // Each receive that ends is armed again once there is a buffer for it: about once for every buffer that was filled.
    assert!((1..20_000).contains(&starved), "{starved}");
    // Some go while they wait for their turn.
    for stream in streams.iter_mut().step_by(2) {
        stream.write_all(&text).unwrap();
    }
    drop(streams);
    until("all are closed", || echoes.shards[0].seen.closed.load(Relaxed) == 200);
    echoes.stop();
}

#[test]
fn a_burst_of_moves_fills_several_tables() {
    let echoes = start(&[small(), narrow(400)], true);
    let mut streams: Vec<_> = (0..300).map(|_| connect(&echoes)).collect();
    // Slowly at first, so that there are tables; then all the others at once.
    for stream in &mut streams[..100] {
        stream.write_all(b"\x01MOVE 1\nx").unwrap();
        expect(stream, b"MOVED:x");
    }
    let failed = || echoes.shards[0].thread.counters.get(ReactorCounter::HandOversFailed);
    assert_eq!(failed(), 0);
    for stream in &mut streams[100..] {
        stream.write_all(b"\x01MOVE 1\nx").unwrap();
    }
    let mut moved = 0;
    for stream in &mut streams[100..] {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        moved += u64::from(&answer == b"MOVE");
    }
    // A burst of more than a table has room for may lose some to a full table, but nobody without an answer.
    assert_eq!(moved + failed(), 200);
    // How many depends on how many come in one tick.
    assert!(moved > 0);
    echoes.stop();
}

#[test]
fn a_further_ring_whose_completions_overflow_goes_on() {
    // A completion queue of 64 on the further rings, and far more ends at once.
    let settings = ReactorSettings { table_entries_max: Some(600), ..narrow(2000) };
    let echoes = start(&[settings], false);
    // One by one: a burst may be more than a table has room for.
    let one = |_| {
        let mut stream = connect(&echoes);
        echoed(&mut stream, b"in");
        stream
    };
    let _streams: Vec<_> = (0..1100).map(one).collect();
    let ids = echoes.shards[0].ask(|echo| (0..echo.opened_max()).collect::<Vec<u32>>());
    echoes.shards[0].ask(move |echo| {
        for index in ids {
            let id = echo.id(index);
            echo.effects.push(Effect::Close { id, mode: shard::CloseMode::Now });
        }
    });
    until("all are closed", || echoes.shards[0].seen.closed.load(Relaxed) == 1100);
    let ticks = echoes.shards[0].seen.ticks.load(Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    let ticks = echoes.shards[0].seen.ticks.load(Relaxed) - ticks;
    assert!(ticks < 50, "it rests, not {ticks} ticks");
    echoes.stop();
}

#[test]
fn sends_end_while_there_are_always_more_completions_than_a_tick_takes() {
    let settings = ReactorSettings { tick_completions_max: 4, ..small() };
    let echoes = start(&[settings], false);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood: Vec<_> = (0..32)
        .map(|_| {
            let (mut writer, stop) = (connect(&echoes), Arc::clone(&stop));
            let mut reader = writer.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::spawn(
                    move || while reader.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {},
                );
                while !stop.load(Relaxed) && writer.write_all(b"0123456789").is_ok() {}
            })
        })
        .collect();
    let mut probe = connect(&echoes);
    for _ in 0..50 {
        // The second echo waits for the end of the first one's send.
        echoed(&mut probe, b"probe");
    }
    stop.store(true, Relaxed);
    for thread in flood {
        thread.join().unwrap();
    }
    drop(probe);
    echoes.stop();
}
