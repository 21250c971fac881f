//! The status of a forward, from its verdict and from the reports of its proxies.
//!
//! Conditions follow the Kubernetes API conventions and kstatus: `Accepted`, `ResolvedRefs`, `Programmed` and their sum
//! `Ready` are always present; `Reconciling` and `Stalled` only while true. `docs/conditions.md` explains every reason.

use crds::{
    BackendHealth, Condition as StatusCondition, DataPlaneStatus, ForwardAddress, ListenerStatus, PortForward,
    PortForwardStatus, Protocol,
};
use proxy_api::Transport;

use crate::{
    status::{
        conditions::{ConditionType, Finding, Truth, conditions},
        data_plane::{DataPlane, NAMED},
        injected::injected,
    },
    translate::{
        validate::held_in,
        verdict::{ListenerVerdict, Outcome, Reason, Verdict},
    },
    world::proxy_id::ProxyId,
};

/// Seconds after which a proxy that has not reported is late.
pub const LATE_AFTER_SECONDS: u64 = 30;

/// Message of `Programmed` for a forward that runs.
const PROGRAMMED: &str = "every proxy that should run the forward has bound its listeners";

/// What a status depends on beside the verdict and the proxies.
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
}

/// Computes the status of a forward.
#[must_use]
pub fn status(forward: &PortForward, verdict: &Verdict, data_plane: &DataPlane, moment: &Moment) -> PortForwardStatus {
    let empty = PortForwardStatus::default();
    let old = forward.status.as_ref().unwrap_or(&empty);
    let generation = forward.metadata.generation;
    let programmed = programmed(old, generation, verdict, data_plane, moment);
    let is_sidecar = forward.spec.placement.sidecar.is_some();
    let injected = is_sidecar.then(|| injected(data_plane));
    let informational = injected.into_iter().chain(moment.scaling.clone()).chain(limit_reached(data_plane));
    let findings = findings(verdict, programmed, informational);
    // A temporary obstacle does not take from a forward the ports that it holds.
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

/// The part of a listener that a forward without pods still holds: what status already lists. The forward competes for
/// more once it has pods.
fn held_before(old: &PortForwardStatus, verdict: &Verdict, listener: &ListenerStatus) -> Option<ListenerStatus> {
    let is_same = |before: &&ListenerStatus| {
        (&before.name, before.port) == (&listener.name, listener.port)
            && (before.protocol == Protocol::Udp) == (listener.protocol == Protocol::Udp)
    };
    let before = held_in(old, &verdict.placement).iter().find(is_same)?;
    Some(ListenerStatus { backends: listener.backends, ..before.clone() })
}

/// Whether two statuses differ at most in counts, which follow the size of a fleet and are refreshed at intervals.
#[must_use]
pub fn same_but_for_counts(one: &PortForwardStatus, other: &PortForwardStatus) -> bool {
    let plain = |status: &PortForwardStatus| {
        let mut plain = PortForwardStatus { data_plane: None, ..status.clone() };
        // The health of backends changes often; events and metrics show it at once.
        plain.listeners.iter_mut().for_each(|it| it.backends = None);
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
        })
    }
}

fn listener(verdict: &ListenerVerdict, data_plane: &DataPlane) -> Option<ListenerStatus> {
    let backends = data_plane.backends.get(&verdict.name).map(|health| match health {
        proxy_api::BackendHealth::All => BackendHealth::All,
        proxy_api::BackendHealth::Some => BackendHealth::Some,
        proxy_api::BackendHealth::None => BackendHealth::None,
    });
    Some(ListenerStatus { backends, ..verdict.held()? })
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

/// All findings on a forward. The `informational` ones never affect `Ready`.
fn findings(verdict: &Verdict, programmed: Finding, informational: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let accepted = accepted(verdict);
    let resolved = Finding::of(ConditionType::ResolvedRefs, &verdict.resolved_refs);
    let ready = ready(verdict, &programmed);
    let waits = programmed.status == Truth::Unknown && verdict.accepted.status;
    let reconciling = waits
        .then(|| Finding::new(ConditionType::Reconciling, Truth::True, &programmed.reason, programmed.message.clone()));
    let stalled = stalled(verdict);
    let always = [accepted, resolved, programmed, ready].into_iter();
    always.chain(informational).chain(reconciling).chain(stalled).collect()
}

/// The condition `Accepted`. The message of an accepted forward has its first warning, and the number of the others.
fn accepted(verdict: &Verdict) -> Finding {
    let mut finding = Finding::of(ConditionType::Accepted, &verdict.accepted);
    if let ([first, more @ ..], true) = (verdict.warnings.as_slice(), verdict.accepted.status) {
        let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
        finding.message = format!("{}; warning: {first}{more}", finding.message);
    }
    finding
}

/// The condition `LimitReached`, present only while proxies refuse sessions.
fn limit_reached(data_plane: &DataPlane) -> Option<Finding> {
    let limited = &data_plane.limited;
    let more = if limited.len() < NAMED { "" } else { ", …" };
    let message = format!(
        "the proxy of {}{more} refuses sessions, because the forwards of this namespace have used up their share of it: \
         raise maxConnections of the namespace in spec.allowedForwards.tenants of the ForwardGateway, or add replicas",
        limited.join(", ")
    );
    (!limited.is_empty()).then(|| Finding::new(ConditionType::LimitReached, Truth::True, "TenantLimit", message))
}

fn ready(verdict: &Verdict, programmed: &Finding) -> Finding {
    let unready = |cause: &str, condition: &crate::translate::verdict::Condition| {
        let message = format!("{cause}: {}", condition.message);
        Finding::new(ConditionType::Ready, Truth::False, condition.reason.as_str(), message)
    };
    if !verdict.accepted.status {
        return unready("the forward is not accepted", &verdict.accepted);
    }
    if !verdict.resolved_refs.status {
        return unready("a backend cannot be used", &verdict.resolved_refs);
    }
    match programmed.status {
        Truth::True if programmed.reason == "Programmed" => {
            Finding::new(ConditionType::Ready, Truth::True, "Ready", "every proxy runs the forward")
        }
        status => Finding::new(ConditionType::Ready, status, &programmed.reason, programmed.message.clone()),
    }
}

/// The condition `Stalled`: what only a person can fix. kstatus separates that from what may still resolve by itself.
fn stalled(verdict: &Verdict) -> Option<Finding> {
    let lasting = |reason| {
        !matches!(reason, Reason::Accepted | Reason::Suspended | Reason::ResolvedRefs | Reason::GatewayNotFound)
            && reason != Reason::BackendNotFound
    };
    let unmet = [&verdict.accepted, &verdict.resolved_refs].into_iter().find(|condition| !condition.status)?;
    lasting(unmet.reason)
        .then(|| Finding::new(ConditionType::Stalled, Truth::True, unmet.reason.as_str(), unmet.message.clone()))
}

fn programmed(
    old: &PortForwardStatus,
    generation: Option<i64>,
    verdict: &Verdict,
    data_plane: &DataPlane,
    moment: &Moment,
) -> Finding {
    unpublished(verdict).unwrap_or_else(|| published(old, generation, data_plane, moment))
}

fn finding(status: Truth, reason: &str, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::Programmed, status, reason, message)
}

/// `Programmed` of a spec that is not published to proxies, or only in part.
fn unpublished(verdict: &Verdict) -> Option<Finding> {
    if verdict.accepted.reason == Reason::Unsupported {
        return Some(finding(Truth::Unknown, "Unsupported", "the previous version of the forward keeps running"));
    }
    if verdict.listeners.is_empty() {
        return Some(finding(Truth::False, "NotAccepted", "nothing is published: the forward is not accepted"));
    }
    let mut listeners = verdict.listeners.iter();
    if let Some(listener) = listeners.find(|listener| matches!(listener.outcome, Outcome::Refused { .. })) {
        let message = format!(
            "listener '{}' is left out, or its last good version keeps running: see the other conditions",
            listener.name
        );
        return Some(finding(Truth::False, "ListenerLeftOut", message));
    }
    if verdict.accepted.reason == Reason::Suspended {
        return Some(finding(Truth::True, "Suspended", "spec.suspend is set: no proxy listens"));
    }
    let is_allocating = verdict.listeners.iter().any(|listener| listener.outcome == Outcome::Allocated);
    is_allocating.then(|| {
        finding(Truth::Unknown, "Allocating", "a port is allocated; the listener is published once status has the port")
    })
}

/// `Programmed` of a published spec: what its proxies report.
fn published(old: &PortForwardStatus, generation: Option<i64>, data_plane: &DataPlane, moment: &Moment) -> Finding {
    if let Some(first) = data_plane.rejected.first() {
        let DataPlane { total, rejected_count, .. } = data_plane;
        let message = format!(
            "{rejected_count} listener rejection(s) among {total} proxies, see status.dataPlane.rejected; first: pod \
             {}, listener '{}': {}",
            first.pod, first.listener, first.reason
        );
        return finding(Truth::False, "Rejected", message);
    }
    if data_plane.no_proxies {
        let message = "the gateway has no ready proxy: see the conditions of the ForwardGateway";
        return finding(Truth::False, "NoProxies", message);
    }
    if data_plane.total == 0 {
        let message = "no pod matches spec.placement.sidecar.selector yet; the forward runs in pods that match later";
        return finding(Truth::True, "NoMatchingPods", message);
    }
    if data_plane.uninjected == data_plane.total {
        return finding(Truth::True, "NoSidecars", "no matching pod has a proxy: see the condition Injected");
    }
    if data_plane.late.is_empty() {
        return finding(Truth::True, "Programmed", PROGRAMMED);
    }
    let is_late = moment.outstanding_seconds >= LATE_AFTER_SECONDS;
    if let Some(before) = was_programmed(old, generation)
        && (before.reason == "Programmed" || !is_late)
    {
        // Proxies that join or leave do not undo `Programmed` of a generation that has run.
        return finding(Truth::True, &before.reason, before.message.clone());
    }
    if !is_late {
        return finding(Truth::Unknown, "Pending", "the spec is published; not every proxy has reported yet");
    }
    let late: Vec<&str> = data_plane.late.iter().map(ProxyId::name).collect();
    let more = if late.len() < NAMED { "" } else { ", …" };
    let message = format!(
        "no report for {LATE_AFTER_SECONDS} s from the proxy of {}{more}: check that the proxy runs and reaches the \
         operator",
        late.join(", ")
    );
    finding(Truth::False, "ReportTimeout", message)
}

/// The condition `Programmed` of this generation, if it was true.
fn was_programmed(old: &PortForwardStatus, generation: Option<i64>) -> Option<&StatusCondition> {
    old.conditions.iter().find(|condition| {
        condition.type_ == ConditionType::Programmed.as_str()
            && condition.status == Truth::True.as_str()
            && condition.reason != "Suspended"
            && condition.observed_generation == generation
    })
}
