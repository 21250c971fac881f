//! The command lines of the components. Pure.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{Family, Folder, addresses::Addresses};
use crate::programs::{self, KubernetesVersion, Missing};

/// A program with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Component {
    /// Name of the component and of its log.
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

impl Component {
    pub(super) fn new(name: &'static str, program: impl Into<PathBuf>, arguments: &[String]) -> Self {
        Self { name, program: program.into(), arguments: arguments.to_vec() }
    }
}

/// How programs are found: a control plane heeds `KUBEBUILDER_ASSETS`, a node runs versions that fit each other.
pub(super) type Find = fn(KubernetesVersion, &str) -> Result<PathBuf, Missing>;

/// Where an API server listens and how clients reach it.
#[derive(Clone, Debug)]
pub(super) struct ApiServer {
    pub(super) version: KubernetesVersion,
    pub(super) address: SocketAddr,
    pub(super) addresses: &'static Addresses,
    /// Whether Pods run, so that the server connects to a kubelet and to aggregated APIs inside the node.
    pub(super) has_node: bool,
}

impl ApiServer {
    /// An API server on loopback.
    pub(super) fn on_loopback(version: KubernetesVersion, port: u16) -> Self {
        let addresses = Family::Four.addresses();
        Self { version, address: (Ipv4Addr::LOCALHOST, port).into(), addresses, has_node: false }
    }

    /// The API server of a node.
    pub(super) fn of_node(addresses: &'static Addresses) -> Self {
        Self { version: KubernetesVersion::Oldest, address: addresses.api(), addresses, has_node: true }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

/// Where etcd listens: unix sockets of these names in its working folder, so that no port can collide. etcd refuses an
/// address that does not look like host and port.
const ETCD_CLIENT: &str = "etcd:2379";
const ETCD_PEER: &str = "etcd:2380";

/// etcd, with the data folder as its working folder.
pub(super) fn etcd(folder: &Folder, find: Find) -> Result<Component, Missing> {
    let socket = |name: &str| format!("unix://{name}");
    let arguments = [
        "--name=test".to_owned(),
        format!("--data-dir={}", folder.data().join("etcd").display()),
        format!("--listen-client-urls={}", socket(ETCD_CLIENT)),
        format!("--advertise-client-urls={}", socket(ETCD_CLIENT)),
        format!("--listen-peer-urls={}", socket(ETCD_PEER)),
        format!("--initial-advertise-peer-urls={}", socket(ETCD_PEER)),
        format!("--initial-cluster=test={}", socket(ETCD_PEER)),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Ok(Component::new("etcd", find(KubernetesVersion::Oldest, "etcd")?, &arguments))
}

pub(super) fn api_server(folder: &Folder, api: &ApiServer, find: Find) -> Result<Component, Missing> {
    let pki = |file: &str| folder.pki().join(file).display().to_string();
    let mut arguments = vec![
        // A relative path: the path of a socket has at most 107 bytes, and a checkout's path may be longer.
        format!("--etcd-servers=unix://{ETCD_CLIENT}"),
        format!("--bind-address={}", api.address.ip()),
        format!("--advertise-address={}", api.address.ip()),
        format!("--secure-port={}", api.address.port()),
        format!("--tls-cert-file={}", pki("api.crt")),
        format!("--tls-private-key-file={}", pki("api.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range={}", api.addresses.joined(|family| family.services)),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
        // The front proxy for aggregated APIs and webhooks; 1.37 requires the allowed names.
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        // Aggregated APIs are reached by their endpoints: no kube-proxy serves addresses of Services here.
        "--enable-aggregator-routing=true".to_owned(),
    ];
    if api.has_node {
        arguments.extend([
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--kubelet-client-certificate={}", pki("admin.crt")),
            format!("--kubelet-client-key={}", pki("admin.key")),
        ]);
    } else {
        // No controller creates the accounts that this plugin requires.
        arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
        arguments.push("--endpoint-reconciler-type=none".to_owned());
    }
    Ok(Component::new("kube-apiserver", find(api.version, "kube-apiserver")?, &arguments))
}

/// The controller manager, whose autoscalers are looked at every `autoscaling_seconds`.
pub(super) fn controller_manager(
    folder: &Folder,
    addresses: &Addresses,
    find: Find,
    autoscaling_seconds: u8,
) -> Result<Component, Missing> {
    let pki = |file: &str| folder.pki().join(file).display().to_string();
    let kubeconfig = folder.configuration().join("controller-manager.kubeconfig").display().to_string();
    let arguments = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--cluster-cidr={}", addresses.joined(|family| family.pods)),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // A test of an autoscaler takes seconds with these, not minutes.
        format!("--horizontal-pod-autoscaler-sync-period={autoscaling_seconds}s"),
        "--horizontal-pod-autoscaler-downscale-stabilization=15s".to_owned(),
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s".to_owned(),
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s".to_owned(),
    ];
    let program = find(KubernetesVersion::Oldest, "kube-controller-manager")?;
    Ok(Component::new("kube-controller-manager", program, &arguments))
}

pub(super) fn scheduler(folder: &Folder) -> Result<Component, Missing> {
    let kubeconfig = folder.configuration().join("scheduler.kubeconfig").display().to_string();
    let arguments =
        [format!("--kubeconfig={kubeconfig}"), "--leader-elect=false".to_owned(), "--secure-port=0".to_owned()];
    Ok(Component::new("kube-scheduler", programs::built(KubernetesVersion::Oldest, "kube-scheduler")?, &arguments))
}

pub(super) fn containerd(folder: &Folder) -> Component {
    let configuration = folder.configuration().join("containerd.toml").display().to_string();
    Component::new("containerd", "containerd", &["--config".to_owned(), configuration])
}

pub(super) fn kubelet(folder: &Folder, addresses: &Addresses, node: &str) -> Result<Component, Missing> {
    let file = |name: &str| folder.configuration().join(name).display().to_string();
    let arguments = [
        format!("--config={}", file("kubelet.yaml")),
        format!("--kubeconfig={}", file("kubelet.kubeconfig")),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", addresses.joined(|family| family.node)),
    ];
    Ok(Component::new("kubelet", programs::built(KubernetesVersion::Oldest, "kubelet")?, &arguments))
}

pub(super) fn kube_proxy(folder: &Folder) -> Result<Component, Missing> {
    let arguments = [format!("--config={}", folder.configuration().join("kube-proxy.yaml").display())];
    Ok(Component::new("kube-proxy", programs::built(KubernetesVersion::Oldest, "kube-proxy")?, &arguments))
}

pub(super) fn coredns(folder: &Folder) -> Result<Component, Missing> {
    let arguments = ["-conf".to_owned(), folder.configuration().join("Corefile").display().to_string()];
    Ok(Component::new("coredns", programs::built(KubernetesVersion::Oldest, "coredns")?, &arguments))
}

/// Service and endpoint of the DNS server, which runs on the node's host and not in a Pod.
pub(super) fn dns_objects(addresses: &Addresses) -> String {
    let Addresses { kind, node, dns_service, .. } = addresses;
    format!(
        r"apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: '{dns_service}'
  ports:
  - {{name: dns, port: 53, targetPort: 5353, protocol: UDP}}
  - {{name: dns-tcp, port: 53, targetPort: 5353, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: kube-dns-node, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}
addressType: {kind}
endpoints: [{{addresses: ['{node}'], conditions: {{ready: true}}}}]
ports:
- {{name: dns, port: 5353, protocol: UDP}}
- {{name: dns-tcp, port: 5353, protocol: TCP}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "the type of a search that may fail")]
    fn found(_: KubernetesVersion, program: &str) -> Result<PathBuf, Missing> {
        Ok(program.into())
    }

    #[test]
    fn a_cluster_of_both_families_has_both_networks_of_services_and_pods_the_first_family_first() {
        let folder = Folder::at("cluster");
        let lines = |family: Family| {
            let addresses = family.addresses();
            let api = api_server(&folder, &ApiServer::of_node(addresses), found).expect("found");
            let manager = controller_manager(&folder, addresses, found, 5).expect("found");
            [api.arguments, manager.arguments].concat()
        };
        let has = |family, line: &str| lines(family).iter().any(|other| other == line);
        assert!(has(Family::Dual, "--service-cluster-ip-range=198.19.0.0/16,fd00:3::/112"));
        assert!(has(Family::Dual, "--cluster-cidr=198.18.0.0/16,fd00:2::/56"));
        assert!(has(Family::Dual, "--advertise-address=192.0.2.1"));
        assert!(has(Family::DualSix, "--service-cluster-ip-range=fd00:3::/112,198.19.0.0/16"));
        assert!(has(Family::DualSix, "--advertise-address=fd00:1::1"));
        assert!(has(Family::Six, "--cluster-cidr=fd00:2::/56"));
    }
}
