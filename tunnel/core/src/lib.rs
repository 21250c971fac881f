//! Streams that survive the loss of the connection under them.
//!
//! A [`Session`] holds the streams between two ends. A *carrier*, one TLS connection at a time, moves its frames. When
//! a carrier is lost, the streams wait. On the next carrier each end first says what it has received, and the other end
//! resends the rest. Positions are absolute, so nothing is lost and nothing is delivered twice.
//!
//! The crate is pure: bytes and the time are arguments, and callers carry out its decisions. Time is a
//! [`Duration`](std::time::Duration) since any fixed start, from a monotonic clock. [ADR
//! 0074](../../../docs/adr/0074-streams-outlive-their-carrier.md) has the reasons.

pub mod allow;
pub mod attendance;
mod backlog;
mod dial;
pub mod door;
pub mod enrolment;
pub mod families;
mod frame;
pub mod hello;
pub mod identity;
pub mod join;
mod limits;
pub mod notices;
mod open;
pub mod order;
pub mod places;
mod pool;
mod queue;
pub mod registry;
mod session;
mod stream;
mod violation;

pub use dial::Dialler;
pub use frame::{HEADER, Kind, MAX_DATAGRAM, MAX_PAYLOAD, Malformed};
pub use limits::Limits;
pub use open::{MAX_DETAIL, MAX_HOST, Open, Protocol, Reason, Refusal, Target};
pub use pool::Pool;
pub use session::{Counters, Loss, NotOpened, Notice, Session, Side, StreamId};
pub use stream::End;
pub use violation::Violation;
