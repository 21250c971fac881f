//! docs/troubleshooting.md word for word, in a namespace where its commands have something to show. What needs a proxy that
//! is cut off is followed by `broken`, and what needs a cluster without an operator by `outage`.

use harness::{Namespace, Node, until};

use crate::{
    fleet::{GATEWAY, call, forward, operated, shop, wait_for},
    shared,
    tasks::{
        do_all,
        page::{all_commands, section},
        shell::Shell,
    },
};

const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

// Parts of the page with commands, by the line above them.
const BEGINNING: &str = "";
const PROXY: &str = "\n## What a proxy knows\n";
const NO_SIDECAR: &str = "\n### A pod has no sidecar\n";
const REFUSED: &str = "\n### The namespace refuses the sidecar\n";
const HPA: &str = "\n### The HPA shows unknown\n";
const TERMINATING: &str = "\n### A namespace stays in Terminating\n";
const NO_STATUS: &str = "\n### Nothing has a status\n";
const CUT_OFF: &str = "\n### A proxy does not reach the operator\n";
const BACKENDS: &str = "\n### Backends are unhealthy\n";

/// A forward to a Service that does not exist.
const ORDERS: &str = "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: orders}, spec: {placement: \
    {gateway: {name: edge}}, listeners: [{name: tcp, protocol: TCP, port: 81, backends: [{service: {name: orders, port: \
    80}}]}]}}";

/// More CPU than a sidecar requests.
const LIMITS: &str = "{apiVersion: v1, kind: LimitRange, metadata: {name: limits}, spec: {limits: [{type: Container, min: {cpu: 50m}}]}}";

/// The template of a pod with a sidecar, whose app requests this much CPU.
const TEMPLATE: &str = "metadata: {name: shop, labels: {app: shop, portlane.dev/inject: enabled}}, spec: \
    {terminationGracePeriodSeconds: 0, securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, \
    containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', args: [pause], resources: {requests: {cpu: 50m}}, \
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}";

#[test]
fn every_command_of_the_page_is_followed() {
    let parts = [BEGINNING, PROXY, NO_SIDECAR, REFUSED, HPA, TERMINATING, NO_STATUS, CUT_OFF, BACKENDS];
    let followed: Vec<_> = parts.into_iter().flat_map(|part| all_commands(section(PAGE, part))).collect();
    assert_eq!(all_commands(PAGE), followed, "each part with commands is followed by a test");
}

#[test]
fn each_command_of_the_page_shows_what_the_page_says() {
    let Some(node) = shared::node_with_a_host() else { return };
    let namespace = shop(operated(), "troubles");
    let scaled = "autoscaling: {minReplicas: 1, maxReplicas: 3, targetConnectionsPerPod: 100}";
    namespace.apply(&GATEWAY.replace("replicas: 2", scaled));
    namespace.apply(&forward("web"));
    namespace.apply(ORDERS);
    wait_for(&namespace, "portforward/web");
    until("bytes go through the Service", || call(&namespace, "tcp") == "web: hello");
    let mut shell = Shell::start(node, &namespace);
    for part in [BEGINNING, PROXY, NO_SIDECAR, NO_STATUS, BACKENDS, HPA] {
        follow(&mut shell, part);
    }
    a_sidecar_is_refused(&namespace);
    follow(&mut shell, REFUSED);
}

#[track_caller]
fn follow(shell: &mut Shell, part: &str) {
    do_all("troubleshooting.md", shell, section(PAGE, part));
}

/// Creates a Deployment whose pods are refused for their sidecar.
fn a_sidecar_is_refused(namespace: &Namespace<'_>) {
    namespace.apply(LIMITS);
    let pod = format!("{{apiVersion: v1, kind: Pod, {TEMPLATE}}}");
    until("the API server enforces the LimitRange", || {
        let tried = namespace.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &pod);
        tried.stderr.contains("minimum cpu usage")
    });
    namespace.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: shop}}, spec: {{selector: {{matchLabels: {{app: \
         shop}}}}, template: {{{TEMPLATE}}}}}}}"
    ));
}

/// Follows the page in a namespace whose pod `cut-off` has a sidecar that does not reach the operator.
#[track_caller]
pub(crate) fn a_proxy_is_cut_off(namespace: &Namespace<'_>) {
    if let Some(node) = shared::node_with_a_host() {
        follow(&mut Shell::start(node, namespace), CUT_OFF);
    }
}

/// Follows the page on a node without an operator, whose live API nobody serves.
#[track_caller]
pub(crate) fn an_api_has_no_operator(node: &Node, namespace: &Namespace<'_>) {
    follow(&mut Shell::start(node, namespace), TERMINATING);
}
