//! The revision of a fleet's pods: one part for the installation, and one for the gateway.
//!
//! Both parts are fingerprints in annotations of the workload. A fleet whose first fingerprint differs from the
//! operator's is outdated, whatever the difference is: the image, another setting of the installation, or what this
//! release of the operator writes into pods.

use crds::{ForwardGateway, ForwardGatewaySpec};
use serde_json::json;

use crate::{
    desired::{
        gateway::{Fleets, pod_template},
        jetstream, tunnels,
    },
    hash::hash,
    world::{ObjectKey, objects::Revision},
};

/// The revision of a gateway's fleet under these settings of the installation. `fleets.image` is the image of this
/// fleet, see [`image`].
#[must_use]
pub fn revision(gateway: &ForwardGateway, fleets: &Fleets) -> Revision {
    let spec = &gateway.spec;
    let mut own = vec![
        json!(spec.pod_template),
        json!(spec.drain_seconds),
        json!(spec.proxy_image),
        json!(spec.controller_class),
    ];
    // A gateway without tunnels keeps the fingerprint from releases without tunnels.
    own.extend(tunnels::of_pods(gateway));
    own.extend(jetstream::of_pods(gateway));
    let own = json!(own);
    // The pods of a gateway without settings of its own show everything that the installation writes. The CA bundle is
    // left out: a new signing certificate has to reach every fleet at once.
    let plain = ForwardGateway::new("", ForwardGatewaySpec::default());
    let template = pod_template(&ObjectKey::default(), &plain, fleets, "");
    Revision { installation: fingerprint(&template.to_string()), gateway: fingerprint(&own.to_string()) }
}

fn fingerprint(text: &str) -> String {
    format!("{:016x}", hash(text))
}

/// The image of a gateway's proxies: the installation's, or another tag or digest in the same repository.
#[must_use]
pub fn image(gateway: &ForwardGateway, installation: &str) -> String {
    let Some(pin) = &gateway.spec.proxy_image else { return installation.to_owned() };
    let repository = repository(installation);
    match (&pin.digest, &pin.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, Some(tag)) => format!("{repository}:{tag}"),
        (None, None) => installation.to_owned(),
    }
}

/// The image without tag and digest. A colon before the last slash belongs to the port of the registry.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_pin_chooses_a_tag_or_a_digest_and_never_the_repository() {
        let pinned = |pin: serde_json::Value, installation: &str| {
            let spec = serde_json::from_value(json!({"proxyImage": pin})).expect("a spec");
            image(&ForwardGateway::new("edge", spec), installation)
        };
        let tag = json!({"tag": "0.1.0"});
        assert_eq!(pinned(json!(null), "proxy:1"), "proxy:1");
        assert_eq!(pinned(tag.clone(), "proxy"), "proxy:0.1.0");
        assert_eq!(pinned(tag.clone(), "proxy:1"), "proxy:0.1.0");
        assert_eq!(pinned(tag.clone(), "localhost:5000/a/proxy:1"), "localhost:5000/a/proxy:0.1.0");
        assert_eq!(pinned(tag.clone(), "localhost:5000/a/proxy"), "localhost:5000/a/proxy:0.1.0");
        assert_eq!(pinned(tag, &format!("r.example.com/proxy:1@{DIGEST}")), "r.example.com/proxy:0.1.0");
        assert_eq!(pinned(json!({"digest": DIGEST}), "r.example.com/proxy:1"), format!("r.example.com/proxy@{DIGEST}"));
        assert_eq!(pinned(json!({}), "proxy:1"), "proxy:1", "the API server refuses this pin");
    }

    #[test]
    fn a_revision_has_a_part_of_the_installation_and_a_part_of_the_gateway() {
        let of = |spec: serde_json::Value, image: &str| {
            let gateway = ForwardGateway::new("edge", serde_json::from_value(spec).expect("a spec"));
            revision(&gateway, &Fleets { image: image.to_owned(), ..Fleets::default() })
        };
        let first = of(json!({}), "proxy:1");
        assert_eq!(of(json!({"replicas": 7, "service": {"type": "NodePort"}}), "proxy:1"), first, "no pod changes");
        let next = of(json!({}), "proxy:2");
        assert!(next.installation != first.installation && next.gateway == first.gateway);
        for own in [
            json!({"drainSeconds": 9}),
            json!({"podTemplate": {"labels": {"a": "b"}}}),
            json!({"proxyImage": {"tag": "1"}}),
            json!({"tunnels": {}}),
        ] {
            let other = of(own, "proxy:1");
            assert!(other.installation == first.installation && other.gateway != first.gateway);
        }
        let tunnels = |tunnels: serde_json::Value| of(json!({"tunnels": tunnels}), "proxy:1");
        let scope = json!({"allowedAgents": {"namespaces": {"from": "All"}}, "advertise": ["a.example:1"]});
        assert_eq!(tunnels(scope), tunnels(json!({"port": 7443})), "no pod changes");
        assert_ne!(tunnels(json!({"port": 7444})), tunnels(json!({})));
        assert_ne!(tunnels(json!({"maxAgents": 7})), tunnels(json!({})));
    }

    #[test]
    fn the_objects_of_a_gateways_nats_servers_belong_to_its_part_and_their_address_does_not() {
        let of = |spec: serde_json::Value| {
            let gateway = ForwardGateway::new("edge", serde_json::from_value(spec).expect("a spec"));
            revision(&gateway, &Fleets { image: "proxy:1".to_owned(), ..Fleets::default() })
        };
        let plain = of(json!({}));
        let url = "nats://nats:4222";
        assert_eq!(of(json!({"jetStream": {"url": url}})), plain, "no pod changes");
        let [one, other, authority] = [
            json!({"url": url, "credentialsRef": {"name": "a"}}),
            json!({"url": url, "credentialsRef": {"name": "b"}}),
            json!({"url": url, "caRef": {"name": "a"}}),
        ]
        .map(|server| of(json!({"jetStream": server})));
        assert!(one.installation == plain.installation && one.gateway != plain.gateway);
        assert!(other.gateway != one.gateway && other.gateway != plain.gateway);
        assert!(authority.gateway != one.gateway && authority.gateway != plain.gateway);
    }
}
