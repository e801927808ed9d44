//! The connections of a thread, by their slot in the ring's table of direct descriptors.

use shard::ConnectionId;

/// No client, no connection, no buffers.
pub const NONE: u32 = u32::MAX;
/// Generations share a word with flags in the reactor: 24 bits.
const GENERATIONS: u32 = 1 << 24;
/// Slots per chunk: 16 KiB. The table is sparse when there are several rings.
const CHUNK: u32 = 1024;

/// Bytes wait to be sent and the reactor has not been told.
pub const DIRTY: u32 = 1 << 24;
/// The agent wants to know when all is sent.
pub const WANTS_DRAINED: u32 = 1 << 25;
const FLAGS: u32 = DIRTY | WANTS_DRAINED;

/// One slot.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Whose it is; [`NONE`] after it was closed, until the slot is free.
    pub client: u32,
    /// Its buffers, if bytes wait.
    pub io: u32,
    /// Low 24 bits: who uses the slot, counted. Above: flags.
    word: u32,
    /// Bytes handed to the kernel that it has not taken.
    pub sending: u32,
}

const _: () = assert!(size_of::<Connection>() == 16, "an idle connection costs 16 bytes");

impl Connection {
    const FREE: Connection = Connection { client: NONE, io: NONE, word: 0, sending: 0 };

    /// Counts the users of the slot.
    pub fn generation(&self) -> u32 {
        self.word % GENERATIONS
    }

    /// Whether all of `flags` are set.
    pub fn has(&self, flags: u32) -> bool {
        self.word & flags == flags
    }

    /// Sets flags.
    pub fn set(&mut self, flags: u32) {
        self.word |= flags & FLAGS;
    }

    /// Clears flags.
    pub fn clear(&mut self, flags: u32) {
        self.word &= !(flags & FLAGS);
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Connections {
    chunks: Vec<Option<Box<[Connection]>>>,
}

impl Connections {
    /// Gives the slot to a client.
    pub fn take(&mut self, index: u32, client: u32) -> ConnectionId {
        let (chunk, at) = place(index);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| {
            vec![Connection::FREE; usize::try_from(CHUNK).expect("1024 fits")].into_boxed_slice()
        });
        let connection = &mut chunk[at];
        debug_assert_eq!(connection.client, NONE, "a slot is given out once");
        let generation = (connection.generation() + 1) % GENERATIONS;
        *connection = Connection { client, word: generation, ..Connection::FREE };
        ConnectionId { index, generation }
    }

    /// The connection, if the slot is still this one's.
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.at(id.index)?;
        (connection.generation() == id.generation).then_some(connection)
    }

    /// The slot, whoever uses it.
    pub fn at(&mut self, index: u32) -> Option<&mut Connection> {
        let (chunk, at) = place(index);
        Some(&mut self.chunks.get_mut(chunk)?.as_mut()?[at])
    }
}

fn place(index: u32) -> (usize, usize) {
    let place = |number: u32| usize::try_from(number).expect("32 bits fit");
    (place(index / CHUNK), place(index % CHUNK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_knows_its_users_apart() {
        let mut connections = Connections::default();
        let first = connections.take(5_000_000, 7);
        assert_eq!(connections.get(first).expect("there").client, 7);
        connections.get(first).expect("there").set(DIRTY);
        connections.get(first).expect("there").client = NONE;
        let second = connections.take(5_000_000, 8);
        assert!(connections.get(first).is_none());
        let connection = connections.get(second).expect("there");
        assert!(!connection.has(DIRTY) && connection.client == 8);
        assert!(connections.at(4).is_none());
    }

    #[test]
    fn generations_go_round_and_leave_the_flags_alone() {
        let mut connections = Connections::default();
        let id = connections.take(0, 1);
        let connection = connections.get(id).expect("there");
        connection.word = GENERATIONS - 1;
        connection.set(DIRTY | WANTS_DRAINED);
        connection.client = NONE;
        assert_eq!(connection.generation(), GENERATIONS - 1);
        assert_eq!(connections.take(0, 2).generation, 0);
    }
}
