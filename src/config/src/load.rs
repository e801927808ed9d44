//! Loading: the layers one over the other, what is old, unknown or wrong, and the checks between keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::access::{self, ACCESS_ALLOWED, ACCESS_EXAMPLE, AccessRule, RULES_MAX};
use crate::error::{BadValue, ConfigError, Origin, Problems, Refused, Warning};
use crate::file::{self, Assignment};
use crate::legacy;
use crate::listener::{
    ADDRESS_ALLOWED, ADDRESS_EXAMPLE, DEFAULT_LISTENERS, ListenerKind, ListenerOptions,
    ListenerSettings, all_options, is_name, options_of, parse_address,
};
use crate::modules::{self, Problem};
use crate::nearest::nearest;
use crate::sni::{self, SNI_ALLOWED, SNI_MAX};
use crate::table::{Key, keys};
use crate::types::{RetainedStorage, VerifyPeer};
use crate::zone::{self, ZoneSettings};
use crate::{MqttSettings, Settings};

/// What settings are made from.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// The settings file; none is fine.
    pub file: Option<PathBuf>,
    /// `--set` pairs in the order they were given.
    pub set: Vec<(String, String)>,
    /// Environment variables; those that are no settings are passed over.
    pub env: Vec<(String, String)>,
}

impl LoadRequest {
    /// A request with the environment of this process.
    #[must_use]
    pub fn with_process_environment(file: Option<PathBuf>, set: Vec<(String, String)>) -> Self {
        // Variables that are not UTF-8 are not ours: every name and value of a setting is.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, set, env }
    }

    /// Splits the argument of `--set` into key and value.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] if there is no `=`.
    pub fn split_set(argument: &str) -> Result<(String, String), ConfigError> {
        let (key, value) = argument.split_once('=').ok_or_else(|| ConfigError::Syntax {
            origin: Origin::CommandLine,
            reason: format!("there is no = in {argument:?}"),
        })?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    }
}

/// The address of a listener while layers are applied.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Address {
    /// None was given, or the file named others only.
    #[default]
    Absent,
    Off,
    On(SocketAddr),
}

#[derive(Debug, Default)]
struct PendingListener {
    address: Address,
    options: ListenerOptions,
    /// The first key below it that was given, for errors.
    option: Option<(String, Origin)>,
}

/// A warning about keys without effect, one for each group.
struct Ignored {
    group: String,
    first: (String, Origin),
    more: usize,
    reason: &'static str,
}

/// A listener's kind and name.
type ListenerName = (ListenerKind, String);

/// A key that names a listener, taken apart.
#[derive(Clone, Copy)]
struct ListenerKey<'a> {
    kind: ListenerKind,
    name: &'a str,
    /// What is behind the name.
    option: Option<&'a str>,
    /// A spelling of EMQ 2.0.
    is_old: bool,
}

#[derive(Default)]
struct Loader {
    settings: Settings,
    listeners: BTreeMap<ListenerName, PendingListener>,
    /// Values of zones by zone and key.
    zones: BTreeMap<String, BTreeMap<&'static str, String>>,
    ignored: Vec<Ignored>,
    warnings: Vec<Warning>,
    errors: Vec<ConfigError>,
}

impl Settings {
    /// Loads settings: defaults, then the file, the environment and `--set`, each over the one before.
    ///
    /// # Errors
    /// The file cannot be read, or lines or values are wrong; all of them are reported at once
    /// ([`ConfigError::Several`]).
    pub fn load(request: &LoadRequest) -> Result<(Settings, Vec<Warning>), ConfigError> {
        let mut errors = Vec::new();
        let lines = match &request.file {
            Some(path) => file::read(path, &mut errors)?,
            None => Vec::new(),
        };
        let mut loader = Loader { errors, ..Loader::default() };
        loader.start();
        let addressed = loader.layer(lines);
        loader.file_states_listeners(&addressed);
        loader.layer(file::environment(&request.env));
        loader.layer(command_line(&request.set));
        loader.finish()
    }

    /// Changes one key while the broker runs.
    ///
    /// # Errors
    /// The key is not known, cannot change at run time, or does not allow the value. Nothing has changed then.
    pub fn set_hot(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let found = keys().find(|known| known.name == key || known.aliases.contains(&key));
        let Some(known) = found else {
            return Err(unknown(key, Origin::Runtime));
        };
        if !known.hot {
            return Err(ConfigError::NotHot { key: known.name.to_owned() });
        }
        let mut changed = self.clone();
        if !(known.assign)(&mut changed, value, &known.kind) {
            return Err(bad_value(known, known.name, value, Origin::Runtime));
        }
        changed.origins.insert(known.name.to_owned(), Origin::Runtime);
        check_watermarks(&changed)?;
        *self = changed;
        Ok(())
    }
}

fn command_line(set: &[(String, String)]) -> Vec<Assignment> {
    set.iter()
        .map(|(key, value)| Assignment {
            key: key.trim().to_owned(),
            value: value.trim().to_owned(),
            origin: Origin::CommandLine,
        })
        .collect()
}

fn bad_value<T>(known: &Key<T>, key: &str, given: &str, origin: Origin) -> ConfigError {
    BadValue {
        origin,
        key: key.to_owned(),
        given: given.to_owned(),
        allowed: known.kind.allowed(),
        example: known.kind.example(),
    }
    .into()
}

fn unknown(key: &str, origin: Origin) -> ConfigError {
    let mut candidates: Vec<String> = keys()
        .flat_map(|known| [known.name].into_iter().chain(known.aliases.iter().copied()))
        .chain(legacy::names())
        .map(str::to_owned)
        .collect();
    // For a key below a listener kind and name are taken as they stand, so that only the rest is compared.
    let mut parts = key.split('.').skip(1);
    let kind = parts.next().and_then(ListenerKind::from_word).unwrap_or(ListenerKind::Tcp);
    let name = parts.next().filter(|name| is_name(name)).unwrap_or("external");
    let options = options_of(kind).map(|known| known.name).chain(legacy::listener_names());
    candidates.extend(options.map(|option| format!("listener.{kind}.{name}.{option}")));
    candidates.push(format!("listener.{kind}.{name}.access.1"));
    candidates.push(format!("listener.{kind}.{name}"));
    if kind.is_tls() {
        let parts = SNI_ALLOWED.map(|(part, ..)| part.word());
        candidates.extend(parts.map(|part| format!("listener.{kind}.{name}.sni.1.{part}")));
    }
    candidates.extend(modules::example_keys());
    let hint = match nearest(key, candidates.iter().map(String::as_str)) {
        Some(near) => format!("; did you mean {near}?"),
        None => "; `ringmq config show` lists all keys".into(),
    };
    ConfigError::UnknownKey { origin, key: key.to_owned(), hint }
}

/// `listener.<kind>.<name>` or `listener.<kind>.<name>.<option>`. The spellings of EMQ 2.0 without a name, and
/// `mqtt.listener.<kind>`, stand for the external listener.
fn split_listener(key: &str) -> Option<ListenerKey<'_>> {
    let (rest, oldest) = match key.strip_prefix("mqtt.listener.") {
        Some(rest) => (rest, true),
        None => (key.strip_prefix("listener.")?, false),
    };
    let (word, rest) = match rest.split_once('.') {
        Some((word, rest)) => (word, Some(rest)),
        None => (rest, None),
    };
    let kind = ListenerKind::ALL.into_iter().find(|kind| kind.word() == word)?;
    let external = |option| Some(ListenerKey { kind, name: "external", option, is_old: true });
    let Some(rest) = rest else { return external(None) };
    let (name, option) = match rest.split_once('.') {
        Some((name, option)) => (name, Some(option)),
        None => (rest, None),
    };
    let is_option = |option: &str| {
        all_options().any(|known| known.name == option || known.aliases.contains(&option))
            || legacy::listener_without_effect(option).is_some()
            || access::number(option).is_some()
            || sni::split(option).is_some()
    };
    if is_option(rest) {
        return external(Some(rest));
    }
    is_name(name).then_some(ListenerKey { kind, name, option, is_old: oldest })
}

fn find_option(kind: ListenerKind, option: &str) -> Option<&'static Key<ListenerOptions>> {
    options_of(kind).find(|known| known.name == option || known.aliases.contains(&option))
}

impl Loader {
    fn start(&mut self) {
        for (name, address) in DEFAULT_LISTENERS {
            let address = parse_address(address).map_or(Address::Absent, Address::On);
            let pending = PendingListener { address, ..PendingListener::default() };
            self.listeners.insert((ListenerKind::Tcp, name.to_owned()), pending);
        }
    }

    /// Applies one layer; gives the names of the listeners it gave an address to.
    fn layer(&mut self, assignments: Vec<Assignment>) -> BTreeSet<ListenerName> {
        let mut seen: BTreeMap<String, Origin> = BTreeMap::new();
        let mut addressed = BTreeSet::new();
        for assignment in assignments {
            let Assignment { key, value, origin } = &assignment;
            let Some(canonical) = self.assign(&assignment, &mut addressed) else { continue };
            if let Some(before) = seen.insert(canonical, origin.clone()) {
                let text =
                    format!("{key} was given before ({before}); the last one, {value:?}, holds");
                self.warn(&assignment, text);
            }
        }
        addressed
    }

    /// A file that names listeners states them all, as EMQ's files do: a broker that was meant to listen on an inner
    /// address only must not open 0.0.0.0:1883 besides.
    fn file_states_listeners(&mut self, addressed: &BTreeSet<ListenerName>) {
        if addressed.is_empty() {
            return;
        }
        for (name, pending) in &mut self.listeners {
            if !addressed.contains(name) && matches!(pending.address, Address::On(_)) {
                pending.address = Address::Absent;
            }
        }
    }

    fn warn(&mut self, at: &Assignment, text: String) {
        let Assignment { key, origin, .. } = at;
        self.warnings.push(Warning { origin: origin.clone(), key: key.clone(), text });
    }

    fn renamed(&mut self, at: &Assignment, canonical: &str) {
        self.warn(at, format!("{} is an older name of {canonical}", at.key));
    }

    /// Applies one assignment and gives the canonical key, or `None` if it had no effect.
    fn assign(
        &mut self,
        at: &Assignment,
        addressed: &mut BTreeSet<ListenerName>,
    ) -> Option<String> {
        let Assignment { key, value, origin } = at;
        let found = keys().find(|known| known.name == key || known.aliases.contains(&key.as_str()));
        if let Some(known) = found {
            if known.name != key {
                self.renamed(at, known.name);
            }
            if !(known.assign)(&mut self.settings, value, &known.kind) {
                self.errors.push(bad_value(known, key, value, origin.clone()));
                return None;
            }
            self.settings.origins.insert(known.name.to_owned(), origin.clone());
            return Some(known.name.to_owned());
        }
        if let Some(listener) = split_listener(key) {
            return self.assign_listener(at, listener, addressed);
        }
        if let Some((name, rest)) = zone::split(key) {
            return self.assign_zone(at, name, rest);
        }
        if let Some(outcome) = modules::assign(&mut self.settings, key, value) {
            return self.assigned_numbered(at, outcome);
        }
        let Some((group, reason)) = legacy::without_effect(key) else {
            self.errors.push(unknown(key, origin.clone()));
            return None;
        };
        match legacy::refusal(key, value) {
            Some(reason) => self.refuse(at, reason.to_owned()),
            None => self.ignore(at, group, reason),
        }
        None
    }

    fn assign_listener(
        &mut self,
        at: &Assignment,
        listener: ListenerKey<'_>,
        addressed: &mut BTreeSet<ListenerName>,
    ) -> Option<String> {
        let Assignment { key, value, origin } = at;
        let ListenerKey { kind, name, option, is_old } = listener;
        let full_name = || (kind, name.to_owned());
        let mut canonical = crate::listener::key(kind, name);
        let Some(option) = option else {
            let address = match value.as_str() {
                "off" | "false" => Some(Address::Off),
                _ => parse_address(value).map(Address::On),
            };
            let Some(address) = address else {
                self.bad(at, ADDRESS_ALLOWED, ADDRESS_EXAMPLE);
                return None;
            };
            if is_old {
                self.renamed(at, &canonical);
            }
            // The last line for a name holds, whichever of on and off it is.
            if address == Address::Off {
                addressed.remove(&full_name());
            } else {
                addressed.insert(full_name());
            }
            self.listeners.entry(full_name()).or_default().address = address;
            self.settings.origins.insert(canonical.clone(), origin.clone());
            return Some(canonical);
        };
        if let Some(reason) = legacy::listener_without_effect(option) {
            self.ignore(at, format!("listener.{kind}.*.{option}"), reason);
            return None;
        }
        let pending = self.listeners.entry(full_name()).or_default();
        if let Some(number) = access::number(option) {
            canonical = format!("{canonical}.access.{number}");
            match AccessRule::parse(value) {
                None => {
                    self.bad(at, ACCESS_ALLOWED, ACCESS_EXAMPLE);
                    return None;
                }
                Some(rule) if !pending.options.access.set(number, rule) => {
                    self.refuse(at, format!("a listener has at most {RULES_MAX} rules"));
                    return None;
                }
                Some(_) => {}
            }
        } else if let Some((number, part)) = sni::split(option).filter(|_| kind.is_tls()) {
            canonical = format!("{canonical}.sni.{number}.{}", part.word());
            if !pending.options.sni.set(number, part, value) {
                self.bad_sni(at, part);
                return None;
            }
        } else {
            let Some(known) = find_option(kind, option) else {
                self.no_such_option(at, kind, option);
                return None;
            };
            canonical = format!("{canonical}.{}", known.name);
            if !(known.assign)(&mut pending.options, value, &known.kind) {
                self.errors.push(bad_value(known, key, value, origin.clone()));
                return None;
            }
            if is_old || known.name != option {
                self.renamed(at, &canonical);
            }
        }
        let pending = self.listeners.entry(full_name()).or_default();
        pending.option.get_or_insert_with(|| (key.clone(), origin.clone()));
        self.settings.origins.insert(canonical.clone(), origin.clone());
        Some(canonical)
    }

    fn bad_sni(&mut self, at: &Assignment, part: sni::SniPart) {
        let allowed = SNI_ALLOWED.into_iter().find(|(known, ..)| *known == part);
        let (_, allowed, example) = allowed.expect("all parts are there");
        self.bad(at, &format!("{allowed}, for at most {SNI_MAX} certificates"), example);
    }

    /// A key that listeners of other kinds may have, or none.
    fn no_such_option(&mut self, at: &Assignment, kind: ListenerKind, option: &str) {
        let others = ListenerKind::ALL.into_iter().filter(|&kind| {
            find_option(kind, option).is_some() || kind.is_tls() && sni::split(option).is_some()
        });
        let others: Vec<String> = others.map(|kind| format!("listener.{kind}")).collect();
        if others.is_empty() {
            self.errors.push(unknown(&at.key, at.origin.clone()));
        } else {
            let reason = format!("a listener.{kind} has no {option}; {} has", others.join(" or "));
            self.refuse(at, reason);
        }
    }

    /// A numbered key of a module was looked at.
    fn assigned_numbered(
        &mut self,
        at: &Assignment,
        outcome: Result<String, Problem>,
    ) -> Option<String> {
        match outcome {
            Ok(canonical) => {
                self.settings.origins.insert(canonical.clone(), at.origin.clone());
                return Some(canonical);
            }
            Err(Problem::Bad { allowed, example }) => self.bad(at, allowed, example),
            Err(Problem::Refused(reason)) => self.refuse(at, reason),
        }
        None
    }

    fn assign_zone(&mut self, at: &Assignment, name: &str, rest: &str) -> Option<String> {
        let Some(known) = zone::zone_key(rest) else {
            self.refuse(at, zone::refusal(rest));
            return None;
        };
        let Assignment { key, value, origin } = at;
        if !(known.assign)(&mut Settings::default(), value, &known.kind) {
            self.errors.push(bad_value(known, key, value, origin.clone()));
            return None;
        }
        let canonical = format!("zone.{name}.{}", known.name);
        if known.name != rest {
            self.renamed(at, &canonical);
        }
        self.zones.entry(name.to_owned()).or_default().insert(known.name, value.clone());
        self.settings.origins.insert(canonical.clone(), origin.clone());
        Some(canonical)
    }

    fn bad(&mut self, at: &Assignment, allowed: &str, example: &str) {
        let Assignment { key, value, origin } = at.clone();
        let (allowed, example) = (allowed.to_owned(), example.to_owned());
        self.errors.push(BadValue { origin, key, given: value, allowed, example }.into());
    }

    fn refuse(&mut self, at: &Assignment, reason: String) {
        let Assignment { key, value, origin } = at.clone();
        self.errors.push(Refused { origin, key, given: value, reason }.into());
    }

    fn ignore(&mut self, at: &Assignment, group: String, reason: &'static str) {
        match self.ignored.iter_mut().find(|ignored| ignored.group == group) {
            Some(ignored) => ignored.more += 1,
            None => {
                let first = (at.key.clone(), at.origin.clone());
                self.ignored.push(Ignored { group, first, more: 0, reason });
            }
        }
    }

    fn finish(mut self) -> Result<(Settings, Vec<Warning>), ConfigError> {
        for ignored in std::mem::take(&mut self.ignored) {
            let (key, origin) = ignored.first;
            let more = match ignored.more {
                0 => String::new(),
                n => format!(" ({n} more of {})", ignored.group),
            };
            let text = format!("{key}{more} has no effect: {}", ignored.reason);
            self.warnings.push(Warning { origin, key, text });
        }
        self.finish_zones();
        self.finish_auto_subscriptions();
        self.finish_listeners();
        self.fit_pending_bytes();
        self.errors.extend(check_watermarks(&self.settings).err());
        self.check_receive_maximum();
        self.check_retained_storage();
        match self.errors.len() {
            0 => Ok((self.settings, self.warnings)),
            1 => Err(self.errors.remove(0)),
            _ => Err(ConfigError::Several(Problems(self.errors))),
        }
    }

    fn finish_zones(&mut self) {
        for (name, values) in std::mem::take(&mut self.zones) {
            let own: Vec<(&'static str, String)> = values.into_iter().collect();
            let zone = ZoneSettings::new(&name, &self.settings, &own);
            self.settings.zones.push(zone);
        }
    }

    /// A subscription needs a filter, wherever its other keys stand.
    fn finish_auto_subscriptions(&mut self) {
        for key in self.settings.auto_subscription.subscriptions.without_topic() {
            let (number, option) = key;
            let key = modules::auto_key(number, option);
            let origin = self.origin_of(&key);
            let hint = format!(
                ": there is no subscription {number}; give {} = <filter>",
                modules::auto_key(number, "topic")
            );
            self.errors.push(ConfigError::UnknownKey { origin, key, hint });
        }
    }

    fn finish_listeners(&mut self) {
        let mut listeners: Vec<ListenerSettings> = Vec::new();
        let names: Vec<String> = self
            .listeners
            .iter()
            .filter(|(_, pending)| matches!(pending.address, Address::On(_)))
            .map(|((kind, name), _)| match kind {
                ListenerKind::Tcp => name.clone(),
                kind => format!("{kind}.{name}"),
            })
            .collect();
        let names = names.join(", ");
        for ((kind, name), pending) in std::mem::take(&mut self.listeners) {
            let is_default = kind == ListenerKind::Tcp
                && DEFAULT_LISTENERS.iter().any(|(default, _)| *default == name);
            match (pending.address, pending.option) {
                (Address::On(address), _) => {
                    let listener =
                        ListenerSettings { kind, name, address, options: pending.options };
                    self.check_address(&listeners, &listener);
                    self.check_options(&listener);
                    listeners.push(listener);
                }
                (Address::Absent, Some((key, origin))) if is_default => {
                    let text = format!(
                        "{key} has no effect: the file names its listeners ({names}) and {name} is not among them"
                    );
                    self.warnings.push(Warning { origin, key, text });
                }
                (Address::Absent, Some((key, origin))) => {
                    let hint = format!(
                        ": there is no listener {name}; give {} = [address:]port (listeners: {names})",
                        crate::listener::key(kind, &name)
                    );
                    self.errors.push(ConfigError::UnknownKey { origin, key, hint });
                }
                (Address::Absent | Address::Off, _) => {}
            }
        }
        if listeners.is_empty() {
            let text = "no listener is left: no client can connect".to_owned();
            let key = "listener.tcp".to_owned();
            self.warnings.push(Warning { origin: Origin::Default, key, text });
        }
        self.settings.listeners = listeners;
    }

    fn check_address(&mut self, others: &[ListenerSettings], listener: &ListenerSettings) {
        let ListenerSettings { address, .. } = *listener;
        let taken = others.iter().find(|other| other.address == address && address.port() != 0);
        if let Some(other) = taken {
            let key = listener.key();
            let origin = self.origin_of(&key);
            let reason = format!("{} has this address already", other.key());
            let given = address.to_string();
            self.errors.push(Refused { origin, key, given, reason }.into());
        }
    }

    fn origin_of(&self, key: &str) -> Origin {
        self.settings.origins.get(key).cloned().unwrap_or_default()
    }

    /// What the keys of a listener ask of each other.
    fn check_options(&mut self, listener: &ListenerSettings) {
        let ListenerSettings { kind, options, .. } = listener;
        let key = listener.key();
        if kind.is_tls() {
            self.check_tls(listener);
        }
        if options.access.is_idle() {
            let (number, _) = options.access.iter().next().expect("an idle list has rules");
            let text = "the rules keep nobody out, as a client that none fits may connect; deny all as the last one would";
            self.warn_of(format!("{key}.access.{number}"), text);
        }
        if let Some(zone) = &options.zone
            && !self.settings.zones.iter().any(|known| known.name == *zone)
        {
            let text = format!("has no effect: there is no key of a zone {zone}");
            self.warn_of(format!("{key}.zone"), &text);
        }
    }

    /// Which certificates and keys there must be, and what cannot be together.
    fn check_tls(&mut self, listener: &ListenerSettings) {
        let (key, tls, sni) = (listener.key(), &listener.options.tls, &listener.options.sni);
        let files = [("certfile", &tls.cert_file), ("keyfile", &tls.key_file)];
        let may_have_none = tls.psk_file.is_some() && files.iter().all(|(_, file)| file.is_none());
        for (name, _) in files.iter().filter(|(_, file)| file.is_none() && !may_have_none) {
            let or = if tls.psk_file.is_none() { ", or psk_file for pre-shared keys" } else { "" };
            let reason = format!("a listener with TLS needs a {name}: give {key}.{name}{or}");
            self.refuse_of(key.clone(), listener.address.to_string(), reason);
        }
        for (number, certificate) in sni.iter() {
            let files = [("certfile", &certificate.cert_file), ("keyfile", &certificate.key_file)];
            let key = format!("{key}.sni.{number}");
            for (name, _) in files.iter().filter(|(_, file)| file.is_none()) {
                let reason = format!("a certificate needs both files: give {key}.{name}");
                let given = SNI_ALLOWED.into_iter().find_map(|(part, ..)| {
                    let key = format!("{key}.{}", part.word());
                    self.settings.origins.contains_key(&key).then_some((key, part))
                });
                // There is one, or there would be no certificate.
                if let Some((key, part)) = given {
                    self.refuse_of(key, certificate.show(part).unwrap_or_default(), reason);
                }
            }
        }
        if tls.verify == VerifyPeer::VerifyPeer && tls.ca_cert_file.is_none() {
            let reason = "the certificates of clients need an authority: give cacertfile too";
            let given = tls.verify.word().to_owned();
            self.refuse_of(format!("{key}.verify"), given, reason.to_owned());
        }
        if tls.verify == VerifyPeer::VerifyNone && tls.fail_if_no_peer_cert {
            let text =
                "has no effect: with verify = verify_none no client is asked for a certificate";
            self.warn_of(format!("{key}.fail_if_no_peer_cert"), text);
        }
        let Some(psk_file) = &tls.psk_file else {
            if tls.psk_identity_as_username {
                let text = "has no effect: without psk_file no client has an identity";
                self.warn_of(format!("{key}.psk_identity_as_username"), text);
            }
            return;
        };
        let verifies = (tls.verify == VerifyPeer::VerifyPeer).then_some("verify = verify_peer");
        let crl = tls.crl_file.is_some().then_some("crlfile");
        let sni = (!sni.is_empty()).then_some("sni");
        if let Some(other) = verifies.or(crl).or(sni) {
            let reason =
                format!("it cannot be together with {other}: give the other a listener of its own");
            self.refuse_of(format!("{key}.psk_file"), psk_file.display().to_string(), reason);
        }
    }

    fn refuse_of(&mut self, key: String, given: String, reason: String) {
        let origin = self.origin_of(&key);
        self.errors.push(Refused { origin, key, given, reason }.into());
    }

    fn warn_of(&mut self, key: String, text: &str) {
        let text = format!("{key}: {text}");
        self.warnings.push(Warning { origin: self.origin_of(&key), key, text });
    }

    /// A connection must be able to hold the largest packet, else it could never be sent. Who raises the packet size
    /// alone gets a bound that fits; who sets both is told.
    fn fit_pending_bytes(&mut self) {
        let key = "mqtt.conn.pending_bytes_max";
        let of_zones = self.settings.zones.iter().map(|zone| zone.mqtt.max_packet_size_bytes);
        let MqttSettings { max_packet_size_bytes, .. } = self.settings.mqtt;
        let largest = of_zones.fold(max_packet_size_bytes, u32::max);
        let least = usize::try_from(largest).unwrap_or(usize::MAX);
        let bound = &mut self.settings.conn.pending_bytes_max;
        if *bound >= least {
            return;
        }
        match self.settings.origins.get(key) {
            None => *bound = least.saturating_mul(2),
            Some(origin) => self.errors.push(
                Refused {
                    origin: origin.clone(),
                    key: key.to_owned(),
                    given: bound.to_string(),
                    reason: "it must be at least mqtt.max_packet_size".into(),
                }
                .into(),
            ),
        }
    }

    fn check_retained_storage(&mut self) {
        let is_disc_only = self.settings.retainer.storage == RetainedStorage::DiscOnly;
        if !is_disc_only || self.settings.store.enable {
            return;
        }
        let key = "retainer.storage_type";
        let origin = self.settings.origins.get(key).cloned().unwrap_or_default();
        let reason =
            "there is no store to read retained messages from: write ram, or set store.enable = on";
        let given = RetainedStorage::DiscOnly.word().to_owned();
        self.errors
            .push(Refused { origin, key: key.to_owned(), given, reason: reason.into() }.into());
    }

    fn check_receive_maximum(&mut self) {
        let Settings { mqtt, session, .. } = &self.settings;
        if mqtt.receive_maximum <= session.max_awaiting_rel {
            return;
        }
        let keys = ["mqtt.receive_maximum", "mqtt.session.max_awaiting_rel"];
        let Some(origin) = keys.iter().find_map(|key| self.settings.origins.get(*key)) else {
            return;
        };
        let text = format!(
            "mqtt.receive_maximum ({}) is above mqtt.session.max_awaiting_rel ({}): a client of MQTT 5 that keeps to \
             the first can be refused by the second",
            mqtt.receive_maximum, session.max_awaiting_rel
        );
        self.warnings.push(Warning { origin: origin.clone(), key: keys[0].to_owned(), text });
    }
}

fn check_watermarks(settings: &Settings) -> Result<(), ConfigError> {
    let low = settings.mqueue.low_watermark_percent;
    let high = settings.mqueue.high_watermark_percent;
    if low < high {
        return Ok(());
    }
    let keys = ["mqtt.mqueue.low_watermark", "mqtt.mqueue.high_watermark"];
    let key = keys.into_iter().find(|key| settings.origins.contains_key(*key)).unwrap_or(keys[0]);
    let given = if key == keys[0] { low } else { high };
    Err(Refused {
        origin: settings.origins.get(key).cloned().unwrap_or_default(),
        key: key.to_owned(),
        given: format!("{given}%"),
        reason: format!("the low watermark ({low}%) must be below the high one ({high}%)"),
    }
    .into())
}
