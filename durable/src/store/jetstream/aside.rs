//! Dead letters, and the headers of messages.

use std::sync::PoisonError;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use durable_core::stream::{Outcome, Poison};
use tokio::sync::oneshot;

use super::Keeper;
use super::answer::outcome_of;
use super::server::dead_name;
use crate::{Fate, StoreError};

/// The sender of the message.
const SOURCE: &str = "Portlane-Source";
/// The time of receipt, in milliseconds since 1970.
const RECEIVED: &str = "Portlane-Received";
/// Why the sink refuses the message.
const WHY: &str = "Portlane-Refused";

/// A message for a stream.
pub(super) fn message(source: &[u8], received_millis: u64, payload: &[u8]) -> PublishMessage {
    PublishMessage::build()
        .payload(Bytes::copy_from_slice(payload))
        .header(SOURCE, line(source))
        .header(RECEIVED, received_millis.to_string())
}

/// The sender and the time of receipt of a message.
pub(super) fn origin(headers: Option<&HeaderMap>) -> (Vec<u8>, u64) {
    let header = |name: &str| headers.and_then(|headers| headers.get(name)).map_or("", HeaderValue::as_str);
    (header(SOURCE).as_bytes().to_vec(), header(RECEIVED).parse().unwrap_or(0))
}

/// Bytes as the value of a header.
fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

impl Keeper {
    /// The id of the message that this process publishes with this number. Ids of different processes must differ: the
    /// server would take the later message for the earlier one, and drop it.
    pub(super) fn id_of(&self, number: u64) -> String {
        format!("{}/{number}", self.id)
    }

    /// Puts a message into the stream of dead letters, if there is one.
    pub(super) fn put_aside(&self, number: u64, why: &str, reply: oneshot::Sender<Result<Fate, StoreError>>) {
        let poison = self.window.borrow().poison(number, self.settings.dead_bytes > 0);
        let kept = match poison {
            Poison::PutAside(kept) => kept,
            Poison::Dropped => {
                self.figures().dropped.dead += 1;
                // The caller may have gone.
                let _ = reply.send(Ok(Fate::Dropped));
                return;
            }
            Poison::LetGo => {
                // The caller may have gone.
                let _ = reply.send(Ok(Fate::LetGo));
                return;
            }
        };
        let letter = message(&kept.source, kept.received_millis, &kept.payload).header(WHY, line(why.as_bytes()));
        let (context, figures, name) = (self.context.clone(), self.figures.clone(), dead_name(&self.settings));
        tokio::spawn(async move {
            let fate = fate(publish(&context, name.clone(), letter).await);
            let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
            match fate {
                Ok(Fate::PutAside) => figures.dead_letters += 1,
                Ok(Fate::Dropped) => figures.dropped.dead += 1,
                Ok(Fate::LetGo) | Err(_) => {}
            }
            drop(figures);
            // The caller may have gone.
            let _ = reply.send(fate.map_err(|error| {
                StoreError::Server(format!(
                    "cannot put a message into the stream {name}: {error}; check the NATS server"
                ))
            }));
        });
    }
}

/// The fate of a dead letter, which is dropped if it is too long for the server. After an error it is not known.
fn fate<T>(put: Result<T, PublishError>) -> Result<Fate, PublishError> {
    match put {
        Ok(_) => Ok(Fate::PutAside),
        Err(error) if outcome_of(&error) == Outcome::TooLong => Ok(Fate::Dropped),
        Err(error) => Err(error),
    }
}

async fn publish(context: &Context, subject: String, letter: PublishMessage) -> Result<PublishAck, PublishError> {
    context.send_publish(subject, letter).await?.await
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::context::PublishErrorKind;

    use super::*;

    #[test]
    fn a_dead_letter_that_is_too_long_is_dropped_and_one_that_found_no_answer_is_tried_again() {
        let of = |kind| fate(Err::<(), _>(PublishError::new(kind))).ok();
        assert_eq!(fate(Ok(())).ok(), Some(Fate::PutAside));
        assert_eq!(of(PublishErrorKind::MaxPayloadExceeded), Some(Fate::Dropped));
        assert_eq!([PublishErrorKind::TimedOut, PublishErrorKind::Other].map(of), [None, None]);
    }

    #[test]
    fn the_origin_of_a_message_is_in_its_headers() {
        let message = message(b"192.0.2.1:514", 7, b"m").outbound_message("s");
        assert_eq!(origin(message.headers.as_ref()), (b"192.0.2.1:514".to_vec(), 7));
        assert_eq!(origin(None), (Vec::new(), 0));
    }

    #[test]
    fn a_header_is_one_line_whatever_the_bytes_are() {
        assert_eq!(line(b"a\r\nb\0c"), "a  b c");
        assert_eq!(line(&[0xFF]), "\u{FFFD}");
    }
}
