//! Messages of proxies, and the driver's answers to proxies and to the aggregated APIs.

use std::time::Duration;

use proxy_api::Origin;

use super::{Driver, leading::Leading};
use operator_core::{
    ProxyId,
    publish::reports::Heard,
    schedule::Effect,
    status::events::of_cut,
    world::followers::{Admission, Applicant},
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
                if reply.send(decision).is_err() {
                    // The proxy left before its stream began, so no stream reports its end.
                    self.gone(&proxy, id, now);
                }
            }
            FromStream::Reported { proxy, id, part, agreed, room: _room } => {
                let Some(leading) = &mut self.leading else { return };
                let Some(Heard { group, forwards, is_whole }) = leading.known.reported(&proxy, id, *part, agreed)
                else {
                    return;
                };
                self.schedules.statuses.reported((&proxy, group), forwards, is_whole, now);
            }
            FromStream::Loaded { proxy, id, load } => {
                if let Some(leading) = &mut self.leading {
                    leading.known.loaded(&proxy, id, *load);
                }
            }
            FromStream::Sign { identity, id, sign, reply } => self.sign(&identity, id, *sign, reply),
            FromStream::Agents { proxy, id, report, room: _room } => self.connected_agents(&proxy, id, *report),
            FromStream::Drained { proxy, id, cut } => {
                let Some(leading) = &mut self.leading else { return };
                match leading.known.drained(&proxy, id, now) {
                    Some(true) => {
                        let event = proxy.pod().map(|pod| Effect::Event(of_cut(pod, cut, &self.cache)));
                        self.effects.run_all(event);
                    }
                    Some(false) => count(&self.metrics.events, "result", "limited"),
                    None => {}
                }
            }
            FromStream::Gone { proxy, id } => self.gone(&proxy, id, now),
        }
    }

    /// Records that a stream ended.
    fn gone(&mut self, proxy: &ProxyId, id: u64, now: Duration) {
        let Some(leading) = &mut self.leading else { return };
        let mut steps = Vec::new();
        if leading.known.disconnect(proxy, id, now, &mut steps) {
            leading.channels.run(steps);
            self.schedules.agents.ended(proxy, now);
        }
    }

    /// Answers a question of an aggregated API. A replica that cannot answer drops the question.
    pub(super) fn answer(&self, question: Question) {
        let Some(leading) = &self.leading else { return };
        let Some(began) = leading.known.began() else { return };
        match question {
            Question::Metric(question) => self.answer_metric(leading, began, question),
            Question::Live(question) => self.answer_live(leading, question),
        }
    }

    fn answer_metric(&self, leading: &Leading, began: Duration, question: MetricQuestion) {
        let MetricQuestion { namespace, of, metric, forward, reply } = question;
        let asked = of.among(&self.cache.proxy_pods, &namespace);
        let known = leading.known.proxies.loads_of(asked, (metric, forward.as_ref()), (began, self.now()));
        // The caller may no longer wait.
        let _ = reply.send(known);
    }

    fn admit(&mut self, identity: &Identity, id: u64) -> StreamDecision {
        let now = self.now();
        let Some(leading) = &mut self.leading else { return StreamDecision::NotLeader };
        let Identity { pod, uid, service_account } = identity;
        let applicant = Applicant { pod, uid, service_account };
        let unreadable = match self.cache.admission(applicant, leading.known.began().is_some(), &self.touched.changes) {
            Admission::Follow { exempt } => exempt,
            Admission::NotSynced => return StreamDecision::NotSynced,
            Admission::UnknownPod => return StreamDecision::UnknownPod,
            Admission::Unexpected(why) => return StreamDecision::Unexpected(why),
        };
        let proxy = identity.proxy();
        let begins = leading.known.connect(&proxy, id, unreadable.clone(), now);
        let (target, asks) = leading.channels.open(&proxy, begins);
        StreamDecision::Follow {
            target,
            asks,
            deltas: leading.deltas.clone(),
            unreadable: unreadable.into_iter().map(|key| Origin::port_forward(key.namespace, key.name)).collect(),
        }
    }
}
