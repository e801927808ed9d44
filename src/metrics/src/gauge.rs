//! The table of gauges.

/// Declares the gauges: variant, name, and the description that is also the variant's doc.
macro_rules! gauges {
    ($($variant:ident = $name:literal: $doc:literal,)+) => {
        /// What goes up and down. Shown as `<name>/count` and `<name>/max` (SEED-CLI-03).
        #[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
        #[repr(usize)]
        pub enum Gauge {
            $(#[doc = $doc] $variant,)+
        }

        impl Gauge {
            /// All gauges, in order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name, such as `clients`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The name of its count, such as `clients/count`.
            pub const fn count_name(self) -> &'static str {
                match self { $(Self::$variant => concat!($name, "/count"),)+ }
            }

            /// The name of its high-water mark, such as `clients/max`.
            pub const fn max_name(self) -> &'static str {
                match self { $(Self::$variant => concat!($name, "/max"),)+ }
            }

            /// One sentence that says what it is.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

gauges! {
    Clients = "clients": "Connected clients.",
    Sessions = "sessions": "Sessions, of clients that are connected and of those that are away.",
    PersistentSessions = "sessions/persistent": "Sessions that outlive their connection.",
    Subscriptions = "subscriptions": "Subscriptions of all sessions.",
    Subscribers = "subscribers": "Pairs of a filter and a session that subscribes it.",
    Topics = "topics": "Distinct filters of the node; only one shard writes it, as all replicas say the same.",
    Routes = "routes": "Routes of the node; only one shard writes it, as all replicas say the same.",
    Retained = "retained": "Retained messages.",
    Delayed = "delayed": "Messages that wait to be published later.",
    Queues = "queues": "Sessions with messages waiting in their queue.",
    Overloaded = "shards/overloaded": "Shards that are overloaded.",
    QueueAlarms = "alarms/queue_high_watermark": "Sessions whose queue has passed the high watermark and not yet fallen below the low one.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_places_in_the_table() {
        for (place, &gauge) in Gauge::ALL.iter().enumerate() {
            assert_eq!(gauge as usize, place);
            assert_eq!(gauge.count_name(), format!("{}/count", gauge.name()));
            assert_eq!(gauge.max_name(), format!("{}/max", gauge.name()));
            assert!(gauge.doc().ends_with('.'));
        }
    }
}
