//! Messages on their way to a sink, and what a sink's word is worth.
//!
//! There is one machine for each kind of sink. The caller reads messages of the log, pushes as many as
//! there is room for, and hands on what the sink answers; the machine says what became of them, in the
//! order in which they were pushed. A [`Progress`] makes the cursor of that, and a [`Passage`] says
//! beside it what comes again, and what was lost.
//!
//! After a break the caller seeks its reader to [`Progress::cursor`] and pushes again from there. A
//! [`Relp`] and a [`Udp`] serve one connection, a [`Tcp`] and an [`Http`] one after another.
//! [ADR 0093](../../../docs/adr/0093-what-a-sinks-word-is-worth.md) has the promises.

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

/// A sink that owes a word and gives none for so long is given up: its connection is closed.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What a sink says is cut after so many bytes.
const SAID_BYTES: usize = 240;

/// A message of the log on its way to a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number in the log.
    pub number: u64,
    /// Its bytes, with what is added to them.
    pub payload: Vec<u8>,
}

/// What became of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sink has this message, and each one before it that is not poison.
    Delivered {
        /// The last message that it has.
        through: u64,
    },
    /// The sink will never take this message.
    Poison {
        /// The message.
        number: u64,
        /// Why: one line of less than 1 KiB.
        reason: String,
    },
}

/// Why a connection to a sink must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is no RELP.
    #[error("the sink does not speak RELP: {what}; use the port on which it takes RELP")]
    Protocol {
        /// What is wrong.
        what: &'static str,
    },
    /// The sink does not open the RELP session.
    #[error("the sink refuses the RELP session: {said}; see the log of the sink")]
    Refused {
        /// What it says.
        said: String,
    },
    /// The sink announces that it closes the connection, as it does when it restarts.
    #[error("the sink closes the connection")]
    Closed,
}

/// Adds that the sink has this message.
fn delivered(verdicts: &mut Vec<Verdict>, number: u64) {
    if let Some(Verdict::Delivered { through }) = verdicts.last_mut() {
        *through = number;
    } else {
        verdicts.push(Verdict::Delivered { through: number });
    }
}

/// What a sink says, as a part of a line.
fn said(bytes: &[u8]) -> String {
    let bytes = bytes.get(..SAID_BYTES).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    line.trim().to_owned()
}
