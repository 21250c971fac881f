//! The store of the API server is set back to a backup: what is there then is what runs, and no proxy is wedged.

use std::time::Duration;

use crds::PortForward;
use harness::{
    Backend, Behaviour, ControlPlane, FleetPod, Operator, connect, free_port, programs::KubernetesVersion, round_trip,
    until_within,
};

use super::{forward, gateway, service, until_ready};

/// Longest time for an operator to see that the past is back.
const SEEN: Duration = Duration::from_secs(60);

#[test]
fn a_store_that_was_set_back_is_followed_by_operator_and_proxies() {
    // A server of its own: the others' objects would go too.
    let server = ControlPlane::start_own(KubernetesVersion::Newest, false);
    server.install_crds();
    let namespace = server.namespace("restored");
    let operator = Operator::start(&namespace);
    let (one, two) = (Backend::reachable(Behaviour::Echo), Backend::reachable(Behaviour::Echo));
    let (port, extra) = (free_port(), free_port());
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", one.port));
    namespace.apply(&service("other", two.port));
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    until_ready(&namespace, "web", "True", "Ready");
    server.save();

    // A future that will not have been: a change, and one more forward.
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    namespace.apply(&forward("extra", extra, "{service: {name: other, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    until_ready(&namespace, "extra", "True", "Ready");
    let mut session = connect(port).expect("it listens");
    assert_eq!(round_trip(&mut session, b"future").expect("echo"), b"future");
    assert_eq!(two.count(), 1);

    let Operator { mut program, stream, .. } = operator;
    server.restore();
    assert!(namespace.get::<PortForward>("extra").is_none(), "the past is back");
    // The operator cannot know what it has seen that never was: it ends, and a kubelet would start it anew.
    assert!(!program.wait_for_end(SEEN).success());
    let _anew = Operator::named(&namespace, "anew", stream);
    until_within(SEEN, "what never was is gone", || connect(extra).is_err());
    until_within(SEEN, "new sessions go where they went then", || {
        connect(port).and_then(|mut session| round_trip(&mut session, b"x")).is_ok() && one.count() > 0
    });
    assert_eq!(round_trip(&mut session, b"still").expect("echo"), b"still", "the session from the future goes on");
    until_ready(&namespace, "web", "True", "Ready");
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}
