//! A sink over plain TCP, which never answers.

use std::collections::VecDeque;

use super::{Outgoing, Verdict, delivered, said};
use crate::intake::{Framing, encode};

/// Messages that are not acknowledged, at most.
const MOST_MESSAGES: usize = 8 * 1024;
/// No message is taken while this many bytes are not acknowledged.
const MOST_BYTES: u64 = 1 << 20;

/// Framed messages to a sink over TCP, one connection after another. A message is delivered when the
/// kernel of the sink has acknowledged its last byte. That kernel may lose what the sink has not read,
/// so the newest messages are kept in memory and sent again on the next connection.
#[derive(Debug)]
pub struct Tcp {
    framing: Framing,
    rewind_bytes: usize,
    /// Bytes that were given to this connection.
    given: u64,
    /// Bytes of this connection that are acknowledged.
    acknowledged: u64,
    /// Messages that are not acknowledged, in order.
    pushed: VecDeque<Pushed>,
    /// The newest acknowledged messages, in order.
    kept: VecDeque<Outgoing>,
    kept_bytes: usize,
}

#[derive(Debug)]
struct Pushed {
    message: Outgoing,
    /// The message is acknowledged when this many bytes of the connection are.
    end: u64,
    /// Why the framing cannot carry the message, which has no bytes then.
    fault: Option<String>,
}

impl Tcp {
    /// A sink to which the last `rewind_bytes` of acknowledged messages are sent again after each break, in whole
    /// messages, none of which counts less than 32 bytes. These bytes are kept in memory.
    pub const fn new(framing: Framing, rewind_bytes: usize) -> Self {
        Self {
            framing,
            rewind_bytes,
            given: 0,
            acknowledged: 0,
            pushed: VecDeque::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
        }
    }

    /// Starts a new connection: adds the messages to send again to `out`, and returns how many these are. Messages from
    /// `cursor` on are for the caller to push again.
    pub fn connected(&mut self, cursor: u64, out: &mut Vec<u8>) -> usize {
        self.pushed.clear();
        while self.kept.back().is_some_and(|newest| newest.number >= cursor)
            && let Some(newest) = self.kept.pop_back()
        {
            self.kept_bytes -= weight(&newest);
        }
        let start = out.len();
        for message in &self.kept {
            let length = out.len();
            // The framing has carried the message before.
            if encode(self.framing, &message.payload, out).is_err() {
                out.truncate(length);
            }
        }
        self.given = (out.len() - start) as u64;
        self.acknowledged = 0;
        self.kept.len()
    }

    /// How many messages may be pushed now. Ask before each push: long ones leave less room.
    pub fn room(&self) -> usize {
        let waiting = self.given - self.acknowledged;
        if waiting < MOST_BYTES { MOST_MESSAGES.saturating_sub(self.pushed.len()) } else { 0 }
    }

    /// Adds the frame of a message to `out`, or nothing for a message that the framing cannot carry.
    pub fn push(&mut self, mut message: Outgoing, out: &mut Vec<u8>) {
        let start = out.len();
        let encoded = encode(self.framing, &message.payload, out);
        let fault = encoded.err().map(|error| said(error.to_string().as_bytes()));
        if fault.is_some() {
            out.truncate(start);
            // Nobody reads the payload again, and `room` does not count its bytes.
            message.payload = Vec::new();
        }
        self.given += (out.len() - start) as u64;
        self.pushed.push_back(Pushed { message, end: self.given, fault });
    }

    /// Takes how many `bytes` of this connection the kernel of the sink has acknowledged in all. Call this after pushes
    /// too, with the last number: it gives the verdicts on messages without bytes.
    pub fn acknowledged(&mut self, bytes: u64, verdicts: &mut Vec<Verdict>) {
        self.acknowledged = self.acknowledged.max(bytes.min(self.given));
        while self.pushed.front().is_some_and(|oldest| oldest.end <= self.acknowledged) {
            let Some(Pushed { message, fault, .. }) = self.pushed.pop_front() else {
                return;
            };
            if let Some(reason) = fault {
                verdicts.push(Verdict::Poison { number: message.number, reason });
            } else {
                delivered(verdicts, message.number);
                self.keep(message);
            }
        }
    }

    /// Whether the sink owes an acknowledgement.
    pub fn waits(&self) -> bool {
        self.given > self.acknowledged
    }

    fn keep(&mut self, message: Outgoing) {
        self.kept_bytes += weight(&message);
        self.kept.push_back(message);
        while self.kept_bytes > self.rewind_bytes
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= weight(&oldest);
        }
    }
}

/// The bytes that a kept message counts: not less than it takes beside its payload.
fn weight(message: &Outgoing) -> usize {
    message.payload.len().max(size_of::<Outgoing>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_the_framing_cannot_carry_hold_no_memory_while_one_before_them_is_not_acknowledged() {
        let mut tcp = Tcp::new(Framing::Newline, 0);
        let mut out = Vec::new();
        tcp.push(Outgoing { number: 0, payload: b"m".to_vec() }, &mut out);
        for number in 1..100 {
            tcp.push(Outgoing { number, payload: vec![b'\n'; 1 << 16] }, &mut out);
        }
        let held: usize = tcp.pushed.iter().map(|pushed| pushed.message.payload.capacity()).sum();
        assert_eq!((held, out.as_slice()), (1, &b"m\n"[..]));
        let mut verdicts = Vec::new();
        tcp.acknowledged(2, &mut verdicts);
        assert_eq!(verdicts.len(), 100, "each has a verdict");
    }
}
