//! The links against threads that play the shards.

use std::sync::Arc;
use std::thread;

use super::*;

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

struct Played {
    links: Arc<Links>,
    commands: Vec<Receiver<Command>>,
    replies: Sender<(u64, Reply)>,
}

/// Links to `shards` shards, and the thread that reads their replies.
fn played(shards: usize) -> Played {
    let (senders, commands): (Vec<_>, Vec<_>) = (0..shards).map(|_| bounded(COMMANDS_MAX)).unzip();
    let links = Arc::new(Links::new(
        senders.into_iter().map(|sender| (sender, Box::new(Silent) as Box<dyn Doorbell>)).collect(),
    ));
    let (replies, received) = bounded::<(u64, Reply)>(replies_max(shards));
    let resolver = Arc::clone(&links);
    thread::spawn(move || {
        for (token, reply) in received {
            resolver.resolve(token, reply);
        }
        resolver.stop();
    });
    Played { links, commands, replies }
}

fn published(destinations: usize) -> Reply {
    Reply::Published { destinations: u32::try_from(destinations).unwrap() }
}

#[test]
fn answers_keep_the_order_of_the_shards() {
    let Played { links, commands, replies } = played(3);
    for (shard, commands) in commands.into_iter().enumerate() {
        let replies = replies.clone();
        thread::spawn(move || {
            for command in commands {
                thread::sleep(Duration::from_millis(5 * (3 - shard as u64)));
                replies.try_send((command.token, published(shard))).unwrap();
            }
        });
    }
    let all = links.ask_all(&Request::ListenerCounts, Duration::from_secs(10)).unwrap();
    assert_eq!(all, vec![published(0), published(1), published(2)]);
    let one = links.ask(ShardId::new(1), Request::ListenerCounts, Duration::from_secs(10));
    assert_eq!(one, Ok(published(1)));
}

#[test]
fn a_silent_shard_is_named_and_its_late_reply_frees_its_turn() {
    let Played { links, commands, replies } = played(2);
    let timeout = Duration::from_millis(10);
    for _ in 0..OUTSTANDING_MAX {
        let asked = links.ask(ShardId::new(1), Request::TickHistogram, timeout);
        assert_eq!(asked, Err(LinkError::Timeout(1)));
    }
    assert_eq!(commands[1].len(), OUTSTANDING_MAX);
    // No turn is left: the command does not even reach the channel.
    let asked = links.ask(ShardId::new(1), Request::TickHistogram, timeout);
    assert_eq!(asked, Err(LinkError::Timeout(1)));
    assert_eq!(commands[1].len(), OUTSTANDING_MAX);
    let late = commands[1].recv().unwrap();
    replies.send((late.token, Reply::Done)).unwrap();
    let answering = commands[1].clone();
    thread::spawn(move || {
        for command in answering {
            replies.send((command.token, Reply::Done)).unwrap();
        }
    });
    let asked = links.ask(ShardId::new(1), Request::TickHistogram, Duration::from_secs(10));
    assert_eq!(asked, Ok(Reply::Done));
}

#[test]
fn many_askers_never_fill_a_channel() {
    let Played { links, commands, replies } = played(1);
    let commands = commands[0].clone();
    thread::spawn(move || {
        for command in commands {
            replies.try_send((command.token, Reply::Done)).unwrap();
        }
    });
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let asked =
                        links.ask(ShardId::new(0), Request::TickHistogram, Duration::from_secs(10));
                    assert_eq!(asked, Ok(Reply::Done));
                }
            });
        }
    });
}

#[test]
fn who_waits_when_the_shards_end_is_told() {
    let Played { links, commands, replies } = played(1);
    thread::spawn(move || {
        let _command = commands[0].recv();
        drop(replies);
    });
    let asked = links.ask(ShardId::new(0), Request::TickHistogram, Duration::from_secs(10));
    assert_eq!(asked, Err(LinkError::Stopped));
    assert!(links.is_stopped());
    let asked = links.ask(ShardId::new(0), Request::TickHistogram, Duration::from_secs(10));
    assert_eq!(asked, Err(LinkError::Stopped));
}
