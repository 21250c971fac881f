//! Dead letters as people and programs read them.

use std::borrow::Cow;

use serde::Serialize;

use super::Letter;
use crate::enrich::{address, string, time};
use crate::{Message, Record};

/// A dead letter as an object of JSON, in the words of [`enrich`](crate::enrich).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterLine<'a> {
    listener: &'a str,
    number: u64,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Cow<'a, str>>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_base64: Option<String>,
}

impl<'a> Letter<'a> {
    /// The line of this letter of a listener. A message that is not UTF-8 is in base64.
    pub fn line(&self, listener: &'a str) -> LetterLine<'a> {
        let Record { number, message: Message { source, received_millis, payload } } = self.record;
        let (message, message_base64) = string(payload);
        LetterLine {
            listener,
            number,
            received_at: time(received_millis),
            client: std::str::from_utf8(source).ok().map(address),
            reason: self.why,
            message,
            message_base64,
        }
    }
}
