//! Labels that are added to messages on their way to the sink: time of receipt, client, forward and pod.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::BASE64;
use serde::Serialize;

use crate::Message;

mod structured;

/// The last millisecond of the year 9999. A later time is shown as this one.
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// The form in which labels are added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// An object of JSON around each message, for a sink over HTTP that takes JSON.
    Json,
    /// One element of structured data in each message of RFC 5424. Other messages stay as they are.
    Syslog {
        /// The name of the element, such as `portlane@32473`.
        id: String,
    },
}

/// Adds labels to the messages of one listener, and changes nothing else in them.
#[derive(Debug)]
pub struct Enricher {
    form: Form,
    forward: String,
    pod: String,
    untouched: u64,
}

/// The labels of one message.
#[derive(Clone, Copy, Debug)]
struct Labels<'a> {
    received_at: &'a str,
    client: &'a str,
    forward: &'a str,
    pod: &'a str,
}

/// A message as an object of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    received_at: &'a str,
    client: &'a str,
    forward: &'a str,
    pod: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_base64: Option<String>,
}

impl Enricher {
    /// An enricher that adds the names of the forward and of the pod or machine on which it runs.
    pub const fn new(form: Form, forward: String, pod: String) -> Self {
        Self { form, forward, pod, untouched: 0 }
    }

    /// The bytes of a message for the sink. `client` is the address of its sender; a port in it is not added.
    pub fn enrich(&mut self, client: &str, message: &Message<'_>) -> Vec<u8> {
        let received_at = time(message.received_millis);
        let client = address(client);
        let labels = Labels { received_at: &received_at, client: &client, forward: &self.forward, pod: &self.pod };
        let enriched = match &self.form {
            Form::Json => object(&labels, message.payload),
            Form::Syslog { id } => structured::add(id, &labels, message.payload),
        };
        enriched.unwrap_or_else(|| {
            self.untouched = self.untouched.saturating_add(1);
            message.payload.to_vec()
        })
    }

    /// Messages that got no labels, as they are not RFC 5424 or have an element of this name already.
    pub const fn untouched(&self) -> u64 {
        self.untouched
    }
}

/// The time that is `millis` milliseconds after the start of 1970, in the form of RFC 3339.
pub(crate) fn time(millis: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(millis.min(LAST_MILLIS));
    humantime::format_rfc3339_millis(time).to_string()
}

/// An address without its port, which changes with each connection and so does not identify a client.
pub(crate) fn address(client: &str) -> Cow<'_, str> {
    let with_port = client.parse::<SocketAddr>();
    with_port.map_or(Cow::Borrowed(client), |client| Cow::Owned(client.ip().to_string()))
}

/// A message as a string, or in base64 if it is not UTF-8.
pub(crate) fn string(payload: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(payload) {
        Ok(message) => (Some(message), None),
        Err(_) => (None, Some(BASE64.encode(payload))),
    }
}

/// The message and its labels as an object of JSON.
fn object(labels: &Labels<'_>, payload: &[u8]) -> Option<Vec<u8>> {
    let (message, message_base64) = string(payload);
    let Labels { received_at, client, forward, pod } = *labels;
    serde_json::to_vec(&Object { received_at, client, forward, pod, message, message_base64 }).ok()
}

#[cfg(test)]
mod tests;
