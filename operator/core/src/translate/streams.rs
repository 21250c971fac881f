//! Streams of NATS servers. A listener requests a stream, and its gateway names the server and the credentials: a user
//! who may write forwards but not the gateway cannot send the credentials anywhere.

use crds::GatewayJetStream;
use proxy_api::{Durable, Store};

use crate::{
    translate::validate::{Placement, ValidForward},
    world::World,
};

/// Why the gateway of a forward has no server for the streams of its listeners, in a cluster.
pub(crate) fn refusal(world: &World, forward: &ValidForward) -> Option<String> {
    let Placement::Gateway(key) = &forward.placement else { return None };
    if world.site.is_laptop() || server(world, &forward.placement).is_some() {
        return None;
    }
    let listener = forward.listeners.iter().find(|listener| listener.durable.as_deref().is_some_and(is_stream))?;
    Some(format!(
        "ForwardGateway {key} has no spec.jetStream for store.jetStream of listener '{}': ask its owner to set it, or \
         use store.disk",
        listener.name
    ))
}

/// The durable listener in the contract with its proxies: its stream is on the server that the gateway names today.
/// `None` if the gateway no longer names one.
pub(crate) fn served(world: &World, placement: &Placement, durable: &Durable) -> Option<Durable> {
    let mut served = durable.clone();
    if world.site.is_laptop() {
        return Some(served);
    }
    if let Store::JetStream { url, credentials_name, replicas, .. } = &mut served.store {
        let named = server(world, placement)?;
        url.clone_from(&named.url);
        *credentials_name = named.credentials_ref.as_ref().map(|secret| secret.name.clone());
        *replicas = named.replicas.unwrap_or(1);
    }
    Some(served)
}

fn is_stream(durable: &Durable) -> bool {
    matches!(durable.store, Store::JetStream { .. })
}

/// The server that the gateway of a placement names.
fn server<'a>(world: &'a World, placement: &Placement) -> Option<&'a GatewayJetStream> {
    let Placement::Gateway(key) = placement else { return None };
    world.gateways.get(key)?.spec.jet_stream.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        translate::validate::validate,
        world::{Laptop, ObjectKey, Site},
    };

    /// A world whose gateway has this spec.
    fn world(spec: &Value) -> World {
        let mut world = World::default();
        let gateway = json!({"metadata": {"name": "edge", "namespace": "infra"}, "spec": spec});
        world.gateways.insert(ObjectKey::new("infra", "edge"), serde_json::from_value(gateway).expect("a gateway"));
        world
    }

    /// A forward in that gateway, whose listener has this store.
    fn forward(store: &Value) -> ValidForward {
        let forward = json!({
            "metadata": {"name": "f", "namespace": "infra"},
            "spec": {
                "placement": {"gateway": {"name": "edge"}},
                "listeners": [{
                    "name": "l", "protocol": "TCP", "port": 514, "durable": {"send": {"relp": {}}, "store": store},
                    "backends": [{"address": {"host": "192.0.2.1", "port": 1}}],
                }],
            },
        });
        validate(&serde_json::from_value(forward).expect("a forward")).expect("valid")
    }

    fn stream() -> ValidForward {
        forward(&json!({"jetStream": {"maxBytes": 16_777_216}}))
    }

    /// The store of the listener for its proxies.
    fn store(world: &World, forward: &ValidForward) -> Option<Value> {
        let durable = forward.listeners[0].durable.as_deref().expect("durable");
        let served = served(world, &forward.placement, durable)?;
        Some(serde_json::to_value(served.store).expect("JSON"))
    }

    #[test]
    fn a_stream_is_on_the_server_of_the_gateway_with_its_secret_and_its_replicas() {
        let named = json!({"url": "nats://a:4222", "credentialsRef": {"name": "s"}, "replicas": 3});
        let (first, second) = (world(&json!({"jetStream": named})), world(&json!({"jetStream": {"url": "nats://b"}})));
        let expected = json!({"url": "nats://a:4222", "credentialsName": "s", "replicas": 3, "maxBytes": 16_777_216});
        assert_eq!(store(&first, &stream()), Some(json!({"jetStream": expected})));
        let expected = json!({"url": "nats://b", "replicas": 1, "maxBytes": 16_777_216});
        assert_eq!(store(&second, &stream()), Some(json!({"jetStream": expected})), "as it is today");
        assert_eq!((refusal(&first, &stream()), refusal(&second, &stream())), (None, None));
    }

    #[test]
    fn a_gateway_without_a_server_takes_no_streams_and_logs_on_disk_as_ever() {
        let world = world(&json!({}));
        let refused = refusal(&world, &stream()).expect("no server");
        assert!(refused.contains("infra/edge has no spec.jetStream for store.jetStream of listener 'l'"), "{refused}");
        assert_eq!(store(&world, &stream()), None);
        let disk = forward(&json!({"disk": {"maxBytes": 16_777_216}}));
        assert_eq!(refusal(&world, &disk), None);
        assert_eq!(store(&world, &disk), Some(json!({"disk": {"maxBytes": 16_777_216}})));
    }

    #[test]
    fn a_laptop_leaves_a_stream_where_its_listener_says() {
        let mut world = world(&json!({"jetStream": {"url": "nats://b"}}));
        world.site = Site::Laptop(Laptop::default());
        let mut forward = stream();
        if let Some(Store::JetStream { url, .. }) = forward.listeners[0].durable.as_deref_mut().map(|it| &mut it.store)
        {
            "nats://mine".clone_into(url);
        }
        assert_eq!(refusal(&world, &forward), None);
        assert_eq!(store(&world, &forward).expect("a store")["jetStream"]["url"], "nats://mine");
    }
}
