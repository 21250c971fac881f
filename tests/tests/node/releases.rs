//! Releases that follow each other under load, by the real helm: an upgrade, its rollback, and an installation after an
//! uninstallation.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{CommandOutput, Namespace, Node, until};
use tempfile::TempDir;

use crate::{
    broken::names,
    fleet::{CHARTS, Load, OPERATOR, call, proxies, until_it_drains, wait_for},
    tasks::shell::Shell,
    upgrade,
};

/// Version of this release, and tag of its images.
const THIS: &str = env!("CARGO_PKG_VERSION");
/// Tag of the images of the next release.
const NEXT: &str = "next";
/// Indentation of the fields of `spec` in the schema.
const INDENTATION: &str = "              ";
/// The API by which API servers serve the kinds. They register it themselves for as long as the CRDs are there.
const OF_CRDS: &str = "apiservice.apiregistration.k8s.io/v1alpha1.portlane.dev";

/// An app with a sidecar, whose pod outlives the upgrade.
const SHOP: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: shop}, spec: {selector: {matchLabels: {app: shop}}, \
    template: {metadata: {labels: {app: shop, portlane.dev/inject: enabled}}, spec: {terminationGracePeriodSeconds: 0, \
    securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: app, image: \
    'localhost/portlane/echo:0.1.0', args: [pause], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: \
    [ALL]}}}]}}}}";

/// What a person has as values.yaml at the upgrade.
const VALUES: &str = "customMetrics: {enabled: true}\n";

/// One more listener of a forward, on port 81.
const MORE: &str = r#"[{"op": "add", "path": "/spec/listeners/-", "value": {"name": "more", "protocol": "TCP", "port": 81,
    "backends": [{"service": {"name": "web", "port": 80}}]}}]"#;

/// The reference of an image of a release.
fn image(name: &str, tag: &str) -> String {
    format!("localhost/portlane/{name}:{tag}")
}

/// A checkout with both charts as the next release has them: with images of its own, and one more field of `PortForward`s.
pub(crate) struct NextRelease(TempDir);

impl NextRelease {
    /// Makes copies of the charts, and loads the images: those of this release under another name.
    #[track_caller]
    pub(crate) fn make(node: &Node) -> Self {
        let next = Self(tempfile::tempdir().expect("folder"));
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        fs::create_dir(next.0.path().join("charts")).expect("folder");
        fs::write(next.0.path().join("values.yaml"), VALUES).expect("write");
        for chart in CHARTS {
            let mut copy = Command::new("cp");
            CommandOutput::of(copy.arg("--recursive").arg(checkout.join(chart)).arg(next.chart(chart)), "").ok();
            let version = format!("appVersion: {THIS}\n");
            edit(&next.chart(chart).join("Chart.yaml"), &version, &format!("appVersion: {NEXT}\n"));
        }
        let schema = next.chart(CHARTS[0]).join("templates/portlane.dev_portforwards.yaml");
        let first = format!("{INDENTATION}access:\n");
        edit(&schema, &first, &format!("{INDENTATION}novelty: {{type: string}}\n{first}"));
        for name in ["operator", "proxy"] {
            let (old, new) = (image(name, THIS), image(name, NEXT));
            let mut tag = node.command("ctr");
            CommandOutput::of(tag.args(["--namespace", "k8s.io", "images", "tag", &old, &new]), "").ok();
        }
        next
    }

    /// The copy of a chart.
    fn chart(&self, of_checkout: &str) -> PathBuf {
        self.0.path().join(of_checkout)
    }

    /// The copy of the chart of the CRDs, for helm.
    fn crds(&self) -> String {
        self.chart(CHARTS[0]).display().to_string()
    }
}

/// Replaces a text that a file has once.
#[track_caller]
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("read");
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {}", file.display());
    fs::write(file, text.replace(from, to)).expect("write");
}

/// The next release replaces CRDs, operator and fleet, and breaks no session. A pinned fleet keeps its pod, and a pod its
/// sidecar, which is named and replaced. Returns the clients of the sessions, which have ended.
pub(crate) fn an_upgrade_brings_a_field_and_other_images(
    shell: &mut Shell,
    node: &Node,
    namespace: &Namespace<'_>,
    next: &NextRelease,
) -> Vec<SocketAddr> {
    wait_for(namespace, "forwardgateway/pinned");
    let pinned = || namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=pinned", "-o", "name"]).ok();
    let kept = pinned();
    namespace.apply(SHOP);
    namespace.kubectl(&["rollout", "status", "deployment/shop", "--timeout=180s"]).ok();
    // The next step of a missing webhook is the upgrade that follows.
    let webhook = format!("portlane-operator.{OPERATOR}");
    node.kubectl(&["delete", "mutatingwebhookconfiguration", &webhook]).ok();
    let missing = ["× webhook", &webhook, "helm upgrade portlane charts/portlane"];
    names(namespace, &["status"], &missing);
    let home = shell.folder().to_owned();
    shell.enter(next.0.path());
    let clients = a_fleet_is_replaced_under_load(node, namespace, &image("proxy", NEXT), || {
        upgrade::follow(shell, upgrade::CRDS);
        until("the new field is accepted and kept", || {
            let patch = r#"{"spec": {"novelty": "kept"}}"#;
            namespace.kubectl(&["patch", "portforward/web", "--type=merge", "--patch", patch]).success
                && novelty(namespace) == "kept"
        });
        upgrade::follow(shell, upgrade::OPERATOR);
    });
    shell.enter(&home);
    assert_eq!(operator(node), image("operator", NEXT));
    upgrade::follow(shell, upgrade::FLEETS);
    // The leader writes the CA bundle into the new configuration.
    let old = format!("1 of 1 run another image than the operator gives to new pods: {}/shop-", namespace.name());
    names(namespace, &["status"], &["✓ webhook", "! sidecars", &old]);
    let outdated = "--output=jsonpath={.status.proxyImage} {.status.conditions[?(@.type==\"Outdated\")].reason}";
    let status = namespace.kubectl(&["get", "forwardgateway/pinned", outdated]).ok();
    assert_eq!((status, pinned()), (format!("{} Pinned", image("proxy", THIS)), kept));
    namespace.kubectl(&["delete", "forwardgateway/pinned"]).ok();
    upgrade::follow(shell, upgrade::SIDECARS);
    names(namespace, &["status"], &["✓ sidecars"]);
    clients
}

/// A rollback takes operator and fleet back, breaks no session, and leaves the CRDs as they are.
pub(crate) fn a_rollback_leaves_the_field(shell: &mut Shell, node: &Node, namespace: &Namespace<'_>) {
    a_fleet_is_replaced_under_load(node, namespace, &image("proxy", THIS), || {
        upgrade::follow(shell, upgrade::ROLLBACK);
    });
    assert_eq!(operator(node), image("operator", THIS));
    assert_eq!(novelty(namespace), "kept");
    // The sidecar that was created meanwhile has the newer image.
    names(namespace, &["status"], &["! sidecars", &format!("{}/shop-", namespace.name())]);
    namespace.kubectl(&["delete", "deployment/shop", "--wait=false"]).ok();
}

/// Objects and fleet outlive both charts and continue without them. The next installation takes them over, with what has
/// changed meanwhile.
pub(crate) fn an_installation_adopts_what_the_one_before_left(
    node: &Node,
    namespace: &Namespace<'_>,
    next: &NextRelease,
) {
    let objects = || {
        let ids = "--output=jsonpath={.items[*].metadata.uid}";
        (namespace.kubectl(&["get", "portforward/web", "forwardgateway/edge", ids]).ok(), proxies(namespace))
    };
    namespace.kubectl(&["rollout", "status", "deploy/edge", "--timeout=180s"]).ok();
    wait_for(namespace, "portforward/web");
    until("bytes go through the Service", || call(namespace, "tcp") == "web: hello");
    let before = objects();
    node.helm(&["uninstall", "portlane", "portlane-crds", "--namespace", OPERATOR, "--wait"]).ok();
    no_operator_is_left(namespace);
    assert_eq!(call(namespace, "tcp"), "web: hello", "the fleet serves");
    namespace.kubectl(&["patch", "portforward/web", "--type=json", "--patch", MORE]).ok();
    let generation = namespace.kubectl(&["get", "portforward/web", "--output=jsonpath={.metadata.generation}"]).ok();

    node.helm(&["install", "portlane-crds", &next.crds(), "--namespace", OPERATOR]).ok();
    let install = ["install", "portlane", CHARTS[1], "--namespace", OPERATOR, "--set", "customMetrics.enabled=true"];
    node.helm(&[&install[..], &["--wait", "--timeout", "100s"]].concat()).ok();
    let status = "--output=jsonpath={.status.observedGeneration} {.status.conditions[?(@.type==\"Ready\")].status} \
                  {.status.dataPlane.summary}";
    let current = format!("{generation} True 1/1");
    until("the status is that of the new generation", || {
        namespace.kubectl(&["get", "portforward/web", status]).stdout == current
    });
    let through = ["exec", "client", "--", "/portlane-echo", "call", "tcp", "edge:81", "hello"];
    until("bytes go through the new listener", || namespace.kubectl(&through).stdout.trim_end() == "web: hello");
    assert_eq!(objects(), before, "the same objects and the same proxy");
}

/// After an uninstallation, nothing is left that a request or the deletion of an object would wait for.
pub(crate) fn no_operator_is_left(namespace: &Namespace<'_>) {
    let cluster = namespace.cluster();
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings,apiservices";
    let named = cluster.kubectl(&["get", kinds, "--output=name"]).ok();
    let is_ours = |line: &&str| line.contains("portlane") || line.contains("custom.metrics.k8s.io");
    let left: Vec<&str> = named.lines().filter(is_ours).filter(|line| *line != OF_CRDS).collect();
    assert!(left.is_empty(), "{left:?}");
    until("the operator's pods and the endpoints of its APIs are gone", || {
        cluster.kubectl(&["get", "pods,endpointslices", "--namespace", OPERATOR, "--output=name"]).ok().is_empty()
    });
    let kinds = "portforwards,forwardgateways,deployments,services,serviceaccounts,poddisruptionbudgets,pods";
    let finalizers = "--output=jsonpath={.items[*].metadata.finalizers}";
    assert_eq!(namespace.kubectl(&["get", kinds, finalizers]).ok(), "", "no object has a finalizer");
}

/// Sessions run through both proxies of the fleet `edge` while a release replaces them by two with this image, and none
/// breaks. Returns the clients of the sessions.
fn a_fleet_is_replaced_under_load(
    node: &Node,
    namespace: &Namespace<'_>,
    image: &str,
    release: impl FnOnce(),
) -> Vec<SocketAddr> {
    let addresses: Vec<SocketAddr> = proxies(namespace).into_iter().map(|(_, address)| address).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let load = Load::start(node, &addresses, 20);
    let clients = load.clients();
    release();
    let images = || {
        let column = "--output=jsonpath={range .items[*]}{.spec.containers[0].image}/{.status.phase} {end}";
        namespace.kubectl(&["get", "pods", "-l", "portlane.dev/gateway=edge", column]).ok()
    };
    let new = format!("{image}/Running");
    until("two proxies of the image run beside the draining ones", || images().matches(&new).count() == 2);
    wait_for(namespace, "portforward/web");
    for address in addresses {
        until_it_drains(node, address, &load);
    }
    assert!(load.stop() > 100, "the load ran, and no session broke");
    until("the proxies before are gone", || images().split_whitespace().all(|pod| pod.starts_with(image)));
    until("bytes go through the Service", || call(namespace, "tcp") == "web: hello");
    let shown = namespace.kubectl(&["get", "forwardgateway/edge", "--output=jsonpath={.status.proxyImage}"]).ok();
    assert_eq!(shown, image);
    clients
}

/// The field of the forward `web` that the next release brings.
fn novelty(namespace: &Namespace<'_>) -> String {
    namespace.kubectl(&["get", "portforward/web", "--output=jsonpath={.spec.novelty}"]).ok()
}

/// The image of the operator.
fn operator(node: &Node) -> String {
    let image = "--output=jsonpath={.spec.template.spec.containers[0].image}";
    node.kubectl(&["get", "deployment/portlane-operator", "--namespace", OPERATOR, image]).ok()
}
