//! Messages on their way to a sink, and the meaning of its answers.
//!
//! There is one machine for each kind of sink. The caller reads messages of the log, pushes as many as there is room
//! for, and hands on what the sink answers; the machine gives verdicts on the messages, in the order in which they were
//! pushed. A [`Progress`] derives the cursor from the verdicts, and a [`Passage`] also tracks which messages are sent
//! again, and which were lost.
//!
//! After a break the caller seeks its reader to [`Progress::cursor`] and pushes again from there. A
//! [`Relp`] and a [`Udp`] serve one connection, a [`Tcp`] and an [`Http`] one after another.
//! [ADR 0093](../../../docs/adr/0093-what-a-sinks-word-is-worth.md) has the guarantees.

use std::time::Duration;

mod asking;
mod backoff;
mod http;
mod passage;
mod progress;
mod relp;
mod silence;
mod tcp;
mod udp;

pub use asking::Asking;
pub use backoff::Backoff;
pub use http::{Format, Http, HttpAnswer, HttpOutcome, HttpSettings};
pub use passage::{Passage, Settled};
pub use progress::Progress;
pub use relp::Relp;
pub use silence::{Silence, Silent};
pub use tcp::Tcp;
pub use udp::Udp;

/// The connection of a sink that owes an answer and is silent for this long is closed.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The most bytes of a sink's answer, whose rest is cut off.
const SAID_BYTES: usize = 240;

/// A message of the log on its way to a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The number of the message in the log.
    pub number: u64,
    /// The bytes of the message, with those that are added to it.
    pub payload: Vec<u8>,
}

/// The outcome for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sink has this message, and each one before it that is not poison.
    Delivered {
        /// The last message that the sink has.
        through: u64,
    },
    /// The sink will never take this message.
    Poison {
        /// The message.
        number: u64,
        /// The reason, in one line of less than 1 KiB.
        reason: String,
    },
}

/// Why a connection to a sink must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The sink does not speak RELP.
    #[error("the sink does not speak RELP: {what}; use the port where the sink accepts RELP")]
    Protocol {
        /// The fault.
        what: &'static str,
    },
    /// The sink does not open the RELP session.
    #[error("the sink refuses the RELP session: {said}; see the log of the sink")]
    Refused {
        /// The answer of the sink.
        said: String,
    },
    /// The sink announces that it closes the connection, as it does when it restarts.
    #[error("the sink closes the connection")]
    Closed,
}

/// Adds the verdict that the sink has this message.
fn delivered(verdicts: &mut Vec<Verdict>, number: u64) {
    if let Some(Verdict::Delivered { through }) = verdicts.last_mut() {
        *through = number;
    } else {
        verdicts.push(Verdict::Delivered { through: number });
    }
}

/// The answer of a sink, as a part of a line.
fn said(bytes: &[u8]) -> String {
    let bytes = bytes.get(..SAID_BYTES).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    line.trim().to_owned()
}
