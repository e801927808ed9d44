//! Payload headers: what a publisher puts before its payload so that a subscriber sees losses and latencies.

/// One header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Header {
    /// 8 bytes, big-endian: counts the publisher's messages from 0.
    Count,
    /// 8 bytes, big-endian: milliseconds since the Unix epoch.
    Timestamp,
}

/// The headers in their order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers {
    list: [Option<Header>; 2],
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Read {
    /// `cnt64`
    pub count: Option<u64>,
    /// `ts`
    pub unix_ms: Option<u64>,
}

impl Headers {
    /// `cnt64,ts` and the like.
    pub fn parse(text: &str) -> Result<Headers, String> {
        let mut headers = Headers::default();
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        for name in names {
            let header = match name {
                "cnt64" => Header::Count,
                "ts" => Header::Timestamp,
                _ => return Err(format!("--payload-hdrs knows cnt64 and ts, not {name:?}")),
            };
            if headers.has(header) {
                return Err(format!("--payload-hdrs has {name} twice"));
            }
            let free = headers.list.iter_mut().find(|entry| entry.is_none());
            *free.expect("two headers, each once") = Some(header);
        }
        Ok(headers)
    }

    /// Whether this header is there.
    pub fn has(self, header: Header) -> bool {
        self.list.contains(&Some(header))
    }

    /// Whether there are any.
    pub fn is_empty(self) -> bool {
        self.list[0].is_none()
    }

    /// Appends them.
    pub fn write(self, out: &mut Vec<u8>, count: u64, unix_ms: u64) {
        for header in self.list.into_iter().flatten() {
            let value = match header {
                Header::Count => count,
                Header::Timestamp => unix_ms,
            };
            out.extend_from_slice(&value.to_be_bytes());
        }
    }

    /// Reads them; `None`: the payload is too short.
    pub fn read(self, payload: &[u8]) -> Option<Read> {
        let mut read = Read::default();
        for (index, header) in self.list.into_iter().flatten().enumerate() {
            let bytes = payload.get(8 * index..8 * index + 8)?;
            let value = u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
            match header {
                Header::Count => read.count = Some(value),
                Header::Timestamp => read.unix_ms = Some(value),
            }
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_in_the_order_given() {
        for (text, expected) in [
            ("cnt64,ts", [7u64, 9].as_slice()),
            ("ts,cnt64", &[9, 7]),
            (" ts ", &[9]),
            ("cnt64", &[7]),
            ("", &[]),
        ] {
            let headers = Headers::parse(text).expect("valid");
            let mut out = Vec::new();
            headers.write(&mut out, 7, 9);
            let expected: Vec<u8> = expected.iter().flat_map(|value| value.to_be_bytes()).collect();
            assert_eq!(out, expected, "{text:?}");
            out.extend_from_slice(b"rest");
            let read = headers.read(&out).expect("long enough");
            assert_eq!(read.count, headers.has(Header::Count).then_some(7));
            assert_eq!(read.unix_ms, headers.has(Header::Timestamp).then_some(9));
        }
    }

    #[test]
    fn short_payloads_and_other_names_are_refused() {
        let headers = Headers::parse("cnt64,ts").expect("valid");
        assert_eq!(headers.read(&[0; 15]), None);
        assert!(Headers::parse("cnt32").is_err());
        assert!(Headers::parse("ts,ts").is_err());
    }
}
