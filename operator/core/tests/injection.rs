//! Pods before and after the webhook. `UPDATE=1 cargo test -p portlane-operator-core --test injection` rewrites the
//! golden file.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{fs, path::Path};

use operator_core::{
    desired::{
        pods::Pods,
        sidecar::{Injection, Sidecar, inject},
        tuning::Resources,
    },
    names::PROBLEM,
};
use serde_json::{Value, json};

fn sidecar() -> Sidecar {
    Sidecar {
        image: "example.com/proxy:1".into(),
        pull_policy: "IfNotPresent".into(),
        operator: "portlane-operator.portlane.svc:9443".into(),
        roots: "ROOTS".into(),
        resources: Resources::default(),
        pods: Pods::default(),
        class: String::new(),
    }
}

/// The pod after the patch, and the warnings for the client that creates the pod.
fn injected(pod: &Value) -> (Value, Vec<String>) {
    injected_by(&sidecar(), pod)
}

fn injected_by(sidecar: &Sidecar, pod: &Value) -> (Value, Vec<String>) {
    let injection = inject(pod, sidecar);
    assert_ne!(injection, Injection::Carried, "the pod is not changed: {pod}");
    let patch: json_patch::Patch = serde_json::from_value(json!(injection.patch())).expect("a patch");
    let mut after = pod.clone();
    json_patch::patch(&mut after, &patch).expect("the patch fits");
    (after, injection.warnings().to_vec())
}

fn plain() -> Value {
    json!({"metadata": {}, "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]}})
}

fn full() -> Value {
    json!({
        "metadata": {
            "labels": {"app": "shop"},
            "annotations": {"portlane.dev/proxy-memory-limit": "1Gi", "portlane.dev/proxy-log-level": "loud"},
        },
        "spec": {
            "serviceAccountName": "shop",
            "securityContext": {"runAsUser": 1000, "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]},
            "initContainers": [{"name": "migrate", "image": "app"}],
            "containers": [{"name": "app", "image": "app"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

#[test]
fn pods_get_what_the_golden_file_says() {
    let all: Vec<Value> = [plain(), full()].iter().map(|pod| injected(pod).0).collect();
    let all: Vec<String> = all.iter().map(|pod| serde_yaml::to_string(pod).expect("YAML")).collect();
    let text = all.join("---\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injection.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).expect("written");
    }
    assert_eq!(
        text,
        fs::read_to_string(&path).expect("UPDATE=1 writes the golden file"),
        "UPDATE=1 rewrites the golden file"
    );
}

#[test]
fn what_was_injected_is_left_as_it_is() {
    for pod in [plain(), full()] {
        let (once, _) = injected(&pod);
        assert_eq!(inject(&once, &sidecar()), Injection::Carried);
    }
}

#[test]
fn a_pod_gets_the_pull_secrets_that_it_does_not_name() {
    let pods = Pods { pull_secrets: vec!["mirror".into(), "hub".into()], ..Pods::default() };
    let sidecar = Sidecar { pods, ..sidecar() };
    let secrets = |pod: &Value| injected_by(&sidecar, pod).0["spec"]["imagePullSecrets"].clone();
    assert_eq!(secrets(&plain()), json!([{"name": "mirror"}, {"name": "hub"}]));
    let mut pod = plain();
    pod["spec"]["imagePullSecrets"] = json!([{"name": "own"}, {"name": "hub"}]);
    assert_eq!(secrets(&pod), json!([{"name": "own"}, {"name": "hub"}, {"name": "mirror"}]));
    assert_eq!(injected(&plain()).0["spec"].get("imagePullSecrets"), None);
}

#[test]
fn a_cluster_that_chooses_ids_finds_none_in_the_proxy() {
    let sidecar = Sidecar { pods: Pods { cluster_ids: true, ..Pods::default() }, ..sidecar() };
    let context = injected_by(&sidecar, &plain()).0["spec"]["initContainers"][0]["securityContext"].clone();
    assert_eq!(context["runAsNonRoot"], true);
    assert!(["runAsUser", "runAsGroup"].iter().all(|id| context.get(id).is_none()), "{context}");
}

#[test]
fn a_pod_that_cannot_have_a_proxy_gets_nothing_but_the_reason() {
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}]});
    let on_windows =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
    let cases = [
        ("/spec/hostNetwork", json!(true), "hostNetwork"),
        ("/spec/serviceAccountName", json!(""), "ServiceAccount"),
        ("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"}), "Windows"),
        ("/spec/os", json!({"name": "windows"}), "Windows"),
        ("/spec/affinity", on_windows, "Windows"),
        ("/spec/containers", json!([{"name": "portlane-proxy", "image": "mine"}]), "container of its own"),
        ("/spec/initContainers", json!([{"name": "portlane-proxy", "image": "mine"}]), "container of its own"),
        ("/spec/volumes", json!([{"name": "portlane-token", "emptyDir": {}}]), "volume of its own"),
    ];
    for (path, value, word) in cases {
        let mut pod = plain();
        let patch = json!([{"op": "add", "path": path, "value": value}]);
        json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(patch).expect("a patch"))
            .expect("the patch fits");
        assert!(matches!(inject(&pod, &sidecar()), Injection::Refused(..)), "{word}");
        let (after, warnings) = injected(&pod);
        assert!(warnings.len() == 1 && warnings[0].contains(word), "{warnings:?}");
        assert_eq!(after["metadata"]["annotations"], json!({PROBLEM: warnings[0]}));
        assert_eq!(after["spec"], pod["spec"], "the spec of the pod is unchanged");
    }
}

#[test]
fn invalid_annotations_are_reported_in_the_pod_and_to_its_creator() {
    let (after, warnings) = injected(&full());
    assert_eq!(after["metadata"]["annotations"][PROBLEM], warnings[0]);
    assert_eq!(after["spec"]["initContainers"][0]["resources"]["limits"]["memory"], "1Gi");
    let mut huge = full();
    huge["metadata"]["annotations"]["portlane.dev/proxy-log-level"] = json!("x".repeat(200_000));
    huge["metadata"]["annotations"]["portlane.dev/proxy-cpu-request"] = json!(format!("{}2", "0".repeat(1000)));
    huge["metadata"]["annotations"]["portlane.dev/proxy-cpu-limit"] = json!("1");
    let (_, warnings) = injected(&huge);
    assert_eq!(warnings.len(), 2);
    assert!(warnings.iter().all(|it| it.len() < 250), "a warning is short enough for API servers to pass on");
}

#[test]
fn the_proxy_respects_the_ports_and_resources_of_its_pod() {
    let mut pod = plain();
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 9180}]);
    pod["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
    let proxy = injected(&pod).0["spec"]["initContainers"][0].clone();
    let variables = proxy["env"].as_array().expect("variables");
    let is = |name: &str| variables.iter().find(|it| it["name"] == name).map(|it| it["value"].clone());
    assert_eq!(is("PORTLANE_HEALTH_ADDRESS"), Some(json!("none")), "the app uses that port");
    assert_eq!(proxy["ports"], json!([]), "a monitor would scrape the app");
    assert_eq!(is("PORTLANE_ADMIN_ADDRESS"), Some(json!("none")));
    assert_eq!(proxy["resources"], json!({}), "the proxy shares spec.resources of the pod");
    pod["metadata"]["annotations"] = json!({"portlane.dev/proxy-cpu-limit": "2"});
    let (_, warnings) = injected(&pod);
    assert!(warnings.len() == 1 && warnings[0].contains("spec.resources"), "{warnings:?}");
}

#[test]
fn a_pod_lists_the_ports_of_its_app() {
    let mut pod = plain();
    pod["metadata"]["annotations"] = json!({
        "portlane.dev/app-ports": "9999/UDP,no",
        "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "cache",
    });
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8000}, {"containerPort": 53, "protocol": "UDP"}]);
    let (after, warnings) = injected(&pod);
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations["portlane.dev/app-ports"], "8000/TCP,53/UDP,9999/UDP");
    assert_eq!(
        annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"], "cache,portlane-state",
        "the state volume does not keep a node from being removed"
    );
    assert!(warnings.len() == 1 && warnings[0].contains("'no'"), "{warnings:?}");

    // Ports of a container that is added later count too, and ports that the annotation excludes stay excluded.
    pod["metadata"]["annotations"] = json!({"portlane.dev/app-ports": "-8000/TCP"});
    let (mut once, _) = injected(&pod);
    assert_eq!(once["metadata"]["annotations"]["portlane.dev/app-ports"], "53/UDP,-8000/TCP");
    assert_eq!(inject(&once, &sidecar()), Injection::Carried);
    let more = json!({"name": "more", "ports": [{"containerPort": 7000}]});
    once["spec"]["containers"].as_array_mut().expect("containers").push(more);
    assert!(matches!(inject(&once, &sidecar()), Injection::Relisted(_)), "the pod has its proxy already");
    let (twice, _) = injected(&once);
    assert_eq!(twice["metadata"]["annotations"]["portlane.dev/app-ports"], "7000/TCP,53/UDP,-8000/TCP");
    assert_eq!(twice["spec"], once["spec"]);
}
