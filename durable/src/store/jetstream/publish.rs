//! Messages on their way into the stream.

use std::error::Error as _;
use std::time::Instant;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use tokio::select;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::aside::message;
use super::{Keeper, PAUSE};
use crate::store::command::Append;
use crate::{Incoming, StoreError};

/// Messages that are published before the first of them is answered.
const BATCH: usize = 256;

/// Why the stream may not have a message.
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

    /// Publishes messages until the stream has all of them, or refuses one.
    async fn publish(&self, batch: Vec<Append>) {
        let started = Instant::now();
        let messages: Vec<&Incoming> = batch.iter().flat_map(|append| &append.messages).collect();
        let mut done = 0;
        let mut refusal = None;
        while done < messages.len() {
            if let Err(error) = self.usable() {
                refusal = Some(Refusal { is_full: false, error });
                break;
            }
            let rest = messages.get(done..messages.len().min(done + BATCH)).unwrap_or_default();
            let before = self.last.get();
            match self.send(rest).await {
                Ok(()) => self.works(),
                Err(Failed::Full(_)) if self.settings.blocks => sleep(PAUSE * 10).await,
                Err(Failed::Full(why)) => refusal = Some(Refusal { is_full: true, error: StoreError::Server(why) }),
                Err(Failed::Broken(why)) => {
                    self.recover(before + rest.len() as u64).await;
                    if self.last.get() == before && self.usable().is_ok() {
                        self.fails(why);
                    }
                }
            }
            done += usize::try_from(self.last.get() - before).unwrap_or(usize::MAX);
            if refusal.is_some() {
                break;
            }
        }
        self.settle(batch, done, refusal.as_ref());
        let mut figures = self.figures();
        figures.syncs += 1;
        figures.sync_time += started.elapsed();
        drop(figures);
        self.show();
    }

    /// Sends messages, and moves `last` by those that the stream has.
    async fn send(&self, messages: &[&Incoming]) -> Result<(), Failed> {
        let mut links = self.links.clone();
        self.connected(&mut links).await.map_err(Failed::Broken)?;
        let mut sent = Vec::with_capacity(messages.len());
        let mut unsent = Ok(());
        for (before, message) in (self.last.get()..).zip(messages) {
            match self.begin(before, message).await {
                Ok(answer) => sent.push(answer),
                Err(error) => {
                    unsent = Err(self.failed(&error));
                    break;
                }
            }
        }
        for answer in sent {
            let answer = select! {
                answer = answer.into_future() => answer,
                _ = links.changed() => return Err(Failed::Broken(self.words("publish to", &"the connection broke"))),
            };
            let published = answer.map_err(|error| self.failed(&error))?;
            if published.sequence != self.last.get() + 1 {
                let what = format!("message {} became {}", self.last.get() + 1, published.sequence);
                return Err(Failed::Broken(self.words("publish to", &what)));
            }
            self.last.set(published.sequence);
        }
        unsent
    }

    /// Sends a message that comes after the one of this sequence.
    async fn begin(&self, before: u64, incoming: &Incoming) -> Result<PublishAckFuture, PublishError> {
        let id = format!("{}/{}", self.settings.stream, before + 1);
        let message = message(&incoming.source, incoming.received_millis, &incoming.payload);
        let message = message.message_id(id).expected_last_sequence(before);
        self.context.send_publish(self.settings.stream.clone(), message).await
    }

    fn failed(&self, error: &PublishError) -> Failed {
        let of_the_server = error.source().and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
        let has_no_room = |code| {
            [
                ErrorCode::STREAM_STORE_FAILED,
                ErrorCode::STORAGE_RESOURCES_EXCEEDED,
                ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ]
            .contains(&code)
        };
        let why = self.words("publish to", error);
        if of_the_server.is_some_and(|error| has_no_room(error.error_code())) {
            Failed::Full(why)
        } else {
            Failed::Broken(why)
        }
    }

    /// Asks until the server says what the stream has, and moves `last` to it. `most` is its last sequence if it has
    /// all that was sent.
    async fn recover(&self, most: u64) {
        let mut links = self.links.clone();
        while self.usable().is_ok() {
            sleep(PAUSE).await;
            let info = match self.connected(&mut links).await {
                Ok(()) => self.info().await,
                Err(why) => Err(why),
            };
            match info {
                Ok(info) => {
                    let (last, known) = (info.state.last_sequence, self.last.get());
                    if last < known {
                        let what = format!(
                            "it ends with message {last}, and had {known}; restart this process, and let the server \
                             sync with sync_interval: always"
                        );
                        self.lose(self.words("use", &what));
                    } else if last > most {
                        self.lose(self.words("use", &"another process publishes to it; stop one of them"));
                    } else {
                        self.last.set(last);
                    }
                    return;
                }
                Err(why) => self.fails(why),
            }
        }
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
