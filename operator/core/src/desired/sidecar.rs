//! Injection of a proxy into a pod. The same pod and settings always give the same patch.

use std::{collections::BTreeMap, slice};

use proxy_api::Transport;
use serde_json::{Map, Value, json};

use crate::{
    desired::{
        pods::{self, Pods},
        probe::{Probe, SOCKET},
        tuning::{Resources, Tuning, tuning},
    },
    names::{
        APP_PORTS, CLASS_LABEL, CONTAINER, HEALTH_PORT, INJECT_LABEL, PROBLEM, PROXY_LABEL, SIDECAR_HEALTH,
        is_of_gateway,
    },
    world::{
        app_ports::{AppPorts, declared, parse, written},
        class,
    },
};

/// Seconds that the proxy leaves a port alone after the app released it: time for kubelet to restart the app.
const YIELD_SECONDS: u32 = 60;
/// Seconds in which sinks still get messages after the app has ended: less than the 30 s that a pod has by default.
/// kubelet then kills the proxy.
const MESSAGE_SECONDS: u32 = 20;
/// Node label with the operating system.
const OS: &str = "kubernetes.io/os";
/// Timeout of the exec probes, seconds.
const PROBE_SECONDS: u32 = 2;
/// Annotation of cluster-autoscaler: local volumes that do not keep a pod on its node.
const EVICTABLE: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// Names of the injected volumes. The first is on the disk of the node.
const VOLUMES: [&str; 2] = ["portlane-state", "portlane-token"];
/// The sysctl that lets a proxy without capabilities bind ports below 1024.
const LOW_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// Settings that all sidecars of an installation share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// Image of the proxy.
    pub image: String,
    /// Pull policy of the image.
    pub pull_policy: String,
    /// Address of the operator, `HOST:PORT`.
    pub operator: String,
    /// CA bundle that proxies trust, PEM.
    pub roots: String,
    /// Resources of the proxy, unless annotations of the pod override them.
    pub resources: Resources,
    /// Settings that sidecars share with fleets.
    pub pods: Pods,
    /// Controller class of the operator.
    pub class: String,
}

impl Sidecar {
    /// Whether a new pod with these labels gets this sidecar. `is_selected` says whether a forward of the operator's
    /// class selects the pod.
    #[must_use]
    pub fn is_for(&self, labels: &BTreeMap<String, String>, is_selected: impl FnOnce() -> bool) -> bool {
        let is_in_fleet = labels.get(PROXY_LABEL).is_some_and(|role| is_of_gateway(role));
        if is_in_fleet || labels.get(CLASS_LABEL).is_some_and(|class| *class != self.class) {
            return false;
        }
        match labels.get(INJECT_LABEL).map(String::as_str) {
            // An operator without a class and an operator with one must not both inject.
            Some("enabled") => class::of_labels(labels) == self.class,
            Some(_) => false,
            None => is_selected(),
        }
    }
}

/// The result of injection.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// The pod already carries a proxy.
    Carried,
    /// The pod already carries a proxy, and has other ports than its annotation lists: the JSON patch that lists them.
    Relisted(Vec<Value>),
    /// The pod cannot carry a proxy, and starts without one: the JSON patch that notes the reason, and the reason.
    Refused(Vec<Value>, String),
    /// The pod gets a proxy: the JSON patch, and the warnings for the client that creates the pod.
    Injected(Vec<Value>, Vec<String>),
}

impl Injection {
    /// The JSON patch for the pod; empty if nothing changes.
    #[must_use]
    pub fn patch(&self) -> &[Value] {
        match self {
            Self::Carried => &[],
            Self::Relisted(patch) | Self::Refused(patch, _) | Self::Injected(patch, _) => patch,
        }
    }

    /// The warnings for the client that creates the pod.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Carried | Self::Relisted(_) => &[],
            Self::Refused(_, why) => slice::from_ref(why),
            Self::Injected(_, warnings) => warnings,
        }
    }
}

/// Injects a proxy into a pod. A pod that cannot carry a proxy starts without one; an annotation has the reason.
#[must_use]
pub fn inject(pod: &Value, sidecar: &Sidecar) -> Injection {
    let spec = &pod["spec"];
    if let Some(container) = containers(spec).find(|container| container["name"] == CONTAINER) {
        if is_ours(container) {
            return carried(pod);
        }
        return refused(pod, &format!("the pod has a container of its own named {CONTAINER}: rename the container"));
    }
    if let Some(why) = unfit(spec) {
        return refused(pod, &why);
    }
    let annotations = &pod["metadata"]["annotations"];
    let (tuning, mut problems) = tuning(annotations, &sidecar.resources);
    let (app_ports, free) = app_ports(pod, &mut problems);
    if spec["resources"].is_object() && tuning.resources != sidecar.resources {
        problems.push(
            "the pod sets spec.resources for all containers: the resource annotations of the proxy are ignored".into(),
        );
    }
    let mut patch = Patch(Vec::new());
    patch.entries(&pod["metadata"]["labels"], "/metadata/labels", &injected_labels(&sidecar.class));
    let annotated = injected_annotations(annotations, &written(&app_ports, &free), &problems);
    patch.entries(annotations, "/metadata/annotations", &annotated);
    patch.list(
        &spec["volumes"],
        "/spec/volumes",
        "-",
        &json!({"name": "portlane-state", "emptyDir": {"sizeLimit": pods::STATE_SIZE}}),
    );
    let token =
        json!({"serviceAccountToken": {"audience": proxy_api::AUDIENCE, "expirationSeconds": 3600, "path": "token"}});
    patch.0.push(json!({
        "op": "add", "path": "/spec/volumes/-",
        "value": {"name": "portlane-token", "projected": {"sources": [token]}},
    }));
    // The proxy comes first, so that other init containers can use its listeners too.
    patch.list(&spec["initContainers"], "/spec/initContainers", "0", &container(sidecar, &tuning, spec, &app_ports));
    pull_secrets(spec, &sidecar.pods, &mut patch);
    low_ports(spec, &mut patch);
    Injection::Injected(patch.0, problems)
}

/// Why a pod cannot carry a proxy, and the remedy.
fn unfit(spec: &Value) -> Option<String> {
    let why = if spec["hostNetwork"] == true {
        "a pod with hostNetwork cannot carry a proxy, which would listen on the node: use a ForwardGateway instead"
    } else if is_windows(spec) {
        "a Windows pod cannot carry a proxy, which runs on Linux only: use a ForwardGateway instead"
    } else if spec["serviceAccountName"].as_str().is_none_or(str::is_empty) {
        "the pod has no ServiceAccount, whose token proves the identity of the proxy: set spec.serviceAccountName"
    } else {
        let mut volumes = spec["volumes"].as_array().into_iter().flatten();
        let name = volumes.find_map(|volume| VOLUMES.iter().find(|name| volume["name"] == **name))?;
        return Some(format!("the pod has a volume of its own named {name}: rename the volume"));
    };
    Some(why.to_owned())
}

/// The labels that injection sets.
fn injected_labels(class: &str) -> Map<String, Value> {
    let mut labels = Map::from_iter([(PROXY_LABEL.to_owned(), json!("sidecar"))]);
    if !class.is_empty() {
        labels.insert(CLASS_LABEL.to_owned(), json!(class));
    }
    labels
}

/// The annotations that injection sets.
fn injected_annotations(annotations: &Value, app_ports: &str, problems: &[String]) -> Map<String, Value> {
    let mut annotated = Map::new();
    if !problems.is_empty() {
        annotated.insert(PROBLEM.to_owned(), json!(problems.join("; ")));
    }
    if !app_ports.is_empty() {
        annotated.insert(APP_PORTS.to_owned(), json!(app_ports));
    }
    // The proxy can fetch its configuration again, and its messages are lost with the pod in any case, so the volume
    // must not keep a node from being removed.
    let mut volumes: Vec<&str> =
        annotations[EVICTABLE].as_str().unwrap_or_default().split(',').map(str::trim).collect();
    volumes.retain(|volume| !volume.is_empty() && *volume != VOLUMES[0]);
    volumes.push(VOLUMES[0]);
    annotated.insert(EVICTABLE.to_owned(), json!(volumes.join(",")));
    annotated
}

/// The result for a pod that carries a proxy. Another webhook may have added containers with further ports.
fn carried(pod: &Value) -> Injection {
    let (ports, free) = app_ports(pod, &mut Vec::new());
    let annotations = &pod["metadata"]["annotations"];
    let annotated = parse(annotations[APP_PORTS].as_str().unwrap_or_default());
    if annotated.ports == ports {
        return Injection::Carried;
    }
    let mut patch = Patch(Vec::new());
    patch.map(annotations, "/metadata/annotations", APP_PORTS, &json!(written(&ports, &free)));
    Injection::Relisted(patch.0)
}

/// The ports of the app, which containers declare or the annotation lists, and the ports that the annotation excludes.
fn app_ports(pod: &Value, problems: &mut Vec<String>) -> (AppPorts, AppPorts) {
    let annotated = parse(pod["metadata"]["annotations"][APP_PORTS].as_str().unwrap_or_default());
    let (mut ports, wrong) = (annotated.ports, annotated.wrong);
    if !wrong.is_empty() {
        let wrong: String = wrong.join(",").chars().take(40).collect();
        problems.push(format!("annotation {APP_PORTS} contains '{wrong}', not a port such as 8000/TCP; ignoring it"));
    }
    let own = containers(&pod["spec"]).filter(|container| container["name"] != CONTAINER);
    ports.extend(declared(own).difference(&annotated.free));
    (ports, annotated.free)
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

/// Whether a pod runs on Windows according to `spec.os`, its node selector, or every term of its node affinity.
fn is_windows(spec: &Value) -> bool {
    let terms =
        &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let is_windows = |term: &Value| {
        let mut wanted = term["matchExpressions"].as_array().into_iter().flatten();
        wanted.any(|it| it["key"] == OS && it["operator"] == "In" && it["values"] == json!(["windows"]))
    };
    spec["os"]["name"] == "windows"
        || spec["nodeSelector"][OS] == "windows"
        || terms.as_array().is_some_and(|terms| !terms.is_empty() && terms.iter().all(is_windows))
}

/// Whether a container is an injected proxy.
fn is_ours(container: &Value) -> bool {
    let variables = container["env"].as_array().into_iter().flatten();
    container["restartPolicy"] == "Always"
        && variables.into_iter().any(|variable| variable["name"] == "PORTLANE_OPERATOR")
}

fn refused(pod: &Value, why: &str) -> Injection {
    let mut patch = Patch(Vec::new());
    patch.map(&pod["metadata"]["annotations"], "/metadata/annotations", PROBLEM, &json!(why));
    Injection::Refused(patch.0, why.to_owned())
}

/// Adds the pull secrets of the proxy's image. The API server has added those of the `ServiceAccount` before.
fn pull_secrets(spec: &Value, pods: &Pods, patch: &mut Patch) {
    let named = &spec["imagePullSecrets"];
    let missing = pods.missing_pull_secrets(named);
    if named.is_array() {
        for secret in &missing {
            patch.list(named, "/spec/imagePullSecrets", "-", secret);
        }
    } else if !missing.is_empty() {
        patch.0.push(json!({"op": "add", "path": "/spec/imagePullSecrets", "value": missing}));
    }
}

/// Opens the ports below 1024 to the proxy, within the network namespace of the pod. A pod that sets the sysctl itself
/// keeps its own value.
fn low_ports(spec: &Value, patch: &mut Patch) {
    let sysctl = json!({"name": LOW_PORTS, "value": "0"});
    let context = &spec["securityContext"];
    if context.is_null() {
        patch.0.push(json!({"op": "add", "path": "/spec/securityContext", "value": {"sysctls": [sysctl]}}));
        return;
    }
    let mut set = context["sysctls"].as_array().into_iter().flatten();
    if !set.any(|set| set["name"] == LOW_PORTS) {
        patch.list(&context["sysctls"], "/spec/securityContext/sysctls", "-", &sysctl);
    }
}

fn container(sidecar: &Sidecar, tuning: &Tuning, spec: &Value, app_ports: &AppPorts) -> Value {
    let (health, ports) = if tuning.health && !app_ports.contains(&(Transport::Tcp, HEALTH_PORT)) {
        let port = json!({"name": SIDECAR_HEALTH, "containerPort": HEALTH_PORT, "protocol": "TCP"});
        (format!("$(PORTLANE_POD_IP):{HEALTH_PORT}"), json!([port]))
    } else {
        ("none".to_owned(), json!([]))
    };
    // Container resources must fit into spec.resources of the pod; a container without resources always does.
    let resources = if spec["resources"].is_object() { json!({}) } else { resources(tuning) };
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let ip = json!({"name": "PORTLANE_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}});
    // The probe passes once the first configuration is applied or PORTLANE_STARTUP_SECONDS have passed.
    let startup = Probe { what: "startup", period: 1, timeout: PROBE_SECONDS, failures: tuning.startup_seconds + 20 };
    let live = Probe { what: "live", period: 10, timeout: PROBE_SECONDS, failures: 3 };
    let mut context = json!({
        "runAsNonRoot": true,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    sidecar.pods.identify(&mut context, &["runAsUser", "runAsGroup"]);
    let mut env = vec![
        ip,
        variable("PORTLANE_OPERATOR", &sidecar.operator),
        variable("PORTLANE_ROOTS", &sidecar.roots),
        variable("PORTLANE_HEALTH_ADDRESS", &health),
        // The admin socket serves the same API without a port that could collide with the app.
        variable("PORTLANE_ADMIN_ADDRESS", "none"),
        variable("PORTLANE_SOCKET", SOCKET),
        variable("PORTLANE_MAY_LACK_ADDRESSES", "true"),
        variable("PORTLANE_STARTUP_SECONDS", &tuning.startup_seconds.to_string()),
        variable("PORTLANE_YIELD_SECONDS", &YIELD_SECONDS.to_string()),
        variable("PORTLANE_LOG_LEVEL", &tuning.log_level),
        // kubelet stops a sidecar after the app: no session is left to drain.
        variable("PORTLANE_DRAIN_SECONDS", "0"),
    ];
    env.extend(pods::messages(MESSAGE_SECONDS));
    json!({
        "name": CONTAINER,
        "image": tuning.image.as_deref().unwrap_or(&sidecar.image),
        "imagePullPolicy": sidecar.pull_policy,
        "restartPolicy": "Always",
        "env": env,
        "ports": ports,
        "startupProbe": startup.to_json(),
        "livenessProbe": live.to_json(),
        "resources": resources,
        "securityContext": context,
        "volumeMounts": [
            {"name": "portlane-state", "mountPath": "/var/lib/portlane"},
            {"name": "portlane-token", "mountPath": "/var/run/secrets/portlane", "readOnly": true},
        ],
    })
}

fn resources(tuning: &Tuning) -> Value {
    let mut resources = Map::new();
    for (name, amounts) in [("requests", &tuning.resources.requests), ("limits", &tuning.resources.limits)] {
        if !amounts.is_empty() {
            resources.insert(name.to_owned(), json!(amounts));
        }
    }
    Value::Object(resources)
}

/// A JSON patch (RFC 6902) under construction.
struct Patch(Vec<Value>);

impl Patch {
    /// Adds one entry to a map that may be absent.
    fn map(&mut self, map: &Value, path: &str, key: &str, value: &Value) {
        if map.is_object() {
            let key = key.replace('~', "~0").replace('/', "~1");
            self.0.push(json!({"op": "add", "path": format!("{path}/{key}"), "value": value}));
        } else {
            self.0.push(json!({"op": "add", "path": path, "value": {key: value}}));
        }
    }

    /// Adds entries to a map that may be absent.
    fn entries(&mut self, map: &Value, path: &str, added: &Map<String, Value>) {
        if map.is_object() {
            for (name, value) in added {
                self.map(map, path, name, value);
            }
        } else {
            self.0.push(json!({"op": "add", "path": path, "value": added}));
        }
    }

    /// Adds an item to a list that may be absent, at index `at` (`-` appends).
    fn list(&mut self, list: &Value, path: &str, at: &str, value: &Value) {
        if list.is_array() {
            self.0.push(json!({"op": "add", "path": format!("{path}/{at}"), "value": value}));
        } else {
            self.0.push(json!({"op": "add", "path": path, "value": [value]}));
        }
    }
}
