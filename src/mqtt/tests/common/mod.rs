//! What holds for any bytes a peer may send. Called by the replay of the corpus, by the property tests, and by the
//! fuzz target in `tests/fuzz`, which includes this file.

use ringmq_mqtt::{
    DecodeLimits, FrameHeader, Packet, ParsedFilter, ProtocolVersion, Publish, PublishOut, topic,
};

/// Small, so that the limits themselves are met.
const LIMITS: DecodeLimits = DecodeLimits {
    topic_levels_max: 8,
    topic_len_max: 64,
    user_properties_max: 4,
    filters_per_packet_max: 8,
};

/// Takes `data` for a stream of packets in each version.
pub fn check_stream(data: &[u8]) {
    for version in ProtocolVersion::ALL {
        let mut rest = data;
        while let Some(packet_len) = check_packet(rest, version) {
            rest = &rest[packet_len..];
        }
    }
}

/// Checks the first packet of `data`; its length if it is whole and right.
fn check_packet(data: &[u8], version: ProtocolVersion) -> Option<usize> {
    let header = match FrameHeader::peek(data) {
        Ok(header) => header?,
        Err(error) => {
            assert!(error.reason_code().is_error() && !error.to_string().is_empty());
            return None;
        }
    };
    assert!((2..=5).contains(&header.header_len));
    let body = data.get(header.header_len..header.total_len())?;
    match Packet::decode(&header, body, version, &LIMITS) {
        Ok(packet) => check_decoded(&packet, header.total_len(), version),
        Err(error) => {
            assert!(error.reason_code().is_error() && !error.to_string().is_empty());
            return None;
        }
    }
    Some(header.total_len())
}

fn check_decoded(packet: &Packet<'_>, len: usize, version: ProtocolVersion) {
    assert!(!format!("{packet:?}").is_empty());
    let _ = packet.check_from_client();
    let mut encoded = vec![];
    packet.encode(version, &mut encoded);
    assert!(encoded.len() <= len, "what is encoded is the shortest form");
    assert_eq!(decode_whole(&encoded, version), *packet);
    match packet {
        Packet::Publish(publish) => check_publish(publish, version),
        Packet::Subscribe(subscribe) => {
            assert_eq!(subscribe.filters.iter().count(), subscribe.filters.len());
            subscribe.filters.iter().for_each(|(filter, _)| check_filter(filter));
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert_eq!(unsubscribe.filters.iter().count(), unsubscribe.filters.len());
            unsubscribe.filters.iter().for_each(check_filter);
        }
        _ => {}
    }
}

fn decode_whole(bytes: &[u8], version: ProtocolVersion) -> Packet<'_> {
    let header = FrameHeader::peek(bytes).expect("a right header").expect("a whole header");
    assert_eq!(header.total_len(), bytes.len());
    Packet::decode(&header, &bytes[header.header_len..], version, &LIMITS).expect("decodes again")
}

/// The encoder of the broker says the same as the packet it came from.
fn check_publish(publish: &Publish<'_>, version: ProtocolVersion) {
    let properties = publish.properties;
    let mut forwarded = vec![];
    properties.forwarded.write_to(&mut forwarded);
    assert_eq!(forwarded.len(), properties.forwarded.len());
    let user_properties = properties.user_properties();
    assert_eq!(user_properties.iter().count(), user_properties.len());
    let subscription_ids: Vec<u32> =
        properties.subscription_ids.iter().map(std::num::NonZeroU32::get).collect();
    let out = PublishOut {
        version,
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        packet_id: publish.packet_id,
        topic_alias: properties.topic_alias,
        message_expiry_interval_s: properties.message_expiry_interval_s,
        subscription_ids: &subscription_ids,
        forwarded: &forwarded,
        payload: publish.payload,
    };
    let (mut by_out, mut by_packet) = (vec![], vec![]);
    out.encode(&mut by_out);
    publish.encode(version, &mut by_packet);
    assert_eq!(by_out, by_packet);
    assert_eq!(out.encoded_len(), by_out.len());
    if !publish.topic.is_empty() {
        assert!(topic::matches("#", publish.topic) != publish.topic.starts_with('$'));
        assert!(topic::matches(publish.topic, publish.topic));
    }
}

fn check_filter(filter: &str) {
    match ParsedFilter::parse(filter, &LIMITS) {
        Ok(parsed) => {
            assert!(filter.ends_with(parsed.filter) && !parsed.filter.is_empty());
            assert!(topic::levels(parsed.filter).count() <= LIMITS.topic_levels_max);
            if !topic::has_wildcard(parsed.filter) {
                assert_eq!(topic::validate_name(parsed.filter, &LIMITS), Ok(()));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
