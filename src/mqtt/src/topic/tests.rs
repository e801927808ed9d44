use super::*;

const LIMITS: DecodeLimits = DecodeLimits::UNLIMITED;

fn parse(text: &str) -> Result<ParsedFilter<'_>, TopicError> {
    ParsedFilter::parse(text, &LIMITS)
}

#[test]
fn names() {
    for name in ["a", "/", "//", "a/b", "/a", "a/", "$SYS/x", "á/ß", "a b"] {
        assert_eq!(validate_name(name, &LIMITS), Ok(()), "{name}");
    }
    assert_eq!(validate_name("", &LIMITS), Err(TopicError::Empty));
    for name in ["#", "+", "a/+", "a#", "+a"] {
        assert_eq!(validate_name(name, &LIMITS), Err(TopicError::WildcardInName), "{name}");
    }
    assert_eq!(validate_name("a\0+", &LIMITS), Err(TopicError::NullCharacter));
    let long = "x".repeat(65_536);
    let too_long = TopicError::TooLong { len: 65_536, max: 65_535 };
    assert_eq!(validate_name(&long, &LIMITS), Err(too_long));
    assert_eq!(validate_name(&long[1..], &LIMITS), Ok(()));
    let limits = DecodeLimits { topic_levels_max: 2, ..LIMITS };
    assert_eq!(validate_name("a/b", &limits), Ok(()));
    let too_many = TopicError::TooManyLevels { levels: 3, max: 2 };
    assert_eq!(validate_name("//", &limits), Err(too_many));
}

/// Every byte at every place of names around the width of a word.
#[test]
fn scan_of_names() {
    for len in 0..34 {
        for at in 0..len {
            for byte in 0..=u8::MAX {
                let mut bytes = vec![b'/'; len];
                bytes[at] = byte;
                let scan = scan_name(&bytes);
                let separators = bytes.iter().filter(|byte| **byte == b'/').count();
                assert_eq!(scan.separators, separators, "{byte} at {at} of {len}");
                assert_eq!(scan.is_bad, [0, b'+', b'#'].contains(&byte), "{byte} at {at} of {len}");
            }
        }
    }
}

#[test]
fn plain_filters() {
    for filter in ["a", "#", "+", "/", "+/+", "a/+/b/#", "/#", "$SYS/#", "$share", "$shared/a"] {
        assert_eq!(parse(filter), Ok(ParsedFilter { kind: FilterKind::Plain, filter }));
    }
    for (filter, error) in [
        ("", TopicError::Empty),
        ("a#", TopicError::HashMisplaced),
        ("#/a", TopicError::HashMisplaced),
        ("#/", TopicError::HashMisplaced),
        ("a/#/b", TopicError::HashMisplaced),
        ("##", TopicError::HashMisplaced),
        ("+#", TopicError::HashMisplaced),
        ("a+", TopicError::PlusMisplaced),
        ("+a/b", TopicError::PlusMisplaced),
        ("++", TopicError::PlusMisplaced),
        ("a\0b", TopicError::NullCharacter),
    ] {
        assert_eq!(parse(filter), Err(error), "{filter}");
    }
}

#[test]
fn prefixes() {
    let parsed = |kind, filter| Ok(ParsedFilter { kind, filter });
    assert_eq!(parse("$share/g/a/+"), parsed(FilterKind::Shared { group: "g" }, "a/+"));
    assert_eq!(parse("$share/g//"), parsed(FilterKind::Shared { group: "g" }, "/"));
    assert_eq!(parse("$queue/a/#"), parsed(FilterKind::Queue, "a/#"));
    assert_eq!(parse("$local/a"), parsed(FilterKind::Local, "a"));
    for (filter, error) in [
        ("$share/", TopicError::NoFilterAfterPrefix),
        ("$share/g", TopicError::NoFilterAfterPrefix),
        ("$share/g/", TopicError::NoFilterAfterPrefix),
        ("$share//a", TopicError::ShareGroup),
        ("$share/+/a", TopicError::ShareGroup),
        ("$share/g#/a", TopicError::ShareGroup),
        ("$queue/", TopicError::NoFilterAfterPrefix),
        ("$local/", TopicError::NoFilterAfterPrefix),
        ("$share/g/a#", TopicError::HashMisplaced),
        ("$queue/a+", TopicError::PlusMisplaced),
    ] {
        assert_eq!(parse(filter), Err(error), "{filter}");
    }
}

/// Levels are counted without the prefix, bytes with it.
#[test]
fn limits_of_filters() {
    let limits = DecodeLimits { topic_levels_max: 2, topic_len_max: 14, ..LIMITS };
    assert!(ParsedFilter::parse("$share/g/a/b", &limits).is_ok());
    let too_many = TopicError::TooManyLevels { levels: 3, max: 2 };
    assert_eq!(ParsedFilter::parse("$share/g/a/b/#", &limits), Err(too_many));
    let too_long = TopicError::TooLong { len: 15, max: 14 };
    assert_eq!(ParsedFilter::parse("$share/g/abcdef", &limits), Err(too_long));
}

#[test]
fn matching() {
    for (filter, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/tennis/player1/#", "sport/tennis/player10", false),
        ("sport/#", "sport", true),
        ("#", "a/b", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("$SYS/#", "$SYS/x", true),
        ("$SYS/+", "$SYS/x", true),
        ("+/+/#", "a/b", true),
        ("+/#", "a", true),
        ("a/b", "a/b", true),
        ("a/b", "A/b", false),
        ("a/b", "a/b/c", false),
        ("a/b/c", "a/b", false),
        ("a/", "a", false),
        ("ä/+", "ä/ö", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
    }
}
