//! User properties.

use std::fmt;

use super::block::Property;
use crate::primitives::{Reader, Sink};

/// The user properties of a packet, in order; a view that is parsed as it is walked.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked property block with this many user properties among others.
    Block {
        raw: &'a [u8],
        count: usize,
    },
    List(&'a [(&'a str, &'a str)]),
}

impl Default for Source<'_> {
    fn default() -> Self {
        Self::List(&[])
    }
}

impl<'a> UserProperties<'a> {
    /// The properties to send: names and values, each at most 65,535 bytes.
    pub const fn from_list(list: &'a [(&'a str, &'a str)]) -> Self {
        Self { source: Source::List(list) }
    }

    pub(super) const fn from_checked(raw: &'a [u8], count: usize) -> Self {
        if count == 0 {
            return Self { source: Source::List(&[]) };
        }
        Self { source: Source::Block { raw, count } }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        match self.source {
            Source::Block { count, .. } => count,
            Source::List(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names and values, in order. A name may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (raw, list): (&[u8], &[_]) = match self.source {
            Source::Block { raw, .. } => (raw, &[]),
            Source::List(list) => (&[], list),
        };
        let mut reader = Reader::new(raw);
        let block = std::iter::from_fn(move || {
            loop {
                if let Property::UserProperty(name, value) = Property::read(&mut reader).ok()? {
                    return Some((name, value));
                }
            }
        });
        block.chain(list.iter().copied())
    }

    pub(crate) fn write<S: Sink>(&self, out: &mut S) {
        for (name, value) in self.iter() {
            Property::UserProperty(name, value).write(out);
        }
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
