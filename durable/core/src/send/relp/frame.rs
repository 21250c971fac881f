//! Frames of RELP, as librelp reads and writes them.
//!
//! A frame is a transaction, a command, the length of its data, the data if there are any, and a
//! newline, with one space between two of these. Numbers have at most 9 digits.

use crate::send::SendError;

const MOST_DIGITS: usize = 9;
const MOST_LETTERS: usize = 32;
/// The longest data of an answer, as librelp has it.
const MOST_DATA_BYTES: usize = 128 * 1024;

/// A frame from the sink.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// The number of the transaction; 0 for a hint.
    pub(super) transaction: u32,
    pub(super) command: &'a [u8],
    pub(super) data: &'a [u8],
}

/// The data of an answer.
#[derive(Debug)]
pub(super) struct Response<'a> {
    /// The first line: the code, and a text for people.
    pub(super) line: &'a [u8],
    /// The data behind the first line.
    pub(super) data: &'a [u8],
}

impl Response<'_> {
    /// Whether the code is 200. All other codes are errors.
    pub(super) fn is_ok(&self) -> bool {
        self.line.starts_with(b"200")
    }
}

/// Adds a frame to `out`.
pub(super) fn write(transaction: u32, command: &str, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{transaction} {command} {}", data.len()).as_bytes());
    if !data.is_empty() {
        out.push(b' ');
        out.extend_from_slice(data);
    }
    out.push(b'\n');
}

/// The frame at the start of `bytes`, and the rest behind it. `None`: the end of the frame has not come.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, SendError> {
    let Some((transaction, rest)) = word(bytes, MOST_DIGITS, u8::is_ascii_digit)? else {
        return Ok(None);
    };
    let Some((command, rest)) = word(past(rest, b' ')?, MOST_LETTERS, u8::is_ascii_alphabetic)? else {
        return Ok(None);
    };
    let Some((length, rest)) = word(past(rest, b' ')?, MOST_DIGITS, u8::is_ascii_digit)? else {
        return Ok(None);
    };
    let length = number(length) as usize;
    if length > MOST_DATA_BYTES {
        return Err(SendError::Protocol { what: "an answer is longer than 128 KiB" });
    }
    let rest = if length == 0 { rest } else { past(rest, b' ')? };
    let Some((data, rest)) = rest.split_at_checked(length).filter(|(_, rest)| !rest.is_empty()) else {
        return Ok(None);
    };
    let frame = Frame { transaction: number(transaction), command, data };
    Ok(Some((frame, past(rest, b'\n')?)))
}

/// The code and the data of an answer.
pub(super) fn response(data: &[u8]) -> Result<Response<'_>, SendError> {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let line = parts.next().unwrap_or_default();
    let code = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    if code.len() != 3 || !code.iter().all(u8::is_ascii_digit) {
        return Err(SendError::Protocol { what: "an answer has no code" });
    }
    Ok(Response { line, data: parts.next().unwrap_or_default() })
}

/// Refuses offers of a sink that takes no messages from this client.
pub(super) fn check_offers(offers: &[u8]) -> Result<(), SendError> {
    let (mut version, mut syslog) = (false, false);
    for offer in offers.split(|byte| *byte == b'\n') {
        let mut parts = offer.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let values = parts.next().unwrap_or_default();
        match name {
            b"relp_version" => version = matches!(values, b"0" | b"1"),
            b"commands" => syslog = values.split(|byte| *byte == b',').any(|command| command == b"syslog"),
            _ => {}
        }
    }
    if !version {
        return Err(SendError::Protocol { what: "it offers another version than 0 and 1" });
    }
    if !syslog {
        return Err(SendError::Protocol { what: "it does not offer the command syslog" });
    }
    Ok(())
}

/// A word, and the rest behind it.
type Cut<'a> = (&'a [u8], &'a [u8]);

/// A word of at least one byte, and the rest behind it. `None`: the end of the word has not come.
fn word(bytes: &[u8], most: usize, allowed: fn(&u8) -> bool) -> Result<Option<Cut<'_>>, SendError> {
    let length = bytes.iter().take(most + 1).take_while(|byte| allowed(byte)).count();
    if length > most || (length == 0 && !bytes.is_empty()) {
        return Err(SendError::Protocol { what: "a frame is malformed" });
    }
    if length == bytes.len() {
        return Ok(None);
    }
    Ok(Some(bytes.split_at(length)))
}

/// The rest behind `mark`.
fn past(bytes: &[u8], mark: u8) -> Result<&[u8], SendError> {
    bytes.strip_prefix(&[mark]).ok_or(SendError::Protocol { what: "a frame is malformed" })
}

/// The number that these digits write. There are at most 9.
fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'))
}
