//! Will messages (SEED-PUB-14, SEED-PROTO-33).

use std::sync::Arc;

use crate::message::Message;

/// A client's will, as its CONNECT gave it.
#[derive(Debug, Clone)]
pub struct Will {
    /// The message; its expiry, if it has one, starts when it is published (MQTT-3.1.2.11.4 has it count from
    /// publication), so the interval is kept apart.
    pub message: Arc<Message>,
    /// Message Expiry Interval in seconds.
    pub expiry_interval_s: Option<u32>,
    /// Will Delay Interval in seconds; 0 for clients before MQTT 5.
    pub delay_s: u32,
}

/// When a will is to be published after its connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WillDue {
    /// At once.
    Now,
    /// After so many seconds, unless the client is back before (MQTT-3.1.3-9).
    AfterSeconds(u32),
}

/// A will is due when its delay has passed or its session ends, whichever is first (MQTT-3.1.2-8).
#[must_use]
pub fn will_due(delay_s: u32, session_expiry_s: u32) -> WillDue {
    match delay_s.min(session_expiry_s) {
        0 => WillDue::Now,
        seconds => WillDue::AfterSeconds(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_ends_with_the_session() {
        assert_eq!(will_due(0, 100), WillDue::Now);
        assert_eq!(will_due(100, 0), WillDue::Now);
        assert_eq!(will_due(5, u32::MAX), WillDue::AfterSeconds(5));
        assert_eq!(will_due(u32::MAX, 7), WillDue::AfterSeconds(7));
    }
}
