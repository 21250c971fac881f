//! Where a connection may enter, and what policies and networks match.

use super::{
    network::{Direction, listed, refusal, selects},
    *,
};
use crate::check::Check;

mod judged;

fn forward(spec: &str) -> PortForward {
    let text = format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db, namespace: shop}}, spec: {{{spec}, \
         listeners: [{{name: pg, protocol: TCP, port: 5432, backends: []}}, \
         {{name: dns, protocol: UDP, port: 53, backends: []}}, \
         {{name: tls, protocol: TLS, port: 443, tls: {{hostnames: [a.example.com]}}, backends: []}}, \
         {{name: lb, protocol: TCP, port: 80, proxyProtocol: {{accept: Required, trustedCIDRs: [10.0.0.0/8]}}, \
         backends: []}}]}}}}"
    );
    serde_yaml::from_str(&text).expect("a forward")
}

fn pod(name: &str, container: &str, more: &str) -> Pod {
    let text = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: shop}}}}, spec: {{containers: [{{name: {container}}}]}}, \
         status: {{podIP: 10.0.0.7{more}}}}}"
    );
    serde_yaml::from_str(&text).expect("a pod")
}

const GATEWAY: &str = "placement: {gateway: {name: edge, namespace: net}}";
const SIDECAR: &str = "placement: {sidecar: {selector: {}}}";

fn at(spec: &str, name: &str, from: &str, proxies: &[Pod]) -> Result<Target, String> {
    let forward = forward(spec);
    let listener = listener(&forward, Some(name)).expect("a listener");
    target(&forward, listener, &ObjectKey::new("shop", from), proxies)
}

#[test]
fn a_connection_enters_a_running_proxy_and_a_sidecar_that_of_the_client() {
    let proxies = [pod("old", "proxy", ", phase: Failed"), pod("app", "other", ""), pod("edge-1", "proxy", "")];
    let target = |namespace: &str, name: &str| Ok(Target { pod: ObjectKey::new(namespace, name), port: 5432 });
    assert_eq!(at(GATEWAY, "pg", "client", &proxies), target("net", "edge-1"));
    let tls = Target { pod: ObjectKey::new("net", "edge-1"), port: 443 };
    assert_eq!(at(GATEWAY, "tls", "client", &proxies), Ok(tls));
    let sidecars = [pod("a", "portlane-proxy", ""), pod("b", "portlane-proxy", "")];
    assert_eq!(at(SIDECAR, "pg", "b", &sidecars), target("shop", "b"));
    assert_eq!(at(SIDECAR, "pg", "stranger", &sidecars), target("shop", "a"));
    assert_eq!(at(SIDECAR, "pg", "b", &[]), Err("no pod has a running proxy".to_owned()));
}

#[test]
fn what_port_forward_cannot_carry_is_not_tried() {
    let proxies = [pod("edge-1", "proxy", "")];
    for (spec, name, part) in [
        (GATEWAY.to_owned(), "dns", "not carry UDP"),
        (GATEWAY.to_owned(), "lb", "PROXY header"),
        (format!("suspend: true, {GATEWAY}"), "pg", "suspended"),
        (format!("access: {{allowCIDRs: [10.0.0.0/8]}}, {GATEWAY}"), "pg", "loopback"),
        (format!("access: {{denyCIDRs: [127.0.0.0/8]}}, {GATEWAY}"), "pg", "loopback"),
    ] {
        let refused = at(&spec, name, "client", &proxies).expect_err(part);
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn an_address_is_refused_as_a_proxy_refuses_it() {
    let refused = |access: &str, ip: &str| {
        refusal(&forward(&format!("access: {access}, {GATEWAY}")), ip.parse().expect("an address"))
    };
    assert_eq!(refused("{allowCIDRs: [10.0.0.0/8], denyCIDRs: [10.1.0.0/16]}", "10.0.0.7"), None);
    let denied = refused("{allowCIDRs: [10.0.0.0/8], denyCIDRs: [10.1.0.0/16]}", "10.1.0.7").unwrap_or_default();
    assert!(denied.contains("10.1.0.0/16 of spec.access.denyCIDRs"), "{denied}");
    let absent = refused("{allowCIDRs: [10.0.0.0/8]}", "2001:db8::1").unwrap_or_default();
    assert!(absent.contains("no network of spec.access.allowCIDRs"), "{absent}");
    assert_eq!(refused("{}", "2001:db8::1"), None);
}

#[test]
fn a_client_of_both_families_is_named_by_both_addresses() {
    let addresses = ["10.0.0.7", "fd00::7"].map(|address| address.parse().expect("an address"));
    assert_eq!(listed(&addresses), "10.0.0.7, fd00::7");
}

#[test]
fn a_policy_restricts_the_pods_that_it_selects_in_its_directions() {
    let policy = |spec: &str| {
        let text = format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {spec}}}");
        serde_yaml::from_str::<NetworkPolicy>(&text).expect("a policy")
    };
    let shop = pod("a", "app", "");
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", true, false),
        ("{podSelector: {}, egress: []}", true, true),
        ("{podSelector: {}, policyTypes: [Egress]}", false, true),
        ("{podSelector: {matchLabels: {app: shop}}}", true, false),
        ("{podSelector: {matchLabels: {app: web}}}", false, false),
        ("{podSelector: {matchExpressions: [{key: app, operator: In, values: [shop]}]}}", true, false),
        ("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [shop]}]}}", false, false),
        ("{podSelector: {matchExpressions: [{key: app, operator: In, values: [web]}]}}", false, false),
        ("{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}", true, false),
        ("{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}", true, false),
        ("{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}", false, false),
        ("{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}", false, false),
        ("{podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}", true, false),
    ] {
        let policy = policy(spec);
        let found = (selects(&policy, &shop, Direction::Ingress), selects(&policy, &shop, Direction::Egress));
        assert_eq!(found, (ingress, egress), "{spec}");
    }
}

#[test]
fn a_report_is_complete_unless_a_step_or_an_item_could_not_be_judged() {
    let is_complete = |outcome, of_item| {
        let check = |outcome| Check::new("a step", outcome, "a sentence");
        let step = |outcome, items: &[Outcome]| Step {
            check: check(outcome),
            items: items.iter().copied().map(check).collect(),
        };
        let steps = vec![step(Outcome::Ok, &[]), step(outcome, &[Outcome::Ok, of_item])];
        let (listener, from) = ("shop/db/pg".to_owned(), "shop/client".to_owned());
        Report { listener, from, steps, stops: None, reached: true }.is_complete()
    };
    assert!(is_complete(Outcome::Ok, Outcome::Ok) && is_complete(Outcome::Failed, Outcome::Warning));
    assert!(!is_complete(Outcome::Unknown, Outcome::Ok) && !is_complete(Outcome::Ok, Outcome::Unknown));
}

#[test]
fn a_connection_enters_no_pod_that_leaves_or_has_no_address() {
    let (mut leaves, mut early) = (pod("a", "proxy", ""), pod("b", "proxy", ""));
    leaves.metadata.deletion_timestamp = serde_yaml::from_str("2026-01-01T00:00:00Z").expect("a time");
    early.status = None;
    let proxies = [leaves, early, pod("c", "proxy", "")];
    let entered = at(GATEWAY, "pg", "client", &proxies).map(|target| target.pod.name);
    assert_eq!(entered, Ok("c".to_owned()));
}

#[test]
fn only_a_sidecar_serves_the_pod_that_it_is_in_and_only_in_its_namespace() {
    let of = |spec: &str, namespace: &str, proxies: &[Pod]| {
        let forward = forward(spec);
        let listener = listener(&forward, Some("pg")).expect("a listener");
        target(&forward, listener, &ObjectKey::new(namespace, "b"), proxies).map(|target| target.pod.name)
    };
    let fleet = [pod("a", "proxy", ""), pod("b", "proxy", "")];
    assert_eq!(of("placement: {gateway: {name: edge}}", "shop", &fleet), Ok("a".to_owned()));
    let sidecars = [pod("a", "portlane-proxy", ""), pod("b", "portlane-proxy", "")];
    assert_eq!(of(SIDECAR, "other", &sidecars), Ok("a".to_owned()), "another pod of that name");
}
