//! Errors that only a newer release causes.

/// Whether the error means a field or value of a newer release. The texts are serde's own; the compatibility tests pin
/// them.
pub(crate) fn is_unknown(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    text.starts_with("unknown field") || text.starts_with("unknown variant")
}
