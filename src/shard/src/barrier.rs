//! What may be told to whom only when something is kept: acknowledgements that wait for a commit, or for other shards.
//!
//! Everything a connection is told in a tick that depends on something being kept waits, in its outbox, until it is: the
//! connection is *gated*. All that waits of one tick is one group; groups pass in their order. A group passes when this shard's
//! changes of the tick are committed (`store.sync = always`), and when the shards that its publications went to have given their word
//! that they keep them. So a PUBACK that has left means that the message is in every queue it has to reach, a SUBACK that the subscription
//! stays, a PUBREL that the PUBREC is known; and the order of what a client gets is never another one.
//!
//! Without `always` only one thing waits: the answer to a retained or a delayed message that another shard keeps, so that who
//! subscribes after a retained one, on whatever shard, gets that message or a later one.

use std::collections::VecDeque;

use hashbrown::HashMap;
use mqtt::QoS;
use ring::{ShardId, ShardSet};
use smallvec::SmallVec;

use crate::clients::Clients;
use crate::connection::flag;
use crate::effect::{CloseMode, ConnectionId, Effect, Outgoing};
use crate::held::Held;
use crate::mesh::{ControlMessage, Target};
use crate::shard::Shard;

/// What waits together.
#[derive(Debug, Default)]
struct Group {
    /// The batch of this shard that has to be committed; 0 for none.
    sequence: u64,
    /// Shards, and how many of our publications they have to keep, of all there ever were.
    needs: SmallVec<[(ShardId, u64); 2]>,
    /// Connections with something to send.
    connections: Vec<ConnectionId>,
    /// Connections that are to be closed behind it.
    closes: Vec<(ConnectionId, CloseMode)>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.closes.is_empty()
    }
}

/// What other shards are told when our changes are committed. Nothing else may be waited for here: two shards whose word
/// depends on each other's would wait for ever.
#[derive(Debug)]
struct Word {
    /// The batch of this shard that has to be committed; 0 for none.
    sequence: u64,
    /// To whom.
    to: ShardId,
    /// How many of its publications we keep then.
    count: u64,
}

/// A connection that waits.
#[derive(Debug, Default)]
struct Gate {
    /// What it has to say waits for this group.
    group: u64,
    /// What was taken from its outbox, and the group it waits for.
    held: Option<(u64, Outgoing)>,
}

/// Counts towards one other shard, of publications that are to be kept, of all there ever were.
#[derive(Debug, Default, Clone, Copy)]
struct Peer {
    /// Sent to it.
    sent: u64,
    /// Of those, kept by it.
    kept: u64,
    /// Received from it.
    received: u64,
}

/// A message that may be forgotten here when others have it.
#[derive(Debug)]
struct OnItsWay {
    slot: u16,
    number: u64,
    needs: SmallVec<[(ShardId, u64); 2]>,
}

/// The groups of a shard.
#[derive(Debug)]
pub(crate) struct Barrier {
    /// Number of the group of this tick.
    open: u64,
    current: Group,
    /// Those that wait, oldest first; the last one has the number before `open`.
    groups: VecDeque<Group>,
    gates: HashMap<u32, Gate>,
    /// Shards whose publications came in this tick.
    heard: ShardSet,
    words: VecDeque<Word>,
    peers: Vec<Peer>,
    on_their_way: VecDeque<OnItsWay>,
    /// Messages that go to other shards when their batch is handed over.
    held: VecDeque<Held>,
    /// Publications of `QoS` 1 and 2 are counted, not only those that are to be retained or delayed.
    counts_all: bool,
}

impl Barrier {
    pub fn new(shards: usize, counts_all: bool) -> Self {
        Self {
            open: 1,
            current: Group::default(),
            groups: VecDeque::new(),
            gates: HashMap::new(),
            heard: ShardSet::EMPTY,
            words: VecDeque::new(),
            peers: vec![Peer::default(); shards],
            on_their_way: VecDeque::new(),
            held: VecDeque::new(),
            counts_all,
        }
    }

    /// The last group that has passed.
    fn passed(&self) -> u64 {
        self.open - 1 - self.groups.len() as u64
    }

    /// Whether a publication is one that its receiver has to say it keeps.
    pub fn counts(&self, target: Target<'_>, qos: QoS) -> bool {
        matches!(target, Target::Retained { .. } | Target::Delayed { .. })
            || (self.counts_all && qos != QoS::AtMostOnce)
    }

    /// A publication that counts went to a shard.
    pub fn sent(&mut self, to: ShardId) {
        self.peers[to.index()].sent += 1;
    }

    /// A publication that counts came from a shard.
    pub fn received(&mut self, from: ShardId) {
        self.peers[from.index()].received += 1;
        self.heard.insert(from);
    }

    /// What waits in this tick waits for these shards too.
    pub fn need(&mut self, shards: ShardSet) {
        for shard in shards.iter() {
            let sent = self.peers[shard.index()].sent;
            match self.current.needs.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, count)) => *count = sent,
                None => self.current.needs.push((shard, sent)),
            }
        }
    }

    /// A message of the store may be forgotten when these shards have it.
    pub fn forget_when_kept(&mut self, slot: u16, number: u64, shards: ShardSet) {
        let needs = shards.iter().map(|shard| (shard, self.peers[shard.index()].sent)).collect();
        self.on_their_way.push_back(OnItsWay { slot, number, needs });
    }

    /// Holds a message back until its batch is handed over.
    pub fn hold(&mut self, held: Held) {
        self.held.push_back(held);
    }

    /// Takes the next message that need not be held back any more.
    pub fn next_held(&mut self, handed_over: u64) -> Option<Held> {
        let may_go = self.held.front().is_some_and(|held| held.sequence <= handed_over);
        if may_go { self.held.pop_front() } else { None }
    }

    fn have(&self, needs: &[(ShardId, u64)]) -> bool {
        needs.iter().all(|&(shard, count)| self.peers[shard.index()].kept >= count)
    }

    /// Takes the next message that all others have.
    fn next_kept(&mut self) -> Option<(u16, u64)> {
        let first = self.on_their_way.front()?;
        if !self.have(&first.needs) {
            return None;
        }
        self.on_their_way.pop_front().map(|one| (one.slot, one.number))
    }

    /// Whether messages are on their way to other shards.
    pub fn has_on_their_way(&self) -> bool {
        !self.on_their_way.is_empty() || !self.held.is_empty()
    }

    /// Whether there is something that the end of the tick has to see to.
    pub fn has_current(&self) -> bool {
        !self.current.is_empty() || !self.heard.is_empty()
    }

    fn gate(&mut self, id: ConnectionId) {
        let gate = self.gates.entry(id.index).or_default();
        if gate.group != self.open {
            gate.group = self.open;
            self.current.connections.push(id);
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, index: u32) {
        self.gates.remove(&index);
    }

    /// Ends the group of this tick; `sequence` is what has to be committed for it.
    fn close(&mut self, sequence: u64) {
        for to in std::mem::take(&mut self.heard).iter() {
            let count = self.peers[to.index()].received;
            self.words.push_back(Word { sequence, to, count });
        }
        if self.current.is_empty() {
            self.current.needs.clear();
            return;
        }
        let mut group = std::mem::take(&mut self.current);
        group.sequence = sequence;
        self.groups.push_back(group);
        self.open += 1;
    }

    /// Takes the next word that may be given.
    fn next_word(&mut self, committed: u64) -> Option<Word> {
        let may_be_given = self.words.front().is_some_and(|word| word.sequence <= committed);
        if may_be_given { self.words.pop_front() } else { None }
    }

    /// Takes the next group that passes.
    fn pass(&mut self, committed: u64) -> Option<Group> {
        let first = self.groups.front()?;
        if first.sequence > committed || !self.have(&first.needs) {
            return None;
        }
        self.groups.pop_front()
    }
}

impl Clients {
    /// What a connection is told from now on, and what waits in its outbox, depends on what is kept in this tick.
    pub fn gate(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.flags |= flag::GATED;
        self.barrier.gate(id);
    }

    /// Takes what a gated connection has to send: what was held if it may go, else nothing; then what waits is held.
    pub fn take_gated(&mut self, id: ConnectionId) -> Option<Outgoing> {
        let Clients { connections, outboxes, barrier, now, .. } = self;
        let connection = connections.get_mut(id)?;
        let passed = barrier.passed();
        let gate = barrier.gates.get_mut(&id.index).expect("a gated connection has its gate");
        let is_open = gate.group <= passed;
        let outgoing = match gate.held.take() {
            Some((group, outgoing)) if group > passed => {
                gate.held = Some((group, outgoing));
                return None;
            }
            Some((_, outgoing)) => {
                outboxes.release(connection.outbox, now.mono_ms);
                Some(outgoing)
            }
            None if is_open => outboxes.take(connection.outbox, now.mono_ms),
            None => {
                if let Some(outgoing) = outboxes.take(connection.outbox, now.mono_ms) {
                    outboxes.hold(connection.outbox);
                    gate.held = Some((gate.group, outgoing));
                }
                return None;
            }
        };
        if is_open {
            barrier.gates.remove(&id.index);
            connection.flags &= !flag::GATED;
        }
        outgoing
    }

    /// Lets a connection be closed behind what it is still to be told; false if it has nothing of that kind.
    pub fn close_behind(&mut self, id: ConnectionId, mode: CloseMode) -> bool {
        let gated = self.connections.get(id).is_some_and(|c| c.has(flag::GATED));
        let passed = self.barrier.passed();
        let gate = self.barrier.gates.get(&id.index).filter(|_| gated);
        let waits = gate.is_some_and(|gate| gate.group > passed);
        // While the store fails nobody knows how long that would be.
        let is_failing = self.journal.as_ref().is_some_and(|journal| journal.is_failing);
        if waits && mode == CloseMode::Linger && !is_failing {
            self.barrier.current.closes.push((id, mode));
            return true;
        }
        false
    }
}

impl Shard {
    /// The end of a tick: what waits of it becomes a group; those that pass are let go.
    pub(crate) fn close_group(&mut self) {
        let sequence = match &self.clients.journal {
            Some(journal) if journal.is_always() => journal.needed(),
            _ => 0,
        };
        self.clients.barrier.close(sequence);
        self.pass_groups();
    }

    /// Lets go what need not wait any more.
    pub(crate) fn pass_groups(&mut self) {
        let committed = self.clients.journal.as_ref().map_or(0, |j| j.committed_sequence());
        while let Some(word) = self.clients.barrier.next_word(committed) {
            self.mesh.send_control(word.to, ControlMessage::Kept { count: word.count });
        }
        while let Some(group) = self.clients.barrier.pass(committed) {
            for id in group.connections {
                if let Some(connection) = self.clients.connections.get_mut(id) {
                    crate::clients::queue_flush(connection, id.index, &mut self.clients.effects);
                }
            }
            for (id, mode) in group.closes {
                if self.clients.connections.get(id).is_some() {
                    self.clients.effects.push(Effect::Close { id, mode });
                }
            }
        }
    }

    /// Another shard keeps so many of our publications.
    pub(crate) fn kept(&mut self, by: ShardId, count: u64) {
        let peer = &mut self.clients.barrier.peers[by.index()];
        assert!(peer.kept <= count && count <= peer.sent, "confirmations come in order");
        peer.kept = count;
        while let Some((slot, number)) = self.clients.barrier.next_kept() {
            if let Some(journal) = &mut self.clients.journal {
                journal.remove_delayed(slot, number);
            }
        }
        self.pass_groups();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 1 }
    }

    #[test]
    fn groups_pass_in_order_when_committed_and_kept() {
        let other = ShardId::new(1);
        let mut barrier = Barrier::new(2, true);
        barrier.gate(id(1));
        barrier.sent(other);
        barrier.need(ShardSet::single(other));
        barrier.close(1);
        barrier.gate(id(2));
        barrier.close(2);
        assert!(barrier.pass(2).is_none(), "the other shard has not confirmed");
        barrier.peers[1].kept = 1;
        assert!(barrier.pass(0).is_none(), "nothing is committed");
        assert_eq!(barrier.pass(1).unwrap().connections, [id(1)]);
        assert!(barrier.pass(1).is_none());
        assert_eq!(barrier.pass(2).unwrap().connections, [id(2)]);
        assert_eq!(barrier.passed(), 2);
    }

    #[test]
    fn what_came_from_others_is_told_when_it_is_committed() {
        let mut barrier = Barrier::new(3, true);
        barrier.received(ShardId::new(2));
        barrier.received(ShardId::new(2));
        // What waits for another shard does not keep our own word back.
        barrier.gate(id(1));
        barrier.sent(ShardId::new(1));
        barrier.need(ShardSet::single(ShardId::new(1)));
        barrier.close(7);
        barrier.received(ShardId::new(2));
        assert!(barrier.next_word(6).is_none());
        let word = barrier.next_word(7).unwrap();
        assert_eq!((word.to, word.count), (ShardId::new(2), 2));
        assert!(barrier.next_word(7).is_none() && barrier.pass(7).is_none());
    }

    #[test]
    fn only_retained_and_delayed_messages_count_without_always() {
        let barrier = Barrier::new(2, false);
        assert!(barrier.counts(Target::Retained { is_again: false }, QoS::AtMostOnce));
        assert!(barrier.counts(Target::Delayed { due_unix_ms: 7 }, QoS::AtMostOnce));
        assert!(!barrier.counts(Target::Subscribers, QoS::ExactlyOnce));
        assert!(Barrier::new(2, true).counts(Target::Subscribers, QoS::AtLeastOnce));
    }
}
