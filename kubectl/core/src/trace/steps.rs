//! The steps of a connection except for the network in between: client, address, listener, connection, backend.

use crds::{Bind, OnLimit};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    access::items,
    check::{Check, Outcome},
    describe::{Step, pods},
    installation::ready,
    live::Session,
    logs::Record,
    placement::gateway,
    remedy,
    rows::condition,
};

use super::{Facts, Found, Probe, Target};

/// Name of the last step.
const BACKEND: &str = "backend";

fn alone(check: Check) -> Step {
    Step { check, items: Vec::new() }
}

/// The pod from which a client connects.
pub(super) fn client(facts: &Facts) -> Step {
    const NAME: &str = "client";
    let (key, found) = &facts.from;
    alone(match found {
        Err(why) => Check::unknown(NAME, why),
        Ok(None) => {
            let guess = facts.nearest.as_ref().map(|nearest| format!("; did you mean {nearest}?"));
            Check::failed(NAME, format!("pod {key} does not exist{}", guess.unwrap_or_default()))
        }
        Ok(Some(pod)) if pod.metadata.deletion_timestamp.is_some() => {
            Check::warning(NAME, format!("pod {key} is terminating"))
        }
        Ok(Some(pod)) if pods::has_ended(pod) => Check::failed(NAME, format!("pod {key} has ended")),
        Ok(Some(pod)) => match address_of(pod) {
            Some(ip) => Check::ok(NAME, format!("pod {key} has the address {ip}")),
            None => Check::failed(NAME, format!("pod {key} has no address yet")),
        },
    })
}

fn address_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

/// The address to which the client connects.
pub(super) fn address(facts: &Facts) -> Step {
    const NAME: &str = "address";
    let port = facts.port().map_or_else(|| "its port".to_owned(), |port| format!("port {port}"));
    let (Some(gateway), Some((service, slices))) = (gateway(&facts.forward), &facts.service) else {
        return alone(sidecar_address(facts, &port));
    };
    let title = format!("Service {}.{}", gateway.name, gateway.namespace);
    let service = match service {
        Err(why) => return alone(Check::unknown(NAME, why)),
        Ok(None) => return alone(Check::failed(NAME, format!("{title} does not exist")).hint("look at the gateway")),
        Ok(Some(service)) => service,
    };
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let has_port = facts.port().is_some_and(|port| ports.any(|open| open.port == i32::from(port)));
    if !has_port {
        let detail = format!("{title} has no {port}");
        return alone(Check::failed(NAME, detail).hint("see listener below, and the conditions of the gateway"));
    }
    alone(match slices {
        Err(why) => Check::unknown(NAME, why),
        Ok(listed) => match ready(&listed.items) {
            (0, _) => Check::failed(NAME, format!("{title} has no ready endpoint: no proxy is ready")),
            (ready, _) => Check::ok(NAME, format!("{title} has {port} and {ready} ready endpoints")),
        },
    })
}

fn sidecar_address(facts: &Facts, port: &str) -> Check {
    const NAME: &str = "address";
    if facts.is_own_sidecar() {
        return Check::ok(NAME, format!("localhost, {port}: the pod has a proxy of its own"));
    }
    if facts.spec().and_then(|listener| listener.bind) == Some(Bind::All) {
        return Check::ok(NAME, format!("the address of a pod with the sidecar, {port}"));
    }
    Check::failed(
        NAME,
        "the forward listens on loopback in sidecars, and this pod is not one that its selector matches",
    )
    .hint("connect from a pod with the labels of spec.placement.sidecar.selector, or set bind: All")
}

/// The listener in the proxies.
pub(super) fn listener(facts: &Facts) -> Step {
    const NAME: &str = "listener";
    let status = facts.forward.status.clone().unwrap_or_default();
    if facts.forward.spec.suspend == Some(true) {
        return alone(Check::failed(NAME, "spec.suspend is set: no proxy listens").hint("set spec.suspend to false"));
    }
    if status.observed_generation != facts.forward.metadata.generation {
        return alone(Check::warning(NAME, "the operator has not reported on the newest generation yet"));
    }
    if !status.listeners.iter().any(|held| held.name == facts.listener) {
        let accepted = condition(&status.conditions, "Accepted");
        let why = accepted.map(|it| format!(": {}: {}", it.reason, it.message)).unwrap_or_default();
        return alone(Check::failed(NAME, format!("holds no port{why}")));
    }
    let Some(plane) = status.data_plane else { return alone(Check::failed(NAME, "no proxy should run the forward")) };
    let rejected = plane.rejected.iter().filter(|it| it.listener == facts.listener);
    let rejected: Vec<Check> =
        rejected.map(|it| Check::failed(format!("pod {}", it.pod), format!("rejects it: {}", it.reason))).collect();
    let detail = format!("{} of {} proxies run this generation", plane.acked, plane.total);
    let outcome = match (plane.acked, plane.total) {
        (0, _) => Outcome::Failed,
        (acked, total) if acked < total || !rejected.is_empty() => Outcome::Warning,
        _ => Outcome::Ok,
    };
    Step { check: Check::new(NAME, outcome, detail), items: rejected }
}

/// The connection into a proxy, and its result if the proxy accepted it.
pub(super) fn probe(facts: &Facts) -> (Step, Option<Step>) {
    const NAME: &str = "connection";
    let connected = |target: &Target| {
        let detail = format!(
            "the proxy of pod {} accepts the connection at port {}, through a port-forward",
            target.pod, target.port
        );
        alone(Check::ok(NAME, detail))
    };
    match &facts.probe {
        Probe::Skipped(why) => (alone(Check::warning(NAME, format!("not tried: {why}"))), None),
        Probe::Failed(why) => (alone(Check::unknown(NAME, why)), None),
        Probe::Refused { target, message } => {
            let detail = format!("pod {} refuses the connection at port {}: {message}", target.pod, target.port);
            let look = format!("kubectl portlane config -n {} {}", target.pod.namespace, target.pod.name);
            (alone(Check::failed(NAME, detail).hint(look)), None)
        }
        Probe::Ended { target, record } => (connected(target), Some(alone(ended(facts, record)))),
        Probe::Open { target, has_bytes, session } => {
            let check = match session {
                Ok(Found::One(session)) => open(facts, session, *has_bytes),
                _ if *has_bytes => Check::ok(BACKEND, "the backend has sent bytes"),
                Ok(Found::Several(number)) => unsure("session", *number),
                Ok(Found::Nothing) => {
                    Check::warning(BACKEND, "the connection stays open, and the live API does not list it")
                }
                Err(why) => Check::unknown(BACKEND, why),
            };
            (connected(target), Some(alone(check)))
        }
    }
}

fn open(facts: &Facts, session: &Session, has_bytes: bool) -> Check {
    let backend = session.backend.as_deref().unwrap_or_default();
    let limits = facts.forward.spec.limits.as_ref();
    let may_queue = limits.is_some_and(|it| it.max_connections.is_some() && it.on_limit != Some(OnLimit::Reject));
    let is_tunnelled = facts.spec().is_some_and(|listener| listener.backends.iter().any(|it| it.tunnel.is_some()));
    let next = if may_queue {
        "is spec.limits.maxConnections reached? then the connection waits for its turn; if not, do the endpoints \
         answer?"
    } else if is_tunnelled {
        "is an instance of the agent connected? a session waits for one: kubectl portlane describe"
    } else {
        "do the endpoints answer? NetworkPolicies and firewalls may drop connections silently"
    };
    match session.destination() {
        Some(endpoint) => Check::ok(BACKEND, format!("the proxy is connected to {endpoint} ({backend})")),
        None if has_bytes => Check::ok(BACKEND, "the backend has sent bytes"),
        None => Check::failed(BACKEND, "the proxy has connected to no endpoint yet").hint(next),
    }
}

/// The check if other clients of the pod connected at the same time.
fn unsure(what: &str, number: u64) -> Check {
    let detail = format!("{number} {what}s of clients inside the pod match this connection, and their results differ");
    Check::new(BACKEND, Outcome::Unknown, detail).hint("repeat the command while fewer clients of the pod connect")
}

/// A connection that the proxy ended.
fn ended(facts: &Facts, record: &Found<Record>) -> Check {
    let next = |reason: &str| remedy::of_session(&facts.forward, reason);
    let record = match record {
        Found::One(record) => record,
        Found::Several(number) => return unsure("record", *number),
        Found::Nothing => {
            let proxies = items(&facts.proxies).len();
            let detail = format!("the proxy ended the connection at once; no access log of {proxies} pods says why");
            return Check::failed(BACKEND, detail).hint(next(""));
        }
    };
    match (record.field("reason"), record.field("endpoint")) {
        ("Finished", endpoint) if !endpoint.is_empty() => {
            Check::ok(BACKEND, format!("{endpoint} took the connection and ended it"))
        }
        (reason, "") => {
            let what = if remedy::is_refusal(reason) { "refused the client" } else { "reached no endpoint" };
            let detail = format!("{reason}: the proxy {what}{}", cause(record));
            Check::failed(BACKEND, detail).hint(next(reason))
        }
        (reason, endpoint) => {
            Check::failed(BACKEND, format!("{reason} at {endpoint}{}", cause(record))).hint(next(reason))
        }
    }
}

fn cause(record: &Record) -> String {
    match record.field("cause") {
        "" => String::new(),
        cause => format!(" ({cause})"),
    }
}
