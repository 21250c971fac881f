//! A sink over RELP: the client's end of the protocol.

use std::collections::VecDeque;
use std::mem::take;

use super::{Outgoing, SendError, Verdict, delivered, said};

mod frame;

use frame::Frame;

/// Messages without an answer, at most, whatever the settings say.
const MOST_MESSAGES: usize = 1024;
/// The transaction of the first command, and of the command after `LAST`.
const FIRST: u32 = 1;
const LAST: u32 = 999_999_999;
/// The offers of this client. librelp offers and takes version 0.
const OFFERS: &[u8] = b"relp_version=0\nrelp_software=portlane\ncommands=syslog";

/// One RELP session. A message is delivered when the sink has answered 200 to it and has answered each
/// one before it.
#[derive(Debug)]
pub struct Relp {
    window: usize,
    state: State,
    /// The transaction of the last command.
    transaction: u32,
    /// Messages without a verdict, in order.
    pushed: VecDeque<Pushed>,
    /// The start of a frame whose end has not come.
    held: Vec<u8>,
    answers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The sink has not answered the offers.
    Opening,
    Open,
    /// The sink has not answered the close.
    Closing,
    Closed,
}

#[derive(Debug)]
struct Pushed {
    transaction: u32,
    number: u64,
    answer: Option<Answer>,
}

#[derive(Debug)]
enum Answer {
    Taken,
    Refused(String),
}

impl Relp {
    /// Opens a session with a window of `window` messages without an answer, 1 to 1024: adds the offers
    /// to `out`.
    pub fn open(window: usize, out: &mut Vec<u8>) -> Self {
        frame::write(FIRST, "open", OFFERS, out);
        Self {
            window: window.clamp(1, MOST_MESSAGES),
            state: State::Opening,
            transaction: FIRST,
            pushed: VecDeque::new(),
            held: Vec::new(),
            answers: 0,
        }
    }

    /// How many messages may be pushed now: none until the sink has answered the offers.
    pub fn room(&self) -> usize {
        if self.state == State::Open { self.window.saturating_sub(self.pushed.len()) } else { 0 }
    }

    /// Adds a message to `out`, if there is room for it.
    pub fn push(&mut self, message: Outgoing, out: &mut Vec<u8>) {
        let Outgoing { number, payload } = message;
        let transaction = self.command("syslog", &payload, out);
        self.pushed.push_back(Pushed { transaction, number, answer: None });
    }

    /// Ends the session politely: nothing may be pushed any more, and answers still come.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.state == State::Open {
            self.command("close", b"", out);
            self.state = State::Closing;
        }
    }

    /// Whether the sink has answered the close, so that the connection may go.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the sink owes an answer.
    pub fn waits(&self) -> bool {
        match self.state {
            State::Opening | State::Closing => true,
            State::Open => !self.pushed.is_empty(),
            State::Closed => false,
        }
    }

    /// How many commands the sink has answered. Hints are no answers.
    pub const fn answers(&self) -> u64 {
        self.answers
    }

    /// Takes bytes from the sink. After an error, the verdicts count, too, and the connection must be closed.
    pub fn received(&mut self, bytes: &[u8], verdicts: &mut Vec<Verdict>) -> Result<(), SendError> {
        let mut held = take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        let result = loop {
            match frame::read(rest) {
                Ok(Some((frame, behind))) => {
                    rest = behind;
                    if let Err(error) = self.take(&frame) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let passed = held.len() - rest.len();
        held.drain(..passed);
        self.held = held;
        self.settle(verdicts);
        result
    }

    fn command(&mut self, command: &str, data: &[u8], out: &mut Vec<u8>) -> u32 {
        self.transaction = if self.transaction == LAST { FIRST } else { self.transaction + 1 };
        frame::write(self.transaction, command, data, out);
        self.transaction
    }

    fn take(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        if frame.transaction == 0 {
            // A client may ignore any other hint.
            return if frame.command == b"serverclose" { Err(SendError::Closed) } else { Ok(()) };
        }
        if frame.command != b"rsp" {
            return Err(SendError::Protocol { what: "it sends a command instead of an answer" });
        }
        let answer = frame::response(frame.data)?;
        match self.state {
            State::Opening => self.opened(frame.transaction, &answer)?,
            State::Closing if frame.transaction == self.transaction => self.state = State::Closed,
            _ => self.answered(frame.transaction, &answer)?,
        }
        self.answers += 1;
        Ok(())
    }

    fn opened(&mut self, transaction: u32, answer: &frame::Response<'_>) -> Result<(), SendError> {
        if transaction != FIRST {
            return Err(SendError::Protocol { what: "it acknowledges a message before it has accepted the session" });
        }
        if !answer.is_ok() {
            return Err(SendError::Refused { said: said(answer.line) });
        }
        frame::check_offers(answer.data)?;
        self.state = State::Open;
        Ok(())
    }

    /// Answers come in order, so the search ends at the first message without one; it continues for a
    /// sink that does not keep to that.
    fn answered(&mut self, transaction: u32, answer: &frame::Response<'_>) -> Result<(), SendError> {
        let mut waiting = self.pushed.iter_mut().filter(|pushed| pushed.answer.is_none());
        let Some(pushed) = waiting.find(|pushed| pushed.transaction == transaction) else {
            return Err(SendError::Protocol { what: "it acknowledges a message twice, or one that was not sent" });
        };
        pushed.answer = Some(if answer.is_ok() {
            Answer::Taken
        } else {
            Answer::Refused(format!("the sink answers {}", said(answer.line)))
        });
        Ok(())
    }

    fn settle(&mut self, verdicts: &mut Vec<Verdict>) {
        while let Some(Pushed { number, answer, .. }) = self.pushed.front_mut() {
            let (number, Some(answer)) = (*number, answer.take()) else {
                return;
            };
            self.pushed.pop_front();
            match answer {
                Answer::Taken => delivered(verdicts, number),
                Answer::Refused(reason) => verdicts.push(Verdict::Poison { number, reason }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
