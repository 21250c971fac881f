//! The status of a forward, from the verdict on it and from what its proxies report.
//!
//! Conditions follow the Kubernetes API conventions and kstatus: `Accepted`, `ResolvedRefs`, `Programmed` and their sum
//! `Ready` are always there; `Reconciling` and `Stalled` only while true. Every reason is explained in
//! `docs/conditions.md`.

use crds::{
    BackendHealth, Condition as StatusCondition, DataPlaneStatus, ForwardAddress, ListenerStatus, PortForward,
    PortForwardStatus, Protocol,
};
use proxy_api::Transport;

use crate::{
    status::{
        conditions::{Finding, conditions},
        data_plane::DataPlane,
        injected::injected,
    },
    translate::{
        validate::held_in,
        verdict::{ListenerVerdict, Outcome, Reason, Verdict},
    },
};

/// Seconds after which a proxy that has not told is late.
pub const LATE_AFTER_SECONDS: u64 = 30;

/// Of a forward that runs.
const PROGRAMMED: &str = "every proxy that should run it has its listeners bound";

/// What the moment adds to the verdict.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Now, RFC 3339.
    pub now: String,
    /// Seconds since what runs now was published, or since proxies are waited for that did not have to tell before.
    pub outstanding_seconds: u64,
    /// Addresses of the gateway.
    pub addresses: Vec<ForwardAddress>,
    /// Whether replicas follow the load, if they should.
    pub scaling: Option<Finding>,
}

/// The status of a forward.
#[must_use]
pub fn status(forward: &PortForward, verdict: &Verdict, data_plane: &DataPlane, moment: &Moment) -> PortForwardStatus {
    let empty = PortForwardStatus::default();
    let old = forward.status.as_ref().unwrap_or(&empty);
    let generation = forward.metadata.generation;
    let programmed = programmed(old, generation, verdict, data_plane, moment);
    let is_sidecar = forward.spec.placement.sidecar.is_some();
    let injected = is_sidecar.then(|| injected(data_plane));
    let beside = injected.into_iter().chain(moment.scaling.clone());
    let findings = findings(verdict, programmed, beside);
    // What is in the way of a forward for a while does not take from it what it holds.
    let is_kept = matches!(verdict.accepted.reason, Reason::Unsupported | Reason::GatewayNotFound | Reason::Invalid);
    let listeners = if is_kept && verdict.listeners.is_empty() {
        old.listeners.clone()
    } else {
        let held = verdict.listeners.iter().filter_map(|it| listener(it, data_plane));
        // Without pods there is nobody from whom to win a port: what was held stays held, and nothing comes to it.
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

/// What a forward without pods goes on to hold of this listener: what stood there. Where it wants more, that is for the pods
/// to come.
fn held_before(old: &PortForwardStatus, verdict: &Verdict, listener: &ListenerStatus) -> Option<ListenerStatus> {
    let is_its = |before: &&ListenerStatus| {
        (&before.name, before.port) == (&listener.name, listener.port)
            && (before.protocol == Protocol::Udp) == (listener.protocol == Protocol::Udp)
    };
    let before = held_in(old, &verdict.placement).iter().find(is_its)?;
    Some(ListenerStatus { backends: listener.backends, ..before.clone() })
}

/// Whether two statuses tell a person the same: counts follow the size of a fleet and are refreshed at leisure.
#[must_use]
pub fn same_but_for_counts(one: &PortForwardStatus, other: &PortForwardStatus) -> bool {
    let plain = |status: &PortForwardStatus| {
        let mut plain = PortForwardStatus { data_plane: None, ..status.clone() };
        // Backends come and go; who wants to know at once has events and metrics.
        plain.listeners.iter_mut().for_each(|it| it.backends = None);
        // It names and counts pods; whether all carry a proxy is no count.
        plain.conditions.iter_mut().filter(|it| it.type_ == "Injected").for_each(|it| it.message.clear());
        plain
    };
    plain(one) == plain(other)
}

impl ListenerVerdict {
    /// What it holds, as status has it. One that lost its port in some pods does not hold it: see `partial`.
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

/// `beside` is told, and never enters `Ready`.
fn findings(verdict: &Verdict, programmed: Finding, beside: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let accepted = Finding::of("Accepted", &verdict.accepted);
    let resolved = Finding::of("ResolvedRefs", &verdict.resolved_refs);
    let ready = ready(verdict, &programmed);
    let waits = programmed.status == "Unknown" && verdict.accepted.status;
    let reconciling =
        waits.then(|| Finding::new("Reconciling", "True", &programmed.reason, programmed.message.clone()));
    let stalled = stalled(verdict);
    let always = [accepted, resolved, programmed, ready].into_iter();
    always.chain(beside).chain(reconciling).chain(stalled).collect()
}

fn ready(verdict: &Verdict, programmed: &Finding) -> Finding {
    let like = |type_: &str, condition: &crate::translate::verdict::Condition| {
        let message = format!("{type_}: {}", condition.message);
        Finding::new("Ready", "False", condition.reason.as_str(), message)
    };
    if !verdict.accepted.status {
        return like("not accepted", &verdict.accepted);
    }
    if !verdict.resolved_refs.status {
        return like("a backend cannot be used", &verdict.resolved_refs);
    }
    match programmed.status {
        "True" if programmed.reason == "Programmed" => Finding::new("Ready", "True", "Ready", "every proxy runs it"),
        status => Finding::new("Ready", status, &programmed.reason, programmed.message.clone()),
    }
}

/// What only a person can mend, as kstatus wants it told apart from what may still come right.
fn stalled(verdict: &Verdict) -> Option<Finding> {
    let lasting = |reason| {
        !matches!(reason, Reason::Accepted | Reason::Suspended | Reason::ResolvedRefs | Reason::GatewayNotFound)
            && reason != Reason::BackendNotFound
    };
    let unmet = [&verdict.accepted, &verdict.resolved_refs].into_iter().find(|condition| !condition.status)?;
    lasting(unmet.reason).then(|| Finding::new("Stalled", "True", unmet.reason.as_str(), unmet.message.clone()))
}

fn programmed(
    old: &PortForwardStatus,
    generation: Option<i64>,
    verdict: &Verdict,
    data_plane: &DataPlane,
    moment: &Moment,
) -> Finding {
    let told = |status, reason: &str, message: String| Finding::new("Programmed", status, reason, message);
    let left_out = verdict.listeners.iter().find(|listener| matches!(listener.outcome, Outcome::Refused { .. }));
    if verdict.accepted.reason == Reason::Unsupported {
        return told("Unknown", "Unsupported", "what ran before goes on as it was".to_owned());
    }
    if verdict.listeners.is_empty() {
        return told("False", "NotAccepted", "nothing is published: the forward is not accepted".to_owned());
    }
    if let Some(listener) = left_out {
        let message =
            format!("listener '{}' is left out or goes on as before: see the other conditions", listener.name);
        return told("False", "ListenerLeftOut", message);
    }
    if verdict.accepted.reason == Reason::Suspended {
        return told("True", "Suspended", "suspended by spec.suspend: no proxy listens".to_owned());
    }
    if verdict.listeners.iter().any(|listener| listener.outcome == Outcome::Allocated) {
        return told("Unknown", "Allocating", "a port was chosen and is published once it stands in status".to_owned());
    }
    if let Some(first) = data_plane.rejected.first() {
        let DataPlane { total, rejected_count, .. } = data_plane;
        let message = format!(
            "{rejected_count} listener(s) do not run in {total} proxies; first in pod {}, listener '{}': {}",
            first.pod, first.listener, first.reason
        );
        return told("False", "Rejected", message);
    }
    if data_plane.no_proxies {
        return told("False", "NoProxies", "the gateway has no ready proxy: see the ForwardGateway".to_owned());
    }
    if data_plane.total == 0 {
        let message = "no pod matches spec.placement.sidecar.selector yet; the forward runs in those that will";
        return told("True", "NoMatchingPods", message.to_owned());
    }
    if data_plane.uninjected == data_plane.total {
        return told("True", "NoSidecars", "no matching pod has a proxy: see Injected".to_owned());
    }
    if data_plane.late.is_empty() {
        return told("True", "Programmed", PROGRAMMED.to_owned());
    }
    let is_late = moment.outstanding_seconds >= LATE_AFTER_SECONDS;
    if let Some(before) = was_programmed(old, generation)
        && (before.reason == "Programmed" || !is_late)
    {
        // Proxies that come and go do not undo what was said of this generation, once one has run it.
        return told("True", &before.reason, before.message.clone());
    }
    if !is_late {
        return told("Unknown", "Pending", "published; not every proxy has told yet".to_owned());
    }
    let more = if data_plane.late.len() < crate::status::data_plane::NAMED { "" } else { ", …" };
    let message = format!(
        "no report for {LATE_AFTER_SECONDS} s from {}{more}: is the proxy running, and does it reach the operator?",
        data_plane.late.join(", ")
    );
    told("False", "ReportTimeout", message)
}

/// What was said of this generation, if it was that it is programmed.
fn was_programmed(old: &PortForwardStatus, generation: Option<i64>) -> Option<&StatusCondition> {
    old.conditions.iter().find(|condition| {
        condition.type_ == "Programmed"
            && condition.status == "True"
            && condition.reason != "Suspended"
            && condition.observed_generation == generation
    })
}
