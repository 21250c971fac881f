//! Certificates for tunnels over one stream, and the agents that are connected to its proxy.

use std::time::{Duration, Instant};

use proxy_api::{
    AgentsReport, Applicant, MAX_UNANSWERED, Sign, SignOutcome, SignReason, Signed, ToProxy,
    doors::{Bucket, Rate},
};
use proxy_grpc::frame;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use super::{End, Stream};
use crate::{
    inputs::streams::FromStream,
    outputs::enrolments::{busy, unavailable},
    platform::metrics::count,
};

/// Requests of one proxy that are answered per second, and the burst. Each request may cause requests to the API
/// server.
const REQUESTS: (u32, u32) = (20, 100);
/// The same rate for a sidecar's own requests. A sidecar needs one for each of four gateways twice a week, and retries
/// after 10 s. Anybody may run a sidecar, and there may be thousands.
const OF_SIDECAR: (u32, u32) = (1, 8);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The certificate requests of one stream that have no answer yet.
pub(in crate::inputs::streams) struct Signing {
    started: Instant,
    bucket: Bucket,
    of_sidecar: Bucket,
    running: JoinSet<Signed>,
}

impl Default for Signing {
    fn default() -> Self {
        let (bucket, of_sidecar) = (Bucket::default(), Bucket::default());
        Self { started: Instant::now(), bucket, of_sidecar, running: JoinSet::new() }
    }
}

impl Signing {
    /// Takes the request of this number. Absent if the proxy exceeds its rate, or has too many unanswered requests.
    fn take(&mut self, id: u64, applicant: &Applicant) -> Option<oneshot::Sender<SignOutcome>> {
        // A gateway that applies as a sidecar, and a sidecar that applies as a gateway, are refused before anything is
        // signed.
        let ((each_second, burst), bucket) = match applicant {
            Applicant::Sidecar { .. } => (OF_SIDECAR, &mut self.of_sidecar),
            _ => (REQUESTS, &mut self.bucket),
        };
        let rate = Rate::per_second(each_second, burst);
        if self.running.len() >= MAX_UNANSWERED || !bucket.take(rate, self.started.elapsed()) {
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

    /// Whether every request has been answered.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next answer. Dropping the future early loses no answer.
    pub(super) async fn next(&mut self) -> Option<Signed> {
        self.running.join_next().await?.ok()
    }
}

impl Stream {
    /// Passes a request to the driver, or refuses it at once.
    pub(super) async fn sign(&mut self, sign: Sign) -> Result<(), End> {
        let Some(reply) = self.signing.take(sign.id, &sign.applicant) else {
            count(&self.metrics.tunnel_certificates, "result", "limited");
            return self.answer(Signed { id: sign.id, outcome: busy() }).await;
        };
        let asked = FromStream::Sign { identity: self.identity.clone(), id: self.id, sign: Box::new(sign), reply };
        self.driver.send(asked).await.map_err(|_| End::Replaced)
    }

    /// Sends an answer to the proxy.
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
        let (one, two) = (
            signing.take(1, &Applicant::Endpoint).expect("room"),
            signing.take(2, &Applicant::Endpoint).expect("room"),
        );
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
        let mut replies: Vec<_> = (0..16).map(|id| signing.take(id, &Applicant::Endpoint).expect("room")).collect();
        assert!(signing.take(16, &Applicant::Endpoint).is_none());
        drop(replies.pop());
        assert_eq!(signing.next().await.map(|signed| signed.id), Some(15));
        assert!(signing.take(16, &Applicant::Endpoint).is_some());
    }

    /// How many requests of an applicant are taken one after the other.
    async fn taken(signing: &mut Signing, applicant: &Applicant) -> u64 {
        for id in 0..1000 {
            let Some(reply) = signing.take(id, applicant) else { return id };
            drop(reply);
            assert!(signing.next().await.is_some());
        }
        1000
    }

    // C2
    #[tokio::test]
    async fn requests_of_one_proxy_are_limited_per_second() {
        let taken = taken(&mut Signing::default(), &Applicant::Endpoint).await;
        assert!((100..500).contains(&taken), "{taken}");
    }

    // C2
    #[tokio::test]
    async fn a_sidecar_has_a_certificate_of_each_gateway_at_once_and_asks_for_few_more() {
        let sidecar = Applicant::Sidecar { gateway: "g-1".to_owned() };
        let taken = taken(&mut Signing::default(), &sidecar).await;
        assert!((4..50).contains(&taken), "{taken}");
    }
}
