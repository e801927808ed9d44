//! The enumerations and lists among the settings.

use std::fmt;

use crate::kind::{Kind, Setting, bytes, digits, show_bytes};

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// The words of the settings file, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of the settings file.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl Setting for $name {
            fn parse(text: &str, _: &Kind) -> Option<Self> {
                match text { $($word => Some($name::$variant),)+ _ => None }
            }
            fn show(&self, _: &Kind) -> String {
                self.word().to_owned()
            }
        }
    };
}

words! {
    /// What happens to a publish or subscribe that no ACL rule matches (SEED-ACL-03).
    AclNomatch {
        /// It is allowed.
        Allow = "allow",
        /// It is denied.
        Deny = "deny",
    }
}

words! {
    /// How a shared group picks the member that gets a message.
    SharedStrategy {
        /// Any member, evenly.
        Random = "random",
        /// One member after the other.
        RoundRobin = "round_robin",
        /// The same member until it goes.
        Sticky = "sticky",
        /// By the publisher's client id.
        HashClientId = "hash_clientid",
        /// By the topic.
        HashTopic = "hash_topic",
        /// A member on the publisher's shard if there is one, else any.
        Local = "local",
    }
}

words! {
    /// The order in which a session's message queue hands out messages (SEED-SESS-09).
    MqueueKind {
        /// First in, first out.
        Simple = "simple",
        /// By the priority of the topic, then first in, first out.
        Priority = "priority",
    }
}

words! {
    /// Where retained messages are kept (SEED-PUB-09).
    RetainedStorage {
        /// In memory: a restart loses them.
        Ram = "ram",
        /// In memory, and on disk if there is a store.
        Disc = "disc",
        /// On disk: in memory are a few bytes of each, and what was changed last.
        DiscOnly = "disc_only",
    }
}

words! {
    /// Whether clients of MQTT 5 are told to use another server.
    ServerMoved {
        /// No: clients are served here.
        Off = "off",
        /// Use another server (reason 0x9C).
        Temporary = "temporary",
        /// Server moved (reason 0x9D).
        Permanent = "permanent",
    }
}

words! {
    /// Whether a TLS client is asked for a certificate (SEED-LSN-15).
    VerifyPeer {
        /// No.
        VerifyNone = "verify_none",
        /// Yes; one that is shown must be good.
        VerifyPeer = "verify_peer",
    }
}

words! {
    /// What of a client's certificate becomes a name of it (SEED-LSN-16).
    PeerCertAs {
        /// Nothing.
        None = "none",
        /// The common name.
        Cn = "cn",
        /// The distinguished name.
        Dn = "dn",
        /// The whole certificate, DER in base64.
        Crt = "crt",
    }
}

words! {
    /// The least severe level that is logged (SEED-CONF-05).
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// Events of the broker's life.
        Info = "info",
        /// Events an operator may want to know of.
        Notice = "notice",
        /// What is wrong but handled.
        Warning = "warning",
        /// What failed.
        Error = "error",
        /// As `Error`.
        Critical = "critical",
        /// As `Error`.
        Alert = "alert",
        /// As `Error`.
        Emergency = "emergency",
    }
}

impl LogLevel {
    /// The nearest level of the `log` crate, in lower case, as its loggers parse it.
    #[must_use]
    pub fn log_filter(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info | LogLevel::Notice => "info",
            LogLevel::Warning => "warn",
            LogLevel::Error | LogLevel::Critical | LogLevel::Alert | LogLevel::Emergency => "error",
        }
    }
}

/// How much memory the process may take before the node is overloaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemoryBudget {
    /// It is not watched.
    Off,
    /// So many bytes.
    Bytes(u64),
    /// A part of what the machine or the control group has, in percent.
    Percent(u8),
}

impl MemoryBudget {
    /// The budget in bytes where the machine or the control group has `available`; none: it is not watched.
    #[must_use]
    pub fn bytes(self, available: u64) -> Option<u64> {
        match self {
            MemoryBudget::Off => None,
            MemoryBudget::Bytes(bytes) => Some(bytes),
            MemoryBudget::Percent(percent) => Some(available / 100 * u64::from(percent)),
        }
    }
}

impl Setting for MemoryBudget {
    fn parse(text: &str, _: &Kind) -> Option<Self> {
        if text == "off" {
            return Some(MemoryBudget::Off);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = u8::try_from(digits(percent.trim_end())?).ok()?;
            return (1..=100).contains(&percent).then_some(MemoryBudget::Percent(percent));
        }
        bytes(text).filter(|bytes| *bytes >= 1 << 20).map(MemoryBudget::Bytes)
    }
    fn show(&self, _: &Kind) -> String {
        match *self {
            MemoryBudget::Off => "off".to_owned(),
            MemoryBudget::Bytes(bytes) => show_bytes(bytes),
            MemoryBudget::Percent(percent) => format!("{percent}%"),
        }
    }
}

/// Topic priorities of the message queue: topic name and priority 0 to 255, in the order given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Priorities(pub Vec<(String, u8)>);

impl Priorities {
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() || text == "none" {
            return Some(Self::default());
        }
        let mut pairs: Vec<(String, u8)> = Vec::new();
        for pair in text.split(',') {
            // The last `=` parts them: a topic name may contain `=` itself.
            let (topic, priority) = pair.rsplit_once('=')?;
            let (topic, priority) = (topic.trim(), priority.trim());
            let known = pairs.iter().any(|(other, _)| other == topic);
            let bad_topic =
                topic.is_empty() || topic.contains(['+', '#']) || topic.contains(char::is_control);
            if known || bad_topic || !priority.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            pairs.push((topic.to_owned(), priority.parse().ok()?));
        }
        Some(Self(pairs))
    }
}

impl fmt::Display for Priorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, (topic, priority)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{topic}={priority}")?;
        }
        Ok(())
    }
}

/// When the store's writes are on disk (DESIGN 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreSync {
    /// Before anything that depends on them is told to a client.
    Always,
    /// At the latest so many milliseconds later.
    EveryMs(u64),
    /// When the kernel sees fit.
    Never,
}
