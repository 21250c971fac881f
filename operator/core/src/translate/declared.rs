//! Objects that forwards come from, in neutral form. No later step of the translation knows their kinds.

use proxy_api::Origin;

use crate::{
    translate::validate::{ValidForward, Violation, validate_for},
    world::{ObjectKey, World},
};

/// The declarations of the object that a forward comes from.
#[derive(Debug)]
pub(crate) struct Declared {
    /// UID and generation of the object.
    pub(crate) object: (Option<String>, Option<i64>),
    /// The gateway that the object names, whether the object is valid or not.
    pub(crate) gateway: Option<ObjectKey>,
    /// The forward, or the rules that the object violates.
    pub(crate) forward: Result<ValidForward, Vec<Violation>>,
}

impl Declared {
    /// Reads the object of an origin in its last readable version; `None` if there is none.
    pub(crate) fn read(world: &World, origin: &Origin) -> Option<Self> {
        let forward = world.forward(origin)?;
        let gateway = forward.spec.placement.gateway.as_ref().map(|gateway| {
            let namespace = gateway.namespace.as_ref().unwrap_or(&origin.namespace);
            ObjectKey::new(&**namespace, &*gateway.name)
        });
        let object = (forward.metadata.uid.clone(), forward.metadata.generation);
        Some(Self { object, gateway, forward: validate_for(forward, world.site.is_laptop()) })
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::SIDECAR_STREAM;
    use serde_json::json;

    use super::*;
    use crate::world::{Laptop, Site};

    #[test]
    fn a_sidecar_with_a_stream_is_valid_on_a_laptop_and_refused_in_a_cluster() {
        let store = json!({"jetStream": {"url": "nats://n", "maxBytes": 16_777_216}});
        let forward = json!({
            "metadata": {"name": "f", "namespace": "a"},
            "spec": {
                "placement": {"sidecar": {"selector": {}}},
                "listeners": [{
                    "name": "l", "protocol": "UDP", "port": 514, "durable": {"send": {"relp": {}}, "store": store},
                    "backends": [{"address": {"host": "192.0.2.1", "port": 1}}],
                }],
            },
        });
        let mut world = World::default();
        world.forwards.insert(ObjectKey::new("a", "f"), serde_json::from_value(forward).expect("a forward"));
        let read = |world: &World| Declared::read(world, &Origin::port_forward("a", "f")).expect("it is there").forward;
        let violations = read(&world).expect_err("a cluster");
        assert_eq!(violations.len(), 1);
        let refused = format!("spec.listeners[0].durable.store.jetStream: {SIDECAR_STREAM}");
        assert_eq!(violations[0].to_string(), refused);
        world.site = Site::Laptop(Laptop::default());
        assert!(read(&world).is_ok());
    }
}
