//! Subscriptions that are made for a client when it connects (SEED-PUB-17).
//!
//! The operator makes them, so no access rule is asked and no rewriting rule; the client's mountpoint, the highest `QoS` and the limit
//! on subscriptions hold. There is no SUBACK. A client that comes back keeps the subscription its session has, also if it
//! was changed meanwhile, and gets no retained message for it again.

use mqtt::{ParsedFilter, QoS, RetainHandling, SubscribeOptions};
use router::SessionId;

use crate::effect::ConnectionId;
use crate::shard::Shard;
use crate::subscribe::{Waiter, granted, is_shared};

impl Shard {
    /// Subscribes a client that has just connected.
    pub(crate) fn auto_subscribe(&mut self, id: ConnectionId, session: SessionId, resumed: bool) {
        let settings = self.settings.clone();
        if !settings.auto_subscription.enable {
            return;
        }
        let mut replays = Vec::new();
        for one in settings.auto_subscription.subscriptions.iter() {
            let Some(filter) = self.auto_filter(id, session, &one.topic) else { continue };
            let Ok(parsed) = ParsedFilter::parse(&filter, &self.limits) else {
                log::debug!(
                    "module.subscription: {filter} is no filter; a client is not subscribed"
                );
                continue;
            };
            let Some(owner) = self.clients.sessions.session(session.0) else { return };
            let known =
                self.router.find(&parsed).is_some_and(|f| owner.subscriptions.get(f).is_some());
            let connection = self.clients.connections.get(id).expect("it has just connected");
            let profile = self.profiles.of(connection.listener);
            let full = owner.subscriptions.len() >= profile.session.max_subscriptions as usize;
            if known && resumed || !known && full {
                continue;
            }
            let asked = QoS::from_bits(one.qos).unwrap_or(QoS::AtMostOnce);
            let options = SubscribeOptions {
                qos: granted(asked, profile.mqtt.max_qos_allowed),
                no_local: one.no_local && !is_shared(&parsed), // v5 MQTT-3.8.3-4
                retain_as_published: one.retain_as_published,
                retain_handling: match one.retain_handling {
                    0 => RetainHandling::SendAtSubscribe,
                    1 => RetainHandling::SendIfNew,
                    _ => RetainHandling::DoNotSend,
                },
            };
            replays.extend(self.add_subscription(session, &parsed, options, None).retained);
        }
        self.gauge_routes();
        if !replays.is_empty() {
            self.wait_for_routes(None, Waiter::Retained { connection: id, session, replays });
        }
    }

    /// The filter of a client; none if a name that is part of it would change what it means.
    fn auto_filter(&self, id: ConnectionId, session: SessionId, template: &str) -> Option<String> {
        let connection = self.clients.connections.get(id)?;
        let client_id = &self.clients.sessions.session(session.0)?.client_id;
        let filter = expand(template, client_id, connection.username())?;
        Some(self.prefixed_filter(id, &filter).unwrap_or(filter))
    }
}

/// A template with the client's names; none if one is missing, has a wildcard, or would begin it with `$`.
fn expand(template: &str, client_id: &str, username: Option<&str>) -> Option<String> {
    let mut filter = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        let (before, behind) = rest.split_at(at);
        filter.push_str(before);
        let (name, taken) = match behind.get(..2) {
            Some("%c") => (client_id, 2),
            Some("%u") => (username?, 2),
            _ => ("%", 1),
        };
        if name.is_empty() || name.contains(['+', '#', '/']) {
            return None;
        }
        if filter.is_empty() && name.starts_with('$') {
            return None;
        }
        filter.push_str(name);
        rest = &behind[taken..];
    }
    filter.push_str(rest);
    Some(filter)
}

#[cfg(test)]
mod tests {
    use super::expand;
    use crate::desk::{Desk, connect, publish};

    #[test]
    fn names_stand_in_the_filter_unless_they_change_it() {
        let ok = |template, id, user| expand(template, id, user);
        assert_eq!(ok("$client/%c", "c-1", None).as_deref(), Some("$client/c-1"));
        assert_eq!(ok("%u/%c/100%/%", "%u", Some("%c")).as_deref(), Some("%c/%u/100%/%"));
        assert_eq!(ok("user/%u", "c", None), None);
        assert_eq!(ok("user/%u", "c", Some("")), None);
        for name in ["+", "a/#", "a/b", "$share/g/secret", "$SYS"] {
            assert_eq!(ok("%c/#", name, None), None, "{name}");
        }
        assert_eq!(ok("in/%c", "$SYS", None).as_deref(), Some("in/$SYS"));
    }

    /// SEED-PUB-17
    #[test]
    fn a_client_is_subscribed_without_asking() {
        let mut desk = Desk::new(&[
            ("module.subscription", "on"),
            ("module.subscription.1.topic", "$client/%c"),
            ("module.subscription.2.topic", "user/%u"),
        ]);
        let client = desk.accept(0, "10.0.0.1:5");
        let sent = desk.tick(1, Some((client, &connect("c", 0))));
        assert_eq!(sent, [(client, vec![0x20, 2, 0, 0])], "a CONNACK and no SUBACK");
        let sent = desk.tick(1, Some((client, &publish("$client/c", "1"))));
        assert_eq!(sent, [(client, publish("$client/c", "1"))]);
        assert_eq!(desk.tick(1, Some((client, &publish("user/%u", "2")))), []);
        let off = [("module.subscription.1.topic", "$client/%c")];
        let mut desk = Desk::new(&off);
        let client = desk.accept(0, "10.0.0.1:5");
        desk.tick(1, Some((client, &connect("c", 0))));
        assert_eq!(desk.tick(1, Some((client, &publish("$client/c", "1")))), []);
    }
}
