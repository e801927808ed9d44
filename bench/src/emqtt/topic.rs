//! Topics with variables: whole levels that stand for something else.

use std::convert::Infallible;
use std::io::Write;

use super::random::Random;

/// One level of a topic, or text of several.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(Vec<u8>),
    Username,
    ClientId,
    ClientNumber,
    MessageNumber,
    Random(u32),
}

/// A topic or topic filter as it is written on the command line.
#[derive(Clone, Debug)]
pub struct TopicTemplate {
    parts: Vec<Part>,
}

/// What the variables stand for in one message.
#[derive(Debug)]
pub struct Values<'a> {
    /// `%u`
    pub username: &'a [u8],
    /// `%c`
    pub client_id: &'a [u8],
    /// `%i`
    pub client_number: u64,
    /// `%s`
    pub message_number: u64,
    /// `%rand_N`
    pub random: &'a mut Random,
}

/// The topic has a variable that is none.
#[derive(Debug, Eq, PartialEq)]
pub struct BadVariable(pub String);

impl TopicTemplate {
    /// Takes a topic filter apart; it has no variables of messages.
    pub fn parse_filter(text: &str) -> TopicTemplate {
        let parse = |level: &str| match level {
            "%u" => Some(Part::Username),
            "%c" => Some(Part::ClientId),
            "%i" => Some(Part::ClientNumber),
            _ => None,
        };
        let parts = TopicTemplate::split(text, |level| Ok::<_, Infallible>(parse(level)));
        match parts {
            Ok(template) => template,
            Err(never) => match never {},
        }
    }

    /// Takes a topic apart.
    pub fn parse(text: &str) -> Result<TopicTemplate, BadVariable> {
        TopicTemplate::split(text, |level| {
            Ok(Some(match level {
                "%u" => Part::Username,
                "%c" => Part::ClientId,
                "%i" => Part::ClientNumber,
                "%s" => Part::MessageNumber,
                _ => match rand_most(level) {
                    Some(Some(most)) => Part::Random(most),
                    Some(None) => return Err(BadVariable(level.to_owned())),
                    None => return Ok(None),
                },
            }))
        })
    }

    /// Takes a text apart; `variable` says which levels are variables.
    fn split<E>(
        text: &str,
        variable: impl Fn(&str) -> Result<Option<Part>, E>,
    ) -> Result<TopicTemplate, E> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        for (index, level) in text.split('/').enumerate() {
            if index > 0 {
                literal.push(b'/');
            }
            let Some(part) = variable(level)? else {
                literal.extend_from_slice(level.as_bytes());
                continue;
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(TopicTemplate { parts })
    }

    /// Whether each message has a topic of its own.
    pub fn counts_messages(&self) -> bool {
        self.parts.contains(&Part::MessageNumber)
    }

    /// Whether client ids or user names are in it.
    pub fn names_clients(&self) -> bool {
        self.parts.contains(&Part::Username) || self.parts.contains(&Part::ClientId)
    }

    /// Appends the topic.
    pub fn write(&self, out: &mut Vec<u8>, values: &mut Values<'_>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Username => out.extend_from_slice(values.username),
                Part::ClientId => out.extend_from_slice(values.client_id),
                Part::ClientNumber => number(out, values.client_number),
                Part::MessageNumber => number(out, values.message_number),
                Part::Random(most) => number(out, values.random.up_to(u64::from(*most))),
            }
        }
    }
}

/// N of `%rand_N`; the inner `None`: it is no number.
pub fn rand_most(text: &str) -> Option<Option<u32>> {
    let digits = text.strip_prefix("%rand_")?;
    Some(digits.parse().ok().filter(|most| *most > 0))
}

/// Appends a number in decimal.
pub fn number(out: &mut Vec<u8>, value: u64) {
    write!(out, "{value}").expect("a Vec takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> String {
        let mut out = Vec::new();
        let mut values = Values {
            username: b"ann",
            client_id: b"c-7",
            client_number: 7,
            message_number: 42,
            random: &mut Random::new(1),
        };
        TopicTemplate::parse(template).expect("valid").write(&mut out, &mut values);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn whole_levels_are_variables() {
        assert_eq!(render("bench/%i"), "bench/7");
        assert_eq!(render("%u/%c/%i/%s"), "ann/c-7/7/42");
        assert_eq!(render("/%i/"), "/7/");
        assert_eq!(render("%i"), "7");
        assert_eq!(render("plain"), "plain");
        assert_eq!(render("%rand_1/x"), "1/x");
    }

    #[test]
    fn parts_of_levels_are_not() {
        assert_eq!(render("a%i/%ix/%I/%"), "a%i/%ix/%I/%");
        assert_eq!(render("a/+/%i/#"), "a/+/7/#");
        assert_eq!(render("x%rand_5"), "x%rand_5");
    }

    #[test]
    fn filters_have_no_variables_of_messages() {
        let mut out = Vec::new();
        let mut values = Values {
            username: b"ann",
            client_id: b"c-7",
            client_number: 7,
            message_number: 42,
            random: &mut Random::new(1),
        };
        TopicTemplate::parse_filter("%u/%c/%i/%s/%rand_x/#").write(&mut out, &mut values);
        assert_eq!(out, b"ann/c-7/7/%s/%rand_x/#");
    }

    #[test]
    fn random_levels_are_between_1_and_n() {
        let seen: std::collections::BTreeSet<String> = (0..1)
            .flat_map(|_| {
                let template = TopicTemplate::parse("%rand_3").expect("valid");
                let mut random = Random::new(9);
                (0..200)
                    .map(move |_| {
                        let mut out = Vec::new();
                        let mut values = Values {
                            username: b"",
                            client_id: b"",
                            client_number: 0,
                            message_number: 0,
                            random: &mut random,
                        };
                        template.write(&mut out, &mut values);
                        String::from_utf8(out).expect("text")
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(
            TopicTemplate::parse("a/%rand_x").unwrap_err(),
            BadVariable("%rand_x".to_owned())
        );
        assert!(TopicTemplate::parse("%rand_0").is_err());
    }
}
