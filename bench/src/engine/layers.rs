//! What stands between the wire and MQTT: TLS and WebSocket, of connections that have them. The others cost nothing here.

use filter::{ClientFilter, ClientFilterSettings, FilterError};
use std::mem;

/// Slots per chunk, as in `connections`.
const CHUNK: usize = 1024;

/// The layers of one connection.
#[derive(Debug)]
struct Layer {
    filter: ClientFilter,
    /// What goes on the wire next.
    wire: Vec<u8>,
    was_open: bool,
    has_said_goodbye: bool,
}

/// What came of received bytes.
#[derive(Debug)]
pub struct Passed {
    /// MQTT's bytes.
    pub plain: Vec<u8>,
    /// The handshakes are done just now; whether TLS's was a short one.
    pub opened: Option<bool>,
    /// Something is to be sent.
    pub has_wire: bool,
    /// Nothing more will come.
    pub is_ended: bool,
    /// Why it cannot go on.
    pub error: Option<FilterError>,
}

type Chunk = Box<[Option<Box<Layer>>]>;

/// The layers of a thread's connections, by slot.
#[derive(Debug, Default)]
pub struct Layers {
    chunks: Vec<Option<Chunk>>,
    /// Scratch: received bytes, which are decrypted in their place.
    raw: Vec<u8>,
    /// Scratch: the same as MQTT's.
    plain: Vec<u8>,
    seed: u64,
}

impl Layers {
    fn get(&mut self, index: u32) -> Option<&mut Layer> {
        let (chunk, at) = place(index);
        self.chunks.get_mut(chunk)?.as_mut()?[at].as_deref_mut()
    }

    /// Whether a connection has any.
    pub fn has(&mut self, index: u32) -> bool {
        !self.chunks.is_empty() && self.get(index).is_some()
    }

    /// Gives a connection layers; they have something to say at once.
    pub fn insert(
        &mut self,
        index: u32,
        settings: &ClientFilterSettings,
    ) -> Result<(), FilterError> {
        let mut wire = Vec::new();
        self.seed = self.seed.wrapping_add(1);
        let filter = ClientFilter::new(settings, self.seed, &mut wire)?;
        let (chunk, at) = place(index);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| (0..CHUNK).map(|_| None).collect());
        let layer = Layer { filter, wire, was_open: false, has_said_goodbye: false };
        chunk[at] = Some(Box::new(layer));
        Ok(())
    }

    /// The connection is closed.
    pub fn remove(&mut self, index: u32) {
        let (chunk, at) = place(index);
        if let Some(Some(chunk)) = self.chunks.get_mut(chunk) {
            chunk[at] = None;
        }
    }

    /// Bytes came for a connection that has layers.
    pub fn received(&mut self, index: u32, bytes: &[u8]) -> Passed {
        let (mut raw, mut plain) = (mem::take(&mut self.raw), mem::take(&mut self.plain));
        raw.clear();
        raw.extend_from_slice(bytes);
        plain.clear();
        let layer = self.get(index).expect("the caller has seen it");
        let result = layer.filter.received(&mut raw, &mut plain, &mut layer.wire);
        let is_open = layer.filter.is_open();
        let opens = is_open && !mem::replace(&mut layer.was_open, is_open);
        let passed = Passed {
            plain,
            opened: opens.then(|| layer.filter.is_resumed()),
            has_wire: !layer.wire.is_empty(),
            is_ended: layer.filter.is_ended(),
            error: result.err(),
        };
        self.raw = raw;
        passed
    }

    /// Takes a scratch buffer back.
    pub fn recycle(&mut self, plain: Vec<u8>) {
        self.plain = plain;
    }

    /// Whether MQTT may be sent.
    pub fn is_open(&mut self, index: u32) -> bool {
        self.get(index).is_some_and(|layer| layer.filter.is_open())
    }

    /// What goes on the wire now: what the layers have to say, these bytes of MQTT, and the goodbye of a connection that ends.
    pub fn outgoing(
        &mut self,
        index: u32,
        bytes: Option<&[u8]>,
        ends: bool,
    ) -> Result<Option<Vec<u8>>, FilterError> {
        let Some(layer) = self.get(index) else { return Ok(None) };
        if let Some(bytes) = bytes {
            layer.filter.send(bytes, &mut layer.wire)?;
        }
        if ends && !mem::replace(&mut layer.has_said_goodbye, true) {
            layer.filter.close(&mut layer.wire);
        }
        let wire = mem::take(&mut layer.wire);
        Ok((!wire.is_empty()).then_some(wire))
    }
}

fn place(index: u32) -> (usize, usize) {
    let index = usize::try_from(index).expect("32 bits fit");
    (index / CHUNK, index % CHUNK)
}
