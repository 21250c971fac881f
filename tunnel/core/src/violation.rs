//! What a peer may do against the protocol.

use thiserror::Error;

use crate::frame::{Kind, Malformed};

/// What a peer did against the protocol. The carrier must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Not a frame.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A frame of a carrier that a later one has replaced, or of none.
    #[error("a frame came on a connection that is no longer in use")]
    Stale,
    /// Any other frame before [`Kind::Resume`], or that one again.
    #[error("a frame of the kind {0:?} came at the wrong time")]
    OutOfTurn(Kind),
    /// A request with an id of this end, or of a stream that is there.
    #[error("a request has the id {0}, which is not free")]
    Id(u32),
    /// Bytes that are not the next ones or were not granted, or a wrong acknowledgement.
    #[error("the positions of stream {0} are wrong")]
    Position(u32),
}
