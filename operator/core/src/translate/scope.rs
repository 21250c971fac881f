//! The namespaces that a gateway admits.

use crds::{From, NamespaceScope};

use crate::world::{ObjectKey, World};

/// Whether a gateway admits a namespace by this scope. An absent scope admits the gateway's own namespace.
pub(crate) fn is_in_scope(world: &World, gateway: &ObjectKey, scope: Option<&NamespaceScope>, namespace: &str) -> bool {
    match scope.map(|scope| (scope.from, scope.selector.as_ref())) {
        None | Some((From::Same, _)) => gateway.namespace == namespace,
        Some((From::All, _)) => true,
        Some((From::Selector, selector)) => {
            let labels = world.namespaces.get(namespace);
            selector.zip(labels).is_some_and(|(selector, labels)| selector.matches(labels))
        }
    }
}
