//! `access.N` of a listener: who may connect, by address (SEED-LSN-08).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The forms of a rule, for error messages and the reference.
pub(crate) const ACCESS_ALLOWED: &str = "allow or deny, then all, an address or a CIDR";
/// Example for [`ACCESS_ALLOWED`].
pub(crate) const ACCESS_EXAMPLE: &str = "allow 192.168.0.0/24, or deny all";
/// Documentation of the rules.
pub(crate) const ACCESS_DOC: &str = "Who may connect, by address: allow or deny, then all, an address or a CIDR of IPv4 or IPv6. \
    The first rule that fits, in order of the numbers, decides; a client that none fits may connect. The address is that of \
    the TCP peer; behind a proxy (PROXY protocol, X-Forwarded-For) the client's own address must be allowed as well.";
/// Most rules of a listener: each connection may be compared with all of them.
pub(crate) const RULES_MAX: usize = 1000;

/// A block of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cidr {
    network: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `10.0.0.1`, `2001:db8::/32`. Bits behind the prefix are passed over. IPv4 inside IPv6 is IPv4.
    #[must_use]
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix {
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
            None => bits,
        };
        if prefix_len > bits {
            return None;
        }
        let (address, prefix_len) = match (address.to_canonical(), address) {
            (IpAddr::V4(v4), IpAddr::V6(_)) if prefix_len >= 96 => {
                (IpAddr::V4(v4), prefix_len - 96)
            }
            _ => (address, prefix_len),
        };
        Some(Cidr { network: masked(address, prefix_len), prefix_len })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4()
            && masked(address, self.prefix_len) == self.network
    }
}

/// An address with the bits behind the prefix cleared.
fn masked(address: IpAddr, prefix_len: u8) -> IpAddr {
    let prefix_len = u32::from(prefix_len);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix_len).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// One rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AccessRule {
    /// Whether it lets in whom it fits.
    pub allow: bool,
    /// Whom it fits; `None`: all.
    pub who: Option<Cidr>,
}

impl AccessRule {
    pub(crate) fn parse(text: &str) -> Option<AccessRule> {
        let mut words = text.split_ascii_whitespace();
        let allow = match words.next()? {
            "allow" => true,
            "deny" => false,
            _ => return None,
        };
        let who = match words.next()? {
            "all" => None,
            address => Some(Cidr::parse(address)?),
        };
        words.next().is_none().then_some(AccessRule { allow, who })
    }
}

impl fmt::Display for AccessRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allow { "allow" } else { "deny" };
        match self.who {
            Some(who) => write!(f, "{word} {who}"),
            None => write!(f, "{word} all"),
        }
    }
}

/// The rules of a listener, in the order of their numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AccessRules(Vec<(u32, AccessRule)>);

impl AccessRules {
    /// Whether a client from this address may connect. The first rule that fits decides; if none does, it may, as in EMQ.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let fits = |rule: &AccessRule| rule.who.is_none_or(|who| who.contains(address));
        self.0.iter().map(|(_, rule)| rule).find(|rule| fits(rule)).is_none_or(|rule| rule.allow)
    }

    /// The rules and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, AccessRule)> + '_ {
        self.0.iter().copied()
    }

    /// Sets a rule; false if there are too many.
    pub(crate) fn set(&mut self, number: u32, rule: AccessRule) -> bool {
        match self.0.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => self.0[place].1 = rule,
            Err(_) if self.0.len() >= RULES_MAX => return false,
            Err(place) => self.0.insert(place, (number, rule)),
        }
        true
    }

    /// Whether there are rules and none of them can keep anybody out.
    pub(crate) fn is_idle(&self) -> bool {
        let all_let_in = self.0.iter().all(|(_, rule)| rule.allow);
        all_let_in && self.0.iter().any(|(_, rule)| rule.who.is_some())
    }
}

/// The number of `access.<number>`.
pub(crate) fn number(option: &str) -> Option<u32> {
    let digits = option.strip_prefix("access.")?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_hold_their_addresses() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("::/0", "fe80::1", "10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
        ] {
            let block = Cidr::parse(block).expect(block);
            assert!(block.contains(ip(inside)), "{block} {inside}");
            assert!(!block.contains(ip(outside)), "{block} {outside}");
        }
        for text in
            ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "host", "/8"]
        {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let mut rules = AccessRules::default();
        assert!(rules.allows(ip("10.0.0.1")) && !rules.is_idle());
        for (number, text) in [(10, "deny all"), (2, "allow 10.0.0.0/8"), (1, "deny 10.0.0.66")] {
            assert!(rules.set(number, AccessRule::parse(text).expect(text)));
        }
        assert!(rules.allows(ip("10.0.0.1")));
        assert!(!rules.allows(ip("10.0.0.66")) && !rules.allows(ip("::1")));
        assert!(!rules.is_idle());
        let shown: Vec<_> = rules.iter().map(|(number, rule)| format!("{number} {rule}")).collect();
        assert_eq!(shown, ["1 deny 10.0.0.66/32", "2 allow 10.0.0.0/8", "10 deny all"]);
        for text in ["", "allow", "allow all all", "permit all", "deny 1.2.3.4/40", "all"] {
            assert_eq!(AccessRule::parse(text), None, "{text}");
        }
        assert_eq!(
            (number("access.12"), number("access."), number("access.x")),
            (Some(12), None, None)
        );
    }
}
