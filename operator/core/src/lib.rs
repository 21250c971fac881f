//! Compiles `PortForward`s into configuration for proxies, and what proxies report into status.
//!
//! ```text
//! World ──validate──▶ ValidForward ──groups──▶ who runs together ──claims──▶ who has which port
//!       ──backends──▶ where bytes may go ──judge──▶ Verdict per forward, and its listeners as they are to run
//!       ──program───▶ Snapshot per group
//! Verdict + what proxies report ──status──▶ PortForwardStatus
//! ```
//!
//! The [`Translator`] does this one change at a time; [`translate`] does it for a world of which nothing was known.
//!
//! All of it is pure: no async, no client, no clock, no environment. The same code runs in the operator and in
//! `portlane run`.

mod admission;
mod backends;
mod changes;
mod claims;
mod crash_loop;
mod data_plane;
mod gateway_status;
mod groups;
mod hash;
mod index;
mod injected;
mod judge;
mod loads;
mod program;
mod proxies;
mod scaling;
mod status;
mod translate;
mod translator;
mod validate;
mod verdict;
mod world;

pub use self::changes::{Changes, Update};
pub use self::crash_loop::CrashLoop;
pub use self::data_plane::{DataPlane, Fleet, PodIssue, data_plane};
pub use self::gateway_status::{FleetFacts, gateway_status};
pub use self::groups::Group;
pub use self::loads::{PodMetric, deletion_cost};
pub use self::program::{Published, Snapshot};
pub use self::proxies::{Ack, Proxies, ProxyState};
pub use self::scaling::{NoScaler, ScalerTold, Told, scaling};
pub use self::status::{
    Finding, LATE_AFTER_SECONDS, Moment, accepted_headers, conditions, same_but_for_counts, status,
};
pub use self::translate::{Translation, translate};
pub use self::translator::Translator;
pub use self::validate::{ValidForward, Violation, validate};
pub use self::verdict::{Condition, ListenerVerdict, Outcome, Reason, RejectedIn, Verdict};
pub use self::world::{Grant, Laptop, ObjectKey, Pod, Service, ServicePort, Site, World};
