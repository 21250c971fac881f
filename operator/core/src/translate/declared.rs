//! Objects that forwards come from, in neutral form. No later step of the translation knows their kinds.

use proxy_api::Origin;

use crate::{
    translate::validate::{ValidForward, Violation, validate},
    world::{ObjectKey, World},
};

/// What the object that a forward comes from declares.
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
        Some(Self { object, gateway, forward: validate(forward) })
    }
}
