//! The pod selectors of sidecar forwards.

use std::{collections::BTreeMap, sync::Arc};

use crds::Selector;
use imbl::OrdMap;

use crate::world::ObjectKey;

/// Pod selectors of sidecar forwards, shared with the cache of objects. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Selectors(OrdMap<ObjectKey, Arc<Selector>>);

impl Selectors {
    /// Sets the selector of a forward. Absent: the forward is gone or has no sidecar placement. Returns whether the
    /// selector changed.
    pub fn set(&mut self, key: &ObjectKey, selector: Option<&Arc<Selector>>) -> bool {
        if self.0.get(key) == selector {
            return false;
        }
        match selector {
            Some(selector) => drop(self.0.insert(key.clone(), selector.clone())),
            None => drop(self.0.remove(key)),
        }
        true
    }

    /// Whether any forward of a namespace selects a pod with these labels.
    #[must_use]
    pub fn select(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let first = ObjectKey::new(namespace, "");
        self.0.range(first..).take_while(|(key, _)| key.namespace == namespace).any(|(_, it)| it.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(app: &str) -> Arc<Selector> {
        let text = format!("{{\"matchLabels\": {{\"app\": \"{app}\"}}}}");
        serde_json::from_str(&text).expect("a selector")
    }

    fn labels(app: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("app".to_owned(), app.to_owned())])
    }

    #[test]
    fn selectors_are_those_of_the_cache_until_they_change_or_are_gone() {
        let key = |name: &str| ObjectKey::new("ns", name);
        let mut selectors = Selectors::default();
        let shared = selector("shop");
        for (name, selector) in [("a", &shared), ("c", &shared), ("b", &shared), ("d", &selector("other"))] {
            assert!(selectors.set(&key(name), Some(selector)));
            assert!(!selectors.set(&key(name), Some(selector)), "nothing changes");
        }
        let all = &selectors.0;
        assert!(["a", "b", "c"].iter().all(|name| Arc::ptr_eq(&all[&key(name)], &shared)));
        assert_eq!(all[&key("d")], selector("other"));
        assert!(selectors.set(&key("b"), Some(&selector("third"))));
        assert!(["shop", "other", "third"].iter().all(|app| selectors.select("ns", &labels(app))));
        for name in ["a", "c"] {
            assert!(selectors.set(&key(name), None) && !selectors.set(&key(name), None));
        }
        assert!(!selectors.select("ns", &labels("shop")));
    }

    #[test]
    fn a_forward_selects_pods_of_its_own_namespace_only() {
        let mut selectors = Selectors::default();
        for namespace in ["a", "c"] {
            selectors.set(&ObjectKey::new(namespace, "shop"), Some(&selector("shop")));
        }
        let selected = ["", "a", "b", "c", "d"].map(|namespace| selectors.select(namespace, &labels("shop")));
        assert_eq!(selected, [false, true, false, true, false]);
    }
}
