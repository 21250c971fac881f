//! Enrolment of agents: certificate requests, the Secrets with join strings, and connected instances.

use std::time::Duration;

use operator_core::{
    ObjectKey, ProxyId,
    enrolment::{Offered, judge},
    world::followers::Applicant,
};
use proxy_api::{AgentsReport, Sign, SignOutcome};
use tokio::sync::oneshot;

use super::Driver;
use crate::inputs::identity::Identity;

impl Driver {
    /// Passes on a certificate request. Without an answer, the stream tells its proxy to retry.
    pub(super) fn sign(&mut self, identity: &Identity, id: u64, sign: Sign, reply: oneshot::Sender<SignOutcome>) {
        let Some(leading) = &self.leading else { return };
        let proxy = identity.proxy();
        if !leading.known.publisher.is_newest(&proxy, id) {
            return;
        }
        let Identity { pod, uid, service_account } = identity;
        let runs = leading.known.runs(&proxy);
        match judge(&self.cache, Applicant { pod, uid, service_account }, &sign.applicant, runs) {
            Ok(judged) => self.effects.sign(judged, sign.request, reply),
            // The stream may have ended.
            Err(refused) => drop(reply.send(SignOutcome::Refused { refused })),
        }
    }

    /// Takes a proxy's report of the agents that are connected to it.
    pub(super) fn connected_agents(&mut self, proxy: &ProxyId, id: u64, report: AgentsReport) {
        let Some(leading) = &self.leading else { return };
        if let Some(report) = leading.known.agents(proxy, id, report) {
            self.schedules.agents.reported(proxy, report);
        }
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
