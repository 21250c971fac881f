//! The selectors of a namespace's sidecar forwards, indexed by a label that each of them requires: a pod is compared
//! only with the selectors that may match it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::{Selector, SelectorOperator};

use crate::hash::hash;

/// Labels of a pod.
pub(super) type Labels = BTreeMap<String, String>;

type ByName = BTreeMap<Arc<str>, Arc<Chosen>>;

/// The selectors by the name of their forward.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    by_name: ByName,
    /// Selectors that require no label with a known value.
    any: ByName,
    /// The other selectors, by key and value of one label that they require.
    by_label: BTreeMap<String, BTreeMap<String, ByName>>,
}

#[derive(Debug)]
struct Chosen {
    selector: Arc<Selector>,
    /// Hash of the forward's name.
    hash: u64,
    /// The label by which the selector is indexed, with every value that it may have.
    label: Option<(String, Vec<String>)>,
}

/// The forwards that select a pod.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// The names of the forwards, sorted.
    pub(super) names: Box<[Arc<str>]>,
    /// The sum of the hashes of the names.
    pub(super) fingerprint: u64,
}

impl Selectors {
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Selector>> {
        self.by_name.get(name).map(|chosen| &chosen.selector)
    }

    /// Sets the selector of a forward; `None` removes it.
    pub(super) fn set(&mut self, name: &str, selector: Option<&Arc<Selector>>) {
        if let Some((name, old)) = self.by_name.remove_entry(name) {
            self.unindex(&name, &old);
        }
        let Some(selector) = selector else { return };
        let label = self.label(selector);
        let chosen = Arc::new(Chosen { selector: selector.clone(), hash: hash(name), label });
        self.index(name.into(), &chosen);
    }

    /// A copy with the selectors of these names only.
    pub(super) fn only(&self, names: &BTreeSet<String>) -> Self {
        let mut few = Self::default();
        for (name, chosen) in names.iter().filter_map(|name| self.by_name.get_key_value(name.as_str())) {
            few.index(name.clone(), chosen);
        }
        few
    }

    /// The forwards that select a pod with these labels. Adds the number of selectors that were compared with the
    /// labels to `compared`.
    pub(super) fn selecting(&self, labels: &Labels, compared: &mut u64) -> Selected {
        let labelled = labels.iter().filter_map(|(key, value)| self.by_label.get(key)?.get(value)).flatten();
        let mut selected = Selected::default();
        let mut names = Vec::new();
        for (name, chosen) in self.any.iter().chain(labelled) {
            *compared += 1;
            if chosen.selector.matches(labels) {
                selected.fingerprint = selected.fingerprint.wrapping_add(chosen.hash);
                names.push(name.clone());
            }
        }
        names.sort_unstable();
        selected.names = names.into();
        selected
    }

    /// The label by which to index a selector: of its required labels, the one that the fewest other selectors are
    /// indexed by.
    fn label(&self, selector: &Selector) -> Option<(String, Vec<String>)> {
        let exact = selector.match_labels.iter().map(|(key, value)| (key, vec![value]));
        let listed = selector.match_expressions.iter().filter(|it| it.operator == SelectorOperator::In);
        let listed = listed.map(|it| (&it.key, it.values.iter().collect::<Vec<_>>()));
        let crowd = |key: &String, value: &String| {
            self.by_label.get(key).and_then(|values| values.get(value)).map_or(0, BTreeMap::len)
        };
        let crowds = |(key, values): &(&String, Vec<&crds::LabelValue>)| -> usize {
            values.iter().map(|value| crowd(key, &value.0)).sum()
        };
        let (key, values) = exact.chain(listed).min_by_key(crowds)?;
        let values: BTreeSet<String> = values.into_iter().map(|value| value.0.clone()).collect();
        Some((key.clone(), values.into_iter().collect()))
    }

    fn index(&mut self, name: Arc<str>, chosen: &Arc<Chosen>) {
        match &chosen.label {
            None => drop(self.any.insert(name.clone(), chosen.clone())),
            Some((key, values)) => {
                let by_value = self.by_label.entry(key.clone()).or_default();
                for value in values {
                    by_value.entry(value.clone()).or_default().insert(name.clone(), chosen.clone());
                }
            }
        }
        self.by_name.insert(name, chosen.clone());
    }

    fn unindex(&mut self, name: &str, chosen: &Chosen) {
        self.any.remove(name);
        let Some((key, values)) = &chosen.label else { return };
        let Some(by_value) = self.by_label.get_mut(key) else { return };
        for value in values {
            if let Some(names) = by_value.get_mut(value) {
                names.remove(name);
                if names.is_empty() {
                    by_value.remove(value);
                }
            }
        }
        if by_value.is_empty() {
            self.by_label.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> Arc<Selector> {
        Arc::new(serde_json::from_str(json).expect("a selector"))
    }

    fn labels(all: &[(&str, &str)]) -> Labels {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn names(selectors: &Selectors, of: &[(&str, &str)]) -> (Vec<String>, u64) {
        let mut compared = 0;
        let selected = selectors.selecting(&labels(of), &mut compared);
        (selected.names.iter().map(ToString::to_string).collect(), compared)
    }

    #[test]
    fn a_pod_is_compared_with_the_selectors_that_may_match_it() {
        let mut selectors = Selectors::default();
        for at in 0..1000 {
            let text = format!("{{\"matchLabels\": {{\"part-of\": \"shop\", \"app\": \"a{at}\"}}}}");
            selectors.set(&format!("f{at}"), Some(&selector(&text)));
        }
        selectors.set("all", Some(&selector("{}")));
        selectors.set(
            "in",
            Some(&selector(
                "{\"matchExpressions\": [{\"key\": \"app\", \"operator\": \"In\", \"values\": [\"a7\", \"b\"]}]}",
            )),
        );
        let (found, compared) = names(&selectors, &[("part-of", "shop"), ("app", "a7")]);
        assert_eq!(found, ["all", "f7", "in"]);
        assert!(compared <= 4, "{compared} of 1002");
        assert_eq!(names(&selectors, &[("app", "b")]), (vec!["all".to_owned(), "in".to_owned()], 2));
    }

    #[test]
    fn a_selector_that_changes_or_goes_leaves_nothing_behind() {
        let mut selectors = Selectors::default();
        selectors.set("f", Some(&selector("{\"matchLabels\": {\"app\": \"a\"}}")));
        selectors.set("f", Some(&selector("{\"matchLabels\": {\"app\": \"b\"}}")));
        assert!(names(&selectors, &[("app", "a")]).0.is_empty());
        assert_eq!(names(&selectors, &[("app", "b")]).0, ["f"]);
        let few = selectors.only(&BTreeSet::from(["f".to_owned(), "gone".to_owned()]));
        assert_eq!(names(&few, &[("app", "b")]).0, ["f"]);
        selectors.set("f", None);
        assert!(selectors.is_empty() && selectors.any.is_empty() && selectors.by_label.is_empty());
        assert_eq!(selectors.get("f"), None);
    }

    #[test]
    fn a_selector_is_shared_with_the_forward_that_has_it() {
        let (mut selectors, given) = (Selectors::default(), selector("{\"matchLabels\": {\"app\": \"a\"}}"));
        selectors.set("f", Some(&given));
        assert!(selectors.get("f").is_some_and(|kept| Arc::ptr_eq(kept, &given)));
    }

    #[test]
    fn the_fingerprint_of_the_same_forwards_is_the_same_in_whatever_order_they_came() {
        let of = |order: [&str; 2]| {
            let mut selectors = Selectors::default();
            for name in order {
                selectors.set(name, Some(&selector("{}")));
            }
            selectors.selecting(&labels(&[]), &mut 0)
        };
        let (one, two) = (of(["a", "b"]), of(["b", "a"]));
        assert_eq!((one.fingerprint, one.names), (two.fingerprint, two.names));
    }
}
