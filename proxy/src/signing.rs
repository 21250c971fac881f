//! Messages between the thread of the tunnels and the stream to the operator: requests for certificates, and the
//! connected agents.
//!
//! ```text
//! thread of the tunnels ─ Asked ─▶ stream ─ Sign ─▶ operator ─ Signed ─▶ stream ─▶ applicant
//!                       ─ AgentsReport ─▶ stream ─▶ operator
//! ```

use std::{collections::BTreeMap, future::pending, time::Duration};

use proxy_api::{
    AgentsReport, Applicant, MAX_UNANSWERED, Sign, SignOutcome, Signed,
    doors::{Bucket, Rate},
};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};

/// Longest wait for an answer. An agent has more time to enrol, so that it gets the reason.
const PATIENCE: Duration = Duration::from_secs(4);
/// Requests of strangers that are sent per second, and how many at once: half of the operator's limit for one proxy, so
/// that a flood of wrong tokens keeps neither an agent nor this proxy from a renewal.
const STRANGERS: (u32, u32) = (10, 50);
/// Most unanswered requests of strangers.
const STRANGERS_UNANSWERED: usize = MAX_UNANSWERED / 2;

/// A request for a certificate, and the channel for the answer.
#[derive(Debug)]
pub struct Asked {
    /// The applicant.
    pub applicant: Applicant,
    /// The request, base64 of DER.
    pub request: String,
    /// The channel for the answer.
    pub reply: oneshot::Sender<SignOutcome>,
}

/// The thread's end of the channel.
#[derive(Debug)]
pub struct ToOperator {
    /// Sends requests for certificates.
    pub asks: Asks,
    /// The connected agents.
    pub connected: watch::Sender<AgentsReport>,
}

/// Sends requests for certificates.
#[derive(Clone, Debug)]
pub struct Asks {
    known: mpsc::Sender<Asked>,
    strangers: mpsc::Sender<Asked>,
}

/// The stream's end of the channel.
#[derive(Debug)]
pub struct Desk {
    /// Requests of this proxy and of agents that have a certificate.
    known: mpsc::Receiver<Asked>,
    strangers: Strangers,
    connected: watch::Receiver<AgentsReport>,
    /// Whether a stream begins with a report of the connected agents even if there are none.
    reports: bool,
}

/// The requests of clients that have no certificate yet.
#[derive(Debug)]
struct Strangers {
    asked: mpsc::Receiver<Asked>,
    began: Instant,
    bucket: Bucket,
}

/// Whose requests may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All requests.
    All,
    /// Requests of this proxy and of agents that have a certificate.
    Known,
    /// No requests.
    Nobody,
}

/// News for the operator.
#[derive(Debug)]
pub enum News {
    /// A request for a certificate.
    Asked(Asked),
    /// A change of the connected agents.
    Connected(AgentsReport),
}

/// Creates both ends.
#[must_use]
pub fn desk() -> (ToOperator, Desk) {
    let (to_known, known) = mpsc::channel(MAX_UNANSWERED);
    let (to_strangers, asked) = mpsc::channel(MAX_UNANSWERED);
    let (told, connected) = watch::channel(AgentsReport::default());
    let asks = Asks { known: to_known, strangers: to_strangers };
    let strangers = Strangers { asked, began: Instant::now(), bucket: Bucket::default() };
    (ToOperator { asks, connected: told }, Desk { known, strangers, connected, reports: true })
}

fn is_stranger(applicant: &Applicant) -> bool {
    matches!(applicant, Applicant::Token { .. })
}

impl Asks {
    /// Asks for a certificate. `None`: there is no answer in time. Without a stream, a request waits for one.
    pub async fn ask(&self, applicant: Applicant, request: String) -> Option<SignOutcome> {
        let (reply, answer) = oneshot::channel();
        let to = if is_stranger(&applicant) { &self.strangers } else { &self.known };
        let asked = async {
            to.send(Asked { applicant, request, reply }).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

impl Strangers {
    /// The next request, at the rate of strangers. The future may be dropped early: no request is lost.
    async fn next(&mut self) -> Option<Asked> {
        let (each_second, burst) = STRANGERS;
        let rate = Rate::per_second(each_second, burst);
        let wait = self.bucket.wait(rate, self.began.elapsed());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let asked = self.asked.recv().await?;
        self.bucket.spend(rate, 1, self.began.elapsed());
        Some(asked)
    }
}

impl Desk {
    /// Adapts the end to a sidecar: most have no agents, and the operator need not be told.
    #[must_use]
    pub fn of_sidecar(self) -> Self {
        Self { reports: false, ..self }
    }

    /// Notes that a stream begins, whose operator knows of no agents.
    pub fn begin(&mut self) {
        if self.reports || !self.connected.borrow().agents.is_empty() {
            self.connected.mark_changed();
        }
    }

    /// Waits for news for the operator. Requests for certificates wait while there is no room for them.
    pub async fn next(&mut self, room: Room) -> News {
        select! {
            Some(asked) = self.known.recv(), if room != Room::Nobody => News::Asked(asked),
            Some(asked) = self.strangers.next(), if room == Room::All => News::Asked(asked),
            Ok(()) = self.connected.changed() => News::Connected(self.connected.borrow_and_update().clone()),
            else => pending().await,
        }
    }
}

/// The requests of one stream that the operator has not answered. At the end of the stream, none is waited for any
/// more.
#[derive(Debug, Default)]
pub struct Unanswered {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// A task that waits for an answer.
#[derive(Debug)]
struct Waiting {
    is_stranger: bool,
    reply: oneshot::Sender<SignOutcome>,
}

impl Unanswered {
    /// Whose next request may be sent.
    pub fn room(&mut self) -> Room {
        self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
        let strangers = self.waiting.values().filter(|waiting| waiting.is_stranger).count();
        if self.waiting.len() >= MAX_UNANSWERED {
            Room::Nobody
        } else if strangers >= STRANGERS_UNANSWERED {
            Room::Known
        } else {
            Room::All
        }
    }

    /// Builds the message for a request. `None`: no task waits for the answer any more.
    pub fn take(&mut self, asked: Asked) -> Option<Sign> {
        let Asked { applicant, request, reply } = asked;
        if reply.is_closed() {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, Waiting { is_stranger: is_stranger(&applicant), reply });
        Some(Sign { id, request, applicant })
    }

    /// Passes an answer to the waiting task.
    pub fn answer(&mut self, signed: Signed) {
        if let Some(waiting) = self.waiting.remove(&signed.id) {
            // The task may be gone.
            let _ = waiting.reply.send(signed.outcome);
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
                if let News::Asked(asked) = desk.next(unanswered.room()).await {
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
                let News::Asked(asked) = desk.next(Room::All).await else { panic!("no agent has come") };
                // The first one has left.
                unanswered.take(asked);
            }
            assert_eq!((unanswered.next, unanswered.waiting.len()), (1, 1));
        };
        let (answer, ()) = tokio::join!(to.asks.ask(Applicant::Endpoint, String::new()), ended);
        assert_eq!(answer, None, "the stream has ended");
    }

    #[test]
    fn no_more_requests_are_unanswered_than_the_operator_takes() {
        let mut unanswered = Unanswered::default();
        let mut waiting = Vec::new();
        while unanswered.room() != Room::Nobody {
            let (reply, answer) = oneshot::channel();
            waiting.push(answer);
            assert!(unanswered.take(Asked { applicant: Applicant::Endpoint, request: String::new(), reply }).is_some());
        }
        assert_eq!(waiting.len(), MAX_UNANSWERED);
        waiting.pop();
        assert_eq!(unanswered.room(), Room::All, "one has given up");
    }

    fn stranger() -> Applicant {
        let (namespace, name) = ("infra".to_owned(), "home".to_owned());
        Applicant::Token { namespace, name, token: "guessed".to_owned() }
    }

    #[test]
    fn strangers_leave_half_of_the_places_to_those_who_have_a_certificate() {
        let mut unanswered = Unanswered::default();
        let mut waiting = Vec::new();
        while unanswered.room() == Room::All {
            let (reply, answer) = oneshot::channel();
            waiting.push(answer);
            assert!(unanswered.take(Asked { applicant: stranger(), request: String::new(), reply }).is_some());
        }
        assert_eq!((waiting.len(), unanswered.room()), (STRANGERS_UNANSWERED, Room::Known));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_that_ask_all_the_time_delay_no_renewal() {
        let (to, mut desk) = desk();
        let (asks, (_, burst)) = (to.asks.clone(), STRANGERS);
        tokio::spawn(async move {
            for _ in 0..2 * burst {
                asks.ask(stranger(), String::new()).await;
            }
        });
        let began = Instant::now();
        for _ in 0..burst {
            assert!(matches!(desk.next(Room::All).await, News::Asked(asked) if is_stranger(&asked.applicant)));
        }
        let operator = async {
            let news = desk.next(Room::All).await;
            assert!(matches!(news, News::Asked(asked) if asked.applicant == Applicant::Endpoint));
            began.elapsed()
        };
        let (_, waited) = tokio::join!(to.asks.ask(Applicant::Endpoint, String::new()), operator);
        assert_eq!(waited, Duration::ZERO, "no stranger comes before it");
        assert!(matches!(desk.next(Room::All).await, News::Asked(asked) if is_stranger(&asked.applicant)));
        assert!(began.elapsed() >= Duration::from_millis(100), "strangers have a rate");
    }

    #[tokio::test]
    async fn each_stream_tells_of_the_connected_agents_first_and_then_of_changes() {
        let (to, mut desk) = desk();
        for _ in 0..2 {
            desk.begin();
            assert!(matches!(desk.next(Room::All).await, News::Connected(report) if report.agents.is_empty()));
        }
        let report = AgentsReport { agents: BTreeMap::from([("u-1".to_owned(), Vec::new())]) };
        to.connected.send_replace(report.clone());
        assert!(matches!(desk.next(Room::All).await, News::Connected(told) if told == report));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_tells_a_new_stream_of_agents_only_if_it_has_any() {
        let (to, desk) = desk();
        let mut desk = desk.of_sidecar();
        desk.begin();
        let (news, _) = tokio::join!(desk.next(Room::All), to.asks.ask(Applicant::Endpoint, String::new()));
        assert!(matches!(news, News::Asked(_)), "{news:?}");
        let report = AgentsReport { agents: BTreeMap::from([("u-1".to_owned(), Vec::new())]) };
        to.connected.send_replace(report.clone());
        for _ in 0..2 {
            let news = desk.next(Room::All).await;
            assert!(matches!(&news, News::Connected(told) if *told == report), "{news:?}");
            desk.begin();
        }
    }
}
