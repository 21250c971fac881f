//! The pure core: the whole world in, configurations and verdicts out.

mod backends;
mod claims;
mod groups;
mod last_good;
mod translate;
mod validate;
mod verdict;
mod world;

pub use self::groups::Group;
pub use self::last_good::keep_last_good;
pub use self::translate::{Translation, translate};
pub use self::validate::{ValidForward, Violation, validate};
pub use self::verdict::{Condition, ListenerVerdict, Outcome, Reason, RejectedIn, Verdict};
pub use self::world::{Grant, Laptop, ObjectKey, Pod, Service, ServicePort, Site, World};
