//! What proxies say, and what they and autoscalers are answered.

use std::collections::BTreeSet;

use proxy_api::{ListenerId, Origin};

use super::Driver;
use operator_core::{Changes, ObjectKey, metrics_api::api::Of, schedule::Effect, status::events::of_cut};

use crate::inputs::{
    identity::Identity,
    metrics_api::Question,
    streams::{Admission, FromStream},
};

impl Driver {
    pub(super) fn heard(&mut self, message: FromStream) {
        match message {
            FromStream::Connected { identity, id, reply } => {
                let admission = self.admit(&identity, id);
                let pod = identity.pod;
                if reply.send(admission).is_err()
                    && let Some(leading) = &mut self.leading
                    && leading.publisher.disconnect(&pod, id)
                {
                    // It left meanwhile, and no stream will say so.
                    leading.proxies.gone(&pod);
                }
            }
            FromStream::Reported { pod, id, part, agreed } => {
                let Some(leading) = &mut self.leading else { return };
                if !leading.publisher.is_newest(&pod, id) {
                    return;
                }
                let whole = part.commit;
                let changed = leading.proxies.reported(&pod, *part, agreed);
                let forwards: BTreeSet<ObjectKey> = changed.iter().map(forward).collect();
                let now = self.now();
                self.schedules.statuses.reported(forwards, whole, now);
            }
            FromStream::Loaded { pod, id, load } => {
                let Some(leading) = &mut self.leading else { return };
                if leading.publisher.is_newest(&pod, id) {
                    leading.proxies.loaded(&pod, *load);
                }
            }
            FromStream::Drained { pod, id, cut } => {
                let Some(leading) = &mut self.leading else { return };
                if leading.publisher.is_newest(&pod, id) {
                    self.effects.run_all([Effect::Event(of_cut(&pod, cut, &self.cache))]);
                }
            }
            FromStream::Gone { pod, id } => {
                let Some(leading) = &mut self.leading else { return };
                if leading.publisher.disconnect(&pod, id) {
                    leading.proxies.gone(&pod);
                }
            }
        }
    }

    /// Answers what an autoscaler asks; one that cannot drops the question.
    pub(super) fn answer(&self, question: Question) {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.published) else { return };
        let Question { namespace, of, metric, forward, reply } = question;
        let first = ObjectKey::new(namespace.clone(), "");
        let here = self.cache.proxy_pods.range(first..).take_while(|(pod, _)| pod.namespace == namespace);
        let asked = here.filter(|(pod, info)| match &of {
            Of::Pod(name) => pod.name == *name,
            Of::All(labels) => !info.leaving && labels.matches(&info.labels),
        });
        let value = |pod: &ObjectKey| Some((pod.name.clone(), leading.proxies.load(pod, metric, forward.as_ref())?));
        // Whoever asked may have gone.
        let _ = reply.send(asked.filter_map(|(pod, _)| value(pod)).collect());
    }

    fn admit(&mut self, identity: &Identity, id: u64) -> Admission {
        let Some(leading) = &mut self.leading else { return Admission::NotLeader };
        if !self.cache.is_synced() || !leading.published {
            return Admission::NotSynced;
        }
        let pod = &identity.pod;
        // A deleted pod's token passes a review for seconds: the cache knows better.
        let Some(known) = self.cache.pod(pod).filter(|known| known.uid == identity.uid) else {
            return Admission::UnknownPod;
        };
        if known.gateway.is_some() && known.service_account != identity.service_account {
            return Admission::UnknownPod;
        }
        // What the fleet of such a gateway should run is not known: its proxies go on with what they have.
        let gateway = known.gateway.as_ref().map(|name| ObjectKey::new(pod.namespace.clone(), name.clone()));
        let is_unknown = |key: &ObjectKey| {
            self.cache.unreadable_gateway(key).is_some() && !self.cache.world.gateways.contains_key(key)
        };
        let is_sidecar = gateway.is_none() && self.cache.sidecar_namespaces().any(|it| *it == pod.namespace);
        // One that is not looked at yet would be told to run nothing, and its app would start without its doors.
        let is_new = || !self.cache.knows_selected(pod, &identity.uid) || is_unseen(pod, &self.touched.changes);
        if gateway.as_ref().is_some_and(is_unknown) || is_sidecar && is_new() {
            return Admission::NotSynced;
        }
        let target = leading.publisher.connect(pod, id, leading.fleets.group_of(pod, &leading.translator));
        leading.proxies.connected(pod);
        let world = &self.cache.world;
        let unreadable: BTreeSet<ObjectKey> =
            world.unreadable.keys().filter(|key| !world.forwards.contains_key(key)).cloned().collect();
        if !unreadable.is_empty() {
            leading.exempt.insert(pod.clone(), unreadable.clone());
        }
        Admission::Follow {
            target,
            deltas: leading.deltas.clone(),
            unreadable: unreadable.into_iter().map(|key| Origin::port_forward(key.namespace, key.name)).collect(),
        }
    }
}

/// Whether something that says what a pod runs is not looked at yet.
fn is_unseen(pod: &ObjectKey, changes: &Changes) -> bool {
    let first = ObjectKey::new(pod.namespace.clone(), "");
    let forward = changes.forwards.range(first..).next();
    changes.pods.contains(pod) || forward.is_some_and(|forward| forward.namespace == pod.namespace)
}

fn forward(id: &ListenerId) -> ObjectKey {
    ObjectKey::new(&*id.origin.namespace, &*id.origin.name)
}
