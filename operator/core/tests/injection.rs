//! Pods before and after the webhook; `UPDATE=1 cargo test -p portlane-operator-core --test injection` writes the golden file anew.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::{fs, path::Path};

use operator_core::{
    desired::{
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
    }
}

/// A pod as it is after the patch, and what its maker is told.
fn injected(pod: &Value) -> (Value, Vec<String>) {
    let Injection::Changed(patch, told) = inject(pod, &sidecar()) else { panic!("it is changed: {pod}") };
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch)).expect("a patch");
    let mut after = pod.clone();
    json_patch::patch(&mut after, &patch).expect("it fits");
    (after, told)
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
    assert_eq!(text, fs::read_to_string(&path).expect("UPDATE=1 writes it"), "UPDATE=1 writes it anew");
}

#[test]
fn what_was_injected_is_left_as_it_is() {
    for pod in [plain(), full()] {
        let (once, _) = injected(&pod);
        assert_eq!(inject(&once, &sidecar()), Injection::Carried);
    }
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
            .expect("it fits");
        let (after, told) = injected(&pod);
        assert!(told.len() == 1 && told[0].contains(word), "{told:?}");
        assert_eq!(after["metadata"]["annotations"], json!({PROBLEM: told[0]}));
        assert_eq!(after["spec"], pod["spec"], "its spec is its own");
    }
}

#[test]
fn annotations_that_cannot_be_followed_are_told_in_the_pod_and_to_its_maker() {
    let (after, told) = injected(&full());
    assert_eq!(after["metadata"]["annotations"][PROBLEM], told[0]);
    assert_eq!(after["spec"]["initContainers"][0]["resources"]["limits"]["memory"], "1Gi");
    let mut huge = full();
    huge["metadata"]["annotations"]["portlane.dev/proxy-log-level"] = json!("x".repeat(200_000));
    let (_, told) = injected(&huge);
    assert!(told[0].len() < 250, "an answer is no longer than API servers pass on");
}

#[test]
fn the_ports_and_amounts_of_a_pod_are_its_own() {
    let mut pod = plain();
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 9180}]);
    pod["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
    let proxy = injected(&pod).0["spec"]["initContainers"][0].clone();
    let variables = proxy["env"].as_array().expect("variables");
    let is = |name: &str| variables.iter().find(|it| it["name"] == name).map(|it| it["value"].clone());
    assert_eq!(is("PORTLANE_HEALTH_ADDRESS"), Some(json!("none")), "the app has that port");
    assert_eq!(is("PORTLANE_ADMIN_ADDRESS"), Some(json!("none")));
    assert_eq!(proxy["resources"], json!({}), "what the pod has as a whole is shared");
    pod["metadata"]["annotations"] = json!({"portlane.dev/proxy-cpu-limit": "2"});
    let (_, told) = injected(&pod);
    assert!(told.len() == 1 && told[0].contains("spec.resources"), "{told:?}");
}

#[test]
fn a_pod_says_which_ports_are_its_apps() {
    let mut pod = plain();
    pod["metadata"]["annotations"] = json!({"portlane.dev/app-ports": "9999/UDP,no", "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "cache"});
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8000}, {"containerPort": 53, "protocol": "UDP"}]);
    let (after, told) = injected(&pod);
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations["portlane.dev/app-ports"], "8000/TCP,53/UDP,9999/UDP");
    assert_eq!(
        annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"], "cache,portlane-state",
        "the state is no reason to keep a node"
    );
    assert!(told.len() == 1 && told[0].contains("'no'"), "{told:?}");

    // A container that comes after it is not forgotten, nor what the template says of a port.
    pod["metadata"]["annotations"] = json!({"portlane.dev/app-ports": "-8000/TCP"});
    let (mut once, _) = injected(&pod);
    assert_eq!(once["metadata"]["annotations"]["portlane.dev/app-ports"], "53/UDP,-8000/TCP");
    assert_eq!(inject(&once, &sidecar()), Injection::Carried);
    let more = json!({"name": "more", "ports": [{"containerPort": 7000}]});
    once["spec"]["containers"].as_array_mut().expect("containers").push(more);
    let (twice, _) = injected(&once);
    assert_eq!(twice["metadata"]["annotations"]["portlane.dev/app-ports"], "7000/TCP,53/UDP,-8000/TCP");
    assert_eq!(twice["spec"], once["spec"]);
}
