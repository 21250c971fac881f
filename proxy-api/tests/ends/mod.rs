//! The two ends of a stream: one of this release, and one that knows no more than the document of version 1.

use std::collections::BTreeSet;

use proxy_api::{Assembler, Change, Configuration, Digest, FromProxy, Held, Named, Version};
use serde_json::json;

/// The document of version 1.
pub(crate) const V1: &str = include_str!("../documents/v1.yaml");
/// The document of version 1, and an agent.
pub(crate) const AGENTS: &str = include_str!("../documents/agents.yaml");

pub(crate) fn decode(text: &str) -> Configuration {
    Configuration::decode(text.as_bytes()).expect("a document")
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest(text.to_owned())
}

/// What a proxy has after an update of one part that came as JSON, with its digest and the number of hashed items.
pub(crate) fn taken(old: &Configuration, part: &Change) -> (Configuration, Digest, usize) {
    let json = serde_json::to_vec(part).expect("encodes");
    let part = serde_json::from_slice(&json).expect("decodes");
    let mut stream = Assembler::of(old);
    let reached = stream.take(old, part).expect("taken").expect("the only part");
    (reached, stream.digest(), stream.hashed())
}

/// What a proxy has after an update in parts of a hundred items.
pub(crate) fn led(mut current: Configuration, next: &Configuration) -> Configuration {
    let mut stream = Assembler::of(&current);
    for part in next.changes_from(&current.held(), &BTreeSet::new(), 100) {
        if let Some(reached) = stream.take(&current, part).expect("within the bounds") {
            current = reached;
        }
    }
    current
}

/// What a proxy of version 1 says that it holds.
pub(crate) fn held_by_an_old_proxy() -> Held {
    let message = json!({"held": {
        "listeners": {"shop/shop-db/pg": "d2c9a9c0ffee0001"}, "endpoints": {"shop/pg:5432": "c25788390008aab7"},
        "commit": true,
    }});
    let message: FromProxy = serde_json::from_value(message).expect("decodes");
    message.held.expect("held revisions")
}

/// The version of an operator of version 1.
fn old_version() -> Version {
    Version { epoch: "old".to_owned(), number: 1 }
}

/// A configuration, as an operator of version 1 leaves it.
pub(crate) fn left_by_an_old_operator(configuration: Configuration) -> Configuration {
    Configuration { version: old_version(), ..configuration }
}

/// What a proxy has after an operator of version 1 has told it this digest and nothing else, and what the update names.
pub(crate) fn told_by_an_old_operator(current: &Configuration, digest: Option<Digest>) -> (Configuration, Named) {
    let part = Change { contract: 1, version: old_version(), digest, commit: true, ..Change::default() };
    let mut stream = Assembler::of(current);
    let reached = stream.take(current, part).expect("a new epoch").expect("the only part");
    assert_eq!(stream.digest(), reached.digest());
    (reached, stream.take_named())
}
