use super::*;
use crate::peer::ProxyTls;
use proptest::prelude::*;

const SETTINGS: ProxySettings = ProxySettings { v2_len_max: 2048 };

fn whole(bytes: &[u8]) -> ProxyHeader {
    match parse(bytes, SETTINGS) {
        Ok(Progress::Whole(len, header)) => {
            assert_eq!(len, bytes.len());
            header
        }
        other => panic!("{other:?}"),
    }
}

fn refused(bytes: &[u8]) -> ProxyError {
    parse(bytes, SETTINGS).unwrap_err()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], value].concat()
}

fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&v2::SIGNATURE[..], &[version_command, family], &len, block].concat()
}

const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x07, 0x5B];

#[test]
fn v1_addresses() {
    let header = whole(b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 1883\r\n");
    assert_eq!(header.source, Some("192.0.2.1:12345".parse().unwrap()));
    assert_eq!(header.destination, Some("198.51.100.2:1883".parse().unwrap()));
    let header = whole(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n");
    assert_eq!(header.source, Some("[2001:db8::1]:0".parse().unwrap()));
    assert_eq!(header.destination, Some("[::1]:65535".parse().unwrap()));
    assert_eq!(whole(b"PROXY UNKNOWN\r\n"), ProxyHeader::default());
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), v1::LEN_MAX);
    assert_eq!(whole(longest), ProxyHeader::default());
}

#[test]
fn v1_refused() {
    for (line, error) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 12345\r\n", ProxyError::V1Field("port")),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 +1 1\r\n", ProxyError::V1Field("port")),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 01 1\r\n", ProxyError::V1Field("port")),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 65536 1\r\n", ProxyError::V1Field("port")),
        ("PROXY TCP4  192.0.2.1 198.51.100.2 1 1\r\n", ProxyError::V1Field("address")),
        ("PROXY TCP4 ::1 ::1 1 1\r\n", ProxyError::V1Field("address")),
        ("PROXY TCP6 192.0.2.1 ::1 1 1\r\n", ProxyError::V1Field("address")),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 1 \r\n", ProxyError::V1Field("number of fields")),
        ("PROXY UDP4 192.0.2.1 198.51.100.2 1 1\r\n", ProxyError::V1Field("protocol")),
        ("PROXY \r\n", ProxyError::V1Field("protocol")),
        ("PROXY\r\n", ProxyError::Missing),
        ("proxy UNKNOWN\r\n", ProxyError::Missing),
        ("\x10\x0c", ProxyError::Missing),
    ] {
        assert_eq!(refused(line.as_bytes()), error, "{line}");
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat();
    assert_eq!(parse(&endless[..106], SETTINGS), Ok(Progress::Partial));
    assert_eq!(refused(&endless), ProxyError::V1TooLong);
}

#[test]
fn v2_addresses() {
    let header = whole(&v2(0x21, 0x11, &TCP4));
    assert_eq!(header.source, Some("192.0.2.1:12345".parse().unwrap()));
    assert_eq!(header.destination, Some("198.51.100.2:1883".parse().unwrap()));
    assert_eq!(header.info, None);
    let mut tcp6 = [0; 36];
    (tcp6[15], tcp6[31], tcp6[33], tcp6[35]) = (1, 2, 3, 4);
    let header = whole(&v2(0x21, 0x21, &tcp6));
    assert_eq!(header.source, Some("[::1]:3".parse().unwrap()));
    assert_eq!(header.destination, Some("[::2]:4".parse().unwrap()));
    // A health check, an unknown, a Unix socket and UDP have no address of a client.
    for (command, family, block) in
        [(0x20, 0xFF, &[7; 9][..]), (0x21, 0, &[]), (0x21, 0x31, &[1; 216]), (0x21, 0x12, &TCP4)]
    {
        assert_eq!(whole(&v2(command, family, block)), ProxyHeader::default());
    }
}

#[test]
fn v2_tlvs() {
    let ssl = [
        &[0x01 | 0x02, 0, 0, 0, 0][..],
        &tlv(0x21, b"TLSv1.3"),
        &tlv(0x22, b"device-7"),
        &tlv(0x23, b"TLS_AES_128_GCM_SHA256"),
        &tlv(0x25, b"EC256"),
    ]
    .concat();
    let block = [
        &TCP4[..],
        &tlv(0x01, b"mqtt"),
        &tlv(0x02, b"broker.example"),
        &tlv(0x04, &[0; 5]),
        &tlv(0x05, &[9; 16]),
        &tlv(0x20, &ssl),
        &tlv(0xEA, b"aws"),
    ]
    .concat();
    let info = whole(&v2(0x21, 0x11, &block)).info.unwrap();
    let tls = ProxyTls {
        version: Some("TLSv1.3".into()),
        cipher: Some("TLS_AES_128_GCM_SHA256".into()),
        verified: true,
        common_name: Some("device-7".into()),
    };
    assert_eq!(
        *info,
        ProxyInfo {
            alpn: Some("mqtt".into()),
            authority: Some("broker.example".into()),
            unique_id: Some([9; 16].into()),
            tls: Some(Box::new(tls)),
        }
    );
}

#[test]
fn v2_common_name_only_if_verified() {
    for (client, verify, known) in
        [(0x03, 0, true), (0x05, 0, true), (0x01, 0, false), (0x03, 19, false)]
    {
        let ssl = [&[client, 0, 0, 0, verify][..], &tlv(0x22, b"cn")].concat();
        let block = [&TCP4[..], &tlv(0x20, &ssl)].concat();
        let tls = whole(&v2(0x21, 0x11, &block)).info.unwrap().tls.unwrap();
        assert_eq!(tls.common_name.is_some(), known, "{client} {verify}");
    }
}

#[test]
fn v2_checksum() {
    let mut header =
        v2(0x21, 0x11, &[&TCP4[..], &tlv(0x03, &[0; 4]), &tlv(0x02, b"name")].concat());
    let crc = crc32c::crc32c(&[&header]);
    header[31..35].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(whole(&header).info.unwrap().authority.as_deref(), Some("name"));
    for place in [16, 31, 40] {
        let mut changed = header.clone();
        changed[place] ^= 1;
        assert_eq!(refused(&changed), ProxyError::Checksum, "{place}");
    }
}

/// "The receiver should ignore address information" of AF_UNSPEC (section 2.2, byte 14), however long it is.
#[test]
fn v2_unspecified_family() {
    for family in [0x00, 0x01, 0x02] {
        for block in [&TCP4[..], &[0x7F; 36], &[0xFF; 216], &[9; 5], &[0; 12], &[1, 0, 200, 1]] {
            assert_eq!(whole(&v2(0x21, family, block)), ProxyHeader::default(), "{block:x?}");
        }
    }
    // A list of TLVs is one, and its checksum counts.
    let mut header = v2(0x21, 0, &[tlv(0x03, &[0; 4]), tlv(0x02, b"name")].concat());
    let crc = crc32c::crc32c(&[&header]);
    header[19..23].copy_from_slice(&crc.to_be_bytes());
    let said = whole(&header);
    assert_eq!(said.info.unwrap().authority.as_deref(), Some("name"));
    assert_eq!((said.source, said.destination), (None, None));
    header[20] ^= 1;
    assert_eq!(refused(&header), ProxyError::Checksum);
}

#[test]
fn v2_refused() {
    for (bytes, error) in [
        (v2(0x11, 0x11, &TCP4), ProxyError::Version(1)),
        (v2(0x22, 0x11, &TCP4), ProxyError::Command(2)),
        (v2(0x21, 0x41, &TCP4), ProxyError::Family(0x41)),
        (v2(0x21, 0x13, &TCP4), ProxyError::Family(0x13)),
        (v2(0x21, 0x11, &TCP4[..11]), ProxyError::AddressesCut),
        (v2(0x21, 0x11, &[&TCP4[..], &[1, 0]].concat()), ProxyError::TlvCut),
        (v2(0x21, 0x11, &[&TCP4[..], &[1, 0, 2, b'x']].concat()), ProxyError::TlvCut),
        (v2(0x21, 0x11, &[&TCP4[..], &tlv(0x03, &[0; 3])].concat()), ProxyError::TlvCut),
        (v2(0x21, 0x11, &[&TCP4[..], &tlv(0x05, &[0; 129])].concat()), ProxyError::TlvCut),
        (v2(0x21, 0x11, &[&TCP4[..], &tlv(0x20, &[0; 4])].concat()), ProxyError::TlvCut),
        (
            v2(0x21, 0x11, &[&TCP4[..], &tlv(0x02, &[0xFF])].concat()),
            ProxyError::TlvNotUtf8("host name (authority)"),
        ),
        (v2(0x21, 0x11, &[0; 2033]), ProxyError::V2TooLong { len: 2049, max: 2048 }),
    ] {
        assert_eq!(refused(&bytes), error, "{bytes:x?}");
        assert!(error.reason().starts_with("proxy_"));
    }
}

/// Feeds `bytes` in pieces; what came of it and how many bytes it took.
fn feed(bytes: &[u8], cuts: &[usize]) -> Result<Option<(usize, ProxyHeader)>, ProxyError> {
    let mut reader = ProxyReader::default();
    let mut at = 0;
    let ends = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]);
    for end in ends.collect::<std::collections::BTreeSet<_>>() {
        if let Progress::Whole(taken, header) = reader.received(&bytes[at..end], SETTINGS)? {
            return Ok(Some((at + taken, header)));
        }
        at = end;
        assert!(reader.heap_bytes() <= 2 * SETTINGS.v2_len_max);
    }
    Ok(None)
}

fn a_header() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 1883\r\n".to_vec()),
        Just(b"PROXY UNKNOWN\r\n".to_vec()),
        proptest::collection::vec(
            (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)),
            0..5
        )
        .prop_map(|tlvs| {
            let tlvs = tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value));
            v2(0x21, 0x11, &TCP4.into_iter().chain(tlvs).collect::<Vec<_>>())
        }),
        (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(command, family, block)| v2(command, family, &block)),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn cut_anywhere_is_the_same(
        header in a_header(),
        more in proptest::collection::vec(any::<u8>(), 0..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let bytes = [header, more].concat();
        prop_assert_eq!(feed(&bytes, &[]), feed(&bytes, &cuts));
        let all = (0..bytes.len()).collect::<Vec<_>>();
        prop_assert_eq!(feed(&bytes, &[]), feed(&bytes, &all));
    }
}
