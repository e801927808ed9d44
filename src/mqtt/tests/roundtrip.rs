//! Property tests: what is encoded decodes to the same, and no bytes do harm.

mod common;

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ringmq_mqtt::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, DecodeLimits, Disconnect,
    Forwarded, ForwardedFields, FrameHeader, Packet, PacketId, ParsedFilter, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscribeFilters, SubscribeOptions, UnsubAck, Unsubscribe, UnsubscribeFilters, UserProperties,
    Will, topic,
};

type Pairs = Vec<(String, String)>;

/// Encodes, checks every truncation, decodes and compares.
fn assert_round_trip(packet: &Packet<'_>, version: ProtocolVersion) {
    let mut bytes = vec![];
    packet.encode(version, &mut bytes);
    for len in [0, 1, 2, 3, 4, 5, bytes.len() / 2, bytes.len() - 1] {
        let part = &bytes[..len.min(bytes.len() - 1)];
        let header = FrameHeader::peek(part).expect("a part is not an error");
        assert!(header.is_none_or(|header| header.total_len() > part.len()));
    }
    let header = FrameHeader::peek(&bytes).expect("right").expect("whole");
    assert_eq!(header.total_len(), bytes.len());
    let body = &bytes[header.header_len..];
    let decoded = Packet::decode(&header, body, version, &DecodeLimits::UNLIMITED);
    assert_eq!(decoded.as_ref(), Ok(packet));
    // A body that was cut must not panic, whatever it is taken for.
    for len in 0..body.len().min(200) {
        let header = FrameHeader { body_len: len, ..header };
        let _ = Packet::decode(&header, &body[..len], version, &DecodeLimits::UNLIMITED);
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z0-9]{0,12}", 1 => "[^\u{0}]{0,8}", 1 => Just("x".repeat(300))]
}

fn name() -> impl Strategy<Value = String> {
    "[a-zä/$]{1,20}"
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 200..20_000)]
}

fn short_data() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

fn pairs() -> impl Strategy<Value = Pairs> {
    vec((text(), text()), 0..4)
}

fn borrow(pairs: &Pairs) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

fn version() -> impl Strategy<Value = ProtocolVersion> {
    proptest::sample::select(&ProtocolVersion::ALL[..])
}

fn qos() -> impl Strategy<Value = QoS> {
    proptest::sample::select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not zero"))
}

/// Reason codes that packets of this type can have.
fn reason(example: &Packet<'_>) -> impl Strategy<Value = ReasonCode> + use<> {
    let packet_type = example.packet_type();
    let all: Vec<_> = (0..=u8::MAX)
        .filter_map(ReasonCode::from_u8)
        .filter(|code| code.is_allowed_in(packet_type))
        .collect();
    proptest::sample::select(all)
}

prop_compose! {
    fn forwarded_bytes()(
        payload_is_utf8 in any::<bool>(),
        content_type in option::of(text()),
        response_topic in option::of(name()),
        correlation_data in option::of(short_data()),
        user in pairs(),
    ) -> Vec<u8> {
        let mut out = vec![];
        let user = borrow(&user);
        let fields = ForwardedFields {
            payload_is_utf8,
            content_type: content_type.as_deref(),
            response_topic: response_topic.as_deref(),
            correlation_data: correlation_data.as_deref(),
            user_properties: UserProperties::from_list(&user),
        };
        fields.write_to(&mut out);
        let view = Forwarded::from_raw(&out);
        assert_eq!(view.payload_is_utf8(), payload_is_utf8);
        assert_eq!(view.content_type(), content_type.as_deref());
        assert_eq!(view.response_topic(), response_topic.as_deref());
        assert_eq!(view.correlation_data(), correlation_data.as_deref());
        assert_eq!(view.user_properties(), UserProperties::from_list(&user));
        out
    }
}

prop_compose! {
    fn subscribe_options()(
        qos in qos(),
        no_local in any::<bool>(),
        retain_as_published in any::<bool>(),
        handling in 0..3_u8,
    ) -> SubscribeOptions {
        let retain_handling = RetainHandling::from_bits(handling).expect("below 3");
        SubscribeOptions { qos, no_local, retain_as_published, retain_handling }
    }
}

proptest! {
    #[test]
    fn publish(
        version in version(), qos in qos(), dup in any::<bool>(), retain in any::<bool>(),
        topic in name(), id in packet_id(), payload in data(), forwarded in forwarded_bytes(),
        expiry in option::of(any::<u32>()), alias in any::<u16>(),
    ) {
        let properties = if version.is_v5() {
            PublishProperties {
                message_expiry_interval_s: expiry,
                topic_alias: NonZeroU16::new(alias),
                forwarded: Forwarded::from_raw(&forwarded),
                ..Default::default()
            }
        } else {
            PublishProperties::default()
        };
        let has_id = qos != QoS::AtMostOnce;
        let packet_id = has_id.then_some(id);
        let publish =
            Publish { dup: dup && has_id, qos, retain, topic: &topic, packet_id, payload: &payload, properties };
        assert_round_trip(&Packet::Publish(publish), version);
    }

    #[test]
    fn connect(
        version in version(), clean_start in any::<bool>(), keep_alive_s in any::<u16>(),
        client_id in text(), username in option::of(text()), password in option::of(short_data()),
        is_bridge in any::<bool>(), user in pairs(),
        numbers in any::<(Option<u32>, u16, u32, u16, bool, bool)>(),
        method in option::of(text()), auth_data in option::of(short_data()),
    ) {
        let user = borrow(&user);
        let properties = ConnectProperties {
            session_expiry_interval_s: numbers.0,
            receive_maximum: Some(numbers.1).filter(|number| *number != 0),
            maximum_packet_size: Some(numbers.2).filter(|len| *len != 0),
            topic_alias_maximum: numbers.3,
            request_response_information: numbers.4,
            request_problem_information: numbers.5,
            user_properties: UserProperties::from_list(&user),
            authentication_method: method.as_deref(),
            authentication_data: auth_data.as_deref().filter(|_| method.is_some()),
        };
        let is_v5 = version.is_v5();
        let connect = Connect {
            version, clean_start, keep_alive_s, client_id: &client_id, will: None,
            username: username.as_deref(),
            password: password.as_deref().filter(|_| is_v5 || username.is_some()),
            is_bridge: is_bridge && !is_v5,
            properties: if is_v5 { properties } else { ConnectProperties::default() },
        };
        assert_round_trip(&Packet::Connect(connect), version);
    }

    #[test]
    fn will(
        version in version(), qos in qos(), retain in any::<bool>(), topic in name(),
        payload in short_data(), delay in any::<u32>(), expiry in option::of(any::<u32>()),
        forwarded in forwarded_bytes(), username in option::of(text()),
    ) {
        let is_v5 = version.is_v5();
        let will = Will {
            qos, retain, topic: &topic, payload: &payload,
            delay_interval_s: if is_v5 { delay } else { 0 },
            message_expiry_interval_s: expiry.filter(|_| is_v5),
            forwarded: if is_v5 { Forwarded::from_raw(&forwarded) } else { Forwarded::default() },
        };
        let connect = Connect {
            version, clean_start: true, keep_alive_s: 0, client_id: "", will: Some(will),
            username: username.as_deref(), password: None, is_bridge: false,
            properties: ConnectProperties::default(),
        };
        assert_round_trip(&Packet::Connect(connect), version);
    }

    #[test]
    fn connack(
        reason in reason(&Packet::ConnAck(ConnAck::new(false, ReasonCode::Success))),
        session_present in any::<bool>(), v3_code in 0..6_u8,
        numbers in any::<(Option<u32>, u16, u32, u16, Option<u16>)>(),
        flags in any::<(bool, bool, bool, bool)>(), qos in qos(),
        texts in proptest::array::uniform6(option::of(text())),
        auth_data in option::of(short_data()), user in pairs(),
    ) {
        let user = borrow(&user);
        let properties = ConnAckProperties {
            session_expiry_interval_s: numbers.0,
            receive_maximum: Some(numbers.1).filter(|number| *number != 0),
            maximum_qos: qos,
            retain_available: flags.0,
            maximum_packet_size: Some(numbers.2).filter(|len| *len != 0),
            assigned_client_id: texts[0].as_deref(),
            topic_alias_maximum: numbers.3,
            reason_string: texts[1].as_deref(),
            user_properties: UserProperties::from_list(&user),
            wildcard_subscription_available: flags.1,
            subscription_ids_available: flags.2,
            shared_subscription_available: flags.3,
            server_keep_alive_s: numbers.4,
            response_information: texts[2].as_deref(),
            server_reference: texts[3].as_deref(),
            authentication_method: texts[4].as_deref(),
            authentication_data: auth_data.as_deref(),
        };
        let is_success = reason == ReasonCode::Success;
        let ack = ConnAck { session_present: session_present && is_success, reason, properties };
        assert_round_trip(&Packet::ConnAck(ack), ProtocolVersion::V5);
        let reason = ReasonCode::from_v3_connack_code(v3_code).expect("0 to 5");
        let ack = ConnAck::new(session_present && v3_code == 0, reason);
        assert_round_trip(&Packet::ConnAck(ack), ProtocolVersion::V3_1_1);
        let ack = Packet::ConnAck(ConnAck::new(false, reason));
        assert_round_trip(&ack, ProtocolVersion::V3_1);
    }

    #[test]
    fn acknowledgements(
        version in version(), packet_id in packet_id(), choice in any::<prop::sample::Index>(),
        reason_string in option::of(text()), user in pairs(), which in 0..4_usize,
    ) {
        let wrap = [Packet::PubAck, Packet::PubRec, Packet::PubRel, Packet::PubComp][which];
        let user = borrow(&user);
        let mut ack = Ack::new(packet_id, ReasonCode::Success);
        if version.is_v5() {
            let packet_type = wrap(ack).packet_type();
            let codes: Vec<_> = (0..=u8::MAX)
                .filter_map(ReasonCode::from_u8)
                .filter(|code| code.is_allowed_in(packet_type))
                .collect();
            ack.reason = codes[choice.index(codes.len())];
            ack.reason_string = reason_string.as_deref();
            ack.user_properties = UserProperties::from_list(&user);
        }
        assert_round_trip(&wrap(ack), version);
    }

    #[test]
    fn subscribe_and_unsubscribe(
        version in version(), packet_id in packet_id(), id in 0..=268_435_455_u32, user in pairs(),
        filters in vec((text(), subscribe_options()), 1..20),
    ) {
        let user = borrow(&user);
        let is_v5 = version.is_v5();
        let user_properties = UserProperties::from_list(if is_v5 { &user[..] } else { &[] });
        let list: Vec<_> = filters
            .iter()
            .map(|(filter, options)| {
                (&filter[..], if is_v5 { *options } else { SubscribeOptions::from_qos(options.qos) })
            })
            .collect();
        let subscription_id = NonZeroU32::new(id).filter(|_| is_v5);
        let filters = SubscribeFilters::from_list(&list);
        let subscribe = Subscribe { packet_id, subscription_id, user_properties, filters };
        assert_round_trip(&Packet::Subscribe(subscribe), version);
        let list: Vec<_> = list.iter().map(|(filter, _)| *filter).collect();
        let filters = UnsubscribeFilters::from_list(&list);
        let unsubscribe = Unsubscribe { packet_id, user_properties, filters };
        assert_round_trip(&Packet::Unsubscribe(unsubscribe), version);
    }

    #[test]
    fn subscribe_acknowledgements(
        packet_id in packet_id(), reason_string in option::of(text()), user in pairs(),
        reasons in vec(reason(&Packet::SubAck(SubAck::new(PacketId::MIN, &[]))), 1..9),
        others in vec(reason(&Packet::UnsubAck(UnsubAck::new(PacketId::MIN, &[]))), 1..9),
        old in vec(proptest::sample::select(&[0_u8, 1, 2, 0x80][..]), 1..9),
    ) {
        let user = borrow(&user);
        let user_properties = UserProperties::from_list(&user);
        let reason_string = reason_string.as_deref();
        let reasons: Vec<_> = reasons.iter().map(|code| code.code()).collect();
        let suback = SubAck { packet_id, reasons: &reasons, reason_string, user_properties };
        assert_round_trip(&Packet::SubAck(suback), ProtocolVersion::V5);
        let reasons: Vec<_> = others.iter().map(|code| code.code()).collect();
        let unsuback = UnsubAck { packet_id, reasons: &reasons, reason_string, user_properties };
        assert_round_trip(&Packet::UnsubAck(unsuback), ProtocolVersion::V5);
        for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1] {
            assert_round_trip(&Packet::SubAck(SubAck::new(packet_id, &old)), version);
            assert_round_trip(&Packet::UnsubAck(UnsubAck::new(packet_id, &[])), version);
        }
    }

    #[test]
    fn disconnect(
        reason in reason(&Packet::Disconnect(Disconnect::new(ReasonCode::Success))),
        session_expiry_interval_s in option::of(any::<u32>()),
        reason_string in option::of(text()), server in option::of(text()), user in pairs(),
    ) {
        let user = borrow(&user);
        let disconnect = Disconnect {
            reason,
            session_expiry_interval_s,
            reason_string: reason_string.as_deref(),
            user_properties: UserProperties::from_list(&user),
            server_reference: server.as_deref(),
        };
        assert_round_trip(&Packet::Disconnect(disconnect), ProtocolVersion::V5);
        let disconnect = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
        assert_round_trip(&disconnect, ProtocolVersion::V3_1_1);
    }

    #[test]
    fn auth(
        reason in reason(&Packet::Auth(Auth::new(ReasonCode::Success))),
        method in text(), auth_data in option::of(data()),
        reason_string in option::of(text()), user in pairs(),
    ) {
        let user = borrow(&user);
        let auth = Auth {
            reason,
            authentication_method: Some(&method),
            authentication_data: auth_data.as_deref(),
            reason_string: reason_string.as_deref(),
            user_properties: UserProperties::from_list(&user),
        };
        assert_round_trip(&Packet::Auth(auth), ProtocolVersion::V5);
    }

    #[test]
    fn pings(version in version()) {
        assert_round_trip(&Packet::PingReq, version);
        assert_round_trip(&Packet::PingResp, version);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        common::check_stream(&bytes);
    }

    /// A right header in front makes random bodies go deeper.
    #[test]
    fn random_bodies_do_no_harm(
        packet_type in 1..16_u8, flags in 0..16_u8,
        body in vec(prop_oneof![any::<u8>(), 0..48_u8, Just(0)], 0..120),
    ) {
        for flags in [0, 2, flags] {
            let len = u8::try_from(body.len()).expect("short");
            common::check_stream(&[&[packet_type << 4 | flags, len], &body[..]].concat());
        }
    }

    #[test]
    fn matches_as_the_naive_matcher(filter in "[ab+#/$]{1,8}", topic in "[ab/$]{1,8}") {
        if let Ok(parsed) = ParsedFilter::parse(&filter, &DecodeLimits::UNLIMITED) {
            prop_assert_eq!(topic::matches(parsed.filter, &topic), naive(parsed.filter, &topic));
        }
    }

    /// Most random filters are not valid; these are made of whole levels.
    #[test]
    fn matches_level_by_level(
        filter in vec(proptest::sample::select(&["a", "b", "", "+", "ab", "$x"][..]), 1..5),
        has_hash in any::<bool>(),
        topic in vec(proptest::sample::select(&["a", "b", "", "ab", "$x"][..]), 1..5),
    ) {
        let mut filter = filter;
        if has_hash {
            filter.push("#");
        }
        let (filter, topic) = (filter.join("/"), topic.join("/"));
        prop_assert_eq!(topic::matches(&filter, &topic), naive(&filter, &topic), "{} {}", filter, topic);
    }
}

/// Section 4.7, word by word.
fn naive(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([level, filter @ ..], [name, topic @ ..]) => level == name && levels(filter, topic),
            _ => false,
        }
    }
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    let is_hidden = topic[0].starts_with('$') && matches!(filter[0], "+" | "#");
    !is_hidden && levels(&filter, &topic)
}
