//! Violations of the protocol.

use thiserror::Error;

use crate::frame::{Kind, Malformed};

/// How a peer violated the protocol. The carrier must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// The bytes are not a frame.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The frame came on a carrier that a later one has replaced, or that was never attached.
    #[error("a frame arrived on a connection that is no longer in use")]
    Stale,
    /// A frame came before [`Kind::Resume`], or that frame came twice.
    #[error("a frame of the kind {0:?} arrived at the wrong time")]
    OutOfTurn(Kind),
    /// A request has an id of this end, or of an existing stream.
    #[error("a request has the id {0}, which is not free")]
    Id(u32),
    /// Bytes are not the next ones or were not granted, or an acknowledgement is wrong.
    #[error("the positions of stream {0} are wrong")]
    Position(u32),
}
