//! Objects whose status the operator writes.

use crate::world::ObjectKey;

/// An object whose status the operator writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A `PortForward`.
    Forward(ObjectKey),
    /// A `ForwardGateway`.
    Gateway(ObjectKey),
}
