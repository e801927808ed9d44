//! Version 1: one line for humans (section 2.1).

use super::{Progress, ProxyError, ProxyHeader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest line, with its CRLF.
pub(super) const LEN_MAX: usize = 107;
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// Parses a line that begins as [`SIGNATURE`] does, as far as it goes.
pub(super) fn parse(bytes: &[u8]) -> Result<Progress, ProxyError> {
    let head = &bytes[..bytes.len().min(LEN_MAX)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        let ended = bytes.len() >= LEN_MAX;
        return if ended { Err(ProxyError::V1TooLong) } else { Ok(Progress::Partial) };
    };
    if end < SIGNATURE.len() {
        return Err(ProxyError::V1Field("protocol"));
    }
    let line = std::str::from_utf8(&head[SIGNATURE.len()..end])
        .map_err(|_| ProxyError::V1Field("character"))?;
    Ok(Progress::Whole(end + 2, parse_line(line)?))
}

/// What stands between `PROXY ` and the end of the line.
fn parse_line(line: &str) -> Result<ProxyHeader, ProxyError> {
    let mut fields = line.split(' ');
    let (source, destination) = match fields.next() {
        // "the receiver must ignore anything presented before the CRLF".
        Some("UNKNOWN") => return Ok(ProxyHeader::default()),
        Some("TCP4") => (address::<Ipv4Addr>(fields.next())?, address::<Ipv4Addr>(fields.next())?),
        Some("TCP6") => (address::<Ipv6Addr>(fields.next())?, address::<Ipv6Addr>(fields.next())?),
        _ => return Err(ProxyError::V1Field("protocol")),
    };
    let (source_port, destination_port) = (port(fields.next())?, port(fields.next())?);
    if fields.next().is_some() {
        return Err(ProxyError::V1Field("number of fields"));
    }
    Ok(ProxyHeader {
        source: Some(SocketAddr::new(source, source_port)),
        destination: Some(SocketAddr::new(destination, destination_port)),
        info: None,
    })
}

fn address<A: std::str::FromStr + Into<IpAddr>>(field: Option<&str>) -> Result<IpAddr, ProxyError> {
    let parsed = field.and_then(|text| text.parse::<A>().ok());
    parsed.map(Into::into).ok_or(ProxyError::V1Field("address"))
}

/// Decimal, without sign and leading zeros.
fn port(field: Option<&str>) -> Result<u16, ProxyError> {
    let plain = |text: &&str| {
        text.bytes().all(|byte| byte.is_ascii_digit()) && (*text == "0" || !text.starts_with('0'))
    };
    field.filter(plain).and_then(|text| text.parse().ok()).ok_or(ProxyError::V1Field("port"))
}
