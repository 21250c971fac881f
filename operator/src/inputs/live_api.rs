//! The live API (`live.portlane.dev/v1alpha1`): live sessions of forwards and pods, the lag of their durable listeners,
//! and the configuration of a proxy.
//!
//! The driver only names the proxies; requests wait for the proxies' answers here. The inquiries and the large answers
//! of all requests together are bounded.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::StatusCode;
use proxy_api::{LiveSessions, Origin, Selection, SessionId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use operator_core::{
    ObjectKey,
    live_api::{
        api::{Asked, Of, group, resources, route},
        lag::Lags,
        sessions::{Gathered, MAX_PROXIES},
        together::Forwards,
    },
};

use super::questions::{LiveProxy, LiveQuestion, Question, ask, bad_request, not_found, status};
use crate::{
    outputs::publish::Ask,
    platform::{
        https::{Answer, Content},
        metrics::{Metrics, count},
    },
};

/// The most requests in progress, until their clients have read the answers.
const REQUESTS: usize = 4;
/// The most requests in progress about one namespace, so that users of one namespace cannot block all others.
const REQUESTS_OF_NAMESPACE: usize = 2;
/// The most proxies that one request queries at the same time. Requests do not share these turns: a forward whose
/// proxies do not answer must not delay the requests for others.
const INQUIRIES: usize = 8;
/// Timeout of a proxy's answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Timeout of the answers of all proxies to one request. The server closes the connection after 20 s.
const WHOLE: Duration = Duration::from_secs(12);

/// The places of a request, until its client has read the answer.
type Places = Vec<OwnedSemaphorePermit>;

/// Answers requests about proxies.
pub struct LiveApi {
    questions: mpsc::Sender<Question>,
    requests: Arc<Semaphore>,
    /// The requests in progress by namespace.
    of_namespaces: Mutex<BTreeMap<String, Weak<Semaphore>>>,
    metrics: Arc<Metrics>,
}

impl LiveApi {
    /// An API that sends its questions to this driver.
    #[must_use]
    pub fn new(questions: mpsc::Sender<Question>, metrics: Arc<Metrics>) -> Self {
        let requests = Arc::new(Semaphore::new(REQUESTS));
        Self { questions, requests, of_namespaces: Mutex::default(), metrics }
    }

    /// Answers a GET.
    pub(super) async fn answer(&self, path: &str, query: &str) -> Answer {
        let answer = match route(path, query) {
            Ok(Asked::Group) => Ok(Answer::json(StatusCode::OK, group())),
            Ok(Asked::Resources) => Ok(Answer::json(StatusCode::OK, resources())),
            Ok(Asked::Sessions { of, limit, session }) => self.sessions(of, limit, session).await,
            Ok(Asked::Together { namespace, limit, session }) => self.together(namespace, limit, session).await,
            Ok(Asked::Lag(of)) => self.lag(of).await,
            Ok(Asked::LagTogether { namespace }) => self.lag_together(namespace).await,
            Ok(Asked::Config(pod)) => self.config(pod).await,
            Ok(Asked::Nothing) => Err(not_found("no such resource")),
            Err(why) => Err(bad_request(&why)),
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    /// Takes places among the requests in progress, and among those about this namespace.
    fn places(&self, namespace: &str) -> Result<Places, Answer> {
        let of_namespace = {
            let mut all = self.of_namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, requests| requests.strong_count() > 0);
            all.get(namespace).and_then(Weak::upgrade).unwrap_or_else(|| {
                let requests = Arc::new(Semaphore::new(REQUESTS_OF_NAMESPACE));
                all.insert(namespace.to_owned(), Arc::downgrade(&requests));
                requests
            })
        };
        // The place of the namespace is freed at once if all requests together have no place left.
        let both =
            of_namespace.try_acquire_owned().and_then(|its| Ok(vec![its, self.requests.clone().try_acquire_owned()?]));
        both.map_err(|_| {
            count(&self.metrics.inquiries, "result", "busy");
            let why = "too many requests to this API are in progress; try again";
            status(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", why)
        })
    }

    async fn sessions(&self, of: Of, limit: usize, session: Option<SessionId>) -> Result<Answer, Answer> {
        let (places, origin, proxies) = self.proxies(of).await?;
        let selection = Selection { origin, session, limit, ..Selection::default() };
        let gathered = self.gather(begun(&selection, &proxies), selection, proxies).await;
        Ok(written(gathered.document(), places))
    }

    /// Lists the sessions of all forwards of a namespace, or of all namespaces: each proxy is queried once.
    async fn together(
        &self,
        namespace: Option<String>,
        limit: usize,
        session: Option<SessionId>,
    ) -> Result<Answer, Answer> {
        let (places, proxies, forwards) = self.all_proxies(namespace.clone()).await?;
        // The list of one session is never cut, so its items are counted.
        let by_origin = session.is_none();
        let selection = Selection { namespace, by_origin, session, limit, ..Selection::default() };
        let gathered = self.gather(begun(&selection, &proxies).counting(forwards), selection, proxies).await;
        Ok(written(gathered.document(), places))
    }

    /// Lists the lag of the durable listeners of a forward, or of those in the proxy of a pod.
    async fn lag(&self, of: Of) -> Result<Answer, Answer> {
        let (places, origin, proxies) = self.proxies(of).await?;
        let selection = Selection { origin, lag: true, ..Selection::default() };
        Ok(written(self.gather_lag(selection, proxies).await.document(), places))
    }

    /// Lists the lag for all forwards of a namespace, or of all namespaces.
    async fn lag_together(&self, namespace: Option<String>) -> Result<Answer, Answer> {
        let (places, proxies, _) = self.all_proxies(namespace.clone()).await?;
        let selection = Selection { namespace, lag: true, ..Selection::default() };
        Ok(written(self.gather_lag(selection, proxies).await.document(), places))
    }

    /// Takes places, and finds the proxies of an object. Also returns the origin if the object is a forward.
    async fn proxies(&self, of: Of) -> Result<(Places, Option<Origin>, Vec<LiveProxy>), Answer> {
        let (Of::Forward(Origin { namespace, .. }) | Of::Pod(ObjectKey { namespace, .. })) = &of;
        let places = self.places(namespace)?;
        let (reply, answer) = oneshot::channel();
        let (origin, unknown) = match &of {
            Of::Forward(origin) => {
                let Origin { kind, namespace, name } = origin;
                (Some(origin.clone()), format!("{kind} {namespace}/{name} does not exist"))
            }
            Of::Pod(pod) => (None, no_proxy(pod)),
        };
        let question = Question::Live(LiveQuestion::Proxies { of, reply });
        let Some(proxies) = ask(&self.questions, question, answer).await? else { return Err(not_found(&unknown)) };
        Ok((places, origin, proxies))
    }

    /// Takes places, and finds the proxies of all forwards of a namespace, or of all namespaces.
    async fn all_proxies(&self, namespace: Option<String>) -> Result<(Places, Vec<LiveProxy>, Forwards), Answer> {
        // No namespace has an empty name, so requests about all namespaces have their own places.
        let places = self.places(namespace.as_deref().unwrap_or_default())?;
        let (reply, answer) = oneshot::channel();
        let question = Question::Live(LiveQuestion::Together { namespace, reply });
        let (proxies, forwards) = ask(&self.questions, question, answer).await?;
        Ok((places, proxies, forwards))
    }

    async fn config(&self, pod: ObjectKey) -> Result<Answer, Answer> {
        let places = self.places(&pod.namespace)?;
        let (reply, answer) = oneshot::channel();
        let question = Question::Live(LiveQuestion::Config { pod: pod.clone(), reply });
        let Some(configured) = ask(&self.questions, question, answer).await? else {
            return Err(not_found(&no_proxy(&pod)));
        };
        Ok(written(configured.document(), places))
    }

    /// Queries proxies for these sessions.
    async fn gather(&self, mut gathered: Gathered, wanted: Selection, proxies: Vec<LiveProxy>) -> Gathered {
        let wanted = Selection { limit: gathered.room(), ..wanted };
        let take = |pod: &ObjectKey, live| {
            gathered.take(pod, live);
            gathered.room()
        };
        self.inquire_all(wanted, proxies, take).await;
        gathered
    }

    /// Queries proxies for the lag of these listeners. An older proxy lists sessions instead: with the limit 0, it
    /// counts them.
    async fn gather_lag(&self, wanted: Selection, proxies: Vec<LiveProxy>) -> Lags {
        let carried = proxies.iter().filter_map(|proxy| Some((proxy.pod.clone(), proxy.carried.clone()?))).collect();
        let pods = proxies.iter().map(|proxy| proxy.pod.clone()).collect();
        let mut lags = Lags::new(wanted.clone(), pods).carrying(carried);
        let take = |pod: &ObjectKey, live| {
            lags.take(pod, live);
            0
        };
        self.inquire_all(wanted, proxies, take).await;
        lags
    }

    /// Queries proxies, and waits for their answers for a limited time. `take` gets each answer, and returns the limit
    /// for the proxies that are queried after it.
    async fn inquire_all(
        &self,
        wanted: Selection,
        proxies: Vec<LiveProxy>,
        mut take: impl FnMut(&ObjectKey, LiveSessions) -> usize,
    ) {
        let end = Instant::now() + WHOLE;
        let room = Arc::new(AtomicUsize::new(wanted.limit));
        let inquiries = Arc::new(Semaphore::new(INQUIRIES));
        let mut connected = proxies.into_iter().filter_map(|proxy| Some((proxy.pod, proxy.asks?)));
        let mut asking = JoinSet::new();
        for (pod, asks) in connected.by_ref().take(MAX_PROXIES) {
            let (inquiries, wanted, room) = (inquiries.clone(), wanted.clone(), room.clone());
            asking.spawn(async move {
                // The turn ends once the answer is in the list, so that few answers are in memory.
                let turn = inquiries.acquire_owned().await;
                (pod, inquire(&asks, Selection { limit: room.load(Relaxed), ..wanted }).await, turn)
            });
        }
        let mut not_asked = connected.count();
        while let Ok(Some(joined)) = timeout_at(end, asking.join_next()).await {
            // A proxy whose task panicked counts as one that does not answer.
            let Ok((pod, answer, _turn)) = joined else { continue };
            match answer {
                Ok(live) => {
                    count(&self.metrics.inquiries, "result", "answered");
                    room.store(take(&pod, live), Relaxed);
                }
                Err(why) => count(&self.metrics.inquiries, "result", why),
            }
        }
        not_asked += asking.len();
        self.metrics.inquiries.get_or_create(&[("result", "limited")]).inc_by(not_asked as u64);
    }
}

/// The state before the first answer, with the rates of the proxies.
fn begun(selection: &Selection, proxies: &[LiveProxy]) -> Gathered {
    let rates = proxies.iter().map(|proxy| (proxy.pod.clone(), proxy.rates)).collect();
    let pods = proxies.iter().map(|proxy| proxy.pod.clone()).collect();
    Gathered::new(selection.clone(), pods).rated(rates)
}

/// Queries one proxy. The error is the reason for a missing answer, as a label of a metric.
async fn inquire(asks: &mpsc::Sender<Ask>, selection: Selection) -> Result<LiveSessions, &'static str> {
    let (reply, answer) = oneshot::channel();
    asks.try_send(Ask { selection: Box::new(selection), reply }).map_err(|_| "refused")?;
    match timeout(PATIENCE, answer).await {
        Ok(Ok(live)) => Ok(live),
        Ok(Err(_)) => Err("refused"),
        Err(_) => Err("timeout"),
    }
}

fn no_proxy(pod: &ObjectKey) -> String {
    format!("pod {pod} does not exist, or runs no proxy that the operator knows")
}

fn written(json: Result<String, serde_json::Error>, places: Places) -> Answer {
    match json {
        Ok(json) => Answer { status: StatusCode::OK, content: Content::Written { json, places } },
        Err(error) => status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string()),
    }
}

#[cfg(test)]
mod tests;
