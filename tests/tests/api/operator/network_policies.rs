//! Network policies of fleets, which the operator creates only with the option for them.

use crds::ForwardGateway;
use harness::{Operator, programs::KubernetesVersion};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::gateway;

// C14
#[test]
fn a_fleet_loses_its_network_policy_when_the_operator_no_longer_makes_them_and_a_users_policy_stays() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Oldest) else { return };
    let namespace = server.namespace("policies");
    let operator = Operator::with(&namespace, &["--fleet-network-policies", "true"]);
    namespace.apply(&gateway("{replicas: 0}"));
    namespace.until::<NetworkPolicy>("edge", "exists", |_| true);
    let stream = operator.killed(&namespace);
    let _operator = Operator::named(&namespace, "without", stream);
    namespace.until_gone::<NetworkPolicy>("edge");

    // A policy of that name is the user's from now on, and not in the way of the fleet.
    namespace.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: edge}, spec: {podSelector: {}}}",
    );
    namespace.apply(&gateway("{replicas: 1}"));
    namespace.until::<ForwardGateway>("edge", "has its children applied", |gateway| {
        let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
        let mut programmed = conditions.filter(|condition| condition.type_ == "Programmed");
        programmed.any(|it| it.reason == "NoProxies" && it.observed_generation == gateway.metadata.generation)
    });
    assert!(namespace.get::<NetworkPolicy>("edge").is_some());
}
