//! Validates one object on its own and fills in defaults.
//!
//! The API server rejects most violations by schema and CEL. The installed CRD may be older than the operator, so the
//! rules that the translation relies on are checked here again.

mod backend;
mod durable;
mod escaped;
mod guard;
mod health;
mod held;
mod idle;
mod listener;
mod placement;
mod ports;
mod protocol;
mod settings;
mod valid_forward;

use std::fmt;

use crds::PortForward;
use proxy_api::{Origin, OriginKind};

use crate::world::class;

pub use self::valid_forward::{ValidForward, accepted_headers};
pub(crate) use self::{
    backend::{Destination, ValidBackend, agent_of_id, canonical, host_port, service_of_id},
    held::{Standing, held_in},
    placement::Placement,
    protocol::transport,
    valid_forward::ValidListener,
};

/// A rule that an object violates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// Path of the field, such as `spec.listeners[0].port`.
    pub field: String,
    /// The rule, or the cause and the remedy.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Checks one object of a cluster and fills in defaults.
///
/// # Errors
/// All violations of the object.
pub fn validate(forward: &PortForward) -> Result<ValidForward, Vec<Violation>> {
    validate_for(forward, false)
}

/// Like [`validate`]. `on_laptop` says that listeners name the servers of their streams; in a cluster, their gateway
/// does.
pub(crate) fn validate_for(forward: &PortForward, on_laptop: bool) -> Result<ValidForward, Vec<Violation>> {
    let mut found = Violations::default();
    let key = Origin {
        kind: OriginKind::PortForward,
        namespace: forward.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        name: forward.metadata.name.clone().unwrap_or_default(),
    };
    if key.name.is_empty() {
        found.add("metadata.name", "must be set");
    }
    let placement = placement::placement(forward, &key, &mut found);
    let held = placement.as_ref().map_or(&[][..], |placement| held::held(forward, placement));
    let in_gateway = matches!(placement, Some(Placement::Gateway(_)));
    let spec = &forward.spec;
    if spec.listeners.is_empty() || spec.listeners.len() > 32 {
        found.add("spec.listeners", "must have 1 to 32 items");
    }
    let listeners: Vec<ValidListener> = spec
        .listeners
        .iter()
        .enumerate()
        .map(|(at, item)| {
            let path = format!("spec.listeners[{at}]");
            durable::server(item, &path, (on_laptop, in_gateway), &mut found);
            listener::listener(item, &path, held, &key, in_gateway, &mut found)
        })
        .collect();
    ports::uniqueness(&listeners, &mut found);
    let limits = guard::limits(spec.limits.as_ref(), &mut found);
    let access = guard::access(spec.access.as_ref(), &mut found);
    match (placement, found.0.is_empty()) {
        (Some(placement), true) => Ok(ValidForward {
            created: forward.metadata.creation_timestamp.as_ref().map(|time| time.0.as_nanosecond()),
            class: class::of_forward(forward).to_owned(),
            suspended: spec.suspend.unwrap_or(false),
            placement,
            listeners,
            timeouts: settings::timeouts(spec.timeouts.as_ref()),
            limits: limits.map(Box::new),
            access: access.map(Box::new),
            retry: settings::retry(spec.retry.as_ref()),
            sessions: settings::sessions(spec.sessions.as_ref()),
            access_log: settings::access_log(spec.access_log.as_ref()),
            origin: key,
        }),
        _ => Err(found.0),
    }
}

/// The violations found so far.
#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, field: impl Into<String>, message: &str) {
        self.0.push(Violation { field: field.into(), message: message.to_owned() });
    }
}
