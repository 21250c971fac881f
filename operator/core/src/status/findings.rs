//! The conditions of a forward of any kind, from its verdict and the reports of its proxies.
//!
//! Conditions follow the Kubernetes API conventions and kstatus: `Accepted`, `ResolvedRefs`, `Programmed` and their sum
//! `Ready` are always present; `Reconciling` and `Stalled` only while true. `docs/conditions.md` explains every reason.

use crds::Condition as StatusCondition;

use crate::{
    status::{
        conditions::{ConditionType, Finding, Truth},
        data_plane::{DataPlane, NAMED},
    },
    translate::verdict::{Outcome, Reason, Verdict},
    world::proxy_id::ProxyId,
};

/// Seconds after which a proxy that has not reported is late.
pub const LATE_AFTER_SECONDS: u64 = 30;

/// Message of `Programmed` for a forward that runs.
const PROGRAMMED: &str = "every proxy that should run the forward has bound its listeners";

/// The previous state with which the conditions of a forward are compared.
pub(crate) struct Before<'a> {
    /// The conditions in the present status of the forward.
    pub(crate) conditions: &'a [StatusCondition],
    /// The present generation of the forward.
    pub(crate) generation: Option<i64>,
    /// Seconds that the operator has waited for reports.
    pub(crate) outstanding_seconds: u64,
    /// Warnings beside those of the verdict.
    pub(crate) warnings: &'a [String],
}

/// All findings on a forward. The `informational` ones never affect `Ready`.
pub(crate) fn findings(
    before: &Before<'_>,
    verdict: &Verdict,
    data_plane: &DataPlane,
    informational: impl Iterator<Item = Finding>,
) -> Vec<Finding> {
    let programmed = unpublished(verdict).unwrap_or_else(|| published(before, data_plane));
    let accepted = accepted(verdict, before.warnings);
    let resolved = Finding::of(ConditionType::ResolvedRefs, &verdict.resolved_refs);
    let ready = ready(verdict, &programmed);
    let waits = programmed.status == Truth::Unknown && verdict.accepted.status;
    let reconciling = waits
        .then(|| Finding::new(ConditionType::Reconciling, Truth::True, &programmed.reason, programmed.message.clone()));
    let stalled = stalled(verdict);
    let always = [accepted, resolved, programmed, ready].into_iter();
    always.chain(informational).chain(limit_reached(data_plane)).chain(reconciling).chain(stalled).collect()
}

/// The condition `Accepted`. The message of an accepted forward has its first warning, and the number of the others.
fn accepted(verdict: &Verdict, further: &[String]) -> Finding {
    let mut finding = Finding::of(ConditionType::Accepted, &verdict.accepted);
    let mut warnings = verdict.warnings.iter().chain(further);
    if let (Some(first), true) = (warnings.next(), verdict.accepted.status) {
        let more = match warnings.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        finding.message = format!("{}; warning: {first}{more}", finding.message);
    }
    finding
}

/// The condition `LimitReached`, present only while proxies refuse sessions, or let names wait, for the share of the
/// namespace or of one source, or end a loop. If several of these are true, the message says all, and the reason is
/// that of the first: a loop may be what uses up the others, and a refused session is worse than a name that waits.
fn limit_reached(data_plane: &DataPlane) -> Option<Finding> {
    let told: Vec<(&str, String)> = [
        looped(&data_plane.looped),
        tenant_limited(&data_plane.limited),
        source_limited(&data_plane.sources_limited),
        lookups_limited(&data_plane.lookups_limited),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (reason, _) = told.first()?;
    let messages: Vec<&str> = told.iter().map(|(_, message)| message.as_str()).collect();
    Some(Finding::new(ConditionType::LimitReached, Truth::True, reason, messages.join("; ")))
}

/// A list of at most [`NAMED`] pods or listeners in words; `None` if it is empty.
fn named(items: &[String]) -> Option<String> {
    let more = if items.len() < NAMED { "" } else { ", …" };
    (!items.is_empty()).then(|| items.join(", ") + more)
}

fn looped(listeners: &[String]) -> Option<(&'static str, String)> {
    let message = format!(
        "a loop is likely, because a session or datagram came back to its fleet, or the hop limit of a datagram was \
         exceeded, in {}: name the real server as the backend, in this forward or in those of other gateways on the \
         way; traceroute also exceeds the hop limit of its datagrams",
        named(listeners)?
    );
    Some(("Loop", message))
}

fn source_limited(listeners: &[String]) -> Option<(&'static str, String)> {
    let message = format!(
        "sessions are refused, because one source has reached its share of the proxy's sessions, in {}: find out who \
         holds them (kubectl portlane conns); raise the memory limit of the pods, add replicas, or have a load \
         balancer that hides its clients send PROXY headers; if the sources are pods of another gateway, correct its \
         forwards that lead back to this one",
        named(listeners)?
    );
    Some(("SourceShare", message))
}

fn tenant_limited(pods: &[String]) -> Option<(&'static str, String)> {
    let message = format!(
        "the proxy of {} refuses sessions, because the forwards of this namespace have used up their share of the \
         proxy: raise maxConnections of the namespace in spec.allowedForwards.tenants of the ForwardGateway, or add \
         replicas",
        named(pods)?
    );
    Some(("TenantLimit", message))
}

fn lookups_limited(pods: &[String]) -> Option<(&'static str, String)> {
    let message = format!(
        "the proxy of {} delays lookups of DNS names, because the forwards of this namespace have used up their \
         lookups in the proxy: correct or remove names that are answered slowly or not at all, or use fewer names",
        named(pods)?
    );
    Some(("LookupLimit", message))
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

/// The condition `Stalled`: problems that only a person can fix. kstatus separates them from problems that may resolve
/// on their own.
fn stalled(verdict: &Verdict) -> Option<Finding> {
    let lasting = |reason| {
        !matches!(reason, Reason::Accepted | Reason::Suspended | Reason::ResolvedRefs | Reason::GatewayNotFound)
            && reason != Reason::BackendNotFound
    };
    let unmet = [&verdict.accepted, &verdict.resolved_refs].into_iter().find(|condition| !condition.status)?;
    lasting(unmet.reason)
        .then(|| Finding::new(ConditionType::Stalled, Truth::True, unmet.reason.as_str(), unmet.message.clone()))
}

fn finding(status: Truth, reason: &str, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::Programmed, status, reason, message)
}

/// The condition `Programmed` of a spec that is not published to proxies, or only in part.
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

/// The condition `Programmed` of a published spec, from the reports of its proxies.
fn published(before: &Before<'_>, data_plane: &DataPlane) -> Finding {
    if let Some(first) = data_plane.rejected.first() {
        let DataPlane { total, rejected_count, .. } = data_plane;
        let message = format!(
            "{} among {total} proxies, see status.dataPlane.rejected; first: pod \
             {}, listener '{}': {}",
            proxy_api::count(u64::from(*rejected_count), "listener rejection"),
            first.pod,
            first.listener,
            first.reason
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
    let is_late = before.outstanding_seconds >= LATE_AFTER_SECONDS;
    if let Some(programmed) = was_programmed(before)
        && (programmed.reason == "Programmed" || !is_late)
    {
        // Proxies that join or leave do not undo `Programmed` of a generation that has run.
        return finding(Truth::True, &programmed.reason, programmed.message.clone());
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
fn was_programmed<'a>(before: &Before<'a>) -> Option<&'a StatusCondition> {
    before.conditions.iter().find(|condition| {
        condition.type_ == ConditionType::Programmed.as_str()
            && condition.status == Truth::True.as_str()
            && condition.reason != "Suspended"
            && condition.observed_generation == before.generation
    })
}
