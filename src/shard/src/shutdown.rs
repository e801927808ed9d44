//! The end of a shard, in order: its clients go, what they sent arrives on the other shards and is kept, and all shards end
//! together. One that ended before the others would leave unread what these still send, and owe them its word.

use mqtt::ReasonCode;
use ring::ShardId;

use crate::command::Reply;
use crate::control::count;
use crate::effect::ConnectionId;
use crate::leave::End;
use crate::mesh::ControlMessage;
use crate::shard::Shard;

/// Connections told to go per tick: an outbox and a close of each.
pub(crate) const ENDED_PER_TICK: u32 = 2048;

/// The shutdown of a shard.
#[derive(Debug)]
pub(crate) struct Shutdown {
    token: u64,
    reason: ReasonCode,
    /// The next connection to be ended.
    next: u32,
    deadline_ms: u64,
    /// The others know that nothing more comes from here.
    told: bool,
    replied: bool,
}

impl Shard {
    pub(crate) fn begin_shutdown(&mut self, token: u64, reason: ReasonCode, grace_ms: u32) {
        let deadline_ms = self.clients.now.mono_ms + u64::from(grace_ms);
        self.refuse_held_commands();
        self.shutdown =
            Some(Shutdown { token, reason, next: 0, deadline_ms, told: false, replied: false });
    }

    pub(crate) fn shutdown_deadline_ms(&self) -> Option<u64> {
        let shutdown = self.shutdown.as_ref().filter(|s| !s.replied)?;
        let more = shutdown.next < self.clients.connections.slots() || !self.mesh.is_idle();
        // A slice per tick, without waiting, then until the last one has gone or the time is up.
        Some(if more { self.clients.now.mono_ms } else { shutdown.deadline_ms })
    }

    /// Nothing more comes from another shard, unless somebody else sends there.
    pub(crate) fn peer_ended(&mut self, peer: ShardId) {
        self.ended.insert(peer);
    }

    /// Ends the next connections of a shard that shuts down. Answers when none is left on any shard and everything has arrived
    /// and is kept, or when the time is up.
    pub(crate) fn continue_shutdown(&mut self) {
        let Some(shutdown) = self.shutdown.as_mut().filter(|s| !s.replied) else { return };
        let (token, reason, deadline_ms) = (shutdown.token, shutdown.reason, shutdown.deadline_ms);
        let start = shutdown.next;
        let end = start.saturating_add(ENDED_PER_TICK).min(self.clients.connections.slots());
        shutdown.next = end;
        for index in start..end {
            if let Some(connection) = self.clients.connections.at(index) {
                let id = ConnectionId { index, generation: connection.generation };
                self.end_connection(id, End::Shutdown(reason));
            }
        }
        let slots = self.clients.connections.slots();
        if end < slots {
            return;
        }
        let left = (0..slots).filter(|&n| self.clients.connections.at(n).is_some()).count();
        let is_over = left == 0 && self.is_done_with_others();
        if is_over || self.clients.now.mono_ms >= deadline_ms {
            self.reply(token, Reply::ShutDown { left: count(left) });
            if let Some(shutdown) = self.shutdown.as_mut() {
                shutdown.replied = true;
            }
        }
    }

    /// Whether all that was sent to other shards is there, and all they have sent is here and kept. They are told when nothing
    /// more comes from here; behind it they get nothing but our word.
    fn is_done_with_others(&mut self) -> bool {
        let has_sent_all = self.mesh.is_idle() && !self.clients.barrier.has_on_their_way();
        let Some(shutdown) = self.shutdown.as_mut().filter(|_| has_sent_all) else { return false };
        if !shutdown.told {
            shutdown.told = true;
            for to in self.others() {
                self.mesh.send_control(to, ControlMessage::Ended);
            }
        }
        // Their batches came before that message: what is read of one tick has all of them.
        self.ended.len() == self.shards - 1
            && self.mesh.is_idle()
            && !self.inbox_left
            && self.is_all_kept()
    }

    /// Whether a shutdown is complete: the reactor may end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.replied)
    }

    /// Whether the shard accepts no more connections.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shutdown.is_some()
    }
}
