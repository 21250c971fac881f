//! Enrolment of agents: certificate requests, the Secrets with join strings, and connected instances.

use std::time::Duration;

use operator_core::{
    Group, ObjectKey, ProxyId,
    enrolment::{Offered, judge},
    status::instances::{Report, of_sidecar},
    world::followers::Applicant,
};
use proxy_api::{AgentsReport, Sign, SignOutcome};
use tokio::sync::oneshot;

use super::Driver;
use crate::inputs::identity::Identity;

impl Driver {
    /// Passes on a certificate request. If there is no answer, the stream tells its proxy to ask again.
    pub(super) fn sign(&mut self, identity: &Identity, id: u64, sign: Sign, reply: oneshot::Sender<SignOutcome>) {
        let Some(leading) = &self.leading else { return };
        if !leading.publisher.is_newest(&identity.proxy(), id) {
            return;
        }
        let Identity { pod, uid, service_account } = identity;
        let group = leading.fleets.group_of(pod, &leading.translator);
        let runs = group.and_then(|group| leading.translator.snapshot(group)).map(|snapshot| &**snapshot);
        match judge(&self.cache, Applicant { pod, uid, service_account }, &sign.applicant, runs) {
            Ok(judged) => self.effects.sign(judged, sign.request, reply),
            // The stream may have ended.
            Err(refused) => drop(reply.send(SignOutcome::Refused { refused })),
        }
    }

    /// A proxy reported the agents that are connected to it. Only proxies of gateways and sidecars have any.
    pub(super) fn connected_agents(&mut self, proxy: &ProxyId, id: u64, report: AgentsReport) {
        let Some(leading) = &self.leading else { return };
        let group = proxy.pod().and_then(|pod| leading.fleets.group_of(pod, &leading.translator));
        if !leading.publisher.is_newest(proxy, id) {
            return;
        }
        let report = match group {
            Some(Group::Gateway(_)) => connected(report),
            Some(group @ Group::Sidecars(_)) => {
                let runs = leading.translator.snapshot(group);
                of_sidecar(connected(report), |uid| {
                    let agent = runs.and_then(|runs| runs.agents.get(uid));
                    agent.map_or(0, |agent| usize::try_from(agent.max_instances).unwrap_or(usize::MAX))
                })
            }
            Some(Group::Laptop) | None => return,
        };
        self.schedules.agents.reported(proxy, report);
    }

    pub(super) fn offered(&mut self, offered: Offered, now: Duration) {
        if let Some((key, enrolment)) = self.schedules.enrolments.offered(offered, now) {
            self.schedules.agents.enrolled(&key, enrolment);
        }
    }

    pub(super) fn redeemed(&mut self, key: &ObjectKey) {
        self.schedules.enrolments.redeemed(key);
    }
}

/// The versions of instances by name, of each agent by uid.
fn connected(report: AgentsReport) -> Report {
    let by_name = |instances: Vec<proxy_api::ConnectedInstance>| {
        instances.into_iter().map(|it| (it.instance, it.version)).collect()
    };
    report.agents.into_iter().map(|(uid, instances)| (uid, by_name(instances))).collect()
}
