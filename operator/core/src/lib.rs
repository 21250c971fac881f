//! Every decision of the operator. `docs/architecture.md` shows how data flows through the modules.
//!
//! The crate is pure: no async, no client, no clock, no environment. The same code runs in the operator and in
//! `portlane run`.

pub mod desired;
pub mod enrolment;
pub mod hash;
pub mod live_api;
pub mod metrics_api;
pub mod names;
pub mod notices;
pub mod publish;
pub mod recent;
pub mod review;
pub mod schedule;
pub mod status;
pub mod translate;
pub mod world;

pub use self::desired::holder::NoScaler;
pub use self::recent::Recent;
pub use self::status::conditions::{ConditionType, Finding, Truth, conditions};
pub use self::status::data_plane::{DataPlane, Fleet, PodIssue, data_plane};
pub use self::status::findings::LATE_AFTER_SECONDS;
pub use self::status::forward::{Moment, same_but_for_counts, status};
pub use self::status::gateway::{FleetFacts, gateway_status};
pub use self::status::loads::{PodMetric, Unheard, deletion_cost};
pub use self::status::proxies::{Ack, Proxies, ProxyState};
pub use self::status::rates::{DrainRates, EventRates};
pub use self::status::scaling::scaling;
pub use self::translate::groups::Group;
pub use self::translate::program::{Published, Snapshot};
pub use self::translate::translate;
pub use self::translate::translator::{Translation, Translator};
pub use self::translate::update::Update;
pub use self::translate::validate::{ValidForward, Violation, accepted_headers, validate};
pub use self::translate::verdict::{Condition, ListenerVerdict, Outcome, Reason, RejectedIn, Verdict};
pub use self::world::cache::{Cache, Grown, Touched};
pub use self::world::carrier::Carrier;
pub use self::world::changes::Changes;
pub use self::world::crash_loop::CrashLoop;
pub use self::world::proxy_id::ProxyId;
pub use self::world::subject::Subject;
pub use self::world::{Grant, Laptop, ObjectKey, Pod, Service, ServiceBackend, ServicePort, Site, World};
