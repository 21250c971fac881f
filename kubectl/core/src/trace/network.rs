//! The restrictions between a client and a proxy: `NetworkPolicies` and `spec.access`.

use std::net::IpAddr;

use crds::{AcceptHeader, PortForward};
use ipnet::IpNet;
use k8s_openapi::{
    api::{core::v1::Pod, networking::v1::NetworkPolicy},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};

use crate::{
    access::{items, note},
    check::{Check, Outcome, worst},
    describe::Step,
    placement,
};

use super::Facts;

/// The direction of traffic that a policy restricts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

/// The policies that select the client or the proxies. Their rules are not judged: the cluster decides what enforces
/// them, and they may match on facts that are in no object.
pub(super) fn policies(facts: &Facts) -> Step {
    const NAME: &str = "policies";
    let mut checks: Vec<Check> = facts
        .policies
        .iter()
        .filter_map(|(namespace, found)| note(found, "NetworkPolicies").map(|note| (namespace, note)))
        .map(|(namespace, note)| Check::new(format!("namespace {namespace}"), Outcome::Unknown, note))
        .collect();
    let proxy = items(&facts.proxies).first();
    let proxies = placement::pods(&facts.forward).namespace;
    let port = facts.port().map(|port| port.to_string()).unwrap_or_default();
    if !facts.is_own_sidecar() {
        let to_proxies = format!("restricts the client's egress: a rule must admit the proxies at port {port}");
        let from_client = format!("restricts the proxies' ingress: a rule must admit the client at port {port}");
        checks.extend(selecting(facts, &facts.from.0.namespace, facts.pod(), Direction::Egress, &to_proxies));
        checks.extend(selecting(facts, &proxies, proxy, Direction::Ingress, &from_client));
    }
    let to_backends = "restricts the proxies' egress: a rule must admit the backends, and DNS for names";
    checks.extend(selecting(facts, &proxies, proxy, Direction::Egress, to_backends));
    let detail = match worst(checks.iter().map(|check| check.outcome)) {
        Outcome::Ok => "no NetworkPolicy selects the client or the proxies",
        Outcome::Warning => "some select the client or the proxies, and their rules are not evaluated",
        Outcome::Unknown | Outcome::Failed => "not all could be read",
    };
    Step { check: Check::new(NAME, worst(checks.iter().map(|check| check.outcome)), detail), items: checks }
}

fn selecting(facts: &Facts, namespace: &str, pod: Option<&Pod>, direction: Direction, detail: &str) -> Vec<Check> {
    let found = facts.policies.get(namespace).map(items).unwrap_or_default();
    let Some(pod) = pod else { return Vec::new() };
    let selecting = found.iter().filter(|policy| selects(policy, pod, direction));
    let check = |policy: &NetworkPolicy| {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        Check::warning(format!("{namespace}/{name}"), detail)
    };
    selecting.map(check).collect()
}

/// Whether a policy of the pod's namespace restricts the pod in this direction.
pub(super) fn selects(policy: &NetworkPolicy, pod: &Pod, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let restricts = match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|it| it == "Ingress"),
        Direction::Egress => (types.is_empty() && spec.egress.is_some()) || types.iter().any(|it| it == "Egress"),
    };
    restricts && spec.pod_selector.as_ref().is_none_or(|selector| matches(selector, pod))
}

fn matches(selector: &LabelSelector, pod: &Pod) -> bool {
    let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let requirement = |it: &LabelSelectorRequirement| {
        let value = label(&it.key);
        let listed = value.is_some_and(|value| it.values.iter().flatten().any(|wanted| wanted == value));
        match it.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    selector.match_labels.iter().flatten().all(|(key, wanted)| label(key) == Some(wanted))
        && selector.match_expressions.iter().flatten().all(requirement)
}

/// Whether `spec.access` admits the client, by the address of its pod.
pub(super) fn access(facts: &Facts) -> Step {
    const NAME: &str = "access";
    let check = match addresses(facts).as_slice() {
        _ if facts.forward.spec.access.is_none() => Check::ok(NAME, "spec.access is absent: every client is admitted"),
        [] => Check::warning(NAME, "the address of the client is not known"),
        addresses => match addresses.iter().find_map(|ip| refusal(&facts.forward, *ip)) {
            Some(refusal) => Check::failed(NAME, refusal)
                .hint("change spec.access; a reset client has the reason AccessDenied in the access log"),
            None => Check::ok(NAME, format!("{} is admitted{}", listed(addresses), by_header(facts))),
        },
    };
    Step { check, items: Vec::new() }
}

/// The addresses that the proxy may see.
fn addresses(facts: &Facts) -> Vec<IpAddr> {
    if facts.is_own_sidecar() {
        return vec![IpAddr::from([127, 0, 0, 1])];
    }
    let status = facts.pod().and_then(|pod| pod.status.as_ref());
    let all = status.into_iter().flat_map(|status| status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()));
    let first = status.and_then(|status| status.pod_ip.as_deref());
    let mut addresses: Vec<IpAddr> = all.chain(first).filter_map(|ip| ip.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

pub(super) fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn by_header(facts: &Facts) -> &'static str {
    let accept = facts.spec().and_then(|listener| listener.proxy_protocol.as_ref()).and_then(|it| it.accept);
    match accept {
        Some(AcceptHeader::Optional | AcceptHeader::Required) => "; with a PROXY header, the address in it counts",
        Some(AcceptHeader::Disabled) | None => ", unless something translates it on the way",
    }
}

/// Returns why `spec.access` refuses an address, by the rules of a proxy.
pub(super) fn refusal(forward: &PortForward, ip: IpAddr) -> Option<String> {
    let access = forward.spec.access.as_ref()?;
    let has = |cidr: &&crds::Cidr| cidr.0.parse::<IpNet>().is_ok_and(|network| network.contains(&ip));
    if let Some(denied) = access.deny_cidrs.iter().find(has) {
        return Some(format!("{} of spec.access.denyCIDRs has the address {ip}", denied.0));
    }
    let is_admitted = access.allow_cidrs.is_empty() || access.allow_cidrs.iter().any(|cidr| has(&cidr));
    (!is_admitted).then(|| format!("no network of spec.access.allowCIDRs has the address {ip}"))
}
