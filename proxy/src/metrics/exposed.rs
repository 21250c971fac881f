//! The listeners whose series are exposed. A change costs what it concerns; only a scrape looks at all of them.

use std::{collections::BTreeMap, sync::Arc};

use proxy_api::ListenerId;

use crate::shared::Shared;

/// The live listeners, by name, and removed ones that still have sessions.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    live: BTreeMap<Arc<ListenerId>, Arc<Shared>>,
    retired: Vec<Arc<Shared>>,
}

impl Exposed {
    /// Replaces live listeners, or removes those without a replacement, and replaces all removed ones.
    pub(super) fn change<'a>(
        &mut self,
        changed: impl Iterator<Item = (&'a ListenerId, Option<&'a Arc<Shared>>)>,
        retired: &[Arc<Shared>],
    ) {
        for (id, shared) in changed {
            match shared {
                Some(shared) => drop(self.live.insert(shared.id.clone(), shared.clone())),
                None => drop(self.live.remove(id)),
            }
        }
        self.retired = retired.to_vec();
    }

    /// All listeners: the live ones in the order of their names, then the removed ones.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Shared>> {
        self.live.values().chain(&self.retired)
    }

    /// All listeners, in the order of [`Self::iter`].
    pub(super) fn to_vec(&self) -> Vec<Arc<Shared>> {
        self.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::{Configuration, Origin};

    use super::*;

    fn id(name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", "f"), name)
    }

    fn shared(name: &str) -> Arc<Shared> {
        let text = include_str!("../../../proxy-api/tests/documents/v1.yaml");
        let document = Configuration::decode(text.as_bytes()).expect("v1");
        let spec = Arc::new(document.supported().next().expect("one").1.clone());
        Shared::new(id(name), spec, Arc::default(), Arc::default())
    }

    #[test]
    fn a_change_names_the_listeners_that_it_concerns_and_the_others_stay() {
        let (a, b, c, replaced) = (shared("a"), shared("b"), shared("c"), shared("a"));
        let mut exposed = Exposed::default();
        exposed.change([(&id("c"), Some(&c)), (&id("a"), Some(&a)), (&id("b"), Some(&b))].into_iter(), &[]);
        exposed.change([(&id("a"), Some(&replaced)), (&id("b"), None)].into_iter(), std::slice::from_ref(&b));
        let all = exposed.to_vec();
        let expected = [&replaced, &c, &b];
        assert_eq!(all.len(), expected.len());
        assert!(all.iter().zip(expected).all(|(is, expected)| Arc::ptr_eq(is, expected)), "by name, then removed ones");
        exposed.change(std::iter::empty(), &[]);
        assert_eq!(exposed.iter().count(), 2, "the last session of the removed listener has ended");
    }
}
