//! The Secret of one agent: a child of the agent with its join string and its ledger.

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use operator_core::{
    enrolment::{JOIN, Kept, LEDGER, Wanted},
    names::NAME,
};

use crate::outputs::deadline::{RequestError, answer};

/// Kind of the owner.
const KIND: &str = "ForwardAgent";

/// Why the Secret of an agent cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A request failed.
    #[error("cannot {action} Secret {name}: {source}")]
    Request {
        /// What failed.
        action: &'static str,
        /// Name of the Secret.
        name: String,
        /// Why.
        source: RequestError,
    },
    /// A Secret of that name exists, and the agent does not own it.
    #[error("Secret {0} exists and does not belong to this ForwardAgent: delete or rename it")]
    Taken(String),
    /// The Secret is that of an agent of the same name that was deleted.
    #[error(
        "Secret {0} belongs to an earlier ForwardAgent of this name, and the API server deletes it soon: if it stays, \
         delete it"
    )]
    Earlier(String),
    /// The ledger is something else.
    #[error(
        "key ledger.json of Secret {0} does not hold the tokens of the agent: delete the Secret, and a new one is made"
    )]
    Content(String),
}

/// What was found of the Secret.
pub(super) struct Found {
    secret: Option<Secret>,
    pub(super) kept: Kept,
}

/// Where the Secret of one agent is.
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

    /// Reads the Secret. One that does not exist holds nothing.
    pub(super) async fn read(&self) -> Result<Found, SecretError> {
        let secret = answer(self.api.get_opt(&self.name)).await.map_err(|source| self.failed("read", source))?;
        let Some(secret) = secret else { return Ok(Found { secret: None, kept: Kept::default() }) };
        let owners = || secret.metadata.owner_references.iter().flatten();
        if !owners().any(|owner| owner.uid == self.wanted.identity.uid()) {
            let is_earlier = owners().any(|owner| owner.kind == KIND && owner.name == self.wanted.key.name);
            let error = if is_earlier { SecretError::Earlier } else { SecretError::Taken };
            return Err(error(self.name.clone()));
        }
        let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| &value.0);
        let ledger = value(LEDGER).map(|bytes| serde_json::from_slice(bytes)).transpose();
        let ledger = ledger.map_err(|_| SecretError::Content(self.name.clone()))?.unwrap_or_default();
        // A join string that is no text is replaced like one that is none.
        let join = value(JOIN).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Ok(Found { secret: Some(secret), kept: Kept { join, ledger } })
    }

    /// Writes the Secret in place of what was found. Returns false if somebody else has written it since.
    pub(super) async fn write(&self, found: Found, next: &Kept) -> Result<bool, SecretError> {
        let ledger = serde_json::to_vec(&next.ledger).map_err(|_| SecretError::Content(self.name.clone()))?;
        let exists = found.secret.is_some();
        let mut secret = found.secret.unwrap_or_else(|| self.empty());
        let data = secret.data.get_or_insert_default();
        data.insert(LEDGER.to_owned(), ByteString(ledger));
        match &next.join {
            Some(join) => drop(data.insert(JOIN.to_owned(), ByteString(join.clone().into_bytes()))),
            None => drop(data.remove(JOIN)),
        }
        let parameters = PostParams::default();
        let written = if exists {
            // The version of what was read is a precondition.
            answer(self.api.replace(&self.name, &parameters, &secret)).await
        } else {
            answer(self.api.create(&parameters, &secret)).await
        };
        match written {
            Ok(_) => Ok(true),
            // Changed, made or deleted meanwhile.
            Err(error) if error.code() == Some(409) || exists && error.code() == Some(404) => Ok(false),
            Err(error) => Err(self.failed("write", error)),
        }
    }

    fn empty(&self) -> Secret {
        let owner = OwnerReference {
            api_version: format!("{}/{}", crds::GROUP, crds::VERSION),
            kind: KIND.to_owned(),
            name: self.wanted.key.name.clone(),
            uid: self.wanted.identity.uid().to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let labels = [("app.kubernetes.io/managed-by".to_owned(), NAME.to_owned())];
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.wanted.key.namespace.clone()),
            labels: Some(labels.into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        Secret { metadata, ..Secret::default() }
    }
}
