//! Rates: so many bytes, messages or connections in a time, and how many may be saved up (SEED-LSN-09, SEED-LSN-22).

use crate::kind::{Kind, Setting, bytes, digits, duration_us, show_bytes, show_ms};

/// Largest count and burst: with the longest time they still fit the arithmetic of a token bucket in 64 bits.
const COUNT_MAX: u64 = 1 << 34;
/// Longest time a count may be about.
const PER_MS_MAX: u64 = 86_400_000;
/// EMQ 2.x counts a rate in KB.
const EMQ_UNIT: u64 = 1024;

/// `count` in every `per_ms` milliseconds; what is not used is saved, up to `burst`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In how many milliseconds.
    pub per_ms: u64,
    /// How many may come at once after a quiet time.
    pub burst: u64,
}

/// The words for no limit.
fn is_none(text: &str) -> bool {
    matches!(text, "" | "none" | "off" | "infinity")
}

/// `s`, `10s`, `1m`: a time whose number may be left out.
fn per_ms(text: &str) -> Option<u64> {
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let micros = if bare { duration_us(&format!("1{text}"))? } else { duration_us(text)? };
    (micros % 1000 == 0).then_some(micros / 1000)
}

impl Rate {
    fn checked(count: u64, per_ms: u64, burst: u64) -> Option<Rate> {
        let fits = |n: u64| (1..=COUNT_MAX).contains(&n);
        (fits(count) && fits(burst) && (1..=PER_MS_MAX).contains(&per_ms)).then_some(Rate {
            count,
            per_ms,
            burst,
        })
    }

    /// `100/s`, `100/s,500`, `10/1m`, and `100`, which is by the second.
    fn of_counts(text: &str) -> Option<Rate> {
        let (rate, burst) = split(text);
        let (count, per_ms) = match rate.split_once('/') {
            Some((count, time)) => (digits(count.trim_end())?, per_ms(time.trim_start())?),
            None => (digits(rate)?, 1000),
        };
        Rate::checked(count, per_ms, burst.map_or(Some(count), digits)?)
    }

    /// `10KB/s`, `10KB/s,100KB`; `100,10` of EMQ 2.x, which is burst and rate in KB a second; `100KB,10s` of EMQX 4.
    fn of_bytes(text: &str) -> Option<Rate> {
        let (rate, burst) = split(text);
        if let Some((count, time)) = rate.split_once('/') {
            let count = bytes(count.trim_end())?;
            return Rate::checked(
                count,
                per_ms(time.trim_start())?,
                burst.map_or(Some(count), bytes)?,
            );
        }
        let second = burst?;
        if let (Some(burst), Some(rate)) = (digits(rate), digits(second)) {
            return Rate::checked(rate.checked_mul(EMQ_UNIT)?, 1000, burst.checked_mul(EMQ_UNIT)?);
        }
        let count = bytes(rate)?;
        // A bare number behind a size could be meant as anything.
        digits(second).is_none().then(|| Rate::checked(count, per_ms(second)?, count)).flatten()
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(',') {
        Some((first, second)) => (first.trim(), Some(second.trim())),
        None => (text.trim(), None),
    }
}

impl Setting for Option<Rate> {
    fn parse(text: &str, kind: &Kind) -> Option<Self> {
        if is_none(text) {
            return Some(None);
        }
        match kind {
            Kind::ByteRate => Rate::of_bytes(text).map(Some),
            _ => Rate::of_counts(text).map(Some),
        }
    }

    fn show(&self, kind: &Kind) -> String {
        let Some(rate) = self else { return "none".into() };
        let number = |n: u64| match kind {
            Kind::ByteRate => show_bytes(n),
            _ => n.to_string(),
        };
        let time = if rate.per_ms == 1000 { "s".to_owned() } else { show_ms(rate.per_ms) };
        format!("{}/{time},{}", number(rate.count), number(rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str, kind: &Kind) -> Option<(u64, u64, u64)> {
        let rate = <Option<Rate>>::parse(text, kind)?;
        // What is shown is read as the same.
        assert_eq!(<Option<Rate>>::parse(&rate.show(kind), kind), Some(rate), "{text}");
        rate.map(|rate| (rate.count, rate.per_ms, rate.burst))
    }

    #[test]
    fn counts() {
        let kind = Kind::CountRate { what: "messages" };
        for (text, expected) in [
            ("100", (100, 1000, 100)),
            ("100/s", (100, 1000, 100)),
            ("100 / s , 500", (100, 1000, 500)),
            ("1/10s", (1, 10_000, 1)),
            ("10/m,3", (10, 60_000, 3)),
            ("5/100ms", (5, 100, 5)),
        ] {
            assert_eq!(rate(text, &kind), Some(expected), "{text}");
        }
        assert_eq!(<Option<Rate>>::parse("none", &kind), Some(None));
        for text in ["0", "-1", "1/0s", "1/2d", "1/s,0", "x", "1/", "1KB/s", "1,", "/s"] {
            assert_eq!(<Option<Rate>>::parse(text, &kind), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("100,10", (10 << 10, 1000, 100 << 10)),
            ("10KB/s", (10 << 10, 1000, 10 << 10)),
            ("10KB/s,1MB", (10 << 10, 1000, 1 << 20)),
            ("100KB,10s", (100 << 10, 10_000, 100 << 10)),
            ("1000/10s", (1000, 10_000, 1000)),
        ] {
            assert_eq!(rate(text, &Kind::ByteRate), Some(expected), "{text}");
        }
        for text in ["10", "10KB", "10KB,10", "0,1", "1,0", "1,2,3", "10XB/s", "17GB/s"] {
            assert_eq!(<Option<Rate>>::parse(text, &Kind::ByteRate), None, "{text}");
        }
    }
}
