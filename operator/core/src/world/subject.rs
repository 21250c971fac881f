//! Objects whose status the operator writes.

use proxy_api::{Origin, OriginKind};

use crate::world::ObjectKey;

/// An object whose status the operator writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A `PortForward`.
    Forward(ObjectKey),
    /// A `ForwardGateway`.
    Gateway(ObjectKey),
    /// A `ForwardAgent`.
    Agent(ObjectKey),
}

/// The `PortForward` of an origin; `None` for a kind whose statuses the operator does not write.
///
/// Verdicts and reports of proxies reach statuses through this function, so a further variant of [`OriginKind`] does not
/// compile until the function decides on it.
#[must_use]
pub fn forward_of(origin: &Origin) -> Option<ObjectKey> {
    match origin.kind {
        OriginKind::PortForward => Some(origin.into()),
        OriginKind::Other(_) => None,
    }
}
