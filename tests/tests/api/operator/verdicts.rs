//! What is wrong with a forward stands in its status, and goes when it is mended; the others do not notice.

use crds::PortForward;
use harness::{Backend, Behaviour, ControlPlane, FleetPod, Operator, free_port};

use super::{forward, gateway, service, until_ready};

on_both!(each_forward_says_what_is_wrong_with_it_and_heals_when_mended);

fn each_forward_says_what_is_wrong_with_it_and_heals_when_mended(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("verdicts");
    let operator = Operator::start(&namespace);
    let backend = Backend::reachable(Behaviour::Echo);
    let port = free_port();
    let open = gateway("{replicas: 1, allowedForwards: {addressCIDRs: [192.0.2.0/24]}, service: {maxPorts: 3}}");
    namespace.apply(&open);
    namespace.apply(&service("web", backend.port));
    let pod = FleetPod::of_gateway(&namespace, "edge", "p1");
    let _proxy = pod.proxy(&namespace, "edge", &operator);
    pod.set_ready(&namespace, true);
    namespace.apply(&forward("good", port, "{service: {name: web, port: 80}}"));
    let good = until_ready(&namespace, "good", "True", "Ready");

    // Another forward of the same port, and who holds it is told.
    namespace.apply(&forward("second", port, "{service: {name: web, port: 80}}"));
    let second = until_ready(&namespace, "second", "False", "PortConflict");
    let message = &second.status.expect("status").conditions[0].message;
    assert!(message.contains(&format!("{}/good", namespace.name())), "{message}");
    namespace.apply(&forward("second", free_port(), "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "second", "True", "Ready");

    // A Service that comes later, and one that is deleted and made again.
    let third = free_port();
    namespace.apply(&forward("third", third, "{service: {name: late, port: 80}}"));
    until_ready(&namespace, "third", "False", "BackendNotFound");
    namespace.apply(&service("late", backend.port));
    until_ready(&namespace, "third", "True", "Ready");
    namespace.kubectl(&["delete", "service", "late"]).ok();
    until_ready(&namespace, "third", "False", "BackendNotFound");
    namespace.apply(&service("late", backend.port));
    until_ready(&namespace, "third", "True", "Ready");

    // One more port than the Service may have.
    namespace.apply(&forward("fourth", free_port(), "{service: {name: web, port: 80}}"));
    until_ready(&namespace, "fourth", "False", "TooManyPorts");
    namespace.kubectl(&["delete", "portforward", "third"]).ok();
    until_ready(&namespace, "fourth", "True", "Ready");

    // An address that this gateway may not connect to.
    namespace.apply(&forward("fourth", free_port(), "{address: {host: 198.51.100.1, port: 5432}}"));
    until_ready(&namespace, "fourth", "False", "AddressNotAllowed");
    namespace.apply(&forward("fourth", free_port(), "{service: {name: web, namespace: elsewhere, port: 80}}"));
    until_ready(&namespace, "fourth", "False", "RefNotPermitted");

    // Suspended, it is done with, for tools that wait.
    namespace
        .kubectl(&["patch", "portforward", "second", "--type=merge", "--patch={\"spec\":{\"suspend\":true}}"])
        .ok();
    until_ready(&namespace, "second", "True", "Suspended");

    // The gateway closes its doors.
    namespace
        .apply(&gateway("{replicas: 1, allowedForwards: {ports: [{protocol: UDP, port: 1}]}, service: {maxPorts: 3}}"));
    until_ready(&namespace, "good", "False", "NotAllowedByGateway");
    namespace.apply(&open);
    until_ready(&namespace, "good", "True", "Ready");
    let now = namespace.get::<PortForward>("good").expect("there");
    assert_eq!(now.metadata.generation, good.metadata.generation, "nobody edits a user's spec");
}
