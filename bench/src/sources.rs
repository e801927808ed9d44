//! Source addresses: one address has a port range of its own towards the broker, so many clients need many.

use crate::error::BenchError;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

/// The first address that is taken for a loopback target when none is given.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
/// How many are taken at least, so that every run spreads its clients the same way.
const COUNT_MIN: u32 = 16;
/// How many are taken at most; they end before 127.1.0.0.
const COUNT_MAX: u32 = 65_000;
/// Addresses that are tried before the run.
const TRIED_MAX: usize = 1_024;
/// The kernel's range if it cannot be read.
const PORTS_DEFAULT: u32 = 28_000;

/// `a`, `a-b` and lists of both.
pub fn parse(text: &str) -> Result<Vec<Ipv4Addr>, BenchError> {
    let bad =
        || BenchError::Option(format!("--ifaddr takes A, A-B or a list of them, not {text:?}"));
    let parse = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| bad());
    let mut sources = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (u32::from(parse(first)?), u32::from(parse(last)?));
        if last < first || last - first >= 65_536 {
            return Err(bad());
        }
        sources.extend((first..=last).map(Ipv4Addr::from));
    }
    Ok(sources)
}

/// Whether connections can come from these addresses.
pub fn check(sources: &[Ipv4Addr]) -> Result<(), BenchError> {
    for source in sources.iter().take(TRIED_MAX) {
        UdpSocket::bind(SocketAddrV4::new(*source, 0)).map_err(|error| {
            BenchError::Option(format!(
                "--ifaddr: {source} is no address of this machine ({error})"
            ))
        })?;
    }
    Ok(())
}

/// The addresses for so many connections to `target` if none are given.
pub fn default_for(target: SocketAddrV4, connections: u64) -> Vec<Ipv4Addr> {
    if !target.ip().is_loopback() {
        return Vec::new();
    }
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    loopback(connections, ports(&range))
}

/// Ports of a range as the kernel writes it.
fn ports(range: &str) -> u32 {
    let mut bounds = range.split_whitespace().map_while(|word| word.parse::<u32>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        _ => PORTS_DEFAULT,
    }
}

/// Loopback addresses for so many connections of which each address carries as many as it has ports. A quarter of the ports
/// is left alone: looking for the last free ones is slow.
fn loopback(connections: u64, ports: u32) -> Vec<Ipv4Addr> {
    let each = u64::from(ports - ports / 4).max(1);
    let count = u32::try_from(connections.div_ceil(each)).unwrap_or(u32::MAX);
    let first = u32::from(FIRST);
    (first..first + count.clamp(COUNT_MIN, COUNT_MAX)).map(Ipv4Addr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_ranges_and_lists() {
        let sources = parse("127.0.1.254-127.0.2.1,127.0.0.9").expect("valid");
        let text: Vec<String> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["127.0.1.254", "127.0.1.255", "127.0.2.0", "127.0.2.1", "127.0.0.9"]);
        assert!(parse("127.0.0.2-127.0.0.1").is_err());
        assert!(parse("x").is_err());
    }

    #[test]
    fn a_foreign_address_is_named() {
        check(&loopback(1, 28_000)).expect("loopback is here");
        let error = check(&[Ipv4Addr::new(192, 0, 2, 7)]).expect_err("a documentation address");
        assert!(error.to_string().contains("192.0.2.7"), "{error}");
    }

    #[test]
    fn a_million_clients_take_as_many_addresses_as_their_ports_need() {
        assert_eq!(ports("32768\t60999\n"), 28_232);
        assert_eq!(ports("nonsense"), PORTS_DEFAULT);
        assert_eq!(loopback(1_000, 28_232).len(), 16);
        assert_eq!(loopback(1_000_000, 28_232).len(), 48);
        let many = loopback(u64::MAX, 1);
        assert_eq!(many.len(), 65_000);
        assert!(many.iter().all(|address| address.octets()[1] == 0));
    }
}
