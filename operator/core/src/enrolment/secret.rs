//! The Secret of one agent: a child of the agent with its join string and its ledger.

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{Wanted, ledger::Kept};
use crate::names::NAME;

/// Kind of the owner.
const KIND: &str = "ForwardAgent";
/// Key of the join string.
const JOIN: &str = "join";
/// Key of the ledger.
const LEDGER: &str = "ledger.json";

/// Why the Secret of an agent cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A Secret of that name exists, but the agent does not own it.
    #[error("Secret {0} exists and does not belong to this ForwardAgent: delete it, or give the agent another name")]
    Taken(String),
    /// The Secret belongs to a deleted agent of the same name.
    #[error(
        "Secret {0} belongs to an earlier ForwardAgent of this name, and the API server deletes it soon: if it stays, \
         delete it"
    )]
    Earlier(String),
    /// The ledger cannot be read.
    #[error(
        "key ledger.json of Secret {0} does not hold the tokens of the agent: delete the Secret, and the operator \
         creates a new one"
    )]
    Content(String),
}

/// Reads a Secret.
///
/// # Errors
/// The Secret does not belong to the agent, or its contents cannot be read.
pub fn kept_in(secret: &Secret, wanted: &Wanted) -> Result<Kept, Unusable> {
    let owners = || secret.metadata.owner_references.iter().flatten();
    if !owners().any(|owner| owner.uid == wanted.identity.uid()) {
        let is_earlier = owners().any(|owner| owner.kind == KIND && owner.name == wanted.key.name);
        let error = if is_earlier { Unusable::Earlier } else { Unusable::Taken };
        return Err(error(wanted.secret()));
    }
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| &value.0);
    let ledger = value(LEDGER).map(|bytes| serde_json::from_slice(bytes)).transpose();
    let ledger = ledger.map_err(|_| Unusable::Content(wanted.secret()))?.unwrap_or_default();
    // A join string that is not text is replaced like an invalid one.
    let join = value(JOIN).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(Kept { join, ledger })
}

/// The Secret to write in place of the one that was found.
///
/// # Errors
/// The ledger cannot be written down.
pub fn secret_with(found: Option<Secret>, wanted: &Wanted, next: &Kept) -> Result<Secret, Unusable> {
    let ledger = serde_json::to_vec(&next.ledger).map_err(|_| Unusable::Content(wanted.secret()))?;
    let mut secret = found.unwrap_or_else(|| empty(wanted));
    let data = secret.data.get_or_insert_default();
    data.insert(LEDGER.to_owned(), ByteString(ledger));
    match &next.join {
        Some(join) => drop(data.insert(JOIN.to_owned(), ByteString(join.clone().into_bytes()))),
        None => drop(data.remove(JOIN)),
    }
    Ok(secret)
}

fn empty(wanted: &Wanted) -> Secret {
    let owner = OwnerReference {
        api_version: format!("{}/{}", crds::GROUP, crds::VERSION),
        kind: KIND.to_owned(),
        name: wanted.key.name.clone(),
        uid: wanted.identity.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let labels = [("app.kubernetes.io/managed-by".to_owned(), NAME.to_owned())];
    let metadata = ObjectMeta {
        name: Some(wanted.secret()),
        namespace: Some(wanted.key.namespace.clone()),
        labels: Some(labels.into()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Secret { metadata, ..Secret::default() }
}
