//! Properties of MQTT 5.

use super::{put_bytes, put_variable};

/// One property. `Raw` writes bytes as they are, for packets that are wrong on purpose.
#[derive(Clone, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // The names are the specification's.
pub enum Property {
    PayloadFormat(u8),
    MessageExpiry(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(String),
    ServerKeepAlive(u16),
    AuthMethod(String),
    AuthData(Vec<u8>),
    RequestProblemInformation(u8),
    WillDelay(u32),
    RequestResponseInformation(u8),
    ResponseInformation(String),
    ServerReference(String),
    ReasonString(String),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    User(String, String),
    MaximumPacketSize(u32),
    WildcardAvailable(u8),
    SubscriptionIdAvailable(u8),
    SharedAvailable(u8),
    Raw(Vec<u8>),
}

impl Property {
    /// A user property.
    #[must_use]
    pub fn user(name: &str, value: &str) -> Property {
        Property::User(name.into(), value.into())
    }

    /// The identifier on the wire; 0 for `Raw`.
    #[must_use]
    pub fn identifier(&self) -> u8 {
        match self {
            Property::PayloadFormat(_) => 0x01,
            Property::MessageExpiry(_) => 0x02,
            Property::ContentType(_) => 0x03,
            Property::ResponseTopic(_) => 0x08,
            Property::CorrelationData(_) => 0x09,
            Property::SubscriptionId(_) => 0x0B,
            Property::SessionExpiry(_) => 0x11,
            Property::AssignedClientId(_) => 0x12,
            Property::ServerKeepAlive(_) => 0x13,
            Property::AuthMethod(_) => 0x15,
            Property::AuthData(_) => 0x16,
            Property::RequestProblemInformation(_) => 0x17,
            Property::WillDelay(_) => 0x18,
            Property::RequestResponseInformation(_) => 0x19,
            Property::ResponseInformation(_) => 0x1A,
            Property::ServerReference(_) => 0x1C,
            Property::ReasonString(_) => 0x1F,
            Property::ReceiveMaximum(_) => 0x21,
            Property::TopicAliasMaximum(_) => 0x22,
            Property::TopicAlias(_) => 0x23,
            Property::MaximumQos(_) => 0x24,
            Property::RetainAvailable(_) => 0x25,
            Property::User(..) => 0x26,
            Property::MaximumPacketSize(_) => 0x27,
            Property::WildcardAvailable(_) => 0x28,
            Property::SubscriptionIdAvailable(_) => 0x29,
            Property::SharedAvailable(_) => 0x2A,
            Property::Raw(_) => 0,
        }
    }

    /// Appends identifier and value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Property::Raw(bytes) = self {
            out.extend_from_slice(bytes);
            return;
        }
        out.push(self.identifier());
        match self {
            Property::PayloadFormat(v)
            | Property::RequestProblemInformation(v)
            | Property::RequestResponseInformation(v)
            | Property::MaximumQos(v)
            | Property::RetainAvailable(v)
            | Property::WildcardAvailable(v)
            | Property::SubscriptionIdAvailable(v)
            | Property::SharedAvailable(v) => out.push(*v),
            Property::ServerKeepAlive(v)
            | Property::ReceiveMaximum(v)
            | Property::TopicAliasMaximum(v)
            | Property::TopicAlias(v) => out.extend_from_slice(&v.to_be_bytes()),
            Property::MessageExpiry(v)
            | Property::SessionExpiry(v)
            | Property::WillDelay(v)
            | Property::MaximumPacketSize(v) => out.extend_from_slice(&v.to_be_bytes()),
            Property::SubscriptionId(v) => put_variable(out, usize::try_from(*v).expect("32 bits")),
            Property::ContentType(v)
            | Property::ResponseTopic(v)
            | Property::AssignedClientId(v)
            | Property::AuthMethod(v)
            | Property::ResponseInformation(v)
            | Property::ServerReference(v)
            | Property::ReasonString(v) => put_bytes(out, v.as_bytes()),
            Property::CorrelationData(v) | Property::AuthData(v) => put_bytes(out, v),
            Property::User(name, value) => {
                put_bytes(out, name.as_bytes());
                put_bytes(out, value.as_bytes());
            }
            Property::Raw(_) => {}
        }
    }
}

/// Property length and properties.
#[must_use]
pub fn properties_bytes(properties: &[Property]) -> Vec<u8> {
    let mut inner = Vec::new();
    for property in properties {
        property.encode(&mut inner);
    }
    let mut out = Vec::new();
    put_variable(&mut out, inner.len());
    out.extend(inner);
    out
}

/// The first property for which `pick` gives a value.
pub fn find<T>(properties: &[Property], pick: impl Fn(&Property) -> Option<T>) -> Option<T> {
    properties.iter().find_map(pick)
}
