//! What a proxy learns of an agent that another gateway takes.

use operator_core::{
    enrolment::judge,
    world::{
        followers::Applicant as Proxy,
        objects::{Object, PodInfo},
    },
};
use proxy_api::Applicant;
use serde_json::json;

use crate::{
    cluster_agents::{agent, open},
    scene::{Scene, fleet_pod, key},
};

/// The proxy `p1` of the gateway `edge`, and the gateway `other`.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.see(open());
    let metadata = json!({"name": "other", "namespace": "ns", "uid": "uid-other", "generation": 1});
    let other = serde_json::from_value(json!({"metadata": metadata, "spec": {"tunnels": {}}})).expect("a gateway");
    scene.see(Object::Gateway(key("other"), Box::new(Ok(other))));
    let labels = [("portlane.dev/proxy".to_owned(), "gateway".to_owned())].into();
    scene.see(Object::ProxyPod(key("p1"), PodInfo { labels, ..fleet_pod("p1", true) }));
    scene
}

/// Why the agent `home` gets no certificate at `p1` for this uid.
fn refused(scene: &Scene, uid: &str) -> String {
    let proxy = Proxy { pod: &key("p1"), uid: "uid-p1", service_account: "edge" };
    let (namespace, name, uid) = ("ns".to_owned(), "home".to_owned(), uid.to_owned());
    let applicant = Applicant::Agent { namespace, name, uid, rotation: 0 };
    judge(&scene.cache, proxy, &applicant, None).expect_err("refused").detail
}

#[test]
fn an_agent_that_moved_is_told_where_to_and_a_guessed_uid_learns_nothing() {
    let mut scene = scene();
    let unknown = refused(&scene, "uid-home");
    scene.see(agent("home", 1, &json!({"gateway": {"name": "other"}})));
    let why = refused(&scene, "uid-home");
    assert!(why.contains("agent ns/home dials ForwardGateway ns/other now"), "{why}");
    assert_eq!(refused(&scene, "uid-guessed"), unknown, "as if there were no agent");
}
