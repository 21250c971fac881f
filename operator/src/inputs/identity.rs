//! Identifies the pod of a proxy by its projected `ServiceAccount` token, with a `TokenReview` by the API server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use operator_core::{ObjectKey, ProxyId, Recent};
use proxy_api::doors::{Bucket, Rate};
use tokio::{sync::Semaphore, time::timeout};

use crate::platform::metrics::{Metrics, count};

/// Concurrent reviews.
const AT_ONCE: usize = 32;
/// Reviews per second, and the burst of reviews. Further proxies retry later.
const REVIEWS: (u32, u32) = (200, 400);
/// The longest time that a review waits for its turn.
const WAIT: Duration = Duration::from_secs(1);
/// Timeout of one review.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest token that is sent to a review, in bytes.
const LONGEST: usize = 16 << 10;
/// Lifetime of a known identity. The cache of pods shows earlier that a pod is gone.
const RECENT: Duration = Duration::from_secs(10);
/// Most identities that are kept.
const KEPT: usize = 4096;

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pod.
    pub pod: ObjectKey,
    /// Uid of the pod.
    pub uid: String,
    /// `ServiceAccount` of the pod.
    pub service_account: String,
}

impl Identity {
    /// The proxy of the pod.
    #[must_use]
    pub fn proxy(&self) -> ProxyId {
        ProxyId::Pod(self.pod.clone())
    }
}

/// Why a proxy could not be identified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The token is missing, empty or too long.
    #[error("no token: a proxy must send its ServiceAccount token")]
    Missing,
    /// The API server does not authenticate the token, or the token is for another audience.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// The token is valid, but not bound to a pod.
    #[error("the token is not bound to a pod: use a projected volume")]
    NotOfAPod,
    /// The API server did not review the token.
    #[error("cannot review the token now: {0}")]
    Unavailable(String),
    /// Too many proxies connect at once.
    #[error("too many proxies connect at once")]
    Busy,
}

impl IdentityError {
    /// The value of a metric's label.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Refused(_) => "refused",
            Self::NotOfAPod => "not_of_a_pod",
            Self::Unavailable(_) => "unavailable",
            Self::Busy => "busy",
        }
    }
}

/// Reviews tokens.
#[derive(Clone)]
pub struct Identities {
    api: Api<TokenReview>,
    turns: Arc<Semaphore>,
    past: Arc<Mutex<Past>>,
    started: Instant,
    metrics: Arc<Metrics>,
}

/// The reviews so far.
struct Past {
    /// Identities by token. Refusals are not kept: an API server that does not know a new pod yet will know that pod a
    /// moment later.
    recent: Recent<Identity>,
    bucket: Bucket,
}

impl Past {
    /// Returns the answer if no review is needed. Absent: a review may begin.
    fn known(&mut self, token: &str, now: Duration) -> Option<Result<Identity, IdentityError>> {
        if let Some(recent) = self.recent.get(token, now) {
            return Some(Ok(recent));
        }
        let (rate, burst) = REVIEWS;
        (!self.bucket.take(Rate::per_second(rate, burst), now)).then_some(Err(IdentityError::Busy))
    }
}

impl Identities {
    /// A reviewer that uses this client, which needs `create` on `TokenReview`s.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        let past = Past { recent: Recent::new(RECENT, KEPT), bucket: Bucket::default() };
        Self {
            api: Api::all(client),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            past: Arc::new(Mutex::new(past)),
            started: Instant::now(),
            metrics,
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the pod that a token is bound to. A proxy that reconnects within seconds needs no further review.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn of(&self, token: Option<String>) -> Result<Identity, IdentityError> {
        let token = token.filter(|token| !token.is_empty() && token.len() <= LONGEST).ok_or(IdentityError::Missing)?;
        let known = self.past().known(&token, self.started.elapsed());
        if let Some(known) = known {
            count(&self.metrics.reviews, "result", if known.is_ok() { "recent" } else { "busy" });
            return known;
        }
        let answer = match timeout(WAIT, self.turns.acquire()).await {
            Ok(Ok(_turn)) => self.review(token.clone()).await,
            _ => Err(IdentityError::Busy),
        };
        count(&self.metrics.reviews, "result", answer.as_ref().map_or_else(IdentityError::as_str, |_| "authenticated"));
        if let Ok(identity) = &answer {
            self.past().recent.put(&token, identity.clone(), self.started.elapsed());
        }
        answer
    }

    async fn review(&self, token: String) -> Result<Identity, IdentityError> {
        let unavailable = |why: String| IdentityError::Unavailable(why);
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![proxy_api::AUDIENCE.to_owned()]), token: Some(token) },
            ..TokenReview::default()
        };
        let parameters = PostParams::default();
        let answer = timeout(PATIENCE, self.api.create(&parameters, &review)).await;
        match answer {
            Ok(Ok(review)) => read(review.status.unwrap_or_default()),
            // The error may contain the token, so only its reason and code are reported.
            Ok(Err(kube::Error::Api(status))) => Err(unavailable(format!("{} ({})", status.reason, status.code))),
            Ok(Err(_)) => Err(unavailable("the API server is unreachable".to_owned())),
            Err(_) => Err(unavailable("the API server did not answer in time".to_owned())),
        }
    }
}

/// Reads a review. Authentication is not enough: the token must be for this audience and bound to a pod.
fn read(status: TokenReviewStatus) -> Result<Identity, IdentityError> {
    if status.authenticated != Some(true) {
        return Err(IdentityError::Refused(status.error.unwrap_or_else(|| "not authenticated".to_owned())));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == proxy_api::AUDIENCE) {
        return Err(IdentityError::Refused("the token is for another audience".to_owned()));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default().into_iter().collect();
    let extra = |name: &str| extra.get(&format!("authentication.kubernetes.io/{name}")).and_then(|all| all.first());
    match (account, extra("pod-name"), extra("pod-uid")) {
        (Some((namespace, service_account)), Some(pod), Some(uid)) => Ok(Identity {
            pod: ObjectKey::new(namespace, pod.clone()),
            uid: uid.clone(),
            service_account: service_account.to_owned(),
        }),
        _ => Err(IdentityError::NotOfAPod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;

    fn status(audience: &str, name: &str, extra: &[(&str, &str)]) -> TokenReviewStatus {
        let extra =
            extra.iter().map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![(*value).to_owned()]));
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo {
                username: Some(name.to_owned()),
                extra: Some(extra.collect()),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    // C10
    #[test]
    fn reviews_are_bounded_and_a_recent_answer_needs_none() {
        let mut past = Past { recent: Recent::new(RECENT, KEPT), bucket: Bucket::default() };
        let identity = Identity { pod: ObjectKey::new("a", "p"), uid: "u".to_owned(), service_account: "s".to_owned() };
        past.recent.put("good", identity.clone(), Duration::ZERO);
        let (_, burst) = REVIEWS;
        let begun = (0..1000).filter(|_| past.known("other", Duration::ZERO).is_none()).count();
        assert_eq!(begun, usize::try_from(burst).expect("small"));
        assert_eq!(past.known("other", Duration::ZERO), Some(Err(IdentityError::Busy)));
        assert_eq!(past.known("good", RECENT / 2), Some(Ok(identity)));
        assert!(past.recent.get("good", RECENT).is_none(), "the answer no longer holds");
    }

    #[test]
    fn a_token_must_be_bound_to_a_pod_and_for_our_audience() {
        let account = "system:serviceaccount:shop:web";
        let pod = [("pod-name", "web-1"), ("pod-uid", "u")];
        let found = read(status("portlane-operator", account, &pod)).expect("ours");
        assert_eq!((found.pod, found.uid.as_str()), (ObjectKey::new("shop", "web-1"), "u"));
        assert!(matches!(read(status("vault", account, &pod)), Err(IdentityError::Refused(_))));
        assert_eq!(read(status("portlane-operator", account, &[])), Err(IdentityError::NotOfAPod));
        assert_eq!(read(status("portlane-operator", "alice", &pod)), Err(IdentityError::NotOfAPod));
        assert!(matches!(read(TokenReviewStatus::default()), Err(IdentityError::Refused(_))));
    }
}
