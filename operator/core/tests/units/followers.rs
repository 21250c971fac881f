//! Which proxies may follow, and for how long they keep the listeners of forwards that cannot be read.

use operator_core::{
    Changes,
    world::{
        followers::{Admission, Applicant},
        objects::{Object, PodInfo},
        watched::Kind,
    },
};
use serde_json::json;

use crate::scene::{
    Scene, app_pod, fleet_pod, forward, gateway, key, keys, side, unreadable_forward, unreadable_gateway, web,
};

fn asks(scene: &Scene, pod: &str, untranslated: &Changes) -> Admission {
    let (uid, service_account) = (format!("uid-{pod}"), if pod == "app" { "" } else { "edge" });
    let applicant = Applicant { pod: &key(pod), uid: &uid, service_account };
    scene.cache.admission(applicant, true, untranslated)
}

fn follows() -> Admission {
    Admission::Follow { exempt: keys(&[]) }
}

/// A pod of the fleet of `edge` with the labels of one.
fn labelled() -> Object {
    let labels = [("portlane.dev/proxy".to_owned(), "gateway".to_owned())].into();
    Object::ProxyPod(key("p1"), PodInfo { labels, ..fleet_pod("p1", true) })
}

/// A cluster in which the watch of proxy pods has shown a sidecar.
fn with_sidecar() -> Scene {
    let mut scene = Scene::new();
    scene.see(Object::ProxyPod(key("app"), app_pod("app")));
    scene
}

#[test]
fn no_proxy_follows_before_a_translation_is_published() {
    let mut scene = Scene::with_web();
    scene.see(labelled());
    assert_eq!(asks(&scene, "p1", &Changes::default()), follows());
    let (pod, service_account) = (key("p1"), "edge");
    let applicant = Applicant { pod: &pod, uid: "uid-p1", service_account };
    assert_eq!(scene.cache.admission(applicant, false, &Changes::default()), Admission::NotSynced);
    let other = Applicant { uid: "of another pod", ..applicant };
    assert_eq!(scene.cache.admission(other, true, &Changes::default()), Admission::UnknownPod);
}

#[test]
fn a_sidecar_waits_until_the_watch_of_its_namespace_shows_its_pod() {
    let mut scene = with_sidecar();
    assert_eq!(asks(&scene, "app", &Changes::default()), follows(), "no forward of the namespace selects pods");
    scene.see(forward(side("db", 5432)));
    assert_eq!(asks(&scene, "app", &Changes::default()), Admission::NotSynced);
    scene.see(Object::Pod(key("app"), app_pod("app")));
    assert_eq!(asks(&scene, "app", &Changes::default()), follows());
}

#[test]
fn a_sidecar_waits_for_the_translation_of_its_pod_and_of_the_forwards_of_its_namespace() {
    let mut scene = with_sidecar();
    scene.see(forward(side("db", 5432)));
    scene.see(Object::Pod(key("app"), app_pod("app")));
    let of_pods = |pods| Changes { pods, ..Changes::default() };
    let of_forwards = |forwards| Changes { forwards, ..Changes::default() };
    assert_eq!(asks(&scene, "app", &of_pods(keys(&["app"]))), Admission::NotSynced);
    assert_eq!(asks(&scene, "app", &of_forwards(keys(&["any"]))), Admission::NotSynced);
    assert_eq!(asks(&scene, "app", &of_pods(keys(&["other"]))), follows());
    let elsewhere = [operator_core::ObjectKey::new("zz", "any"), operator_core::ObjectKey::new("aa", "any")];
    assert_eq!(asks(&scene, "app", &of_forwards(elsewhere.into())), follows(), "of other namespaces");
}

#[test]
fn a_fleet_waits_while_no_version_of_its_gateway_can_be_read() {
    let mut scene = Scene::new();
    scene.see(unreadable_gateway());
    scene.see(labelled());
    assert_eq!(asks(&scene, "p1", &Changes::default()), Admission::NotSynced);
    scene.see(gateway(&json!({})));
    scene.see(unreadable_gateway());
    assert_eq!(asks(&scene, "p1", &Changes::default()), follows(), "the last readable version counts");
}

#[test]
fn a_proxy_keeps_an_unreadable_forward_until_it_can_be_read_or_is_gone() {
    let mut scene = Scene::with_web();
    scene.see(labelled());
    scene.see(unreadable_forward("new", 1));
    scene.see(unreadable_forward("web", 2));
    let exempt = keys(&["new"]);
    let expected = Admission::Follow { exempt: exempt.clone() };
    assert_eq!(asks(&scene, "p1", &Changes::default()), expected, "of web, the last readable version is known");
    assert!(scene.cache.are_exempt(&exempt));
    scene.see(forward(web("new", 81, 2)));
    assert!(!scene.cache.are_exempt(&exempt), "readable");
    scene.gone(Kind::Forwards, "new");
    scene.see(unreadable_forward("new", 1));
    assert!(scene.cache.are_exempt(&exempt));
    scene.gone(Kind::Forwards, "new");
    assert!(!scene.cache.are_exempt(&exempt), "gone");
}

#[test]
fn a_pod_is_gone_once_no_watch_shows_it() {
    let mut scene = with_sidecar();
    scene.see(Object::Pod(key("app"), app_pod("app")));
    let one = scene.gone(Kind::ProxyPods, "app").touched;
    assert_eq!(scene.cache.gone_pods(&one).count(), 0, "the watch of all pods shows the pod");
    let both = scene.gone(Kind::Pods, "app").touched;
    assert!(scene.cache.gone_pods(&both).all(|pod| *pod == key("app")));
    assert!(scene.cache.gone_pods(&both).next().is_some());
}
