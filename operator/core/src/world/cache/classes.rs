//! Objects of other controller classes. Other operators serve them, and this one ignores them.

use super::{Cache, Touched};
use crate::{
    names::PROXY_LABEL,
    world::{
        ObjectKey, class,
        objects::{Object, PodInfo},
        watched::Kind,
    },
};

impl Cache {
    /// Restricts the cache to the objects of this class.
    #[must_use]
    pub fn of_class(self, class: &str) -> Self {
        Self { class: class.to_owned(), ..self }
    }

    /// Kind, key and class of an object that belongs to an operator of another class.
    pub(super) fn foreign(&self, object: &Object) -> Option<(Kind, ObjectKey, String)> {
        let (kind, key, class) = match object {
            Object::Forward(key, read) => {
                (Kind::Forwards, key, (**read).as_ref().map_or_else(|it| it.class.as_str(), class::of_forward))
            }
            Object::Gateway(key, read) => {
                (Kind::Gateways, key, (**read).as_ref().map_or_else(|it| it.class.as_str(), class::of_gateway))
            }
            _ => return None,
        };
        (class != self.class).then(|| (kind, key.clone(), class.to_owned()))
    }

    /// Leaves an object to the operator of its class. An object of the same name that this operator served is gone.
    pub(super) fn leave(&mut self, kind: Kind, key: &ObjectKey, class: String) -> Touched {
        let is_served = match kind {
            Kind::Forwards => self.world.forwards.contains_key(key) || self.world.unreadable.contains_key(key),
            _ => self.world.gateways.contains_key(key) || self.unreadable_gateways.contains_key(key),
        };
        let mut touched = if is_served { self.remove(kind, key) } else { Touched::default() };
        if kind == Kind::Gateways {
            // The forwards that name this gateway report its class.
            let before = self.world.foreign_gateways.insert(key.clone(), class.clone());
            if before != Some(class) {
                touched.changes.gateways.insert(key.clone());
            }
        }
        touched
    }

    /// Whether a pod carries a proxy of this class, and the problem of a pod that carries a proxy of another class.
    pub(super) fn proxy_of(&self, info: &PodInfo) -> (bool, Option<String>) {
        let carries = info.labels.contains_key(PROXY_LABEL);
        let class = class::of_labels(&info.labels);
        if !carries || class == self.class {
            return (carries, info.problem.clone());
        }
        let problem = format!(
            "its proxy is served by the operator with {}, and a pod has one proxy: give all forwards of the pod the \
             same spec.controllerClass",
            class::words(class)
        );
        (false, Some(problem))
    }
}
