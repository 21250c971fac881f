//! Which fields the installed CRDs lack, and how versions of proxies become labels.

use operator_core::{
    Changes, Touched,
    status::versions::{OTHER, Versions},
    world::schema::{Lack, dropped, lacks, warning},
};
use serde_json::{Value, json};

use crate::scene::{Scene, key};

fn own() -> Vec<Value> {
    crds::crds().expect("the CRDs").into_iter().map(|crd| crd.document).collect()
}

/// What an API server publishes once these CRDs are installed.
fn published(crds: &[Value]) -> Value {
    let schemas = crds.iter().map(|crd| {
        let kind = crd["spec"]["names"]["kind"].as_str().expect("a kind");
        let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        schema["properties"]["metadata"] = json!({"allOf": [{"$ref": "#/components/schemas/ObjectMeta"}]});
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": "portlane.dev", "kind": kind, "version": "v1alpha1"}]);
        (format!("dev.portlane.v1alpha1.{kind}"), schema)
    });
    let schemas: serde_json::Map<String, Value> = schemas.collect();
    json!({"openapi": "3.0.0", "components": {"schemas": schemas}})
}

fn edited(edit: impl Fn(&mut Value)) -> Vec<Lack> {
    let mut installed = own();
    edit(&mut installed[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]);
    lacks(&own(), &published(&installed))
}

fn remove(of: &mut Value, field: &str) {
    of.as_object_mut().expect("an object").remove(field).expect("the field is there");
}

#[test]
fn the_crds_of_the_same_release_lack_nothing() {
    let found = lacks(&own(), &published(&own()));
    let kinds: Vec<&str> = found.iter().map(|lack| lack.kind.as_str()).collect();
    assert_eq!(kinds, ["PortForward", "ForwardGateway", "ForwardAgent"]);
    assert!(found.iter().all(|lack| lack.count == 0 && lack.fields.is_empty()), "{found:?}");
    assert!(found.iter().all(|lack| lack.ignored_count == 0 && lack.ignored.is_empty()), "{found:?}");
    assert!(dropped(&found).is_empty());
}

#[test]
fn fields_that_an_older_crd_lacks_are_named_by_their_paths() {
    let found = edited(|properties| {
        remove(&mut properties["spec"]["properties"], "access");
        remove(&mut properties["spec"]["properties"]["listeners"]["items"]["properties"], "tls");
    });
    assert_eq!((found[0].count, found[1].count), (2, 0));
    assert_eq!(found[0].fields, ["spec.access", "spec.listeners[].tls"]);
}

#[test]
fn every_object_reports_the_fields_that_an_older_crd_drops_and_no_other_kind_does() {
    let found = edited(|properties| {
        remove(&mut properties["spec"]["properties"], "access");
        remove(&mut properties["status"]["properties"], "placement");
    });
    let dropped = dropped(&found);
    let text = warning(&dropped, "PortForward").expect("a warning");
    assert!(text.contains("from manifests: spec.access;") && !text.contains("status"), "{text}");
    assert_eq!(warning(&dropped, "ForwardGateway"), None);
    let mut scene = Scene::with_web();
    scene.cache.world.dropped = dropped;
    scene.translate(Touched { changes: Changes::all(), ..Touched::default() });
    let verdict = scene.translator.verdict(&(&key("web")).into()).expect("a verdict");
    assert_eq!((verdict.accepted.status, &verdict.warnings), (true, &vec![text]));
}

#[test]
fn fields_of_a_newer_crd_are_ignored_by_the_operator_and_a_schema_that_keeps_everything_is_fine() {
    let newer = edited(|properties| {
        properties["spec"]["properties"]["novelty"] = json!({"type": "string"});
        properties["status"]["properties"]["news"] = json!({"type": "string"});
    });
    assert_eq!((newer[0].count, newer[0].ignored_count), (0, 1));
    assert_eq!(newer[0].ignored, ["spec.novelty"], "the operator alone writes status");
    let open = edited(|properties| {
        properties["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    });
    assert_eq!(open[0].count, 0, "nothing is dropped");
}

#[test]
fn a_kind_that_is_not_served_lacks_everything_and_few_fields_are_named() {
    let found = lacks(&own(), &published(&own()[1..]));
    assert_eq!((found[0].count, found[1].count), (2, 0));
    assert_eq!(found[0].fields, ["spec", "status"]);
    for (group, version) in [("example.com", "v1alpha1"), ("portlane.dev", "v1")] {
        // A schema like this one lacks nothing.
        let other = json!({"components": {"schemas": {"x": {
            "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-group-version-kind": [{"group": group, "kind": "PortForward", "version": version}],
        }}}});
        assert_eq!(lacks(&own(), &other)[0].count, 2, "a kind of {group}/{version} is another kind");
    }
    let empty = edited(|properties| properties["spec"] = json!({"type": "object", "properties": {}}));
    assert!(empty[0].count > 5 && empty[0].fields.len() == 5, "{empty:?}");
    let text = warning(&dropped(&empty), "PortForward").expect("a warning");
    assert!(text.contains(", and others;"), "{text}");
}

#[test]
fn versions_of_proxies_are_labels_of_one_form() {
    let mut versions = Versions::new("0.3.0");
    assert_eq!(versions.connected("a", "0.1.0"), ("0.1.0".to_owned(), true));
    assert_eq!(versions.connected("b", "0.1.0"), ("0.1.0".to_owned(), false));
    assert_eq!(versions.connected("a", "0.2.0-rc.1"), ("0.2.0-rc.1".to_owned(), true));
    let long = format!("1.0.0-{}", "9".repeat(17));
    let odd = ["", "1", "1.0", "1.0.0.0", "1.0.x", "1..0", "1.0.100000", "1.0.0-", "1.0.0-a\"}", "1.0.0+b", "ü", &long];
    for odd in odd {
        assert_eq!(versions.connected("a", odd), (OTHER.to_owned(), false), "{odd:?}");
    }
}

#[test]
fn the_numbers_and_the_suffix_of_a_version_are_as_long_as_a_label_may_be() {
    let mut versions = Versions::new("0.3.0");
    let suffix = |length: usize| format!("1.0.0-{}", "a".repeat(length));
    let mut is_label = |version: &str| versions.connected("a", version).0 == version;
    assert!(is_label("99999.0.0") && !is_label("100000.0.0"));
    assert!(is_label(&suffix(1)) && is_label(&suffix(16)) && !is_label(&suffix(17)) && !is_label(&suffix(0)));
}

#[test]
fn versions_that_strangers_invent_take_no_place_from_real_ones() {
    let mut versions = Versions::new("0.3.0");
    let mut named = |namespace: &str| {
        let versions_of = (0..100).map(|at| format!("9.{at}.{}", namespace.len()));
        versions_of.filter(|version| versions.connected(namespace, version).0 != OTHER).count()
    };
    let lengths: Vec<usize> = (1..=9).map(|at| named(&"n".repeat(at))).collect();
    assert_eq!(lengths, [4, 4, 4, 4, 4, 4, 4, 4, 0], "4 of a namespace, 32 of all");
    assert_eq!(versions.connected("shop", "0.3.0").0, "0.3.0", "the operator's own version needs no place");
    assert_eq!(versions.connected("shop", "9.0.1").0, "9.0.1", "a known version keeps its label");
    assert_eq!(versions.connected("shop", "0.2.0").0, OTHER);
    assert!(!versions.left("9.0.1") && versions.left("9.0.1"), "two proxies had the label");
    assert_eq!(versions.connected("shop", "0.2.0"), ("0.2.0".to_owned(), false), "who leaves makes room");
    assert!(!versions.left("0.3.0") && !versions.left(OTHER), "these labels stay");
}
