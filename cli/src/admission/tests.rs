//! Tests of the verdict on one document.

mod agents;
mod durable;
mod short_forms;

use super::*;
use crate::manifest::parse;

fn verdict(text: &str) -> Result<usize, Vec<String>> {
    let admission = Admission::new().expect("rules");
    let mut refused = Vec::new();
    let mut valid = 0;
    for document in parse("f", text).expect("parses") {
        match admission.admit("f", &document, "default") {
            Admitted::Object(_) => valid += 1,
            Admitted::Other(_) | Admitted::Namespace(..) => {}
            Admitted::Refused(problems) => refused.extend(problems.iter().map(ToString::to_string)),
        }
    }
    if refused.is_empty() { Ok(valid) } else { Err(refused) }
}

fn forward(spec: &str) -> String {
    format!("apiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {{name: a}}\nspec:\n{spec}")
}

const LISTENERS: &str =
    "  listeners:\n  - name: l\n    protocol: TCP\n    port: 1\n    backends: [{local: {port: 2}}]\n";
const SIDECAR: &str = "  placement: {sidecar: {selector: {}}}\n";

#[track_caller]
fn refused(text: &str, with: &str) {
    let problems = verdict(text).expect_err("refused");
    assert!(problems.iter().any(|problem| problem.contains(with)), "{with:?} is not in {problems:#?}");
}

/// The text has one problem.
#[track_caller]
fn refused_once(text: &str, with: &str) {
    let problems = verdict(text).expect_err("refused");
    assert!(problems.len() == 1 && problems[0].contains(with), "{with:?} alone is not in {problems:#?}");
}

#[test]
fn every_rule_of_the_crd_compiles() {
    for (name, kind) in Admission::new().expect("rules").kinds {
        let errors = kind.rules.compilation_errors();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

#[test]
fn a_valid_forward_is_admitted_and_other_kinds_are_passed_over() {
    let other = "---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\n";
    assert_eq!(verdict(&(forward(&format!("{SIDECAR}{LISTENERS}")) + other)), Ok(1));
}

#[test]
fn unknown_kinds_of_ours_are_refused() {
    refused("apiVersion: portlane.dev/v1alpha1\nkind: PortForwrad\n", "f:2: kind: unknown kind PortForwrad");
    refused("apiVersion: portlane.dev/v1\nkind: PortForward\n", "apiVersion: unknown version v1");
    refused("a: 1\n", "apiVersion and kind are required");
}

#[test]
fn shape_is_checked_with_file_line_object_and_field() {
    let text = forward(&format!("{SIDECAR}{LISTENERS}")).replace("port: 1\n", "port: 70000\n");
    refused(&text, "f:9: PortForward default/a: spec.listeners[0].port: must be at most 65535");
    refused(&text.replace("70000", "'x'"), "must be an integer, but is the string 'x'");
    refused(&text.replace("70000", "'7000'"), "must be an integer, but is the string '7000'; remove the quotes");
    refused(&text.replace("70000", "010.5"), "must be an integer");
    refused(&text.replace("port: 70000", "prot: 1"), "unknown field");
    let misspelt = verdict(&text.replace("protocol", "protokol").replace("70000", "1")).expect_err("refused");
    assert_eq!(misspelt.len(), 1, "one mistake, one message: {misspelt:?}");
    refused(&text.replace("TCP", "SCTP").replace("70000", "1"), "must be one of TCP, UDP");
    refused(
        &text.replace("name: l", "name: L_").replace("70000", "1"),
        "must have only lower case letters, digits and '-'",
    );
    refused(&text.replace("protocol: TCP", "protocol:").replace("70000", "1"), "protocol: is required");
}

#[test]
fn nulls_are_dropped_where_an_api_server_drops_them() {
    let text = forward(&format!("  suspend: ~\n  timeouts:\n{SIDECAR}{LISTENERS}"));
    assert_eq!(verdict(&text), Ok(1));
    refused(&text.replace("[{local: {port: 2}}]", "[~]"), "is null");
}

#[test]
fn a_misspelt_group_is_reported() {
    let text = forward(&format!("{SIDECAR}{LISTENERS}"));
    refused(&text.replace("portlane.dev", "portlan.dev"), "did you mean 'portlane.dev'?");
    assert_eq!(verdict(&text.replace("portlane.dev", "example.com")), Ok(0));
}

#[test]
fn a_kind_of_ours_without_a_group_is_reported() {
    let text = forward(&format!("{SIDECAR}{LISTENERS}"));
    for version in ["v1alpha1", "v1"] {
        let message = format!(
            "f:1: apiVersion: '{version}' of PortForward has no API group; did you mean 'portlane.dev/v1alpha1'?"
        );
        refused_once(&text.replace("portlane.dev/v1alpha1", version), &message);
    }
}

#[test]
fn a_list_that_cannot_be_read_is_refused_with_its_line() {
    let list = "apiVersion: v1\nkind: List\n";
    for (text, message) in [
        ("items: {a: b}\n", "f:3: List: items: must be a list"),
        ("items: a\n", "f:3: List: items: must be a list"),
        ("item: []\n", "f:3: List: item: unknown field; did you mean 'items'?"),
        ("metadata: {}\n", "f:1: List: items: is required"),
        (
            "items:\n- apiVersion: v1\n  kind: List\n  items: []\n",
            "f:4: List: must not be an item of a List; move its items into the outer List",
        ),
    ] {
        let documents = parse("f", &format!("{list}{text}")).expect("parses");
        let admission = Admission::new().expect("rules");
        let problems: Vec<String> = documents
            .into_iter()
            .flat_map(Document::items)
            .flat_map(|document| match admission.admit("f", &document, "default") {
                Admitted::Refused(problems) => problems,
                _ => Vec::new(),
            })
            .map(|problem| problem.to_string())
            .collect();
        assert_eq!(problems, [message], "{text}");
    }
}

#[test]
fn lists_are_bounded_and_their_keys_unique() {
    let item = "  - {name: l, protocol: TCP, port: 1, backends: [{local: {port: 2}}]}\n";
    refused(&forward(&format!("{SIDECAR}  listeners:\n{item}{item}")), "has the same name as an earlier item, 'l'");
    refused(&forward(&format!("{SIDECAR}  listeners: []\n")), "at least 1");
    refused(&forward(SIDECAR), "spec.listeners: is required");
}

#[test]
fn every_cel_rule_refuses_what_it_is_there_for() {
    let with = |from: &str, to: &str| forward(&format!("{SIDECAR}{LISTENERS}")).replace(from, to);
    refused(
        &with("{sidecar: {selector: {}}}", "{sidecar: {selector: {}}, gateway: {name: x}}"),
        "exactly one of sidecar",
    );
    refused(&with("{sidecar: {selector: {}}}", "{}"), "exactly one of sidecar");
    refused(&with("    port: 1\n", ""), "required in a sidecar");
    refused(&with("{sidecar: {selector: {}}}", "{gateway: {name: x}}"), "needs placement.sidecar");
    refused(&with("{local: {port: 2}}", "{local: {port: 2}, address: {host: a, port: 1}}"), "exactly one of service");
    refused(&with("{local: {port: 2}}", "{address: {host: 'a b', port: 1}}"), "IP address or a DNS name");
    refused(
        &with(
            "  listeners:\n",
            "  listeners:\n  - {name: m, protocol: TCP, port: 1, backends: [{local: {port: 2}}]}\n",
        ),
        "same protocol and port",
    );
    refused(
        &with("  listeners:\n", "  retry: {initialBackoffMillis: 9, maxBackoffMillis: 8}\n  listeners:\n"),
        "greater than maxBackoffMillis",
    );
    refused(&with("name: a}", &format!("name: {}}}", "a".repeat(53))), "at most 52");
    refused(&with("name: a}", "name: my.edge}"), "DNS-1035");
    refused(&with("selector: {}", "selector: {matchExpressions: [{key: a, operator: In}]}"), "values must be given");
}

fn gateway(spec: &str) -> String {
    format!("apiVersion: portlane.dev/v1alpha1\nkind: ForwardGateway\nmetadata: {{name: g}}\nspec: {spec}\n")
}

#[test]
fn a_gateway_that_breaks_a_rule_is_refused_in_the_words_of_the_rule() {
    assert_eq!(verdict(&gateway("{}")), Ok(1));
    assert_eq!(verdict(&gateway("{allowedForwards: {namespaces: {from: All}, addressCIDRs: [10.0.0.0/8]}}")), Ok(1));
    refused(&gateway("{allowedForwards: {namespaces: {from: Selector}}}"), "selector must be set");
    refused(&gateway("{allowedForwards: {addressCIDRs: [10.0.0.0]}}"), "must be a network");
    refused(&gateway("{allowedForwards: {ports: [{protocol: TCP, port: 5, endPort: 4}]}}"), "must not be less");
    refused(&gateway("{allocation: [{port: 2000, endPort: 1999}]}"), "allocation range must not be less");
}

#[test]
fn labels_and_selectors_of_a_gateway_and_of_a_forward_are_checked_too() {
    let key = "f:4: ForwardGateway default/g: spec.podTemplate.labels: every key must be the name of a label, such as \
               app or example.com/app; 'a b' is not one";
    refused_once(&gateway("{podTemplate: {labels: {a: b, 'a b': c}}}"), key);
    refused_once(&gateway("{podTemplate: {labels: {Example.com/a: c}}}"), "'Example.com/a' is not one");
    assert_eq!(verdict(&gateway("{podTemplate: {annotations: {Example.com/a: c}}}")), Ok(1));
    refused_once(&gateway("{service: {annotations: {a/b/c: d}}}"), "the name of an annotation");
    refused_once(&gateway("{podTemplate: {nodeSelector: {a: 'b c'}}}"), "nodeSelector.a: must have only letters");
    let with = |selector: &str| {
        forward(&format!("{SIDECAR}{LISTENERS}")).replace("selector: {}", &format!("selector: {selector}"))
    };
    refused_once(&with("{matchLabels: {'app:': shop}}"), "matchLabels: every key must be the name of a label");
    refused_once(&with("{matchLabels: {app: shop-}}"), "matchLabels.app: must have only letters");
    refused_once(&with("{matchExpressions: [{key: a b, operator: Exists}]}"), "key: must be a name such as app");
}

#[test]
fn metadata_is_checked_too() {
    let with = |metadata: &str| forward(&format!("{SIDECAR}{LISTENERS}")).replace("{name: a}", metadata);
    refused(&with("{}"), "metadata.name");
    refused(&with("{name: a, labels: {x: 1}}"), "metadata.labels.x: must be a string, but is the number 1; write '1'");
    refused(&with("{name: a, namspace: b}"), "unknown field");
    refused(&with("{name: a, finalizers: zz}"), "metadata.finalizers: must be a list");
    refused(&with("{name: a, labels: {app: 'a b'}}"), "a letter or a digit; here it is 'a b'");
    refused(&with("{name: a, labels: {'!!': a}}"), "metadata.labels.!!");
}

#[test]
fn a_time_that_cannot_be_read_is_named() {
    let good = forward(&format!("{SIDECAR}{LISTENERS}"));
    for time in ["creationTimestamp", "deletionTimestamp"] {
        let with = |text: &str| good.replace("{name: a}", &format!("{{name: a, {time}: {text}}}"));
        assert_eq!(verdict(&with("'2026-01-01T00:00:00Z'")), Ok(1), "{time}");
        let message = format!(
            "f:3: PortForward default/a: metadata.{time}: must be a time such as 2026-01-01T00:00:00Z, but is 'yesterday'"
        );
        refused_once(&with("yesterday"), &message);
    }
    let both = good.replace("{name: a}", "{name: a, creationTimestamp: soon, deletionTimestamp: later}");
    refused(&both, "metadata.creationTimestamp: must be a time such as 2026-01-01T00:00:00Z, but is 'soon'");
    refused(&both, "metadata.deletionTimestamp: must be a time such as 2026-01-01T00:00:00Z, but is 'later'");
}

#[test]
fn a_list_at_the_top_is_answered_with_a_list_of_kubernetes() {
    let message =
        "f:1: is not a Kubernetes manifest: a list at the top; write apiVersion: v1, kind: List and the list as items";
    refused_once("[{apiVersion: portlane.dev/v1alpha1, kind: PortForward}]\n", message);
    refused_once("5\n", "f:1: is not a Kubernetes manifest: it has no fields");
}

#[test]
fn hosts_are_addresses_or_names() {
    let with = |host: &str| {
        let address = format!("{{address: {{host: '{host}', port: 1}}}}");
        forward(&format!("{SIDECAR}{LISTENERS}")).replace("{local: {port: 2}}", &address)
    };
    for good in ["10.0.0.1", "::1", "db", "db.example.com", "db.example.com.", "3com.example.com"] {
        assert_eq!(verdict(&with(good)), Ok(1), "{good}");
    }
    for bad in ["10.0.0.256", "010.0.0.1", "a b", "-a", "a..b", "a_b", "[::1]"] {
        refused(&with(bad), "IP address or a DNS name");
    }
}

#[test]
fn messages_name_the_value_the_place_and_what_to_write() {
    let good =
        forward(&format!("{SIDECAR}{LISTENERS}")).replace("{local: {port: 2}}", "{address: {host: db, port: 2}}");
    let with = |from: &str, to: &str| good.replace(from, to);
    for (text, message) in [
        (
            with("metadata: {name: a}", "metadata: {nmae: a}"),
            "f:3: PortForward without a name: metadata.nmae: unknown field; did you mean 'name'?",
        ),
        (
            with("metadata:", "metdata:"),
            "f:3: PortForward without a name: metdata: unknown field; did you mean 'metadata'?",
        ),
        (
            with("{name: a}", "{name: a_b}"),
            "f:3: PortForward default/a_b: metadata.name: must be a DNS-1123 subdomain: lower case letters, digits, '-' and '.', at most 253 characters; here it is 'a_b'",
        ),
        (with("{name: a}", "{name: a.b}"), "f:3: PortForward default/a.b: metadata.name must be"),
        (with("kind:", "knd:"), "f:2: knd: unknown field; did you mean 'kind'?"),
        (with("apiVersion", "apiversion"), "f:1: apiversion: unknown field; did you mean 'apiVersion'?"),
        (with("kind: PortForward", "kind: PortForwrd"), "did you mean PortForward?"),
        (
            with(SIDECAR, ""),
            "spec.placement: is required; on a laptop, where the placement does not matter, write placement: {sidecar: {selector: {}}}",
        ),
        (with("host: db", "host: '[::1]'"), "'[::1]' is neither: an address has no brackets here: host: \"::1\""),
        (
            with("host: db", "host: [::1]"),
            "must be a string, but is a list, because '[' and ']' make one; write an IPv6 address without them",
        ),
        (with("host: db", "host: 'db:7777'"), "'db:7777' is neither: the port goes into port: host: db, port: 7777"),
        (
            with("{address: {host: db, port: 2}}", "{host: db, port: 2}"),
            "backends[0].host: host and port belong in address",
        ),
        (
            with("TCP", "tcp"),
            "f:8: PortForward default/a: spec.listeners[0].protocol: must be one of TCP, UDP, TLS, but is 'tcp'; did you mean 'TCP'?",
        ),
        (
            with(
                "  listeners:\n",
                "  listeners:\n  - {name: m, protocol: TCP, port: 1, backends: [{local: {port: 2}}]}\n",
            ),
            "f:10: PortForward default/a: spec: two listeners have the same protocol and port (TLS listeners may, with different hostnames); here 'm' and 'l' on port 1",
        ),
    ] {
        refused_once(&text, message);
    }
}

#[test]
fn a_misplaced_field_and_a_short_word_are_one_mistake_with_the_fix() {
    let good = forward(&format!("{SIDECAR}{LISTENERS}"));
    let with = |from: &str, to: &str| good.replace(from, to);
    for (text, message) in [
        (
            with("spec:\n", "spec:\n  loadBalancing: {policy: Random}\n"),
            "f:5: PortForward default/a: spec.loadBalancing: unknown field; it belongs in spec.listeners[]",
        ),
        (
            with("spec:\n", "spec:\n  max_connections: 5\n"),
            "spec.max_connections: unknown field; it belongs in spec.limits, as maxConnections",
        ),
        (
            with("    port: 1\n", "    port: 1\n    host: x\n"),
            "spec.listeners[0].host: unknown field; it belongs in spec.listeners[].backends[].address",
        ),
        (
            with("    port: 1\n", "    port: 1\n    healthCheck: {http: {status: 200}}\n"),
            "healthCheck.http.status: unknown field; known fields are ",
        ),
        (
            with("    port: 1\n", "    port: 1\n    loadBalancing: {policy: source-hash}\n"),
            "but is 'source-hash'; did you mean 'SourceHash'?",
        ),
        (
            with("{local: {port: 2}}", "{address: {ip: 1.2.3.4, port: 1}}"),
            "spec.listeners[0].backends[0].address.ip: unknown field; did you mean 'host'?",
        ),
        (
            with("    port: 1\n", "    port: 1\n    healthCheckPort: 8080\n"),
            "spec.listeners[0].healthCheckPort: unknown field; it belongs in spec.listeners[].backends[]",
        ),
        (
            with("    port: 1\n", "    port: 1\n    loadBalancing: {policy: leastconn}\n"),
            "but is 'leastconn'; did you mean 'LeastConnections'?",
        ),
        (
            with("{name: a}", "{name: a, ownerReferences: [{apiVersion: v1, kind: Pod, nmae: web, uid: u1}]}"),
            "metadata.ownerReferences[0].nmae: unknown field; did you mean 'name'?",
        ),
    ] {
        refused_once(&text, message);
    }
}
