//! Sidecars that have another image than new pods get.

use std::collections::{BTreeMap, BTreeSet};

use operator_core::{
    ObjectKey,
    schedule::outdated_sidecars::{Counted, OTHERS, OutdatedSidecars},
    world::objects::{Object, PodInfo},
};
use serde_json::{Value, json};

use crate::{
    read_objects::proxy_pod,
    scene::{Scene, app_pod, fleet_pod, key, ms},
};

fn sidecar(image: &str) -> PodInfo {
    PodInfo { sidecar_image: Some(image.to_owned()), ..app_pod("p") }
}

#[allow(clippy::unnecessary_wraps, reason = "the form that the comparison takes")]
fn counted(by_namespace: &[(&str, usize)], gone: &[&str]) -> Option<Counted> {
    let by_namespace: BTreeMap<String, usize> =
        by_namespace.iter().map(|(namespace, count)| ((*namespace).to_owned(), *count)).collect();
    let gone: BTreeSet<String> = gone.iter().map(|namespace| (*namespace).to_owned()).collect();
    Some(Counted { by_namespace, gone })
}

#[test]
fn sidecars_of_another_image_are_counted_every_ten_seconds() {
    let mut scene = Scene::new();
    let mut sidecars = OutdatedSidecars::default();
    scene.see(Object::ProxyPod(key("new"), sidecar("proxy:2")));
    scene.see(Object::ProxyPod(key("old"), sidecar("proxy:1")));
    scene.see(Object::ProxyPod(key("leaves"), PodInfo { leaving: true, ..sidecar("proxy:1") }));
    scene.see(Object::ProxyPod(key("fleet"), fleet_pod("fleet", true)));
    assert_eq!(sidecars.tick(&scene.cache, "proxy:2", ms(0)), counted(&[("ns", 1)], &[]));
    assert!(sidecars.namespaces().iter().eq(["ns"]));
    assert_eq!(sidecars.tick(&scene.cache, "proxy:2", ms(9999)), None);
    scene.see(Object::ProxyPod(key("old"), sidecar("proxy:2")));
    assert_eq!(sidecars.tick(&scene.cache, "proxy:2", ms(10_000)), counted(&[], &["ns"]));
    assert_eq!(sidecars.tick(&scene.cache, "proxy:2", ms(20_000)), counted(&[], &[]));
}

#[test]
fn the_namespaces_with_the_most_have_a_number_of_their_own() {
    let mut scene = Scene::new();
    for namespace in 0..70 {
        // The later namespaces have two each.
        for pod in 0..=usize::from(namespace >= 6) {
            let key = ObjectKey::new(format!("n{namespace:02}"), format!("p{pod}"));
            scene.see(Object::ProxyPod(key, sidecar("proxy:1")));
        }
    }
    let counted = OutdatedSidecars::default().tick(&scene.cache, "proxy:2", ms(0)).expect("a count");
    assert_eq!((counted.by_namespace.len(), counted.by_namespace[OTHERS]), (65, 6));
    assert!(counted.by_namespace.contains_key("n69") && !counted.by_namespace.contains_key("n05"));
}

#[test]
fn the_image_of_a_sidecar_counts_unless_its_pod_chose_it() {
    let image = |annotations: &Value, container: &str| {
        let proxy = json!({"name": container, "image": "proxy:1"});
        let spec = json!({"initContainers": [proxy], "containers": [{"name": "app", "image": "shop:1"}]});
        proxy_pod(json!({"metadata": {"name": "p", "namespace": "ns", "annotations": annotations}, "spec": spec}))
            .sidecar_image
    };
    assert_eq!(image(&json!(null), "portlane-proxy").as_deref(), Some("proxy:1"));
    assert_eq!(image(&json!({"portlane.dev/proxy-image": "two words"}), "portlane-proxy").as_deref(), Some("proxy:1"));
    assert_eq!(image(&json!({"portlane.dev/proxy-image": "proxy:1"}), "portlane-proxy"), None);
    assert_eq!(image(&json!(null), "init"), None);
}
