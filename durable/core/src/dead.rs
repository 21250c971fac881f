//! Messages that the sink will never take.

use crate::log::{Log, Reader};
use crate::{Error, MAX_MESSAGE_BYTES, Message, Outside, Record, Reported, Settings, WhenFull, Why};

mod line;

pub use line::LetterLine;

/// The most bytes of a reason, whose rest is cut off.
const WHY_BYTES: usize = 512;
/// The number of the message, and the length of the reason.
const HEAD_BYTES: usize = 10;

/// Messages that are put aside with the reason, so that others pass them. They are a log of their
/// own, in which the oldest give way.
#[derive(Debug)]
pub struct DeadLetters {
    log: Option<Log>,
}

/// One message that was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter<'a> {
    /// The message, with its number in the log that it comes from.
    pub record: Record<'a>,
    /// The answer of the sink.
    pub why: &'a str,
}

impl DeadLetters {
    /// Opens the dead letters whose files start with `prefix`, of at most `max_bytes`, for messages of at most
    /// `max_message_bytes`. With `max_bytes` 0, none are kept. Reports contain the numbers of letters, so give these
    /// calls another list than those of the log.
    pub fn open(
        outside: &mut Outside<'_>,
        prefix: &str,
        max_bytes: u64,
        max_message_bytes: usize,
    ) -> Result<Self, Error> {
        if max_bytes == 0 {
            return Ok(Self { log: None });
        }
        let settings = settings(max_bytes, max_message_bytes.saturating_add(HEAD_BYTES + WHY_BYTES));
        Ok(Self { log: Some(Log::open(outside, prefix, settings)?) })
    }

    /// Opens the dead letters whose files start with `prefix`, whatever their bounds are, with a reader of all of them.
    /// Like every log that is opened, they are repaired, unless the folder takes no changes.
    pub fn look(outside: &mut Outside<'_>, prefix: &str) -> Result<(Self, Reader), Error> {
        let log = Log::open(outside, prefix, settings(u64::MAX, MAX_MESSAGE_BYTES))?;
        let reader = log.reader();
        Ok((Self { log: Some(log) }, reader))
    }

    /// Puts a message aside, and syncs it: after this, and not before, the log may acknowledge it. Where no letters are
    /// kept, or only shorter ones, the message is reported as dropped, by its number in the log that it comes from.
    pub fn put(&mut self, outside: &mut Outside<'_>, record: &Record<'_>, why: &str) -> Result<(), Error> {
        let Some(log) = &mut self.log else {
            drop_dead(outside, record.number);
            return Ok(());
        };
        let mut end = why.len().min(WHY_BYTES);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        let why = why.get(..end).unwrap_or_default();
        let length = u16::try_from(why.len()).unwrap_or(u16::MAX);
        let mut payload = record.number.to_le_bytes().to_vec();
        payload.extend_from_slice(&length.to_le_bytes());
        payload.extend_from_slice(why.as_bytes());
        payload.extend_from_slice(record.message.payload);
        match log.append(outside, &[Message { payload: &payload, ..record.message }]) {
            Ok(_) => {}
            // The log took the message when its bound was higher. Kept there, it would block the messages behind it for
            // ever.
            Err(Error::TooLong { .. }) => {
                drop_dead(outside, record.number);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        log.sync(outside).map_err(|why| Error::File { doing: "sync", file: "the dead letters".to_owned(), why })
    }

    /// A reader of all letters. `None`: none are kept.
    pub fn reader(&self) -> Option<Reader> {
        self.log.as_ref().map(Log::reader)
    }

    /// Reads the next letter.
    pub fn read<'r>(&mut self, outside: &mut Outside<'_>, reader: &'r mut Reader) -> Result<Option<Letter<'r>>, Error> {
        let Some(log) = &mut self.log else {
            return Ok(None);
        };
        let Some(Record { message, .. }) = log.read(outside, reader)? else {
            return Ok(None);
        };
        let letter = letter(message);
        // The checksum is right and the form is not: another program wrote the record.
        letter.map(Some).ok_or_else(|| Error::File {
            doing: "read",
            file: "the dead letters".to_owned(),
            why: crate::FileError::Other("a record is not a dead letter".to_owned()),
        })
    }

    /// Bytes of the letters' files.
    pub fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::bytes)
    }
}

/// The settings of the log of dead letters.
const fn settings(max_bytes: u64, max_message_bytes: usize) -> Settings {
    Settings {
        max_bytes,
        max_message_bytes,
        max_age: None,
        when_full: WhenFull::DropOldest,
        sync_after: std::time::Duration::ZERO,
        sync_bytes: 0,
    }
}

/// Reports that a message is dropped rather than put aside.
fn drop_dead(outside: &mut Outside<'_>, number: u64) {
    let messages = number..number.saturating_add(1);
    outside.reported.push(Reported::Dropped { messages, why: Why::Dead });
}

/// The letter in a record.
fn letter(message: Message<'_>) -> Option<Letter<'_>> {
    let (number, rest) = message.payload.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (why, payload) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let record = Record { number: u64::from_le_bytes(*number), message: Message { payload, ..message } };
    Some(Letter { record, why: std::str::from_utf8(why).ok()? })
}
