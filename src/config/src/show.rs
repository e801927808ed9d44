//! What the settings are and where they came from, and the reference of all keys.

use std::fmt::Write as _;

use crate::access::{ACCESS_ALLOWED, ACCESS_DOC, ACCESS_EXAMPLE, AccessRule};
use crate::error::Origin;
use crate::listener::{
    ADDRESS_ALLOWED, ADDRESS_DOC, ADDRESS_EXAMPLE, DEFAULT_LISTENERS, HANDSHAKE, ListenerKind,
    ListenerSettings, TLS, WEBSOCKET, options_of,
};
use crate::modules::{self, AUTO_SUBSCRIPTIONS, REWRITES};
use crate::sni::{SNI_ALLOWED, SNI_DOC, SniCertificateSettings};
use crate::table::{Key, TABLE, keys};
use crate::zone::{ZONE_DOC, ZONE_KEYS};
use crate::{ListenerOptions, Settings, ZoneSettings};

/// One setting in effect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Title of its section.
    pub section: &'static str,
    /// The canonical key.
    pub key: String,
    /// The value as canonical text, which the settings file accepts.
    pub value: String,
    /// The default as canonical text; empty for a listener that is not there by default.
    pub default: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What the key does.
    pub doc: String,
    /// What values it may have.
    pub allowed: String,
    /// Whether it can change while the broker runs.
    pub hot: bool,
}

const LISTENERS: &str = "Listeners";
const ZONES: &str = "Zones";

impl Settings {
    /// All settings in the order of the reference.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (index, (section, keys)) in TABLE.iter().enumerate() {
            entries.extend(keys.iter().map(|key| self.entry(section, key)));
            entries.extend(self.numbered_entries(section));
            if index == 0 {
                for listener in &self.listeners {
                    entries.push(self.address_entry(listener));
                    let options = options_of(listener.kind);
                    entries.extend(options.map(|key| self.option_entry(listener, key)));
                    let rules = listener.options.access.iter();
                    entries.extend(rules.map(|rule| self.access_entry(listener, rule)));
                    for (number, certificate) in listener.options.sni.iter() {
                        let key = format!("{}.sni.{number}", listener.key());
                        entries.extend(self.sni_entries(&key, certificate));
                    }
                }
                entries.extend(self.zones.iter().flat_map(|zone| self.zone_entries(zone)));
            }
        }
        entries
    }

    /// The settings in effect of one canonical key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.entries().into_iter().find(|entry| entry.key == key)
    }

    fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
    }

    fn entry(&self, section: &'static str, key: &Key<Settings>) -> Entry {
        Entry {
            section,
            key: key.name.to_owned(),
            value: (key.show)(self, &key.kind),
            default: canonical_default(key, &mut Settings::default()),
            origin: self.origin(key.name),
            doc: plain(key.doc),
            allowed: key.kind.allowed(),
            hot: key.hot,
        }
    }

    fn address_entry(&self, listener: &ListenerSettings) -> Entry {
        let key = listener.key();
        let is_default = |name: &str| listener.kind == ListenerKind::Tcp && name == listener.name;
        let default = DEFAULT_LISTENERS.iter().find(|(name, _)| is_default(name));
        Entry {
            section: LISTENERS,
            value: listener.address.to_string(),
            default: default.map(|(_, address)| (*address).to_owned()).unwrap_or_default(),
            origin: self.origin(&key),
            key,
            doc: ADDRESS_DOC.to_owned(),
            allowed: format!("{ADDRESS_ALLOWED}, for example {ADDRESS_EXAMPLE}"),
            hot: false,
        }
    }

    fn option_entry(&self, listener: &ListenerSettings, key: &Key<ListenerOptions>) -> Entry {
        let name = format!("{}.{}", listener.key(), key.name);
        Entry {
            section: LISTENERS,
            value: (key.show)(&listener.options, &key.kind),
            default: canonical_default(key, &mut ListenerOptions::default()),
            origin: self.origin(&name),
            key: name,
            doc: plain(key.doc),
            allowed: key.kind.allowed(),
            hot: key.hot,
        }
    }

    fn access_entry(&self, listener: &ListenerSettings, rule: (u32, AccessRule)) -> Entry {
        let key = format!("{}.access.{}", listener.key(), rule.0);
        Entry {
            section: LISTENERS,
            value: rule.1.to_string(),
            default: String::new(),
            origin: self.origin(&key),
            key,
            doc: ACCESS_DOC.to_owned(),
            allowed: format!("{ACCESS_ALLOWED}, for example {ACCESS_EXAMPLE}"),
            hot: false,
        }
    }

    fn sni_entries(
        &self,
        key: &str,
        certificate: &SniCertificateSettings,
    ) -> impl Iterator<Item = Entry> {
        SNI_ALLOWED.into_iter().filter_map(move |(part, allowed, _)| {
            let key = format!("{key}.{}", part.word());
            Some(Entry {
                section: LISTENERS,
                value: certificate.show(part)?,
                default: String::new(),
                origin: self.origin(&key),
                key,
                doc: SNI_DOC.to_owned(),
                allowed: allowed.to_owned(),
                hot: false,
            })
        })
    }

    /// The numbered keys of a section.
    fn numbered_entries(&self, section: &'static str) -> Vec<Entry> {
        let numbered = match section {
            AUTO_SUBSCRIPTIONS => self.auto_subscription.subscriptions.numbered(),
            REWRITES => self.rewrite.rules.numbered(),
            _ => return Vec::new(),
        };
        let entry = |one: modules::Numbered| Entry {
            section,
            origin: self.origin(&one.key),
            key: one.key,
            value: one.value,
            default: String::new(),
            doc: plain(one.doc),
            allowed: one.allowed.to_owned(),
            hot: false,
        };
        numbered.into_iter().map(entry).collect()
    }

    fn zone_entries<'a>(&'a self, zone: &'a ZoneSettings) -> impl Iterator<Item = Entry> + 'a {
        zone.own.iter().map(|(name, value)| {
            let key = keys().find(|key| key.name == *name).expect("a zone has keys of the table");
            let of_broker = self.entry(ZONES, key);
            let key = format!("zone.{}.{name}", zone.name);
            let (origin, default) = (self.origin(&key), String::new());
            Entry { key, value: value.clone(), default, origin, ..of_broker }
        })
    }

    /// A settings file that holds every key with its default, what it does and what it may be.
    #[must_use]
    pub fn reference() -> String {
        let mut text = String::new();
        wrap(
            &mut text,
            "Settings of RingMQ. Every key is here with its default, so nothing below is needed. A value reaches to \
             the end of its line. Made from the table of the broker: ringmq config show --doc prints it.",
        );
        let mut section = "";
        let mut seen_address = false;
        for entry in Settings::default().entries() {
            if entry.section != section {
                section = entry.section;
                let _ = write!(text, "\n##{}\n## {section}\n", "-".repeat(68));
            }
            // The second listener needs its address only: its keys are those of the first.
            let listener = entry.section == LISTENERS;
            if listener && entry.key.starts_with("listener.tcp.internal") {
                if entry.key == "listener.tcp.internal" {
                    let _ = write!(text, "\n{} = {}\n", entry.key, entry.value);
                    other_listeners(&mut text);
                }
                continue;
            }
            text.push('\n');
            wrap(&mut text, &entry.doc);
            let hot = if entry.hot { " Can change while the broker runs." } else { "" };
            wrap(&mut text, &format!("Allowed: {}.{hot}", entry.allowed));
            let _ = writeln!(text, "{} = {}", entry.key, entry.value);
            for example in modules::examples(&entry.key) {
                text.push('\n');
                wrap(&mut text, &plain(example.doc));
                wrap(&mut text, &format!("Allowed: {}.", example.allowed));
                let _ = writeln!(text, "# {} = {}", example.key, example.value);
            }
            seen_address |= listener;
        }
        assert!(seen_address, "the default listeners are in the reference");
        text
    }
}

/// Two parts of the table.
type Parts = [&'static [Key<ListenerOptions>]; 2];

/// Keys that no default listener has, as comments.
fn other_listeners(text: &mut String) {
    text.push('\n');
    wrap(text, ACCESS_DOC);
    wrap(text, &format!("Allowed: {ACCESS_ALLOWED}, for example {ACCESS_EXAMPLE}."));
    text.push_str("# listener.tcp.external.access.1 = allow all\n");
    let part = |text: &mut String, title: &str, name: &str, address: &str, keys: Parts| {
        let _ = writeln!(text);
        wrap(text, title);
        let _ = writeln!(text, "# {name} = {address}");
        for key in keys.into_iter().flatten() {
            text.push('\n');
            wrap(text, &plain(key.doc));
            wrap(text, &format!("Allowed: {}.", key.kind.allowed()));
            let _ = writeln!(text, "# {name}.{} = {}", key.name, key.default);
        }
    };
    part(
        text,
        "A listener with TLS. It has the keys of a TCP listener as well, and so has one with WebSocket over TLS.",
        "listener.ssl.external",
        "8883",
        [HANDSHAKE, TLS],
    );
    text.push('\n');
    wrap(text, SNI_DOC);
    for (part, allowed, example) in SNI_ALLOWED {
        wrap(text, &format!("Allowed: {allowed}."));
        let _ = writeln!(text, "# listener.ssl.external.sni.1.{} = {example}", part.word());
    }
    part(
        text,
        "A listener with WebSocket. It has the keys of a TCP listener as well, and so has one with WebSocket over TLS, wss.",
        "listener.ws.external",
        "8083",
        [HANDSHAKE, WEBSOCKET],
    );
    text.push('\n');
    wrap(text, &format!("{ZONE_DOC} {}.", ZONE_KEYS.join(", ")));
}

fn canonical_default<T>(key: &Key<T>, blank: &mut T) -> String {
    let Key { assign, show, kind, default, .. } = key;
    let fits = assign(blank, default, kind);
    assert!(fits, "the default of {} is allowed", key.name);
    show(blank, kind)
}

/// Documentation as one line.
fn plain(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wrap(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split_whitespace() {
        if width == 0 || width + 1 + word.len() > 98 {
            out.push_str(if width == 0 { "##" } else { "\n##" });
            width = 2;
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.len();
    }
    out.push('\n');
}
