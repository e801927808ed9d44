//! Payloads: bytes that are always the same, or a template that is filled in for each message.

use super::topic::{Values, number};

/// What a variable stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Variable {
    /// Unix time in milliseconds, microseconds, nanoseconds: nanoseconds divided by this.
    Timestamp(u64),
    Unique,
    Random,
    Username,
    ClientId,
    ClientNumber,
    MessageNumber,
}

/// The variables by name.
const VARIABLES: [(&str, Variable); 6] = [
    ("%TIMESTAMP%", Variable::Timestamp(1_000_000)),
    ("%TIMESTAMPMS%", Variable::Timestamp(1_000_000)),
    ("%TIMESTAMPUS%", Variable::Timestamp(1_000)),
    ("%TIMESTAMPNS%", Variable::Timestamp(1)),
    ("%UNIQUE%", Variable::Unique),
    ("%RANDOM%", Variable::Random),
];

/// Those of topics, also known in a rendered field of a JSON payload.
const TOPIC_VARIABLES: [(&str, Variable); 4] = [
    ("%u", Variable::Username),
    ("%c", Variable::ClientId),
    ("%i", Variable::ClientNumber),
    ("%s", Variable::MessageNumber),
];

#[derive(Clone, Debug)]
enum Part {
    Text(Vec<u8>),
    Variable(Variable),
}

/// What a message carries behind its headers.
#[derive(Clone, Debug)]
pub enum Payload {
    /// The same bytes each time.
    Fixed(Vec<u8>),
    /// Filled in each time.
    Template(PayloadTemplate),
}

/// A text with variables, each at most once.
#[derive(Clone, Debug)]
pub struct PayloadTemplate {
    parts: Vec<Part>,
    /// Bytes of `%RANDOM%`.
    random_len: usize,
}

impl Payload {
    /// `len` times the letter a.
    pub fn of_size(len: usize) -> Payload {
        Payload::Fixed(vec![b'a'; len])
    }

    /// Appends the payload of one message.
    pub fn write(&self, out: &mut Vec<u8>, unix_ns: u64, values: &mut Values<'_>) {
        match self {
            Payload::Fixed(bytes) => out.extend_from_slice(bytes),
            Payload::Template(template) => template.write(out, unix_ns, values),
        }
    }

    /// Whether the number of the message is in it.
    pub fn counts_messages(&self) -> bool {
        let counts = |part: &Part| matches!(part, Part::Variable(Variable::MessageNumber));
        matches!(self, Payload::Template(template) if template.parts.iter().any(counts))
    }
}

impl PayloadTemplate {
    /// Takes a text apart. Of each variable only the first occurrence is one.
    pub fn parse(text: &[u8], random_len: usize) -> PayloadTemplate {
        PayloadTemplate { parts: split(text, &[&VARIABLES]), random_len }
    }

    /// The text of a JSON value: `timestamp` in it is a mark that stands for the time in units of so many nanoseconds,
    /// `rendered` one that stands for a text with variables.
    pub fn json(
        text: &str,
        timestamp: Option<(&str, u64)>,
        rendered: Option<(&str, &str)>,
    ) -> PayloadTemplate {
        let mut parts = vec![Part::Text(text.as_bytes().to_vec())];
        if let Some((mark, unit_ns)) = timestamp {
            put_in(&mut parts, mark, vec![Part::Variable(Variable::Timestamp(unit_ns))]);
        }
        if let Some((mark, text)) = rendered {
            put_in(&mut parts, mark, split(text.as_bytes(), &[&VARIABLES, &TOPIC_VARIABLES]));
        }
        PayloadTemplate { parts, random_len: 0 }
    }

    fn write(&self, out: &mut Vec<u8>, unix_ns: u64, values: &mut Values<'_>) {
        for part in &self.parts {
            let variable = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Part::Variable(variable) => variable,
            };
            match variable {
                Variable::Timestamp(unit_ns) => number(out, unix_ns / unit_ns),
                Variable::Unique => number(out, values.random.next() >> 1),
                Variable::Random => {
                    let end = out.len() + self.random_len;
                    while out.len() < end {
                        let bytes = values.random.next().to_le_bytes();
                        let len = bytes.len().min(end - out.len());
                        out.extend_from_slice(&bytes[..len]);
                    }
                }
                Variable::Username => out.extend_from_slice(values.username),
                Variable::ClientId => out.extend_from_slice(values.client_id),
                Variable::ClientNumber => number(out, values.client_number),
                Variable::MessageNumber => number(out, values.message_number),
            }
        }
    }
}

/// A text as parts; of each variable only the first occurrence is one.
fn split(text: &[u8], variables: &[&[(&str, Variable)]]) -> Vec<Part> {
    let mut found: Vec<(usize, &str, Variable)> = variables
        .iter()
        .copied()
        .flatten()
        .filter_map(|(name, variable)| Some((find(text, name.as_bytes())?, *name, *variable)))
        .collect();
    found.sort_by_key(|(at, ..)| *at);
    let mut parts = Vec::new();
    let mut done = 0;
    for (at, name, variable) in found {
        // Two names cannot overlap but in their % signs, as in %UNIQUE%RANDOM%: the first wins.
        if at < done {
            continue;
        }
        parts.push(Part::Text(text[done..at].to_vec()));
        parts.push(Part::Variable(variable));
        done = at + name.len();
    }
    parts.push(Part::Text(text[done..].to_vec()));
    parts
}

/// Replaces a mark in one of the texts by parts.
fn put_in(parts: &mut Vec<Part>, mark: &str, inner: Vec<Part>) {
    let place = parts.iter().enumerate().find_map(|(index, part)| match part {
        Part::Text(text) => find(text, mark.as_bytes()).map(|at| (index, at)),
        Part::Variable(_) => None,
    });
    let Some((index, at)) = place else { return };
    let Part::Text(text) = parts.remove(index) else { return };
    let rest = Part::Text(text[at + mark.len()..].to_vec());
    let begin = Part::Text(text[..at].to_vec());
    parts.splice(index..index, [begin].into_iter().chain(inner).chain([rest]));
}

fn find(text: &[u8], name: &[u8]) -> Option<usize> {
    text.windows(name.len()).position(|window| window == name)
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn write(payload: &Payload, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::new();
        let mut values = Values {
            username: b"ann",
            client_id: b"c-7",
            client_number: 7,
            message_number: 42,
            random,
        };
        payload.write(&mut out, 1_700_000_000_123_456_789, &mut values);
        out
    }

    fn render(text: &str, random_len: usize) -> Vec<u8> {
        let payload = Payload::Template(PayloadTemplate::parse(text.as_bytes(), random_len));
        write(&payload, &mut Random::new(1))
    }

    #[test]
    fn the_first_of_each_variable_is_filled_in() {
        let text = r#"{"a":%TIMESTAMP%,"b":%TIMESTAMPUS%,"c":%TIMESTAMP%,"d":%TIMESTAMPNS%,"e":%TIMESTAMPMS%}"#;
        let expected = concat!(
            r#"{"a":1700000000123,"b":1700000000123456,"c":%TIMESTAMP%,"#,
            r#""d":1700000000123456789,"e":1700000000123}"#
        );
        assert_eq!(String::from_utf8(render(text, 0)).expect("text"), expected);
        assert_eq!(render("no variables, 100% %i", 0), b"no variables, 100% %i");
    }

    #[test]
    fn random_has_the_size_asked_for_and_unique_differs() {
        for len in [0, 1, 8, 21] {
            assert_eq!(render("<%RANDOM%>", len).len(), len + 2);
        }
        let payload = Payload::Template(PayloadTemplate::parse(b"%UNIQUE%", 0));
        let mut random = Random::new(1);
        assert_ne!(write(&payload, &mut random), write(&payload, &mut random));
        assert!(render("%UNIQUE%RANDOM%", 3).ends_with(b"RANDOM%"));
    }

    #[test]
    fn json_has_the_time_and_a_rendered_field() {
        let text = r#"{"a":1,"t":@T@,"f":"@F@"}"#;
        let template = PayloadTemplate::json(
            text,
            Some(("@T@", 1_000_000_000)),
            Some(("@F@", "<%i|%c|%u|%s|%TIMESTAMP%>")),
        );
        let expected = r#"{"a":1,"t":1700000000,"f":"<7|c-7|ann|42|1700000000123>"}"#;
        let payload = Payload::Template(template);
        assert!(payload.counts_messages());
        let out = write(&payload, &mut Random::new(1));
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
