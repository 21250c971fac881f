//! The status of a `PortForward`, from its verdict and from the reports of its proxies.

use crds::{
    BackendHealth, DataPlaneStatus, Delivery, ForwardAddress, ListenerStatus, PortForward, PortForwardStatus, Protocol,
};
use proxy_api::Transport;

use crate::{
    status::{
        conditions::{ConditionType, Finding, conditions},
        data_plane::DataPlane,
        findings::{Before, findings},
        injected::injected,
        kept::messages_kept,
    },
    translate::{
        validate::held_in,
        verdict::{ListenerVerdict, Reason, Verdict},
    },
};

/// The inputs of a status beside the verdict and the proxies.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// The current time, RFC 3339.
    pub now: String,
    /// Seconds that the operator has waited for reports: since the current configuration was published, or since the
    /// first late proxy appeared.
    pub outstanding_seconds: u64,
    /// Addresses of the gateway.
    pub addresses: Vec<ForwardAddress>,
    /// The condition `ScalingActive`; `None` without `spec.autoscaling`.
    pub scaling: Option<Finding>,
    /// Whether the pods of the gateway have claims.
    pub has_claims: bool,
    /// Warnings beside those of the verdict.
    pub warnings: Vec<String>,
}

/// Computes the status of a forward.
#[must_use]
pub fn status(forward: &PortForward, verdict: &Verdict, data_plane: &DataPlane, moment: &Moment) -> PortForwardStatus {
    let empty = PortForwardStatus::default();
    let old = forward.status.as_ref().unwrap_or(&empty);
    let generation = forward.metadata.generation;
    let is_sidecar = forward.spec.placement.sidecar.is_some();
    let injected = is_sidecar.then(|| injected(data_plane));
    let kept = messages_kept(forward, moment.has_claims).filter(|_| verdict.accepted.status);
    let informational = injected.into_iter().chain(moment.scaling.clone()).chain(kept);
    let outstanding_seconds = moment.outstanding_seconds;
    let warnings = moment.warnings.as_slice();
    let before = Before { conditions: &old.conditions, generation, outstanding_seconds, warnings };
    let findings = findings(&before, verdict, data_plane, informational);
    // A temporary obstacle does not take away the ports that a forward holds.
    let is_kept = matches!(verdict.accepted.reason, Reason::Unsupported | Reason::GatewayNotFound | Reason::Invalid);
    let listeners = if is_kept && verdict.listeners.is_empty() {
        old.listeners.clone()
    } else {
        let held = verdict.listeners.iter().filter_map(|it| listener(it, data_plane));
        // Without pods no port can be won: the forward keeps the ports that it holds, and gains none.
        let is_without_pods = is_sidecar && verdict.groups.is_empty();
        held.filter_map(|it| if is_without_pods { held_before(old, verdict, &it) } else { Some(it) }).collect()
    };
    let placement = Some(verdict.placement.clone()).filter(|placement| !placement.is_empty());
    PortForwardStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, findings, generation, &moment.now),
        ports: Some(ports(&listeners)).filter(|ports| !ports.is_empty()),
        listeners,
        data_plane: Some(counts(data_plane)),
        to: Some(to(verdict)).filter(|to| !to.is_empty()),
        placement: placement.or_else(|| old.placement.clone()),
        addresses: moment.addresses.clone(),
    }
}

/// The part of a listener that a forward without pods still holds: the part that status already lists. The forward
/// competes for more once it has pods.
fn held_before(old: &PortForwardStatus, verdict: &Verdict, listener: &ListenerStatus) -> Option<ListenerStatus> {
    let is_same = |before: &&ListenerStatus| {
        (&before.name, before.port) == (&listener.name, listener.port)
            && (before.protocol == Protocol::Udp) == (listener.protocol == Protocol::Udp)
    };
    let before = held_in(old, &verdict.placement).iter().find(is_same)?;
    Some(ListenerStatus { backends: listener.backends, delivery: listener.delivery, ..before.clone() })
}

/// Whether two statuses differ at most in counts, which follow the size of a fleet and are refreshed at intervals.
#[must_use]
pub fn same_but_for_counts(one: &PortForwardStatus, other: &PortForwardStatus) -> bool {
    let plain = |status: &PortForwardStatus| {
        let mut plain = PortForwardStatus { data_plane: None, ..status.clone() };
        // Backend health and delivery change often. Their events wait for the status, and metrics of proxies do not.
        plain.listeners.iter_mut().for_each(|it| (it.backends, it.delivery) = (None, None));
        // The message of `Injected` names and counts pods; its status and reason are no counts.
        plain
            .conditions
            .iter_mut()
            .filter(|it| it.type_ == ConditionType::Injected.as_str())
            .for_each(|it| it.message.clear());
        // `LimitReached` follows the load, like counts.
        plain.conditions.retain(|it| it.type_ != ConditionType::LimitReached.as_str());
        plain
    };
    plain(one) == plain(other)
}

impl ListenerVerdict {
    /// The port that the listener holds, as status lists it. A listener that lost its port in some pods holds none: see
    /// `partial`.
    #[must_use]
    pub fn held(&self) -> Option<ListenerStatus> {
        let protocol = match self.transport {
            Transport::Tcp if !self.hostnames.is_empty() => Protocol::Tls,
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        Some(ListenerStatus {
            name: self.name.clone(),
            protocol,
            port: self.port.filter(|_| !self.partial)?,
            end_port: self.end_port,
            hostnames: self.hostnames.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            backends: None,
            delivery: None,
        })
    }
}

fn listener(verdict: &ListenerVerdict, data_plane: &DataPlane) -> Option<ListenerStatus> {
    let backends = data_plane.backends.get(&verdict.name).map(|health| match health {
        proxy_api::BackendHealth::All => BackendHealth::All,
        proxy_api::BackendHealth::Some => BackendHealth::Some,
        proxy_api::BackendHealth::None => BackendHealth::None,
    });
    let delivery = data_plane.deliveries.get(&verdict.name).and_then(|delivery| match delivery {
        proxy_api::Delivery::Flowing => Some(Delivery::Flowing),
        proxy_api::Delivery::Behind => Some(Delivery::Behind),
        proxy_api::Delivery::Stalled => Some(Delivery::Stalled),
        proxy_api::Delivery::Full => Some(Delivery::Full),
        proxy_api::Delivery::StoreFailed => Some(Delivery::StoreFailed),
        proxy_api::Delivery::Unknown => None,
    });
    Some(ListenerStatus { backends, delivery, ..verdict.held()? })
}

fn ports(listeners: &[ListenerStatus]) -> String {
    let word = |listener: &ListenerStatus| {
        let end = listener.end_port.map(|end| format!("-{end}")).unwrap_or_default();
        format!("{}{end}/{}", listener.port, listener.protocol.as_str())
    };
    listeners.iter().map(word).collect::<Vec<_>>().join(",")
}

fn to(verdict: &Verdict) -> String {
    let all: Vec<&String> = verdict.listeners.iter().flat_map(|listener| &listener.to).collect();
    let first = all.first().map(|first| first.chars().take(900).collect::<String>()).unwrap_or_default();
    let more = all.iter().filter(|other| **other != all[0]).collect::<std::collections::BTreeSet<_>>().len();
    if more == 0 { first } else { format!("{first} (+{more})") }
}

fn counts(data_plane: &DataPlane) -> DataPlaneStatus {
    DataPlaneStatus {
        total: data_plane.total,
        acked: data_plane.acked,
        summary: format!("{}/{}", data_plane.acked, data_plane.total),
        rejected: data_plane.rejected.clone(),
        rejected_count: data_plane.rejected_count,
    }
}
