//! Client ids and user names: made of a client's number each time they are needed, and never stored.

use std::net::SocketAddr;

use super::random::mix;
use super::topic::{number, rand_most};

/// How client ids are made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientIds {
    /// `PREFIX_bench_KIND_N`
    Prefixed {
        /// `PREFIX_bench_KIND_`
        begin: String,
    },
    /// `PREFIXN`, or `N` alone.
    Short {
        /// Maybe empty.
        prefix: String,
    },
    /// `HOST_bench_KIND_RANDOM_N`
    Random {
        /// The name of this machine, for clients without a local address.
        host: String,
        /// `_bench_KIND_`
        middle: String,
        /// Of the random numbers.
        seed: u64,
    },
}

impl ClientIds {
    /// The rule for these options.
    pub fn new(
        prefix: Option<&str>,
        is_short: bool,
        kind: &str,
        host: &str,
        seed: u64,
    ) -> ClientIds {
        match (prefix, is_short) {
            (prefix, true) => ClientIds::Short { prefix: prefix.unwrap_or_default().to_owned() },
            (Some(prefix), false) => {
                ClientIds::Prefixed { begin: format!("{prefix}_bench_{kind}_") }
            }
            (None, false) => {
                ClientIds::Random { host: host.to_owned(), middle: format!("_bench_{kind}_"), seed }
            }
        }
    }

    /// Appends the id of the client with this number.
    pub fn write(&self, out: &mut Vec<u8>, client: u64, from: Option<SocketAddr>) {
        match self {
            ClientIds::Prefixed { begin } => out.extend_from_slice(begin.as_bytes()),
            ClientIds::Short { prefix } => out.extend_from_slice(prefix.as_bytes()),
            ClientIds::Random { host, middle, seed } => {
                match from {
                    Some(from) => out.extend_from_slice(from.ip().to_string().as_bytes()),
                    None => out.extend_from_slice(host.as_bytes()),
                }
                out.extend_from_slice(middle.as_bytes());
                number(out, mix(seed ^ client) >> 32);
                out.push(b'_');
            }
        }
        number(out, client);
    }
}

/// How user names are made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Usernames {
    /// The same for all.
    Fixed(String),
    /// `%i`
    ClientNumber,
    /// `%rand_N`
    Random(u32),
}

impl Usernames {
    /// The rule for this option.
    pub fn parse(text: &str) -> Usernames {
        match (text, rand_most(text)) {
            ("%i", _) => Usernames::ClientNumber,
            (_, Some(Some(most))) => Usernames::Random(most),
            _ => Usernames::Fixed(text.to_owned()),
        }
    }

    /// Appends the name of the client with this number.
    pub fn write(&self, out: &mut Vec<u8>, client: u64, seed: u64) {
        match self {
            Usernames::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Usernames::ClientNumber => number(out, client),
            Usernames::Random(most) => {
                number(out, 1 + mix(mix(seed) ^ client) % u64::from(*most));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(prefix: Option<&str>, is_short: bool, from: Option<&str>, client: u64) -> String {
        let mut out = Vec::new();
        let from = from.map(|from| SocketAddr::new(from.parse().expect("an address"), 0));
        ClientIds::new(prefix, is_short, "sub", "box", 5).write(&mut out, client, from);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn client_ids_follow_prefix_and_shortids() {
        assert_eq!(id(Some("p"), false, None, 8), "p_bench_sub_8");
        assert_eq!(id(None, true, None, 8), "8");
        assert_eq!(id(Some("p"), true, None, 8), "p8");
        let random = id(None, false, None, 8);
        let parts: Vec<&str> = random.split('_').collect();
        assert_eq!((parts[0], parts[1], parts[2], parts[4]), ("box", "bench", "sub", "8"));
        assert!(parts[3].parse::<u64>().is_ok(), "{random}");
        assert_eq!(random, id(None, false, None, 8), "an id is the same each time");
        assert_ne!(parts[3], id(None, false, None, 9).split('_').nth(3).expect("five parts"));
        assert!(id(None, false, Some("127.0.1.9"), 1).starts_with("127.0.1.9_bench_sub_"));
    }

    #[test]
    fn user_names_have_variables_only_as_a_whole() {
        let name = |text, client| {
            let mut out = Vec::new();
            Usernames::parse(text).write(&mut out, client, 3);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(name("ann", 7), "ann");
        assert_eq!(name("%i", 7), "7");
        assert_eq!(name("u%i", 7), "u%i");
        assert_eq!(name("%rand_x", 7), "%rand_x");
        let numbers: Vec<u64> =
            (0..100).map(|client| name("%rand_4", client).parse().expect("a number")).collect();
        assert!(numbers.iter().all(|number| (1..=4).contains(number)));
        assert!((1..=4).all(|number| numbers.contains(&number)));
    }
}
