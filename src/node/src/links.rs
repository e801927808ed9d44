//! The way to the shards and back: commands with tokens, replies matched to who waits for them.
//!
//! Invariant: a shard has at most [`OUTSTANDING_MAX`] commands that it has not answered, so that neither its command channel nor
//! the reply channel can be full when it is used. A caller waits for its turn; a shard never waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use displaydoc::Display;
use ring::ShardId;
use shard::command::{Command, OUTSTANDING_MAX, Reply, Request};
use thiserror::Error;

/// Why a shard did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum LinkError {
    /// shard {0} did not answer in time: it is overloaded or stuck, see the log
    Timeout(usize),
    /// the node is shutting down
    Stopped,
}

/// Wakes a shard that waits in its ring.
pub trait Doorbell: Send + Sync {
    /// Called after a command was put into the shard's channel.
    fn ring(&self);
}

/// The two ends of one shard's command channel, and its doorbell.
struct Link {
    commands: Sender<Command>,
    doorbell: Box<dyn Doorbell>,
    /// Commands without a reply.
    outstanding: Mutex<usize>,
    /// Signalled when `outstanding` falls.
    freed: Condvar,
}

/// Who waits for a reply, and on which place in its request to several shards.
struct Waiter {
    shard: usize,
    place: usize,
    answer: Sender<(usize, Reply)>,
}

/// All shards as the control plane sees them.
pub struct Links {
    links: Vec<Link>,
    waiters: Mutex<HashMap<u64, Waiter>>,
    token_next: AtomicU64,
    stopped: AtomicBool,
}

/// Capacity of a shard's command channel.
pub const COMMANDS_MAX: usize = OUTSTANDING_MAX;

/// Capacity of the reply channel that `shards` shards share.
pub const fn replies_max(shards: usize) -> usize {
    shards * OUTSTANDING_MAX
}

/// A panic elsewhere stops the process (the binary's panic hook); a poisoned lock is met only in tests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Takes each shard's command sender and doorbell, in order of the shards.
    pub fn new(ends: Vec<(Sender<Command>, Box<dyn Doorbell>)>) -> Links {
        let links = ends
            .into_iter()
            .map(|(commands, doorbell)| Link {
                commands,
                doorbell,
                outstanding: Mutex::new(0),
                freed: Condvar::new(),
            })
            .collect();
        Links {
            links,
            waiters: Mutex::new(HashMap::new()),
            token_next: AtomicU64::new(1),
            stopped: AtomicBool::new(false),
        }
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.links.len()
    }

    /// Asks one shard and waits for its answer.
    ///
    /// # Errors
    /// [`LinkError::Timeout`] after `timeout`, [`LinkError::Stopped`] once the node shuts down.
    pub fn ask(
        &self,
        shard: ShardId,
        request: Request,
        timeout: Duration,
    ) -> Result<Reply, LinkError> {
        let mut replies = self.ask_each(vec![(shard.index(), request)], timeout)?;
        replies.pop().ok_or(LinkError::Stopped)
    }

    /// Asks every shard at once and waits for all answers, given in order of the shards.
    ///
    /// # Errors
    /// As [`Links::ask`], for the first shard that did not answer.
    pub fn ask_all(&self, request: &Request, timeout: Duration) -> Result<Vec<Reply>, LinkError> {
        self.ask_each(
            (0..self.links.len()).map(|shard| (shard, request.clone())).collect(),
            timeout,
        )
    }

    fn ask_each(
        &self,
        requests: Vec<(usize, Request)>,
        timeout: Duration,
    ) -> Result<Vec<Reply>, LinkError> {
        let deadline = Instant::now() + timeout;
        let (answer, answers) = bounded(requests.len());
        let mut replies: Vec<Option<Reply>> = vec![None; requests.len()];
        let shards: Vec<usize> = requests.iter().map(|(shard, _)| *shard).collect();
        let mut tokens = Vec::with_capacity(requests.len());
        let outcome = requests
            .into_iter()
            .enumerate()
            .try_for_each(|(place, (shard, request))| {
                let waiter = Waiter { shard, place, answer: answer.clone() };
                tokens.push(self.send(shard, request, waiter, deadline)?);
                Ok(())
            })
            .and_then(|()| {
                drop(answer);
                collect(&answers, &mut replies, &shards, deadline)
            });
        if let Err(error) = outcome {
            let mut waiters = lock(&self.waiters);
            for token in tokens {
                // The turn is given back when the late reply comes, not now.
                if let Some(waiter) = waiters.get_mut(&token) {
                    waiter.answer = bounded(1).0;
                }
            }
            return Err(error);
        }
        Ok(replies.into_iter().flatten().collect())
    }

    /// Puts a command into a shard's channel when there is room for it, and returns its token.
    fn send(
        &self,
        shard: usize,
        request: Request,
        waiter: Waiter,
        deadline: Instant,
    ) -> Result<u64, LinkError> {
        let link = &self.links[shard];
        self.take_turn(link, shard, deadline)?;
        let token = self.token_next.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiters).insert(token, waiter);
        if self.is_stopped() {
            // `stop` may have cleared the table just before this waiter came.
            lock(&self.waiters).remove(&token);
            return Err(LinkError::Stopped);
        }
        match link.commands.try_send(Command { token, request }) {
            Ok(()) => {
                link.doorbell.ring();
                Ok(token)
            }
            Err(TrySendError::Disconnected(_)) => {
                lock(&self.waiters).remove(&token);
                Err(LinkError::Stopped)
            }
            Err(TrySendError::Full(_)) => {
                unreachable!("the channel holds all commands a shard may have outstanding")
            }
        }
    }

    fn take_turn(&self, link: &Link, shard: usize, deadline: Instant) -> Result<(), LinkError> {
        let mut outstanding = lock(&link.outstanding);
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return Err(LinkError::Stopped);
            }
            if *outstanding < OUTSTANDING_MAX {
                *outstanding += 1;
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::Timeout(shard));
            }
            outstanding = link
                .freed
                .wait_timeout(outstanding, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Gives a reply to who waits for it. Called by the one thread that reads the reply channel.
    pub fn resolve(&self, token: u64, reply: Reply) {
        let waiter = lock(&self.waiters).remove(&token);
        let Some(waiter) = waiter else {
            assert!(self.stopped.load(Ordering::Acquire), "a shard answers each command once");
            return;
        };
        let link = &self.links[waiter.shard];
        let mut outstanding = lock(&link.outstanding);
        *outstanding -= 1;
        drop(outstanding);
        link.freed.notify_one();
        // Nobody listens any more after a timeout; the channel has room for every place of its request.
        let _ = waiter.answer.try_send((waiter.place, reply));
    }

    /// Has every shard make a tick.
    pub fn wake_all(&self) {
        self.links.iter().for_each(|link| link.doorbell.ring());
    }

    /// Ends all waiting: no shard answers any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        lock(&self.waiters).clear();
        for link in &self.links {
            // Under the lock, so that nobody is between its look at `stopped` and its wait.
            let _outstanding = lock(&link.outstanding);
            link.freed.notify_all();
        }
    }

    /// Whether [`Links::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

fn collect(
    answers: &Receiver<(usize, Reply)>,
    replies: &mut [Option<Reply>],
    shards: &[usize],
    deadline: Instant,
) -> Result<(), LinkError> {
    for _ in 0..replies.len() {
        match answers.recv_deadline(deadline) {
            Ok((place, reply)) => replies[place] = Some(reply),
            Err(RecvTimeoutError::Timeout) => {
                let place = replies.iter().position(Option::is_none).unwrap_or(0);
                return Err(LinkError::Timeout(shards[place]));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(LinkError::Stopped),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
