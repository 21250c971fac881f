//! From `kubectl apply` to bytes, and the status that a person reads on the way.

use crds::{ForwardGateway, PortForward};
use harness::{Backend, Behaviour, ControlPlane, FleetPod, Namespace, Operator, connect, free_port, round_trip, until};
use k8s_openapi::api::{
    apps::v1::Deployment, core::v1::Service, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
};
use rustix::process::Signal;

use super::{condition, forward, gateway, service, until_ready};

on_both!(a_gateway_forwards_is_changed_under_load_rejected_in_one_pod_heals_and_is_deleted);

fn a_gateway_forwards_is_changed_under_load_rejected_in_one_pod_heals_and_is_deleted(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("story");
    let operator = Operator::start(&namespace);
    let (one, two) = (Backend::reachable(Behaviour::Echo), Backend::reachable(Behaviour::Echo));
    let port = free_port();
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.apply(&service("web", one.port));
    namespace.apply(&forward("web", port, "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "web", "False", "NoProxies");
    // A terminal that closes, or a script for another server, sends it; the operator carries on.
    operator.program.signal(Signal::HUP);
    let (_pod, proxy) = FleetPod::ready_in_gateway(&namespace, "edge", "p1", &operator);
    let ready = until_ready(&namespace, "web", "True", "Ready");
    let status = ready.status.clone().expect("status");
    assert_eq!(status.data_plane.expect("counts").summary, "1/1");
    assert_eq!(status.placement.as_deref(), Some(format!("gateway {}/edge", namespace.name()).as_str()));
    children(&namespace, port);

    // A session from before the changes lives through all of them.
    let mut session = connect(port).expect("web listens");
    assert_eq!(round_trip(&mut session, b"one").expect("echo"), b"one");
    let writes = operator.metric("portlane_operator_status_writes_total{result=\"written\"}");
    namespace.apply(&service("other", two.port));
    namespace.apply(&forward("web", port, "{service: {name: other, port: 80}}"));
    let ready = until_ready(&namespace, "web", "True", "Ready");
    assert_eq!(ready.status.expect("status").to.as_deref(), Some("svc/other:80"));
    let mut fresh = connect(port).expect("web listens");
    assert_eq!(round_trip(&mut fresh, b"two").expect("echo"), b"two");
    assert_eq!((one.count(), two.count()), (1, 1), "new sessions go to the new backend");
    assert_eq!(round_trip(&mut session, b"still").expect("echo"), b"still");
    let written = operator.metric("portlane_operator_status_writes_total{result=\"written\"}") - writes;
    assert!(written <= 2.0, "one change of one forward made {written} status writes");

    // The second pod shares this machine with the first one, so it cannot bind the port.
    let second = FleetPod::of_gateway(&namespace, "edge", "p2");
    let other = second.proxy(&namespace, "edge", &operator);
    let rejected = until_ready(&namespace, "web", "False", "Rejected").status.expect("status");
    let rejection = &rejected.data_plane.expect("counts").rejected[0];
    assert_eq!((rejection.pod.as_str(), rejection.listener.as_str()), ("p2", "tcp"));
    assert!(rejection.reason.contains("in use"), "{}", rejection.reason);
    namespace.kubectl(&["delete", "pod", "p2", "--grace-period=0", "--force"]).ok();
    until_ready(&namespace, "web", "True", "Ready");
    until("the stream of a pod that is gone has ended", || other.metric("portlane_operator_connected") < 1.0);
    drop(other);

    // A deleted forward does not listen, and its session may finish (Keep).
    namespace.kubectl(&["delete", "portforward", "web"]).ok();
    until("the port is closed", || connect(port).is_err());
    assert_eq!(round_trip(&mut session, b"kept").expect("echo"), b"kept");
    assert!(proxy.metric("portlane_operator_connected") > 0.0);
}

/// The children of the gateway are as they should be, and `kubectl scale` reaches the fleet.
fn children(namespace: &Namespace<'_>, port: u16) {
    let deployment = namespace.get::<Deployment>("edge").expect("a Deployment");
    let owner = &deployment.metadata.owner_references.expect("owner")[0];
    assert_eq!((owner.kind.as_str(), owner.controller), ("ForwardGateway", Some(true)));
    let service = namespace.until::<Service>("edge", "has the listener's port", |service| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        ports.is_some_and(|ports| ports.iter().any(|open| open.port == i32::from(port)))
    });
    assert_eq!(service.spec.expect("spec").type_.as_deref(), Some("ClusterIP"));
    assert!(namespace.get::<PodDisruptionBudget>("edge").is_some());
    assert!(namespace.get::<NetworkPolicy>("edge").is_none(), "without the flag, policies are the user's");
    let before = deployment.metadata.generation;
    namespace.kubectl(&["scale", "fgw/edge", "--replicas=3"]).ok();
    let scaled = namespace.until::<Deployment>("edge", "is scaled", |deployment| {
        deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(3)
    });
    assert_eq!(scaled.metadata.generation, before.map(|before| before + 1), "listeners change no pod template");
    namespace.until::<ForwardGateway>("edge", "counts its forwards", |gateway| {
        let status = gateway.status.as_ref();
        status.is_some_and(|status| {
            status.attached_forwards == Some(1) && status.selector.as_deref() == Some("portlane.dev/gateway=edge")
        })
    });
    let forward = namespace.get::<PortForward>("web").expect("web exists");
    assert_eq!(condition(&forward, "Stalled"), (String::new(), String::new()));
}
