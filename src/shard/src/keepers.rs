//! Acknowledgements that wait until another shard keeps a retained or a delayed message.
//!
//! Who subscribes after the PUBACK of a retained message, on whatever shard, gets that message or a later one. So the answer to a
//! PUBLISH with RETAIN whose topic another shard keeps waits for that shard's word, and the connection with it: its answers
//! stay in order (MQTT-4.6.0-2). A delayed message is kept by its topic's shard too (SEED-PUB-16); that it has no room for it is
//! said before.

use std::collections::VecDeque;

use mqtt::{PacketId, QoS, ReasonCode};
use ring::ShardId;

use crate::connection::pause;
use crate::effect::ConnectionId;
use crate::mesh::ControlMessage;
use crate::shard::Shard;

/// An acknowledgement that waits.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub connection: ConnectionId,
    pub qos: QoS,
    pub packet_id: PacketId,
    pub reason: ReasonCode,
}

/// Counts towards one other shard.
#[derive(Debug, Default)]
struct Keeper {
    /// Messages sent to it to be kept.
    sent: u64,
    /// Those for which somebody waits, by their number.
    waiting: VecDeque<(u64, Unanswered)>,
    /// Messages of it that were taken here, and how many of them it knows of.
    stored: u64,
    confirmed: u64,
}

/// The shards as keepers of retained messages.
#[derive(Debug)]
pub(crate) struct Keepers {
    shards: Vec<Keeper>,
}

impl Keepers {
    pub fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| Keeper::default()).collect() }
    }

    /// A message went to its keeper.
    pub fn sent(&mut self, to: ShardId) {
        self.shards[to.index()].sent += 1;
    }

    /// A message of another shard was taken: kept, or refused before.
    pub fn stored(&mut self, from: ShardId) {
        self.shards[from.index()].stored += 1;
    }
}

impl Shard {
    /// Lets the answer to a PUBLISH wait until `keeper` has all retained messages sent to it so far.
    pub(crate) fn wait_for_keeper(&mut self, keeper: ShardId, unanswered: Unanswered) {
        let connection = unanswered.connection;
        let keeper = &mut self.keepers.shards[keeper.index()];
        keeper.waiting.push_back((keeper.sent, unanswered));
        self.pause(connection, pause::RETAINING);
    }

    /// Tells a shard how many of its retained messages are in our index.
    pub(crate) fn confirm_retained(&mut self, to: ShardId) {
        let keeper = &mut self.keepers.shards[to.index()];
        if keeper.confirmed < keeper.stored {
            keeper.confirmed = keeper.stored;
            let message = ControlMessage::RetainedStored { count: keeper.stored };
            self.mesh.send_control(to, message);
        }
    }

    /// Tells a shard that the message it gave us next is not kept.
    pub(crate) fn refuse_to_keep(&mut self, from: ShardId) {
        let number = self.keepers.shards[from.index()].stored + 1;
        self.mesh.send_control(from, ControlMessage::NotKept { number });
    }

    /// A keeper has no room for one of our messages; the word that it has taken it is still to come.
    pub(crate) fn not_kept(&mut self, by: ShardId, number: u64) {
        let waiting = &mut self.keepers.shards[by.index()].waiting;
        // Nobody waits for a message of QoS 0.
        if let Ok(place) = waiting.binary_search_by_key(&number, |&(number, _)| number) {
            waiting[place].1.reason = ReasonCode::QuotaExceeded;
        }
    }

    /// A keeper has so many of our messages.
    pub(crate) fn retained_stored(&mut self, by: ShardId, count: u64) {
        loop {
            let waiting = &mut self.keepers.shards[by.index()].waiting;
            if waiting.front().is_none_or(|&(number, _)| number > count) {
                return;
            }
            let (_, unanswered) = waiting.pop_front().expect("looked at above");
            let Unanswered { connection, qos, packet_id, reason } = unanswered;
            if self.clients.connections.get(connection).is_some() {
                self.acknowledge(connection, qos, Some(packet_id), reason);
                self.resume(connection, pause::RETAINING);
            }
        }
    }
}
