//! Results of effects.

use std::time::Duration;

use operator_core::schedule::{
    Dated,
    autoscalers::Scaled,
    children::{self, Ended},
    drainers::Answered,
};

use super::{Applied, Driver};
use crate::{outputs::status_writer::Written, platform::metrics::count};

impl Driver {
    pub(super) fn written(&mut self, written: Dated<Written>) {
        let now = self.now();
        let Some(Written { subject, version, again }) = written.within(self.term) else { return };
        self.schedules.statuses.written(&subject, version.as_deref(), again, now);
        self.schedules.agents.written(&subject, version.as_deref(), again, now);
    }

    pub(super) fn applied(&mut self, applied: Dated<Applied>) {
        let now = self.now();
        let result = match applied.within(self.term) {
            Some(Applied::Children(applied)) => self.children(applied, now),
            Some(Applied::Autoscaler(scaled)) => self.scaled(scaled, now),
            Some(Applied::Drained(answered)) => return self.drained(answered),
            Some(Applied::Enrolment(offered)) => return self.offered(offered, now),
            Some(Applied::Redeemed(key)) => return self.redeemed(&key),
            None => "outdated",
        };
        count(&self.metrics.children, "result", result);
    }

    fn children(&mut self, applied: children::Applied, now: Duration) -> &'static str {
        let gateway = applied.key.clone();
        match self.schedules.gateways.applied(applied, now) {
            Ended::Applied => "applied",
            Ended::Repaired(children) => {
                tracing::warn!(
                    %gateway,
                    ?children,
                    "another client changed or deleted children of the gateway: the operator restored them"
                );
                "repaired"
            }
            Ended::Failed { why, is_new } => {
                if is_new {
                    tracing::warn!(%gateway, error = why, "cannot apply the gateway's children, will retry");
                }
                "failed"
            }
            Ended::Outdated => "outdated",
        }
    }

    fn drained(&mut self, Answered { spare, answer }: Answered) {
        let Some(leading) = &mut self.leading else { return };
        if leading.known.refusals.record(&spare.claim, answer, &self.cache) {
            self.schedules.gateways.touch(&spare.fleet);
        }
    }

    fn scaled(&mut self, scaled: Scaled, now: Duration) -> &'static str {
        let result = if scaled.result.is_ok() { "applied" } else { "failed" };
        let autoscaler = scaled.scaler.key.clone();
        let Some(ended) = self.schedules.autoscalers.scaled(scaled, now) else { return result };
        self.schedules.look_at(&ended.subject, now);
        if !ended.is_repaired {
            return result;
        }
        tracing::warn!(%autoscaler, "another client changed or deleted the autoscaler: the operator restored it");
        "repaired"
    }
}
