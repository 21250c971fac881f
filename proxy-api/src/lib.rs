//! The contract between whoever compiles forwards (the operator, `portlane run`) and the proxy.
//!
//! The document in a file, on the wire and in golden tests is the same set of types. Compatibility rules, tested in
//! `tests/compat.rs`:
//!
//! 1. **Top level: unknown fields are ignored**, by both sides. A newer side may say more than an older one reads.
//! 2. **Inside a listener nothing is ignored.** An unknown field or value makes that listener
//!    [`Offer::Unsupported`]: it is reported as failed and never run, because a proxy that overlooks a restriction is
//!    worse than one that refuses. The other listeners are not concerned. A missing field or a wrong type is neither an
//!    older nor a newer release: the document is damaged, and refused whole.
//! 3. **Inside a report unknown values are kept as unknown**, so that an older operator reads a newer proxy.
//! 4. Fields are only ever added, optional, with the old behaviour as their absence; none is renamed or reused.
//! 5. Every document of a released version decodes for ever; each release adds one to `tests/documents/`.
//! 6. Both sides state [`CONTRACT`]. It is raised when a change cannot be made by rules 1 to 4.
//!
//! Order is (`epoch`, `number`): see [`Version`]. No type here knows of Kubernetes.

mod change;
mod configuration;
mod decode;
mod guard;
mod listener;
mod load;
mod report;
mod stream;

pub use change::{Assembler, Change, ChangeError, Held};
pub use configuration::{Configuration, Digest, DigestSum, EndpointSet, Offer, Version};
pub use decode::{DecodeError, MAX_DOCUMENT_BYTES, MAX_LISTENERS};
pub use guard::{AcceptHeader, Access, HealthCheck, Limits, OnLimit, Probe, ProxyProtocol, SendHeader};
pub use listener::{
    AccessLog, AccessLogMode, Backend, Bind, Destinations, Listener, ListenerId, ListenerIdError, OnUnhealthy,
    OnUpdate, Outlier, Policy, Retry, Revision, Sessions, SocketKey, Target, Timeouts, Transport,
};
pub use load::{Load, MAX_LOADS, Work};
pub use report::{BackendHealth, Failure, FailureReason, ListenerReport, ListenerState, Report, ReportPart};
pub use stream::{Drained, FromProxy, Hello, MAX_MESSAGE_BYTES, METHOD, PARTS, SERVICE, ToProxy, Trust};

/// Version of the contract that this build speaks.
pub const CONTRACT: u32 = 1;
/// Audience of the `ServiceAccount` tokens with which proxies authenticate to the operator.
pub const AUDIENCE: &str = "portlane-operator";
