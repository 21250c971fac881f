//! A namespace of somebody else, whose pods have proxies that lie.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;

use crate::{FleetPod, Lie, LyingProxy, Namespace, Node, OPERATOR, block_on};

/// A forward into the pods of the namespace, so that their proxies have something to lie about.
const FORWARD: &str = "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: hostile}, spec: {placement: {sidecar: \
     {selector: {matchLabels: {app: hostile}}}}, listeners: [{name: tcp, protocol: TCP, port: 8002, backends: \
     [{local: {port: 8000}}]}]}}";

/// A pod that says it has a sidecar. No scheduler takes it; its proxy is a task of the attack.
const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: NAME, labels: {app: hostile, portlane.dev/proxy: sidecar}}, spec: \
     {schedulerName: nobody, containers: [{name: proxy, image: none}]}}";

/// Part of the name of every pod of a lying proxy.
const NAMED: &str = "lying-";

/// A hostile namespace with a pod for each lie.
pub(super) struct HostileNamespace<'a> {
    _namespace: Namespace<'a>,
    pub(super) proxies: Vec<LyingProxy>,
}

impl<'a> HostileNamespace<'a> {
    /// Creates the pods and takes their tokens, which are valid for an hour.
    #[track_caller]
    pub(super) fn prepare(node: &'a Node) -> Self {
        let namespace = node.namespace("hostile").for_pods();
        let pods = Lie::ALL.map(|lie| POD.replace("NAME", &name(lie)));
        namespace.apply(&[&[FORWARD.to_owned()][..], &pods[..]].concat().join("\n---\n"));
        let roots = roots(node);
        let proxy = |lie| {
            let name = name(lie);
            let uid = namespace.get::<Pod>(&name).and_then(|pod| pod.metadata.uid).expect("the pod of a lying proxy");
            let token = FleetPod { name, uid }.token(&namespace, "default", "portlane-operator");
            LyingProxy::new(lie, &roots, token)
        };
        let proxies = Lie::ALL.into_iter().map(proxy).collect();
        Self { _namespace: namespace, proxies }
    }
}

/// Whether a text names a lying proxy.
pub(super) fn is_named(text: &str) -> bool {
    text.contains(NAMED)
}

fn name(lie: Lie) -> String {
    format!("{NAMED}{}", lie.word())
}

/// The CA certificates of the operator, PEM.
#[track_caller]
fn roots(node: &Node) -> String {
    let secrets: Api<Secret> = Api::namespaced(node.client(), OPERATOR);
    let secret = block_on(async { secrets.get("portlane-roots").await }).expect("the CA of the operator");
    let bundle = secret.data.and_then(|mut data| data.remove("ca.crt")).expect("CA certificates");
    String::from_utf8(bundle.0).expect("PEM")
}
