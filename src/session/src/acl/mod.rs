//! Access rules: who may publish and subscribe where (SEED-ACL-01 to 03).
//!
//! The rules are Erlang terms as in EMQ's `acl.conf`: `{allow | deny, Who, Access, Topics}.` and `{allow | deny, all}.`
//! The first rule that fits decides; if none does, the setting `mqtt.acl_nomatch` decides.
//!
//! | part | forms |
//! | --- | --- |
//! | Who | `all`, `"client id"`, `{client, "id"}`, `{user, "name"}`, `{client, all}`, `{user, all}`, `{ipaddr, "CIDR"}`, `{'and', [Who, ...]}`, `{'or', [Who, ...]}` |
//! | Access | `publish`, `subscribe`, `pubsub` |
//! | Topics | one or a list of `"filter"` and `{eq, "text"}` |
//!
//! A filter may hold `%c` (client id) and `%u` (user name), one in a level.
//!
//! # How a subscription is compared
//!
//! As in EMQ the rule's filter is matched against the *text* of the subscription's filter, whose wildcards count as
//! plain levels: `{deny, all, subscribe, ["a/b"]}` does not stop a subscription to `a/+`. A prefix `$share/<group>/`,
//! `$queue/` or `$local/` is taken off first. `{eq, "#"}` fits the identical text only. As MQTT-4.7.2-1 says for
//! topics, a filter that starts with a wildcard does not fit a text that starts with `$`.
//!
//! In one point this is stricter than EMQ: `+` in an *allow* rule does not fit the level `#` of a subscription, because
//! `a/#` asks for more than `a/+` gives. In a *deny* rule it does.
//!
//! # Names chosen by clients
//!
//! A client id or user name that is empty or holds `+`, `#` or `/` fits no filter with `%c` or `%u`. Otherwise a client that
//! calls itself `#` could subscribe to `room/#` by a rule for `room/%c`. So do not deny by filters with variables:
//! allow with them, and deny the rest.
mod parse;
mod rules;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use parse::AclError;
use rules::Rule;

/// The rules of a broker without an ACL file (SEED-ACL-02).
///
/// EMQ names 127.0.0.1 alone. Here all of 127.0.0.0/8 and `::1` are local too: nothing else can send from them, and load
/// tools use many addresses of that net.
pub const DEFAULT_ACL_CONF: &str = r##"%% Access rules. The first one that fits decides.

%% The user dashboard may see the state of the broker.
{allow, {user, "dashboard"}, subscribe, ["$SYS/#"]}.

%% Clients on this machine may do everything.
{allow, {'or', [{ipaddr, "127.0.0.0/8"}, {ipaddr, "::1"}]}, pubsub, ["$SYS/#", "#"]}.

%% Nobody else may see the state of the broker, or everything at once.
{deny, all, subscribe, ["$SYS/#", {eq, "#"}]}.

%% The rest is allowed.
{allow, all}.
"##;

/// What a client wants to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Publish to a topic; a will counts as a publish.
    Publish,
    /// Subscribe to a filter.
    Subscribe,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AclDecision {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

impl From<config::AclNomatch> for AclDecision {
    fn from(nomatch: config::AclNomatch) -> Self {
        match nomatch {
            config::AclNomatch::Allow => AclDecision::Allow,
            config::AclNomatch::Deny => AclDecision::Deny,
        }
    }
}

/// What the rules know of a client.
#[derive(Clone, Copy, Debug)]
pub struct AclClient<'a> {
    /// Its client identifier.
    pub client_id: &'a str,
    /// Its user name, if it gave one.
    pub username: Option<&'a str>,
    /// The address it comes from. An IPv4 address inside an IPv6 one counts as IPv4.
    pub peer: IpAddr,
}

/// Compiled rules. A check allocates nothing.
#[derive(Clone, Debug)]
pub struct Acl {
    rules: Vec<Rule>,
    /// Indices of the rules that can decide a publish, in order, up to the first that fits everything.
    publish: Vec<usize>,
    /// The same for a subscribe.
    subscribe: Vec<usize>,
    nomatch: AclDecision,
}

impl Acl {
    /// Compiles the text of an ACL file.
    ///
    /// # Errors
    /// [`AclError`] with line and column of the first thing that is wrong.
    pub fn parse(text: &str, nomatch: impl Into<AclDecision>) -> Result<Self, AclError> {
        let rules = parse::parse(text)?;
        let deciding = |access: Access| {
            let mut indices = Vec::new();
            for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.covers(access)) {
                indices.push(index);
                if rule.fits_everything() {
                    break;
                }
            }
            indices
        };
        let (publish, subscribe) = (deciding(Access::Publish), deciding(Access::Subscribe));
        Ok(Self { publish, subscribe, rules, nomatch: nomatch.into() })
    }

    /// The rules of [`DEFAULT_ACL_CONF`].
    #[must_use]
    pub fn builtin(nomatch: impl Into<AclDecision>) -> Self {
        Self::parse(DEFAULT_ACL_CONF, nomatch)
            .expect("the rules that ship with the broker are correct")
    }

    /// Changes what happens when no rule fits.
    pub fn set_nomatch(&mut self, nomatch: impl Into<AclDecision>) {
        self.nomatch = nomatch.into();
    }

    /// Number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule, so that every check gives the decision for no match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether `client` may do `access` on `topic`: a topic name, or the filter of a subscription.
    #[must_use]
    pub fn check(&self, client: &AclClient<'_>, access: Access, topic: &str) -> AclDecision {
        self.deciding_rule(client, access, topic).map_or(self.nomatch, |(decision, _)| decision)
    }

    /// The decision and the line of the rule that makes it; `None` if no rule fits.
    #[must_use]
    pub fn deciding_rule(
        &self,
        client: &AclClient<'_>,
        access: Access,
        topic: &str,
    ) -> Option<(AclDecision, usize)> {
        let client = AclClient { peer: client.peer.to_canonical(), ..*client };
        let (indices, topic) = match access {
            Access::Publish => (&self.publish, topic),
            Access::Subscribe => (&self.subscribe, without_prefix(topic)),
        };
        let rule =
            indices.iter().map(|&i| &self.rules[i]).find(|rule| rule.fits(&client, topic))?;
        Some((rule.decision, rule.line))
    }
}

/// Takes `$share/<group>/`, `$queue/` or `$local/` off a filter.
fn without_prefix(filter: &str) -> &str {
    if !filter.starts_with('$') {
        return filter;
    }
    if let Some(rest) = filter.strip_prefix("$share/") {
        return rest.split_once('/').map_or(filter, |(_, rest)| rest);
    }
    filter.strip_prefix("$queue/").or_else(|| filter.strip_prefix("$local/")).unwrap_or(filter)
}
