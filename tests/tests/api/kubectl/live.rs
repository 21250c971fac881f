//! `conns`, `lag`, `config`, `top` and `drain` against an operator that serves the live API.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::{Command, Stdio},
};

use crds::PortForward;
use harness::{
    ControlPlane, Namespace, Page, Scene, Terminal, binary, connect, free_port, http_get,
    programs::KubernetesVersion,
    round_trip,
    scene::{forward, own_address, until_ready},
    until,
};
use serde_json::{Value, json};

use super::{Output, Running, run};
use crate::live_api;

/// An account that may list all forwards, and see the sessions of those in one namespace.
const VIEWER: &str = "apiVersion: v1
kind: ServiceAccount
metadata: {name: viewer}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lists-forwards}
rules: [{apiGroups: [portlane.dev], resources: [portforwards], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lists-forwards}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lists-forwards}
subjects: [{kind: ServiceAccount, name: viewer, namespace: NAMESPACE}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: viewer}
rules: [{apiGroups: [live.portlane.dev], resources: [portforwards/sessions], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer}
subjects: [{kind: ServiceAccount, name: viewer, namespace: NAMESPACE}]
";

/// What a verb prints of the namespace of the scene.
fn verb(scene: &Scene<'_>, words: &[&str]) -> Output {
    let namespace = &scene.namespace;
    run(namespace.cluster().kubeconfig(), &[words, &["-n", namespace.name()]].concat())
}

fn document(scene: &Scene<'_>, words: &[&str]) -> Value {
    let Output { text, errors, .. } = verb(scene, &[words, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"))
}

/// On a server of its own: an aggregated API that does not answer disturbs every other test.
#[test]
fn sessions_are_listed_followed_and_drained_through_the_live_api() {
    let server = ControlPlane::start(KubernetesVersion::Newest);
    if !crate::server::without_kubelets(&server) {
        return;
    }
    server.install_crds();
    let (address, own) = (format!("{}:{}", own_address(), free_port()), own_address().to_string());
    let options = ["--custom-metrics-address", &address, "--pod-ips", &own, "--apis", "live"];
    let scene = Scene::ready_gateway_with(server.namespace("kubectl-live"), &options);
    let Output { text, errors, code } = verb(&scene, &["conns", "web"]);
    assert_eq!((text.as_str(), code), ("", Some(3)), "{errors}");
    assert_eq!(errors, "error: the live API is not installed: set liveApi.enabled in the chart\n");

    let namespace = &scene.namespace;
    live_api::register(namespace);
    until("the live API answers", || verb(&scene, &["conns", "web"]).code == Some(0));
    conns_lists_sessions(&scene);
    each_proxy_is_asked_once_for_all_forwards(&scene);
    sessions_are_shown_as_far_as_the_rights_go(&scene, &server.namespace("kubectl-live-other"));
    lag_has_the_figures_of_the_proxy(&scene);
    config_shows_a_difference(&scene);
    top_counts(&scene);
    top_and_conns_follow_on_a_terminal(&scene);
    conns_follows_until_its_reader_ends(&scene);
    ui_follows_sessions(&scene);
    drain_ends_with_the_last_session(&scene);
    drain_evicts_a_pod_once_its_budget_permits(&scene);
    a_pod_that_has_vanished_is_named(&scene);
}

fn conns_lists_sessions(scene: &Scene<'_>) {
    let mut session = connect(scene.port).expect("it listens");
    assert_eq!(round_trip(&mut session, b"bytes").expect("echo"), b"bytes");
    let client = session.local_addr().expect("an address").to_string();
    until("the session has its bytes", || document(scene, &["conns", "web"])["sessions"][0]["bytesDown"] == 5);
    let Output { text, code, .. } = verb(scene, &["conns"]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["LISTENER", &client, "5B", "1 session"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let status = document(scene, &["status"]);
    assert_eq!(status["forwards"][0]["sessions"], 1, "{status}");
    let of_pod = document(scene, &["conns", "pod/p1", "--client", "127.0.0.0/8"]);
    assert_eq!((&of_pod["total"], &of_pod["matching"]), (&json!(1), &json!(1)), "{of_pod}");
    let of_others = document(scene, &["conns", "web", "--client", "192.0.2.0/24"]);
    assert_eq!((&of_others["total"], &of_others["matching"]), (&json!(1), &json!(0)), "{of_others}");
    let all = document(scene, &["conns", "web"]);
    let id = all["sessions"][0]["session"].as_str().expect("an id");
    let by_id = document(scene, &["conns", "web", "--session", id]);
    assert_eq!((&by_id["total"], &by_id["sessions"][0]["client"]), (&json!(1), &json!(client)), "{by_id}");
    let of_none = document(scene, &["conns", "web", "--session", "0000000000000000"]);
    assert_eq!((&of_none["total"], &of_none["matching"]), (&json!(0), &json!(0)), "{of_none}");

    let namespace = scene.namespace.name();
    for words in [["conns", "pod/p11"], ["config", "p11"], ["drain", "pod/p11"]] {
        let Output { errors, code, .. } = verb(scene, &words);
        assert_eq!(code, Some(2), "{words:?}: {errors}");
        assert_eq!(errors, format!("error: pod {namespace}/p11 does not exist; did you mean p1?\n"), "{words:?}");
    }
}

fn each_proxy_is_asked_once_for_all_forwards(scene: &Scene<'_>) {
    let namespace = &scene.namespace;
    namespace.apply(&forward("second", free_port(), "{service: {name: web, port: 80}}"));
    until_ready(namespace, "second", "True", "Ready");
    let answered = || scene.operator.metric("portlane_operator_inquiries_total{result=\"answered\"}");
    let before = answered();
    let list = document(scene, &["conns"]);
    assert_eq!(list["notes"], json!([]), "{list}");
    // A scrape may get the text of a moment ago.
    until("the inquiry is counted", || answered() - before > 0.5);
    let asked = answered() - before;
    assert!(asked < 1.5, "the proxy was asked {asked} times for two forwards");
    namespace.kubectl(&["delete", "portforward", "second"]).ok();
}

fn sessions_are_shown_as_far_as_the_rights_go(scene: &Scene<'_>, other: &Namespace<'_>) {
    let namespace = &scene.namespace;
    namespace.apply(&VIEWER.replace("NAMESPACE", namespace.name()));
    other.apply(crate::FORWARD);
    let folder = tempfile::tempdir().expect("folder");
    let kubeconfig = namespace.kubeconfig_of("viewer", folder.path());
    let _session = connect(scene.port).expect("it listens");
    let resource = "portforwards.live.portlane.dev/sessions";
    let missing = format!("cannot get {resource} in namespace {}: ask for `get` on `{resource}`", other.name());
    // The authorizer follows the bindings a moment later.
    until("the session is shown, and the missing right is named", || {
        let Output { text, code, .. } = run(&kubeconfig, &["conns", "-A", "-o", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        code == Some(3) && list["total"] == 1 && list["notes"] == json!([missing])
    });
    other.kubectl(&["delete", "--all", "portforwards"]).ok();
}

/// The web server is no sink: it sends back what it gets, so both messages wait.
fn lag_has_the_figures_of_the_proxy(scene: &Scene<'_>) {
    let (namespace, port) = (&scene.namespace, free_port());
    let Output { text, code, .. } = verb(scene, &["lag"]);
    assert_eq!((text.as_str(), code), ("0 durable listeners, 0 messages not delivered\n", Some(0)));
    let durable = "durable: {send: {relp: {}}, syncMillis: 0, store: {disk: {maxBytes: 16777216}}}, backends:";
    namespace.apply(&forward("logs", port, "{service: {name: web, port: 80}}").replace("backends:", durable));
    until_ready(namespace, "logs", "True", "Ready");
    let mut client = connect(port).expect("it listens");
    client.write_all(b"one\ntwo\n").expect("it is sent");
    until("both messages wait, and the sink has an error", || {
        let listener = &document(scene, &["lag", "logs"])["listeners"][0];
        listener["backlog"] == 2 && listener["error"].is_string()
    });

    let (pod, name) = (format!("{}/p1", namespace.name()), format!("{}/logs/tcp", namespace.name()));
    let report = document(scene, &["lag"]);
    let listener = &report["listeners"][0];
    assert_eq!((&listener["listener"], &listener["pod"]), (&json!(name), &json!(pod)), "{report}");
    assert_eq!((&listener["received"], &listener["delivered"], &listener["lanes"]), (&json!(2), &json!(0), &json!(1)));
    assert_eq!(report["notes"], json!([]), "{report}");
    let Output { text, code, .. } = verb(scene, &["lag"]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["OLDEST", &pod, "1 durable listener, 2 messages not delivered", "error: "] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    namespace.kubectl(&["delete", "portforward", "logs"]).ok();
}

fn ui_follows_sessions(scene: &Scene<'_>) {
    let mut session = connect(scene.port).expect("it listens");
    round_trip(&mut session, b"bytes").expect("echo");
    let client = session.local_addr().expect("an address").to_string();
    let namespace = &scene.namespace;
    let page = Page::of(namespace, "web");
    assert_eq!(http_get(page.port, "/").expect("an answer").0, 404, "without the token");
    let (code, html) = page.get("");
    assert!(code == 200 && html.contains("page.js"), "{html}");

    let name = format!("{}/web", namespace.name());
    let state = page.states().find(|it| it["totals"]["live"] == 1).expect("a state with the session");
    let forward = &state["forwards"][0];
    assert_eq!((&forward["name"], &state["cluster"]["notes"]), (&json!(name), &json!([])), "{state}");
    let listener = &forward["listeners"][0];
    assert!(listener["state"] == "Bound" && listener["counts"]["live"] == 1, "{state}");
    let (_, sessions) = page.get("conns");
    assert!(sessions.contains(&client), "{client} is not in {sessions}");
}

fn config_shows_a_difference(scene: &Scene<'_>) {
    let namespace = &scene.namespace;
    until("all is in force", || document(scene, &["config", "p1"])["config"]["inForce"] == true);
    let Output { text, .. } = verb(scene, &["config", "p1"]);
    let line = format!("✓ {}/web/tcp", namespace.name());
    assert!(text.contains("✓ proxy") && text.contains(&line), "{text}");

    let holder = TcpListener::bind("0.0.0.0:0").expect("a port");
    let taken = holder.local_addr().expect("an address").port();
    namespace.apply(&forward("taken", taken, "{service: {name: web, port: 80}}"));
    until_ready(namespace, "taken", "False", "Rejected");
    let Output { text, code, .. } = verb(scene, &["config", "p1"]);
    assert_eq!(code, Some(0), "{text}");
    for part in [format!("× {}/taken/tcp", namespace.name()), "AddressInUse".to_owned(), "nothing serves".to_owned()] {
        assert!(text.contains(&part), "{part} is not in\n{text}");
    }
    namespace.kubectl(&["delete", "portforward", "taken"]).ok();
}

fn top_counts(scene: &Scene<'_>) {
    let _session = connect(scene.port).expect("it listens");
    until("the session counts", || document(scene, &["top"])["total"]["sessions"] == 1);
    let Output { text, code, .. } = verb(scene, &["top", "--once"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 session,") && text.contains("FORWARD") && text.contains("POD"), "{text}");
    assert!(!text.contains('\u{1b}'), "a pipe has no colours: {text}");
    until("sessions that no reading lists are in the rates", || {
        for _ in 0..40 {
            drop(connect(scene.port).expect("it listens"));
        }
        let top = document(scene, &["top"]);
        let loads = [&top["total"], &top["forwards"][0], &top["pods"][0]];
        loads.iter().all(|load| load["newPerSecond"].as_u64() >= Some(3) && load.get("atLeast").is_none())
    });
}

/// A verb of the plugin whose controlling terminal is its standard input.
fn on_a_terminal(scene: &Scene<'_>, words: &[&str], columns: u16) -> Terminal {
    let namespace = &scene.namespace;
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(binary("kubectl-portlane")).args(words).args(["-n", namespace.name()]);
    command.env("KUBECONFIG", namespace.cluster().kubeconfig()).env("TERM", "xterm");
    Terminal::start(command, columns)
}

fn top_and_conns_follow_on_a_terminal(scene: &Scene<'_>) {
    const ENTER: &str = "\u{1b}[?1049h";
    const LEAVE: &str = "\u{1b}[?1049l";
    let mut top = on_a_terminal(scene, &["top"], 20);
    let narrow = top.wait("SESSIONS", 1);
    assert!(narrow.contains(ENTER) && !narrow.contains("HEALTH"), "{narrow:?}");
    top.resize(120);
    top.wait("HEALTH", 1);
    top.press(b"s");
    top.wait("NEW/S↓", 1);
    top.press(b"q");
    assert!(top.end().success());
    top.wait(LEAVE, 1);

    let conns = on_a_terminal(scene, &["conns", "web", "--watch"], 160);
    conns.wait("\u{1b}[2J\u{1b}[H", 2);
    let session = connect(scene.port).expect("it listens");
    let client = session.local_addr().expect("an address").to_string();
    conns.wait(&client, 1);
}

fn conns_follows_until_its_reader_ends(scene: &Scene<'_>) {
    let namespace = &scene.namespace;
    let mut command = Command::new(binary("kubectl-portlane"));
    command.env("KUBECONFIG", namespace.cluster().kubeconfig()).args(["conns", "--watch", "-n", namespace.name()]);
    let mut plugin = Running(command.stdout(Stdio::piped()).spawn().expect("the plugin runs"));
    let lines = BufReader::new(plugin.0.stdout.take().expect("piped")).lines().map(|line| line.expect("a line"));
    assert_eq!(lines.filter(|line| line.contains("session")).take(2).count(), 2, "two lists, one after the other");
    // Nobody reads the next list.
    let mut ended = None;
    until("the plugin ends with its reader", || {
        ended = plugin.0.try_wait().expect("its state");
        ended.is_some()
    });
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

fn drain_ends_with_the_last_session(scene: &Scene<'_>) {
    let namespace = &scene.namespace;
    let Output { errors, code, .. } = verb(scene, &["drain", "web"]);
    assert_eq!(code, Some(2), "nobody can confirm: {errors}");
    assert!(errors.contains("closes its ports") && errors.contains("Add --yes"), "{errors}");

    let session = connect(scene.port).expect("it listens");
    until("the session counts", || document(scene, &["conns", "web"])["total"] == 1);
    let Output { text, errors, code } = verb(scene, &["drain", "web", "--yes", "--timeout", "3s", "-o", "yaml"]);
    assert_eq!(code, Some(1), "{text}{errors}");
    assert!(errors.contains("is not drained after 3 s"), "{errors}");
    assert!(text.starts_with("---\nkind: PortForward\n") && text.contains("state: TimedOut\n"), "{text}");
    let suspended = namespace.get::<PortForward>("web").and_then(|forward| forward.spec.suspend);
    assert_eq!(suspended, Some(true));

    drop(session);
    let Output { text, errors, code } = verb(scene, &["drain", "web", "--timeout", "1m", "-o", "json"]);
    assert_eq!(code, Some(0), "a suspended forward needs no answer: {text}{errors}");
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a record in a line")).collect();
    let last = records.last().expect("a record of the end");
    assert_eq!(
        (&last["name"], &last["state"], &last["sessions"]),
        (&json!("web"), &json!("Done"), &json!(0)),
        "{last}"
    );

    let Output { errors, code, .. } = verb(scene, &["drain", "pod/nothing", "--yes"]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("/nothing does not exist"), "{errors}");
}

/// No controller computes the operator's `PodDisruptionBudget`, so the API server refuses the eviction until the test
/// says that a disruption is allowed.
fn drain_evicts_a_pod_once_its_budget_permits(scene: &Scene<'_>) {
    let namespace = &scene.namespace;
    let exists = |object: &str| namespace.kubectl(&["get", object]).success;
    until("the operator has created the budget", || exists("poddisruptionbudget/edge"));
    let Output { errors, code, .. } = verb(scene, &["drain", "pod/p1"]);
    assert_eq!(code, Some(2), "nobody can confirm: {errors}");
    assert!(errors.contains("Evicting pod") && errors.contains("Add --yes"), "{errors}");

    let Output { text, errors, code } = verb(scene, &["drain", "pod/p1", "--yes", "--timeout", "1s"]);
    assert_eq!(code, Some(1), "{text}{errors}");
    for part in ["eviction refused, retrying in 5 s", "disruption budget", "is not drained after 1 s"] {
        assert!(errors.contains(part), "{part} is not in {errors}");
    }
    assert!(exists("pod/p1"), "a refused eviction deletes nothing");

    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1});
    let status = json!({"status": status}).to_string();
    let patch = ["patch", "poddisruptionbudget", "edge", "--subresource=status", "--type=merge", "-p"];
    namespace.kubectl(&[&patch[..], &[status.as_str()]].concat()).ok();
    let Output { text, errors, code } = verb(scene, &["drain", "pod/p1", "--yes", "--timeout", "1m"]);
    assert_eq!(code, Some(0), "{text}{errors}");
    assert!(text.contains("the pod is gone") && !exists("pod/p1"), "{text}{errors}");
}

fn a_pod_that_has_vanished_is_named(scene: &Scene<'_>) {
    let gone = format!("error: pod {}/p1 does not exist", scene.namespace.name());
    for words in [["conns", "pod/p1"], ["config", "p1"], ["drain", "pod/p1"]] {
        // The operator follows the deletion a moment later.
        until(&format!("{words:?} names the pod"), || {
            let Output { errors, code, .. } = verb(scene, &words);
            code == Some(2) && errors.starts_with(&gone) && errors.lines().count() == 1
        });
    }
}
