//! The operator is installed again with another CA: running proxies keep their configuration and report that they do
//! not trust the operator, proxies started from then on do. Running proxies do again once the CA is restored from its
//! copy.

use std::time::Duration;

use harness::{
    FleetPod, FleetProxy, Operator, Scene, connect, echoes, programs::KubernetesVersion, roots, round_trip, until,
    until_within,
};
use k8s_openapi::api::apps::v1::Deployment;

use super::until_ready;

#[test]
fn an_operator_that_is_reinstalled_gets_its_fleets_back() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator, backend: _backend, proxy: old, port, .. } =
        Scene::ready_gateway(server.namespace("reinstall"));
    let before = roots(&namespace);

    // Uninstalled: the Secret with the CA and the Lease went with the operator's namespace.
    let stream = operator.stream;
    drop(operator.program.kill());
    namespace.kubectl(&["delete", "secret/portlane-roots", "lease/portlane-operator"]).ok();
    let operator = Operator::named(&namespace, "reinstalled", stream);
    let after = roots(&namespace);
    assert_ne!(before, after);

    // A running proxy does not trust the new CA. The proxy reports that and keeps serving.
    until("the running proxy reports an unknown CA", || reports_an_unknown_ca(&old));
    let mut session = connect(port).expect("the old proxy still listens");
    assert_eq!(round_trip(&mut session, b"old").expect("echo"), b"old");

    // The fleet rolls over: its new pods are given the new CA.
    namespace.until::<Deployment>("edge", "has the new CA", |deployment| {
        serde_json::to_string(&deployment.spec).is_ok_and(|spec| {
            let certificate = after.lines().nth(1).expect("a line of base64");
            spec.contains(certificate)
        })
    });
    let next = FleetPod::of_gateway(&namespace, "edge", "p2");
    namespace.kubectl(&["delete", "pod", "p1", "--grace-period=0", "--force"]).ok();
    drop(old);
    let proxy = next.proxy(&namespace, "edge", &operator);
    next.set_ready(&namespace, true);
    until_within(Duration::from_secs(60), "the new proxy follows the new operator", || {
        proxy.metric("portlane_operator_connected") > 0.0
    });
    until_ready(&namespace, "web", "True", "Ready");
    until("the new proxy serves", || echoes(port));
}

#[test]
fn running_proxies_trust_a_lost_ca_again_that_is_restored_from_its_copy() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator, backend: _backend, proxy, port, .. } =
        Scene::ready_gateway(server.namespace("restored-ca"));
    let before = roots(&namespace);
    let copy = namespace.kubectl(&["get", "secret/portlane-roots", "-o", "yaml"]).ok();
    let stream = operator.stream;
    drop(operator.program.kill());
    namespace.kubectl(&["delete", "secret/portlane-roots", "lease/portlane-operator"]).ok();
    // So short a life has the CA read once a second.
    let _operator = Operator::named_with(&namespace, "restored", stream, &["--certificate-seconds", "8"]);
    assert_ne!(roots(&namespace), before, "another CA");
    until("the running proxy reports an unknown CA", || reports_an_unknown_ca(&proxy));

    // The operator may create another CA between the end of the Secret and its return; the command succeeds the next
    // time.
    until("the Secret is restored", || namespace.kubectl_with(&["replace", "--force", "-f", "-"], &copy).success);
    until_within(Duration::from_secs(60), "the running proxy follows the operator again", || {
        proxy.metric("portlane_operator_connected") > 0.0
    });
    assert_eq!(roots(&namespace), before, "the operator keeps the restored CA");
    until_ready(&namespace, "web", "True", "Ready");
    assert!(echoes(port), "the proxy serves");
}

/// Whether a proxy has reported that it does not trust the operator.
fn reports_an_unknown_ca(proxy: &FleetProxy) -> bool {
    // A CA is named after the second in which it was made. With another one of the same second, it is the signature that
    // is wrong.
    let untrusted = |text: &str| text.contains("UnknownIssuer") || text.contains("BadSignature");
    let mut reports = proxy.program.events().into_iter().filter(|event| event["event"] == "operator");
    reports.any(|report| report["message"].as_str().is_some_and(untrusted))
}
