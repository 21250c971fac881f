//! Why a fleet has not adopted changes of the installation.

use crate::{
    status::conditions::{ConditionType, Finding, Truth},
    world::ObjectKey,
};

/// Reason of a fleet that waits for its turn.
const QUEUED: &str = "Queued";
/// Reason of a fleet that keeps its image.
const PINNED: &str = "Pinned";
/// Reason of a fleet whose new pods do not become ready, in the condition and the event.
pub(crate) const STOPPED: &str = "ProgressDeadlineExceeded";

/// Why a fleet has not adopted changes of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The fleet waits for its turn.
    Queued {
        /// The image that the fleet will get.
        image: String,
        /// The fleet that has to be rolled out and ready first.
        first: ObjectKey,
        /// Whether the new pods of that fleet do not become ready.
        is_stopped: bool,
    },
    /// The gateway pins its image; the installation has this one.
    Pinned(String),
    /// The installation leaves fleets as they are; it has this image.
    Kept(String),
    /// The fleet has adopted the changes, but its new pods do not become ready.
    Stopped,
}

/// The remedy for a fleet whose new pods do not become ready.
pub(crate) const REMEDY: &str = "its new pods do not become ready, or its old pods do not terminate; the other pods \
                                 keep running: see the pods and the workload of the gateway; to roll back, set \
                                 spec.proxyImage of the gateway, or the image of the installation";

/// The condition `Outdated`. `image` is the image that the fleet has.
#[must_use]
pub fn outdated(behind: &Behind, image: &str) -> Finding {
    let (reason, message) = match behind {
        Behind::Queued { image: next, first, is_stopped } => {
            let until = if *is_stopped {
                "whose rollout has stopped: see the status of that gateway"
            } else {
                "which goes first"
            };
            let gets = if next == image { "the new settings of the installation".to_owned() } else { next.clone() };
            (QUEUED, format!("the fleet keeps {image}, and gets {gets} after the fleet of {first}, {until}"))
        }
        Behind::Pinned(next) => {
            (PINNED, format!("spec.proxyImage keeps the fleet at {image}; the installation has {next}"))
        }
        Behind::Kept(next) => {
            let message = format!(
                "the fleet keeps its pods with {image}, because the chart value gateways.rollout is Pinned; the \
                 installation has {next}: set spec.proxyImage to roll the fleet"
            );
            (PINNED, message)
        }
        Behind::Stopped => (STOPPED, format!("the rollout of the fleet has stopped: {REMEDY}")),
    };
    Finding::new(ConditionType::Outdated, Truth::True, reason, message)
}
