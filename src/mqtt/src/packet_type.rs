//! The types of control packets and their reserved flags.

use std::fmt;

/// The type of a control packet; the number is the upper half of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Client to server: opens a session.
    Connect = 1,
    /// Server to client: answers CONNECT.
    ConnAck = 2,
    /// Both ways: a message.
    Publish = 3,
    /// Both ways: answers a PUBLISH of QoS 1.
    PubAck = 4,
    /// Both ways: first answer to a PUBLISH of QoS 2.
    PubRec = 5,
    /// Both ways: answers PUBREC.
    PubRel = 6,
    /// Both ways: answers PUBREL.
    PubComp = 7,
    /// Client to server: asks for topics.
    Subscribe = 8,
    /// Server to client: answers SUBSCRIBE.
    SubAck = 9,
    /// Client to server: gives topics up.
    Unsubscribe = 10,
    /// Server to client: answers UNSUBSCRIBE.
    UnsubAck = 11,
    /// Client to server: a sign of life.
    PingReq = 12,
    /// Server to client: answers PINGREQ.
    PingResp = 13,
    /// Client to server, in 5.0 both ways: ends the connection.
    Disconnect = 14,
    /// Both ways, 5.0 only: a step of an authentication exchange.
    Auth = 15,
}

impl PacketType {
    /// The type of this number; `None` for 0 and above 15.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The flags a sender sets in the first byte of a packet other than PUBLISH (MQTT-2.2.2-1, v5 MQTT-2.1.3-1).
    pub const fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The first byte of a packet other than PUBLISH.
    pub(crate) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }

    /// Whether only a server sends this type.
    pub const fn is_from_server_only(self) -> bool {
        matches!(self, Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp)
    }

    /// The name as the specifications write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
