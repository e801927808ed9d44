//! Version 2: binary (section 2.2).

use super::crc32c::crc32c;
use super::{Progress, ProxyError, ProxyHeader};
use crate::peer::{ProxyInfo, ProxyTls};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_LEN: usize = 16;

/// Both addresses of a Unix socket.
const UNIX_LEN: usize = 216;

// Types of TLVs (section 2.2.1 ff.).
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;

/// Bits of the `client` byte: a certificate came on this connection, or on the session it resumes.
const CLIENT_CERTIFICATE: u8 = 0x02 | 0x04;
const UNIQUE_ID_LEN_MAX: usize = 128;

/// Parses a header that begins as [`SIGNATURE`] does, as far as it goes.
pub(super) fn parse(bytes: &[u8], len_max: usize) -> Result<Progress, ProxyError> {
    // Each of these is looked at as soon as it is there: garbage is not waited for.
    let Some(&version_command) = bytes.get(12) else { return Ok(Progress::Partial) };
    if version_command >> 4 != 2 {
        return Err(ProxyError::Version(version_command >> 4));
    }
    let local = match version_command & 0x0F {
        0 => true,
        1 => false,
        other => return Err(ProxyError::Command(other)),
    };
    let Some(fixed) = bytes.first_chunk::<FIXED_LEN>() else { return Ok(Progress::Partial) };
    let len = FIXED_LEN + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > len_max {
        return Err(ProxyError::V2TooLong { len, max: len_max });
    }
    let Some(header) = bytes.get(..len) else { return Ok(Progress::Partial) };
    if local {
        // "must discard the protocol block including the family which is ignored".
        return Ok(Progress::Whole(len, ProxyHeader::default()));
    }
    if fixed[13] >> 4 == 0 {
        // AF_UNSPEC: what is there may be addresses of whatever length, which are to be ignored, or TLVs. A block that is no list
        // of TLVs is the former.
        let info = match read_tlvs(header, &header[FIXED_LEN..]) {
            Err(ProxyError::Checksum) => return Err(ProxyError::Checksum),
            other => other.unwrap_or_default(),
        };
        return Ok(Progress::Whole(len, ProxyHeader { info, ..ProxyHeader::default() }));
    }
    let mut said = ProxyHeader::default();
    let tlvs = addresses(fixed[13], &header[FIXED_LEN..], &mut said)?;
    said.info = read_tlvs(header, tlvs)?;
    Ok(Progress::Whole(len, said))
}

/// Reads the addresses; the rest of the block.
fn addresses<'a>(
    family: u8,
    block: &'a [u8],
    said: &mut ProxyHeader,
) -> Result<&'a [u8], ProxyError> {
    // Upper half: AF_INET, AF_INET6, AF_UNIX. Lower half: UNSPEC, STREAM, DGRAM.
    let (len, stream) = match (family >> 4, family & 0x0F) {
        (1, kind @ 0..=2) => (12, kind == 1),
        (2, kind @ 0..=2) => (36, kind == 1),
        (3, 0..=2) => (UNIX_LEN, false),
        _ => return Err(ProxyError::Family(family)),
    };
    let (block, tlvs) = block.split_at_checked(len).ok_or(ProxyError::AddressesCut)?;
    // What is assigned but no TCP tells nothing about a client of ours: the proxy's own address is kept.
    if stream {
        let ip_len = (len - 4) / 2;
        let (ips, ports) = block.split_at(2 * ip_len);
        let (source, destination) = ips.split_at(ip_len);
        said.source = socket_address(source, &ports[..2]);
        said.destination = socket_address(destination, &ports[2..]);
    }
    Ok(tlvs)
}

fn socket_address(ip: &[u8], port: &[u8]) -> Option<SocketAddr> {
    let ip = match ip.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?)))
}

/// Cuts the first TLV off: its type, its value, what follows.
fn split_tlv(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), ProxyError> {
    let (&[kind, high, low], rest) = bytes.split_first_chunk().ok_or(ProxyError::TlvCut)?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let (value, rest) = rest.split_at_checked(len).ok_or(ProxyError::TlvCut)?;
    Ok((kind, value, rest))
}

fn text(value: &[u8], what: &'static str) -> Result<Option<Box<str>>, ProxyError> {
    let text = std::str::from_utf8(value).map_err(|_| ProxyError::TlvNotUtf8(what))?;
    Ok(Some(text.into()))
}

/// `tlvs` is the end of `header`.
fn read_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<Option<Box<ProxyInfo>>, ProxyError> {
    let mut info = ProxyInfo::default();
    while !tlvs.is_empty() {
        let (kind, value, rest) = split_tlv(tlvs)?;
        match kind {
            ALPN => info.alpn = text(value, "protocol (ALPN)")?,
            AUTHORITY => info.authority = text(value, "host name (authority)")?,
            CRC32C => check_crc(header, value, rest.len())?,
            UNIQUE_ID if value.len() > UNIQUE_ID_LEN_MAX => return Err(ProxyError::TlvCut),
            UNIQUE_ID => info.unique_id = Some(value.into()),
            SSL => info.tls = Some(Box::new(read_ssl(value)?)),
            // "must be ignored": padding, namespaces, types of the user's own and of the future.
            _ => {}
        }
        tlvs = rest;
    }
    Ok((info != ProxyInfo::default()).then(|| Box::new(info)))
}

/// Section 2.2.3: the checksum is that of the header with zeros where it stands.
fn check_crc(header: &[u8], value: &[u8], behind: usize) -> Result<(), ProxyError> {
    let sent = <[u8; 4]>::try_from(value).map_err(|_| ProxyError::TlvCut)?;
    let end = header.len() - behind;
    let is = crc32c(&[&header[..end - 4], &[0; 4], &header[end..]]);
    if is == u32::from_be_bytes(sent) { Ok(()) } else { Err(ProxyError::Checksum) }
}

/// Section 2.2.6.
fn read_ssl(value: &[u8]) -> Result<ProxyTls, ProxyError> {
    let (&[client, verify @ ..], mut tlvs) =
        value.split_first_chunk::<5>().ok_or(ProxyError::TlvCut)?;
    // `verify` is zero also if there was no certificate to verify.
    let verified = client & CLIENT_CERTIFICATE != 0 && verify == [0; 4];
    let mut tls = ProxyTls { verified, ..ProxyTls::default() };
    while !tlvs.is_empty() {
        let (kind, value, rest) = split_tlv(tlvs)?;
        match kind {
            SSL_VERSION => tls.version = text(value, "TLS version")?,
            SSL_CIPHER => tls.cipher = text(value, "TLS cipher")?,
            // A name nobody has verified must not become a user name.
            SSL_CN if verified => tls.common_name = text(value, "common name")?,
            _ => {}
        }
        tlvs = rest;
    }
    Ok(tls)
}
