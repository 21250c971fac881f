//! `kubectl portlane describe FORWARD`: explains the state of a forward, step by step: object, claims, backends,
//! endpoints, proxies.

mod backends;
pub(crate) mod pods;

use std::collections::BTreeMap;

use crds::{BackendHealth, Condition, ForwardAgent, ForwardGateway, ListenerStatus, PortForward, PortForwardStatus};
use k8s_openapi::{
    api::{
        core::v1::{Event, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};
use operator_core::ObjectKey;
use serde::Serialize;

use crate::{
    access::{Fetched, Listed, items, note},
    check::{Check, Outcome, worst},
    placement::{gateway, key},
    remedy,
    rows::{condition, health, outdated, port, undelivered},
    time::{age, seconds},
};

pub use self::backends::{agents, services};

/// Most events that a description has.
const EVENTS: usize = 10;
/// Reasons of `Accepted` that concern the spec of the object, not its claims.
const SPEC: [&str; 2] = ["Invalid", "Unsupported"];

/// The objects that were read from the cluster.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Time by the clock of the API server.
    pub now: Timestamp,
    /// The forward.
    pub forward: PortForward,
    /// The gateway of the forward, if the forward names one; the inner `None` if it does not exist.
    pub gateway: Option<Fetched<Option<ForwardGateway>>>,
    /// The Services of the backends; `None` if a Service does not exist.
    pub services: BTreeMap<ObjectKey, Fetched<Option<Service>>>,
    /// The endpoints of these Services.
    pub slices: BTreeMap<ObjectKey, Fetched<Listed<EndpointSlice>>>,
    /// The agents of the backends; `None` if an agent does not exist.
    pub agents: BTreeMap<ObjectKey, Fetched<Option<ForwardAgent>>>,
    /// The pods that should run the forward.
    pub pods: Fetched<Listed<Pod>>,
    /// Events about the forward.
    pub events: Fetched<Listed<Event>>,
}

/// The explanation of a forward's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Namespace of the forward.
    pub namespace: String,
    /// Name of the forward.
    pub name: String,
    /// The condition `Ready`, and the first step that explains it.
    pub ready: Check,
    /// The steps from the object to the proxies.
    pub steps: Vec<Step>,
    /// The last events, oldest first.
    pub events: Vec<EventLine>,
    /// Notes about objects that could not be read, or not completely.
    pub notes: Vec<String>,
}

/// One step from the object to the proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The step as status describes it.
    #[serde(flatten)]
    pub check: Check,
    /// The items of the step.
    pub items: Vec<Check>,
}

/// An event about the forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// Age of the last occurrence.
    pub age: String,
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub type_: String,
    /// Reason of the event.
    pub reason: String,
    /// Message of the event.
    pub message: String,
    /// How many times the event occurred.
    pub count: i32,
}

/// Makes the report from the objects that were read.
pub fn report(facts: &Facts) -> Report {
    let status = facts.forward.status.clone().unwrap_or_default();
    let mut steps = vec![object(&facts.forward, &status), claims(facts, &status)];
    steps.push(Step {
        check: step_of(&facts.forward, "backends", condition(&status.conditions, "ResolvedRefs")),
        items: backends::backends(facts),
    });
    steps.push(endpoints(facts, &status));
    steps.push(proxies(facts, &status));
    let key = key(&facts.forward);
    let notes = [note(&facts.pods, "pods"), note(&facts.events, "events")];
    Report {
        namespace: key.namespace,
        name: key.name,
        ready: ready(&facts.forward, &status, &steps),
        steps,
        events: events(items(&facts.events), facts.now),
        notes: notes.into_iter().flatten().collect(),
    }
}

/// The condition `Ready`, and the step that explains it.
fn ready(forward: &PortForward, status: &PortForwardStatus, steps: &[Step]) -> Check {
    let check = from_condition("Ready", condition(&status.conditions, "Ready"));
    let check = if status.observed_generation == forward.metadata.generation {
        check
    } else {
        Check { outcome: check.outcome.max(Outcome::Warning), ..check }
    };
    let severe = |least: Outcome| {
        steps.iter().find(|step| step.check.outcome >= least).map(|step| format!("see {} below", step.check.name))
    };
    match check.outcome {
        // `Ready` is about the configuration: a dead backend leaves it true.
        Outcome::Ok => match severe(Outcome::Failed) {
            Some(hint) => Check { outcome: Outcome::Warning, ..check }.hint(hint),
            None => check,
        },
        _ => match severe(Outcome::Failed).or_else(|| severe(Outcome::Warning)) {
            Some(hint) => check.hint(hint),
            None => check,
        },
    }
}

/// A condition as a check. A condition that is missing or unknown is only a warning.
fn from_condition(name: &str, condition: Option<&Condition>) -> Check {
    let Some(condition) = condition else {
        return Check::warning(name, "no operator has reported on this");
    };
    let outcome = match condition.status.as_str() {
        "True" => Outcome::Ok,
        "False" => Outcome::Failed,
        _ => Outcome::Warning,
    };
    Check::new(name, outcome, format!("{}: {}", condition.reason, condition.message))
}

/// A condition of the forward as a step, with the next step of its reason.
fn step_of(forward: &PortForward, name: &str, found: Option<&Condition>) -> Check {
    let check = from_condition(name, found);
    let next = found.filter(|_| check.outcome != Outcome::Ok).and_then(|it| remedy::of_forward(forward, &it.reason));
    match next {
        Some(next) => check.hint(next),
        None => check,
    }
}

/// The object: whether an operator has read it, and the spec is valid.
fn object(forward: &PortForward, status: &PortForwardStatus) -> Step {
    const NAME: &str = "object";
    let accepted = condition(&status.conditions, "Accepted");
    let generation = forward.metadata.generation.unwrap_or(0);
    let check = match (status.observed_generation, accepted) {
        (None, _) | (_, None) => Check::warning(NAME, "no operator has reported on this object")
            .hint("check the installation: kubectl portlane status"),
        (Some(observed), _) if observed != generation => {
            Check::warning(NAME, format!("status describes generation {observed}, and the object is at {generation}"))
                .hint("check the installation: kubectl portlane status")
        }
        (_, Some(accepted)) if accepted.status == "False" && SPEC.contains(&accepted.reason.as_str()) => {
            from_condition(NAME, Some(accepted))
        }
        _ if forward.spec.suspend == Some(true) => {
            Check::warning(NAME, "spec.suspend is set: no proxy listens, and the ports stay claimed")
        }
        _ => Check::ok(NAME, format!("the operator has read generation {generation}, and the spec is valid")),
    };
    Step { check, items: Vec::new() }
}

/// The claims: the gateway, and the holder of each port.
fn claims(facts: &Facts, status: &PortForwardStatus) -> Step {
    const NAME: &str = "claims";
    let accepted = condition(&status.conditions, "Accepted");
    let is_about_spec = accepted.is_some_and(|it| it.status == "False" && SPEC.contains(&it.reason.as_str()));
    let check = if is_about_spec {
        Check::new(NAME, Outcome::Warning, "nothing is claimed: see object")
    } else {
        step_of(&facts.forward, NAME, accepted)
    };
    let mut items: Vec<Check> = facts.gateway.iter().map(|gateway| gateway_item(&facts.forward, gateway)).collect();
    let is_refused = check.outcome == Outcome::Failed;
    for listener in &facts.forward.spec.listeners {
        let name = format!("listener {}", listener.name);
        items.push(match status.listeners.iter().find(|held| held.name == listener.name) {
            Some(held) => Check::ok(name, format!("holds {}{}", port(held), names(held))),
            None if is_refused => Check::failed(name, "holds no port"),
            // A sidecar holds its ports once a pod matches.
            None => Check::warning(name, "holds no port yet"),
        });
    }
    Step { check, items }
}

fn names(listener: &ListenerStatus) -> String {
    if listener.hostnames.is_empty() { String::new() } else { format!(" for {}", listener.hostnames.join(", ")) }
}

fn gateway_item(forward: &PortForward, found: &Fetched<Option<ForwardGateway>>) -> Check {
    let name = gateway(forward).map(|key| format!("gateway {key}")).unwrap_or_default();
    match found {
        Err(why) => Check::unknown(name, why),
        Ok(None) => {
            Check::failed(name, "does not exist").hint("create the ForwardGateway, or correct spec.placement.gateway")
        }
        Ok(Some(gateway)) => {
            let conditions = gateway.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let ready = condition(conditions, "Ready");
            let check = from_condition(&name, ready);
            match (ready.filter(|_| check.outcome != Outcome::Ok), outdated(conditions)) {
                (Some(ready), _) => check.hint(remedy::of_gateway(gateway, &ready.reason, &ready.message)),
                (None, Some(outdated)) => {
                    let hint = remedy::of_outdated(gateway, &outdated.reason);
                    Check { outcome: Outcome::Warning, hint, ..from_condition(&name, Some(outdated)) }
                }
                (None, None) => check,
            }
        }
    }
}

/// The endpoints: those of each Service, the instances of each agent, and the health that proxies found.
fn endpoints(facts: &Facts, status: &PortForwardStatus) -> Step {
    const NAME: &str = "endpoints";
    let mut items = backends::endpoints(facts);
    items.extend(backends::instances(facts));
    items.extend(status.listeners.iter().filter_map(|listener| {
        let found = listener.backends?;
        let outcome = match found {
            BackendHealth::All => Outcome::Ok,
            BackendHealth::Some => Outcome::Warning,
            BackendHealth::None => Outcome::Failed,
        };
        let word = health(found);
        let check =
            Check::new(format!("listener {}", listener.name), outcome, format!("healthy as proxies see them: {word}"));
        Some(if found == BackendHealth::None { check.hint(backends::unhealthy(facts, &listener.name)) } else { check })
    }));
    let outcome = worst(items.iter().map(|item| item.outcome));
    let detail = match outcome {
        Outcome::Ok if items.is_empty() => "no backend is a Service or an agent that exists",
        Outcome::Ok => "every backend has endpoints that are ready",
        Outcome::Warning => "some endpoints are not usable",
        Outcome::Unknown => "not every endpoint could be read",
        Outcome::Failed => "a backend has no usable endpoint",
    };
    Step { check: Check::new(NAME, outcome, detail), items }
}

/// The proxies: their reports, and the state of their pods.
fn proxies(facts: &Facts, status: &PortForwardStatus) -> Step {
    let mut check = step_of(&facts.forward, "proxies", condition(&status.conditions, "Programmed"));
    let (mut items, pods) = (Vec::new(), pods::pods(facts));
    if let Some(plane) = &status.data_plane {
        // Proxies that terminate do not undo `Programmed`.
        if check.outcome == Outcome::Ok && plane.acked < plane.total {
            check.outcome = Outcome::Warning;
            // A pod that has failed explains the difference by itself.
            check.hint = pods.iter().all(|pod| pod.outcome != Outcome::Failed).then(|| remedy::cut_off(&facts.forward));
        }
        check.detail = format!("{} of {} run this generation; {}", plane.acked, plane.total, check.detail);
        let rejected = plane.rejected.iter();
        items.extend(rejected.map(|it| {
            Check::failed(format!("pod {}", it.pod), format!("rejects listener {}: {}", it.listener, it.reason))
        }));
        let named = u32::try_from(plane.rejected.len()).unwrap_or(u32::MAX);
        let more = plane.rejected_count.saturating_sub(named);
        if more > 0 {
            items.push(Check::failed("more pods", format!("reject {more} more listeners")));
        }
    }
    items.extend(pods);
    for type_ in ["Injected", "ScalingActive"] {
        // These conditions never affect `Ready`.
        items.extend(condition(&status.conditions, type_).map(|found| {
            let check = from_condition(type_, Some(found));
            // The condition is also true if pods are missing, or their app fails.
            let is_well = check.outcome == Outcome::Ok && found.reason == type_;
            Check { outcome: if is_well { Outcome::Ok } else { Outcome::Warning }, ..check }
        }));
    }
    let limit = condition(&status.conditions, "LimitReached");
    items.extend(limit.map(|limit| Check::warning("LimitReached", format!("{}: {}", limit.reason, limit.message))));
    let listeners = status.listeners.iter();
    items.extend(
        listeners.filter_map(|it| {
            Some(Check::warning(format!("listener {}", it.name), undelivered(&facts.forward.spec, it)?))
        }),
    );
    Step { check, items }
}

/// The last events, oldest first.
fn events(events: &[Event], now: Timestamp) -> Vec<EventLine> {
    let mut timed: Vec<(Option<Timestamp>, &Event)> = events.iter().map(|event| (last(event), event)).collect();
    timed.sort_by_key(|(time, _)| *time);
    let first = timed.len().saturating_sub(EVENTS);
    let line = |(time, event): (Option<Timestamp>, &Event)| EventLine {
        age: time.map_or_else(|| "?".to_owned(), |time| age(seconds(time, now))),
        type_: event.type_.clone().unwrap_or_default(),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
        count: event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1),
    };
    timed.into_iter().skip(first).map(line).collect()
}

/// Time of the last occurrence of an event.
pub(crate) fn last(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let stamp = event.last_timestamp.as_ref().map(|time| time.0);
    let micro = event.event_time.as_ref().map(|time| time.0);
    series.or(stamp).or(micro).or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests;
