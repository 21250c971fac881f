//! Clusters without a way to the internet: an installation needs the images that docs/install.md lists, and all of them
//! come from the registry that the values of the page name.

use std::collections::BTreeSet;

use harness::{CHARTS, OPERATOR};
use serde_json::Value;

use super::{Document, render_in};

const PAGE: &str = include_str!("../../../../docs/install.md");
/// The options of the page.
const OPTIONS: [&str; 4] =
    ["--set", "global.imageRegistry=registry.example.com/mirror", "--set", "global.imagePullSecrets={mirror}"];
/// The variable with the image of fleets and sidecars.
const PROXY_IMAGE: &str = "PORTLANE_PROXY_IMAGE";

#[test]
fn an_installation_by_the_page_fetches_the_images_of_the_page_from_the_mirror() {
    let [_, registry, _, secrets] = OPTIONS;
    assert!(PAGE.contains(&format!(" --set {registry} --set '{secrets}' --wait\n")), "the page has these options");
    let mut images = BTreeSet::new();
    for document in Document::all(&render_in(OPERATOR, CHARTS[1], &OPTIONS, "").ok()) {
        collect(&document.object, &mut images);
    }
    let version = env!("CARGO_PKG_VERSION");
    let mirrored = ["operator", "proxy"].map(|name| format!("registry.example.com/mirror/portlane/{name}:{version}"));
    assert_eq!(images.iter().collect::<Vec<_>>(), mirrored.iter().collect::<Vec<_>>());
    for image in mirrored {
        assert!(PAGE.contains(&format!(" docker://{image}\n")), "the page copies {image}");
    }
}

/// Collects the images that an object names.
fn collect(value: &Value, images: &mut BTreeSet<String>) {
    let mut take = |image: &Value| images.extend(image.as_str().map(str::to_owned));
    take(&value["image"]);
    if value["name"] == PROXY_IMAGE {
        take(&value["value"]);
    }
    let items = value.as_array().into_iter().flatten();
    let fields = value.as_object().into_iter().flatten().map(|(_, field)| field);
    for below in items.chain(fields) {
        collect(below, images);
    }
}
