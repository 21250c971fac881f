//! Framing: a stream of bytes becomes messages, and messages become a stream.
//!
//! A [`Decoder`] takes the bytes of one connection in pieces of any size and keeps one message at
//! most, cut at the bound. [`encode`] is the other direction. [`relp`] is the protocol in which the
//! sender learns which messages were kept.

mod body;
mod error;
pub mod relp;

use body::Body;
pub use error::FramingError;

use crate::MAX_MESSAGE_BYTES;

/// How a stream is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A newline ends a message. Returns and NULs before it are not part of the message, and an empty
    /// line is none, as in syslog-ng. rsyslog drops one NUL, and a return where its parser is set so.
    Newline,
    /// A NUL ends a message. An empty message is none.
    Nul,
    /// The length in decimal digits, a space, the message (RFC 6587, 3.4.1).
    OctetCounting,
    /// RFC 6587 both ways: a message that starts with a digit has a count, any other ends with a
    /// newline. This is decided for each message, as in rsyslog. Messages are written with a count.
    Syslog,
    /// The length in two bytes, the higher one first.
    Length2,
    /// The length in four bytes, the highest one first.
    Length4,
}

/// The treatment of a message that is longer than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversize {
    /// The first bytes of the message are kept, up to the bound.
    Truncate,
    /// The message is dropped.
    Drop,
}

/// The bounds on messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message.
    pub max_message_bytes: usize,
    /// The treatment of longer messages.
    pub oversize: Oversize,
}

impl Limits {
    /// These limits, with the bound `longest` if that is lower: the log takes no longer messages.
    #[must_use]
    pub fn within(self, longest: Option<usize>) -> Self {
        let max_message_bytes = longest.map_or(self.max_message_bytes, |longest| longest.min(self.max_message_bytes));
        Self { max_message_bytes, ..self }
    }
}

/// Messages of one connection that were longer than the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were truncated to the bound.
    pub truncated: u64,
    /// Messages that were dropped.
    pub dropped: u64,
}

/// Cuts the bytes of one connection into messages.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    limits: Limits,
    state: State,
    body: Body,
    counts: Counts,
    failed: Option<FramingError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two messages.
    Start,
    /// Within the digits of a count: its value.
    Count(usize),
    /// Within a length: how many bytes of it are to come, and its value.
    Length { missing: u8, value: usize },
    /// Within a message of this length, of which `missing` bytes are to come.
    Counted { missing: usize, length: usize },
    /// Within a message that this byte ends.
    Delimited(u8),
}

impl Decoder {
    /// A decoder for one connection.
    pub const fn new(framing: Framing, limits: Limits) -> Self {
        let counts = Counts { truncated: 0, dropped: 0 };
        Self { framing, limits, state: State::Start, body: Body::new(), counts, failed: None }
    }

    /// Takes the next bytes and adds the messages that end in them. After an error nobody knows where
    /// the next message starts: the connection is of no more use, and every later call fails alike. The
    /// messages that were added before are whole.
    pub fn feed(&mut self, bytes: &[u8], messages: &mut Vec<Vec<u8>>) -> Result<(), FramingError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            match self.step(first, rest, messages) {
                Ok(used) => rest = rest.get(used..).unwrap_or_default(),
                Err(error) => return self.fail(error),
            }
        }
        Ok(())
    }

    /// Ends the stream, as the sender has closed its side. A last message without its newline or NUL is a message; one
    /// that is shorter than its length is an error, and nothing of it is kept.
    pub fn end(&mut self, messages: &mut Vec<Vec<u8>>) -> Result<(), FramingError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.state {
            State::Start => Ok(()),
            State::Delimited(delimiter) => {
                self.finish(Some(delimiter), messages);
                Ok(())
            }
            State::Count(_) | State::Length { .. } => self.fail(FramingError::CutLength),
            State::Counted { missing, length } => {
                self.fail(FramingError::Cut { bytes: length.saturating_sub(missing), length })
            }
        }
    }

    /// The messages that were longer than the bound.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of memory that hold the message which has not ended: never more than the longest message.
    pub const fn held(&self) -> usize {
        self.body.held()
    }

    fn fail(&mut self, error: FramingError) -> Result<(), FramingError> {
        self.failed = Some(error);
        self.body = Body::new();
        Err(error)
    }

    /// Advances by one state, and returns how many bytes that took. `first` is the first of `bytes`.
    fn step(&mut self, first: u8, bytes: &[u8], messages: &mut Vec<Vec<u8>>) -> Result<usize, FramingError> {
        match self.state {
            State::Start => {
                self.state = start(self.framing, first)?;
                Ok(0)
            }
            State::Count(value) => {
                self.state = count(value, first)?;
                Ok(1)
            }
            State::Length { missing, value } => {
                let value = (value << 8) | usize::from(first);
                if missing > 1 {
                    self.state = State::Length { missing: missing - 1, value };
                } else if value == 0 {
                    self.finish(None, messages);
                } else {
                    self.state = counted(value)?;
                }
                Ok(1)
            }
            State::Counted { missing, length } => {
                let used = bytes.len().min(missing);
                self.body.push(self.limits, bytes.get(..used).unwrap_or_default(), false);
                if used == missing {
                    self.finish(None, messages);
                } else {
                    self.state = State::Counted { missing: missing - used, length };
                }
                Ok(used)
            }
            State::Delimited(delimiter) => {
                let end = memchr::memchr(delimiter, bytes);
                let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
                self.body.push(self.limits, part, delimiter == b'\n');
                if end.is_some() {
                    self.finish(Some(delimiter), messages);
                }
                Ok(part.len() + usize::from(end.is_some()))
            }
        }
    }

    fn finish(&mut self, delimiter: Option<u8>, messages: &mut Vec<Vec<u8>>) {
        self.state = State::Start;
        let message = self.body.take(self.limits.oversize, &mut self.counts, delimiter == Some(b'\n'));
        messages.extend(message.filter(|message| delimiter.is_none() || !message.is_empty()));
    }
}

/// The state in a message whose first byte is `first`.
fn start(framing: Framing, first: u8) -> Result<State, FramingError> {
    match framing {
        Framing::OctetCounting | Framing::Syslog if first.is_ascii_digit() => Ok(State::Count(0)),
        Framing::OctetCounting => Err(FramingError::NoCount { found: char::from(first) }),
        Framing::Newline | Framing::Syslog => Ok(State::Delimited(b'\n')),
        Framing::Nul => Ok(State::Delimited(0)),
        Framing::Length2 => Ok(State::Length { missing: 2, value: 0 }),
        Framing::Length4 => Ok(State::Length { missing: 4, value: 0 }),
    }
}

/// The state after one more byte of a count. `value` is its value so far: 0 before the first digit.
fn count(value: usize, byte: u8) -> Result<State, FramingError> {
    match byte {
        b'0' if value == 0 => Err(FramingError::LeadingZero),
        b'0'..=b'9' => {
            let value = value * 10 + usize::from(byte - b'0');
            counted(value).map(|_| State::Count(value))
        }
        b' ' => counted(value),
        found => Err(FramingError::CountEnd { found: char::from(found) }),
    }
}

/// The state at the start of a message of this length.
const fn counted(length: usize) -> Result<State, FramingError> {
    if length > MAX_MESSAGE_BYTES {
        return Err(FramingError::Length { length, max: MAX_MESSAGE_BYTES });
    }
    Ok(State::Counted { missing: length, length })
}

/// Appends `message` in this framing to `out`, or leaves `out` as it is if the framing cannot carry
/// the message.
pub fn encode(framing: Framing, message: &[u8], out: &mut Vec<u8>) -> Result<(), FramingError> {
    let bytes = message.len();
    match framing {
        Framing::Newline => return delimited(b'\n', message, out),
        Framing::Nul => return delimited(0, message, out),
        Framing::OctetCounting | Framing::Syslog if bytes == 0 => return Err(FramingError::Empty),
        Framing::OctetCounting | Framing::Syslog => out.extend_from_slice(format!("{bytes} ").as_bytes()),
        Framing::Length2 => {
            let most = usize::from(u16::MAX);
            let length = u16::try_from(bytes).map_err(|_| FramingError::TooLong { bytes, most })?;
            out.extend_from_slice(&length.to_be_bytes());
        }
        Framing::Length4 => {
            let most = MAX_MESSAGE_BYTES;
            let length = u32::try_from(bytes).map_err(|_| FramingError::TooLong { bytes, most })?;
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(message);
    Ok(())
}

fn delimited(delimiter: u8, message: &[u8], out: &mut Vec<u8>) -> Result<(), FramingError> {
    if message.is_empty() {
        return Err(FramingError::Empty);
    }
    if memchr::memchr(delimiter, message).is_some() {
        return Err(FramingError::Delimiter { found: char::from(delimiter) });
    }
    out.extend_from_slice(message);
    out.push(delimiter);
    Ok(())
}
