//! Topic names and topic filters (section 4.7, shared subscriptions: v5 section 4.8.2).
//!
//! A filter as a client sends it may carry a prefix (`$share/group/`, `$queue/`, `$local/`); [`ParsedFilter::parse`]
//! takes it off and checks the rest. [`matches()`] wants filters without prefix that have been checked.

use crate::limits::DecodeLimits;
use crate::primitives::MAX_STRING_LEN;

/// Why a topic name or filter is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, displaydoc::Display, thiserror::Error)]
pub enum TopicError {
    /// it is empty
    Empty,
    /// it is {len} bytes long; at most {max} are allowed here
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// it has {levels} levels; at most {max} are allowed here
    TooManyLevels {
        /// Its number of levels.
        levels: usize,
        /// The limit.
        max: usize,
    },
    /// it contains the character U+0000
    NullCharacter,
    /// it is a name to publish to and contains '+' or '#'
    WildcardInName,
    /// its '#' is not the whole of the last level
    HashMisplaced,
    /// its '+' is not the whole of a level
    PlusMisplaced,
    /// its share group is empty or contains '+' or '#'
    ShareGroup,
    /// there is no filter behind its prefix
    NoFilterAfterPrefix,
}

/// The prefix of shared subscriptions.
pub const SHARE_PREFIX: &str = "$share/";
/// The prefix of the one group everybody shares who uses it.
pub const QUEUE_PREFIX: &str = "$queue/";
/// The prefix of subscriptions that stay on this node.
pub const LOCAL_PREFIX: &str = "$local/";

/// What the prefix of a filter asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterKind<'a> {
    /// No prefix.
    Plain,
    /// `$local/filter`: a subscription other nodes do not learn of.
    Local,
    /// `$share/group/filter`: each message goes to one member of the group.
    Shared {
        /// Name of the group.
        group: &'a str,
    },
    /// `$queue/filter`: a shared subscription whose group has no name.
    Queue,
}

/// A filter taken apart and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParsedFilter<'a> {
    /// What its prefix asks for.
    pub kind: FilterKind<'a>,
    /// The filter without its prefix.
    pub filter: &'a str,
}

impl<'a> ParsedFilter<'a> {
    /// Takes `text` apart and checks it.
    ///
    /// # Errors
    /// What rule it breaks; the answer to the client is reason code 0x8F, or 0x80 before MQTT 5.0.
    pub fn parse(text: &'a str, limits: &DecodeLimits) -> Result<Self, TopicError> {
        check_len(text, limits)?;
        let (kind, filter) = split_prefix(text)?;
        check_filter(filter, limits)?;
        Ok(Self { kind, filter })
    }
}

fn split_prefix(text: &str) -> Result<(FilterKind<'_>, &str), TopicError> {
    let (kind, filter) = if !text.starts_with('$') {
        return Ok((FilterKind::Plain, text));
    } else if let Some(rest) = text.strip_prefix(SHARE_PREFIX) {
        // v5 MQTT-4.8.2-1, v5 MQTT-4.8.2-2.
        let (group, filter) = rest.split_once('/').ok_or(TopicError::NoFilterAfterPrefix)?;
        if group.is_empty() || has_wildcard(group) {
            return Err(TopicError::ShareGroup);
        }
        (FilterKind::Shared { group }, filter)
    } else if let Some(filter) = text.strip_prefix(QUEUE_PREFIX) {
        (FilterKind::Queue, filter)
    } else if let Some(filter) = text.strip_prefix(LOCAL_PREFIX) {
        (FilterKind::Local, filter)
    } else {
        return Ok((FilterKind::Plain, text));
    };
    if filter.is_empty() { Err(TopicError::NoFilterAfterPrefix) } else { Ok((kind, filter)) }
}

fn check_len(text: &str, limits: &DecodeLimits) -> Result<(), TopicError> {
    // MQTT-4.7.3-3: the format itself ends at 65,535.
    let max = limits.topic_len_max.min(MAX_STRING_LEN);
    match text.len() {
        // MQTT-4.7.3-1.
        0 => Err(TopicError::Empty),
        len if len > max => Err(TopicError::TooLong { len, max }),
        _ => Ok(()),
    }
}

const fn check_levels(levels: usize, limits: &DecodeLimits) -> Result<(), TopicError> {
    let max = limits.topic_levels_max;
    if levels > max { Err(TopicError::TooManyLevels { levels, max }) } else { Ok(()) }
}

/// Checks a name to publish to.
///
/// # Errors
/// What rule it breaks; the answer to the client is reason code 0x90, except for U+0000, which ends the connection.
#[inline]
pub fn validate_name(topic: &str, limits: &DecodeLimits) -> Result<(), TopicError> {
    check_len(topic, limits)?;
    let scan = scan_name(topic.as_bytes());
    if scan.is_bad {
        // MQTT-4.7.3-2; MQTT-4.7.1-1, v5 MQTT-4.7.0-1, MQTT-3.3.2-2.
        return Err(if topic.contains('\0') {
            TopicError::NullCharacter
        } else {
            TopicError::WildcardInName
        });
    }
    check_levels(scan.separators + 1, limits)
}

/// What one pass over a topic name finds.
#[derive(Default)]
struct NameScan {
    /// Number of '/'.
    separators: usize,
    /// Whether there is a U+0000, a '+' or a '#'.
    is_bad: bool,
}

/// Eight times the same byte.
const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of each byte of `word` that is zero, and no other bit.
const fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = repeat(0x7F);
    !(((word & LOW) + LOW) | word | LOW)
}

impl NameScan {
    #[inline]
    fn add(&mut self, word: u64) {
        // '#' and '+' differ in this one bit.
        const PLUS_XOR_HASH: u8 = b'+' ^ b'#';
        const { assert!(PLUS_XOR_HASH.is_power_of_two() && b'+' & PLUS_XOR_HASH != 0) };
        let wildcards = zero_bytes((word | repeat(PLUS_XOR_HASH)) ^ repeat(b'+'));
        self.is_bad |= (zero_bytes(word) | wildcards) != 0;
        // One per byte, summed up in the highest byte by the product: cheaper than a bit count without POPCNT.
        let ones = zero_bytes(word ^ repeat(b'/')) >> 7;
        let [.., sum] = ones.wrapping_mul(repeat(1)).to_le_bytes();
        self.separators += usize::from(sum);
    }
}

/// Looks at eight bytes at a time: names are mostly too short for the vectors the compiler would use.
#[inline]
fn scan_name(bytes: &[u8]) -> NameScan {
    let mut scan = NameScan::default();
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        scan.add(u64::from_le_bytes(*word));
    }
    match bytes.last_chunk::<8>() {
        // The last word once more, less what was seen, filled with a byte that means nothing.
        Some(last) if !rest.is_empty() => {
            let seen_bits = 8 * (8 - rest.len());
            let fill = repeat(b'x') << (8 * rest.len());
            scan.add(u64::from_le_bytes(*last) >> seen_bits | fill);
        }
        Some(_) => {}
        None => {
            for &byte in rest {
                scan.separators += usize::from(byte == b'/');
                scan.is_bad |= matches!(byte, 0 | b'+' | b'#');
            }
        }
    }
    scan
}

fn check_filter(filter: &str, limits: &DecodeLimits) -> Result<(), TopicError> {
    // MQTT-4.7.3-2.
    if filter.contains('\0') {
        return Err(TopicError::NullCharacter);
    }
    let mut count = 0;
    let mut is_ended = false;
    for level in levels(filter) {
        count += 1;
        // MQTT-4.7.1-2, v5 MQTT-4.7.1-1: '#' is the last character.
        if is_ended {
            return Err(TopicError::HashMisplaced);
        }
        match level {
            "#" => is_ended = true,
            "+" => {}
            // MQTT-4.7.1-2, v5 MQTT-4.7.1-1: alone in its level.
            _ if level.contains('#') => return Err(TopicError::HashMisplaced),
            // MQTT-4.7.1-3, v5 MQTT-4.7.1-2.
            _ if level.contains('+') => return Err(TopicError::PlusMisplaced),
            _ => {}
        }
    }
    check_levels(count, limits)
}

/// The levels of a name or filter, in order; an empty level is a level.
pub fn levels(text: &str) -> Levels<'_> {
    Levels { rest: Some(text) }
}

/// See [`levels`]. Levels are short: looking at them byte by byte is faster than a search made for long texts.
#[derive(Clone, Debug)]
pub struct Levels<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let Some(end) = rest.bytes().position(|byte| byte == b'/') else {
            self.rest = None;
            return Some(rest);
        };
        // Both sides of an ASCII byte are at the border of a character.
        self.rest = Some(&rest[end + 1..]);
        Some(&rest[..end])
    }
}

/// Whether a filter has a wildcard in it; one without is a topic name.
#[inline]
pub fn has_wildcard(filter: &str) -> bool {
    memchr::memchr2(b'+', b'#', filter.as_bytes()).is_some()
}

/// Whether a subscription to `filter` hears messages for `topic`. The filter has no prefix and has been checked, the
/// topic is a name.
pub fn matches(filter: &str, topic: &str) -> bool {
    matches_bytes(filter.as_bytes(), topic.as_bytes())
}

/// As [`matches`], for who has the bytes of the two texts.
#[inline]
pub fn matches_bytes(filter: &[u8], topic: &[u8]) -> bool {
    // MQTT-4.7.2-1: a wildcard in the first level does not match names that begin with '$'.
    if let (Some(b'+' | b'#'), Some(b'$')) = (filter.first(), topic.first()) {
        return false;
    }
    let (mut at, mut topic_at) = (0, 0);
    // MQTT-4.7.3-4: byte by byte, no normalization.
    while let Some(&byte) = filter.get(at) {
        match byte {
            b'#' => return true,
            b'+' => {
                let rest = &topic[topic_at..];
                topic_at += rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
                at += 1;
            }
            _ if topic.get(topic_at) == Some(&byte) => {
                at += 1;
                topic_at += 1;
            }
            // Section 4.7.1.2: "a/#" matches its parent "a" too.
            _ => return topic_at == topic.len() && &filter[at..] == b"/#",
        }
    }
    topic_at == topic.len()
}

#[cfg(test)]
mod tests;
