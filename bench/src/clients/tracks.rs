//! What was heard of each publisher: by the sequence numbers, what is lost, late or there twice.

use std::collections::HashSet;

/// Gaps in the sequence numbers that are remembered to tell a late message from a duplicate.
const MISSING_MAX: usize = 1_000_000;

/// What one message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// New; together with what it skipped it settles so many: they are on their way no longer.
    New(u64),
    /// One that was skipped before.
    Late,
    /// One that was there before.
    Twice,
}

/// The next expected sequence number in each of many places: one for each pair of a subscriber and a publisher it hears.
#[derive(Debug, Default)]
pub struct Tracks {
    next: Vec<u32>,
    missing: HashSet<(usize, u32)>,
}

impl Tracks {
    /// So many places where nothing was heard.
    pub fn new(places: usize) -> Tracks {
        Tracks { next: vec![0; places], missing: HashSet::new() }
    }

    /// Notes a message; `None`: there is no such place.
    #[inline]
    pub fn hear(&mut self, place: usize, sequence: u32) -> Option<Heard> {
        let next = self.next.get_mut(place)?;
        let ahead = sequence.wrapping_sub(*next);
        if ahead == 0 {
            *next = next.wrapping_add(1);
            return Some(Heard::New(1));
        }
        if ahead < u32::MAX / 2 {
            let first = *next;
            *next = sequence.wrapping_add(1);
            for gap in 0..ahead {
                if self.missing.len() >= MISSING_MAX {
                    break;
                }
                self.missing.insert((place, first.wrapping_add(gap)));
            }
            return Some(Heard::New(1 + u64::from(ahead)));
        }
        Some(if self.missing.remove(&(place, sequence)) { Heard::Late } else { Heard::Twice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_and_double_messages_are_told_apart() {
        let mut tracks = Tracks::new(2);
        let heard: Vec<_> = [0, 3, 1, 1, 0, 2, 4].map(|n| tracks.hear(1, n).expect("there")).into();
        use Heard::{Late, New, Twice};
        assert_eq!(heard, [New(1), New(3), Late, Twice, Twice, Late, New(1)]);
        assert_eq!(tracks.hear(0, 0), Some(New(1)), "places do not mix");
        assert_eq!(tracks.hear(2, 0), None);
    }

    #[test]
    fn sequence_numbers_go_round() {
        let mut tracks = Tracks { next: vec![u32::MAX], missing: HashSet::new() };
        assert_eq!(tracks.hear(0, u32::MAX), Some(Heard::New(1)));
        assert_eq!(tracks.hear(0, 0), Some(Heard::New(1)));
        assert_eq!(tracks.hear(0, u32::MAX), Some(Heard::Twice));
    }
}
