//! Identifies the pod of a proxy by its projected `ServiceAccount` token, with a `TokenReview` by the API server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use operator_core::{ObjectKey, ProxyId};
use tokio::{sync::Semaphore, time::timeout};

/// Concurrent reviews.
const AT_ONCE: usize = 32;
/// Timeout of one review.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest token that is sent to a review, in bytes.
const LONGEST: usize = 16 << 10;

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
}

/// Reviews tokens.
#[derive(Clone)]
pub struct Identities {
    api: Api<TokenReview>,
    turns: Arc<Semaphore>,
}

impl Identities {
    /// Reviews with this client, which needs `create` on `TokenReview`s.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The pod that a token is bound to.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn of(&self, token: Option<String>) -> Result<Identity, IdentityError> {
        let token = token.filter(|token| !token.is_empty() && token.len() <= LONGEST).ok_or(IdentityError::Missing)?;
        let unavailable = |why: String| IdentityError::Unavailable(why);
        let _turn = self.turns.acquire().await.map_err(|error| unavailable(error.to_string()))?;
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

/// Reads a review. An authenticated token is not enough: the token must be for this audience and bound to a pod.
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
