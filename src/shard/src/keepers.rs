//! Acknowledgements that wait until another shard keeps a retained message.
//!
//! Who subscribes after the PUBACK of a retained message, on whatever shard, gets that message or a later one. So the answer to a
//! PUBLISH with RETAIN whose topic another shard keeps waits for that shard's word, and the connection with it: its answers
//! stay in order (MQTT-4.6.0-2).

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
    /// Retained messages sent to it.
    sent: u64,
    /// Those for which somebody waits, by their number.
    waiting: VecDeque<(u64, Unanswered)>,
    /// Retained messages of it that are in our index, and how many of them it knows of.
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

    /// A retained message went to its keeper.
    pub fn sent(&mut self, to: ShardId) {
        self.shards[to.index()].sent += 1;
    }

    /// A retained message of another shard is in our index.
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

    /// A keeper has so many of our retained messages.
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
