//! The bytes on disk. All numbers are little-endian.
//!
//! A segment starts with its head: 8 bytes of magic, 4 of version, 4 of checksum over both; then 8
//! bytes for the number of its first message, 8 for the time at which it was begun, 4 of checksum over
//! all before. The first 16 bytes are the same in every version.
//!
//! A record has a head and a body. The head: 1 byte for the length of the source, 3 for that of the
//! message, 4 of checksum over the body, 8 for the number, 8 for the time of receipt, 4 of checksum
//! over the head. The body: source, message. The head has a checksum of its own, so its lengths are
//! trusted when the body is damaged.

/// No message may be longer, whatever the settings say: the length has 24 bits on disk.
pub const MAX_MESSAGE_BYTES: usize = (1 << 24) - 1;
/// The longest source of a message.
pub const MAX_SOURCE_BYTES: usize = 255;

/// The version of the log that this program writes.
pub(crate) const VERSION: u32 = 1;
/// Bytes before the first record of a segment.
pub(crate) const SEGMENT_HEAD_BYTES: usize = 36;
/// Bytes before the body of a record.
pub(crate) const HEAD_BYTES: usize = 28;
/// Bytes of a cursor.
pub(crate) const CURSOR_BYTES: usize = 24;

/// Numbers of messages and indices of segments are below this, so that counting on does not overflow.
pub(crate) const NUMBERS: u64 = 1 << 63;

const MAGIC: &[u8; 8] = b"PLDURLOG";
const CURSOR_MAGIC: &[u8; 8] = b"PLDURCUR";

/// A message to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The sender, in the caller's form.
    pub source: &'a [u8],
    /// The time of receipt, in milliseconds since 1970.
    pub received_millis: u64,
    /// The bytes of the message.
    pub payload: &'a [u8],
}

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The number of the message. Later messages have higher numbers.
    pub number: u64,
    /// The message.
    pub message: Message<'a>,
}

/// The head of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) source: usize,
    pub(crate) payload: usize,
    pub(crate) checksum: u32,
    pub(crate) number: u64,
    pub(crate) received_millis: u64,
}

impl Head {
    /// The head at the start of `bytes`, if it is whole and undamaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let covered = bytes.get(..HEAD_BYTES - 4)?;
        if u32_at(bytes, HEAD_BYTES - 4)? != crc32fast::hash(covered) {
            return None;
        }
        let lengths = u32_at(bytes, 0)?;
        Some(Self {
            source: (lengths & 0xFF) as usize,
            payload: (lengths >> 8) as usize,
            checksum: u32_at(bytes, 4)?,
            number: number_at(bytes, 8)?,
            received_millis: u64_at(bytes, 16)?,
        })
    }

    /// The number in a possible head at the start of `bytes`, whose checksum is not verified.
    pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
        number_at(bytes, 8)
    }

    /// Bytes of the body.
    pub(crate) const fn body(&self) -> usize {
        self.source + self.payload
    }

    /// Bytes of the record.
    pub(crate) const fn total(&self) -> u64 {
        (HEAD_BYTES + self.body()) as u64
    }
}

/// A source and its checksum, from which the checksum of a body continues. Consecutive messages often have the same
/// source, and short inputs cost the most per byte.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SourceSum<'a> {
    source: &'a [u8],
    checksum: u32,
}

impl<'a> SourceSum<'a> {
    /// The sum of `source`, which is computed only if `source` differs from the last one.
    fn of(self, source: &'a [u8]) -> Self {
        if self.source == source { self } else { Self { source, checksum: crc32fast::hash(source) } }
    }
}

/// Appends the record of `message` to `bytes`. A message beyond the format's bounds is refused. `last` is the source of
/// the previous message, and is replaced by that of this one.
pub(crate) fn encode<'a>(
    bytes: &mut Vec<u8>,
    number: u64,
    message: &Message<'a>,
    last: &mut SourceSum<'a>,
) -> Option<()> {
    if message.payload.len() > MAX_MESSAGE_BYTES || message.source.len() > MAX_SOURCE_BYTES {
        return None;
    }
    let source = u32::try_from(message.source.len()).ok()?;
    let payload = u32::try_from(message.payload.len()).ok()?;
    *last = last.of(message.source);
    let mut body = crc32fast::Hasher::new_with_initial(last.checksum);
    body.update(message.payload);
    let start = bytes.len();
    bytes.extend_from_slice(&(source | (payload << 8)).to_le_bytes());
    bytes.extend_from_slice(&body.finalize().to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&message.received_millis.to_le_bytes());
    let checksum = crc32fast::hash(bytes.get(start..)?);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(message.source);
    bytes.extend_from_slice(message.payload);
    Some(())
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHead {
    Known { first: u64, begun_millis: u64 },
    Newer(u32),
    Damaged,
}

impl SegmentHead {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let start = bytes.get(..12).filter(|start| start.starts_with(MAGIC));
        let Some((start, version)) = start.zip(u32_at(bytes, 8)) else {
            return Self::Damaged;
        };
        if u32_at(bytes, 12) != Some(crc32fast::hash(start)) {
            return Self::Damaged;
        }
        if version > VERSION {
            return Self::Newer(version);
        }
        let sum = bytes.get(..SEGMENT_HEAD_BYTES - 4).map(crc32fast::hash);
        match (sum == u32_at(bytes, SEGMENT_HEAD_BYTES - 4), number_at(bytes, 16), u64_at(bytes, 24)) {
            (true, Some(first), Some(begun_millis)) => Self::Known { first, begun_millis },
            _ => Self::Damaged,
        }
    }
}

/// The bytes of a segment's head.
pub(crate) fn segment_head(first: u64, begun_millis: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&begun_millis.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The bytes of a cursor: magic, the first message that is not acknowledged, version, checksum.
pub(crate) fn cursor(position: u64) -> Vec<u8> {
    let mut bytes = CURSOR_MAGIC.to_vec();
    bytes.extend_from_slice(&position.to_le_bytes());
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The position of a cursor that is undamaged.
pub(crate) fn read_cursor(bytes: &[u8]) -> Option<u64> {
    let covered = bytes.get(..CURSOR_BYTES - 4).filter(|covered| covered.starts_with(CURSOR_MAGIC))?;
    let whole = u32_at(bytes, CURSOR_BYTES - 4)? == crc32fast::hash(covered);
    if whole { number_at(bytes, 8) } else { None }
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    u64_at(bytes, at).filter(|number| *number < NUMBERS)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_what_fits_into_its_lengths() {
        let is_taken = |source: usize, payload: usize| {
            let (source, payload) = (vec![7; source], vec![7; payload]);
            let message = Message { source: &source, received_millis: 0, payload: &payload };
            encode(&mut Vec::new(), 0, &message, &mut SourceSum::default()).is_some()
        };
        assert!(is_taken(MAX_SOURCE_BYTES, 0) && !is_taken(MAX_SOURCE_BYTES + 1, 0));
        assert!(is_taken(0, MAX_MESSAGE_BYTES) && !is_taken(0, MAX_MESSAGE_BYTES + 1));
    }

    #[test]
    fn the_checksum_of_each_body_is_over_its_source_and_its_payload_whatever_came_before() {
        let (mut bytes, mut last) = (Vec::new(), SourceSum::default());
        let messages = [("", "one"), ("", ""), ("a", "two"), ("a", "three"), ("", "four"), ("ab", "five"), ("a", "")];
        for (number, (source, payload)) in (0..).zip(messages) {
            let [source, payload] = [source, payload].map(str::as_bytes);
            bytes.clear();
            let message = Message { source, received_millis: 7, payload };
            encode(&mut bytes, number, &message, &mut last).expect("it fits");
            let head = Head::decode(&bytes).expect("a whole head");
            assert_eq!((head.number, head.source, head.payload), (number, source.len(), payload.len()));
            let body = [source, payload].concat();
            assert_eq!((&bytes[HEAD_BYTES..], head.checksum), (&body[..], crc32fast::hash(&body)), "{number}");
        }
    }

    #[test]
    fn a_number_from_which_none_can_be_counted_on_is_damage() {
        let read = |position| read_cursor(&cursor(position));
        assert_eq!((read(NUMBERS - 1), read(NUMBERS)), (Some(NUMBERS - 1), None));
    }
}
