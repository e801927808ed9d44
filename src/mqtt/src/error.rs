//! Why a packet could not be decoded.

use crate::packet_type::PacketType;
use crate::property::PropertyId;
use crate::reason_code::ReasonCode;
use crate::topic::TopicError;

/// A packet the peer should not have sent; every variant is the peer's fault, not the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum DecodeError {
    /// the peer sent packet type {0}, which no version of MQTT has
    UnknownPacketType(u8),
    /// the peer sent {0}, which its version of MQTT does not have
    PacketNotInVersion(PacketType),
    /// the peer sent {0}, which only a server sends
    FromServerOnly(PacketType),
    /// the peer sent {packet_type} with flags {flags:#06b} in the first byte; they are reserved
    ReservedFlags {
        /// The packet.
        packet_type: PacketType,
        /// Lower half of its first byte.
        flags: u8,
    },
    /// the peer sent a remaining length of more than four bytes
    RemainingLengthTooLong,
    /// the peer sent a packet of {len} bytes; at most {max} are allowed here
    PacketTooLarge {
        /// Length of the whole packet in bytes.
        len: usize,
        /// The limit it exceeds, in bytes.
        max: usize,
    },
    /// the peer's packet ends inside its {0}
    Truncated(&'static str),
    /// the peer sent {packet_type} with {len} bytes behind its last field
    TrailingBytes {
        /// The packet.
        packet_type: PacketType,
        /// Number of bytes too many.
        len: usize,
    },
    /// the peer sent a {0} that is a variable byte integer of more than four bytes
    VarintTooLong(&'static str),
    /// the peer sent a {0} that is a variable byte integer with more bytes than it needs
    VarintNotMinimal(&'static str),
    /// the peer sent a {0} that is not valid UTF-8
    InvalidUtf8(&'static str),
    /// the peer sent a {0} with the character U+0000 in it
    NullCharacter(&'static str),
    /// the peer sent {0} with packet identifier 0
    ZeroPacketId(PacketType),
    /// the peer sent CONNECT with a protocol name other than MQTT or MQIsdp
    UnknownProtocolName,
    /// the peer asked for protocol level {0}; only 3 (as MQIsdp), 4 and 5 (as MQTT) are spoken here
    UnsupportedProtocolVersion(u8),
    /// the peer sent CONNECT with connect flags {0:#010b}, which contradict themselves or use the reserved bit
    ConnectFlags(u8),
    /// the peer sent CONNECT with a password but no user name, which needs MQTT 5.0
    PasswordWithoutUsername,
    /// the peer sent CONNACK with acknowledge flags {0:#010b}
    ConnAckFlags(u8),
    /// the peer sent CONNACK that refuses the connection and yet says that a session is present
    SessionPresentOnRefusal,
    /// the peer sent PUBLISH with QoS 3
    PublishQos3,
    /// the peer sent PUBLISH of QoS 0 with the DUP flag
    DupWithQos0,
    /// the peer sent PUBLISH with neither a topic name nor a topic alias
    TopicMissing,
    /// the peer sent a topic name that is not allowed: {0}
    TopicName(TopicError),
    /// the peer sent a topic alias of 0
    TopicAliasZero,
    /// the peer is a client and sent PUBLISH with a subscription identifier
    SubscriptionIdFromClient,
    /// the peer sent {0} without a topic filter
    NoFilters(PacketType),
    /// the peer sent {packet_type} with more than {max} topic filters
    TooManyFilters {
        /// The packet.
        packet_type: PacketType,
        /// The limit.
        max: usize,
    },
    /// the peer sent subscription options {0:#010b}, which use reserved bits
    SubscribeOptionsReserved(u8),
    /// the peer sent subscription options {0:#010b}: there is no QoS 3
    SubscribeQos3(u8),
    /// the peer sent subscription options {0:#010b}: there is no retain handling 3
    RetainHandling3(u8),
    /// the peer sent a shared subscription with the No Local option
    NoLocalOnShared,
    /// the peer sent {packet_type} with reason code {code:#04x}, which it cannot have
    ReasonCode {
        /// The packet.
        packet_type: PacketType,
        /// The code.
        code: u8,
    },
    /// the peer sent property {0:#04x}, which MQTT does not have
    UnknownProperty(u32),
    /// the peer sent {packet_type} with the property {property}, which does not belong there
    PropertyNotAllowed {
        /// The packet.
        packet_type: PacketType,
        /// The property.
        property: PropertyId,
    },
    /// the peer sent the property {0} twice
    DuplicateProperty(PropertyId),
    /// the peer sent the property {0} with a value it cannot have
    PropertyValue(PropertyId),
    /// the peer sent authentication data without an authentication method
    AuthenticationMethodMissing,
    /// the peer sent more than {0} user properties
    TooManyUserProperties(usize),
}

impl DecodeError {
    /// The most specific reason code of MQTT 5.0 to answer with before the connection is closed (v5 MQTT-4.13.1-1).
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::UnknownPacketType(_)
            | Self::ReservedFlags { .. }
            | Self::RemainingLengthTooLong
            | Self::Truncated(_)
            | Self::TrailingBytes { .. }
            | Self::VarintTooLong(_)
            | Self::VarintNotMinimal(_)
            | Self::InvalidUtf8(_)
            | Self::NullCharacter(_)
            | Self::ConnectFlags(_)
            | Self::ConnAckFlags(_)
            | Self::PublishQos3
            | Self::SubscribeOptionsReserved(_)
            | Self::ReasonCode { .. }
            | Self::UnknownProperty(_)
            | Self::PropertyNotAllowed { .. } => ReasonCode::MalformedPacket,
            Self::PacketNotInVersion(_)
            | Self::FromServerOnly(_)
            | Self::ZeroPacketId(_)
            | Self::PasswordWithoutUsername
            | Self::SessionPresentOnRefusal
            | Self::DupWithQos0
            | Self::TopicMissing
            | Self::SubscriptionIdFromClient
            | Self::NoFilters(_)
            | Self::SubscribeQos3(_)
            | Self::RetainHandling3(_)
            | Self::NoLocalOnShared
            | Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::AuthenticationMethodMissing => ReasonCode::ProtocolError,
            Self::UnknownProtocolName | Self::UnsupportedProtocolVersion(_) => {
                ReasonCode::UnsupportedProtocolVersion
            }
            Self::TopicName(_) => ReasonCode::TopicNameInvalid,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::TooManyFilters { .. } | Self::TooManyUserProperties(_) => {
                ReasonCode::QuotaExceeded
            }
        }
    }
}
