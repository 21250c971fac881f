//! The contract between the compiler of forwards (the operator or `portlane run`) and the proxy.
//!
//! Files, the wire and golden tests use the same types. Compatibility rules, tested in `tests/compat.rs`,
//! `tests/earlier.rs` and `tests/agents.rs`:
//!
//! 1. **Unknown top-level fields are ignored** by both sides, so a newer side may send more than an older side reads.
//! 2. **Nothing inside a listener is ignored.** An unknown field or value makes that listener [`Offer::Unsupported`]:
//!    the proxy reports the listener as failed and never runs it, because overlooking a restriction is worse than
//!    refusing it. Other listeners are unaffected. A missing field or wrong type comes from no release, older or newer:
//!    the document is damaged and refused whole. An unknown field of an agent leaves the agent
//!    [suspended](Agent::suspended) and without targets.
//! 3. **Unknown values inside a report decode as `Unknown`**, so that an older operator can read a newer proxy.
//! 4. Fields are only added, always optional, and their absence means the old behaviour. No field is renamed or reused.
//! 5. Every document of a released version decodes for ever; each release adds one to `tests/documents/`.
//! 6. Texts and maps of a message are bounded (`bounded.rs`); a message beyond the bounds ends its stream.
//! 7. Both sides state [`CONTRACT`], which is raised when a change cannot be made under rules 1 to 4.
//! 8. A proxy whose operator knows no agents has none: the operator could not have it remove one. The same holds for
//!    peers and for sidecars.
//!
//! Versions are ordered by (`epoch`, `number`): see [`Version`]. This crate does not depend on Kubernetes.

mod agent;
mod bounded;
mod causes;
mod change;
mod check;
mod configuration;
mod decode;
mod destinations;
pub mod doors;
mod durable;
mod endpoint;
mod guard;
mod hash;
mod held;
mod hidden;
mod id;
mod listener;
mod live;
mod load;
pub mod partials;
mod peers;
mod report;
mod session_id;
mod signing;
mod stream;
mod surroundings;
mod transport;
mod unknown;
pub mod weight;
mod words;

pub use agent::{Agent, Enrolment};
pub use bounded::{
    MAX_AGENTS, MAX_CERTIFICATE_BYTES, MAX_CONNECTED, MAX_COUNTED, MAX_ENDPOINT_ID_BYTES, MAX_EPOCH_BYTES,
    MAX_FAILURE_BYTES, MAX_HASH_BYTES, MAX_INSTANCE_BYTES, MAX_LAG_ERROR_BYTES, MAX_LAGS, MAX_LIVE, MAX_LOADS,
    MAX_NAME_BYTES, MAX_PEERS, MAX_REASON_BYTES, MAX_REASONS, MAX_REFUSAL_BYTES, MAX_SIDECARS, MAX_SIGN_REQUEST_BYTES,
    MAX_SOFTWARE_BYTES, MAX_TARGET_BYTES, MAX_TARGETS, MAX_TOKEN_BYTES, PARTS,
};
pub use causes::with_causes;
pub use change::{Assembler, Change, ChangeError, Named};
pub use check::{HealthCheck, MAX_CHECK_BYTES, Octets, Probe};
pub use configuration::{Configuration, Digest, DigestSum, Offer, Version};
pub use decode::{DecodeError, MAX_DOCUMENT_BYTES, MAX_LISTENERS};
pub use destinations::{Denial, Destinations, forms, is_within};
pub use durable::{
    Durable, Enrich, Framing, HttpFormat, Oversize, SIDECAR_STREAM, STREAM_SERVER, Sink, SinkFraming, Store, WhenFull,
    stream_name,
};
pub use endpoint::{Endpoint, EndpointSet};
pub use guard::{AcceptHeader, Access, Limits, OnLimit, ProxyProtocol, SendHeader, TenantLimits};
pub use held::Held;
pub use hidden::is_hidden;
pub use id::{IdParts, ListenerId, ListenerIdError, Origin, OriginError, OriginKind, OriginKindError, OtherKind};
pub use listener::{
    AccessLog, AccessLogMode, Backend, Bind, Listener, OnUnhealthy, OnUpdate, Outlier, Policy, Retry, Revision,
    Sessions, SocketKey, Target, Timeouts,
};
pub use live::{Inquiry, Inspected, Lag, LiveSession, LiveSessions, Selection};
pub use load::{Load, Work};
pub use peers::{MAX_SIDECAR_AGENTS, SIDECAR_TUNNEL_PORT, Sidecar, Tunnels, peer_revision};
pub use report::{
    BackendHealth, Delivery, Failure, FailureReason, ListenerReport, ListenerState, ReachedLimit, Report, ReportPart,
};
pub use session_id::{SessionId, SessionIdError};
pub use signing::{
    AgentsReport, Applicant, ConnectedInstance, Issued, MAX_UNANSWERED, Sign, SignOutcome, SignReason, SignRefusal,
    Signed,
};
pub use stream::{
    Drained, FromProxy, Hello, MAX_HELLO_BYTES, MAX_MESSAGE_BYTES, MAX_REPORT_BYTES, METHOD, SERVICE, ToProxy, Trust,
};
pub use surroundings::{FLEET, FRONTS, PROTECTED, PROTECTED_NETWORKS, RESERVED, Surroundings, entry_of};
pub use transport::Transport;
pub use words::count;

/// Contract version of this build.
pub const CONTRACT: u32 = 1;
/// Audience of the `ServiceAccount` tokens with which proxies authenticate to the operator.
pub const AUDIENCE: &str = "portlane-operator";
