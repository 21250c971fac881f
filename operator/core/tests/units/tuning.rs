//! What annotations and other contents of a pod change about its proxy.

use operator_core::{
    desired::{
        sidecar::{Injection, Sidecar, inject},
        tuning::Resources,
    },
    names::{APP_PORTS, PROBLEM},
    world::app_ports::read as read_ports,
};
use serde_json::{Value, json};

fn plain() -> Value {
    json!({"metadata": {}, "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]}})
}

/// A pod as it is after the patch, and the warnings for its creator.
fn injected(pod: &Value) -> (Value, Vec<String>) {
    let sidecar = Sidecar { image: "example.com/proxy:1".into(), ..Sidecar::default() };
    let injection = inject(pod, &sidecar);
    assert_ne!(injection, Injection::Carried, "it is changed: {pod}");
    let patch: json_patch::Patch = serde_json::from_value(json!(injection.patch())).expect("a patch");
    let mut after = pod.clone();
    json_patch::patch(&mut after, &patch).expect("it fits");
    (after, injection.warnings().to_vec())
}

/// The proxy of a pod with these annotations, and how many of them cannot be followed.
fn proxy(annotations: &Value) -> (Value, usize) {
    let mut pod = plain();
    pod["metadata"]["annotations"] = annotations.clone();
    let (after, warnings) = injected(&pod);
    (after["spec"]["initContainers"][0].clone(), warnings.len())
}

/// Whether one annotation can be followed.
fn is_followed(name: &str, value: &str) -> bool {
    proxy(&json!({name: value})).1 == 0
}

#[test]
fn an_app_waits_for_its_proxy_for_ten_minutes_at_most() {
    let (container, problems) = proxy(&json!({"portlane.dev/startup-seconds": "600"}));
    assert_eq!((&container["startupProbe"]["failureThreshold"], problems), (&json!(620), 0));
    assert!(is_followed("portlane.dev/startup-seconds", "0"));
    assert!(!is_followed("portlane.dev/startup-seconds", "601"));
    assert!(!is_followed("portlane.dev/startup-seconds", "soon"));
}

#[test]
fn a_log_level_is_one_of_three() {
    for level in ["info", "warn", "error"] {
        assert!(is_followed("portlane.dev/proxy-log-level", level));
    }
    assert!(!is_followed("portlane.dev/proxy-log-level", "debug"));
}

#[test]
fn the_name_of_an_image_is_one_that_a_runtime_takes() {
    let followed = |image: &str| is_followed("portlane.dev/proxy-image", image);
    let tag = |length: usize| format!("proxy:{}", "a".repeat(length));
    assert!(followed(&tag(128)) && !followed(&tag(129)));
    let long = |length: usize| "a".repeat(length);
    assert!(followed(&long(255)) && !followed(&long(256)));
    for good in ["a.b/c", "localhost/c", "host:5000/c", "Host.local/c", "team/c", "a_b/c", "c:T_1.x-y", "0/9"] {
        assert!(followed(good), "{good}");
    }
    for bad in
        ["Team/c", "a.b/C", ".a/c", "a./c", "c:", "c:-a", "c:a-", "c:a+b", "a b/c", "a_b.c/d", "a.b//c", "c@md5:1"]
    {
        assert!(!followed(bad), "{bad}");
    }
    let digest = |letter: char, length: usize| format!("c@sha256:{}", letter.to_string().repeat(length));
    assert!(followed(&digest('f', 64)) && followed(&digest('0', 64)));
    assert!(!followed(&digest('g', 64)) && !followed(&digest('A', 64)) && !followed(&digest('a', 63)));
    let (container, _) = proxy(&json!({"portlane.dev/proxy-image": "team/c:1"}));
    assert_eq!(container["image"], "team/c:1");
}

#[test]
fn a_proxy_whose_health_is_disabled_has_no_port() {
    let health = |value: &str| {
        let (container, problems) = proxy(&json!({"portlane.dev/proxy-health": value}));
        let variables = container["env"].as_array().expect("variables").clone();
        let found = variables.into_iter().find(|variable| variable["name"] == "PORTLANE_HEALTH_ADDRESS");
        (found.expect("there")["value"] == "none", problems)
    };
    assert_eq!((health("disabled"), health("enabled"), health("maybe")), ((true, 0), (false, 0), (false, 1)));
}

#[test]
fn limits_that_a_proxy_starts_with_are_followed() {
    let followed = |name: &str, value: &str| is_followed(&format!("portlane.dev/proxy-{name}"), value);
    assert!(followed("cpu-limit", "50m") && !followed("cpu-limit", "49m"));
    assert!(followed("memory-limit", "16Mi") && !followed("memory-limit", "16777215"));
    assert!(followed("cpu-request", "1m") && followed("memory-request", "1"), "requests may be small");
    assert!(!followed("memory-request", "64000m"), "a thousandth of a byte is a slip");
    let long = format!("0.{}1", "0".repeat(29));
    assert!(followed("cpu-request", &long) && !followed("cpu-request", &format!("{long}0")));
}

#[test]
fn a_request_may_be_as_large_as_its_limit_and_no_larger() {
    let both = |request: &str, limit: &str| {
        let annotations = json!({"portlane.dev/proxy-cpu-request": request, "portlane.dev/proxy-cpu-limit": limit});
        let (container, problems) = proxy(&annotations);
        let amount = |kind: &str| container["resources"][kind]["cpu"].as_str().unwrap_or_default().to_owned();
        (amount("requests"), amount("limits"), problems)
    };
    let amounts = |request: &str, limit: &str, problems: usize| (request.to_owned(), limit.to_owned(), problems);
    assert_eq!(both("2", "2"), amounts("2", "2", 0));
    assert_eq!(both("2001m", "2"), amounts("10m", "1", 1));
    assert_eq!(both("500m", "2"), amounts("500m", "2", 0));
}

#[test]
fn an_amount_that_was_given_moves_the_other_one_as_far_as_it_must() {
    let amounts = |name: &str, value: &str| {
        let name = format!("portlane.dev/proxy-{name}");
        let (container, _) = proxy(&json!({name: value}));
        let amount = |kind: &str| container["resources"][kind]["memory"].as_str().unwrap_or_default().to_owned();
        (amount("requests"), amount("limits"))
    };
    let pair = |request: &str, limit: &str| (request.to_owned(), limit.to_owned());
    assert_eq!(amounts("memory-request", "256Mi"), pair("256Mi", "256Mi"), "as much as may be used");
    assert_eq!(amounts("memory-request", "300Mi"), pair("300Mi", "300Mi"));
    assert_eq!(amounts("memory-limit", "16Mi"), pair("16Mi", "16Mi"));
    assert_eq!(amounts("memory-limit", "32Mi"), pair("16Mi", "32Mi"));
}

fn read(request: &str, limit: &str) -> Result<Resources, String> {
    let text = json!({"requests": {"memory": request}, "limits": {"memory": limit}}).to_string();
    text.parse::<Resources>().map_err(|error| error.to_string())
}

#[test]
fn every_unit_of_a_quantity_is_known() {
    let ascending =
        ["16777216", "17000k", "17000Ki", "18M", "18Mi", "1G", "1Gi", "1T", "1Ti", "1P", "1Pi", "1E", "1Ei"];
    for (at, limit) in ascending.iter().enumerate() {
        assert!(read(limit, limit).is_ok(), "{limit}");
        for less in &ascending[..at] {
            assert!(read(less, limit).is_ok() && read(limit, less).is_err(), "{less} is less than {limit}");
        }
    }
    for (less, more) in [("999999k", "1G"), ("999G", "1T"), ("999T", "1P"), ("999P", "1E"), ("1023Mi", "1Gi")] {
        assert!(read(less, more).is_ok() && read(more, less).is_err(), "{less} is less than {more}");
    }
    for bad in ["", "1.2.3", "Mi", "1e9", "1Mib", "-1", "100000m"] {
        assert!(read("1", bad).is_err(), "{bad}");
    }
}

#[test]
fn milli_cpus_are_thousandths() {
    let read = |request: &str, limit: &str| {
        let text = json!({"requests": {"cpu": request}, "limits": {"cpu": limit}}).to_string();
        text.parse::<Resources>().is_ok()
    };
    assert!(read("1000m", "1") && read("1", "1000m") && !read("1001m", "1") && !read("1", "999m"));
    assert!(read("1m", "50m") && !read("1m", "49m"));
    let other = r#"{"limits": {"example.com/device": "0"}}"#;
    assert!(other.parse::<Resources>().is_ok(), "what a proxy needs of other resources is not known");
}

#[test]
fn a_container_that_only_looks_like_a_proxy_is_a_container_of_its_own() {
    let pod = |container: Value| {
        let mut pod = plain();
        pod["spec"]["initContainers"] = json!([container]);
        pod
    };
    let env = json!([{"name": "PORTLANE_OPERATOR", "value": "x"}]);
    let ours = pod(json!({"name": "portlane-proxy", "restartPolicy": "Always", "env": env}));
    assert_eq!(inject(&ours, &Sidecar::default()), Injection::Carried);
    for container in [
        json!({"name": "portlane-proxy", "env": env}),
        json!({"name": "portlane-proxy", "restartPolicy": "Always"}),
        json!({"name": "portlane-proxy", "restartPolicy": "Always", "env": [{"name": "OTHER", "value": "x"}]}),
    ] {
        let (after, warnings) = injected(&pod(container));
        assert!(warnings.len() == 1 && warnings[0].contains("portlane-proxy"), "{warnings:?}");
        assert_eq!(after["metadata"]["annotations"][PROBLEM], warnings[0]);
    }
}

#[test]
fn a_pod_is_of_windows_if_every_term_of_its_affinity_says_so() {
    let is_refused = |terms: Value| {
        let mut pod = plain();
        let wanted = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        pod["spec"]["affinity"] = json!({"nodeAffinity": wanted});
        !injected(&pod).1.is_empty()
    };
    let term = |key: &str, operator: &str, values: &[&str]| {
        let wanted = json!({"key": key, "operator": operator, "values": values});
        json!({"matchExpressions": [wanted]})
    };
    let windows = term("kubernetes.io/os", "In", &["windows"]);
    assert!(is_refused(json!([windows])));
    assert!(!is_refused(json!([])));
    for other in [
        term("kubernetes.io/os", "NotIn", &["windows"]),
        term("kubernetes.io/os", "In", &["windows", "linux"]),
        term("example.com/os", "In", &["windows"]),
    ] {
        assert!(!is_refused(json!([other])), "{other}");
        assert!(!is_refused(json!([windows, other])), "one of the terms is enough");
    }
    let mut linux = plain();
    linux["spec"]["os"] = json!({"name": "linux"});
    linux["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "linux"});
    assert!(injected(&linux).1.is_empty());
}

#[test]
fn a_pod_that_sets_the_sysctl_for_low_ports_itself_knows_better() {
    let sysctls = |context: Value| {
        let mut pod = plain();
        pod["spec"]["securityContext"] = context;
        injected(&pod).0["spec"]["securityContext"]["sysctls"].clone()
    };
    let own = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]);
    assert_eq!(sysctls(json!({"sysctls": own})), own);
    let ours = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]);
    assert_eq!(sysctls(json!({"runAsUser": 1})), ours);
}

#[test]
fn volumes_that_are_no_reason_to_keep_a_node_are_named_once() {
    const NAME: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
    let of = |value: &str| {
        let mut pod = plain();
        pod["metadata"]["annotations"] = json!({NAME: value});
        injected(&pod).0["metadata"]["annotations"][NAME].clone()
    };
    assert_eq!(of("portlane-state, cache,"), "cache,portlane-state");
    assert_eq!(of(""), "portlane-state");
}

#[test]
fn a_proxy_without_amounts_has_no_resources() {
    let resources: Resources = r#"{"limits": {"cpu": "2"}}"#.parse().expect("resources");
    let sidecar = Sidecar { resources, ..Sidecar::default() };
    let injection = inject(&plain(), &sidecar);
    let container = injection.patch().iter().find(|step| step["path"] == "/spec/initContainers").expect("a container");
    assert_eq!(container["value"][0]["resources"], json!({"limits": {"cpu": "2"}}));
}

#[test]
fn ports_that_cannot_be_read_are_quoted_in_short() {
    let mut pod = plain();
    pod["metadata"]["annotations"] = json!({APP_PORTS: "x".repeat(100)});
    let (after, warnings) = injected(&pod);
    assert!(warnings[0].contains(&"x".repeat(40)) && !warnings[0].contains(&"x".repeat(41)), "{warnings:?}");
    assert_eq!(after["metadata"]["annotations"][APP_PORTS], "x".repeat(100), "it is the user's annotation");
}

#[test]
fn an_annotation_names_1024_ports_at_most() {
    let named = |count: u16| (1..=count).map(|port| format!("{port}/UDP")).collect::<Vec<_>>().join(",");
    assert_eq!((read_ports(&named(1024)).len(), read_ports(&named(1025)).len()), (1024, 1024));
    assert!(read_ports("0,65536,-80").is_empty());
}
