//! What the thread of the tunnels and the stream to the operator say to each other: requests for certificates, and which
//! agents are connected.
//!
//! ```text
//! thread of the tunnels ─ Asked ─▶ stream ─ Sign ─▶ operator ─ Signed ─▶ stream ─▶ who asked
//!                       ─ AgentsReport ─▶ stream ─▶ operator
//! ```

use std::{collections::BTreeMap, future::pending, time::Duration};

use proxy_api::{AgentsReport, Applicant, MAX_UNANSWERED, Sign, SignOutcome, Signed};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Longest wait for an answer. It is shorter than the time that an agent has to enrol, so that the agent hears why.
const PATIENCE: Duration = Duration::from_secs(4);

/// A request for a certificate, and who waits for the answer.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub applicant: Applicant,
    /// The request, base64 of DER.
    pub request: String,
    /// Who waits.
    pub reply: oneshot::Sender<SignOutcome>,
}

/// The end of the thread of the tunnels.
#[derive(Debug)]
pub struct ToOperator {
    /// For certificates.
    pub asks: Asks,
    /// The connected agents.
    pub connected: watch::Sender<AgentsReport>,
}

/// Asks for certificates.
#[derive(Clone, Debug)]
pub struct Asks(mpsc::Sender<Asked>);

/// The end of the stream.
#[derive(Debug)]
pub struct Desk {
    asked: mpsc::Receiver<Asked>,
    connected: watch::Receiver<AgentsReport>,
}

/// What is to be told to the operator.
#[derive(Debug)]
pub enum News {
    /// A certificate is asked for.
    Asked(Asked),
    /// Other agents are connected than before.
    Connected(AgentsReport),
}

/// Both ends.
#[must_use]
pub fn desk() -> (ToOperator, Desk) {
    let (asks, asked) = mpsc::channel(MAX_UNANSWERED);
    let (told, connected) = watch::channel(AgentsReport::default());
    (ToOperator { asks: Asks(asks), connected: told }, Desk { asked, connected })
}

impl Asks {
    /// Asks for a certificate. None: there is no answer in time. Without a stream a request waits for one.
    pub async fn ask(&self, applicant: Applicant, request: String) -> Option<SignOutcome> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(Asked { applicant, request, reply }).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

impl Desk {
    /// A stream begins, whose operator knows of no agents.
    pub fn begin(&mut self) {
        self.connected.mark_changed();
    }

    /// Waits for what is to be told to the operator. Requests for certificates wait while there is no room for them.
    pub async fn next(&mut self, has_room: bool) -> News {
        select! {
            Some(asked) = self.asked.recv(), if has_room => News::Asked(asked),
            Ok(()) = self.connected.changed() => News::Connected(self.connected.borrow_and_update().clone()),
            else => pending().await,
        }
    }
}

/// The requests of one stream that the operator has not answered. At the end of the stream, nobody waits for them any
/// more.
#[derive(Debug, Default)]
pub struct Unanswered {
    next: u64,
    replies: BTreeMap<u64, oneshot::Sender<SignOutcome>>,
}

impl Unanswered {
    /// Whether one more request may be sent.
    pub fn has_room(&mut self) -> bool {
        self.replies.retain(|_, reply| !reply.is_closed());
        self.replies.len() < MAX_UNANSWERED
    }

    /// The message for a request. None: nobody waits for the answer any more.
    pub fn take(&mut self, asked: Asked) -> Option<Sign> {
        let Asked { applicant, request, reply } = asked;
        if reply.is_closed() {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.replies.insert(id, reply);
        Some(Sign { id, request, applicant })
    }

    /// Hands an answer to who waits for it.
    pub fn answer(&mut self, signed: Signed) {
        if let Some(reply) = self.replies.remove(&signed.id) {
            // Who asked may be gone.
            let _ = reply.send(signed.outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_api::{SignReason, SignRefusal};

    use super::*;

    fn refused(detail: &str) -> SignOutcome {
        SignOutcome::Refused { refused: SignRefusal { reason: SignReason::Agent, detail: detail.to_owned() } }
    }

    #[tokio::test]
    async fn each_answer_goes_to_who_asked() {
        let (to, mut desk) = desk();
        let ask = |request: &str| to.asks.ask(Applicant::Endpoint, request.to_owned());
        let operator = async {
            let mut unanswered = Unanswered::default();
            let mut ids = BTreeMap::new();
            while ids.len() < 2 {
                if let News::Asked(asked) = desk.next(unanswered.has_room()).await {
                    let sign = unanswered.take(asked).expect("somebody waits");
                    ids.insert(sign.request, sign.id);
                }
            }
            for (request, id) in ids.into_iter().rev() {
                unanswered.answer(Signed { id, outcome: refused(&request) });
            }
            unanswered.answer(Signed { id: 99, outcome: refused("nobody asked") });
        };
        let (one, other, ()) = tokio::join!(ask("one"), ask("other"), operator);
        assert_eq!((one, other), (Some(refused("one")), Some(refused("other"))));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_stream_or_after_its_end_there_is_no_answer() {
        let (to, mut desk) = desk();
        assert_eq!(to.asks.ask(Applicant::Endpoint, String::new()).await, None, "no stream");
        let ended = async {
            let mut unanswered = Unanswered::default();
            for _ in 0..2 {
                let News::Asked(asked) = desk.next(true).await else { panic!("no agent has come") };
                // The first one has left.
                unanswered.take(asked);
            }
            assert_eq!((unanswered.next, unanswered.replies.len()), (1, 1));
        };
        let (answer, ()) = tokio::join!(to.asks.ask(Applicant::Endpoint, String::new()), ended);
        assert_eq!(answer, None, "the stream has ended");
    }

    #[test]
    fn no_more_requests_are_unanswered_than_the_operator_takes() {
        let mut unanswered = Unanswered::default();
        let mut waiting = Vec::new();
        while unanswered.has_room() {
            let (reply, answer) = oneshot::channel();
            waiting.push(answer);
            assert!(unanswered.take(Asked { applicant: Applicant::Endpoint, request: String::new(), reply }).is_some());
        }
        assert_eq!(waiting.len(), MAX_UNANSWERED);
        waiting.pop();
        assert!(unanswered.has_room(), "one has given up");
    }

    #[tokio::test]
    async fn each_stream_tells_of_the_connected_agents_first_and_then_of_changes() {
        let (to, mut desk) = desk();
        for _ in 0..2 {
            desk.begin();
            assert!(matches!(desk.next(true).await, News::Connected(report) if report.agents.is_empty()));
        }
        let report = AgentsReport { agents: BTreeMap::from([("u-1".to_owned(), Vec::new())]) };
        to.connected.send_replace(report.clone());
        assert!(matches!(desk.next(true).await, News::Connected(told) if told == report));
    }
}
