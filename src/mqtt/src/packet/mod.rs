//! One file per packet, each with its type, `decode` and `encode`.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod ping;
mod publish;
mod suback;
mod subscribe;
mod unsuback;
mod unsubscribe;

pub use ack::{Ack, encode_ack};
pub use auth::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will};
pub use disconnect::Disconnect;
pub use ping::{encode_ping_request, encode_ping_response};
pub use publish::{Publish, PublishOut, PublishProperties};
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilters, SubscribeOptions};
pub use unsuback::UnsubAck;
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters};

use crate::error::DecodeError;
use crate::frame::FrameHeader;
use crate::limits::DecodeLimits;
use crate::packet_type::PacketType;
use crate::primitives::Reader;
use crate::protocol_version::ProtocolVersion;
use crate::reason_code::ReasonCode;

/// A control packet; it borrows from the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the packets of PacketType")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes the `header.body_len` bytes behind a fixed header. `version` is that of the connection; CONNECT carries
    /// its own and ignores it.
    ///
    /// # Errors
    /// What the peer did wrong. Filters of SUBSCRIBE and UNSUBSCRIBE are not parsed here.
    #[inline]
    pub fn decode(
        header: &FrameHeader,
        body: &'a [u8],
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        Ok(match header.packet_type {
            PacketType::Publish => Self::Publish(Publish::decode(header, body, version, limits)?),
            PacketType::PubAck => Self::PubAck(Ack::decode(header, body, version, limits)?),
            PacketType::PubRec => Self::PubRec(Ack::decode(header, body, version, limits)?),
            PacketType::PubRel => Self::PubRel(Ack::decode(header, body, version, limits)?),
            PacketType::PubComp => Self::PubComp(Ack::decode(header, body, version, limits)?),
            PacketType::PingReq => {
                ping::decode(header, body, version)?;
                Self::PingReq
            }
            PacketType::PingResp => {
                ping::decode(header, body, version)?;
                Self::PingResp
            }
            PacketType::Connect => Self::Connect(Connect::decode(header, body, limits)?),
            PacketType::ConnAck => Self::ConnAck(ConnAck::decode(header, body, version, limits)?),
            PacketType::Subscribe => {
                Self::Subscribe(Subscribe::decode(header, body, version, limits)?)
            }
            PacketType::SubAck => Self::SubAck(SubAck::decode(header, body, version, limits)?),
            PacketType::Unsubscribe => {
                Self::Unsubscribe(Unsubscribe::decode(header, body, version, limits)?)
            }
            PacketType::UnsubAck => {
                Self::UnsubAck(UnsubAck::decode(header, body, version, limits)?)
            }
            PacketType::Disconnect => {
                Self::Disconnect(Disconnect::decode(header, body, version, limits)?)
            }
            PacketType::Auth => Self::Auth(Auth::decode(header, body, version, limits)?),
        })
    }

    /// The type of this packet.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Refuses what only a server sends. `decode` serves both sides and lets it pass.
    ///
    /// # Errors
    /// CONNACK, SUBACK, UNSUBACK, PINGRESP, and PUBLISH with a subscription identifier.
    #[inline]
    pub fn check_from_client(&self) -> Result<(), DecodeError> {
        match self {
            Self::Publish(publish) => publish.check_from_client(),
            other if other.packet_type().is_from_server_only() => {
                Err(DecodeError::FromServerOnly(other.packet_type()))
            }
            _ => Ok(()),
        }
    }

    /// Appends the packet. `version` is that of the connection; CONNECT carries its own.
    ///
    /// # Panics
    /// If a string is longer than 65,535 bytes or the packet longer than [`MAX_PACKET_LEN`](crate::MAX_PACKET_LEN).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        match self {
            Self::Connect(connect) => connect.encode(version, out),
            Self::ConnAck(connack) => connack.encode(version, out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                ack.encode(self.packet_type(), version, out);
            }
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(suback) => suback.encode(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(unsuback) => unsuback.encode(version, out),
            Self::PingReq => encode_ping_request(out),
            Self::PingResp => encode_ping_response(out),
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(version, out),
        }
    }
}

/// Reads a reason code that this packet can have.
fn read_reason(
    packet_type: PacketType,
    reader: &mut Reader<'_>,
) -> Result<ReasonCode, DecodeError> {
    let code = reader.u8("reason code")?;
    ReasonCode::from_u8(code)
        .filter(|reason| reason.is_allowed_in(packet_type))
        .ok_or(DecodeError::ReasonCode { packet_type, code })
}

/// Refuses codes in a list of reasons that this packet cannot have.
fn check_reasons(
    packet_type: PacketType,
    version: ProtocolVersion,
    codes: &[u8],
) -> Result<(), DecodeError> {
    let is_allowed = |code: u8| match version {
        ProtocolVersion::V5 => {
            ReasonCode::from_u8(code).is_some_and(|reason| reason.is_allowed_in(packet_type))
        }
        // v3 MQTT-3.9.3-2.
        _ => matches!(code, 0..=2 | 0x80),
    };
    match codes.iter().find(|code| !is_allowed(**code)) {
        Some(&code) => Err(DecodeError::ReasonCode { packet_type, code }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
