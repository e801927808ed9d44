//! What the settings are and where they came from, and the reference of all keys.

use std::fmt::Write as _;

use crate::error::Origin;
use crate::listener::{
    ADDRESS_ALLOWED, ADDRESS_DOC, ADDRESS_EXAMPLE, DEFAULT_LISTENERS, LISTENER, ListenerSettings,
};
use crate::table::{Key, TABLE};
use crate::{ListenerOptions, Settings};

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

const LISTENERS: &str = "TCP listeners";

impl Settings {
    /// All settings in the order of the reference.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (index, (section, keys)) in TABLE.iter().enumerate() {
            entries.extend(keys.iter().map(|key| self.entry(section, key)));
            if index == 0 {
                for listener in &self.listeners {
                    entries.push(self.address_entry(listener));
                    let options = LISTENER.iter();
                    entries.extend(options.map(|key| self.option_entry(listener, key)));
                }
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
        let key = format!("listener.tcp.{}", listener.name);
        let default = DEFAULT_LISTENERS.iter().find(|(name, _)| *name == listener.name);
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
        let name = format!("listener.tcp.{}.{}", listener.name, key.name);
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
                }
                continue;
            }
            text.push('\n');
            wrap(&mut text, &entry.doc);
            let hot = if entry.hot { " Can change while the broker runs." } else { "" };
            wrap(&mut text, &format!("Allowed: {}.{hot}", entry.allowed));
            let _ = writeln!(text, "{} = {}", entry.key, entry.value);
            seen_address |= listener;
        }
        assert!(seen_address, "the default listeners are in the reference");
        text
    }
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
