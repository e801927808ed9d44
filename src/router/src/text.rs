//! The text of an interned filter: inside its record if it is short, so that finding a filter and
//! checking its text is one access to memory.

/// The longest text kept inside: what fills a filter's record to one cache line.
const INLINE_MAX: usize = 38;

/// An immutable text.
pub(crate) enum Text {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Heap(Box<str>),
}

const _: () = assert!(size_of::<Text>() == 40);

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        match u8::try_from(text.len()) {
            Ok(len) if text.len() <= INLINE_MAX => {
                let mut bytes = [0; INLINE_MAX];
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Self::Inline { len, bytes }
            }
            _ => Self::Heap(text.into()),
        }
    }

    /// Its bytes: enough to compare, and cheaper than [`Text::as_str`].
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(text) => text.as_bytes(),
        }
    }

    /// The text itself.
    #[inline]
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Inline { .. } => {
                std::str::from_utf8(self.as_bytes()).expect("it was made of a text")
            }
            Self::Heap(text) => text,
        }
    }
}

impl PartialEq<str> for Text {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_come_back() {
        for len in [0, 1, INLINE_MAX - 2, INLINE_MAX, INLINE_MAX + 2, 300, 65_534] {
            let text = "é".repeat(len / 2);
            assert!(Text::new(&text) == *text && Text::new(&text).as_str() == text);
            assert!(Text::new(&text) != *"other");
        }
    }
}
