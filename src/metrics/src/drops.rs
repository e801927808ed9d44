//! The table of drops: what was given up, and why.

/// Declares kinds, reasons, and the name of each pair.
macro_rules! drops {
    (
        kinds { $($kind:ident = $kind_name:literal: $kind_doc:literal,)+ }
        reasons $reasons:tt
    ) => {
        /// What was dropped.
        #[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
        #[repr(usize)]
        pub enum DropKind {
            $(#[doc = $kind_doc] $kind,)+
        }

        impl DropKind {
            /// All kinds, in order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The kind's part of the name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $kind_name,)+ }
            }

            /// One sentence that says what was dropped.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$kind => $kind_doc,)+ }
            }
        }

        drops!(@reasons $reasons);

        const NAMES: [[&str; DropReason::ALL.len()]; DropKind::ALL.len()] =
            [$(drops!(@names $kind_name $reasons)),+];
    };
    (@reasons { $($reason:ident = $name:literal: $doc:literal,)+ }) => {
        /// Why it was dropped.
        #[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
        #[repr(usize)]
        pub enum DropReason {
            $(#[doc = $doc] $reason,)+
        }

        impl DropReason {
            /// All reasons, in order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$reason,)+];

            /// The reason's part of the name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)+ }
            }

            /// One sentence that says why.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$reason => $doc,)+ }
            }
        }
    };
    (@names $kind_name:literal { $($reason:ident = $name:literal: $doc:literal,)+ }) => {
        [$(concat!("messages/dropped/", $kind_name, "/", $name)),+]
    };
}

drops! {
    kinds {
        Qos0 = "qos0": "A message of QoS 0.",
        Qos1 = "qos1": "A message of QoS 1.",
        Qos2 = "qos2": "A message of QoS 2.",
        Will = "will": "A will message that was not published.",
        Retained = "retained": "A message that was not kept as its topic's retained one; it was delivered all the same.",
    }
    reasons {
        QueueFull = "queue_full": "The session's message queue was full; this one was displaced.",
        OutboxFull = "outbox_full": "The connection took its bytes too slowly and its outbox was full.",
        Overloaded = "overloaded": "The shard was overloaded and the connection had bytes waiting.",
        Expired = "expired": "The message expiry interval passed before it could be sent.",
        TooLarge = "too_large": "Larger than the client accepts, or than a retained message may be.",
        SessionClosed = "session_closed": "The session ended with the message still queued.",
        SessionOffline = "session_offline": "The client is away and its session does not queue this.",
        AwaitRelTimeout = "await_rel_timeout": "The publisher did not release it (PUBREL) in time.",
        NoMember = "no_member": "No member of the shared group was left to take it.",
        AclDenied = "acl_denied": "The access rules deny publishing it.",
        QuotaExceeded = "quota_exceeded": "A limit on the number of messages kept is reached, or on the time they are.",
        DelayInvalid = "delay_invalid": "The topic asks for a delay that is no whole number of seconds, or names no topic behind it.",
        Deleted = "deleted": "A delayed message was deleted by command.",
        StoreFailing = "store_failing": "The store cannot write, and what would depend on it is refused.",
        Discarded = "discarded": "The client ended normally, or was back before the will's delay passed.",
    }
}

/// The pair's name, such as `messages/dropped/qos1/queue_full`.
pub const fn drop_name(kind: DropKind, reason: DropReason) -> &'static str {
    NAMES[kind as usize][reason as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_places_in_the_table() {
        for (place, &kind) in DropKind::ALL.iter().enumerate() {
            assert_eq!(kind as usize, place);
            for (place, &reason) in DropReason::ALL.iter().enumerate() {
                assert_eq!(reason as usize, place);
                let want = format!("messages/dropped/{}/{}", kind.name(), reason.name());
                assert_eq!(drop_name(kind, reason), want);
                assert!(kind.doc().ends_with('.') && reason.doc().ends_with('.'));
            }
        }
    }
}
