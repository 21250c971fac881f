//! The bodies of requests to a sink over HTTP, and their formats.

use serde::de::IgnoredAny;

/// Bytes around a message in a body, at most.
pub(super) const AROUND: usize = 2;

/// The format of the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Each message is a JSON value, with a newline behind it.
    Ndjson,
    /// Each message is a JSON value in one array.
    JsonArray,
    /// Messages as they are, with a newline between two. A message that has a newline looks like two, unless a request
    /// has one message.
    Raw,
}

impl Format {
    /// The header `Content-Type` of bodies in this format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::JsonArray => "application/json",
            Self::Raw => "application/octet-stream",
        }
    }

    /// Why the format cannot carry a message.
    pub(super) fn fault(self, payload: &[u8]) -> Option<&'static str> {
        if self == Self::Raw {
            return None;
        }
        if serde_json::from_slice::<IgnoredAny>(payload).is_err() {
            return Some(
                "a message is not JSON, and the format of send.http carries nothing else: set enrich: {}, which makes \
                 an object of each message, or the format Raw",
            );
        }
        let cut = self == Self::Ndjson && payload.contains(&b'\n');
        cut.then_some("a message has a newline, which ends a message in Ndjson: use JsonArray")
    }

    /// Adds a message to a body, which is empty before the first one.
    pub(super) fn add(self, payload: &[u8], body: &mut Vec<u8>) {
        match (self, body.is_empty()) {
            (Self::JsonArray, true) => body.push(b'['),
            (Self::JsonArray, false) => body.push(b','),
            _ => {}
        }
        body.extend_from_slice(payload);
        if self != Self::JsonArray {
            body.push(b'\n');
        }
    }

    /// Ends a body of at least one message.
    pub(super) fn end(self, body: &mut Vec<u8>) {
        match self {
            Self::Ndjson => {}
            Self::JsonArray => body.push(b']'),
            Self::Raw => {
                body.pop();
            }
        }
    }
}
