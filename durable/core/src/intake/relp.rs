//! RELP, the protocol in which rsyslog learns which messages were kept: the server's side.
//!
//! A frame is the number of its transaction, a command, the length of its data, the data if there are
//! any, and a newline: `2 syslog 5 hello`. A client opens a session, sends messages, and closes the
//! session; each is a transaction, numbered from 1, that the server answers. A frame of number 0 is a
//! hint, which has no answer. [ADR 0092](../../../../docs/adr/0092-one-cutter-for-all-framings.md)
//! says what differs from librelp.

mod error;

use std::collections::VecDeque;

pub use error::Violation;

use super::body::Body;
use super::{Counts, Limits, Oversize};
use crate::MAX_MESSAGE_BYTES;

/// Transactions without an answer at which the server takes no more.
pub const WINDOW: usize = 1024;
/// The most bytes of data in a frame that is no message.
const DATA_BYTES: usize = 4096;
/// The number after which the next one is 1.
const LAST: u32 = 999_999_999;
/// Digits of a number or of a length.
const DIGITS: u8 = 9;
/// Letters of a command.
const COMMAND_BYTES: usize = 32;
/// The hint that the server closes the connection.
const GOING: &[u8] = b"0 serverclose 0\n";

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The number of the transaction, for [`Server::answer`].
    pub transaction: u32,
    /// The message.
    pub payload: Vec<u8>,
}

/// The server's side of one connection. It keeps one message at most, cut at the bound, and the
/// numbers of transactions without an answer.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
    state: State,
    phase: Phase,
    /// The number of the next transaction.
    next: u32,
    /// The number of the frame that is being received.
    number: u32,
    command: Vec<u8>,
    body: Body,
    /// Transactions without an answer, in the order of receipt, which is the order of the answers.
    waiting: VecDeque<Waiting>,
    counts: Counts,
    failed: Option<Violation>,
    /// The answer to a violation, which is sent once all transactions before it are answered.
    farewell: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    transaction: u32,
    /// Whether only earlier transactions hold up the answer.
    answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Open,
    /// The client sends no more, and its last transactions are answered.
    Closing,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two frames.
    Start,
    /// Within the number: how many digits were read.
    Number(u8),
    Command,
    /// Within the length: how many digits were read, and its value so far.
    Length {
        digits: u8,
        value: usize,
    },
    /// Within the data, of which `missing` bytes are to come.
    Data {
        kind: Kind,
        missing: usize,
    },
    /// Before the newline.
    End(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Syslog,
    Close,
    Hint,
}

impl Server {
    /// A server for one connection.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            phase: Phase::New,
            next: 1,
            number: 0,
            command: Vec::new(),
            body: Body::new(),
            waiting: VecDeque::new(),
            counts: Counts { truncated: 0, dropped: 0 },
            failed: None,
            farewell: Vec::new(),
        }
    }

    /// Takes the next bytes, adds the messages that end in them, and writes the answers that are due to `out`. After a
    /// violation the connection is to be closed once the messages before it are answered and `out` is sent: every later
    /// call fails alike, and the client resends messages that have no answer.
    pub fn feed(&mut self, bytes: &[u8], received: &mut Vec<Received>, out: &mut Vec<u8>) -> Result<(), Violation> {
        if let Some(violation) = &self.failed {
            return Err(violation.clone());
        }
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            match self.step(first, rest, received, out) {
                Ok(used) => rest = rest.get(used..).unwrap_or_default(),
                Err(violation) => {
                    if let Some(answer) = violation.answer().filter(|_| self.number > 0) {
                        respond(&mut self.farewell, self.number, answer);
                    }
                    self.farewell.extend_from_slice(GOING);
                    self.body = Body::new();
                    self.failed = Some(violation.clone());
                    self.flush(out);
                    return Err(violation);
                }
            }
        }
        Ok(())
    }

    /// Records that the message of this transaction is kept, and writes every answer that this allows: answers are in
    /// the order of the transactions. Messages that are too long and dropped by the bounds are answered like others, as
    /// the client would send them for ever.
    pub fn answer(&mut self, transaction: u32, out: &mut Vec<u8>) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.transaction == transaction) {
            waiting.answered = true;
        }
        self.flush(out);
    }

    /// Whether to feed no more until there are answers. Bytes that were read already may be fed, so the transactions
    /// without an answer are at most [`WINDOW`] and those in one read.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WINDOW
    }

    /// Whether the client has closed the session and everything is answered: the connection may be
    /// closed once all is sent.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Tells the client that the server is about to close the connection.
    pub fn hint_close(&self, out: &mut Vec<u8>) {
        if self.failed.is_none() && self.phase != Phase::Closed {
            out.extend_from_slice(GOING);
        }
    }

    /// Ends the stream, as the client has closed its side of the connection.
    pub fn end(&self) -> Result<(), Violation> {
        match (&self.failed, self.state) {
            (Some(violation), _) => Err(violation.clone()),
            (None, State::Start) => Ok(()),
            (None, _) => Err(Violation::Cut),
        }
    }

    /// The messages that were longer than the bound.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of memory that hold the message which has not ended: never more than the longest message,
    /// or 4096 for the offers of a client.
    pub const fn held(&self) -> usize {
        self.body.held()
    }

    /// Advances by one state, and returns how many bytes that took. `first` is the first of `bytes`.
    fn step(
        &mut self,
        first: u8,
        bytes: &[u8],
        received: &mut Vec<Received>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Violation> {
        match self.state {
            State::Start => {
                self.number = 0;
                self.command.clear();
                self.state = State::Number(0);
                return Ok(0);
            }
            State::Number(digits) => self.state = self.in_number(digits, first)?,
            State::Command => self.state = self.in_command(first)?,
            State::Length { digits, value } => {
                self.state = self.in_length(digits, value, first)?;
                return Ok(usize::from(!matches!(self.state, State::End(_))));
            }
            State::Data { kind, missing } => return Ok(self.in_data(kind, missing, bytes)),
            State::End(kind) => {
                if first != b'\n' {
                    return Err(Violation::End { found: char::from(first) });
                }
                self.state = State::Start;
                self.dispatch(kind, received, out)?;
            }
        }
        Ok(1)
    }

    fn in_number(&mut self, digits: u8, byte: u8) -> Result<State, Violation> {
        match byte {
            b'0'..=b'9' if digits == DIGITS => Err(Violation::Digits),
            b'0'..=b'9' => {
                self.number = self.number * 10 + u32::from(byte - b'0');
                Ok(State::Number(digits + 1))
            }
            b' ' if digits > 0 => Ok(State::Command),
            found => Err(Violation::Number { found: char::from(found) }),
        }
    }

    fn in_command(&mut self, byte: u8) -> Result<State, Violation> {
        let length = self.command.len();
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' if length < COMMAND_BYTES => {
                self.command.push(byte);
                Ok(State::Command)
            }
            b' ' if length > 0 => Ok(State::Length { digits: 0, value: 0 }),
            found => Err(Violation::Command { found: char::from(found) }),
        }
    }

    fn in_length(&mut self, digits: u8, value: usize, byte: u8) -> Result<State, Violation> {
        match byte {
            b'0'..=b'9' if digits == DIGITS => Err(Violation::Digits),
            b'0'..=b'9' => Ok(State::Length { digits: digits + 1, value: value * 10 + usize::from(byte - b'0') }),
            b' ' if value > 0 => {
                let kind = self.head(value)?;
                Ok(State::Data { kind, missing: value })
            }
            // Without data there is no space either. The newline is left to the next state.
            b'\n' if digits > 0 && value == 0 => self.head(0).map(State::End),
            found => Err(Violation::Length { found: char::from(found) }),
        }
    }

    /// Checks everything in a frame that comes before its data.
    fn head(&mut self, length: usize) -> Result<Kind, Violation> {
        let (kind, max) = match self.command.as_slice() {
            b"open" => (Kind::Open, DATA_BYTES),
            b"syslog" => (Kind::Syslog, MAX_MESSAGE_BYTES),
            b"close" => (Kind::Close, DATA_BYTES),
            _ if self.number == 0 => (Kind::Hint, DATA_BYTES),
            b"starttls" => return Err(Violation::StartTls),
            other => return Err(Violation::Unknown { command: String::from_utf8_lossy(other).into_owned() }),
        };
        if length > max {
            return Err(Violation::TooLong { length, max });
        }
        if kind == Kind::Hint {
            return Ok(kind);
        }
        if self.number != self.next {
            return Err(Violation::Order { expected: self.next, found: self.number });
        }
        match (self.phase, kind) {
            (Phase::New, Kind::Open) | (Phase::Open, Kind::Syslog | Kind::Close) => {}
            (Phase::New, _) => return Err(Violation::NotOpen),
            (Phase::Open, _) => return Err(Violation::Twice),
            (Phase::Closing | Phase::Closed, _) => return Err(Violation::AfterClose),
        }
        self.next = if self.number == LAST { 1 } else { self.number + 1 };
        Ok(kind)
    }

    fn in_data(&mut self, kind: Kind, missing: usize, bytes: &[u8]) -> usize {
        let used = bytes.len().min(missing);
        let part = bytes.get(..used).unwrap_or_default();
        match kind {
            Kind::Syslog => self.body.push(self.limits, part, false),
            Kind::Open => {
                let limits = Limits { max_message_bytes: DATA_BYTES, oversize: Oversize::Truncate };
                self.body.push(limits, part, false);
            }
            Kind::Close | Kind::Hint => {}
        }
        let missing = missing - used;
        self.state = if missing == 0 { State::End(kind) } else { State::Data { kind, missing } };
        used
    }

    /// Executes a complete frame.
    fn dispatch(&mut self, kind: Kind, received: &mut Vec<Received>, out: &mut Vec<u8>) -> Result<(), Violation> {
        let transaction = self.number;
        match kind {
            Kind::Hint => {}
            Kind::Open => {
                let offers = self.body.take(Oversize::Truncate, &mut self.counts, false).unwrap_or_default();
                let version = version(&offers)?;
                self.phase = Phase::Open;
                let offers = format!("200 OK\nrelp_version={version}\nrelp_software=portlane\ncommands=syslog");
                respond(out, transaction, &offers);
            }
            Kind::Syslog => {
                let payload = self.body.take(self.limits.oversize, &mut self.counts, false);
                self.waiting.push_back(Waiting { transaction, answered: payload.is_none() });
                received.extend(payload.map(|payload| Received { transaction, payload }));
                self.flush(out);
            }
            Kind::Close => {
                self.phase = Phase::Closing;
                self.waiting.push_back(Waiting { transaction, answered: true });
                self.flush(out);
            }
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        while let Some(first) = self.waiting.front().copied().filter(|first| first.answered) {
            respond(out, first.transaction, "200 OK");
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            // A client that sees the end reads no more answers, and would send those messages again for ever.
            out.append(&mut self.farewell);
            self.waiting.shrink_to(WINDOW);
        }
        // The last answer is that to the close.
        if self.phase == Phase::Closing && self.waiting.is_empty() {
            self.phase = Phase::Closed;
        }
    }
}

/// The version to speak, by the offers of a client: 0 in librelp and 1 in the specification, which
/// do not differ. Like librelp, takes offers without a version and ignores unknown ones.
fn version(offers: &[u8]) -> Result<u32, Violation> {
    let mut version = 0;
    for offer in offers.split(|byte| *byte == b'\n') {
        let mut parts = offer.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let values = parts.next().unwrap_or_default();
        if name == b"relp_version" {
            let number = std::str::from_utf8(values).ok().and_then(|text| text.parse::<u32>().ok());
            version = number.ok_or(Violation::Version)?.min(1);
        }
        if name == b"commands" && !values.split(|byte| *byte == b',').any(|command| command == b"syslog") {
            return Err(Violation::NoSyslog);
        }
    }
    Ok(version)
}

/// Writes an answer.
fn respond(out: &mut Vec<u8>, transaction: u32, data: &str) {
    out.extend_from_slice(format!("{transaction} rsp {} {data}\n", data.len()).as_bytes());
}

#[cfg(test)]
mod tests;
