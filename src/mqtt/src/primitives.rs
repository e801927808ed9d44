//! The data types of section 1.5: integers, strings, binary data, variable byte integers.
//!
//! A [`Reader`] takes them off a slice and names the field it was at when something is wrong. A [`Sink`] takes
//! them in; besides `Vec<u8>` there is [`Count`], so that one piece of code gives both a length and the bytes.

use crate::error::DecodeError;
use crate::packet_id::PacketId;
use crate::packet_type::PacketType;

/// The largest variable byte integer.
pub const MAX_VARINT: u32 = 268_435_455;
/// The largest remaining length, in bytes.
pub const MAX_REMAINING_LEN: usize = 268_435_455;
/// The largest packet: remaining length and a fixed header of five bytes.
pub const MAX_PACKET_LEN: usize = MAX_REMAINING_LEN + 5;
/// The longest string or binary data, in bytes.
pub const MAX_STRING_LEN: usize = 65_535;

/// The number of bytes `value` takes as a variable byte integer, 1 to 4.
///
/// # Panics
/// If `value` is above [`MAX_VARINT`].
pub const fn varint_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        2_097_152..=MAX_REMAINING_LEN => 4,
        _ => panic!("a variable byte integer must be at most 268,435,455"),
    }
}

/// What a variable byte integer at the start of some bytes turned out to be.
pub(crate) enum Varint {
    /// The value and the number of bytes it took.
    Whole(usize, usize),
    /// The bytes end before it does.
    Partial,
    /// The fourth byte says that there is a fifth.
    TooLong,
}

/// Reads the variable byte integer at the start of `bytes`.
#[inline]
pub(crate) fn read_varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Varint::Whole(value, index + 1);
        }
    }
    if bytes.len() < 4 { Varint::Partial } else { Varint::TooLong }
}

/// Takes fields off the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What is left, all of it.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    #[inline]
    pub(crate) fn take(
        &mut self,
        len: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.bytes.split_at_checked(len).ok_or(DecodeError::Truncated(field))?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) =
            self.bytes.split_first_chunk::<N>().ok_or(DecodeError::Truncated(field))?;
        self.bytes = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// A variable byte integer inside a packet of MQTT 5.0.
    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        match read_varint(self.bytes) {
            // v5 MQTT-1.5.5-1.
            Varint::Whole(value, len) if len != varint_len(value) => {
                Err(DecodeError::VarintNotMinimal(field))
            }
            Varint::Whole(value, len) => {
                self.take(len, field)?;
                Ok(value)
            }
            Varint::Partial => Err(DecodeError::Truncated(field)),
            Varint::TooLong => Err(DecodeError::VarintTooLong(field)),
        }
    }

    /// Binary data with a length of two bytes.
    #[inline]
    pub(crate) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(field)?;
        self.take(usize::from(len), field)
    }

    /// A UTF-8 string. A byte order mark is a character like any other (MQTT-1.5.3-3, v5 MQTT-1.5.4-3).
    #[inline]
    pub(crate) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        // MQTT-1.5.3-1, v5 MQTT-1.5.4-1: ill-formed UTF-8, surrogates included, ends the connection.
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8(field))?;
        // MQTT-1.5.3-2, v5 MQTT-1.5.4-2.
        if memchr::memchr(0, bytes).is_some() {
            return Err(DecodeError::NullCharacter(field));
        }
        Ok(text)
    }

    #[inline]
    pub(crate) fn packet_id(&mut self, packet_type: PacketType) -> Result<PacketId, DecodeError> {
        // MQTT-2.3.1-1, v5 MQTT-2.2.1-3.
        PacketId::new(self.u16("packet identifier")?).ok_or(DecodeError::ZeroPacketId(packet_type))
    }

    /// Nothing may follow the last field of a packet.
    #[inline]
    pub(crate) fn finish(self, packet_type: PacketType) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            len => Err(DecodeError::TrailingBytes { packet_type, len }),
        }
    }
}

/// Takes in the bytes of a packet.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// # Panics
    /// If `value` is above [`MAX_VARINT`].
    #[expect(clippy::cast_possible_truncation, reason = "the value is masked to seven bits")]
    fn put_varint(&mut self, value: usize) {
        let len = varint_len(value);
        let mut bytes = [0; 4];
        for (index, byte) in bytes[..len].iter_mut().enumerate() {
            let more = if index + 1 < len { 0x80 } else { 0 };
            *byte = (value >> (7 * index)) as u8 & 0x7F | more;
        }
        self.put(&bytes[..len]);
    }

    /// # Panics
    /// If the data is longer than [`MAX_STRING_LEN`].
    fn put_binary(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len());
        self.put_u16(len.expect("strings and binary data of MQTT are at most 65,535 bytes"));
        self.put(bytes);
    }

    /// # Panics
    /// If the string is longer than [`MAX_STRING_LEN`].
    fn put_str(&mut self, text: &str) {
        self.put_binary(text.as_bytes());
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A sink that only counts.
pub(crate) struct Count(pub(crate) usize);

impl Sink for Count {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}
