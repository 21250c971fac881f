//! What a person sees: `kubectl get`, `describe`, `explain`, `wait`, `diff`.

use std::thread;

use harness::{ControlPlane, Namespace};
use regex::Regex;
use serde_json::Value;

use crate::FORWARD;

on_both!(
    get_shows_the_state_in_one_line,
    a_new_object_is_listed_before_it_has_a_status,
    describe_shows_spec_and_conditions,
    explain_describes_every_field,
    wait_ends_when_the_condition_does,
    diff_shows_what_would_change_and_nothing_else,
    an_example_that_is_applied_twice_changes_nothing,
);

fn set_status(namespace: &Namespace<'_>, resource: &str, ready: &str, more: &str) {
    let condition = format!(
        r#"{{"type": "Ready", "status": "{ready}", "reason": "Programmed", "message": "all proxies run it", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}}"#
    );
    let body = format!(r#"{{"status": {{"conditions": [{condition}]{more}}}}}"#);
    namespace.kubectl(&["patch", resource, "--type=merge", "--subresource=status", "--patch", &body]).ok();
}

const STATUS: &str = r#", "observedGeneration": 1, "ports": "5432/TCP", "to": "svc/pg:5432", "placement": "sidecar",
    "addresses": [{"type": "IPAddress", "value": "192.0.2.7"}],
    "dataPlane": {"acked": 3, "total": 3, "rejectedCount": 0, "summary": "3/3"}"#;

/// Words of a table's lines; ages are seconds old.
fn table(text: &str) -> Vec<String> {
    let age = Regex::new(r"\b\d+s\b").unwrap();
    text.lines()
        .map(|line| age.replace(&line.split_whitespace().collect::<Vec<_>>().join(" "), "AGE").into_owned())
        .collect()
}

fn get_shows_the_state_in_one_line(server: &ControlPlane) {
    let namespace = server.namespace("get");
    namespace.apply(FORWARD);
    namespace.apply("{apiVersion: portlane.dev/v1alpha1, kind: ForwardGateway, metadata: {name: edge}, spec: {}}");
    set_status(&namespace, "portforward/db", "True", STATUS);
    set_status(&namespace, "fgw/edge", "True", r#", "attachedForwards": 4, "replicas": 2"#);
    let get = |arguments: &[&str]| table(&namespace.kubectl(&[&["get"], arguments].concat()).ok());
    let narrow = ["NAME READY REASON PROXIES PORTS TO AGE", "db True Programmed 3/3 5432/TCP svc/pg:5432 AGE"];
    assert_eq!(get(&["pf"]), narrow);
    assert_eq!(get(&["portforwards"]), narrow);
    assert_eq!(
        get(&["pf", "--output=wide"]),
        [
            "NAME READY REASON PROXIES PORTS TO AGE PLACEMENT ADDRESS CLASS MESSAGE",
            "db True Programmed 3/3 5432/TCP svc/pg:5432 AGE sidecar 192.0.2.7 all proxies run it"
        ]
    );
    assert_eq!(get(&["fgw"]), ["NAME READY REASON REPLICAS FORWARDS AGE", "edge True Programmed 2 4 AGE"]);
    let names = get(&["portlane", "--output=name"]);
    assert_eq!(names, ["forwardgateway.portlane.dev/edge", "portforward.portlane.dev/db"]);
}

fn a_new_object_is_listed_before_it_has_a_status(server: &ControlPlane) {
    let namespace = server.namespace("get-new");
    namespace.apply(FORWARD);
    let lines = table(&namespace.kubectl(&["get", "pf"]).ok());
    assert_eq!(lines[1], "db AGE", "empty columns without an error");
}

fn describe_shows_spec_and_conditions(server: &ControlPlane) {
    let namespace = server.namespace("describe");
    namespace.apply(FORWARD);
    set_status(&namespace, "pf/db", "False", STATUS);
    let text = table(&namespace.kubectl(&["describe", "pf", "db"]).ok()).join("\n");
    for line in [
        "Kind: PortForward",
        "Port: 5432",
        "Match Labels:",
        "Message: all proxies run it",
        "Reason: Programmed",
        "Status: False",
        "Summary: 3/3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
}

fn explain_describes_every_field(server: &ControlPlane) {
    let explain = |field: &str| {
        let text = server.kubectl(&["explain", field]).ok();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = explain("pf.spec.listeners.port");
    assert!(text.contains("FIELD: port <integer>") && text.contains("Absent, on a gateway only"), "{text}");
    let text = explain("pf.spec.sessions.onUpdate");
    assert!(text.contains("ENUM:") && text.contains("Drain"), "{text}");
    for crd in crds::crds().expect("CRDs") {
        let schema = &crd.document["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut silent = Vec::new();
        without_description(schema, "", &mut silent);
        assert_eq!(silent, [""; 0], "fields without a description in explain");
        let plural = crd.document["spec"]["names"]["plural"].as_str().expect("plural");
        let tree = server.kubectl(&["explain", plural, "--recursive"]).ok();
        assert!(tree.contains("spec") && tree.contains("-required-"), "{tree}");
    }
}

fn without_description(schema: &Value, path: &str, silent: &mut Vec<String>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if below["description"].as_str().is_none_or(str::is_empty) {
            silent.push(path.clone());
        }
        without_description(below, &path, silent);
        without_description(&below["items"], &path, silent);
    }
}

fn wait_ends_when_the_condition_does(server: &ControlPlane) {
    let namespace = server.namespace("wait");
    namespace.apply(FORWARD);
    let wait = |limit: &str| namespace.kubectl(&["wait", "--for=condition=Ready", "pf/db", "--timeout", limit]);
    let late = wait("1s").refused();
    assert!(late.contains("timed out"), "{late}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait("30s"));
        set_status(&namespace, "pf/db", "False", "");
        set_status(&namespace, "pf/db", "True", STATUS);
        let output = waiting.join().expect("no panic").ok();
        assert_eq!(output.trim(), "portforward.portlane.dev/db condition met");
    });
}

fn diff_shows_what_would_change_and_nothing_else(server: &ControlPlane) {
    let namespace = server.namespace("diff");
    namespace.apply(FORWARD);
    let diff = |text: &str| namespace.kubectl_with(&["diff", "-f", "-"], text);
    assert_eq!(diff(FORWARD).ok(), "");
    let output = diff(&FORWARD.replace("port: 5432\n", "port: 6432\n"));
    assert!(!output.success);
    let changed = |sign: char| {
        let lines = output
            .stdout
            .lines()
            .filter(|line| line.starts_with(sign) && !line.starts_with(&sign.to_string().repeat(3)));
        lines.map(|line| line[1..].trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(changed('-'), ["generation: 1", "port: 5432"], "{}", output.stdout);
    assert_eq!(changed('+'), ["generation: 2", "port: 6432"], "{}", output.stdout);
}

fn an_example_that_is_applied_twice_changes_nothing(server: &ControlPlane) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let examples = std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("entry").path());
    // An example that names a namespace is applied to this one.
    let own = Regex::new(r"namespace: [a-z]+").expect("a pattern");
    let mut seen = 0;
    for path in examples.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let path = path.to_str().expect("a name");
        for way in [&["--server-side=false"][..], &["--server-side"]] {
            let namespace = server.namespace("twice");
            let manifests = std::fs::read_to_string(path).expect("an example");
            let manifests = own.replace_all(&manifests, format!("namespace: {}", namespace.name()));
            let apply = || namespace.kubectl_with(&[&["apply", "-f", "-"], way].concat(), &manifests).ok();
            let versions = || {
                let versions = "{range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
                let output = format!("--output=jsonpath={versions}");
                namespace.kubectl_with(&["get", "-f", "-", &output], &manifests).ok()
            };
            apply();
            let first = versions();
            apply();
            assert_eq!(versions(), first, "{path} {way:?}");
        }
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} examples found");
}
