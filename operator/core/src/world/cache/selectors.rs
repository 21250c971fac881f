//! One copy of a selector for the forwards of one app.

use std::ops::Bound::{Excluded, Unbounded};

use crds::PortForward;

use super::Cache;
use crate::world::ObjectKey;

impl Cache {
    /// Shares with a forward the selector of its last version, or of a neighbour in the order of names, if that is
    /// equal. The map of labels of a selector takes more memory than the rest of most specs, and the forwards of one
    /// app are often neighbours.
    pub(super) fn share_selector(&self, key: &ObjectKey, forward: &mut PortForward) {
        let Some(own) = &mut forward.spec.placement.sidecar else { return };
        let known = &self.world.forwards;
        let before = known.range::<ObjectKey, _>(..key).next_back();
        let after = known.range::<ObjectKey, _>((Excluded(key), Unbounded)).next();
        let beside = before.into_iter().chain(after).map(|(_, forward)| forward);
        let placements = known.get(key).into_iter().chain(beside).map(|forward| &forward.spec.placement);
        let mut selectors = placements.filter_map(|it| it.sidecar.as_ref()).map(|sidecar| &sidecar.selector);
        if let Some(same) = selectors.find(|selector| ***selector == *own.selector) {
            own.selector = same.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crds::Selector;
    use serde_json::json;

    use super::*;

    fn see(cache: &mut Cache, name: &str, app: &str) {
        let placement = json!({"sidecar": {"selector": {"matchLabels": {"app": app}}}});
        let forward = json!({
            "metadata": {"namespace": "ns", "name": name},
            "spec": {"placement": placement, "listeners": []},
        });
        let forward = serde_json::from_value(forward).expect("a forward");
        cache.take_forward(ObjectKey::new("ns", name), Ok(forward));
    }

    fn selector(cache: &Cache, name: &str) -> Arc<Selector> {
        let forward = &cache.world.forwards[&ObjectKey::new("ns", name)];
        forward.spec.placement.sidecar.as_ref().expect("a sidecar").selector.clone()
    }

    fn have_one(cache: &Cache, names: [&str; 2]) -> bool {
        let [one, other] = names.map(|name| selector(cache, name));
        Arc::ptr_eq(&one, &other)
    }

    #[test]
    fn forwards_of_one_app_share_a_selector_and_another_selector_is_their_own() {
        let mut cache = Cache::default();
        for (name, app) in [("a", "shop"), ("c", "shop"), ("b", "shop"), ("d", "other")] {
            see(&mut cache, name, app);
        }
        assert!(have_one(&cache, ["a", "b"]) && have_one(&cache, ["b", "c"]) && !have_one(&cache, ["c", "d"]));
        let only = selector(&cache, "d");
        see(&mut cache, "d", "other");
        assert!(Arc::ptr_eq(&only, &selector(&cache, "d")), "a version with the same selector");
        see(&mut cache, "b", "third");
        let app = |name: &str| selector(&cache, name).match_labels["app"].0.clone();
        assert_eq!(["a", "b", "c", "d"].map(app), ["shop", "third", "shop", "other"]);
    }
}
