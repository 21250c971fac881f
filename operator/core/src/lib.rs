//! Compiles `PortForward`s into configuration for proxies, and what proxies report into status.
//!
//! ```text
//! World ──validate──▶ ValidForward ──groups──▶ who runs together ──claims──▶ who has which port
//!       ──backends──▶ where bytes may go ──translate──▶ Translation { Configuration per group, Verdict per object }
//! Verdict + what proxies report ──status──▶ PortForwardStatus
//! ```
//!
//! All of it is pure: no async, no client, no clock, no environment. The same code runs in the operator and in
//! `portlane run`.

mod backends;
mod claims;
mod data_plane;
mod gateway_status;
mod groups;
mod last_good;
mod proxies;
mod snapshot;
mod status;
mod translate;
mod validate;
mod verdict;
mod world;

pub use self::data_plane::{DataPlane, Fleet, data_plane};
pub use self::gateway_status::{FleetFacts, gateway_status};
pub use self::groups::Group;
pub use self::last_good::keep_last_good;
pub use self::proxies::{Ack, Proxies, ProxyState};
pub use self::snapshot::Snapshot;
pub use self::status::{Finding, LATE_AFTER_SECONDS, Moment, conditions, same_but_for_counts, status};
pub use self::translate::{Translation, translate};
pub use self::validate::{ValidForward, Violation, validate};
pub use self::verdict::{Condition, ListenerVerdict, Outcome, Reason, RejectedIn, Verdict};
pub use self::world::{Grant, Laptop, ObjectKey, Pod, Service, ServicePort, Site, World};
