//! Which proxies a new CA has cut off.

use operator_core::{
    desired::ca::Trusted,
    schedule::cut_off::{Counted, CutOff},
    world::objects::{Object, PodInfo},
};

use crate::scene::{Scene, fleet_pod, key, ms, proxy};

/// When the CA was created.
const MADE: u64 = 10_000;

fn trusted(since: u64) -> Trusted {
    Trusted { bundle: "A;".to_owned(), signing: "A;".to_owned(), since }
}

fn pod(name: &str, created: u64) -> PodInfo {
    PodInfo { created: Some(created), ..fleet_pod(name, true) }
}

fn scene(pods: &[(&str, u64)]) -> Scene {
    let mut scene = Scene::new();
    for (name, created) in pods {
        scene.see(Object::ProxyPod(key(name), pod(name, *created)));
    }
    scene
}

fn count(scene: &Scene) -> usize {
    CutOff::default().tick(&scene.view(), &trusted(MADE), ms(0)).expect("the first count is due").count
}

#[test]
fn a_proxy_without_a_stream_is_cut_off_if_its_pod_is_older_than_the_ca() {
    assert_eq!(count(&scene(&[("old", MADE - 61), ("as-old-as-clocks-differ", MADE - 60), ("new", MADE + 9)])), 1);
    let mut scene = scene(&[("old", 1), ("other", 2)]);
    assert_eq!(count(&scene), 2);
    scene.proxies.connected(&proxy("old"));
    assert_eq!(count(&scene), 1, "a proxy with a stream has the CA");
    scene.see(Object::ProxyPod(key("other"), PodInfo { leaving: true, ..pod("other", 2) }));
    assert_eq!(count(&scene), 0, "a pod that leaves needs nothing");
    scene.see(Object::ProxyPod(key("other"), PodInfo { created: None, ..pod("other", 2) }));
    assert_eq!(count(&scene), 0);
}

#[test]
fn proxies_are_counted_every_ten_seconds_and_the_first_is_named_once() {
    let (mut scene, mut cut_off) = (scene(&[("a", 1), ("b", 2)]), CutOff::default());
    let counted = |count, first: Option<&str>| Some(Counted { count, first: first.map(key) });
    assert_eq!(cut_off.tick(&scene.view(), &trusted(0), ms(0)), None, "no CA is known yet");
    assert_eq!(cut_off.tick(&scene.view(), &trusted(MADE), ms(250)), counted(2, Some("a")));
    assert_eq!(cut_off.tick(&scene.view(), &trusted(MADE), ms(10_249)), None);
    assert_eq!(cut_off.tick(&scene.view(), &trusted(MADE), ms(10_250)), counted(2, None));
    scene.proxies.connected(&proxy("a"));
    scene.proxies.connected(&proxy("b"));
    assert_eq!(cut_off.tick(&scene.view(), &trusted(MADE), ms(30_000)), counted(0, None));
    scene.proxies.gone(&proxy("b"));
    assert_eq!(cut_off.tick(&scene.view(), &trusted(MADE), ms(50_000)), counted(1, Some("b")));
}
