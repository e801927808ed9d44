//! Reason codes of MQTT 5.0 and return codes of CONNACK before it.

use std::fmt;

use crate::packet_type::PacketType;

/// The result of an operation as MQTT 5.0 numbers it (v5 section 2.4). 0x80 and above are failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success; also normal disconnection and granted QoS 0.
    Success = 0x00,
    /// SUBACK: granted QoS 1.
    GrantedQos1 = 0x01,
    /// SUBACK: granted QoS 2.
    GrantedQos2 = 0x02,
    /// DISCONNECT: the client wants its will published.
    DisconnectWithWillMessage = 0x04,
    /// PUBACK, PUBREC: accepted, nobody is subscribed.
    NoMatchingSubscribers = 0x10,
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// AUTH: go on with another step.
    ContinueAuthentication = 0x18,
    /// AUTH: start a re-authentication.
    ReAuthenticate = 0x19,
    /// The sender does not want to say why, or no other code fits.
    UnspecifiedError = 0x80,
    /// The packet cannot be parsed.
    MalformedPacket = 0x81,
    /// The packet is not allowed here or contradicts itself.
    ProtocolError = 0x82,
    /// Valid, but not accepted by this receiver.
    ImplementationSpecificError = 0x83,
    /// The server does not speak this version of the protocol.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is valid but not allowed.
    ClientIdentifierNotValid = 0x85,
    /// The user name or password is not accepted.
    BadUserNameOrPassword = 0x86,
    /// The client may not do this.
    NotAuthorized = 0x87,
    /// The server is not available.
    ServerUnavailable = 0x88,
    /// The server is busy; try again later.
    ServerBusy = 0x89,
    /// The client was banned by an administrator.
    Banned = 0x8A,
    /// The server is shutting down.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported or changed.
    BadAuthenticationMethod = 0x8C,
    /// No packet came for 1.5 times the keep alive.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the same client identifier.
    SessionTakenOver = 0x8E,
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More unacknowledged messages than the receive maximum.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is zero or above the topic alias maximum.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the receiver accepts.
    PacketTooLarge = 0x95,
    /// Messages come too fast.
    MessageRateTooHigh = 0x96,
    /// A limit of the implementation or the administrator was exceeded.
    QuotaExceeded = 0x97,
    /// The connection was closed by an administrator.
    AdministrativeAction = 0x98,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// The server does not keep retained messages.
    RetainNotSupported = 0x9A,
    /// The QoS is above the server's maximum QoS.
    QosNotSupported = 0x9B,
    /// The client should use another server for now.
    UseAnotherServer = 0x9C,
    /// The client should use another server from now on.
    ServerMoved = 0x9D,
    /// The server has no shared subscriptions.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connections come too fast.
    ConnectionRateExceeded = 0x9F,
    /// The connection lasted as long as it may.
    MaximumConnectTime = 0xA0,
    /// The server has no subscription identifiers.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// The server has no wildcard subscriptions.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// The code of this number; `None` for numbers MQTT 5.0 does not define.
    pub const fn from_u8(code: u8) -> Option<Self> {
        Some(match code {
            0x00 => Self::Success,
            0x01 => Self::GrantedQos1,
            0x02 => Self::GrantedQos2,
            0x04 => Self::DisconnectWithWillMessage,
            0x10 => Self::NoMatchingSubscribers,
            0x11 => Self::NoSubscriptionExisted,
            0x18 => Self::ContinueAuthentication,
            0x19 => Self::ReAuthenticate,
            0x80 => Self::UnspecifiedError,
            0x81 => Self::MalformedPacket,
            0x82 => Self::ProtocolError,
            0x83 => Self::ImplementationSpecificError,
            0x84 => Self::UnsupportedProtocolVersion,
            0x85 => Self::ClientIdentifierNotValid,
            0x86 => Self::BadUserNameOrPassword,
            0x87 => Self::NotAuthorized,
            0x88 => Self::ServerUnavailable,
            0x89 => Self::ServerBusy,
            0x8A => Self::Banned,
            0x8B => Self::ServerShuttingDown,
            0x8C => Self::BadAuthenticationMethod,
            0x8D => Self::KeepAliveTimeout,
            0x8E => Self::SessionTakenOver,
            0x8F => Self::TopicFilterInvalid,
            0x90 => Self::TopicNameInvalid,
            0x91 => Self::PacketIdentifierInUse,
            0x92 => Self::PacketIdentifierNotFound,
            0x93 => Self::ReceiveMaximumExceeded,
            0x94 => Self::TopicAliasInvalid,
            0x95 => Self::PacketTooLarge,
            0x96 => Self::MessageRateTooHigh,
            0x97 => Self::QuotaExceeded,
            0x98 => Self::AdministrativeAction,
            0x99 => Self::PayloadFormatInvalid,
            0x9A => Self::RetainNotSupported,
            0x9B => Self::QosNotSupported,
            0x9C => Self::UseAnotherServer,
            0x9D => Self::ServerMoved,
            0x9E => Self::SharedSubscriptionsNotSupported,
            0x9F => Self::ConnectionRateExceeded,
            0xA0 => Self::MaximumConnectTime,
            0xA1 => Self::SubscriptionIdentifiersNotSupported,
            0xA2 => Self::WildcardSubscriptionsNotSupported,
            _ => return None,
        })
    }

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether this is a failure.
    pub const fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// The return code of a CONNACK of MQTT 3.1 and 3.1.1 that comes nearest (v3 table 3.1).
    pub const fn v3_connack_code(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            // What may be better at another time: clients try again on 3.
            Self::UnspecifiedError
            | Self::ImplementationSpecificError
            | Self::ServerUnavailable
            | Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::QuotaExceeded
            | Self::MessageRateTooHigh
            | Self::ConnectionRateExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved => 3,
            Self::BadUserNameOrPassword => 4,
            code if code.is_error() => 5,
            _ => 0,
        }
    }

    /// The reason that a return code of a CONNACK of MQTT 3.1 and 3.1.1 stands for; `None` for reserved ones.
    pub const fn from_v3_connack_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// Whether MQTT 5.0 allows this code in a packet of this type.
    pub const fn is_allowed_in(self, packet_type: PacketType) -> bool {
        match packet_type {
            // v5 MQTT-3.2.2-8.
            PacketType::ConnAck => matches!(
                self.code(),
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
            ),
            // v5 MQTT-3.4.2-1, v5 MQTT-3.5.2-1.
            PacketType::PubAck | PacketType::PubRec => {
                matches!(self.code(), 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            // v5 MQTT-3.6.2-1, v5 MQTT-3.7.2-1.
            PacketType::PubRel | PacketType::PubComp => matches!(self.code(), 0x00 | 0x92),
            // v5 MQTT-3.9.3-2.
            PacketType::SubAck => matches!(
                self.code(),
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            ),
            // v5 MQTT-3.11.3-2.
            PacketType::UnsubAck => {
                matches!(self.code(), 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            // v5 MQTT-3.14.2-1; 0x8C is in the table of section 2.4 only.
            PacketType::Disconnect => matches!(
                self.code(),
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
            ),
            // v5 MQTT-3.15.2-1.
            PacketType::Auth => matches!(self.code(), 0x00 | 0x18 | 0x19),
            _ => false,
        }
    }

    /// What the code means, in a few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::GrantedQos1 => "granted QoS 1",
            Self::GrantedQos2 => "granted QoS 2",
            Self::DisconnectWithWillMessage => "disconnect with will message",
            Self::NoMatchingSubscribers => "no matching subscribers",
            Self::NoSubscriptionExisted => "no subscription existed",
            Self::ContinueAuthentication => "continue authentication",
            Self::ReAuthenticate => "re-authenticate",
            Self::UnspecifiedError => "unspecified error",
            Self::MalformedPacket => "malformed packet",
            Self::ProtocolError => "protocol error",
            Self::ImplementationSpecificError => "implementation specific error",
            Self::UnsupportedProtocolVersion => "unsupported protocol version",
            Self::ClientIdentifierNotValid => "client identifier not valid",
            Self::BadUserNameOrPassword => "bad user name or password",
            Self::NotAuthorized => "not authorized",
            Self::ServerUnavailable => "server unavailable",
            Self::ServerBusy => "server busy",
            Self::Banned => "banned",
            Self::ServerShuttingDown => "server shutting down",
            Self::BadAuthenticationMethod => "bad authentication method",
            Self::KeepAliveTimeout => "keep alive timeout",
            Self::SessionTakenOver => "session taken over",
            Self::TopicFilterInvalid => "topic filter invalid",
            Self::TopicNameInvalid => "topic name invalid",
            Self::PacketIdentifierInUse => "packet identifier in use",
            Self::PacketIdentifierNotFound => "packet identifier not found",
            Self::ReceiveMaximumExceeded => "receive maximum exceeded",
            Self::TopicAliasInvalid => "topic alias invalid",
            Self::PacketTooLarge => "packet too large",
            Self::MessageRateTooHigh => "message rate too high",
            Self::QuotaExceeded => "quota exceeded",
            Self::AdministrativeAction => "administrative action",
            Self::PayloadFormatInvalid => "payload format invalid",
            Self::RetainNotSupported => "retain not supported",
            Self::QosNotSupported => "QoS not supported",
            Self::UseAnotherServer => "use another server",
            Self::ServerMoved => "server moved",
            Self::SharedSubscriptionsNotSupported => "shared subscriptions not supported",
            Self::ConnectionRateExceeded => "connection rate exceeded",
            Self::MaximumConnectTime => "maximum connect time",
            Self::SubscriptionIdentifiersNotSupported => "subscription identifiers not supported",
            Self::WildcardSubscriptionsNotSupported => "wildcard subscriptions not supported",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), self.code())
    }
}
