//! Packet identifiers.

use std::fmt;
use std::num::NonZeroU16;

/// The identifier of a packet that is to be acknowledged; never zero (MQTT-2.3.1-1, v5 MQTT-2.2.1-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The lowest identifier.
    pub const MIN: Self = Self(NonZeroU16::MIN);

    /// The identifier of this number; `None` for zero.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The identifier after this one: 1 comes after 65,535.
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(id) => Self(id),
            None => Self::MIN,
        }
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
