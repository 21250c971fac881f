//! Messages on their way into the stream.

use std::time::Instant;

use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use durable_core::stream::{BATCH, Outcome, Publication, Share, Way};
use tokio::select;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::Keeper;
use super::answer::outcome_of;
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
    /// Publishes messages in their order, until nobody appends any more.
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

    /// Publishes messages until the stream has all of them, or refuses some, or they are given up. Then the outcome of
    /// each is known.
    async fn publish(&self, batch: Vec<Append>) {
        let started = Instant::now();
        let messages: Vec<&Incoming> = batch.iter().flat_map(|append| &append.messages).collect();
        let mut publication = Publication::new(messages.len(), self.settings.blocks);
        let mut gives_up = self.gives_up.subscribe();
        let refusal = select! {
            biased;
            // The keeper holds the sender, so this does not fail.
            _ = gives_up.wait_for(|gives_up| *gives_up) => None,
            refusal = Box::pin(self.send_all(&messages, &mut publication)) => Some(refusal),
        };
        if refusal.is_none() {
            publication.give_up();
        }
        self.passed.set(self.passed.get() + messages.len() as u64);
        let too_long = publication.too_long();
        if let Some(longest) = too_long.iter().filter_map(|at| messages.get(*at)).map(|it| it.payload.len()).max() {
            self.gave_up(too_long.len(), longest);
        }
        self.settle(batch, &publication, refusal.as_deref().unwrap_or_default());
        let mut figures = self.figures();
        figures.syncs += u64::from(refusal.is_some());
        figures.sync_time += started.elapsed();
        drop(figures);
        self.show();
    }

    /// Sends messages until the stream has all of them, or refuses some. Returns why the last ones have not been stored.
    async fn send_all(&self, messages: &[&Incoming], publication: &mut Publication) -> String {
        let mut refusal = String::new();
        let fits = |at: usize| messages.get(at).is_none_or(|message| self.surely_takes(message));
        while let Some(wanted) = publication.wanted(fits) {
            let (start, first) = (wanted.start, self.passed.get() + wanted.start as u64);
            let sent = self.send(first, messages.get(wanted).unwrap_or_default()).await;
            let outcome = sent.as_ref().map_or_else(|failed| failed.outcome, |()| Outcome::Stored);
            if outcome.is_answer() {
                self.works(Way::In);
            }
            match sent {
                Ok(()) => {}
                Err(Failed { outcome: Outcome::Broken, why }) => self.fails(Way::In, why),
                Err(Failed { outcome: Outcome::TooLong | Outcome::Incomplete, .. }) => {
                    // A message that the server is known not to take begins no batch.
                    refusal = self.look_up_bound(!fits(start)).await;
                }
                Err(Failed { why, .. }) => refusal = why,
            }
            let pause = publication.hears(outcome);
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
        refusal
    }

    /// Sends messages, of which the stream then has all or none. `first` is the number of the first one.
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
            Err(error) if outcome_of(&error) == Outcome::Stored => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Sends messages as one batch. Returns the pending answer, if there are any messages.
    async fn begin(&self, first: u64, messages: &[&Incoming]) -> Result<Option<PublishAckFuture>, Failed> {
        // Messages of an earlier attempt that are still on their way are no part of this batch.
        let batch = self.batches.replace(self.batches.get() + 1);
        let batch = format!("{}-{batch}", self.id);
        let (subject, last) = (self.settings.stream.as_str(), messages.len());
        for ((number, at), incoming) in (first..).zip(1_usize..).zip(messages) {
            let message = message(&incoming.source, incoming.received_millis, &incoming.payload);
            let mut message = message.message_id(self.id_of(number));
            // A single message needs no batch.
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
            // The server reports faults of all messages in its answer to the last one.
            let sent = self.client.publish_with_headers(message.subject, headers, message.payload).await;
            sent.map_err(|error| {
                let is_long = error.kind() == async_nats::PublishErrorKind::MaxPayloadExceeded;
                let outcome = if is_long { Outcome::TooLong } else { Outcome::Broken };
                Failed { outcome, why: self.words("publish to", &error) }
            })?;
        }
        Ok(None)
    }

    fn failed(&self, error: &PublishError) -> Failed {
        Failed { outcome: outcome_of(error), why: self.words("publish to", error) }
    }

    /// Answers the callers that appended the messages. `refusal` is why the stream does not have some.
    fn settle(&self, batch: Vec<Append>, publication: &Publication, refusal: &str) {
        self.waiting.set(self.waiting.get().saturating_sub(batch.len()));
        let mut figures = self.figures();
        let counts: Vec<usize> = batch.iter().map(|append| append.messages.len()).collect();
        for (append, share) in batch.into_iter().zip(publication.shares(counts)) {
            share.count(append.sync, &mut figures);
            // The caller may have stopped waiting for the answer.
            let _ = append.reply.send(answer(share, refusal));
        }
    }
}

/// The answer to an append of which the stream has this share. `refusal` is why it does not have the rest.
fn answer(share: Share, refusal: &str) -> Result<(), StoreError> {
    if share.is_kept() {
        Ok(())
    } else if share.unpublished > 0 {
        Err(StoreError::Stopped)
    } else if share.refused > 0 {
        Err(StoreError::Full(refusal.to_owned()))
    } else {
        // The messages are too long, and more room would not help.
        Err(StoreError::Server(refusal.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_appended_messages_hears_whether_the_stream_is_full_or_closed_or_does_not_take_them() {
        let of = |refused, too_long| answer(Share { kept: 1, refused, too_long, unpublished: 0 }, "why");
        assert_eq!(of(0, 0), Ok(()));
        assert_eq!(of(2, 0), Err(StoreError::Full("why".to_owned())));
        assert_eq!(of(0, 2), Err(StoreError::Server("why".to_owned())));
        assert_eq!(of(1, 1), Err(StoreError::Full("why".to_owned())));
        assert_eq!(answer(Share { kept: 1, refused: 0, too_long: 1, unpublished: 1 }, ""), Err(StoreError::Stopped));
    }
}
