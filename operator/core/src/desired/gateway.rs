//! The desired children of a gateway. The same gateway and listeners always give the same manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crds::{ForwardGateway, GatewayService, PodTemplate, ServiceType};
use proxy_api::Transport;
use serde_json::{Value, json};

use crate::{
    desired::{
        ca::Trusted,
        durability, jetstream, network_policy,
        pods::{self, completed},
        probe::{Probe, SOCKET},
        tunnels,
    },
    names::{ADMIN_PORT, CLASS_LABEL, GATEWAY_LABEL, HEALTH_PORT, NAME, PROXY_CONTAINER, PROXY_LABEL},
    world::{ObjectKey, child::ChildKind},
};

pub use crate::desired::fleets::Fleets;

/// Seconds that a terminating pod keeps accepting, until endpoints have been updated.
const LEAVE_SECONDS: u32 = 5;
/// Seconds between the end of the drain and SIGKILL.
const SPARE_SECONDS: u32 = 5;
/// Most worker threads of a proxy. Its CPU limit, or without a limit the CPUs of the node, may allow fewer.
const MAX_WORKERS: u32 = 16;
/// The startup probe passes once the first configuration is applied or 10 s have passed (`--startup-seconds`). Then
/// readiness, which kubelet probes at once, and liveness take over.
const STARTUP: Probe = Probe { what: "startup", period: 1, timeout: PROBE_SECONDS, failures: 30 };
/// A proxy that was ready stays ready, so there is no hurry after the start.
const READY: Probe = Probe { what: "ready", period: 5, timeout: PROBE_SECONDS, failures: 2 };
/// The liveness probe fails only if the proxy or one of its threads does not respond: a late first configuration must
/// not restart the proxy.
const LIVE: Probe = Probe { what: "live", period: 10, timeout: PROBE_SECONDS, failures: 3 };
/// Timeout of the probes in seconds. The probe program starts slowly in a proxy at its CPU limit.
const PROBE_SECONDS: u32 = 5;
/// Bytes of the pipes for splicing. The kernel limits them per user and node.
const PIPE_BYTES: u32 = 32 << 20;

/// Resources of a proxy whose gateway sets none. The memory limit bounds the sessions to about 20,000. Without one,
/// only files would bound them, and clients could exhaust the memory of the node.
fn resources() -> Value {
    json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}})
}

/// Everything that determines the children of a gateway.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Namespace and name of the gateway.
    pub key: ObjectKey,
    /// The gateway.
    pub gateway: ForwardGateway,
    /// Settings of all fleets, with the image of this one.
    pub fleets: Fleets,
    /// Whether an existing fleet keeps its pods as they are, because it is not its turn to adopt changes of the
    /// installation.
    pub keeps_pods: bool,
    /// The CA certificates that proxies trust.
    pub trusted: Trusted,
    /// Ports of the listeners.
    pub ports: BTreeSet<(Transport, u16)>,
    /// Number of the attempt to apply the children, unique in its term. The result has the same number.
    pub attempt: u64,
}

/// The children, in the order in which they are applied. `roots` is the CA bundle, PEM, and `ports` are the ports of
/// the listeners. The Service is absent without listeners and tunnels; children that are [`unwanted`] are absent, too.
#[must_use]
pub fn children(
    key: &ObjectKey,
    gateway: &ForwardGateway,
    fleets: &Fleets,
    roots: &str,
    ports: &BTreeSet<(Transport, u16)>,
) -> Vec<(ChildKind, Value)> {
    let child = Child { key, gateway };
    let tunnels = tunnels::port(gateway).map(|port| (Transport::Tcp, port));
    let ports: &BTreeSet<(Transport, u16)> = &ports.iter().copied().chain(tunnels).collect();
    let service = gateway.spec.service.clone().unwrap_or_default();
    let manifest = |kind: ChildKind| {
        let rest = match kind {
            ChildKind::ServiceAccount => json!({"automountServiceAccountToken": false}),
            ChildKind::Deployment | ChildKind::StatefulSet => json!({"spec": child.workload(fleets, roots)}),
            ChildKind::PodDisruptionBudget => {
                json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": child.selector()}}})
            }
            ChildKind::NetworkPolicy if !fleets.network_policies => return None,
            ChildKind::NetworkPolicy => {
                json!({"spec": network_policy::spec(gateway, &child.selector(), ports, &fleets.peers)})
            }
            ChildKind::Service if has_no_service(gateway) || ports.is_empty() => return None,
            ChildKind::Service => json!({"spec": child.service(&service, ports)}),
        };
        let mut manifest = child.of(kind, rest);
        if kind == ChildKind::Service && !service.annotations.is_empty() {
            manifest["metadata"]["annotations"] = json!(service.annotations);
        }
        Some((kind, manifest))
    };
    ChildKind::of_gateway(gateway).filter_map(manifest).collect()
}

/// The pod template of a gateway's fleet.
pub(super) fn pod_template(key: &ObjectKey, gateway: &ForwardGateway, fleets: &Fleets, roots: &str) -> Value {
    Child { key, gateway }.pod_template(fleets, roots)
}

/// Whether the gateway disables its Service.
fn has_no_service(gateway: &ForwardGateway) -> bool {
    gateway.spec.service.as_ref().and_then(|service| service.type_) == Some(ServiceType::None)
}

/// The children that a gateway should not have, but may still own because a setting has changed.
pub fn unwanted(gateway: &ForwardGateway, fleets: &Fleets) -> impl Iterator<Item = ChildKind> {
    let policy = (!fleets.network_policies).then_some(ChildKind::NetworkPolicy);
    policy.into_iter().chain(has_no_service(gateway).then_some(ChildKind::Service))
}

/// The label selector of a gateway's pods, as the scale subresource shows it.
#[must_use]
pub fn selector_text(key: &ObjectKey) -> String {
    format!("{GATEWAY_LABEL}={}", key.name)
}

struct Child<'a> {
    key: &'a ObjectKey,
    gateway: &'a ForwardGateway,
}

impl Child<'_> {
    fn selector(&self) -> Value {
        json!({GATEWAY_LABEL: self.key.name})
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let own = [
            ("app.kubernetes.io/name", "portlane-gateway"),
            ("app.kubernetes.io/instance", &self.key.name),
            ("app.kubernetes.io/managed-by", NAME),
            (GATEWAY_LABEL, &self.key.name),
        ];
        let class = self.gateway.spec.controller_class.as_deref().map(|class| (CLASS_LABEL, class));
        own.into_iter().chain(class).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// A child: its metadata and the fields of `rest`.
    fn of(&self, kind: ChildKind, rest: Value) -> Value {
        let mut child = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": {
                "name": self.key.name,
                "namespace": self.key.namespace,
                "labels": self.labels(),
                "ownerReferences": [{
                    "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION),
                    "kind": "ForwardGateway",
                    "name": self.key.name,
                    "uid": self.gateway.metadata.uid,
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
        });
        if let (Value::Object(child), Value::Object(rest)) = (&mut child, rest) {
            child.extend(rest);
        }
        child
    }

    fn drain_seconds(&self) -> u32 {
        self.gateway.spec.drain_seconds.unwrap_or(300)
    }

    fn pod_template(&self, fleets: &Fleets, roots: &str) -> Value {
        let template = &completed(self.gateway.spec.pod_template.as_ref(), &fleets.template);
        let mut labels: BTreeMap<String, String> =
            template.labels.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        // The watch of proxies selects by this label.
        labels.remove(CLASS_LABEL);
        labels.extend(self.labels());
        labels.insert(PROXY_LABEL.to_owned(), "gateway".to_owned());
        let annotations: BTreeMap<&String, &String> =
            template.annotations.iter().map(|(key, value)| (key, &value.0)).collect();
        json!({
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": self.pod(template, fleets, roots),
        })
    }

    /// The spec of the Deployment, or of the `StatefulSet` of a fleet on claims.
    fn workload(&self, fleets: &Fleets, roots: &str) -> Value {
        let mut workload = json!({
            "selector": {"matchLabels": self.selector()},
            "template": self.pod_template(fleets, roots),
        });
        match durability::claim(self.gateway) {
            Some(claim) => durability::complete(&mut workload, self.key, self.gateway, claim),
            // A new pod is ready before an old one terminates.
            None => {
                workload["strategy"] =
                    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}});
            }
        }
        // With spec.autoscaling, the HPA owns spec.replicas.
        if self.gateway.spec.autoscaling.is_none() {
            workload["replicas"] = json!(self.gateway.spec.replicas.unwrap_or(2));
        }
        workload
    }

    fn pod(&self, template: &PodTemplate, fleets: &Fleets, roots: &str) -> Value {
        let mut pod = json!({
            "serviceAccountName": self.key.name,
            "automountServiceAccountToken": false,
            // Environment variables for thousands of Services would keep the container from starting.
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": LEAVE_SECONDS + self.drain_seconds() + SPARE_SECONDS,
            "securityContext": {
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "containers": [self.container(template, fleets, roots)],
            "volumes": [
                {"name": "state", "emptyDir": {"sizeLimit": pods::STATE_SIZE}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                    "audience": proxy_api::AUDIENCE, "expirationSeconds": 3600, "path": "token",
                }}]}},
            ],
        });
        fleets.pods.identify(&mut pod["securityContext"], &["runAsUser", "runAsGroup", "fsGroup"]);
        if durability::claim(self.gateway).is_some() {
            durability::mount(&mut pod);
        }
        jetstream::mount(&mut pod, self.gateway);
        let secrets = fleets.pods.missing_pull_secrets(&Value::Null);
        if !secrets.is_empty() {
            pod["imagePullSecrets"] = json!(secrets);
        }
        let node_selector: BTreeMap<&String, &String> =
            template.node_selector.iter().map(|(key, value)| (key, &value.0)).collect();
        if !node_selector.is_empty() {
            pod["nodeSelector"] = json!(node_selector);
        }
        if !template.tolerations.is_empty() {
            pod["tolerations"] = json!(template.tolerations);
        }
        if let Some(class) = &template.priority_class_name {
            pod["priorityClassName"] = json!(class);
        }
        if let Some(affinity) = &template.affinity {
            let mut affinity = json!(affinity);
            for way in ["podAffinity", "podAntiAffinity"] {
                affinity.get_mut(way).into_iter().flat_map(pod_terms).for_each(|term| self.select_own(term));
            }
            pod["affinity"] = affinity;
        }
        if !template.topology_spread_constraints.is_empty() {
            let mut constraints = json!(template.topology_spread_constraints);
            constraints.as_array_mut().into_iter().flatten().for_each(|constraint| self.select_own(constraint));
            pod["topologySpreadConstraints"] = constraints;
        }
        pod
    }

    /// Adds a selector of the gateway's own pods to a term without one.
    fn select_own(&self, term: &mut Value) {
        if let Value::Object(fields) = term {
            fields.entry("labelSelector").or_insert_with(|| json!({"matchLabels": self.selector()}));
        }
    }

    fn container(&self, template: &PodTemplate, fleets: &Fleets, roots: &str) -> Value {
        let variable = |name: &str, value: String| json!({"name": name, "value": value});
        let resources = template.resources.as_ref().map_or_else(resources, |resources| json!(resources));
        let mut env = vec![
            variable("PORTLANE_OPERATOR", fleets.operator.clone()),
            variable("PORTLANE_ROOTS", roots.to_owned()),
            variable("PORTLANE_HEALTH_ADDRESS", SocketAddr::new(fleets.bind, HEALTH_PORT).to_string()),
            variable("PORTLANE_ADMIN_ADDRESS", format!("127.0.0.1:{ADMIN_PORT}")),
            variable("PORTLANE_SOCKET", SOCKET.to_owned()),
            variable("PORTLANE_MAX_WORKERS", MAX_WORKERS.to_string()),
            variable("PORTLANE_DRAIN_SECONDS", self.drain_seconds().to_string()),
            variable("PORTLANE_PIPE_BYTES", PIPE_BYTES.to_string()),
        ];
        match durability::claim(self.gateway) {
            Some(claim) => env.extend(durability::variables(claim)),
            None => env.extend(pods::messages(self.drain_seconds())),
        }
        env.extend(jetstream::variables(self.gateway));
        env.extend(tunnels::variables(self.gateway, fleets.bind));
        let mut ports = vec![json!({"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"})];
        ports.extend(tunnels::container_port(self.gateway));
        json!({
            "name": PROXY_CONTAINER,
            "image": fleets.image,
            "imagePullPolicy": fleets.pull_policy,
            "env": env,
            "ports": ports,
            "startupProbe": STARTUP.to_json(),
            "livenessProbe": LIVE.to_json(),
            "readinessProbe": READY.to_json(),
            "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
            "resources": resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "state", "mountPath": "/var/lib/portlane"},
                {"name": "token", "mountPath": "/var/run/secrets/portlane", "readOnly": true},
            ],
        })
    }

    /// The spec of the Service.
    fn service(&self, service: &GatewayService, ports: &BTreeSet<(Transport, u16)>) -> Value {
        let port = |(transport, port): &(Transport, u16)| {
            let name = format!("{}-{port}", transport.to_string().to_lowercase());
            json!({"name": name, "protocol": transport.to_string(), "port": port, "targetPort": port})
        };
        let kind = match service.type_ {
            Some(ServiceType::NodePort) => "NodePort",
            Some(ServiceType::LoadBalancer) => "LoadBalancer",
            _ => "ClusterIP",
        };
        let mut spec = json!({
            "type": kind,
            "ipFamilyPolicy": "PreferDualStack",
            "selector": self.selector(),
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
        });
        if let Some(policy) = service.external_traffic_policy {
            spec["externalTrafficPolicy"] = json!(policy);
        }
        if let Some(class) = &service.load_balancer_class {
            spec["loadBalancerClass"] = json!(class);
        }
        if let Some(allocate) = service.allocate_load_balancer_node_ports {
            spec["allocateLoadBalancerNodePorts"] = json!(allocate);
        }
        spec
    }
}

/// The terms of a pod affinity or anti-affinity.
fn pod_terms(affinity: &mut Value) -> Vec<&mut Value> {
    let Value::Object(fields) = affinity else { return Vec::new() };
    let mut terms = Vec::new();
    for (name, list) in fields {
        let items = list.as_array_mut().into_iter().flatten();
        let is_weighted = name.starts_with("preferred");
        terms.extend(items.filter_map(|item| if is_weighted { item.get_mut("podAffinityTerm") } else { Some(item) }));
    }
    terms
}
