//! Status names what is wrong with a forward until the forward is fixed; other forwards are not affected.

use crds::PortForward;
use harness::{Backend, Behaviour, ControlPlane, Fleet, Namespace, free_port};

use super::{forward, gateway, service, until_ready};

on_both!(each_forward_reports_what_is_wrong_with_it_and_heals_when_corrected);

fn each_forward_reports_what_is_wrong_with_it_and_heals_when_corrected(server: &ControlPlane) {
    if !crate::server::without_kubelets(server) {
        return;
    }
    let namespace = server.namespace("verdicts");
    let open = "{replicas: 1, allowedForwards: {addressCIDRs: [192.0.2.0/24]}, service: {maxPorts: 3}}";
    let _fleet = Fleet::start(&namespace, open);
    let backend = Backend::reachable(Behaviour::Echo);
    let port = free_port();
    namespace.apply(&service("web", backend.port));
    let write = |name: &str, port: u16, backend: &str| namespace.write::<PortForward>(&forward(name, port, backend));
    write("good", port, "{service: {name: web, port: 80}}");
    let good = until_ready(&namespace, "good", "True", "Ready");

    // Another forward asks for the same port: the message names the holder.
    write("second", port, "{service: {name: web, port: 80}}");
    let second = until_ready(&namespace, "second", "False", "PortConflict");
    let message = &second.status.expect("status").conditions[0].message;
    assert!(message.contains(&format!("{}/good", namespace.name())), "{message}");
    write("second", free_port(), "{service: {name: web, port: 80}}");
    until_ready(&namespace, "second", "True", "Ready");

    follows_its_service(&namespace, backend.port);

    // One more port than the Service may have.
    write("fourth", free_port(), "{service: {name: web, port: 80}}");
    until_ready(&namespace, "fourth", "False", "TooManyPorts");
    namespace.kubectl(&["delete", "portforward", "third"]).ok();
    until_ready(&namespace, "fourth", "True", "Ready");

    // An address that this gateway may not connect to.
    write("fourth", free_port(), "{address: {host: 198.51.100.1, port: 5432}}");
    until_ready(&namespace, "fourth", "False", "AddressNotAllowed");
    write("fourth", free_port(), "{service: {name: web, namespace: elsewhere, port: 80}}");
    until_ready(&namespace, "fourth", "False", "RefNotPermitted");

    // A suspended forward is ready, for tools that wait.
    namespace
        .kubectl(&["patch", "portforward", "second", "--type=merge", "--patch={\"spec\":{\"suspend\":true}}"])
        .ok();
    until_ready(&namespace, "second", "True", "Suspended");

    // The gateway no longer admits the port, and then admits it again.
    namespace
        .apply(&gateway("{replicas: 1, allowedForwards: {ports: [{protocol: UDP, port: 1}]}, service: {maxPorts: 3}}"));
    until_ready(&namespace, "good", "False", "NotAllowedByGateway");
    namespace.apply(&gateway(open));
    until_ready(&namespace, "good", "True", "Ready");
    let now = namespace.get::<PortForward>("good").expect("good exists");
    assert_eq!(now.metadata.generation, good.metadata.generation, "the operator does not edit a user's spec");
}

/// The forward `third` to a Service that is created later, deleted, and created again.
fn follows_its_service(namespace: &Namespace<'_>, port: u16) {
    namespace.write::<PortForward>(&forward("third", free_port(), "{service: {name: late, port: 80}}"));
    until_ready(namespace, "third", "False", "BackendNotFound");
    namespace.apply(&service("late", port));
    until_ready(namespace, "third", "True", "Ready");
    namespace.kubectl(&["delete", "service", "late"]).ok();
    until_ready(namespace, "third", "False", "BackendNotFound");
    namespace.apply(&service("late", port));
    until_ready(namespace, "third", "True", "Ready");
}
