//! Which pod a proxy is: its projected `ServiceAccount` token, reviewed by the API server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use operator_core::ObjectKey;
use tokio::{sync::Semaphore, time::timeout};

/// Reviews at once.
const AT_ONCE: usize = 32;
/// Longest time for one review.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest token that is looked at.
const LONGEST: usize = 16 << 10;

/// A pod as its token names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pod.
    pub pod: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Its `ServiceAccount`.
    pub service_account: String,
}

/// A proxy that could not prove which pod it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// None came.
    #[error("no token: a proxy sends its ServiceAccount token")]
    Missing,
    /// The API server does not accept it, or not for this audience.
    #[error("the token is not accepted: {0}")]
    Refused(String),
    /// It is good, and of no pod.
    #[error("the token is not bound to a pod: use a projected volume")]
    NotOfAPod,
    /// The API server did not answer.
    #[error("the token cannot be reviewed now: {0}")]
    Unavailable(String),
}

/// Asks the API server.
#[derive(Clone)]
pub struct Identities {
    api: Api<TokenReview>,
    turns: Arc<Semaphore>,
}

impl Identities {
    /// With the rights of this client.
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
            // The error may repeat what was sent; only its kind is told.
            Ok(Err(kube::Error::Api(status))) => Err(unavailable(format!("{} ({})", status.reason, status.code))),
            Ok(Err(_)) => Err(unavailable("the API server is not reached".to_owned())),
            Err(_) => Err(unavailable("the API server does not answer".to_owned())),
        }
    }
}

/// Reads a review. That the token is accepted is not enough: it must be of this audience, and of a pod.
fn read(status: TokenReviewStatus) -> Result<Identity, IdentityError> {
    if status.authenticated != Some(true) {
        return Err(IdentityError::Refused(status.error.unwrap_or_else(|| "not authenticated".to_owned())));
    }
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == proxy_api::AUDIENCE) {
        return Err(IdentityError::Refused("it is of another audience".to_owned()));
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
    fn a_token_must_be_of_a_pod_and_of_our_audience() {
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
