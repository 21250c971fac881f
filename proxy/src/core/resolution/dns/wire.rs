//! The format of DNS messages, as far as needed for answers with addresses.
//!
//! A message may come from anybody. Each read stays within the message, a name has an end, and nothing grows beyond the
//! message except its names, whose length and number are bounded.

use super::is_name;

/// The longest name in a message, in bytes, without the final zero.
const LONGEST: usize = 254;
/// The most pointers in one name; it ends loops. A name has no more labels.
const MOST_POINTERS: usize = 127;

/// A name in wire format: each label after its length, in lower case. Labels may have any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireName(Vec<u8>);

impl WireName {
    /// The name of a text without escapes, with or without a trailing dot; `None` if no query can hold it.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if !is_name(text) {
            return None;
        }
        let mut bytes = Vec::with_capacity(text.len() + 1);
        for label in text.split('.') {
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        Some(Self(bytes))
    }

    /// The labels with their lengths, without the final zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The start of a message.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The id of the query.
    pub id: u16,
    /// Response code.
    pub code: u8,
    /// AA: the server is authoritative for the name.
    pub is_authoritative: bool,
    /// TC: the message was truncated.
    pub is_cut: bool,
    /// RA: the server queries others.
    pub is_recursive: bool,
    /// Number of questions.
    pub questions: u16,
    /// Number of records in the answer section.
    pub answers: u16,
    /// Number of records in the additional section.
    pub additional: u16,
}

/// Reads a message from front to back. `None` from any of its functions: the message is too short or malformed.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

/// A record of a message.
#[derive(Debug)]
pub struct Record<'a> {
    /// The name of the record.
    pub owner: WireName,
    /// Type.
    pub kind: u16,
    /// Time to live, in seconds.
    pub ttl: u32,
    /// The data.
    pub data: &'a [u8],
    /// A reader at the start of the data, for names in it that end elsewhere in the message.
    pub at_data: Reader<'a>,
}

impl<'a> Reader<'a> {
    /// Creates a reader at the start of a message.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// Reads the header.
    pub fn header(&mut self) -> Option<Header> {
        let (id, flags) = (self.u16()?, self.u16()?);
        let (questions, answers) = (self.u16()?, self.u16()?);
        let (_authority, additional) = (self.u16()?, self.u16()?);
        let [_, low] = flags.to_be_bytes();
        Some(Header {
            id,
            code: low & 0xf,
            is_authoritative: flags & 0x0400 != 0,
            is_cut: flags & 0x0200 != 0,
            is_recursive: flags & 0x0080 != 0,
            questions,
            answers,
            additional,
        })
    }

    /// Reads a question: name, type, class.
    pub fn question(&mut self) -> Option<(WireName, u16, u16)> {
        Some((self.name()?, self.u16()?, self.u16()?))
    }

    /// Reads a record. Its class is ignored, as in glibc.
    pub fn record(&mut self) -> Option<Record<'a>> {
        let owner = self.name()?;
        let (kind, _class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = self.u16()?;
        let at_data = *self;
        let data = self.take(length.into())?;
        Some(Record { owner, kind, ttl, data, at_data })
    }

    /// Reads a name. It may end elsewhere in the message; reading continues after the part that is here.
    pub fn name(&mut self) -> Option<WireName> {
        let (mut bytes, mut pointers) = (Vec::new(), 0);
        let mut part = *self;
        loop {
            match part.u8()? {
                0 => break,
                length @ 1..=63 => {
                    let label = part.take(length.into())?;
                    bytes.push(length);
                    bytes.extend(label.iter().map(u8::to_ascii_lowercase));
                    if bytes.len() > LONGEST {
                        return None;
                    }
                }
                high @ 0xc0.. => {
                    let target = u16::from_be_bytes([high & 0x3f, part.u8()?]);
                    if pointers == 0 {
                        self.at = part.at;
                    }
                    pointers += 1;
                    if pointers > MOST_POINTERS {
                        return None;
                    }
                    part.at = target.into();
                }
                _ => return None,
            }
        }
        if pointers == 0 {
            self.at = part.at;
        }
        Some(WireName(bytes))
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }
}
