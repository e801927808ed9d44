//! The table of counters.

/// Whose name a counter bears.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// One of EMQ 2.x, spelled as there (SEED-MET-01 to 03).
    Emq,
    /// Our own.
    RingMq,
}

/// Declares the counters: variant, name, and the description that is also the variant's doc.
macro_rules! counters {
    ($($origin:ident { $($variant:ident = $name:literal: $doc:literal,)+ })+) => {
        /// What is counted since the broker's start. Counters only grow.
        #[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[doc = $doc] $variant,)+)+
        }

        impl Counter {
            /// All counters, in order of their numbers.
            pub const ALL: &'static [Self] = &[$($(Self::$variant,)+)+];

            /// The name, such as `packets/publish/received`.
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$variant => $name,)+)+ }
            }

            /// One sentence that says what is counted.
            pub const fn doc(self) -> &'static str {
                match self { $($(Self::$variant => $doc,)+)+ }
            }

            /// Whose name it bears.
            pub const fn origin(self) -> Origin {
                match self { $($(Self::$variant => Origin::$origin,)+)+ }
            }
        }
    };
}

counters! {
    Emq {
        BytesReceived = "bytes/received": "Bytes of MQTT received from clients.",
        BytesSent = "bytes/sent": "Bytes of MQTT sent to clients.",
        PacketsReceived = "packets/received": "Packets received, of all types.",
        PacketsSent = "packets/sent": "Packets sent, of all types.",
        PacketsConnect = "packets/connect": "CONNECT packets received.",
        PacketsConnack = "packets/connack": "CONNACK packets sent.",
        PacketsPublishReceived = "packets/publish/received": "PUBLISH packets received.",
        PacketsPublishSent = "packets/publish/sent": "PUBLISH packets sent.",
        PacketsPubackReceived = "packets/puback/received": "PUBACK packets received.",
        PacketsPubackSent = "packets/puback/sent": "PUBACK packets sent.",
        PacketsPubackMissed = "packets/puback/missed": "PUBACK packets received for an id that is not in the inflight window.",
        PacketsPubrecReceived = "packets/pubrec/received": "PUBREC packets received.",
        PacketsPubrecSent = "packets/pubrec/sent": "PUBREC packets sent.",
        PacketsPubrecMissed = "packets/pubrec/missed": "PUBREC packets received for an id that is not in the inflight window.",
        PacketsPubrelReceived = "packets/pubrel/received": "PUBREL packets received.",
        PacketsPubrelSent = "packets/pubrel/sent": "PUBREL packets sent.",
        PacketsPubrelMissed = "packets/pubrel/missed": "PUBREL packets received for an id that awaits no release.",
        PacketsPubcompReceived = "packets/pubcomp/received": "PUBCOMP packets received.",
        PacketsPubcompSent = "packets/pubcomp/sent": "PUBCOMP packets sent.",
        PacketsPubcompMissed = "packets/pubcomp/missed": "PUBCOMP packets received for an id that is not in the inflight window.",
        PacketsSubscribe = "packets/subscribe": "SUBSCRIBE packets received.",
        PacketsSuback = "packets/suback": "SUBACK packets sent.",
        PacketsUnsubscribe = "packets/unsubscribe": "UNSUBSCRIBE packets received.",
        PacketsUnsuback = "packets/unsuback": "UNSUBACK packets sent.",
        PacketsPingreq = "packets/pingreq": "PINGREQ packets received.",
        PacketsPingresp = "packets/pingresp": "PINGRESP packets sent.",
        PacketsDisconnect = "packets/disconnect": "DISCONNECT packets received.",
        MessagesReceived = "messages/received": "Messages received from clients.",
        MessagesSent = "messages/sent": "Messages sent to clients.",
        MessagesQos0Received = "messages/qos0/received": "Messages of QoS 0 received from clients.",
        MessagesQos0Sent = "messages/qos0/sent": "Messages of QoS 0 sent to clients.",
        MessagesQos1Received = "messages/qos1/received": "Messages of QoS 1 received from clients.",
        MessagesQos1Sent = "messages/qos1/sent": "Messages of QoS 1 sent to clients.",
        MessagesQos2Received = "messages/qos2/received": "Messages of QoS 2 received from clients.",
        MessagesQos2Sent = "messages/qos2/sent": "Messages of QoS 2 sent to clients.",
    }
    RingMq {
        PacketsDisconnectSent = "packets/disconnect/sent": "DISCONNECT packets sent (MQTT 5).",
        MessagesRetained = "messages/stored": "Retained messages stored, new ones and replacements.",
        MessagesForwarded = "messages/forwarded": "Messages sent to another shard, once per shard.",
        MessagesNoSubscribers = "messages/no_subscribers": "Messages that matched no subscription of the node.",
        MessagesWill = "messages/will": "Will messages published.",
        MessagesDelayed = "messages/delayed": "Messages kept to be published later.",
        MessagesDelayedPublished = "messages/delayed/published": "Delayed messages published when they were due.",
        ConnectionsAccepted = "connections/accepted": "Connections accepted.",
        ConnectionsRefused = "connections/refused": "Accepted connections closed at once, by the listener's rules or limits or as the broker stops; listeners tells the reasons.",
        ClientConnected = "client/connected": "Clients whose CONNECT was accepted.",
        ClientConnectRefused = "client/connect_refused": "Clients whose CONNECT was refused.",
        ClientDisconnected = "client/disconnected": "Connected clients that have gone, for whatever reason.",
        ClientAclDeny = "client/acl_deny": "Publications, wills and subscriptions denied by the access rules.",
        ClientBanned = "client/banned": "Clients whose CONNECT was refused because they, their user name or their address are banned.",
        ClientRateLimited = "client/rate_limited": "Times a client was not read for a while because it was over its rate.",
        SessionCreated = "session/created": "Sessions created.",
        SessionResumed = "session/resumed": "Sessions a client came back to.",
        SessionTakenOver = "session/takenover": "Sessions taken from a connection by a newer one of the same client.",
        SessionDiscarded = "session/discarded": "Sessions discarded for a clean start.",
        SessionTerminated = "session/terminated": "Sessions ended with their connection or by command.",
        SessionExpired = "session/expired": "Sessions whose expiry interval passed while their client was away.",
        HandoverSent = "handover/sent": "Connections handed to their client's home shard.",
        HandoverReceived = "handover/received": "Connections taken from the shard that accepted them.",
        MeshBatchesSent = "mesh/batches_sent": "Pushes of gathered messages to other shards.",
        MeshBatchesReceived = "mesh/batches_received": "Batches of messages taken from other shards.",
        MeshFull = "mesh/full": "Pushes to another shard that found its ring full and were kept for later.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drop_name, snapshot::DERIVED};
    use std::collections::BTreeSet;

    #[test]
    fn the_numbers_are_the_places_in_the_table() {
        for (place, &counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter as usize, place);
            assert!(counter.doc().ends_with('.'), "{counter:?}");
        }
    }

    /// SEED-MET-01, SEED-MET-02, SEED-MET-03: the exact set of EMQ 2.3.
    #[test]
    fn the_emq_names_are_all_there_and_no_other_is_called_one() {
        let mut want = BTreeSet::new();
        for name in ["bytes", "packets", "packets/publish", "messages"] {
            want.extend([format!("{name}/received"), format!("{name}/sent")]);
        }
        for ack in ["puback", "pubrec", "pubrel", "pubcomp"] {
            want.extend(["received", "sent", "missed"].map(|way| format!("packets/{ack}/{way}")));
        }
        let singles =
            "connect connack subscribe suback unsubscribe unsuback pingreq pingresp disconnect";
        want.extend(singles.split(' ').map(|name| format!("packets/{name}")));
        for qos in 0..3 {
            want.extend(["received", "sent"].map(|way| format!("messages/qos{qos}/{way}")));
        }
        want.extend(
            ["messages/qos2/dropped", "messages/dropped", "messages/retained"].map(String::from),
        );
        assert_eq!(want.len(), 38); // SEED-REST-25

        let emq = Counter::ALL.iter().filter(|c| c.origin() == Origin::Emq).map(|c| c.name());
        let have: BTreeSet<_> =
            emq.chain(DERIVED.iter().map(|d| d.name())).map(String::from).collect();
        assert_eq!(have, want);
    }

    #[test]
    fn no_name_is_used_twice() {
        let mut seen = BTreeSet::new();
        let drops = crate::DropKind::ALL.iter().flat_map(|&kind| {
            crate::DropReason::ALL.iter().map(move |&reason| drop_name(kind, reason))
        });
        let all = Counter::ALL.iter().map(|c| c.name()).chain(DERIVED.iter().map(|d| d.name()));
        for name in all.chain(drops) {
            assert!(seen.insert(name), "{name} is declared twice");
        }
    }
}
