//! Mountpoints: a listener's prefix of all topics of its clients (SEED-LSN-10).
//!
//! Inside the broker a topic has its prefix: routes, retained messages, queues and listings. It is put in front where a client
//! names a topic or filter and taken off where one is sent to it. Access rules see what the client sees.

use mqtt::{ParsedFilter, ReasonCode, topic};

use crate::effect::ConnectionId;
use crate::shard::Shard;

/// The prefix of one client: `%c` is its client id, `%u` its user name.
///
/// # Errors
/// A name is to be part of the prefix and is none that can be: empty, or with a `/` or a wildcard it would reach the topics of
/// others; and what begins with `$` would mean something else.
pub(crate) fn expand(
    template: &str,
    client_id: &str,
    username: Option<&str>,
    len_max: usize,
) -> Result<Box<str>, ReasonCode> {
    let fits = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#']);
    if template.contains("%c") && !fits(client_id) {
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    if template.contains("%u") && !username.is_some_and(fits) {
        return Err(ReasonCode::BadUserNameOrPassword);
    }
    let mut prefix = String::new();
    let mut rest = template;
    // One pass, so that a name that holds %u or %c stays as it is.
    while let Some(at) = rest.find('%') {
        let (before, behind) = rest.split_at(at);
        prefix.push_str(before);
        let (name, taken) = match behind.get(..2) {
            Some("%c") => (client_id, 2),
            Some("%u") => (username.unwrap_or_default(), 2),
            _ => ("%", 1),
        };
        prefix.push_str(name);
        rest = &behind[taken..];
    }
    prefix.push_str(rest);
    if prefix.starts_with('$') || prefix.len() >= len_max {
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    Ok(prefix.into())
}

/// A topic name behind a prefix, written to `out`; false if it is too long or too deep then.
pub(crate) fn mount(
    prefix: &str,
    name: &str,
    limits: &mqtt::DecodeLimits,
    out: &mut String,
) -> bool {
    out.clear();
    out.push_str(prefix);
    out.push_str(name);
    topic::validate_name(out, limits).is_ok()
}

/// What a client sees of a topic: it is without the prefix, if it has it. It has not where the session has a subscription from
/// another listener.
pub(crate) fn unmount<'a>(prefix: Option<&str>, topic: &'a str) -> &'a str {
    prefix.and_then(|prefix| topic.strip_prefix(prefix)).unwrap_or(topic)
}

impl Shard {
    /// A filter of a client rewritten and behind its prefix; `None` if neither changes it. What asks for a share stays in front.
    pub(crate) fn mounted_filter(&self, id: ConnectionId, text: &str) -> Option<String> {
        if self.rewrites.is_empty() {
            return self.prefixed_filter(id, text);
        }
        let parsed = ParsedFilter::parse(text, &self.limits).ok()?;
        let Some(rewritten) = self.rewrites.apply(parsed.filter) else {
            return self.prefixed_filter(id, text);
        };
        let share = &text[..text.len() - parsed.filter.len()];
        let whole = format!("{share}{rewritten}");
        self.prefixed_filter(id, &whole).or(Some(whole))
    }

    /// A filter behind the prefix of a connection, if it has one.
    pub(crate) fn prefixed_filter(&self, id: ConnectionId, text: &str) -> Option<String> {
        let extras = self.clients.connections.get(id)?.extras.as_ref()?;
        let prefix = extras.mountpoint()?;
        let parsed = ParsedFilter::parse(text, &self.limits).ok()?;
        let (share, filter) = text.split_at(text.len() - parsed.filter.len());
        Some(format!("{share}{prefix}{filter}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_prefix() {
        let expand = |template, id, user| expand(template, id, user, 100);
        let ok = |template, id, user| expand(template, id, user).map(String::from);
        assert_eq!(ok("a/", "c", None).unwrap(), "a/");
        assert_eq!(ok("%u/%c/100%/%", "c", Some("u")).unwrap(), "u/c/100%/%");
        assert_eq!(ok("%c%u", "%u", Some("%c")).unwrap(), "%u%c");
        for id in ["", "a/b", "+", "#", "$share", "$SYS"] {
            assert_eq!(ok("%c/", id, None), Err(ReasonCode::ClientIdentifierNotValid), "{id}");
        }
        for user in [None, Some(""), Some("a/b"), Some("#")] {
            assert_eq!(ok("x/%u/", "c", user), Err(ReasonCode::BadUserNameOrPassword), "{user:?}");
        }
        assert!(expand("%c/", &"x".repeat(99), None).is_err(), "no topic fits behind it");
    }

    #[test]
    fn topics_lose_the_prefix_they_have() {
        assert_eq!(unmount(Some("a/"), "a/b"), "b");
        assert_eq!(unmount(Some("a/"), "c/b"), "c/b");
        assert_eq!(unmount(None, "a/b"), "a/b");
    }
}
