//! Who may not connect: bans by client id, user name and address, and clients that come and go without end (SEED-AUTH-19).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use config::FlappingSettings;

use crate::effect::Now;

/// Clients of a shard whose disconnects are counted at a time. While it is full of clients that count, others are not watched.
const WATCHED_MAX: usize = 16 * 1024;

/// Clients of a shard that are banned for flapping at a time; further ones are not.
const FLAPPING_BANS_MAX: usize = 16 * 1024;

/// Bans for flapping are logged at most this often; all are listed.
const LOG_INTERVAL_MS: u64 = 60_000;

/// Who made the bans for flapping.
const FLAPPING_BY: &str = "flapping detector";

/// Who is banned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BannedWho {
    /// Clients with this id.
    ClientId(String),
    /// Clients with this user name.
    Username(String),
    /// Clients from this address.
    PeerHost(IpAddr),
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub who: BannedWho,
    /// Why, for people.
    pub reason: String,
    /// Who banned.
    pub by: String,
    /// Since when, in seconds since the Unix epoch.
    pub at_unix_s: u64,
    /// Until when; `None`: for ever.
    pub until_unix_s: Option<u64>,
}

/// Bans in the form they are looked up in. Never changed; a change makes a new one.
#[derive(Debug, Default)]
pub struct BannedList {
    client_ids: HashMap<String, Option<u64>>,
    usernames: HashMap<String, Option<u64>>,
    hosts: HashMap<IpAddr, Option<u64>>,
}

/// Whether there is a ban that has not ended.
fn holds<K, Q>(bans: &HashMap<K, Option<u64>>, key: &Q, now_unix_s: u64) -> bool
where
    K: std::borrow::Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    bans.get(key).is_some_and(|until| until.is_none_or(|until| now_unix_s < until))
}

impl BannedList {
    /// The list of these bans.
    #[must_use]
    pub fn new<'a>(bans: impl IntoIterator<Item = &'a Ban>) -> Self {
        let mut list = Self::default();
        for ban in bans {
            let until = ban.until_unix_s;
            match &ban.who {
                BannedWho::ClientId(name) => list.client_ids.insert(name.clone(), until),
                BannedWho::Username(name) => list.usernames.insert(name.clone(), until),
                BannedWho::PeerHost(host) => list.hosts.insert(host.to_canonical(), until),
            };
        }
        list
    }

    /// Whether a client may not connect.
    #[must_use]
    pub fn bans(
        &self,
        client_id: &str,
        username: Option<&str>,
        peer: IpAddr,
        now_unix_s: u64,
    ) -> bool {
        holds(&self.client_ids, client_id, now_unix_s)
            || username.is_some_and(|name| holds(&self.usernames, name, now_unix_s))
            || holds(&self.hosts, &peer, now_unix_s)
    }
}

/// A client whose disconnects are counted.
#[derive(Debug)]
struct Watched {
    since_ms: u64,
    count: u32,
}

/// Clients that come and go, of one shard: a client is at home on one, so no other need know.
#[derive(Debug)]
pub(crate) struct Flapping {
    settings: FlappingSettings,
    watched: HashMap<Box<str>, Watched>,
    banned: HashMap<Box<str>, Ban>,
    logged_at_ms: Option<u64>,
}

impl Flapping {
    pub fn new(settings: FlappingSettings) -> Self {
        Self { settings, watched: HashMap::new(), banned: HashMap::new(), logged_at_ms: None }
    }

    /// Whether disconnects are to be told.
    pub fn is_on(&self) -> bool {
        self.settings.enable
    }

    /// Whether a client is banned for it.
    pub fn bans(&self, client_id: &str, now: Now) -> bool {
        let until = self.banned.get(client_id).and_then(|ban| ban.until_unix_s);
        until.is_some_and(|until| now.unix_ms / 1000 < until)
    }

    /// A client has disconnected; whether it is banned now.
    pub fn disconnected(&mut self, client_id: &str, now: Now) -> bool {
        let FlappingSettings { max_count, window_ms, ban_ms, .. } = self.settings;
        let over = |watched: &Watched| now.mono_ms >= watched.since_ms + window_ms;
        match self.watched.get_mut(client_id) {
            Some(watched) if !over(watched) => {
                watched.count += 1;
                if watched.count < max_count {
                    return false;
                }
            }
            Some(watched) => {
                *watched = Watched { since_ms: now.mono_ms, count: 1 };
                return false;
            }
            None => {
                if self.watched.len() >= WATCHED_MAX {
                    self.watched.retain(|_, watched| !over(watched));
                }
                if self.watched.len() < WATCHED_MAX {
                    let watched = Watched { since_ms: now.mono_ms, count: 1 };
                    self.watched.insert(client_id.into(), watched);
                }
                return false;
            }
        }
        let count = self.watched.remove(client_id).map_or(0, |watched| watched.count);
        let now_s = now.unix_ms / 1000;
        if self.banned.len() >= FLAPPING_BANS_MAX {
            self.drop_ended(now_s);
        }
        if self.banned.len() >= FLAPPING_BANS_MAX {
            return false;
        }
        let reason = format!("{count} disconnects in {} s", window_ms.div_ceil(1000));
        if self.logged_at_ms.is_none_or(|at_ms| now.mono_ms >= at_ms + LOG_INTERVAL_MS) {
            self.logged_at_ms = Some(now.mono_ms);
            log::warn!(
                "client {client_id:?} is banned for flapping: {reason}; `ringmq banned list` tells of it and of others"
            );
        }
        let ban = Ban {
            who: BannedWho::ClientId(client_id.to_owned()),
            reason,
            by: FLAPPING_BY.to_owned(),
            at_unix_s: now_s,
            until_unix_s: Some(now_s + ban_ms.div_ceil(1000)),
        };
        self.banned.insert(client_id.into(), ban);
        true
    }

    fn drop_ended(&mut self, now_s: u64) {
        self.banned.retain(|_, ban| ban.until_unix_s.is_some_and(|until| now_s < until));
    }

    /// The bans in force.
    pub fn list(&mut self, now: Now) -> Vec<Ban> {
        self.drop_ended(now.unix_ms / 1000);
        self.banned.values().cloned().collect()
    }

    /// Ends a ban; false if there was none.
    pub fn forgive(&mut self, client_id: &str) -> bool {
        self.banned.remove(client_id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::{Desk, connect};

    fn ban(who: BannedWho, until_unix_s: Option<u64>) -> Ban {
        Ban { who, reason: String::new(), by: String::new(), at_unix_s: 0, until_unix_s }
    }

    #[test]
    fn bans_by_id_name_and_address_end_in_time() {
        let host: IpAddr = "10.0.0.1".parse().unwrap();
        let other: IpAddr = "::1".parse().unwrap();
        let list = BannedList::new(&[
            ban(BannedWho::ClientId("c".into()), None),
            ban(BannedWho::Username("u".into()), Some(100)),
            ban(BannedWho::PeerHost("::ffff:10.0.0.1".parse().unwrap()), Some(200)),
        ]);
        assert!(list.bans("c", None, other, 1 << 40));
        assert!(list.bans("x", Some("u"), other, 99) && !list.bans("x", Some("u"), other, 100));
        assert!(list.bans("x", None, host, 199) && !list.bans("x", None, host, 200));
        assert!(!list.bans("u", Some("c"), other, 0));
    }

    fn flapping(max_count: u32) -> Flapping {
        let enable = true;
        Flapping::new(FlappingSettings { enable, max_count, window_ms: 1000, ban_ms: 5000 })
    }

    fn at(ms: u64) -> Now {
        Now { mono_ms: ms, unix_ms: 1_000_000 + ms }
    }

    #[test]
    fn too_many_disconnects_in_the_window_ban() {
        let mut flapping = flapping(3);
        for ms in [0, 10, 1000, 1010] {
            assert!(!flapping.disconnected("c", at(ms)), "{ms}: the window began anew at 1000");
        }
        assert!(flapping.disconnected("c", at(1020)));
        assert!(flapping.bans("c", at(1020)) && !flapping.bans("d", at(1020)));
        assert!(flapping.bans("c", at(5900)) && !flapping.bans("c", at(6020)));
        assert_eq!(flapping.list(at(2000)).len(), 1);
        assert_eq!(flapping.list(at(7000)).len(), 0);
        assert!(!flapping.forgive("c"));
    }

    #[test]
    fn the_tables_are_bounded() {
        let mut flapping = flapping(2);
        for n in 0..WATCHED_MAX + 100 {
            flapping.disconnected(&n.to_string(), at(0));
        }
        assert_eq!(flapping.watched.len(), WATCHED_MAX);
        assert!(!flapping.disconnected("late", at(500)));
        assert!(
            !flapping.disconnected("late", at(1500)),
            "those before are over, so it is watched"
        );
        assert!(flapping.disconnected("late", at(1600)));
        for n in 0..FLAPPING_BANS_MAX + 100 {
            flapping.disconnected(&n.to_string(), at(1600));
            flapping.disconnected(&n.to_string(), at(1600));
        }
        assert_eq!(flapping.banned.len(), FLAPPING_BANS_MAX);
    }

    /// SEED-AUTH-19: off by default; on, the client is refused until its time is over.
    #[test]
    fn a_client_that_flaps_is_refused_for_a_time() {
        let on = [
            ("flapping_detect.enable", "on"),
            ("flapping_detect.max_count", "3"),
            ("flapping_detect.ban_time", "10s"),
        ];
        for set in [&[][..], &on] {
            let mut desk = Desk::new(set);
            let come_and_go = |desk: &mut Desk| {
                let id = desk.accept(0, "10.0.0.1:5");
                let sent = desk.tick(1, Some((id, &connect("c", 0))));
                desk.tick(1, Some((id, &[0xe0, 0])));
                sent[0].1[3]
            };
            let codes: Vec<u8> = (0..5).map(|_| come_and_go(&mut desk)).collect();
            if set.is_empty() {
                assert_eq!(codes, [0; 5]);
                continue;
            }
            assert_eq!(codes, [0, 0, 0, 5, 5]);
            assert_eq!(desk.ended(0, "banned"), 2);
            desk.tick(10_000, None);
            assert_eq!(come_and_go(&mut desk), 0);
        }
    }
}
