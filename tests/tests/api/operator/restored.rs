//! The store of the API server is restored from a backup: what the backup has is what runs, and no proxy is wedged.

use std::time::Duration;

use crds::PortForward;
use harness::{
    Backend, Behaviour, ControlPlane, Operator, Scene, connect, echoes, expire_lease, free_port,
    programs::KubernetesVersion, round_trip, until_within,
};

use super::{forward, service, until_ready};

/// Longest time for an operator to notice the restore.
const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn a_store_that_was_set_back_is_followed_by_operator_and_proxies() {
    // The server is this test's own: a restore takes away the objects of other tests too.
    let server = ControlPlane::start_own(KubernetesVersion::Newest, false);
    server.install_crds();
    let Scene { namespace, operator, backend, proxy, port, .. } = Scene::ready_gateway(server.namespace("restored"));
    let (other, extra) = (Backend::reachable(Behaviour::Echo), free_port());
    namespace.apply(&service("other", other.port));
    server.save();

    // After the backup: a change, and one more forward.
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    namespace.apply(&forward("extra", extra, "{service: {name: other, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    until_ready(&namespace, "extra", "True", "Ready");
    let mut session = connect(port).expect("web listens");
    assert_eq!(round_trip(&mut session, b"later").expect("echo"), b"later");
    assert_eq!(other.count(), 1);

    // The operator cannot tell what of its cache still exists: it ends, and kubelet would restart it.
    let Operator { mut program, stream, .. } = operator;
    server.restore();
    assert!(namespace.get::<PortForward>("extra").is_none(), "the backup is restored");
    assert!(!program.wait_for_end(NOTICED).success());
    expire_lease(&namespace);
    let _restarted = Operator::named(&namespace, "restarted", stream);
    until_within(NOTICED, "the listener that the backup lacks is gone", || connect(extra).is_err());
    until_within(NOTICED, "new sessions go to the backend of the backup", || echoes(port) && backend.count() > 0);
    assert_eq!(round_trip(&mut session, b"still").expect("echo"), b"still", "the session made after the backup stays");

    // Changes flow as before.
    until_ready(&namespace, "web", "True", "Ready");
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    until_ready(&namespace, "web", "True", "Ready");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}
