//! The wire format of MQTT 3.1, 3.1.1 and 5.0, both directions, and the rules for topic names and filters.
//!
//! Nothing here does I/O, reads a clock or keeps state between packets. A caller looks at its bytes with
//! [`FrameHeader::peek`], waits until [`FrameHeader::total_len`] bytes are there, and hands the body to
//! [`Packet::decode`]. A decoded packet borrows from those bytes: nothing is copied and nothing is allocated.
//! Lists (filters, user properties, subscription identifiers) are checked once at decode and kept as views
//! that are parsed again when they are walked.
//!
//! Statement ids in comments such as `MQTT-3.1.2-24` are those of the OASIS specifications. Where only one
//! version is meant or the numbering differs, the id is preceded by `v3` (3.1.1) or `v5` (5.0).
//!
//! What needs the state of a connection is left to the caller: whether a packet is expected now, the packet
//! size limit ([`FrameHeader::check_size`]), topic alias tables, receive quota, and the syntax of filters in
//! SUBSCRIBE and UNSUBSCRIBE, which is answered per filter ([`topic::ParsedFilter::parse`]).
#![forbid(unsafe_code)]

pub mod topic;

mod error;
mod frame;
mod limits;
mod packet;
mod packet_id;
mod packet_type;
mod primitives;
mod property;
mod protocol_version;
mod qos;
mod reason_code;

pub use error::DecodeError;
pub use frame::FrameHeader;
pub use limits::DecodeLimits;
pub use packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, Packet, Publish,
    PublishOut, PublishProperties, RetainHandling, SubAck, Subscribe, SubscribeFilters,
    SubscribeOptions, UnsubAck, Unsubscribe, UnsubscribeFilters, Will, encode_ack,
    encode_ping_request, encode_ping_response,
};
pub use packet_id::PacketId;
pub use packet_type::PacketType;
pub use primitives::{MAX_PACKET_LEN, MAX_REMAINING_LEN, MAX_STRING_LEN, MAX_VARINT, varint_len};
pub use property::{Forwarded, ForwardedFields, PropertyId, SubscriptionIds, UserProperties};
pub use protocol_version::ProtocolVersion;
pub use qos::QoS;
pub use reason_code::ReasonCode;
pub use topic::{FilterKind, ParsedFilter, TopicError};
