//! Certificates for tunnels over one stream, and the agents that are connected to its proxy.

use std::time::{Duration, Instant};

use proxy_api::{
    AgentsReport, MAX_UNANSWERED, Sign, SignOutcome, SignReason, Signed, ToProxy,
    doors::{Bucket, Rate},
};
use proxy_grpc::frame;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use super::{
    FromStream,
    stream::{End, Stream},
};
use crate::{
    outputs::enrolments::{busy, unavailable},
    platform::metrics::count,
};

/// Requests of one proxy that are answered per second, and how many at once. Each may cost requests to the API server.
const REQUESTS: (u32, u32) = (20, 100);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The requests for certificates of one stream that have no answer yet.
pub(super) struct Signing {
    started: Instant,
    bucket: Bucket,
    running: JoinSet<Signed>,
}

impl Default for Signing {
    fn default() -> Self {
        Self { started: Instant::now(), bucket: Bucket::default(), running: JoinSet::new() }
    }
}

impl Signing {
    /// Takes on the request of this number. Absent: the proxy asks too often, or has too many without an answer.
    fn take(&mut self, id: u64) -> Option<oneshot::Sender<SignOutcome>> {
        let (each_second, burst) = REQUESTS;
        let rate = Rate::per_second(each_second, burst);
        if self.running.len() >= MAX_UNANSWERED || !self.bucket.take(rate, self.started.elapsed()) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.running.spawn(async move {
            // A driver that no longer leads drops the reply.
            let outcome = timeout(PATIENCE, answer).await.ok().and_then(Result::ok);
            Signed { id, outcome: outcome.unwrap_or_else(unavailable) }
        });
        Some(reply)
    }

    /// Whether every request has its answer.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next answer. The future may be dropped early: no answer is lost.
    pub(super) async fn next(&mut self) -> Option<Signed> {
        self.running.join_next().await?.ok()
    }
}

impl Stream {
    /// Passes a request to the driver, or refuses it at once.
    pub(super) async fn sign(&mut self, sign: Sign) -> Result<(), End> {
        let Some(reply) = self.signing.take(sign.id) else {
            count(&self.metrics.tunnel_certificates, "result", "limited");
            return self.answer(Signed { id: sign.id, outcome: busy() }).await;
        };
        let asked = FromStream::Sign { identity: self.identity.clone(), id: self.id, sign: Box::new(sign), reply };
        self.driver.send(asked).await.map_err(|_| End::Replaced)
    }

    /// Sends an answer that was waited for.
    pub(super) async fn signed(&mut self, signed: Signed) -> Result<(), End> {
        let result = match &signed.outcome {
            SignOutcome::Issued(_) => "issued",
            SignOutcome::Refused { refused } if refused.reason == SignReason::Unavailable => "unavailable",
            SignOutcome::Refused { .. } => "refused",
        };
        count(&self.metrics.tunnel_certificates, "result", result);
        self.answer(signed).await
    }

    async fn answer(&mut self, signed: Signed) -> Result<(), End> {
        let message = ToProxy { signed: Some(signed), ..ToProxy::default() };
        self.send(frame(&message).map_err(|_| End::Garbage("a message cannot be encoded"))?).await
    }

    /// Passes a report of agents to the driver.
    pub(super) async fn agents(&mut self, report: AgentsReport) -> Result<(), End> {
        let room = self.rooms.reports.take(report.weight()).await;
        let (proxy, id) = (self.proxy.clone(), self.id);
        let agents = FromStream::Agents { proxy, id, report: Box::new(report), room };
        self.driver.send(agents).await.map_err(|_| End::Replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_request_has_one_answer_also_when_nobody_answers() {
        let mut signing = Signing::default();
        let (one, two) = (signing.take(1).expect("room"), signing.take(2).expect("room"));
        drop(one);
        let lost = signing.next().await.expect("an answer");
        assert_eq!((lost.id, lost.outcome), (1, unavailable()));
        two.send(busy()).expect("waited for");
        assert_eq!(signing.next().await.map(|signed| signed.id), Some(2));
        assert!(signing.is_idle() && signing.next().await.is_none());
    }

    // C2
    #[tokio::test]
    async fn requests_without_an_answer_are_bounded_and_an_answer_makes_room() {
        let mut signing = Signing::default();
        let mut replies: Vec<_> = (0..16).map(|id| signing.take(id).expect("room")).collect();
        assert!(signing.take(16).is_none());
        drop(replies.pop());
        assert_eq!(signing.next().await.map(|signed| signed.id), Some(15));
        assert!(signing.take(16).is_some());
    }

    // C2
    #[tokio::test]
    async fn requests_of_one_proxy_are_limited_per_second() {
        let mut signing = Signing::default();
        let mut taken = 0;
        for id in 0..1000 {
            let Some(reply) = signing.take(id) else { break };
            drop(reply);
            assert!(signing.next().await.is_some());
            taken += 1;
        }
        assert!((100..500).contains(&taken), "{taken}");
    }
}
