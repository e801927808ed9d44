//! The opening handshake (section 4.2): the request is collected, then checked.

use super::error::{Refusal, WebSocketError};
use super::settings::{ForwardedSettings, WebSocketSettings};
use crate::peer::{PeerInfo, Subprotocol, WebSocketInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

const END: &[u8] = b"\r\n\r\n";
/// What section 1.3 appends to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How far a request has come.
#[derive(Debug)]
pub(super) enum Head<'a> {
    /// It goes on; all bytes were taken.
    Partial,
    /// It is whole, and took this many of the bytes given last.
    Whole(usize, Cow<'a, [u8]>),
}

/// Collects the bytes of a request up to the empty line.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    head: Vec<u8>,
}

impl HeadReader {
    /// Takes bytes of the request and never more than it has.
    pub(super) fn received<'a>(
        &mut self,
        raw: &'a [u8],
        settings: &WebSocketSettings,
    ) -> Result<Head<'a>, WebSocketError> {
        let before = self.head.len();
        // LSN-21: what cannot become a request is not waited for. An empty line may precede one (RFC 9112, 2.2).
        if let Some(first) = raw.first()
            && before == 0
            && !(first.is_ascii_alphabetic() || matches!(first, b'\r' | b'\n'))
        {
            return Err(WebSocketError::NotHttp);
        }
        let raw = &raw[..raw.len().min(settings.head_len_max - before.min(settings.head_len_max))];
        if before == 0
            && let Some(at) = find_end(raw)
        {
            return Ok(Head::Whole(at, Cow::Borrowed(&raw[..at])));
        }
        self.head.extend_from_slice(raw);
        // What was there before has no end in it: a request in thousands of pieces is not searched thousands of times.
        let from = before.saturating_sub(END.len() - 1);
        if let Some(at) = find_end(&self.head[from..]) {
            let mut head = std::mem::take(&mut self.head);
            head.truncate(from + at);
            return Ok(Head::Whole(from + at - before, Cow::Owned(head)));
        }
        if self.head.len() >= settings.head_len_max {
            return Err(Refusal::HeadTooLong(settings.head_len_max).into());
        }
        Ok(Head::Partial)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.head.capacity()
    }
}

/// Where the bytes behind the empty line begin.
fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(END.len()).position(|window| window == END).map(|at| at + END.len())
}

/// A request that may become a WebSocket.
#[derive(Debug)]
pub(super) struct Request {
    /// What to answer to the key.
    pub(super) accept: String,
    pub(super) info: WebSocketInfo,
    forwarded: Option<SocketAddr>,
}

impl Request {
    /// Tells what is now known about the peer.
    pub(super) fn tell(self, peer: &mut Option<Box<PeerInfo>>) {
        let peer = peer.get_or_insert_default();
        if self.forwarded.is_some() {
            peer.address = self.forwarded;
        }
        peer.websocket = Some(Box::new(self.info));
    }
}

/// Parses a whole request and checks it (4.2.1, 4.2.2).
pub(super) fn check(head: &[u8], settings: &WebSocketSettings) -> Result<Request, Refusal> {
    let mut headers = vec![httparse::EMPTY_HEADER; settings.headers_max];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::Malformed("it is empty")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::TooManyHeaders(settings.headers_max));
        }
        Err(httparse::Error::Version) => return Err(Refusal::Malformed("its version")),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Refusal::Malformed("a header"));
        }
        Err(_) => return Err(Refusal::Malformed("its first line")),
    }
    let target = request.path.unwrap_or_default();
    let version = request.version;
    let method = request.method.unwrap_or_default();
    let headers = Headers(request.headers);

    if method != "GET" {
        return Err(Refusal::Method);
    }
    let path = path(target);
    if path != settings.path {
        return Err(Refusal::Path(path.to_owned()));
    }
    if !headers.has_token("Upgrade", "websocket") {
        return Err(Refusal::PlainHttp);
    }
    if version != Some(1) {
        return Err(Refusal::Malformed("its version is 1.0, a WebSocket needs 1.1"));
    }
    if !headers.has_token("Connection", "upgrade") {
        return Err(Refusal::Malformed("no 'Connection: Upgrade'"));
    }
    // First of all: what another version's other headers look like nobody knows (4.4).
    if headers.one("Sec-WebSocket-Version") != Ok(Some("13")) {
        return Err(Refusal::Version);
    }
    let host = headers.one("Host")?.ok_or(Refusal::Malformed("no Host"))?;
    let key =
        headers.one("Sec-WebSocket-Key")?.ok_or(Refusal::Malformed("no Sec-WebSocket-Key"))?;
    let accept = accept(key)?;
    let origin = headers.one("Origin")?;
    check_origin(origin, settings)?;
    let subprotocol = headers.tokens("Sec-WebSocket-Protocol").find_map(Subprotocol::from_name);
    if subprotocol.is_none() && settings.subprotocol_required {
        return Err(Refusal::Subprotocol);
    }
    let cookies = headers.all("Cookie").collect::<Vec<_>>().join("; ");
    let info = WebSocketInfo {
        target: target.into(),
        subprotocol,
        origin: origin.map(Into::into),
        host: Some(host.into()),
        cookies: (!cookies.is_empty()).then(|| cookies.into()),
    };
    let forwarded = settings.forwarded.as_ref().and_then(|settings| headers.forwarded(settings));
    Ok(Request { accept, info, forwarded })
}

/// The path in a target, which is `/path?query` or, from a proxy, `http://host/path?query` (4.2.1 (1)).
fn path(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    target.split('?').next().unwrap_or_default()
}

/// The answer to a key, which must be 16 bytes in base64 (4.2.1 (5), 4.2.2 (5.4)).
pub(super) fn accept(key: &str) -> Result<String, Refusal> {
    let mut bytes = [0; 18];
    if STANDARD.decode_slice(key, &mut bytes) != Ok(16) {
        return Err(Refusal::Malformed("a Sec-WebSocket-Key that is not 16 bytes in base64"));
    }
    let mut sha1 = sha1_smol::Sha1::from(key);
    sha1.update(GUID.as_bytes());
    Ok(STANDARD.encode(sha1.digest().bytes()))
}

fn check_origin(origin: Option<&str>, settings: &WebSocketSettings) -> Result<(), Refusal> {
    let Some(rule) = &settings.origins else { return Ok(()) };
    let allowed = match origin {
        Some(origin) => rule.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        None => rule.absent_allowed,
    };
    if allowed { Ok(()) } else { Err(Refusal::Origin(origin.unwrap_or("not given").to_owned())) }
}

/// The headers of a request.
struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    /// The values of all headers of this name, as far as they are UTF-8.
    fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let named = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.filter_map(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    }

    /// The value of the only header of this name.
    fn one(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() { Err(Refusal::Malformed("a header twice")) } else { Ok(first) }
    }

    /// The elements of all lists of this name.
    fn tokens(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.all(name).flat_map(|list| list.split(',')).map(str::trim)
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|is| is.eq_ignore_ascii_case(token))
    }

    /// The client's address as the proxies in front tell it. One that cannot be read is as none: the proxy's own stays.
    fn forwarded(&self, settings: &ForwardedSettings) -> Option<SocketAddr> {
        let said = self.tokens(&settings.address_header).nth_back(settings.hops.max(1) - 1)?;
        // Some write the port with it, with brackets around an IPv6 address.
        let mut address = said.parse::<SocketAddr>().ok().or_else(|| {
            let bare = said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let ip = bare.unwrap_or(said).parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(ip, 0))
        })?;
        if let Some(port) = self.tokens(&settings.port_header).next_back()
            && let Ok(port) = port.parse()
        {
            address.set_port(port);
        }
        Some(address)
    }
}
