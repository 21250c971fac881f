//! Streams that survive the connection under them.
//!
//! A [`Session`] holds the streams between two ends. A *carrier*, one TLS connection at a time,
//! moves its frames. When a carrier is lost, the streams wait; on the next one each end first says
//! what it has received, and the other sends the rest again. Positions are absolute, so that
//! nothing is lost and nothing comes twice.
//!
//! The crate is pure: bytes and the time are arguments, and what is to be done is asked for. Time is
//! a [`Duration`](std::time::Duration) since any fixed start, from a clock that does not jump.
//! [ADR 0074](../../../docs/adr/0074-streams-outlive-their-carrier.md) has the reasons.

pub mod allow;
mod backlog;
mod dial;
pub mod door;
pub mod enrolment;
mod frame;
pub mod hello;
pub mod identity;
pub mod join;
mod limits;
mod open;
pub mod places;
pub mod registry;
mod session;
mod stream;
mod violation;

pub use dial::Dialler;
pub use frame::{HEADER, Kind, MAX_DATAGRAM, MAX_PAYLOAD, Malformed};
pub use limits::Limits;
pub use open::{MAX_DETAIL, MAX_HOST, Open, Protocol, Reason, Refusal, Target};
pub use session::{Counters, Loss, NotOpened, Notice, Session, Side, StreamId};
pub use stream::End;
pub use violation::Violation;
