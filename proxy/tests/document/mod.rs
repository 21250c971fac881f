//! The document of version 1, from which tests make listeners.

use proxy_api::{Configuration, Listener};

/// The listener of the document.
pub(crate) fn template() -> Listener {
    let text = include_str!("../../../proxy-api/tests/documents/v1.yaml");
    let document = Configuration::decode(text.as_bytes()).expect("v1");
    document.supported().next().expect("one").1.clone()
}
