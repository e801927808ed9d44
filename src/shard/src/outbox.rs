//! What is to be sent, per connection.
//!
//! A connection has an outbox only while it has something to send or a send in flight; idle ones hold nothing.
//! Outboxes and their buffers are used again in the order last in, first out, so a steady load allocates nothing
//! and touches warm memory.

use bytes::Bytes;

use crate::effect::Outgoing;

/// Shared payloads up to this size are copied behind what is already waiting: below it a copy is cheaper than
/// one more entry in a vectored send.
const COPY_MAX: usize = 2048;

/// Most bytes of one send where more wait: the time a send takes tells whether its client reads at all.
const SEND_MAX: usize = 256 * 1024;

/// Buffers kept for use again, and the most capacity such a buffer may have.
const SPARE_MAX: usize = 1024;
const SPARE_CAPACITY_MAX: usize = 8 * 1024;

/// No outbox.
pub(crate) const NO_OUTBOX: u32 = u32::MAX;

/// One connection's bytes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Whole buffers that go first.
    segments: Vec<Bytes>,
    /// Bytes that come after the segments.
    tail: Vec<u8>,
    /// Sum of `segments`.
    segment_bytes: usize,
    /// Bytes of the send in flight; 0 when there is none.
    in_flight: usize,
    /// When that send began, on the monotonic clock.
    since_ms: u64,
    /// The connection, for the look at overdue sends.
    owner: u32,
}

impl Outbox {
    /// Bytes waiting and in flight: what the connection's limit is about.
    pub fn bytes(&self) -> usize {
        self.segment_bytes + self.tail.len() + self.in_flight
    }

    /// Whether something waits.
    pub fn has_waiting(&self) -> bool {
        self.segment_bytes + self.tail.len() > 0
    }

    /// Whether a send is in flight.
    pub fn is_sending(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether its send began at or before `before_ms` and is not over.
    pub fn is_overdue(&self, before_ms: u64) -> bool {
        self.is_sending() && self.since_ms <= before_ms
    }

    /// Where a packet is encoded to.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        self.melt_single();
        &mut self.tail
    }

    /// Adds a buffer that others send as well.
    pub fn push_shared(&mut self, bytes: &Bytes) {
        if !self.has_waiting() {
            self.segment_bytes = bytes.len();
            self.segments.push(bytes.clone());
        } else if bytes.len() <= COPY_MAX {
            self.melt_single();
            self.tail.extend_from_slice(bytes);
        } else {
            self.freeze_tail();
            self.segment_bytes += bytes.len();
            self.segments.push(bytes.clone());
        }
    }

    /// Turns one small shared buffer into bytes of our own, so that what follows joins it in one send.
    fn melt_single(&mut self) {
        if self.tail.is_empty() && self.segments.len() == 1 && self.segment_bytes <= COPY_MAX {
            self.tail.extend_from_slice(&self.segments[0]);
            self.segments.clear();
            self.segment_bytes = 0;
        }
    }

    fn freeze_tail(&mut self) {
        if !self.tail.is_empty() {
            self.segment_bytes += self.tail.len();
            self.segments.push(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }
}

/// The outboxes of a shard.
#[derive(Debug, Default)]
pub(crate) struct Outboxes {
    boxes: Vec<Outbox>,
    free: Vec<u32>,
    spare: Vec<Vec<u8>>,
}

impl Outboxes {
    /// The outbox at `*index`, made now if there is none.
    pub fn open(&mut self, index: &mut u32, owner: u32) -> &mut Outbox {
        if *index == NO_OUTBOX {
            *index = self.free.pop().unwrap_or_else(|| {
                self.boxes.push(Outbox::default());
                u32::try_from(self.boxes.len() - 1).expect("fewer outboxes than connections")
            });
            self.boxes[*index as usize].owner = owner;
        }
        &mut self.boxes[*index as usize]
    }

    /// How many hold something or have a send in flight.
    pub fn in_use(&self) -> usize {
        self.boxes.len() - self.free.len()
    }

    /// The outbox at `index`.
    pub fn get(&self, index: u32) -> Option<&Outbox> {
        if index == NO_OUTBOX { None } else { Some(&self.boxes[index as usize]) }
    }

    /// Bytes waiting and in flight at `index`.
    pub fn bytes(&self, index: u32) -> usize {
        self.get(index).map_or(0, Outbox::bytes)
    }

    /// Takes what waits, for one send.
    pub fn take(&mut self, index: u32, now_ms: u64) -> Option<Outgoing> {
        if index == NO_OUTBOX {
            return None;
        }
        let outbox = &mut self.boxes[index as usize];
        if outbox.is_sending() || !outbox.has_waiting() {
            return None;
        }
        let outgoing = if outbox.bytes() > SEND_MAX {
            outbox.freeze_tail();
            let mut first = outbox.segments.remove(0);
            let rest = first.split_off(first.len().min(SEND_MAX));
            if !rest.is_empty() {
                outbox.segments.insert(0, rest);
            }
            outbox.segment_bytes -= first.len();
            outbox.in_flight = first.len();
            outbox.since_ms = now_ms;
            return Some(Outgoing::Shared(first));
        } else if outbox.segments.is_empty() {
            let spare = self.spare.pop().unwrap_or_default();
            Outgoing::Bytes(std::mem::replace(&mut outbox.tail, spare))
        } else if outbox.segments.len() == 1 && outbox.tail.is_empty() {
            Outgoing::Shared(outbox.segments.pop().expect("one is there"))
        } else {
            outbox.freeze_tail();
            Outgoing::Segments(std::mem::take(&mut outbox.segments))
        };
        outbox.segment_bytes = 0;
        outbox.in_flight = outgoing.len();
        outbox.since_ms = now_ms;
        Some(outgoing)
    }

    /// What was taken is held back: nobody can be late with it.
    pub fn hold(&mut self, index: u32) {
        self.boxes[index as usize].since_ms = u64::MAX;
    }

    /// What was held is sent now.
    pub fn release(&mut self, index: u32, now_ms: u64) {
        self.boxes[index as usize].since_ms = now_ms;
    }

    /// A send is over; its buffer comes back. True if more waits.
    pub fn sent(&mut self, index: &mut u32, outgoing: Outgoing) -> bool {
        if let Outgoing::Bytes(buffer) = outgoing {
            self.keep(buffer);
        }
        if *index == NO_OUTBOX {
            return false;
        }
        let outbox = &mut self.boxes[*index as usize];
        outbox.in_flight = 0;
        let more = outbox.has_waiting();
        if !more {
            self.close(index);
        }
        more
    }

    /// Drops what waits and gives the outbox back. The buffers of a send in flight are the reactor's.
    pub fn close(&mut self, index: &mut u32) {
        if *index == NO_OUTBOX {
            return;
        }
        let outbox = &mut self.boxes[*index as usize];
        let tail = std::mem::take(&mut outbox.tail);
        *outbox = Outbox { segments: std::mem::take(&mut outbox.segments), ..Outbox::default() };
        outbox.segments.clear();
        if outbox.segments.capacity() > 8 {
            outbox.segments = Vec::new();
        }
        self.keep(tail);
        // The last buffer kept becomes the tail of the next outbox that is opened.
        self.boxes[*index as usize].tail = self.spare.pop().unwrap_or_default();
        self.free.push(*index);
        *index = NO_OUTBOX;
        if self.free.len() > SPARE_MAX {
            self.boxes[self.free[self.free.len() - 1] as usize].tail = Vec::new();
        }
    }

    /// Connections whose send began at or before `before_ms` and is not over (SEED-LSN-14 `send_timeout`).
    pub fn overdue(&self, before_ms: u64) -> impl Iterator<Item = u32> {
        self.boxes
            .iter()
            .filter(move |outbox| outbox.is_sending() && outbox.since_ms <= before_ms)
            .map(|outbox| outbox.owner)
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0
            && buffer.capacity() <= SPARE_CAPACITY_MAX
            && self.spare.len() < SPARE_MAX
        {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_one_tick_leave_in_one_buffer() {
        let mut outboxes = Outboxes::default();
        let mut index = NO_OUTBOX;
        outboxes.open(&mut index, 1).tail().extend_from_slice(b"ab");
        outboxes.open(&mut index, 1).push_shared(&Bytes::from_static(b"cd"));
        outboxes.open(&mut index, 1).tail().extend_from_slice(b"ef");
        let outgoing = outboxes.take(index, 0).unwrap();
        assert!(matches!(&outgoing, Outgoing::Bytes(b) if b == b"abcdef"));
        assert!(outboxes.take(index, 0).is_none(), "nothing waits and a send is in flight");
        assert!(!outboxes.sent(&mut index, outgoing));
        assert_eq!(index, NO_OUTBOX);
    }

    #[test]
    fn a_lone_shared_buffer_is_sent_as_it_is() {
        let mut outboxes = Outboxes::default();
        let mut index = NO_OUTBOX;
        outboxes.open(&mut index, 1).push_shared(&Bytes::from_static(b"xyz"));
        let outgoing = outboxes.take(index, 0).unwrap();
        assert!(matches!(outgoing, Outgoing::Shared(_)));
        outboxes.open(&mut index, 1).tail().push(b'!');
        assert!(outboxes.sent(&mut index, outgoing), "more waits");
        assert_eq!(outboxes.bytes(index), 1);
    }

    #[test]
    fn small_shared_buffers_join_and_large_ones_stay_apart() {
        let mut outboxes = Outboxes::default();
        let mut index = NO_OUTBOX;
        let small = Bytes::from_static(b"s");
        let large = Bytes::from(vec![0; COPY_MAX + 1]);
        outboxes.open(&mut index, 1).push_shared(&small);
        outboxes.open(&mut index, 1).push_shared(&small);
        outboxes.open(&mut index, 1).push_shared(&large);
        outboxes.open(&mut index, 1).push_shared(&small);
        assert_eq!(outboxes.bytes(index), COPY_MAX + 4);
        let Some(Outgoing::Segments(segments)) = outboxes.take(index, 0) else { panic!() };
        assert_eq!(segments.iter().map(Bytes::len).collect::<Vec<_>>(), [2, COPY_MAX + 1, 1]);
    }

    #[test]
    fn order_is_kept_after_a_tail_behind_a_shared_buffer() {
        let mut outboxes = Outboxes::default();
        let mut index = NO_OUTBOX;
        outboxes.open(&mut index, 1).push_shared(&Bytes::from_static(b"1"));
        outboxes.open(&mut index, 1).tail().push(b'2');
        outboxes.open(&mut index, 1).push_shared(&Bytes::from_static(b"3"));
        let outgoing = outboxes.take(index, 0).unwrap();
        assert!(matches!(&outgoing, Outgoing::Bytes(b) if b == b"123"));
    }

    #[test]
    fn a_lot_leaves_in_several_sends_and_in_order() {
        let mut outboxes = Outboxes::default();
        let mut index = NO_OUTBOX;
        let all: Vec<u8> = (0..=u8::MAX).cycle().take(SEND_MAX * 2 + 100).collect();
        outboxes.open(&mut index, 1).tail().extend_from_slice(&all);
        let mut sent = Vec::new();
        while let Some(outgoing) = outboxes.take(index, 0) {
            assert!(outgoing.len() <= SEND_MAX);
            match &outgoing {
                Outgoing::Bytes(bytes) => sent.extend_from_slice(bytes),
                Outgoing::Shared(bytes) => sent.extend_from_slice(bytes),
                Outgoing::Segments(all) => all.iter().for_each(|b| sent.extend_from_slice(b)),
            }
            outboxes.sent(&mut index, outgoing);
        }
        assert!(sent == all);
        assert_eq!(index, NO_OUTBOX);
    }

    #[test]
    fn overdue_sends_are_found_by_their_owner() {
        let mut outboxes = Outboxes::default();
        let mut index = NO_OUTBOX;
        outboxes.open(&mut index, 42).tail().push(1);
        let outgoing = outboxes.take(index, 1000).unwrap();
        assert_eq!(outboxes.overdue(999).count(), 0);
        assert_eq!(outboxes.overdue(1000).collect::<Vec<_>>(), [42]);
        outboxes.sent(&mut index, outgoing);
        assert_eq!(outboxes.overdue(5000).count(), 0);
    }
}
