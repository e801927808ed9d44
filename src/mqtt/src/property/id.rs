//! Identifiers of properties and the shape of their values.

use std::fmt;

/// The identifier of a property (v5 table 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PropertyId {
    /// Whether the payload is UTF-8 text.
    PayloadFormatIndicator = 0x01,
    /// Life of a message in seconds.
    MessageExpiryInterval = 0x02,
    /// What the payload is.
    ContentType = 0x03,
    /// Where the answer to a request goes.
    ResponseTopic = 0x08,
    /// What tells an answer which request it belongs to.
    CorrelationData = 0x09,
    /// A number the client gave a subscription.
    SubscriptionIdentifier = 0x0B,
    /// Life of a session after its connection, in seconds.
    SessionExpiryInterval = 0x11,
    /// The client identifier the server chose.
    AssignedClientIdentifier = 0x12,
    /// The keep alive the server wants, in seconds.
    ServerKeepAlive = 0x13,
    /// Name of the authentication method.
    AuthenticationMethod = 0x15,
    /// Data of the authentication method.
    AuthenticationData = 0x16,
    /// Whether the client wants reason strings and user properties.
    RequestProblemInformation = 0x17,
    /// Time between the end of a connection and its will, in seconds.
    WillDelayInterval = 0x18,
    /// Whether the client wants response information.
    RequestResponseInformation = 0x19,
    /// Basis of response topics.
    ResponseInformation = 0x1A,
    /// Another server to use.
    ServerReference = 0x1C,
    /// A reason for people.
    ReasonString = 0x1F,
    /// Most QoS 1 and 2 messages in flight.
    ReceiveMaximum = 0x21,
    /// Highest topic alias.
    TopicAliasMaximum = 0x22,
    /// A number in place of a topic name.
    TopicAlias = 0x23,
    /// Highest QoS the server supports.
    MaximumQos = 0x24,
    /// Whether the server keeps retained messages.
    RetainAvailable = 0x25,
    /// A name and a value the protocol does not interpret.
    UserProperty = 0x26,
    /// Largest packet in bytes.
    MaximumPacketSize = 0x27,
    /// Whether the server supports wildcards.
    WildcardSubscriptionAvailable = 0x28,
    /// Whether the server supports subscription identifiers.
    SubscriptionIdentifierAvailable = 0x29,
    /// Whether the server supports shared subscriptions.
    SharedSubscriptionAvailable = 0x2A,
}

impl PropertyId {
    /// The property of this number; `None` for numbers MQTT 5.0 does not define.
    pub const fn from_u8(id: u8) -> Option<Self> {
        Some(match id {
            0x01 => Self::PayloadFormatIndicator,
            0x02 => Self::MessageExpiryInterval,
            0x03 => Self::ContentType,
            0x08 => Self::ResponseTopic,
            0x09 => Self::CorrelationData,
            0x0B => Self::SubscriptionIdentifier,
            0x11 => Self::SessionExpiryInterval,
            0x12 => Self::AssignedClientIdentifier,
            0x13 => Self::ServerKeepAlive,
            0x15 => Self::AuthenticationMethod,
            0x16 => Self::AuthenticationData,
            0x17 => Self::RequestProblemInformation,
            0x18 => Self::WillDelayInterval,
            0x19 => Self::RequestResponseInformation,
            0x1A => Self::ResponseInformation,
            0x1C => Self::ServerReference,
            0x1F => Self::ReasonString,
            0x21 => Self::ReceiveMaximum,
            0x22 => Self::TopicAliasMaximum,
            0x23 => Self::TopicAlias,
            0x24 => Self::MaximumQos,
            0x25 => Self::RetainAvailable,
            0x26 => Self::UserProperty,
            0x27 => Self::MaximumPacketSize,
            0x28 => Self::WildcardSubscriptionAvailable,
            0x29 => Self::SubscriptionIdentifierAvailable,
            0x2A => Self::SharedSubscriptionAvailable,
            _ => return None,
        })
    }

    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PayloadFormatIndicator => "payload format indicator",
            Self::MessageExpiryInterval => "message expiry interval",
            Self::ContentType => "content type",
            Self::ResponseTopic => "response topic",
            Self::CorrelationData => "correlation data",
            Self::SubscriptionIdentifier => "subscription identifier",
            Self::SessionExpiryInterval => "session expiry interval",
            Self::AssignedClientIdentifier => "assigned client identifier",
            Self::ServerKeepAlive => "server keep alive",
            Self::AuthenticationMethod => "authentication method",
            Self::AuthenticationData => "authentication data",
            Self::RequestProblemInformation => "request problem information",
            Self::WillDelayInterval => "will delay interval",
            Self::RequestResponseInformation => "request response information",
            Self::ResponseInformation => "response information",
            Self::ServerReference => "server reference",
            Self::ReasonString => "reason string",
            Self::ReceiveMaximum => "receive maximum",
            Self::TopicAliasMaximum => "topic alias maximum",
            Self::TopicAlias => "topic alias",
            Self::MaximumQos => "maximum QoS",
            Self::RetainAvailable => "retain available",
            Self::UserProperty => "user property",
            Self::MaximumPacketSize => "maximum packet size",
            Self::WildcardSubscriptionAvailable => "wildcard subscription available",
            Self::SubscriptionIdentifierAvailable => "subscription identifier available",
            Self::SharedSubscriptionAvailable => "shared subscription available",
        }
    }

    /// Whether a broker passes the property on unaltered with the message (v5 MQTT-3.3.2-4, MQTT-3.3.2-15,
    /// MQTT-3.3.2-16, MQTT-3.3.2-17, MQTT-3.3.2-20).
    pub(crate) const fn is_forwarded(self) -> bool {
        matches!(
            self,
            Self::PayloadFormatIndicator
                | Self::ContentType
                | Self::ResponseTopic
                | Self::CorrelationData
                | Self::UserProperty
        )
    }

    /// Whether the property may stand in one block more than once.
    pub(crate) const fn is_repeatable(self) -> bool {
        matches!(self, Self::UserProperty | Self::SubscriptionIdentifier)
    }
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
