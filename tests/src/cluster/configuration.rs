//! The files that components read. Pure, except for [`write`].

use std::{fs, net::IpAddr};

use super::{ClusterError, Folder, addresses::Addresses, pki::Identity};

/// The image of the container that holds a Pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "localhost/portlane/echo:pause";
/// Where containerd listens, in the private /run of a node.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Writes one file below `etc`.
pub(super) fn write(folder: &Folder, name: &str, content: &str) -> Result<(), ClusterError> {
    let path = folder.configuration().join(name);
    fs::write(&path, content).map_err(ClusterError::io(format!("cannot write {}", path.display())))
}

/// A kubeconfig for one identity.
pub(super) fn kubeconfig(folder: &Folder, server: &str, file: &str) -> String {
    let pki = folder.pki();
    let pki = pki.display();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: portlane-test
  cluster: {{server: '{server}', certificate-authority: '{pki}/ca.crt'}}
users:
- name: {file}
  user: {{client-certificate: '{pki}/{file}.crt', client-key: '{pki}/{file}.key'}}
contexts:
- name: portlane-test
  context: {{cluster: portlane-test, user: {file}}}
current-context: portlane-test
"
    )
}

/// Identities of every cluster. The first one is the API server, which listens on `address`.
pub(super) fn identities(address: IpAddr, addresses: &Addresses) -> Vec<Identity> {
    let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc"].map(str::to_owned);
    let ips = [address, addresses.api_service].map(|ip| ip.to_string());
    let api = Identity {
        file: "api",
        user: "kube-apiserver".to_owned(),
        group: "kubernetes",
        serves: names.into_iter().chain(ips).collect(),
    };
    vec![
        api,
        Identity::client("admin", "admin", "system:masters"),
        Identity::client("controller-manager", "system:kube-controller-manager", "system"),
        Identity::client("front-proxy", "front-proxy", "system"),
    ]
}

/// Further identities of a node.
pub(super) fn node_identities(node: &str, address: IpAddr) -> Vec<Identity> {
    let kubelet = Identity {
        file: "kubelet",
        user: format!("system:node:{node}"),
        group: "system:nodes",
        serves: vec![address.to_string(), node.to_owned()],
    };
    vec![
        kubelet,
        Identity::client("scheduler", "system:kube-scheduler", "system"),
        Identity::client("kube-proxy", "system:kube-proxy", "system"),
    ]
}

/// For containerd 1.x and 2.x: no `AppArmor`, no systemd, our own pause image.
pub(super) fn containerd(folder: &Folder) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
"#,
        root = folder.data().join("containerd").display(),
        cni = folder.configuration().join("cni").display(),
    )
}

/// The CNI configuration: Pods on a bridge, with an address of each family.
pub(super) fn cni(addresses: &Addresses) -> String {
    let ranges = addresses.joined(|family| format!(r#"[{{"subnet": "{}"}}]"#, family.node_pods));
    let routes = addresses.joined(|family| format!(r#"{{"dst": "{}/0"}}"#, family.all));
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
    "ipam": {{"type": "host-local", "ranges": [{ranges}], "routes": [{routes}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#
    )
}

/// Configuration of the kubelet, with its Pods below the control group `cgroup`.
pub(super) fn kubelet(folder: &Folder, addresses: &Addresses, cgroup: &str) -> String {
    let pki = folder.pki();
    let pki = pki.display();
    let Addresses { node_pods, dns_service, all, .. } = addresses;
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: '{all}'
authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: '{pki}/ca.crt'}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
tlsCertFile: '{pki}/kubelet.crt'
tlsPrivateKeyFile: '{pki}/kubelet.key'
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
clusterDNS: ['{dns_service}']
clusterDomain: cluster.local
containerRuntimeEndpoint: 'unix://{CONTAINERD_SOCKET}'
failSwapOn: false
# The node's files are on a memory file system of their own.
localStorageCapacityIsolation: false
evictionHard: {{memory.available: 100Mi}}
imageGCHighThresholdPercent: 100
imageMinimumGCAge: 24h
podCIDR: '{node_pods}'
resolvConf: /dev/null
maxPods: 250
nodeStatusUpdateFrequency: 5s
# Changed ConfigMaps reach Pods within seconds.
syncFrequency: 5s
"
    )
}

/// Configuration of kube-proxy. The sysctls of conntrack are read-only in a network namespace.
pub(super) fn kube_proxy(folder: &Folder, addresses: &Addresses, node: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: '{}'}}
clusterCIDR: '{}'
hostnameOverride: {node}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
        folder.configuration().join("kube-proxy.kubeconfig").display(),
        addresses.joined(|family| family.pods)
    )
}

/// Configuration of the DNS server.
pub(super) fn corefile(folder: &Folder, server: &str) -> String {
    let kubeconfig = folder.configuration().join("admin.kubeconfig");
    let kubeconfig = kubeconfig.display();
    format!(
        ".:5353 {{
  errors
  kubernetes cluster.local {{
    endpoint {server}
    kubeconfig {kubeconfig} portlane-test
    pods insecure
    ttl 5
  }}
}}
"
    )
}

/// The resolver configuration of programs on the node's host.
pub(super) fn resolv_conf(addresses: &Addresses) -> String {
    let server = addresses.dns_service;
    format!("nameserver {server}\nsearch svc.cluster.local cluster.local\noptions ndots:2\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Family;

    #[test]
    fn a_pod_of_a_cluster_of_both_families_has_an_address_and_a_route_of_each() {
        let ipam = |family: Family| -> Value {
            let all: Value = serde_json::from_str(&cni(family.addresses())).expect("JSON");
            all["plugins"][0]["ipam"].clone()
        };
        let dual = ipam(Family::Dual);
        assert_eq!(dual["ranges"], json!([[{"subnet": "198.18.0.0/24"}], [{"subnet": "fd00:2::/64"}]]));
        assert_eq!(dual["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        assert_eq!(ipam(Family::Six)["ranges"], json!([[{"subnet": "fd00:2::/64"}]]));
    }
}
