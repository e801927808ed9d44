//! From bytes to packets, and from packets to what handles them.

use metrics::Counter;
use mqtt::{DecodeError, FrameHeader, Packet, PacketType, ProtocolVersion, ReasonCode};

use crate::connection::{State, pause};
use crate::effect::ConnectionId;
use crate::leave::End;
use crate::shard::Shard;

/// Whether a packet was handled, or has to wait where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    /// It is done.
    Done,
    /// It and what follows is to be kept; the connection was paused or leaves.
    Held,
}

/// Packets that may be handled ahead of a PUBLISH that waits: they only free what it waits for.
pub(crate) fn may_go_ahead(packet_type: PacketType) -> bool {
    matches!(
        packet_type,
        PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp
            | PacketType::PingReq
    )
}

/// Packets after which more may be kept than before.
fn adds_to_store(packet_type: PacketType) -> bool {
    matches!(packet_type, PacketType::Publish | PacketType::Subscribe | PacketType::Unsubscribe)
}

impl Shard {
    /// Handles the whole packets in `bytes`, in place; keeps the rest.
    pub(crate) fn handle_packets(&mut self, id: ConnectionId, mut bytes: &[u8]) {
        let Some(connection) = self.clients.connections.get(id) else { return };
        let mqtt = &self.profiles.of(connection.listener).mqtt;
        let packet_size_max = mqtt.max_packet_size_bytes as usize;
        let work_before = self.clients.work;
        while !bytes.is_empty() {
            let Some(connection) = self.clients.connections.get(id) else { return };
            let state = connection.state;
            if state == State::Closing {
                return;
            }
            if state == State::Leaving || connection.paused & pause::HOLDS_STASH != 0 {
                break;
            }
            if self.recovery.holds() {
                self.wait_for_recovery(id);
                break;
            }
            let header = match FrameHeader::peek(bytes) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => return self.decode_failed(id, bytes, &error),
            };
            if adds_to_store(header.packet_type) && self.is_journal_full() {
                self.pause(id, pause::STORE);
                self.store_paused.push(id);
                break;
            }
            if state == State::AwaitsConnect && header.packet_type != PacketType::Connect {
                // MQTT-3.1.0-1
                return self.end_connection(id, End::NotConnect);
            }
            if header.total_len() > packet_size_max {
                return self.too_large(id, bytes);
            }
            if bytes.len() < header.total_len() {
                break;
            }
            let (packet, rest) = bytes.split_at(header.total_len());
            let handled = if state == State::AwaitsConnect {
                self.handle_connect(id, &header, packet)
            } else {
                self.handle_packet(id, &header, packet)
            };
            if handled == Handled::Held {
                break;
            }
            bytes = rest;
            if self.clients.work > self.turns.work_max() && !bytes.is_empty() {
                self.line_up(id, self.clients.work - work_before);
            }
        }
        if !bytes.is_empty() {
            self.stash(id, bytes);
            // What a held-back connection waits for may stand right behind.
            self.handle_ahead(id);
        }
        self.limit_answers(id);
    }

    /// Handles one whole packet of a connected client.
    pub(crate) fn handle_packet(
        &mut self,
        id: ConnectionId,
        header: &FrameHeader,
        bytes: &[u8],
    ) -> Handled {
        let Some(connection) = self.clients.connections.get(id) else { return Handled::Done };
        let version = connection.version;
        let body = &bytes[header.header_len..];
        let decoded = Packet::decode(header, body, version, &self.limits)
            .and_then(|packet| packet.check_from_client().map(|()| packet));
        let packet = match decoded {
            Ok(packet) => packet,
            Err(error) => {
                self.decode_failed(id, bytes, &error);
                return Handled::Done;
            }
        };
        let metrics = &self.clients.metrics;
        metrics.inc(Counter::PacketsReceived);
        match packet {
            Packet::Publish(publish) => return self.handle_publish(id, &publish),
            Packet::PubAck(ack) => self.handle_puback(id, &ack),
            Packet::PubRec(ack) => self.handle_pubrec(id, &ack),
            Packet::PubRel(ack) => self.handle_pubrel(id, &ack),
            Packet::PubComp(ack) => self.handle_pubcomp(id, &ack),
            Packet::Subscribe(subscribe) => self.handle_subscribe(id, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(id, &unsubscribe),
            Packet::PingReq => {
                metrics.inc(Counter::PacketsPingreq);
                self.clients.write(id.index, Counter::PacketsPingresp, |_, out| {
                    out.extend_from_slice(&[0xd0, 0]); // MQTT-3.12.4-1
                });
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(id, &disconnect),
            // No method was agreed on at CONNECT, so there is nothing to continue (v5 MQTT-4.12.0-1).
            Packet::Auth(_) => self.protocol_error(id, ReasonCode::ProtocolError),
            // MQTT-3.1.0-2: a second CONNECT. The others are a server's and were refused above.
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => self.protocol_error(id, ReasonCode::ProtocolError),
        }
        Handled::Done
    }

    /// Ends a connection for what its client sent; a v5 client is told why (v5 MQTT-4.13.1-1).
    pub(crate) fn protocol_error(&mut self, id: ConnectionId, reason: ReasonCode) {
        self.end_connection(id, End::ProtocolError(reason));
    }

    fn too_large(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.clients.connections.get(id) else { return };
        if connection.state == State::AwaitsConnect {
            self.refuse_connect(id, connect_version(bytes), ReasonCode::PacketTooLarge);
        } else {
            self.protocol_error(id, ReasonCode::PacketTooLarge); // v5 MQTT-3.2.2-15
        }
    }

    pub(crate) fn decode_failed(&mut self, id: ConnectionId, bytes: &[u8], error: &DecodeError) {
        let Some(connection) = self.clients.connections.get(id) else { return };
        log::debug!("{}: {error}", connection.peer.address());
        if connection.state == State::AwaitsConnect {
            self.refuse_connect(id, connect_version(bytes), error.reason_code());
        } else {
            self.protocol_error(id, error.reason_code());
        }
    }
}

/// The protocol level a CONNECT names, as far as its bytes can be read: to answer one that is otherwise malformed in
/// the form its sender understands.
fn connect_version(bytes: &[u8]) -> Option<ProtocolVersion> {
    if bytes.first()? >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let length_bytes = bytes.iter().skip(1).take_while(|&&b| b & 0x80 != 0).count() + 1;
    let body = bytes.get(1 + length_bytes..)?;
    let name_len = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let name = body.get(2..2 + name_len)?;
    let level = body.get(2 + name_len)? & 0x7f;
    match (name, level) {
        (b"MQTT", 5) => Some(ProtocolVersion::V5),
        (b"MQTT", _) => Some(ProtocolVersion::V3_1_1),
        (b"MQIsdp", _) => Some(ProtocolVersion::V3_1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_malformed_connect_is_found() {
        let v5 = [0x10, 0x7f, 0, 4, b'M', b'Q', b'T', b'T', 5, 0xff];
        assert_eq!(connect_version(&v5), Some(ProtocolVersion::V5));
        let unknown = [0x10, 0x0c, 0, 4, b'M', b'Q', b'T', b'T', 9];
        assert_eq!(connect_version(&unknown), Some(ProtocolVersion::V3_1_1));
        assert_eq!(connect_version(&[0x10, 0x02, 0]), None);
        assert_eq!(connect_version(&[0x30, 0x02]), None);
    }
}
