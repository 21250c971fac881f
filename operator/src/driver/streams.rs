//! Messages of proxies, and the driver's answers to proxies and to the aggregated APIs.

use std::collections::BTreeSet;

use proxy_api::Origin;

use super::{Driver, leading::Leading};
use operator_core::{
    ObjectKey,
    metrics_api::api::Of,
    schedule::Effect,
    status::events::of_cut,
    world::{
        followers::{Admission, Applicant},
        objects::PodInfo,
        subject::forward_of,
    },
};

use crate::{
    inputs::{
        identity::Identity,
        questions::{MetricQuestion, Question},
        streams::{FromStream, StreamDecision},
    },
    platform::metrics::count,
};

impl Driver {
    pub(super) fn heard(&mut self, message: FromStream) {
        let now = self.now();
        match message {
            FromStream::Connected { identity, id, reply } => {
                let decision = self.admit(&identity, id);
                let proxy = identity.proxy();
                if reply.send(decision).is_err()
                    && let Some(leading) = &mut self.leading
                    && leading.publisher.disconnect(&proxy, id)
                {
                    // The proxy left before its stream began, so no stream reports its end.
                    leading.proxies.ended(&proxy, now);
                    self.schedules.agents.ended(&proxy, now);
                }
            }
            FromStream::Reported { proxy, id, part, agreed, room: _room } => {
                let Some(leading) = &mut self.leading else { return };
                if !leading.publisher.is_newest(&proxy, id) {
                    return;
                }
                let whole = part.commit;
                let changed = leading.proxies.reported(&proxy, *part, agreed);
                let forwards: BTreeSet<ObjectKey> = changed.iter().filter_map(|id| forward_of(&id.origin)).collect();
                let group = proxy.pod().and_then(|pod| leading.fleets.group_of(pod, &leading.translator));
                self.schedules.statuses.reported((&proxy, group), forwards, whole, now);
            }
            FromStream::Loaded { proxy, id, load } => {
                let Some(leading) = &mut self.leading else { return };
                if leading.publisher.is_newest(&proxy, id) {
                    leading.proxies.loaded(&proxy, *load);
                }
            }
            FromStream::Sign { identity, id, sign, reply } => self.sign(&identity, id, *sign, reply),
            FromStream::Agents { proxy, id, report, room: _room } => self.connected_agents(&proxy, id, *report),
            FromStream::Drained { proxy, id, cut } => {
                let Some(leading) = &mut self.leading else { return };
                if !leading.publisher.is_newest(&proxy, id) {
                    return;
                }
                if leading.proxies.drained(&proxy, now) {
                    let event = proxy.pod().map(|pod| Effect::Event(of_cut(pod, cut, &self.cache)));
                    self.effects.run_all(event);
                } else {
                    count(&self.metrics.events, "result", "limited");
                }
            }
            FromStream::Gone { proxy, id } => {
                let Some(leading) = &mut self.leading else { return };
                if leading.publisher.disconnect(&proxy, id) {
                    leading.proxies.ended(&proxy, now);
                    self.schedules.agents.ended(&proxy, now);
                }
            }
        }
    }

    /// Answers a question of an aggregated API. A replica that cannot answer drops the question.
    pub(super) fn answer(&self, question: Question) {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.published) else { return };
        match question {
            Question::Metric(question) => self.answer_metric(leading, question),
            Question::Live(question) => self.answer_live(leading, question),
        }
    }

    fn answer_metric(&self, leading: &Leading, question: MetricQuestion) {
        let MetricQuestion { namespace, of, metric, forward, reply } = question;
        let pods = &self.cache.proxy_pods;
        let asked: Vec<(&ObjectKey, &PodInfo)> = match of {
            Of::Pod(name) => pods.get_key_value(&ObjectKey::new(namespace, name)).into_iter().collect(),
            Of::All(labels) => {
                let here = pods.range(ObjectKey::new(&*namespace, "")..);
                let here = here.take_while(|(pod, _)| pod.namespace == namespace);
                here.filter(|(_, info)| !info.leaving && labels.matches(&info.labels)).collect()
            }
        };
        let known = leading.proxies.loads_of(asked, (metric, forward.as_ref()), (leading.began, self.now()));
        // The caller may have given up.
        let _ = reply.send(known);
    }

    fn admit(&mut self, identity: &Identity, id: u64) -> StreamDecision {
        let now = self.now();
        let Some(leading) = &mut self.leading else { return StreamDecision::NotLeader };
        let Identity { pod, uid, service_account } = identity;
        let applicant = Applicant { pod, uid, service_account };
        let unreadable = match self.cache.admission(applicant, leading.published, &self.touched.changes) {
            Admission::Follow { exempt } => exempt,
            Admission::NotSynced => return StreamDecision::NotSynced,
            Admission::UnknownPod => return StreamDecision::UnknownPod,
            Admission::Unexpected(why) => return StreamDecision::Unexpected(why),
        };
        let proxy = identity.proxy();
        let target = leading.publisher.connect(&proxy, id, leading.fleets.group_of(pod, &leading.translator));
        let asks = leading.publisher.open_asks(&proxy);
        // The proxy may come back before the end of its earlier stream is noticed.
        leading.proxies.ended(&proxy, now);
        leading.proxies.connected(&proxy);
        if !unreadable.is_empty() {
            leading.exempt.insert(proxy, unreadable.clone());
        }
        StreamDecision::Follow {
            target,
            asks,
            deltas: leading.deltas.clone(),
            unreadable: unreadable.into_iter().map(|key| Origin::port_forward(key.namespace, key.name)).collect(),
        }
    }
}
