//! The rings and the doorbell under loom, which tries every order the memory model allows:
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p ringmq-ring --release --test loom`.
#![cfg(loom)]

use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::*},
    },
    thread,
};
use ringmq_ring::{Endpoint, Full, Mesh, ShardId, doorbell::Bell, spsc};

fn shard(index: usize) -> ShardId {
    ShardId::new(index)
}

/// All orders with at most `preemptions` involuntary switches: what is not found with three is, by
/// loom's own experience, hardly ever there.
fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// Pops until `count` items have come; yields between, so that loom lets the producer go on.
fn pop_all(consumer: &mut spsc::Consumer<usize>, count: usize, back: usize) -> Vec<usize> {
    let mut items = vec![];
    while items.len() < count {
        let mut item = back;
        if consumer.pop(&mut item) {
            items.push(item);
        } else {
            assert_eq!(item, back, "an empty ring leaves the item alone");
            thread::yield_now();
        }
    }
    items
}

#[test]
fn spsc_keeps_order_loses_nothing_and_recycles() {
    model(3, || {
        let (mut producer, mut consumer) = spsc::channel::<usize>(2);
        let pushing = thread::spawn(move || {
            let mut back = vec![];
            for n in 1..=4 {
                let mut item = n;
                while producer.push(&mut item) == Err(Full) {
                    assert_eq!(item, n, "a full ring leaves the item alone");
                    thread::yield_now();
                }
                back.push(item);
            }
            back
        });
        assert_eq!(pop_all(&mut consumer, 4, 77), [1, 2, 3, 4]);
        // The first round hands back defaults, the second what the consumer swapped in.
        assert_eq!(pushing.join().unwrap(), [0, 0, 77, 77]);
    });
}

#[test]
fn spsc_drops_what_is_left_once() {
    model(3, || {
        let alive = Arc::new(());
        let (mut producer, mut consumer) = spsc::channel::<Option<Arc<()>>>(2);
        let item = alive.clone();
        let pushing = thread::spawn(move || {
            producer.push(&mut Some(item.clone())).unwrap();
            producer.push(&mut Some(item)).unwrap();
        });
        let mut taken = None;
        let popped = consumer.pop(&mut taken);
        assert_eq!(taken.is_some(), popped);
        drop((consumer, taken));
        pushing.join().unwrap();
        assert_eq!(Arc::strong_count(&alive), 1);
    });
}

/// `producers` threads each leave one thing, post and ring when told to. The consumer parks once; if
/// it sleeps, the doorbell must have come when all producers are through.
fn nobody_sleeps_on(producers: usize, foreign: bool) {
    let bell = Arc::new(Bell::new());
    let rings = Arc::new(AtomicUsize::new(0));
    let left: Vec<_> = (0..producers).map(|_| Arc::new(AtomicBool::new(false))).collect();
    let threads: Vec<_> = (0..producers)
        .map(|index| {
            let (bell, rings, left) = (bell.clone(), rings.clone(), left[index].clone());
            thread::spawn(move || {
                left.store(true, Relaxed);
                let due = if foreign { bell.post_foreign() } else { bell.post(shard(index)) };
                if due {
                    rings.fetch_add(1, Release);
                }
            })
        })
        .collect();

    let sleeps = bell.prepare_park();
    if !sleeps {
        // Refused: so there is something to take, and what it stands for is visible.
        if foreign {
            assert!(bell.take_foreign());
            assert!(left.iter().any(|left| left.load(Relaxed)));
        } else {
            let taken = bell.take();
            assert!(!taken.is_empty());
            assert!(taken.iter().all(|from| left[from.index()].load(Relaxed)));
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let rings = rings.load(Acquire);
    assert!(rings <= 1, "a doorbell at most once per park");
    if sleeps {
        assert_eq!(rings, 1, "the consumer sleeps and nobody rings");
        bell.unpark();
        assert!(if foreign { bell.take_foreign() } else { bell.take().len() == producers });
    }
}

#[test]
fn doorbell_with_one_producer() {
    loom::model(|| nobody_sleeps_on(1, false));
    loom::model(|| nobody_sleeps_on(1, true));
}

#[test]
fn doorbell_with_two_producers() {
    model(3, || nobody_sleeps_on(2, false));
}

#[test]
fn doorbell_with_two_foreign_threads() {
    model(3, || nobody_sleeps_on(2, true));
}

/// The first park ends for another reason, with doorbells rung or on their way; the second must not
/// sleep on what the first one's end hid.
fn two_parks(producers: usize) {
    let bell = Arc::new(Bell::new());
    let rings = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..producers)
        .map(|index| {
            let (bell, rings) = (bell.clone(), rings.clone());
            thread::spawn(move || {
                if bell.post(shard(index)) {
                    rings.fetch_add(1, Release);
                }
            })
        })
        .collect();
    let _ = bell.prepare_park();
    bell.unpark();
    let heard = rings.load(Acquire);
    let taken = bell.take().len();
    let sleeps = bell.prepare_park();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    if sleeps && taken < producers {
        assert!(rings.load(Acquire) > heard, "the second park sleeps and nobody rings");
    }
    assert_eq!(taken + bell.take().len(), producers);
}

#[test]
fn doorbell_over_two_parks() {
    loom::model(|| two_parks(1));
    model(3, || two_parks(2));
}

type End = Endpoint<usize, usize>;

fn mesh() -> [End; 2] {
    Mesh::build(2, 1, 1).try_into().expect("two endpoints")
}

/// The whole of it: the consumer finds the item, or its doorbell is due.
#[test]
fn mesh_consumer_sees_work_or_gets_a_doorbell() {
    model(3, || {
        let [mut producer, mut consumer] = mesh();
        let pushing = thread::spawn(move || {
            producer.push_data(shard(1), &mut 5).unwrap();
            producer.take_doorbells().contains(shard(1))
        });
        let sleeps = consumer.prepare_park();
        let mut item = 0;
        if !sleeps {
            assert!(consumer.next_pending().contains(shard(0)));
            assert!(consumer.pop_data(shard(0), &mut item));
        }
        let rung = pushing.join().unwrap();
        if sleeps {
            assert!(rung, "the consumer sleeps and nobody rings");
            consumer.unpark();
            assert!(consumer.next_pending().contains(shard(0)));
            assert!(consumer.pop_data(shard(0), &mut item));
        }
        assert_eq!(item, 5);
        assert!(!consumer.pop_data(shard(0), &mut item));
    });
}

/// A consumer that drains while the producer pushes does not lose the pending mark.
#[test]
fn mesh_push_during_a_drain_is_found_later() {
    model(3, || {
        let [mut producer, mut consumer] = mesh();
        let pushing = thread::spawn(move || {
            let first = producer.push_data(shard(1), &mut 1).is_ok();
            let second = producer.push_data(shard(1), &mut 2).is_ok();
            assert!(first);
            (second, producer)
        });
        let (mut item, mut sum) = (0, 0);
        let mut turn = |consumer: &mut End, sum: &mut usize| {
            for from in consumer.next_pending() {
                while consumer.pop_data(from, &mut item) {
                    *sum += item;
                }
                assert!(!consumer.pop_control(from, &mut item));
            }
        };
        turn(&mut consumer, &mut sum);
        let (second, _producer) = pushing.join().unwrap();
        turn(&mut consumer, &mut sum);
        assert_eq!(sum, if second { 3 } else { 1 });
    });
}

/// A producer that met a full ring and parks is woken, or refused, once the lane is empty.
#[test]
fn mesh_full_producer_is_woken_when_there_is_room() {
    model(3, || {
        let [mut producer, mut consumer] = mesh();
        producer.push_data(shard(1), &mut 1).unwrap();
        let pushing = thread::spawn(move || {
            let full = producer.push_data(shard(1), &mut 2).is_err();
            let sleeps = full && producer.prepare_park();
            (full, sleeps, producer)
        });
        let mut item = 0;
        for from in consumer.next_pending() {
            while consumer.pop_data(from, &mut item) {}
        }
        let rung = consumer.take_doorbells().contains(shard(0));
        let (full, sleeps, mut producer) = pushing.join().unwrap();
        if sleeps {
            assert!(rung, "the producer sleeps and nobody rings");
            producer.unpark();
        }
        if full {
            assert!(producer.next_pending().contains(shard(1)));
            producer.push_data(shard(1), &mut 2).unwrap();
        }
    });
}
