//! What delivery needs to know of a subscription's options, in one byte.

use mqtt::{QoS, SubscribeOptions};

const QOS: u8 = 0b0000_0011;
const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const SUBSCRIPTION_ID: u8 = 0b0001_0000;

/// A subscription's options. Retain handling is not among them: it matters at SUBSCRIBE only.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Hash)]
pub struct SubOptions(u8);

impl SubOptions {
    /// Options with this maximum quality and nothing else.
    pub const fn new(qos: QoS) -> Self {
        Self(qos as u8)
    }

    /// Options of one filter of a SUBSCRIBE.
    pub const fn from_subscribe(options: &SubscribeOptions, has_subscription_id: bool) -> Self {
        Self::new(options.qos)
            .with_no_local(options.no_local)
            .with_retain_as_published(options.retain_as_published)
            .with_subscription_id(has_subscription_id)
    }

    /// The options whose [`SubOptions::bits`] these are; `None` when they are none.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        let known = QOS | NO_LOCAL | RETAIN_AS_PUBLISHED | SUBSCRIPTION_ID;
        if bits & QOS == QOS || bits & !known != 0 { None } else { Some(Self(bits)) }
    }

    /// All options in one byte, to be kept or sent.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The maximum quality of deliveries.
    #[inline]
    pub const fn qos(self) -> QoS {
        match self.0 & QOS {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// Whether the client does not get its own messages back (`MQTT-3.8.3-3`).
    #[inline]
    pub const fn no_local(self) -> bool {
        self.0 & NO_LOCAL != 0
    }

    /// Whether the retain flag stays as the publisher set it (`MQTT-3.3.1-13`).
    #[inline]
    pub const fn retain_as_published(self) -> bool {
        self.0 & RETAIN_AS_PUBLISHED != 0
    }

    /// Whether the session keeps a subscription identifier for this subscription.
    #[inline]
    pub const fn has_subscription_id(self) -> bool {
        self.0 & SUBSCRIPTION_ID != 0
    }

    /// The same with another `no_local`.
    #[must_use]
    pub const fn with_no_local(self, on: bool) -> Self {
        self.with(NO_LOCAL, on)
    }

    /// The same with another `retain_as_published`.
    #[must_use]
    pub const fn with_retain_as_published(self, on: bool) -> Self {
        self.with(RETAIN_AS_PUBLISHED, on)
    }

    /// The same with another `has_subscription_id`.
    #[must_use]
    pub const fn with_subscription_id(self, on: bool) -> Self {
        self.with(SUBSCRIPTION_ID, on)
    }

    const fn with(self, bit: u8, on: bool) -> Self {
        if on { Self(self.0 | bit) } else { Self(self.0 & !bit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_their_byte() {
        let options = SubOptions::new(QoS::ExactlyOnce).with_no_local(true);
        let options = options.with_subscription_id(true).with_retain_as_published(true);
        let back = SubOptions::from_bits(options.bits()).unwrap().with_no_local(false);
        assert!(!back.no_local() && back.retain_as_published() && back.has_subscription_id());
        assert_eq!(back.qos(), QoS::ExactlyOnce);
        assert_eq!(SubOptions::from_bits(3), None);
        assert_eq!(SubOptions::from_bits(0x80), None);
    }
}
