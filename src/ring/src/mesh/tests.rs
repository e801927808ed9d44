//! Tests of the mesh: the documented sums, order, recycling, back-pressure, and threads under load.

use super::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

type Batch = Vec<u64>;

fn pair(data: usize, control: usize) -> [Endpoint<Batch, Batch>; 2] {
    Mesh::build(2, data, control).try_into().expect("two endpoints")
}

fn shard(index: usize) -> ShardId {
    ShardId::new(index)
}

/// The table in the module's doc, from the types.
#[test]
fn the_documented_memory_is_what_the_types_take() {
    let documented = include_str!("../mesh.rs");
    for shards in [2, 16, 64, 256] {
        let Capacities { data, control } = default_capacity(shards);
        let bytes = Mesh::bytes::<[u64; 8], [u64; 8]>(shards, data, control);
        assert_eq!(bytes, Mesh::bytes::<u8, u8>(shards, data, control), "a slot is a cache line");
        let row = format!("| {shards} | {data}, {control} | {} |", thousands(bytes));
        assert!(documented.contains(&row), "the doc lacks: {row}");
        assert!(bytes < 64_000_000);
    }
    assert!(Mesh::bytes::<[u64; 9], u8>(2, 4, 4) > Mesh::bytes::<[u64; 8], u8>(2, 4, 4));
    assert_eq!(Mesh::bytes::<u8, u8>(1, 256, 64), 128, "one shard has no ring");
    assert_eq!(size_of::<Link>(), 256);
    // "The fixed 400 or so bytes of each endpoint".
    assert!(size_of::<Endpoint<Batch, Batch>>() <= 400);
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn every_pair_has_links_of_its_own() {
    let mut ends = Mesh::build::<Batch, Batch>(5, 4, 2);
    for (from, end) in ends.iter_mut().enumerate() {
        for to in (0..5).filter(|&to| to != from) {
            let tag = (from * 10 + to) as u64;
            end.push_data(shard(to), &mut vec![tag]).unwrap();
            end.push_control(shard(to), &mut vec![100 + tag]).unwrap();
        }
    }
    for (to, end) in ends.iter_mut().enumerate() {
        assert_eq!((end.id(), end.shards()), (shard(to), 5));
        let mut others = ShardSet::first(5);
        others.remove(shard(to));
        assert_eq!(end.next_pending(), others);
        for from in others {
            let mut item = vec![];
            assert!(end.pop_control(from, &mut item));
            assert_eq!(item, [100 + (from.index() * 10 + to) as u64]);
            assert!(end.pop_data(from, &mut item));
            assert_eq!(item, [(from.index() * 10 + to) as u64]);
            assert!(!end.pop_control(from, &mut item) && !end.pop_data(from, &mut item));
        }
        assert!(end.next_pending().is_empty());
    }
}

#[test]
fn a_full_lane_leaves_the_item_and_the_other_lane_free() {
    let [mut a, mut b] = pair(2, 2);
    a.push_data(shard(1), &mut vec![1]).unwrap();
    a.push_data(shard(1), &mut vec![2]).unwrap();
    let mut kept = vec![3, 3];
    let place = kept.as_ptr();
    assert_eq!(a.push_data(shard(1), &mut kept), Err(Full));
    assert_eq!((kept.as_slice(), kept.as_ptr()), ([3, 3].as_slice(), place));
    a.push_control(shard(1), &mut vec![9]).unwrap();

    let mut item = vec![];
    assert!(b.pop_data(shard(0), &mut item));
    assert_eq!(item, [1]);
    a.push_data(shard(1), &mut kept).unwrap();
    item.clear();
    assert!(b.pop_control(shard(0), &mut item) && item == [9]);
}

#[test]
fn buffers_travel_round() {
    let [mut a, mut b] = pair(4, 2);
    let (mut out, mut taken) = (Vec::with_capacity(64), Vec::new());
    let mut grown = 0;
    for round in 0..100u64 {
        grown += usize::from(out.capacity() < 64);
        out.reserve(64);
        out.push(round);
        a.push_data(shard(1), &mut out).unwrap();
        assert!(out.is_empty(), "a push hands back an emptied batch");
        assert!(b.pop_data(shard(0), &mut taken));
        assert_eq!(taken, [round]);
        taken.clear();
    }
    // One buffer per slot, and the one the consumer holds.
    assert!(grown <= 5, "{grown} buffers were allocated");
}

#[test]
fn a_lane_not_emptied_stays_pending_and_forbids_parking() {
    let [mut a, mut b] = pair(4, 4);
    for n in 0..3 {
        a.push_data(shard(1), &mut vec![n]).unwrap();
    }
    assert!(a.take_doorbells().is_empty(), "b is awake");
    assert!(!b.prepare_park());
    let mut item = vec![];
    assert!(b.next_pending().contains(shard(0)));
    assert!(b.pop_data(shard(0), &mut item));
    assert!(!b.prepare_park(), "two are left");
    while b.pop_data(shard(0), &mut item) {}
    assert!(b.next_pending().contains(shard(0)), "the control lane was not looked at");
    assert!(!b.pop_control(shard(0), &mut item));
    assert!(b.next_pending().is_empty() && b.prepare_park());
    b.unpark();
    b.keep_pending(shard(0));
    assert!(!b.prepare_park() && b.next_pending().contains(shard(0)));
}

#[test]
fn one_doorbell_per_park() {
    let mut ends = Mesh::build::<Batch, Batch>(3, 8, 8);
    assert!(ends[2].prepare_park());
    for from in [0, 1, 0] {
        ends[from].push_data(shard(2), &mut vec![1]).unwrap();
    }
    assert_eq!(ends[0].take_doorbells(), ShardSet::single(shard(2)));
    assert!(ends[0].take_doorbells().is_empty() && ends[1].take_doorbells().is_empty());
    ends[2].unpark();
    assert_eq!(ends[2].next_pending(), ShardSet::first(2));

    // Awake: no doorbell, but no sleep either.
    ends[1].push_control(shard(2), &mut vec![1]).unwrap();
    assert!(ends[1].take_doorbells().is_empty() && !ends[2].prepare_park());

    // A doorbell that is due must be rung before its ringer sleeps; one that failed comes again.
    assert!(ends[0].prepare_park());
    ends[1].push_data(shard(0), &mut vec![1]).unwrap();
    assert!(!ends[1].prepare_park());
    assert!(ends[1].take_doorbells().contains(shard(0)));
    ends[1].ring_again(shard(0));
    assert!(!ends[1].prepare_park());
    assert!(ends[1].take_doorbells().contains(shard(0)) && ends[1].prepare_park());
}

#[test]
fn a_foreign_thread_rings_a_parked_shard_once() {
    let [mut a, _b] = pair(2, 2);
    let waker = a.waker();
    assert_eq!(waker.shard(), shard(0));
    assert!(!waker.needs_doorbell(), "awake");
    assert!(!a.prepare_park(), "and told before it sleeps");
    assert!(a.take_foreign() && !a.take_foreign());
    assert!(a.prepare_park());
    assert!(waker.needs_doorbell() && !waker.clone().needs_doorbell());
    a.unpark();
    assert!(a.take_foreign());
    // Who never asks for the flag is refused once, not for ever.
    assert!(!waker.needs_doorbell());
    assert!(!a.prepare_park() && a.prepare_park());
}

#[test]
fn a_producer_that_met_a_full_lane_is_woken_when_it_is_empty() {
    let [mut a, mut b] = pair(2, 2);
    let mut item = vec![];
    for _ in 0..2 {
        a.push_data(shard(1), &mut vec![1]).unwrap();
    }
    assert_eq!(a.push_data(shard(1), &mut vec![1]), Err(Full));
    assert!(a.prepare_park());
    assert!(b.next_pending().contains(shard(0)));
    assert!(b.pop_data(shard(0), &mut item) && b.take_doorbells().is_empty());
    while b.pop_data(shard(0), &mut item) {}
    assert!(b.take_doorbells().contains(shard(0)));
    a.unpark();
    assert!(a.next_pending().contains(shard(1)), "the consumer that made room");
    assert!(!a.pop_data(shard(1), &mut item) && !a.pop_control(shard(1), &mut item));
    assert!(b.take_doorbells().is_empty() && a.prepare_park(), "and only once");
}

#[test]
#[should_panic(expected = "no ring to itself")]
fn a_shard_has_no_ring_to_itself() {
    let [mut a, _b] = pair(2, 2);
    let _ = a.push_data(shard(0), &mut vec![]);
}

#[test]
#[should_panic(expected = "power of two")]
fn a_capacity_is_a_power_of_two() {
    let _ = Mesh::build::<Batch, Batch>(2, 3, 2);
}

type Counted = Option<Arc<()>>;

#[test]
fn what_is_left_in_the_rings_is_dropped_once() {
    let one = Arc::new(());
    for pushes in 0..6 {
        let mut ends = Mesh::build::<Counted, Counted>(2, 4, 4);
        let mut item = None;
        for _ in 0..pushes {
            let _ = ends[0].push_data(shard(1), &mut Some(one.clone()));
        }
        ends[1].pop_data(shard(0), &mut item);
        ends[0].push_control(shard(1), &mut Some(one.clone())).unwrap();
        drop((ends, item));
        assert_eq!(Arc::strong_count(&one), 1);
    }
}

/// A shard of the stress test: sends numbered batches to all others, keeps what does not fit, takes
/// what comes, and sleeps in its channel when there is nothing to do.
struct Worker {
    end: Endpoint<Batch, Batch>,
    bells: Vec<mpsc::Sender<()>>,
    bell: mpsc::Receiver<()>,
    sent: Vec<[u64; 2]>,
    seen: Vec<[u64; 2]>,
    total: u64,
    sleeps: usize,
}

impl Worker {
    fn turn(&mut self) {
        let mut item = vec![];
        for from in self.end.next_pending() {
            for lane in [CONTROL, DATA] {
                while match lane {
                    DATA => self.end.pop_data(from, &mut item),
                    _ => self.end.pop_control(from, &mut item),
                } {
                    for n in item.drain(..) {
                        assert_eq!(n, self.seen[from.index()][lane], "in order, none lost");
                        self.seen[from.index()][lane] += 1;
                    }
                }
            }
        }
        let own = self.end.id().index();
        for to in (0..self.sent.len()).filter(|&to| to != own) {
            for lane in [CONTROL, DATA] {
                let sent = &mut self.sent[to][lane];
                while *sent < self.total {
                    let mut batch = vec![*sent, *sent + 1];
                    let pushed = match lane {
                        DATA => self.end.push_data(shard(to), &mut batch),
                        _ => self.end.push_control(shard(to), &mut batch),
                    };
                    if pushed.is_err() {
                        assert_eq!(batch, [*sent, *sent + 1]);
                        break;
                    }
                    *sent += 2;
                }
            }
        }
    }

    fn done(&self) -> bool {
        let own = self.end.id().index();
        let all = |table: &[[u64; 2]]| {
            table.iter().enumerate().all(|(i, lanes)| i == own || *lanes == [self.total; 2])
        };
        all(&self.sent) && all(&self.seen)
    }

    fn run(mut self, running: &AtomicUsize) -> usize {
        let mut counted = false;
        while running.load(SeqCst) > 0 {
            self.turn();
            for to in self.end.take_doorbells() {
                let _ = self.bells[to.index()].send(());
            }
            if !counted && self.done() {
                counted = true;
                if running.fetch_sub(1, SeqCst) == 1 {
                    // The last one: the others may sleep, with nothing left to wake them.
                    for bell in &self.bells {
                        let _ = bell.send(());
                    }
                }
            } else if self.end.prepare_park() {
                // A lost wake-up would end here.
                self.bell.recv_timeout(Duration::from_secs(60)).expect("a wake-up was lost");
                self.sleeps += 1;
                self.end.unpark();
            }
        }
        self.sleeps
    }
}

#[test]
fn four_shards_exchange_everything_in_order_and_nobody_sleeps_on() {
    const SHARDS: usize = 4;
    let running = Arc::new(AtomicUsize::new(SHARDS));
    let (bells, receivers): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| mpsc::channel()).unzip();
    let ends = Mesh::build::<Batch, Batch>(SHARDS, 4, 2);
    let threads: Vec<_> = ends
        .into_iter()
        .zip(receivers)
        .map(|(end, bell)| {
            let (sent, seen) = (vec![[0; 2]; SHARDS], vec![[0; 2]; SHARDS]);
            let bells = bells.clone();
            let worker = Worker { end, bells, bell, sent, seen, total: 10_000, sleeps: 0 };
            let running = Arc::clone(&running);
            thread::spawn(move || worker.run(&running))
        })
        .collect();
    for thread in threads {
        thread.join().expect("no worker panics");
    }
}

#[test]
fn endpoints_move_to_their_threads() {
    fn sendable<T: Send>(_: &T) {}
    let [a, _b] = pair(2, 2);
    sendable(&a);
    sendable(&a.waker());
    assert!(format!("{a:?}").starts_with("Endpoint"));
}
