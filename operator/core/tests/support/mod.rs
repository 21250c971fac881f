//! Reads a world from YAML: manifests, and one document of kind `World` for everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use operator_core::{
    Grant, Laptop, ObjectKey, Pod, Service, Site, World,
    world::{SidecarPod, reach::Reach},
};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorldDocument {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    laptop: Option<LaptopDocument>,
    #[serde(default)]
    services: BTreeMap<String, Service>,
    #[serde(default)]
    podless: BTreeMap<String, BTreeSet<IpAddr>>,
    #[serde(default)]
    reach: BTreeMap<String, Reach>,
    #[serde(default)]
    api_server: BTreeSet<SocketAddr>,
    #[serde(default)]
    protected: String,
    #[serde(default)]
    pods: BTreeMap<String, Pod>,
    #[serde(default)]
    sidecar_pods: BTreeMap<String, SidecarPod>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    grants: BTreeSet<Grant>,
    #[serde(default)]
    reserved: BTreeMap<u16, String>,
    #[serde(default)]
    reserved_in_gateways: BTreeMap<u16, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LaptopDocument {
    #[serde(default)]
    port_offset: u16,
    #[serde(default)]
    ports: BTreeMap<String, u16>,
}

fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

fn of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectKey {
    ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// The world that a YAML text describes.
pub(crate) fn world(text: &str) -> World {
    let mut world = World::default();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = serde_json::Value::deserialize(document).expect("YAML");
        match value["kind"].as_str() {
            Some("PortForward") => {
                let forward: crds::PortForward = serde_json::from_value(value).expect("PortForward");
                world.forwards.insert(of(&forward.metadata), Box::new(forward));
            }
            Some("ForwardGateway") => {
                let gateway: crds::ForwardGateway = serde_json::from_value(value).expect("ForwardGateway");
                world.gateways.insert(of(&gateway.metadata), gateway);
            }
            Some("ForwardAgent") => {
                let agent: crds::ForwardAgent = serde_json::from_value(value).expect("ForwardAgent");
                world.agents.insert(of(&agent.metadata), agent);
            }
            Some("World") => {
                let document: WorldDocument = serde_json::from_value(value).expect("World");
                fill(&mut world, document);
            }
            other => panic!("kind {other:?}"),
        }
    }
    world
}

fn fill(world: &mut World, document: WorldDocument) {
    if let Some(laptop) = document.laptop {
        let ports = laptop.ports.iter().map(|(name, port)| {
            let (forward, listener) = name.split_once('/').expect("forward/listener");
            ((forward.to_owned(), listener.to_owned()), *port)
        });
        world.site =
            Site::Laptop(Laptop { port_offset: laptop.port_offset, ports: ports.collect(), ..Laptop::default() });
    }
    world.services = document.services.into_iter().map(|(name, service)| (key(&name), service)).collect();
    world.podless = document.podless.into_iter().map(|(name, ips)| (key(&name), ips)).collect();
    world.reach = document.reach.into_iter().map(|(name, reach)| (key(&name), reach)).collect();
    world.api_server = document.api_server;
    world.protected = document.protected.parse().expect("networks");
    world.pods = document.pods.into_iter().map(|(name, pod)| (key(&name), pod)).collect();
    world.sidecar_pods = document.sidecar_pods.into_iter().map(|(name, pod)| (key(&name), pod)).collect();
    world.namespaces = document.namespaces;
    world.grants = document.grants;
    world.reserved = document.reserved;
    world.reserved_in_gateways = document.reserved_in_gateways;
}
