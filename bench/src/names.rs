//! Client ids and topics, made from numbers: no client keeps its own.

use crate::wire;

/// Length of every client id, so that memory per client compares.
pub const CLIENT_ID_LEN: usize = 20;
/// Length of every topic and of every filter that is a topic.
pub const TOPIC_LEN: usize = 24;
/// Longest begin of both.
pub const PREFIX_LEN_MAX: usize = 8;
/// What shared subscriptions share.
const GROUP: &str = "benchmark";

/// What all names of a run begin with.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
    ids: [u8; CLIENT_ID_LEN],
    topics: [u8; TOPIC_LEN],
}

/// A name on the stack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Name<const LEN: usize>([u8; LEN]);

impl<const LEN: usize> Name<LEN> {
    /// `begin`, and behind it `number` with leading zeros.
    fn numbered(begin: &[u8; LEN], number: u64) -> Name<LEN> {
        let (mut name, mut rest) = (*begin, number);
        for byte in name.iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *byte = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        Name(name)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of text and digits")
    }
}

impl Names {
    /// Names that begin with `prefix`, of at most [`PREFIX_LEN_MAX`] bytes.
    pub fn new(prefix: &str) -> Names {
        let (mut ids, mut topics) = ([b'0'; CLIENT_ID_LEN], [b'0'; TOPIC_LEN]);
        ids[..prefix.len()].copy_from_slice(prefix.as_bytes());
        topics[..prefix.len()].copy_from_slice(prefix.as_bytes());
        topics[prefix.len()] = b'/';
        Names { prefix: prefix.to_owned(), ids, topics }
    }

    /// The id of client `number` in `role`, one letter.
    pub fn client_id(&self, role: u8, number: u64) -> Name<CLIENT_ID_LEN> {
        let mut begin = self.ids;
        begin[self.prefix.len()] = role;
        Name::numbered(&begin, number)
    }

    /// A topic.
    pub fn topic(&self, number: u64) -> Name<TOPIC_LEN> {
        Name::numbered(&self.topics, number)
    }

    /// Appends the filter that shares all topics.
    pub fn put_shared_filter(&self, out: &mut Vec<u8>) {
        wire::put_string(out, &format!("$share/{GROUP}/{}/#", self.prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_length_and_differ() {
        for prefix in ["b", "bench", "12345678"] {
            let names = Names::new(prefix);
            assert_eq!(names.topic(0).as_str(), format!("{prefix}/{:0>1$}", 0, 23 - prefix.len()));
            let number = u64::from(u32::MAX);
            let (id, topic) = (names.client_id(b's', number), names.topic(number));
            assert_eq!(id.as_str(), format!("{prefix}s{number:0>0$}", 19 - prefix.len()));
            assert_eq!(topic.as_str(), format!("{prefix}/{number:0>0$}", 23 - prefix.len()));
            assert_ne!(names.client_id(b's', 10), names.client_id(b'p', 10));
        }
    }
}
