//! What was published and what was acknowledged, by all publishers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A message as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub publisher: usize,
    pub topic: String,
    pub qos: u8,
}

#[derive(Debug, Default)]
struct Books {
    sent: Vec<Sent>,
    acknowledged: Vec<u64>,
    /// The message of each retained topic that was acknowledged last.
    retained: HashMap<String, u64>,
}

/// Numbers all messages in the order they are sent in; a message's payload is its number.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a message that is about to be sent; its number.
    pub fn sent(&self, message: Sent) -> u64 {
        let mut books = self.books();
        books.sent.push(message);
        books.sent.len() as u64
    }

    /// The number the next message gets.
    pub fn next(&self) -> u64 {
        self.books().sent.len() as u64 + 1
    }

    /// Notes that a message was acknowledged; again does no harm.
    pub fn acknowledged(&self, number: u64) {
        let mut books = self.books();
        let message = books.message(number).clone();
        if message.topic.starts_with('r') {
            books.retained.insert(message.topic, number);
        }
        books.acknowledged.push(number);
    }

    /// A message by its number.
    pub fn message(&self, number: u64) -> Sent {
        self.books().message(number).clone()
    }

    /// The acknowledged messages from the `from`-th acknowledgement on, and how many acknowledgements there are.
    pub fn acknowledged_from(&self, from: usize) -> (Vec<(u64, Sent)>, usize) {
        let books = self.books();
        let new = books.acknowledged[from..].iter();
        let found = new.map(|&number| (number, books.message(number).clone())).collect();
        (found, books.acknowledged.len())
    }

    /// The message of each retained topic that was acknowledged last.
    pub fn retained(&self) -> HashMap<String, u64> {
        self.books().retained.clone()
    }
}

impl Books {
    fn message(&self, number: u64) -> &Sent {
        &self.sent[usize::try_from(number).expect("a number it gave") - 1]
    }
}
