//! A sidecar that reaches an agent. The pods of the gateway only hand the connection over, so each of them may go.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use crds::ForwardAgent;
use harness::{Namespace, Outpost, greeting, until};
use k8s_openapi::api::core::v1::Pod;

use super::{TARGET, load::Sessions, scene};
use crate::fleet::{proxies, wait_for};

/// Number of the machine of the agent.
const MACHINE: u8 = 81;

/// The agent, and a forward to the service on its machine in the sidecars of the app.
const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1
kind: ForwardAgent
metadata: {name: home}
spec:
  gateway: {name: edge}
  targets: [{host: 127.0.0.1, port: 7777}]
---
apiVersion: portlane.dev/v1alpha1
kind: PortForward
metadata: {name: web}
spec:
  placement: {sidecar: {selector: {matchLabels: {app: shop}}}}
  listeners:
  - name: tcp
    protocol: TCP
    port: 80
    bind: All
    backends: [{tunnel: {agent: home, host: 127.0.0.1, port: 7777}}]
";

/// A pod whose sidecar reaches the agent.
const APP: &str = "{apiVersion: v1, kind: Pod, metadata: {name: shop, labels: {app: shop, portlane.dev/inject: enabled}}, \
                   spec: {terminationGracePeriodSeconds: 0, securityContext: {runAsNonRoot: true, seccompProfile: {type: \
                   RuntimeDefault}}, containers: [{name: app, image: 'localhost/portlane/echo:0.1.0', args: [pause], \
                   securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}}";

#[test]
fn a_rollout_of_the_gateway_and_the_loss_of_all_its_pods_break_no_session_of_a_sidecar() {
    let Some((node, _turn)) = scene::node() else { return };
    let namespace = scene::namespace(node, "tunnel-sidecars");
    let outpost = Outpost::numbered(node, MACHINE);
    let _service = scene::echo(&outpost, TARGET, "home: ");
    scene::ready_gateway(&namespace, "replicas: 2, drainSeconds: 5");
    namespace.apply(FORWARD);
    let _agent = scene::agent(&outpost, "pi4", &[TARGET], &scene::join(&namespace));
    namespace.apply(APP);
    namespace.kubectl(&["wait", "--for=condition=Ready", "pod/shop", "--timeout=180s"]).ok();
    wait_for(&namespace, "portforward/web");
    let address = namespace.kubectl(&["get", "pod", "shop", "--output=jsonpath={.status.podIP}:80"]).ok();
    let address: SocketAddr = address.parse().expect("an address");
    let is_served =
        || node.connect(address).and_then(|mut visitor| greeting(&mut visitor)).is_ok_and(|it| it == "home: ");
    until("the sidecar reaches the agent", is_served);
    let is_told = |agent: &ForwardAgent| {
        let instances = agent.status.iter().flat_map(|status| &status.instances);
        instances.map(|it| it.sidecars.as_deref()).eq([Some("1/1")])
    };
    namespace.until::<ForwardAgent>("home", "has a session with the sidecar", is_told);
    let sessions = Sessions::open(node, address);

    let begun = Instant::now();
    namespace.kubectl(&["rollout", "restart", "deploy/edge"]).ok();
    namespace.kubectl(&["rollout", "status", "deploy/edge", "--timeout=180s"]).ok();
    go_on(&sessions);
    eprintln!("{} rounds through a roll-out of the gateway, in {:?}", sessions.work.rounds(), begun.elapsed());

    let begun = Instant::now();
    replace_all_at_once(&namespace);
    go_on(&sessions);
    until("a new visitor is served", is_served);
    eprintln!("sessions and visitors were served {:?} after all pods of the gateway were killed", begun.elapsed());
    sessions.work.stop();
}

/// Waits until the sessions have gone on for a while. One that broke fails the test at once.
#[track_caller]
fn go_on(sessions: &Sessions) {
    let seen = sessions.work.rounds();
    until("the sessions continue", || sessions.work.rounds() > seen + 10);
}

/// Kills every pod of the gateway, and waits until others are ready.
#[track_caller]
fn replace_all_at_once(namespace: &Namespace<'_>) {
    let killed: BTreeSet<String> = proxies(namespace).into_iter().map(|(pod, _)| pod).collect();
    let kill = ["delete", "pod", "-l", "portlane.dev/gateway=edge", "--grace-period=0", "--force", "--wait=false"];
    namespace.kubectl(&kill).ok();
    let is_ready = |pod: &str| {
        let conditions = namespace.get::<Pod>(pod).and_then(|pod| pod.status?.conditions).unwrap_or_default();
        conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True")
    };
    until("other pods are ready", || {
        let now = proxies(namespace);
        now.iter().filter(|(pod, _)| !killed.contains(pod) && is_ready(pod)).count() == 2
    });
}
