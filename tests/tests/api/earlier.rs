//! Programs of an earlier version beside those of this one, as while a cluster is upgraded. `PORTLANE_EARLIER` names the
//! folder of the earlier programs (docs/testing.md); without it these tests do not run.

use std::{net::TcpStream, path::PathBuf};

use harness::{
    Backend, Behaviour, ControlPlane, EARLIER_PROGRAMS, Namespace, Operator, Scene, binary, connect, echoes,
    programs::KubernetesVersion,
    round_trip,
    scene::{forward, service, until_ready},
    until,
};

use crate::server;

const OTHER: &str = "{service: {name: other, port: 80}}";

/// An earlier program and an API server. If the tests were given none, prints that the test is not run.
fn given(name: &str) -> Option<(PathBuf, &'static ControlPlane)> {
    let program = harness::earlier(name);
    if program.is_none() {
        server::not_run(&format!("{EARLIER_PROGRAMS} names no folder with programs of an earlier version"));
    }
    Some((program?, server::simulated(KubernetesVersion::Newest)?))
}

/// A session with the echo server behind this port.
fn opened(port: u16) -> TcpStream {
    let mut session = connect(port).expect("web listens");
    assert_eq!(round_trip(&mut session, b"first").expect("echo"), b"first");
    session
}

/// Leads the forward `web` to another server, and returns that. The live session stays, and a new one goes there.
fn change_under(session: &mut TcpStream, namespace: &Namespace<'_>, backend: &Backend, port: u16) -> Backend {
    let other = Backend::reachable(Behaviour::Echo);
    let before = backend.count();
    namespace.apply(&service("other", other.port));
    namespace.apply(&forward("web", port, OTHER));
    let ready = until_ready(namespace, "web", "True", "Ready");
    assert_eq!(ready.status.expect("status").to.as_deref(), Some("svc/other:80"));
    let _fresh = opened(port);
    assert_eq!((backend.count(), other.count()), (before, 1), "a new session goes to the new server");
    assert_eq!(round_trip(session, b"still").expect("echo"), b"still");
    other
}

#[test]
fn a_proxy_of_an_earlier_version_follows_this_operator_and_refuses_what_it_does_not_know() {
    let Some((program, server)) = given("portlane-proxy") else { return };
    let namespace = server.namespace("earlier-proxy");
    let operator = Operator::start(&namespace);
    let Scene { namespace, operator: _operator, backend, proxy: _proxy, port, .. } =
        Scene::ready_gateway_of(namespace, operator, &program);
    let mut session = opened(port);
    let _other = change_under(&mut session, &namespace, &backend, port);

    // The check is younger than the proxy, which must not run the listener without the check.
    let plain = forward("web", port, OTHER);
    namespace.apply(&plain.replace("backends:", "healthCheck: {postgres: {}}, backends:"));
    let rejected = until_ready(&namespace, "web", "False", "Rejected").status.expect("status");
    let rejection = &rejected.data_plane.expect("counts").rejected[0];
    assert_eq!((rejection.pod.as_str(), rejection.listener.as_str()), ("p1", "tcp"));
    for words in ["postgres", "upgrade the proxy"] {
        assert!(rejection.reason.contains(words), "no {words:?} in {}", rejection.reason);
    }
    until("the version before keeps running", || echoes(port));
    assert_eq!(round_trip(&mut session, b"still").expect("echo"), b"still");

    namespace.apply(&plain);
    until_ready(&namespace, "web", "True", "Ready");
    assert_eq!(round_trip(&mut session, b"kept").expect("echo"), b"kept");
}

#[test]
fn this_proxy_follows_an_operator_of_an_earlier_version_also_after_a_restart() {
    let Some((program, server)) = given("portlane-operator") else { return };
    let namespace = server.namespace("earlier-operator");
    let operator = Operator::of_program(&namespace, &program);
    let Scene { namespace, operator: _operator, backend, proxy, port, .. } =
        Scene::ready_gateway_of(namespace, operator, &binary("portlane-proxy"));
    let mut session = opened(port);
    let _other = change_under(&mut session, &namespace, &backend, port);
    drop(session);

    let proxy = proxy.restarted();
    until("the restarted proxy is ready", || proxy.is_ready());
    until("the restarted proxy serves the forward", || echoes(port));
    until("the restarted proxy follows the operator", || proxy.metric("portlane_operator_connected") > 0.0);
    namespace.kubectl(&["delete", "portforward", "web"]).ok();
    until("the port of a deleted forward is closed", || connect(port).is_err());
}

#[test]
fn a_session_of_an_earlier_proxy_survives_the_upgrade_of_its_operator() {
    let Some((program, server)) = given("portlane-operator") else { return };
    let Some(earlier_proxy) = harness::earlier("portlane-proxy") else { return };
    let namespace = server.namespace("earlier-both");
    let operator = Operator::of_program(&namespace, &program);
    let Scene { namespace, operator, backend, proxy, port, .. } =
        Scene::ready_gateway_of(namespace, operator, &earlier_proxy);
    let mut session = opened(port);
    let stream = operator.killed(&namespace);
    let _next = Operator::named(&namespace, "next", stream);
    until("the proxy follows the next operator", || proxy.metric("portlane_operator_connected") > 0.0);
    let _other = change_under(&mut session, &namespace, &backend, port);
}
