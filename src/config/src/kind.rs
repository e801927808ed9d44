//! The kinds of value a key may have: how their text is read, written, and described in an error.

use std::path::PathBuf;

use crate::types::{Priorities, StoreSync};

/// What a number kind stores for "no limit"; a field keeps the largest value of its type instead.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// The unit a duration field is kept in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeUnit {
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl TimeUnit {
    const fn micros(self) -> u64 {
        match self {
            TimeUnit::Us => 1,
            TimeUnit::Ms => 1_000,
            TimeUnit::S => 1_000_000,
        }
    }
}

/// The kind of a key's value. Bounds are inclusive and in the unit of the field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `on`, `off`, `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// A whole number, where `0` and `infinity` mean that there is no limit.
    Limit {
        /// Greatest value.
        max: u64,
    },
    /// A power of two; `0` leaves the choice to the broker if `auto`.
    PowerOfTwo {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// Whether `0` is allowed.
        auto: bool,
    },
    /// A number of bytes, such as `64KB`.
    Bytes {
        /// Least value in bytes.
        min: u64,
        /// Greatest value in bytes.
        max: u64,
    },
    /// A length of time, such as `30s`; a number without a unit is in seconds.
    Duration {
        /// Unit of the field.
        unit: TimeUnit,
        /// Least value in `unit`.
        min: u64,
        /// Greatest value in `unit`.
        max: u64,
        /// Whether `infinity` is allowed.
        infinity: bool,
    },
    /// `off` (0 ms), `on` (60 s), or a length of time in milliseconds.
    StatsInterval,
    /// `always`, `never`, or a length of time in milliseconds; see [`StoreSync`](crate::StoreSync).
    StoreSync,
    /// `0%` to `100%`.
    Percent,
    /// `off`, bytes, or a percentage of the memory there is.
    MemoryBudget,
    /// A decimal fraction, kept in thousandths.
    Permille {
        /// Least value in thousandths.
        min: u64,
        /// Greatest value in thousandths.
        max: u64,
    },
    /// One of a list of words.
    Enum(&'static [&'static str]),
    /// Text without control characters, never empty.
    Text,
    /// Text, where nothing and `none` mean that there is none.
    OptionalText,
    /// A path.
    Path,
    /// A path, where nothing and `builtin` mean that there is no file.
    OptionalPath,
    /// `none`, or `topic=priority` pairs parted by commas.
    Priorities,
    /// A path, where nothing and `none` mean that there is no file.
    OptionalFile,
    /// Words parted by commas, any or those of a list; nothing and `default` mean that there are none.
    List(Option<&'static [&'static str]>),
    /// Bytes in a time, and a burst; see [`Rate`](crate::Rate).
    ByteRate,
    /// A number of something in a time, and a burst.
    CountRate {
        /// What is counted.
        what: &'static str,
    },
    /// A prefix of topics, where nothing and `none` mean that there is none.
    Mountpoint,
    /// The path of a URL.
    UrlPath,
    /// A name as listeners have, where nothing and `none` mean that there is none.
    OptionalName,
}

impl Kind {
    /// What is allowed, for an error message and the reference.
    #[must_use]
    pub fn allowed(&self) -> String {
        match *self {
            Kind::Bool => "on, off, true or false".into(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Limit { max } => {
                format!("a whole number from 1 to {max}, or 0 or infinity for no limit")
            }
            Kind::PowerOfTwo { min, max, auto } => {
                let auto = if auto { ", or 0 for the broker's choice" } else { "" };
                format!("a power of two from {min} to {max}{auto}")
            }
            Kind::Bytes { min, max } => {
                format!("a size from {} to {}", show_bytes(min), show_bytes(max))
            }
            Kind::Duration { unit, min, max, infinity } => {
                let infinity = if infinity { ", or infinity" } else { "" };
                let (min, max) = (show_duration(min, unit), show_duration(max, unit));
                format!("a duration from {min} to {max}{infinity}")
            }
            Kind::StatsInterval => "on, off, or a duration from 1s to 1d".into(),
            Kind::StoreSync => "always, never, or a duration from 1ms to 1h".into(),
            Kind::Percent => "a percentage from 0% to 100%".into(),
            Kind::MemoryBudget => {
                "off, a size of 1MB or more, or a percentage of memory from 1% to 100%".into()
            }
            Kind::Permille { min, max } => {
                format!("a fraction from {} to {}", show_permille(min), show_permille(max))
            }
            Kind::Enum(words) => words.join(" | "),
            Kind::Text => "text of 1 to 4096 bytes without control characters".into(),
            Kind::OptionalText => {
                "none, or text of at most 4096 bytes without control characters".into()
            }
            Kind::Path => "a path".into(),
            Kind::OptionalPath => "builtin, or the path of a file".into(),
            Kind::Priorities => "none, or topic=priority pairs with priorities 0 to 255".into(),
            Kind::OptionalFile => "none, or the path of a file".into(),
            Kind::List(Some(words)) => {
                format!("default, or some of {} parted by commas", words.join(", "))
            }
            Kind::List(None) => "default, or words parted by commas".into(),
            Kind::ByteRate => {
                "none, bytes in a time and a burst, or burst,rate in KB a second".into()
            }
            Kind::CountRate { what } => format!("none, or {what} in a time and a burst"),
            Kind::Mountpoint => {
                "none, or text of at most 256 bytes without wildcards and control characters that does not begin with $"
                    .into()
            }
            Kind::UrlPath => "a path of a URL that begins with /".into(),
            Kind::OptionalName => "none, or a name of letters, digits, _ and -".into(),
        }
    }

    /// A value that would be accepted.
    #[must_use]
    pub fn example(&self) -> String {
        match *self {
            Kind::Bool => "on".into(),
            Kind::Integer { min, .. } => min.max(1).to_string(),
            Kind::Limit { max } => max.min(1000).to_string(),
            Kind::PowerOfTwo { min, max, .. } => (min.max(1024).min(max)).to_string(),
            Kind::Bytes { min, max } => show_bytes(min.max(64 << 10).min(max)),
            Kind::Duration { unit: TimeUnit::Us, max, .. } => {
                show_duration(max.min(50), TimeUnit::Us)
            }
            Kind::Duration { unit, min, max, .. } => {
                let thirty = 30 * TimeUnit::S.micros() / unit.micros();
                show_duration(min.max(thirty).min(max), unit)
            }
            Kind::StatsInterval => "60s".into(),
            Kind::StoreSync => "100ms".into(),
            Kind::Percent => "60%".into(),
            Kind::MemoryBudget => "80%".into(),
            Kind::Permille { min, .. } => show_permille(min),
            Kind::Enum(words) => words.first().copied().unwrap_or_default().into(),
            Kind::Text | Kind::OptionalText => "ringmq@127.0.0.1".into(),
            Kind::Path => "data".into(),
            Kind::OptionalPath => "etc/acl.conf".into(),
            Kind::Priorities => "topic/1=10,topic/2=8".into(),
            Kind::OptionalFile => "etc/certs/cert.pem".into(),
            Kind::List(words) => {
                words.and_then(|words| words.first()).copied().unwrap_or("default").into()
            }
            Kind::ByteRate => "10KB/s,100KB".into(),
            Kind::CountRate { .. } => "100/s,500".into(),
            Kind::Mountpoint => "external/%c/".into(),
            Kind::UrlPath => "/mqtt".into(),
            Kind::OptionalName => "external".into(),
        }
    }

    fn number(&self, text: &str) -> Option<u64> {
        let within = |n: u64, min: u64, max: u64| (min..=max).contains(&n).then_some(n);
        match *self {
            Kind::Integer { min, max } => within(digits(text)?, min, max),
            Kind::Limit { max } => match text {
                "0" | "infinity" => Some(UNLIMITED),
                _ => within(digits(text)?, 1, max),
            },
            Kind::PowerOfTwo { min, max, auto } => match digits(text)? {
                0 if auto => Some(0),
                n if n.is_power_of_two() => within(n, min, max),
                _ => None,
            },
            Kind::Bytes { min, max } => within(bytes(text)?, min, max),
            Kind::Duration { infinity: true, .. } if text == "infinity" => Some(UNLIMITED),
            Kind::Duration { unit, min, max, .. } => {
                let micros = duration_us(text)?;
                // A value finer than the field's unit would be cut silently; refuse it instead.
                (micros % unit.micros() == 0)
                    .then(|| within(micros / unit.micros(), min, max))
                    .flatten()
            }
            Kind::StatsInterval => match bool_word(text) {
                Some(true) => Some(60_000),
                Some(false) => Some(0),
                None => within(duration_us(text)? / 1000, 1_000, 86_400_000),
            },
            Kind::StoreSync => within(duration_us(text)? / 1000, 1, 3_600_000),
            Kind::Percent => {
                within(digits(text.strip_suffix('%').unwrap_or(text).trim_end())?, 0, 100)
            }
            Kind::Permille { min, max } => within(permille(text)?, min, max),
            _ => None,
        }
    }

    fn show_number(&self, n: u64) -> String {
        match *self {
            Kind::Limit { .. } | Kind::Duration { infinity: true, .. } if n == UNLIMITED => {
                "infinity".into()
            }
            Kind::Bytes { .. } => show_bytes(n),
            Kind::Duration { unit, .. } => show_duration(n, unit),
            Kind::StatsInterval if n == 0 => "off".into(),
            Kind::StatsInterval | Kind::StoreSync => show_duration(n, TimeUnit::Ms),
            Kind::Percent => format!("{n}%"),
            Kind::Permille { .. } => show_permille(n),
            _ => n.to_string(),
        }
    }
}

/// A type a field of the settings may have.
pub(crate) trait Setting: Sized {
    /// Reads the text of a value; `None` if `kind` does not allow it.
    fn parse(text: &str, kind: &Kind) -> Option<Self>;
    /// The value as canonical text, which `parse` accepts.
    fn show(&self, kind: &Kind) -> String;
}

macro_rules! number_setting {
    ($($ty:ty),*) => {$(
        impl Setting for $ty {
            fn parse(text: &str, kind: &Kind) -> Option<Self> {
                match kind.number(text)? {
                    UNLIMITED => Some(<$ty>::MAX),
                    n => <$ty>::try_from(n).ok(),
                }
            }
            fn show(&self, kind: &Kind) -> String {
                // `usize` is at most 64 bits wide on every target this builds for.
                let n = u64::try_from(*self).unwrap_or(UNLIMITED);
                kind.show_number(if *self == <$ty>::MAX { UNLIMITED } else { n })
            }
        }
    )*};
}
number_setting!(u8, u16, u32, u64, usize);

impl Setting for StoreSync {
    fn parse(text: &str, kind: &Kind) -> Option<Self> {
        match text {
            "always" => Some(StoreSync::Always),
            "never" => Some(StoreSync::Never),
            _ => kind.number(text).map(StoreSync::EveryMs),
        }
    }
    fn show(&self, kind: &Kind) -> String {
        match *self {
            StoreSync::Always => "always".into(),
            StoreSync::EveryMs(interval_ms) => kind.show_number(interval_ms),
            StoreSync::Never => "never".into(),
        }
    }
}

impl Setting for bool {
    fn parse(text: &str, _: &Kind) -> Option<Self> {
        bool_word(text)
    }
    fn show(&self, _: &Kind) -> String {
        if *self { "on".into() } else { "off".into() }
    }
}

impl Setting for String {
    fn parse(text: &str, kind: &Kind) -> Option<Self> {
        let fits = match kind {
            Kind::UrlPath => {
                text.starts_with('/')
                    && text.bytes().all(|b| b.is_ascii_graphic())
                    && !text.contains(['?', '#'])
            }
            _ => true,
        };
        (fits && !text.is_empty() && is_plain(text)).then(|| text.to_owned())
    }
    fn show(&self, _: &Kind) -> String {
        self.clone()
    }
}

impl Setting for Option<String> {
    fn parse(text: &str, kind: &Kind) -> Option<Self> {
        let fits = match kind {
            Kind::Mountpoint => {
                text.len() <= 256 && !text.starts_with('$') && !text.contains(['+', '#'])
            }
            Kind::OptionalName => crate::listener::is_name(text),
            _ => true,
        };
        match text {
            "" | "none" => Some(None),
            _ => (fits && is_plain(text)).then(|| Some(text.to_owned())),
        }
    }
    fn show(&self, _: &Kind) -> String {
        self.clone().unwrap_or_else(|| "none".into())
    }
}

impl Setting for PathBuf {
    fn parse(text: &str, _: &Kind) -> Option<Self> {
        (!text.is_empty() && is_plain(text)).then(|| PathBuf::from(text))
    }
    fn show(&self, _: &Kind) -> String {
        self.display().to_string()
    }
}

/// The word for no file.
fn no_file(kind: &Kind) -> &'static str {
    if *kind == Kind::OptionalFile { "none" } else { "builtin" }
}

impl Setting for Option<PathBuf> {
    fn parse(text: &str, kind: &Kind) -> Option<Self> {
        if text.is_empty() || text == no_file(kind) {
            return Some(None);
        }
        is_plain(text).then(|| Some(PathBuf::from(text)))
    }
    fn show(&self, kind: &Kind) -> String {
        self.as_ref().map_or_else(|| no_file(kind).into(), |path| path.display().to_string())
    }
}

/// Words parted by commas.
impl Setting for Vec<String> {
    fn parse(text: &str, kind: &Kind) -> Option<Self> {
        if matches!(text, "" | "default") {
            return Some(Vec::new());
        }
        let known = |word: &str| match kind {
            Kind::List(Some(words)) => words.contains(&word),
            _ => true,
        };
        let mut list: Vec<String> = Vec::new();
        for word in text.split(',').map(str::trim) {
            let again = list.iter().any(|other| other == word);
            if word.is_empty() || again || !is_plain(word) || !known(word) {
                return None;
            }
            list.push(word.to_owned());
        }
        Some(list)
    }
    fn show(&self, _: &Kind) -> String {
        if self.is_empty() { "default".into() } else { self.join(",") }
    }
}

impl Setting for Priorities {
    fn parse(text: &str, _: &Kind) -> Option<Self> {
        Priorities::from_text(text)
    }
    fn show(&self, _: &Kind) -> String {
        self.to_string()
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= 4096 && !text.chars().any(char::is_control)
}

pub(crate) fn bool_word(text: &str) -> Option<bool> {
    match text {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

/// Digits only: `u64::from_str` would take a leading `+`.
pub(crate) fn digits(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten().filter(|&n| n != UNLIMITED)
}

/// Splits `64KB` into `64` and `KB`.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return None,
    };
    digits(number)?.checked_mul(1 << shift)
}

/// One or more `<number><unit>`; a bare number is in seconds, as in EMQ's files.
pub(crate) fn duration_us(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    loop {
        let (number, tail) = split_unit(rest);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let micros = match tail[..end].trim_end() {
            "" if total == 0 => 1_000_000,
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60 * 1_000_000,
            "h" => 3_600 * 1_000_000,
            "d" => 86_400 * 1_000_000,
            "w" => 604_800 * 1_000_000,
            _ => return None,
        };
        total = total.checked_add(digits(number)?.checked_mul(micros)?)?;
        rest = &tail[end..];
        if rest.is_empty() {
            return Some(total);
        }
    }
}

fn permille(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.len() > 3 {
        return None;
    }
    let scale = 10_u64.pow(3 - u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(1000)?.checked_add(digits(fraction)? * scale)
}

pub(crate) fn show_bytes(n: u64) -> String {
    match n {
        0 => "0".into(),
        _ if n.is_multiple_of(1 << 30) => format!("{}GB", n >> 30),
        _ if n.is_multiple_of(1 << 20) => format!("{}MB", n >> 20),
        _ if n.is_multiple_of(1 << 10) => format!("{}KB", n >> 10),
        _ => n.to_string(),
    }
}

fn show_duration(n: u64, unit: TimeUnit) -> String {
    let micros = u128::from(n) * u128::from(unit.micros());
    if micros == 0 {
        return "0s".into();
    }
    // Days are the largest: 90d is easier to read than 12w6d, and 14d as clear as 2w.
    for (name, size) in [
        ("d", 86_400_000_000_u128),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ] {
        // 60s and 90s stay seconds: that is how the keys have always been written.
        if micros % size == 0 && (name != "m" || micros >= 120_000_000) {
            return format!("{}{name}", micros / size);
        }
    }
    unreachable!("every duration is a whole number of microseconds")
}

/// Reads a duration as settings have it, `1h30m`, in seconds; parts of a second are cut.
#[must_use]
pub fn duration_seconds(text: &str) -> Option<u64> {
    Some(duration_us(text)? / 1_000_000)
}

/// Milliseconds as a duration.
pub(crate) fn show_ms(ms: u64) -> String {
    show_duration(ms, TimeUnit::Ms)
}

fn show_permille(n: u64) -> String {
    let text = format!("{}.{:03}", n / 1000, n % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
