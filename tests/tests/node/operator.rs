//! The operator as a user installs it: both charts by helm, the images of this checkout, and nothing else.

use std::time::Instant;

use crds::PortForward;
use harness::{Namespace, until, until_within};
use k8s_openapi::api::core::v1::Service;

use crate::{
    fleet::{CHARTS, GATEWAY, Load, SCALED, call, forward, operated, proxies, shop, wait_for},
    shared,
};

#[test]
fn the_charts_lint_and_every_object_of_theirs_is_accepted() {
    let cluster = shared::cluster();
    for chart in CHARTS {
        cluster.helm(&["lint", "--strict", chart]).ok();
    }
    for wrong in ["replicas=-1", "injection.resources.limits.memory=256MB", "injection.resources.limit.cpu=1"] {
        cluster.helm(&["lint", "--strict", CHARTS[1], "--set", wrong]).refused();
    }
    let old = ["template", "portlane", CHARTS[1], "--kube-version", "1.33.9", "--set", "customMetrics.enabled=true"];
    assert!(cluster.helm(&old).refused().contains("needs Kubernetes 1.34"));
    let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    for more in [&[][..], &["--set", "watchNamespaces={default,kube-system}"]] {
        for chart in CHARTS {
            if chart == CHARTS[0] && !more.is_empty() {
                continue;
            }
            let template = ["template", "portlane", chart, "--namespace", "default", "--kube-version", "1.34.0"];
            let manifests = cluster.helm(&[&template[..], more].concat()).ok();
            cluster.kubectl_with(&dry_run, &manifests).ok();
            if !more.is_empty() {
                let roles = manifests.matches("\nkind: Role\n").count();
                assert_eq!(roles, 3, "the operator's own Role, and one in each namespace");
                assert!(!manifests.contains("resources: [namespaces]"), "no cluster-wide access to namespaces");
            }
        }
    }
}

#[test]
fn limits_of_the_operator_are_accepted_and_contradictions_are_refused() {
    let cluster = shared::cluster();
    let chart = ["template", "portlane", CHARTS[1], "--namespace", "default", "--kube-version", "1.34.0"];
    let render = |how: &str, values: &str| cluster.helm(&[&chart[..], &[how, values]].concat());
    for values in [
        "gateways.namespaces={default,kube-system},networkPolicy.fleets.enabled=true,\
         networkPolicy.fleets.from[0].namespaceSelector.matchLabels.team=shop",
        "gateways.enabled=false,autoscaling.enabled=false,networkPolicy.operator.enabled=false",
        "bindIP=0.0.0.0,podPatchPolicy.enabled=false",
        "networkPolicy.operator.metricsFrom[0].namespaceSelector.matchLabels.team=observability",
    ] {
        let dry_run = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        cluster.kubectl_with(&dry_run, &render("--set", values).ok()).ok();
    }
    let unwatched = render("--set", "watchNamespaces={a},gateways.namespaces={b}").refused();
    assert!(unwatched.contains("add it to watchNamespaces"), "{unwatched}");
    for wrong in ["bindIP=192.0.2.1", "gateways.namespaces={A}", "networkPolicy.fleets=true", "autoscaling.enable=true"]
    {
        render("--set", wrong).refused();
    }
    // The number of a values file is a float, which templates print as 1e+06.
    let many = render("--set-json", "maxProxies=1000000,maxObjects=2000000").ok();
    assert!(many.contains("value: \"1000000\"") && many.contains("value: \"2000000\""), "{many}");
}

#[test]
fn a_fleet_runs_swaps_under_load_scales_and_leaves_nothing() {
    let namespace = shop(operated(), "fleet");
    namespace.apply(GATEWAY);
    namespace.apply(&forward("web"));
    wait_for(&namespace, "portforward/web");
    wait_for(&namespace, "forwardgateway/edge");
    for protocol in ["tcp", "udp"] {
        // A Service routes a moment after its pods are ready.
        until(&format!("{protocol} goes through the Service"), || call(&namespace, protocol) == "web: hello");
    }
    let load = shared::node_with_a_host().map(|node| {
        let addresses: Vec<_> = proxies(&namespace).into_iter().map(|(_, address)| address).collect();
        assert_eq!(addresses.len(), 2);
        Load::start(node, &addresses, 40)
    });
    namespace.apply(&forward("other"));
    until("new sessions go to the other backend", || call(&namespace, "tcp") == "other: hello");
    wait_for(&namespace, "portforward/web");
    assert!(load.is_none_or(|load| load.stop() > 100), "there was load");
    namespace.kubectl(&["scale", "forwardgateway/edge", "--replicas=1"]).ok();
    let scaled = Instant::now();
    until_within(SCALED, "one proxy is left", || {
        let proxies = namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
        proxies.lines().count() == 1
    });
    eprintln!("one proxy is left {:?} after scaling in", scaled.elapsed());
    wait_for(&namespace, "portforward/web");
    let table = namespace.kubectl(&["get", "pf"]).ok();
    assert!(table.contains("80/TCP,80/UDP") && table.contains("svc/other:80"), "{table}");
    namespace.kubectl(&["delete", "portforward/web", "forwardgateway/edge"]).ok();
    namespace.until_gone::<Service>("edge");
    until("the fleet is gone", || {
        namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok().is_empty()
    });
}

/// A forward of another namespace's gateway.
fn visitor(host: &Namespace<'_>, backend: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: visitor}}, spec: {{placement: {{gateway: \
         {{name: edge, namespace: {}}}}}, listeners: [{{name: tcp, protocol: TCP, port: 81, backends: [{backend}]}}]}}}}",
        host.name()
    )
}

fn until_reason(namespace: &Namespace<'_>, reason: &str) {
    namespace.until::<PortForward>("visitor", reason, |forward| {
        let conditions = forward.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.reason == reason)
    });
}

// C5, T17
#[test]
fn a_forward_of_another_namespace_is_let_in_when_the_gateway_says_so_and_its_story_can_be_read() {
    let host = shop(operated(), "host");
    let guest = shop(operated(), "guest");
    host.apply(GATEWAY);
    let service = format!("{{service: {{name: web, namespace: {}, port: 80}}}}", host.name());
    guest.apply(&visitor(&host, &service));
    until_reason(&guest, "NotAllowedByGateway");
    let open = GATEWAY.replace("spec: {", "spec: {allowedForwards: {namespaces: {from: All}}, ");
    assert_ne!(open, GATEWAY);
    host.apply(&open);
    // The forward is admitted. Its Service needs a grant, and the answer does not reveal whether the Service exists.
    until_reason(&guest, "RefNotPermitted");
    // The same Service by its name would be used with the identity of the gateway.
    let address = format!("{{address: {{host: web.{}.svc.cluster.local, port: 80}}}}", host.name());
    guest.apply(&visitor(&host, &address));
    until_reason(&guest, "AddressNotAllowed");
    guest.apply(&visitor(&host, "{service: {name: web, port: 80}}"));
    wait_for(&guest, "portforward/visitor");
    let through =
        || host.kubectl(&["exec", "client", "--", "/portlane-echo", "call", "tcp", "edge:81", "hello"]).stdout;
    until("bytes go through the Service", || through().trim_end() == "web: hello");
    let described = guest.kubectl(&["describe", "portforward", "visitor"]).ok();
    for part in ["RefNotPermitted", "AddressNotAllowed", "every proxy runs the forward", "Events:", "81/TCP"] {
        assert!(described.contains(part), "{part} is not in {described}");
    }
    guest.kubectl(&["delete", "portforward", "visitor"]).ok();
    until("the listener is gone", || through().is_empty());
}
