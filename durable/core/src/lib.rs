//! A log of messages on disk that survives crashes.
//!
//! A [`Log`] keeps messages in segment files until the sink has acknowledged them. It says which
//! messages are synced, and only those may be acknowledged to their sender. After a crash it continues
//! from the files: every synced message is read again unless the cursor has passed it, in order.
//! Whatever is lost, by damage, a bound or a failed sync, is reported ([`Reported`]).
//!
//! A [`keeper`] owns a log: it says when messages are written and synced, who waits for it, and what is given up. A log in
//! a [`stream`] is that of a server, which several processes share. A listener may have several logs, its [`lanes`].
//!
//! [`intake`] splits the bytes of senders into messages, [`send`] has the state machines that deliver them to a sink,
//! and [`enrich`] adds labels to them on the way.
//!
//! The crate is pure: the folder and the time are arguments ([`Outside`]), and each call to the
//! folder may fail. One folder belongs to one process; the shell sees to that.
//! [ADR 0085](../../../docs/adr/0085-a-log-of-our-own.md) has the reasons.

mod dead;
pub mod enrich;
mod error;
mod files;
pub mod intake;
pub mod keeper;
pub mod lanes;
mod log;
mod record;
pub mod send;
mod settings;
pub mod stream;

pub use dead::{DeadLetters, Letter, LetterLine};
pub use error::{Error, FileError, Reported, Why};
pub use files::{Files, Now, Outside};
pub use log::{Log, Reader};
pub use record::{MAX_MESSAGE_BYTES, MAX_SOURCE_BYTES, Message, Record};
pub use settings::{Settings, WhenFull};
