//! Decides which proxies may follow the operator now, and which listeners they keep although the operator cannot read
//! them.

use std::collections::BTreeSet;

use crate::world::{
    ObjectKey,
    cache::{Cache, Touched},
    carrier::Carrier,
    changes::Changes,
};

/// A proxy that opens a stream, as its token names it.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    /// The pod.
    pub pod: &'a ObjectKey,
    /// Uid of the pod.
    pub uid: &'a str,
    /// `ServiceAccount` of the pod.
    pub service_account: &'a str,
}

/// The answer to a proxy that opens a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The proxy may follow.
    Follow {
        /// Forwards that cannot be read, whose listeners the proxy keeps as they are.
        exempt: BTreeSet<ObjectKey>,
    },
    /// The configuration of the proxy is not known yet.
    NotSynced,
    /// No pod has this uid and `ServiceAccount` (yet).
    UnknownPod,
    /// The operator expects no proxy in the pod, for this reason.
    Unexpected(&'static str),
}

impl Cache {
    /// Whether a proxy may follow. `is_published` says whether a translation has been published in this term, and
    /// `untranslated` has the changes that no translation covers yet.
    #[must_use]
    pub fn admission(&self, applicant: Applicant<'_>, is_published: bool, untranslated: &Changes) -> Admission {
        if !self.is_synced() || !is_published {
            return Admission::NotSynced;
        }
        let Applicant { pod, uid, service_account } = applicant;
        let is_known = match self.carrier(pod, uid, service_account) {
            // The fleet of an unreadable gateway has an unknown configuration: its proxies keep running the one that
            // they have.
            Carrier::Gateway(gateway) => {
                self.unreadable_gateway(&gateway).is_none() || self.world.gateways.contains_key(&gateway)
            }
            // A sidecar that is not translated yet would be sent an empty configuration, and its app would start
            // without its listeners.
            Carrier::Sidecar => {
                !self.has_sidecars(&pod.namespace)
                    || self.knows_selected(pod, uid) && !is_untranslated(pod, untranslated)
            }
            Carrier::Unknown => return Admission::UnknownPod,
            Carrier::Unexpected(why) => return Admission::Unexpected(why),
        };
        if !is_known {
            return Admission::NotSynced;
        }
        let exempt = self.world.unreadable.keys().filter(|key| self.is_exempt(key)).cloned().collect();
        Admission::Follow { exempt }
    }

    /// Whether proxies still have to keep the listeners of all these forwards. If not, a forward became readable or is
    /// gone, and the proxies have to connect again: only a proxy that reports its listeners can be brought in line.
    #[must_use]
    pub fn are_exempt(&self, forwards: &BTreeSet<ObjectKey>) -> bool {
        forwards.iter().all(|key| self.is_exempt(key))
    }

    /// The touched pods that are gone.
    pub fn gone_pods<'a>(&'a self, touched: &'a Touched) -> impl Iterator<Item = &'a ObjectKey> {
        touched.proxy_pods.iter().chain(&touched.changes.pods).filter(|pod| self.pod(pod).is_none())
    }

    /// Whether no version of a forward can be read, so that the translation knows nothing of its listeners.
    fn is_exempt(&self, forward: &ObjectKey) -> bool {
        self.world.unreadable.contains_key(forward) && !self.world.forwards.contains_key(forward)
    }
}

/// Whether a change that affects the configuration of a pod has not been translated yet.
fn is_untranslated(pod: &ObjectKey, changes: &Changes) -> bool {
    let first = ObjectKey::new(pod.namespace.clone(), "");
    let forward = changes.forwards.range(first..).next();
    changes.pods.contains(pod) || forward.is_some_and(|forward| forward.namespace == pod.namespace)
}
