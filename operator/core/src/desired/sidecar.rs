//! What a pod gets so that it carries a proxy. Pure: the same pod and settings give the same patch.

use proxy_api::Transport;
use serde_json::{Map, Value, json};

use crate::{
    desired::tuning::{Resources, Tuning, tuning},
    names::{APP_PORTS, CONTAINER, HEALTH_PORT, PROBLEM, PROXY_LABEL},
    world::app_ports::{AppPorts, declared, said, written},
};

/// Seconds for which a port of the app is left alone after the app let it go: time for kubelet to restart the app.
const YIELD_SECONDS: u32 = 60;
/// File of the proxy's socket.
const SOCKET: &str = "/var/lib/portlane/proxy.sock";
/// Label of a node with its operating system.
const OS: &str = "kubernetes.io/os";
/// Seconds that the probe of the proxy itself may take.
const PROBE_SECONDS: u32 = 2;
/// Annotation that names local volumes which are no reason to keep a pod on its node (cluster-autoscaler).
const EVICTABLE: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// Names of the volumes: the first one is on the node's disk.
const VOLUMES: [&str; 2] = ["portlane-state", "portlane-token"];
/// The sysctl that lets a proxy without capabilities have ports below 1024.
const LOW_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// What is the same for all sidecars of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// Image of the proxy.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// `HOST:PORT` of the operator.
    pub operator: String,
    /// Roots to trust, PEM.
    pub roots: String,
    /// What it is given, if annotations say nothing else.
    pub resources: Resources,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// It carries a proxy already.
    Carried,
    /// It is changed like this (JSON patch), and whoever makes it is told this.
    Changed(Vec<Value>, Vec<String>),
}

/// Gives a pod a proxy. A pod that cannot have one is started without, and says why in an annotation.
#[must_use]
pub fn inject(pod: &Value, sidecar: &Sidecar) -> Injection {
    let spec = &pod["spec"];
    if let Some(container) = containers(spec).find(|container| container["name"] == CONTAINER) {
        if is_ours(container) {
            return carried(pod);
        }
        return refused(pod, &format!("the pod has a container of its own that is called {CONTAINER}: rename it"));
    }
    if spec["hostNetwork"] == true {
        return refused(pod, "a pod with hostNetwork cannot carry a proxy: it would listen on the node");
    }
    if is_windows(spec) {
        return refused(pod, "a Windows pod cannot carry a proxy: it runs on Linux");
    }
    if spec["serviceAccountName"].as_str().is_none_or(str::is_empty) {
        return refused(pod, "the pod has no ServiceAccount, by whose token a proxy proves which pod it is of");
    }
    let mut volumes = spec["volumes"].as_array().into_iter().flatten();
    if let Some(name) = volumes.find_map(|volume| VOLUMES.iter().find(|name| volume["name"] == **name)) {
        return refused(pod, &format!("the pod has a volume of its own that is called {name}: rename it"));
    }
    let annotations = &pod["metadata"]["annotations"];
    let (tuning, mut problems) = tuning(annotations, &sidecar.resources);
    let (app_ports, free) = app_ports(pod, &mut problems);
    if spec["resources"].is_object() && tuning.resources != sidecar.resources {
        problems
            .push("the pod has spec.resources as a whole: annotations with amounts for its proxy are left out".into());
    }
    let mut patch = Patch(Vec::new());
    patch.map(&pod["metadata"]["labels"], "/metadata/labels", PROXY_LABEL, &json!("sidecar"));
    patch.annotations(annotations, &told(annotations, &written(&app_ports, &free), &problems));
    patch.list(
        &spec["volumes"],
        "/spec/volumes",
        "-",
        &json!({"name": "portlane-state", "emptyDir": {"sizeLimit": "64Mi"}}),
    );
    let token =
        json!({"serviceAccountToken": {"audience": proxy_api::AUDIENCE, "expirationSeconds": 3600, "path": "token"}});
    patch.0.push(json!({
        "op": "add", "path": "/spec/volumes/-",
        "value": {"name": "portlane-token", "projected": {"sources": [token]}},
    }));
    // First of all, so that other containers that run before the app have its doors too.
    patch.list(&spec["initContainers"], "/spec/initContainers", "0", &container(sidecar, &tuning, spec, &app_ports));
    low_ports(spec, &mut patch);
    Injection::Changed(patch.0, problems)
}

/// What the pod is to say of itself.
fn told(annotations: &Value, app_ports: &str, problems: &[String]) -> Map<String, Value> {
    let mut told = Map::new();
    if !problems.is_empty() {
        told.insert(PROBLEM.to_owned(), json!(problems.join("; ")));
    }
    if !app_ports.is_empty() {
        told.insert(APP_PORTS.to_owned(), json!(app_ports));
    }
    // Its volume holds what can be had again: it is no reason to keep a node.
    let mut volumes: Vec<&str> =
        annotations[EVICTABLE].as_str().unwrap_or_default().split(',').map(str::trim).collect();
    volumes.retain(|volume| !volume.is_empty() && *volume != VOLUMES[0]);
    volumes.push(VOLUMES[0]);
    told.insert(EVICTABLE.to_owned(), json!(volumes.join(",")));
    told
}

/// One that carries a proxy. Others may have given it further containers since.
fn carried(pod: &Value) -> Injection {
    let (ports, free) = app_ports(pod, &mut Vec::new());
    let annotations = &pod["metadata"]["annotations"];
    let said = said(annotations[APP_PORTS].as_str().unwrap_or_default());
    if said.ports == ports {
        return Injection::Carried;
    }
    let mut patch = Patch(Vec::new());
    patch.map(annotations, "/metadata/annotations", APP_PORTS, &json!(written(&ports, &free)));
    Injection::Changed(patch.0, Vec::new())
}

/// The ports of the app: those that its containers declare, and those that it names by the annotation; and those that are not,
/// by the annotation.
fn app_ports(pod: &Value, problems: &mut Vec<String>) -> (AppPorts, AppPorts) {
    let said = said(pod["metadata"]["annotations"][APP_PORTS].as_str().unwrap_or_default());
    let (mut ports, wrong) = (said.ports, said.wrong);
    if !wrong.is_empty() {
        let wrong: String = wrong.join(",").chars().take(40).collect();
        problems.push(format!(
            "annotation {APP_PORTS} has '{wrong}', which are no ports such as 8000/TCP; they are left out"
        ));
    }
    let own = containers(&pod["spec"]).filter(|container| container["name"] != CONTAINER);
    ports.extend(declared(own).difference(&said.free));
    (ports, said.free)
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

/// Whether a pod says that it runs on Windows: by itself, by its node selector, or by every term of its node affinity.
fn is_windows(spec: &Value) -> bool {
    let terms =
        &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let asks = |term: &Value| {
        let mut wanted = term["matchExpressions"].as_array().into_iter().flatten();
        wanted.any(|it| it["key"] == OS && it["operator"] == "In" && it["values"] == json!(["windows"]))
    };
    spec["os"]["name"] == "windows"
        || spec["nodeSelector"][OS] == "windows"
        || terms.as_array().is_some_and(|terms| !terms.is_empty() && terms.iter().all(asks))
}

/// Whether a container is a proxy that follows an operator.
fn is_ours(container: &Value) -> bool {
    let variables = container["env"].as_array().into_iter().flatten();
    container["restartPolicy"] == "Always"
        && variables.into_iter().any(|variable| variable["name"] == "PORTLANE_OPERATOR")
}

fn refused(pod: &Value, why: &str) -> Injection {
    let mut patch = Patch(Vec::new());
    patch.map(&pod["metadata"]["annotations"], "/metadata/annotations", PROBLEM, &json!(why));
    Injection::Changed(patch.0, vec![why.to_owned()])
}

/// A pod that shares its network with nobody may open low ports; one that sets the sysctl itself knows better.
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
    let health = if tuning.health && !app_ports.contains(&(Transport::Tcp, HEALTH_PORT)) {
        format!("$(PORTLANE_POD_IP):{HEALTH_PORT}")
    } else {
        "none".to_owned()
    };
    // With amounts for the pod as a whole, those of containers must fit in: without any of its own it does.
    let resources = if spec["resources"].is_object() { json!({}) } else { resources(tuning) };
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let ip = json!({"name": "PORTLANE_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}});
    let probe = |what: &str| json!({"command": ["/portlane-proxy", "probe", what, "--socket", SOCKET]});
    json!({
        "name": CONTAINER,
        "image": tuning.image.as_deref().unwrap_or(&sidecar.image),
        "imagePullPolicy": sidecar.pull_policy,
        "restartPolicy": "Always",
        "env": [
            ip,
            variable("PORTLANE_OPERATOR", &sidecar.operator),
            variable("PORTLANE_ROOTS", &sidecar.roots),
            variable("PORTLANE_HEALTH_ADDRESS", &health),
            // The socket serves the same, and collides with nothing.
            variable("PORTLANE_ADMIN_ADDRESS", "none"),
            variable("PORTLANE_SOCKET", SOCKET),
            variable("PORTLANE_MAY_LACK_ADDRESSES", "true"),
            variable("PORTLANE_STARTUP_SECONDS", &tuning.startup_seconds.to_string()),
            variable("PORTLANE_YIELD_SECONDS", &YIELD_SECONDS.to_string()),
            variable("PORTLANE_LOG_LEVEL", &tuning.log_level),
            // It is told to end after the app has: there is nobody left whose sessions could end by themselves.
            variable("PORTLANE_DRAIN_SECONDS", "0"),
        ],
        // It passes once the first configuration is applied, or was waited for long enough.
        "startupProbe": {
            "exec": probe("startup"),
            "periodSeconds": 1,
            "timeoutSeconds": PROBE_SECONDS,
            "failureThreshold": tuning.startup_seconds + 20,
        },
        "livenessProbe": {"exec": probe("live"), "periodSeconds": 10, "timeoutSeconds": PROBE_SECONDS, "failureThreshold": 3},
        "resources": resources,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
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

/// A JSON patch (RFC 6902) in the making.
struct Patch(Vec<Value>);

impl Patch {
    /// Adds to a map that may not be there.
    fn map(&mut self, map: &Value, path: &str, key: &str, value: &Value) {
        if map.is_object() {
            let key = key.replace('~', "~0").replace('/', "~1");
            self.0.push(json!({"op": "add", "path": format!("{path}/{key}"), "value": value}));
        } else {
            self.0.push(json!({"op": "add", "path": path, "value": {key: value}}));
        }
    }

    /// Adds annotations, which may not be there.
    fn annotations(&mut self, there: &Value, added: &Map<String, Value>) {
        if there.is_object() {
            for (name, value) in added {
                self.map(there, "/metadata/annotations", name, value);
            }
        } else {
            self.0.push(json!({"op": "add", "path": "/metadata/annotations", "value": added}));
        }
    }

    /// Adds to a list that may not be there, at this place.
    fn list(&mut self, list: &Value, path: &str, at: &str, value: &Value) {
        if list.is_array() {
            self.0.push(json!({"op": "add", "path": format!("{path}/{at}"), "value": value}));
        } else {
            self.0.push(json!({"op": "add", "path": path, "value": [value]}));
        }
    }
}
