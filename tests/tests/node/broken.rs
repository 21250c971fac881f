//! `kubectl portlane` beside a real installation: every command while all is well, and then one broken forward after the
//! other, whose cause and next step must be named. What would disturb other tests has a node of its own: an operator that is
//! down is in `outage`, a webhook and CRDs that are missing are in `installation`.

use std::process::Command;

use harness::{Namespace, binary, until};
use serde_json::{Value, json};

use crate::{
    commands::{a_forward_is_drained, a_listener_is_forwarded, the_page_follows},
    fleet::{call, forward, operated, shop, wait_for},
    troubleshooting,
};

/// A gateway with one proxy, which may connect to one address outside of the cluster.
const GATEWAY: &str = "{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: edge}, spec: {replicas: 1, \
    drainSeconds: 5, allowedForwards: {addressCIDRs: [203.0.113.7/32]}}}";

/// A Service that selects the pods of `web`, with a port that nobody listens on.
const DEAD: &str = "{apiVersion: v1, kind: Service, metadata: {name: dead}, spec: {selector: {app: web}, ports: [{port: 80, \
    targetPort: 9}]}}";

/// A pod that the most restricted profile of Pod Security admits, with these labels and this container.
const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: NAME, labels: {LABELS}}, spec: {terminationGracePeriodSeconds: \
    0, securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: CONTAINER, image: \
    'localhost/portlane/echo:0.1.0', imagePullPolicy: Never, args: [ARGS], securityContext: {allowPrivilegeEscalation: false, \
    capabilities: {drop: [ALL]}}}]}}";

/// A forward in the pod of [`a_proxy_is_cut_off`].
const CUT_OFF: &str = "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: cut-off}, spec: {placement: \
    {sidecar: {selector: {matchLabels: {app: cut-off}}}}, listeners: [{name: tcp, protocol: TCP, port: 5432, backends: \
    [{service: {name: web, port: 80}}]}]}}";

/// An address at which nobody answers, instead of the operator's.
const NOBODY: &str = "127.0.0.1:9";

fn pod(name: &str, labels: &str, container: &str, args: &str) -> String {
    let pod = POD.replace("NAME", name).replace("LABELS", labels);
    pod.replace("CONTAINER", container).replace("ARGS", args)
}

/// A forward of one TCP port in a gateway.
fn tcp(name: &str, gateway: &str, port: u16, backend: &str, more: &str) -> String {
    format!(
        "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}}}, spec: {{placement: {{gateway: \
         {{name: {gateway}}}}}, listeners: [{{name: tcp, protocol: TCP, port: {port}, backends: [{backend}]}}]{more}}}}}"
    )
}

/// What the plugin printed, on both outputs, and its exit code.
pub(crate) fn plugin(namespace: &Namespace<'_>, words: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(binary("kubectl-portlane"));
    command.env("KUBECONFIG", namespace.cluster().kubeconfig()).args(words).args(["-n", namespace.name()]);
    let output = command.output().expect("the plugin runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), output.status.code())
}

/// Waits until a command prints all of these parts: the cause and the next step.
#[track_caller]
pub(crate) fn names(namespace: &Namespace<'_>, words: &[&str], parts: &[&str]) {
    let mut seen = String::new();
    until(&format!("{words:?} names {parts:?}"), || {
        let printed = plugin(namespace, words).0;
        let has_all = parts.iter().all(|part| printed.contains(part));
        if !has_all && printed != seen {
            eprintln!("{words:?} printed\n{printed}");
            seen = printed;
        }
        has_all
    });
}

#[test]
fn each_command_is_well_and_then_names_cause_and_next_step_of_what_is_broken() {
    let namespace = shop(operated(), "broken");
    namespace.apply(GATEWAY);
    namespace.apply(&forward("web"));
    wait_for(&namespace, "portforward/web");
    until("bytes go through the Service", || call(&namespace, "tcp") == "web: hello");
    all_is_well(&namespace);
    a_listener_is_forwarded(&namespace);
    the_page_follows(&namespace);
    // A report is late after 30 s, which the next two steps take anyway.
    a_proxy_is_cut_off(&namespace);
    forwards_are_broken(&namespace);
    a_limit_is_full(&namespace);
    the_cut_off_proxy_is_named(&namespace);
    a_sidecar_is_old(&namespace);
    a_user_has_no_rights(&namespace);
    a_forward_is_drained(&namespace);
    a_pod_is_drained(&namespace);
    a_quota_refuses_the_fleet(&namespace);
}

/// The pod of the fleet.
fn proxy(namespace: &Namespace<'_>) -> String {
    let name = "--output=jsonpath={.items[0].metadata.name}";
    namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", name]).ok()
}

fn all_is_well(namespace: &Namespace<'_>) {
    let proxy = proxy(namespace);
    // Another test replaces the leader, to whom proxies and the aggregated APIs connect again.
    for (words, part) in [
        (&["status"][..], "✓ leader"),
        (&["describe", "web"][..], "✓ proxies"),
        (&["logs", "web"][..], "closed tcp"),
        (&["conns", "web"][..], "session"),
        (&["config", &proxy][..], "✓ proxy"),
        (&["top", "--once"][..], "FORWARD"),
        (&["trace", "web", "--listener", "tcp", "--from", "client"][..], "reaches a backend"),
    ] {
        until(&format!("{words:?} is well"), || {
            let (text, code) = plugin(namespace, words);
            code == Some(0) && text.contains(part) && !text.contains("  × ")
        });
    }
}

/// Starts a pod whose sidecar is injected, but has the address of nobody for the operator's.
fn a_proxy_is_cut_off(namespace: &Namespace<'_>) {
    let app = pod("cut-off", "app: cut-off, portlane.dev/inject: enabled", "app", "pause");
    let dry_run = ["create", "--dry-run=server", "--output=json", "-f", "-"];
    let injected = namespace.kubectl_with(&dry_run, &app).ok();
    let injected: Value = serde_json::from_str(&injected).expect("a pod");
    let mut spec = injected["spec"].clone();
    let variables = spec["initContainers"][0]["env"].as_array_mut().expect("an injected proxy");
    let operator = variables.iter_mut().find(|variable| variable["name"] == "PORTLANE_OPERATOR");
    operator.expect("the address of the operator")["value"] = json!(NOBODY);
    let metadata = &injected["metadata"];
    let metadata = json!({"name": "cut-off", "labels": metadata["labels"], "annotations": metadata["annotations"]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    namespace.apply(&pod.to_string());
    namespace.apply(CUT_OFF);
}

/// The next step, as printed, has the cause.
fn the_cut_off_proxy_is_named(namespace: &Namespace<'_>) {
    let logs = ["logs", "-l", "app=cut-off", "-c", "portlane-proxy", "--prefix", "--tail", "20"];
    let next = format!("kubectl -n {} {}", namespace.name(), logs.join(" ").replace("app=cut-off", "'app=cut-off'"));
    names(namespace, &["describe", "cut-off"], &["ReportTimeout", "from the proxy of cut-off", &next]);
    troubleshooting::a_proxy_is_cut_off(namespace);
    let log = namespace.kubectl(&logs).ok();
    assert!(log.contains(&format!("cannot connect to the operator at {NOBODY}")), "{log}");
    namespace.kubectl(&["delete", "portforward/cut-off", "pod/cut-off"]).ok();
}

/// A port taken, a missing Service, a forbidden address and a dead backend.
fn forwards_are_broken(namespace: &Namespace<'_>) {
    let service = |name: &str| format!("{{service: {{name: {name}, port: 80}}}}");
    let forwards = [
        DEAD.to_owned(),
        tcp("taken", "edge", 80, &service("web"), ""),
        tcp("missing", "edge", 81, &service("nosuch"), ""),
        tcp("forbidden", "edge", 82, "{address: {host: 192.0.2.9, port: 80}}", ""),
        tcp("dead", "edge", 83, &service("dead"), ""),
    ];
    namespace.apply(&forwards.join("\n---\n"));
    let own = namespace.name();
    let held = format!("port 80/TCP of listener 'tcp' is held by {own}/web");
    let absent = format!("Service {own}/nosuch does not exist");
    let outside = "the address is outside the gateway's allowedForwards.addressCIDRs";
    let next = format!("name the network in spec.allowedForwards.addressCIDRs of ForwardGateway {own}/edge");
    let look = |name: &str| format!("kubectl portlane describe -n {own} {name}");
    let (taken, missing, forbidden) = (look("taken"), look("missing"), look("forbidden"));
    names(namespace, &["status"], &[&held, &taken, &absent, &missing, outside, &forbidden, "are not ready"]);
    names(namespace, &["describe", "taken"], &["see claims below", &held, "choose another port"]);
    names(namespace, &["describe", "missing"], &["see backends below", &absent, "create it, or correct its name"]);
    names(namespace, &["describe", "forbidden"], &["see backends below", outside, &next]);
    wait_for(namespace, "portforward/dead");
    let trace = ["trace", "dead", "--from", "client"];
    names(
        namespace,
        &trace,
        &["stops at: backend", "NoBackend at", "(connection refused)", "kubectl portlane describe dead"],
    );
    namespace.kubectl(&["delete", "portforward", "taken", "missing", "forbidden", "dead"]).ok();
}

fn a_limit_is_full(namespace: &Namespace<'_>) {
    let limits = ", limits: {maxConnections: 1, onLimit: Reject}";
    namespace.apply(&tcp("full", "edge", 84, "{service: {name: web, port: 80}}", limits));
    wait_for(namespace, "portforward/full");
    namespace.apply(&pod("holder", "app: holder", "holder", "hold, 'edge:84'"));
    let trace = ["trace", "full", "--from", "client"];
    names(namespace, &trace, &["stops at: backend", "ConnectionLimit: the proxy refused", "raise spec.limits"]);
    names(namespace, &["logs", "full", "--reason", "ConnectionLimit"], &["[ConnectionLimit]"]);
    let (text, code) = plugin(namespace, &["logs", "full", "--reason", "Idle"]);
    assert!(code == Some(0) && !text.contains("[ConnectionLimit]"), "{text}");
    namespace.kubectl(&["delete", "portforward/full", "pod/holder"]).ok();
}

fn a_sidecar_is_old(namespace: &Namespace<'_>) {
    namespace.apply(&pod("old", "portlane.dev/proxy: sidecar", "portlane-proxy", "pause"));
    let old = format!("1 of 1 run another image than the operator gives to new pods: {}/old", namespace.name());
    names(namespace, &["status"], &["! sidecars", &old, "kubectl rollout restart"]);
    namespace.kubectl(&["delete", "pod/old"]).ok();
}

fn a_user_has_no_rights(namespace: &Namespace<'_>) {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = namespace.kubeconfig_of("default", folder.path());
    let (forwards, config) = ("on `portforwards.portlane.dev`", "on `pods.live.portlane.dev/config`");
    for (words, right) in [
        (&["status"][..], forwards),
        (&["describe", "web"][..], forwards),
        (&["conns"][..], forwards),
        (&["top", "--once"][..], forwards),
        (&["logs", "web"][..], forwards),
        (&["trace", "web", "--from", "client"][..], forwards),
        (&["drain", "web", "--yes"][..], forwards),
        (&["config", "client"][..], config),
    ] {
        let mut command = Command::new(binary("kubectl-portlane"));
        command.env("KUBECONFIG", &kubeconfig).args(words).args(["-n", namespace.name()]);
        let output = command.output().expect("the plugin runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {text}");
        assert!(text.contains(right), "{words:?}: {text}");
    }
}

/// The budget of the fleet permits the eviction, and the Deployment replaces the pod.
fn a_pod_is_drained(namespace: &Namespace<'_>) {
    let evicted = proxy(namespace);
    let (text, code) = plugin(namespace, &["drain", &format!("pod/{evicted}"), "--yes", "--timeout", "60s"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Evicting pod") && text.contains("the pod is gone"), "{text}");
    let left = namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", "-o", "name"]).ok();
    assert!(!left.contains(&evicted), "{left}");
    until("bytes go through the replacement", || call(namespace, "tcp") == "web: hello");
}

/// Last, because no pod starts in the namespace afterwards.
fn a_quota_refuses_the_fleet(namespace: &Namespace<'_>) {
    namespace.apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: none}, spec: {hard: {pods: '0'}}}");
    until("the quota counts", || {
        namespace.kubectl(&["get", "resourcequota/none", "--output=jsonpath={.status.hard.pods}"]).stdout == "0"
    });
    namespace.apply(&GATEWAY.replace("name: edge", "name: starved"));
    namespace.apply(&tcp("starved", "starved", 80, "{service: {name: web, port: 80}}", ""));
    let events = format!("kubectl -n {} get events --field-selector reason=FailedCreate", namespace.name());
    let parts = ["no proxy of the fleet is ready yet", events.as_str()];
    names(namespace, &["describe", "starved"], &parts);
    names(namespace, &["status"], &parts);
    // The next step, as printed, has the cause.
    until("the Events name the quota", || {
        let words = ["get", "events", "--field-selector", "reason=FailedCreate"];
        namespace.kubectl(&words).stdout.contains("exceeded quota: none")
    });
}
