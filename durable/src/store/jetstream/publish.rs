//! Messages on their way into the stream.

use std::error::Error as _;
use std::time::Instant;

use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use tokio::select;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::aside::message;
use super::{Keeper, PAUSE, Way};
use crate::store::command::Append;
use crate::{Incoming, StoreError};

/// Messages of a batch. A server takes up to 1000, unless its configuration says otherwise.
const BATCH: usize = 256;

/// Why the stream may not have a batch.
enum Failed {
    /// It has no room.
    Full(String),
    /// Nobody knows whether it has it.
    Broken(String),
}

/// Why messages are given up.
struct Refusal {
    is_full: bool,
    error: StoreError,
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
        let mut done = 0;
        let mut refusal = None;
        while refusal.is_none() && done < messages.len() {
            // After a break these are the same messages, with the same ids.
            let rest = messages.get(done..messages.len().min(done + BATCH)).unwrap_or_default();
            match self.send(self.passed.get() + done as u64, rest).await {
                Ok(()) => {
                    done += rest.len();
                    self.works(Way::In);
                }
                Err(Failed::Full(_)) if self.settings.blocks => sleep(PAUSE * 10).await,
                Err(Failed::Full(why)) => refusal = Some(Refusal { is_full: true, error: StoreError::Server(why) }),
                Err(Failed::Broken(why)) => {
                    self.fails(Way::In, why);
                    sleep(PAUSE).await;
                }
            }
        }
        self.passed.set(self.passed.get() + messages.len() as u64);
        self.settle(batch, done, refusal.as_ref());
        let mut figures = self.figures();
        figures.syncs += 1;
        figures.sync_time += started.elapsed();
        drop(figures);
        self.show();
    }

    /// Sends messages, of which the stream has all then, or none. `first` is the number of the first one.
    async fn send(&self, first: u64, messages: &[&Incoming]) -> Result<(), Failed> {
        let mut links = self.links.clone();
        self.connected(Way::In, &mut links).await.map_err(Failed::Broken)?;
        let Some(answer) = self.begin(first, messages).await? else { return Ok(()) };
        let answer = select! {
            answer = answer.into_future() => answer,
            _ = links.changed() => return Err(Failed::Broken(self.words("publish to", &"the connection broke"))),
        };
        match answer {
            Ok(_) => Ok(()),
            // The answer to an earlier try was lost.
            Err(error) if code(&error) == Some(ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE) => Ok(()),
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
            sent.map_err(|error| Failed::Broken(self.words("publish to", &error)))?;
        }
        Ok(None)
    }

    fn failed(&self, error: &PublishError) -> Failed {
        let has_no_room = |code| {
            [
                ErrorCode::STREAM_STORE_FAILED,
                ErrorCode::STORAGE_RESOURCES_EXCEEDED,
                ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ]
            .contains(&code)
        };
        let why = self.words("publish to", error);
        if code(error).is_some_and(has_no_room) { Failed::Full(why) } else { Failed::Broken(why) }
    }

    /// Answers who appended the messages, of which the stream has so many.
    fn settle(&self, batch: Vec<Append>, done: usize, refusal: Option<&Refusal>) {
        self.waiting.set(self.waiting.get().saturating_sub(batch.len()));
        let mut figures = self.figures();
        let mut end = 0;
        for append in batch {
            let count = append.messages.len();
            end += count;
            let refused = end.saturating_sub(done).min(count) as u64;
            let kept = count as u64 - refused;
            figures.appended += kept;
            figures.synced += kept;
            let answer = match refusal.filter(|_| refused > 0) {
                None => Ok(()),
                Some(Refusal { is_full, error }) => {
                    let counted = match (append.sync, *is_full) {
                        // Its sender hears so, and sends them again.
                        (true, _) => &mut figures.refused,
                        (false, true) => &mut figures.dropped.full,
                        (false, false) => &mut figures.dropped.failed,
                    };
                    *counted += refused;
                    Err(error.clone())
                }
            };
            // The sender may not wait for it.
            let _ = append.reply.send(answer);
        }
    }
}

/// The code of an error of the server.
fn code(error: &PublishError) -> Option<ErrorCode> {
    let of_the_server = error.source()?.downcast_ref::<async_nats::jetstream::Error>()?;
    Some(of_the_server.error_code())
}
