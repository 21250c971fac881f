//! The Secret with the CA is deleted while the operator runs: connected proxies receive the new CA over their streams.
//! What is lost if no operator runs meanwhile: `reinstall.rs`.

use harness::{Scene, programs::KubernetesVersion, roots, until};

#[test]
fn proxies_with_a_stream_trust_the_ca_that_replaces_a_deleted_one() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let Scene { namespace, operator: _operator, backend: _backend, proxy, .. } =
        Scene::ready_gateway_with(server.namespace("lost-ca"), &["--certificate-seconds", "8"]);
    let before = roots(&namespace);
    namespace.kubectl(&["delete", "secret", "portlane-roots"]).ok();
    let after = roots(&namespace);
    assert_ne!(before, after, "another CA");
    let certificate = after.trim().to_owned();
    let kept = proxy.path("roots.pem");
    until("the proxy keeps the new CA", || std::fs::read_to_string(&kept).unwrap_or_default().contains(&certificate));
    // The serving certificate is of the new CA by now, and the proxy connects again.
    let proxy = proxy.restarted();
    until("the restarted proxy follows", || proxy.metric("portlane_operator_connected") > 0.0);
}
