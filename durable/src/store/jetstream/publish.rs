//! Messages on their way into the stream.

use std::error::Error as _;
use std::time::Instant;

use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use durable_core::stream::{BATCH, Outcome, Publication, Way};
use tokio::select;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::Keeper;
use super::aside::message;
use crate::store::command::Append;
use crate::{Incoming, StoreError};

/// Why the stream may not have a batch.
struct Failed {
    outcome: Outcome,
    why: String,
}

impl Failed {
    const fn broken(why: String) -> Self {
        Self { outcome: Outcome::Broken, why }
    }
}

impl Keeper {
    /// Publishes messages in their order, until there is nobody who appends any.
    pub(super) async fn publish_all(&self, mut queue: UnboundedReceiver<Append>) {
        while let Some(first) = queue.recv().await {
            let mut messages = first.messages.len();
            let mut batch = vec![first];
            while messages < BATCH
                && let Ok(more) = queue.try_recv()
            {
                messages += more.messages.len();
                batch.push(more);
            }
            self.publish(batch).await;
        }
    }

    /// Publishes messages until the stream has all of them, or refuses some.
    async fn publish(&self, batch: Vec<Append>) {
        let started = Instant::now();
        let messages: Vec<&Incoming> = batch.iter().flat_map(|append| &append.messages).collect();
        let mut publication = Publication::new(messages.len(), self.settings.blocks);
        // Why the last ones have not been stored.
        let mut refusal = String::new();
        while let Some(wanted) = publication.wanted() {
            let first = self.passed.get() + wanted.start as u64;
            let sent = self.send(first, messages.get(wanted).unwrap_or_default()).await;
            let outcome = sent.as_ref().map_or_else(|failed| failed.outcome, |()| Outcome::Stored);
            if outcome.is_answer() {
                self.works(Way::In);
            }
            match sent {
                Ok(()) => {}
                Err(Failed { outcome: Outcome::Broken, why }) => self.fails(Way::In, why),
                Err(Failed { why, .. }) => refusal = why,
            }
            let pause = publication.hears(outcome);
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
        self.passed.set(self.passed.get() + messages.len() as u64);
        self.settle(batch, &publication, &refusal);
        let mut figures = self.figures();
        figures.syncs += 1;
        figures.sync_time += started.elapsed();
        drop(figures);
        self.show();
    }

    /// Sends messages, of which the stream has all then, or none. `first` is the number of the first one.
    async fn send(&self, first: u64, messages: &[&Incoming]) -> Result<(), Failed> {
        let mut links = self.links.clone();
        self.connected(Way::In, &mut links).await.map_err(Failed::broken)?;
        let Some(answer) = self.begin(first, messages).await? else { return Ok(()) };
        let answer = select! {
            answer = answer.into_future() => answer,
            _ = links.changed() => return Err(Failed::broken(self.words("publish to", &"the connection broke"))),
        };
        match answer {
            Ok(_) => Ok(()),
            Err(error) if outcome(code(&error)) == Outcome::Stored => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Sends messages as one batch. Returns the answer to come, if there are any.
    async fn begin(&self, first: u64, messages: &[&Incoming]) -> Result<Option<PublishAckFuture>, Failed> {
        // What an earlier try left on its way is no part of this one.
        let batch = self.batches.replace(self.batches.get() + 1);
        let batch = format!("{}-{batch}", self.id);
        let (subject, last) = (self.settings.stream.as_str(), messages.len());
        for ((number, at), incoming) in (first..).zip(1_usize..).zip(messages) {
            let message = message(&incoming.source, incoming.received_millis, &incoming.payload);
            let mut message = message.message_id(self.id_of(number));
            // A message that is alone needs no batch.
            if last > 1 {
                message = message.header(NATS_BATCH_ID, batch.as_str()).header(NATS_BATCH_SEQUENCE, at.to_string());
            }
            if at == last {
                if last > 1 {
                    message = message.header(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
                }
                let answer = self.context.send_publish(subject.to_owned(), message).await;
                return answer.map(Some).map_err(|error| self.failed(&error));
            }
            let message = message.outbound_message(subject.to_owned());
            let headers = message.headers.unwrap_or_default();
            // The server says of the last one what is wrong with others.
            let sent = self.client.publish_with_headers(message.subject, headers, message.payload).await;
            sent.map_err(|error| Failed::broken(self.words("publish to", &error)))?;
        }
        Ok(None)
    }

    fn failed(&self, error: &PublishError) -> Failed {
        Failed { outcome: outcome(code(error)), why: self.words("publish to", error) }
    }

    /// Answers who appended the messages. `refusal` is why the stream has no room for some.
    fn settle(&self, batch: Vec<Append>, publication: &Publication, refusal: &str) {
        self.waiting.set(self.waiting.get().saturating_sub(batch.len()));
        let mut figures = self.figures();
        let counts: Vec<usize> = batch.iter().map(|append| append.messages.len()).collect();
        for (append, share) in batch.into_iter().zip(publication.shares(counts)) {
            share.count(append.sync, &mut figures);
            let is_kept = share.refused == 0;
            let answer = if is_kept { Ok(()) } else { Err(StoreError::Server(refusal.to_owned())) };
            // The sender may not wait for it.
            let _ = append.reply.send(answer);
        }
    }
}

/// What an error means for messages; `None`: it is none of the server.
fn outcome(code: Option<ErrorCode>) -> Outcome {
    match code {
        // The answer to an earlier try was lost.
        Some(ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE) => Outcome::Stored,
        Some(
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ) => Outcome::Full,
        _ => Outcome::Broken,
    }
}

/// The code of an error of the server.
fn code(error: &PublishError) -> Option<ErrorCode> {
    let of_the_server = error.source()?.downcast_ref::<async_nats::jetstream::Error>()?;
    Some(of_the_server.error_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whether_the_stream_has_messages_has_no_room_or_that_nobody_knows() {
        let of = |code: u64| outcome(Some(ErrorCode(code)));
        assert_eq!(of(10_201), Outcome::Stored, "the batch has a message that it has");
        assert_eq!([10_077, 10_047, 10_002].map(of), [Outcome::Full; 3], "its bytes, the server's, the account's");
        assert_eq!(of(10_059), Outcome::Broken, "there is no such stream");
        assert_eq!(outcome(None), Outcome::Broken, "no answer came");
    }
}
