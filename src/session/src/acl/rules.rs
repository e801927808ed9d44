//! One compiled rule and how it is compared.

use std::net::IpAddr;

use super::{Access, AclClient, AclDecision};

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub decision: AclDecision,
    pub who: Who,
    pub publish: bool,
    pub subscribe: bool,
    pub topics: Topics,
    /// Line it starts on, from 1.
    pub line: usize,
}

/// The clients a rule is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Who {
    All,
    Client(Box<str>),
    User(Box<str>),
    Net(Net),
    And(Vec<Who>),
    Or(Vec<Who>),
}

/// The topics a rule is about.
#[derive(Clone, Debug)]
pub(super) enum Topics {
    /// Any text, `$SYS` too: `{allow, all}`.
    All,
    List(Vec<Topic>),
}

/// One entry of a list of topics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Topic {
    /// Text to be identical with: `{eq, _}`, and filters without wildcards and variables.
    Literal(Box<str>),
    /// `#` alone: any text that does not start with `$`.
    Everything,
    /// A filter level by level.
    Levels(Vec<Level>),
}

/// One level of a filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Level {
    Literal(Box<str>),
    Plus,
    /// Always the last.
    Hash,
    /// `%c` or `%u` with the text around it.
    Variable {
        before: Box<str>,
        variable: Variable,
        after: Box<str>,
    },
}

/// What a level takes from the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Variable {
    ClientId,
    Username,
}

/// An IP net: the masked bits of an address and the number of bits that count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Net {
    v6: bool,
    bits: u128,
    mask: u128,
}

impl Net {
    /// Reads `10.0.0.1`, `10.0.0.0/8`, `::1` or `fe80::/10`. Bits behind the prefix are ignored.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width: u32 = if address.is_ipv6() { 128 } else { 32 };
        let prefix = match prefix {
            None => width,
            Some(p) if !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) => p.parse().ok()?,
            Some(_) => return None,
        };
        if prefix > width {
            return None;
        }
        // Shifting by the whole width would overflow: prefix 0 has no bit that counts.
        let ones = u128::MAX >> (128 - width);
        let mask = ones & ones.checked_shl(width - prefix).unwrap_or(0);
        let (v6, bits) = bits(address);
        Some(Self { v6, bits: bits & mask, mask })
    }

    fn contains(self, address: IpAddr) -> bool {
        let (v6, bits) = bits(address);
        v6 == self.v6 && bits & self.mask == self.bits
    }
}

fn bits(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, v6.to_bits()),
    }
}

impl Rule {
    pub(super) fn covers(&self, access: Access) -> bool {
        match access {
            Access::Publish => self.publish,
            Access::Subscribe => self.subscribe,
        }
    }

    /// Whether the rule fits every client and topic, so that no later one is ever asked.
    pub(super) fn fits_everything(&self) -> bool {
        self.who == Who::All && matches!(self.topics, Topics::All)
    }

    /// `client.peer` must be canonical.
    pub(super) fn fits(&self, client: &AclClient<'_>, topic: &str) -> bool {
        self.who.fits(client)
            && match &self.topics {
                Topics::All => true,
                Topics::List(list) => list.iter().any(|one| one.fits(client, topic, self.decision)),
            }
    }
}

impl Who {
    fn fits(&self, client: &AclClient<'_>) -> bool {
        match self {
            Who::All => true,
            Who::Client(id) => **id == *client.client_id,
            Who::User(name) => client.username == Some(&**name),
            Who::Net(net) => net.contains(client.peer),
            Who::And(all) => all.iter().all(|who| who.fits(client)),
            Who::Or(any) => any.iter().any(|who| who.fits(client)),
        }
    }
}

impl Topic {
    /// Compiles a filter; the error says what is wrong with it.
    pub(super) fn compile(filter: &str) -> Result<Self, &'static str> {
        if filter.is_empty() {
            return Err("it is empty");
        }
        let mut levels = Vec::new();
        let mut words = filter.split('/').peekable();
        while let Some(word) = words.next() {
            let is_last = words.peek().is_none();
            levels.push(match word {
                "#" if is_last => Level::Hash,
                "#" => return Err("# must be the last level"),
                "+" => Level::Plus,
                _ if word.contains(['+', '#']) => return Err("+ and # must be whole levels"),
                _ => Level::compile(word)?,
            });
        }
        let is_literal = levels.iter().all(|level| matches!(level, Level::Literal(_)));
        Ok(match levels.as_slice() {
            [Level::Hash] => Topic::Everything,
            _ if is_literal => Topic::Literal(filter.into()),
            _ => Topic::Levels(levels),
        })
    }

    fn fits(&self, client: &AclClient<'_>, topic: &str, decision: AclDecision) -> bool {
        match self {
            Topic::Literal(text) => **text == *topic,
            Topic::Everything => !topic.starts_with('$'),
            Topic::Levels(levels) => levels_fit(levels, client, topic, decision),
        }
    }
}

impl Level {
    fn compile(word: &str) -> Result<Self, &'static str> {
        let places = || word.match_indices("%c").chain(word.match_indices("%u"));
        let Some((at, name)) = places().next() else {
            return Ok(Level::Literal(word.into()));
        };
        if places().count() > 1 {
            return Err("a level may hold one of %c and %u, once");
        }
        let variable = if name == "%c" { Variable::ClientId } else { Variable::Username };
        Ok(Level::Variable { before: word[..at].into(), variable, after: word[at + 2..].into() })
    }
}

fn levels_fit(
    levels: &[Level],
    client: &AclClient<'_>,
    topic: &str,
    decision: AclDecision,
) -> bool {
    // MQTT-4.7.2-1
    if topic.starts_with('$') && matches!(levels.first(), Some(Level::Plus | Level::Hash)) {
        return false;
    }
    let mut words = topic.split('/');
    for level in levels {
        // Before the next word: `a/#` fits `a` too.
        if matches!(level, Level::Hash) {
            return true;
        }
        let Some(word) = words.next() else { return false };
        let fits = match level {
            Level::Literal(text) => **text == *word,
            // A topic holds no `#`; in a subscription it asks for more than `+` allows.
            Level::Plus => decision == AclDecision::Deny || word != "#",
            Level::Hash => true,
            Level::Variable { before, variable, after } => {
                let name = match variable {
                    Variable::ClientId => Some(client.client_id),
                    Variable::Username => client.username,
                };
                let middle =
                    word.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                name.is_some_and(|name| is_harmless(name) && middle == Some(name))
            }
        };
        if !fits {
            return false;
        }
    }
    words.next().is_none()
}

/// Whether a name chosen by a client may stand in a filter; see the module's documentation.
fn is_harmless(name: &str) -> bool {
    !name.is_empty() && !name.bytes().any(|b| matches!(b, b'+' | b'#' | b'/'))
}
