//! What the live API answers in a scene.

use kubectl_core::{
    access::Fetched,
    live::{Of, Request},
};
use operator_core::ObjectKey;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A response, or the code of its refusal. Its field `of` has what was asked about: `KIND/NAMESPACE/NAME`.
pub(crate) fn response<T: DeserializeOwned>(response: &Value) -> (Of, Fetched<T>) {
    let of: Vec<&str> = response["of"].as_str().expect("an object").split('/').collect();
    let of = match of.as_slice() {
        ["portforwards", namespace, name] => Of::Forward(ObjectKey::new(*namespace, *name)),
        ["pods", namespace, name] => Of::Pod(ObjectKey::new(*namespace, *name)),
        other => panic!("{other:?}"),
    };
    let code = response["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let read = match code {
        Some(code) => Err(Request::sessions(&of, 1).refused(code, "", "refused")),
        None => Ok(serde_json::from_value(response.clone()).expect("a response")),
    };
    (of, read)
}
