//! Kills the broker in the middle of load, again and again, and looks for what is lost.
//!
//! A round: the broker is started on the data of the round before, with another number of shards; publishers with a window of
//! unacknowledged messages, and subscribers, work; it is killed at a random moment, sometimes while it starts. Then it is
//! started again, all is sent again that was not acknowledged, and all subscribers, also those that were away all the time,
//! must have everything that was ever acknowledged, and what was published and subscribed with `QoS` 2 once. Of a shared group
//! one member must have it; that another one gets it too is possible where the broker was killed before the publisher's shard
//! had noted that the member's has it.

mod ledger;
mod publisher;
mod subscriber;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, new_folder};
use crate::client::Event;
use crate::packet::{Connect, Packet, Subscribe, Version};
use crate::simulation::Random;
use ledger::Ledger;
use publisher::{Leg, Publisher};
use subscriber::Subscriber;

/// Topics of a publisher.
const TOPICS: usize = 3;
/// How long an answer may take: a broker that was killed reads its journal first.
const ANSWER: Duration = Duration::from_secs(20);
/// How long all that is under way may take when the load is over.
const SETTLE: Duration = Duration::from_secs(40);
/// What comes twice comes within this time behind the last that was missing.
const QUIET: Duration = Duration::from_millis(300);
/// Numbers of shards that follow each other.
const SHARDS: [usize; 4] = [1, 4, 2, 3];

/// What a run showed.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Messages that subscribers got.
    pub received: usize,
    /// How often the broker was killed.
    pub kills: usize,
}

struct Run {
    seed: u64,
    random: Random,
    ledger: Ledger,
    publishers: Vec<Publisher>,
    online: Vec<Subscriber>,
    /// Those that are there only when a round is over.
    offline: Vec<Subscriber>,
    /// Acknowledgements that were looked at.
    checked: usize,
    report: Report,
}

/// Runs so many rounds from a seed.
///
/// # Errors
/// What was lost, or came twice, in words.
pub fn run(seed: u64, rounds: usize) -> Result<Report, String> {
    let folder = new_folder();
    let mut run = Run::new(seed);
    let mut result = Ok(());
    for round in 0..rounds {
        result = run.round(&folder, round);
        if let Err(error) = &mut result {
            *error = format!(
                "seed {seed}, round {} of {rounds} (the data is in {}): {error}",
                round + 1,
                folder.display()
            );
            break;
        }
    }
    result?;
    std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    Ok(run.report)
}

fn start(folder: &Path, shards: usize) -> Broker {
    let shards = shards.to_string();
    Broker::start_in(
        folder,
        &["--shards", &shards, "store.sync=always", "mqtt.mqueue.max_length=0"],
    )
}

impl Run {
    fn new(seed: u64) -> Self {
        use Version::{V5, V311};
        let publishers = [
            (V5, Some(1), false),
            (V5, Some(2), false),
            (V311, Some(1), false),
            (V311, Some(2), false),
            (V5, None, true),
            (V311, None, true),
            (V5, Some(2), false),
        ];
        let publishers =
            publishers.into_iter().enumerate().map(|(index, (version, qos, retain))| {
                Publisher::new(index, version, qos, retain, seed ^ (index as u64) << 8)
            });
        let one = |name: &str, version, filter: &str, qos| {
            Subscriber::new(name, version, filter, qos, seed ^ (name.len() as u64) << 16)
        };
        Self {
            seed,
            random: Random::new(seed),
            ledger: Ledger::default(),
            publishers: publishers.collect(),
            online: vec![
                one("all", V5, "#", 2),
                one("plus", V311, "c/+/1", 1),
                one("retained", V311, "r/#", 2),
                one("exact", V5, "c/1/0", 2),
                one("member-of-1", V5, "$share/g/c/#", 2),
                one("member-of--2", V311, "$share/g/c/#", 2),
                one("member-of---3", V5, "$share/g/c/#", 2),
            ],
            offline: vec![
                one("away", V311, "c/#", 2),
                one("away-exact", V5, "c/3/2", 2),
                one("away-one", V5, "+/+/0", 1),
            ],
            checked: 0,
            report: Report::default(),
        }
    }

    fn round(&mut self, folder: &Path, round: usize) -> Result<(), String> {
        let shards = SHARDS[(round + self.random.below(2)) % SHARDS.len()];
        let broker = start(folder, shards);
        if round == 0 {
            // They have to be there before anything is published.
            self.settle(&broker)?;
        }
        let version = if self.random.chance(50) { Version::V5 } else { Version::V311 };
        let late = format!("late-{round}");
        self.online.push(Subscriber::new(&late, version, "c/#", 2, self.random.number()));
        let until = Duration::from_millis(self.random.number() % 2500);
        self.load(broker, until)?;
        let shards = *self.random.pick(&SHARDS);
        let mut broker = start(folder, shards);
        while self.random.chance(35) {
            let until = Duration::from_millis(self.random.number() % 300);
            self.load(broker, until)?;
            broker = start(folder, *self.random.pick(&SHARDS));
        }
        let settled = self.settle(&broker).and_then(|()| self.check_retained(&broker));
        if let Err(error) = settled {
            return Err(format!("{error}\n--- output of the broker ---\n{}---", broker.kill()));
        }
        self.online.pop();
        if self.random.chance(50) {
            broker.stop_and_keep();
        } else {
            broker.kill();
        }
        println!(
            "seed {}, round {}: {} kills, {} acknowledged, {} received",
            self.seed,
            round + 1,
            self.report.kills,
            self.checked,
            self.report.received
        );
        Ok(())
    }

    /// Publishers and subscribers work; the broker is killed.
    fn load(&mut self, broker: Broker, until: Duration) -> Result<(), String> {
        let address = broker.address();
        let stop = AtomicBool::new(false);
        let ledger = &self.ledger;
        let deadline = Instant::now() + until + ANSWER;
        self.report.kills += 1;
        thread::scope(|scope| {
            let stop = &stop;
            let mut running = Vec::new();
            for publisher in &mut self.publishers {
                running.push(
                    scope.spawn(move || publisher.run(address, ledger, true, deadline).map(|_| ())),
                );
            }
            for subscriber in &mut self.online {
                running.push(scope.spawn(move || subscriber.run(address, ledger, stop)));
            }
            let stopping = StopAtEnd(stop);
            thread::sleep(until);
            broker.kill();
            drop(stopping);
            join(running)
        })
    }

    /// All comes to an end, and is looked at.
    fn settle(&mut self, broker: &Broker) -> Result<(), String> {
        let address = broker.address();
        let stop = AtomicBool::new(false);
        let Self { ledger, publishers, online, offline, checked, report, .. } = self;
        let ledger = &*ledger;
        let deadline = Instant::now() + SETTLE;
        let mut result = thread::scope(|scope| {
            let stop = &stop;
            let mut publishing = Vec::new();
            for publisher in publishers.iter_mut() {
                publishing.push(scope.spawn(move || {
                    let leg = publisher.run(address, ledger, false, deadline)?;
                    if leg == Leg::Done && publisher.under_way() == 0 {
                        return Ok(());
                    }
                    let (index, left) = (publisher.index, publisher.under_way());
                    Err(format!("publisher {index} waits for {left} acknowledgements in vain"))
                }));
            }
            let mut receiving = Vec::new();
            for subscriber in online.iter_mut().chain(offline.iter_mut()) {
                receiving.push(scope.spawn(move || subscriber.run(address, ledger, stop)));
            }
            let stopping = StopAtEnd(stop);
            let published = join(publishing);
            // Whatever is still to come comes in a row; what is missing then is looked for below.
            let mut before = u64::MAX;
            while Instant::now() < deadline {
                thread::sleep(QUIET);
                let now = sent_by(broker);
                if now == before {
                    break;
                }
                before = now;
            }
            drop(stopping);
            published.and(join(receiving))
        });
        let (acknowledged, count) = ledger.acknowledged_from(*checked);
        *checked = count;
        report.acknowledged = count;
        let all = || online.iter().chain(offline.iter());
        report.received = all().map(|one| one.received.len()).sum();
        let lost = lost(ledger, &acknowledged, &all().collect::<Vec<_>>());
        if !lost.is_empty() {
            let error = result.err().unwrap_or_default();
            result = Err(format!("{error}\n{lost}"));
        }
        result
    }

    /// A new client asks for the retained messages.
    fn check_retained(&self, broker: &Broker) -> Result<(), String> {
        let wanted = self.ledger.retained();
        let mut client = broker.connect(&Connect::new(Version::V5, "retained-check"));
        client.send(&Subscribe::new(1).filter("r/#", 0).encode(Version::V5));
        let mut found: HashMap<String, u64> = HashMap::new();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && (found.len() < wanted.len()) {
            if let Event::Packet(Packet::Publish(publish)) = client.event(Duration::from_secs(1)) {
                let number = publish.text().parse().unwrap_or(0);
                found.insert(publish.topic, number);
            }
        }
        let mut problems = String::new();
        for (topic, number) in wanted {
            match found.get(&topic) {
                None => {
                    let _ = writeln!(problems, "{topic} has no retained message");
                }
                Some(&found) if found < number => {
                    let _ = writeln!(
                        problems,
                        "{topic} has {found}, older than {number}, which was acknowledged"
                    );
                }
                Some(_) => {}
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// Tells clients to stop, also when something panics before it is their time.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Messages the broker sent since its start.
fn sent_by(broker: &Broker) -> u64 {
    let text = broker.cli(&["broker", "metrics"]);
    let line = text.lines().find(|line| line.starts_with("messages/sent"));
    let number = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
    number.unwrap_or_else(|| panic!("no messages/sent in:\n{text}"))
}

type Running<'s> = thread::ScopedJoinHandle<'s, Result<(), String>>;

fn join(running: Vec<Running<'_>>) -> Result<(), String> {
    let mut result = Ok(());
    for one in running {
        match one.join() {
            Ok(ended) => result = result.and(ended),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    result
}

fn matches(filter: &str, topic: &str) -> bool {
    let (mut levels, mut names) = (filter.split('/'), topic.split('/'));
    loop {
        match (levels.next(), names.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

/// What of the acknowledged messages somebody has not, or has twice.
fn lost(ledger: &Ledger, acknowledged: &[(u64, ledger::Sent)], all: &[&Subscriber]) -> String {
    let mut text = String::new();
    let mut groups: HashMap<&str, Vec<&Subscriber>> = HashMap::new();
    for subscriber in all {
        // Each one of its own, but the members of a group together.
        let shared = subscriber.filter.starts_with('$');
        let key = if shared { &subscriber.filter } else { subscriber.connect_id() };
        groups.entry(key).or_default().push(subscriber);
    }
    for members in groups.values() {
        let first = members[0];
        let Some(since) = members.iter().map(|one| one.since).max().flatten() else { continue };
        let is_missing = |(number, sent): &&(u64, ledger::Sent)| {
            *number >= since
                && matches(first.plain_filter(), &sent.topic)
                && !members.iter().any(|member| member.received.contains_key(number))
        };
        let missing: Vec<_> = acknowledged.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            let some: Vec<_> = missing.iter().take(8).collect();
            let _ = writeln!(
                text,
                "{} has lost {} of {} acknowledged messages: {some:?}",
                first.name(),
                missing.len(),
                acknowledged.len()
            );
        }
        let twice: Vec<_> = members
            .iter()
            .flat_map(|member| &member.received)
            .filter(|&(_, &count)| count > 1)
            .map(|(&number, &count)| (number, count, ledger.message(number)))
            .filter(|(_, _, sent)| sent.qos == 2 && first.qos == 2)
            .take(8)
            .collect();
        if !twice.is_empty() {
            let _ = writeln!(text, "{} got QoS 2 messages twice: {twice:?}", first.name());
        }
    }
    text
}
