//! Reads and writes the Secret of one agent, in the form that the core defines.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::PostParams};
use operator_core::enrolment::{Kept, Unusable, Wanted, kept_in, secret_with};

use crate::platform::deadline::{RequestError, answer};

/// Why the Secret of an agent cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A request failed.
    #[error("cannot {action} Secret {name}: {source}")]
    Request {
        /// The action that failed.
        action: &'static str,
        /// Name of the Secret.
        name: String,
        /// Why the request failed.
        source: RequestError,
    },
    /// The Secret does not belong to the agent, or its contents cannot be read.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// The Secret as it was found.
pub(super) struct Found {
    secret: Option<Secret>,
    pub(super) kept: Kept,
}

/// The location of an agent's Secret.
pub(super) struct Place<'a> {
    api: Api<Secret>,
    name: String,
    wanted: &'a Wanted,
}

impl<'a> Place<'a> {
    pub(super) fn of(client: &Client, wanted: &'a Wanted) -> Self {
        let api = Api::namespaced(client.clone(), &wanted.key.namespace);
        Self { api, name: wanted.secret(), wanted }
    }

    fn failed(&self, action: &'static str, source: RequestError) -> SecretError {
        SecretError::Request { action, name: self.name.clone(), source }
    }

    /// Reads the Secret. A missing Secret is empty.
    pub(super) async fn read(&self) -> Result<Found, SecretError> {
        let secret = answer(self.api.get_opt(&self.name)).await.map_err(|source| self.failed("read", source))?;
        let kept = secret.as_ref().map(|secret| kept_in(secret, self.wanted)).transpose()?.unwrap_or_default();
        Ok(Found { secret, kept })
    }

    /// Writes the Secret in place of the one that was found. Returns false if another client has written it since.
    pub(super) async fn write(&self, found: Found, next: &Kept) -> Result<bool, SecretError> {
        let exists = found.secret.is_some();
        let secret = secret_with(found.secret, self.wanted, next)?;
        let parameters = PostParams::default();
        let written = if exists {
            // The resource version of the read Secret is a precondition.
            answer(self.api.replace(&self.name, &parameters, &secret)).await
        } else {
            answer(self.api.create(&parameters, &secret)).await
        };
        match written {
            Ok(_) => Ok(true),
            // The Secret was changed, created or deleted meanwhile.
            Err(error) if error.code() == Some(409) || exists && error.code() == Some(404) => Ok(false),
            Err(error) => Err(self.failed("write", error)),
        }
    }
}
