//! The listeners whose series are exposed. A change costs what it concerns; only a scrape visits all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use proxy_api::ListenerId;

use crate::{
    core::workers::{load::ByForward, walk::Walk},
    shared::Shared,
};

/// The live listeners, by name, and removed ones that still have sessions.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    live: BTreeMap<ListenerId, Arc<Shared>>,
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

    /// Adds the counters of the next `most` live listeners and of the removed ones among them. A listener that is removed
    /// during the walk keeps its place in the order of names, so that it is counted once.
    pub(super) fn count(&self, walk: &mut Walk<ListenerId>, most: usize, counts: &mut ByForward) {
        let behind = walk.last().cloned();
        let live = walk.step(&self.live, most);
        let to = walk.last();
        let is_among = |id: &ListenerId| behind.as_ref().is_none_or(|from| id > from) && to.is_none_or(|to| id <= to);
        let retired = self.retired.iter().filter(|shared| is_among(&shared.id));
        for shared in live.into_iter().map(|(_, shared)| shared).chain(retired) {
            let counters = &shared.counters;
            let counts = counts.entry(shared.id.origin.to_string()).or_default();
            counts.live += counters.active();
            counts.begun += counters.opened.load(Relaxed);
            counts.bytes += counters.up.load(Relaxed) + counters.down.load(Relaxed);
        }
    }

    /// All listeners, in the order of [`Self::iter`].
    pub(super) fn to_vec(&self) -> Vec<Arc<Shared>> {
        self.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;

    use super::*;
    use crate::fixtures::template;

    fn id(name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", "f"), name)
    }

    fn shared(name: &str) -> Arc<Shared> {
        Shared::new(id(name), Arc::new(template()), Arc::default(), Arc::default())
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

    /// Sessions begun over all forwards, counted in steps of two listeners. `between` changes them after each step.
    fn begun(exposed: &mut Exposed, mut between: impl FnMut(usize, &mut Exposed)) -> (u64, usize) {
        let (mut walk, mut counts, mut steps) = (Walk::default(), ByForward::new(), 0);
        loop {
            exposed.count(&mut walk, 2, &mut counts);
            steps += 1;
            if !walk.is_under_way() {
                return (counts.values().map(|counts| counts.begun).sum(), steps);
            }
            between(steps, exposed);
        }
    }

    #[test]
    fn each_listener_is_counted_once_also_if_it_is_removed_meanwhile() {
        let names = ["a", "b", "c", "d", "e"];
        let all = names.map(shared);
        let mut bit = 1;
        for shared in &all {
            shared.counters.opened.store(bit, Relaxed);
            bit *= 2;
        }
        for (at, removed) in (0..).zip(&all) {
            for when in 0..4 {
                let mut exposed = Exposed::default();
                exposed.change(all.iter().map(|shared| (&shared.id, Some(shared))), &[]);
                let remove = |steps: usize, exposed: &mut Exposed| {
                    if steps == when {
                        exposed.change([(&removed.id, None)].into_iter(), std::slice::from_ref(removed));
                    }
                };
                if when == 0 {
                    remove(0, &mut exposed);
                }
                let (begun, steps) = begun(&mut exposed, remove);
                assert_eq!(begun, 31, "{at} is removed after step {when}");
                assert!(steps <= 3, "{at} is removed after step {when}");
            }
        }
    }
}
