//! Messages on their way from the stream to the sink.

use std::future::pending;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use futures_util::StreamExt;
use tokio::select;
use tokio::time::sleep;

use super::aside::origin;
use super::window::Given;
use super::{Keeper, PAUSE};
use crate::Kept;

/// Messages that are held for the sink: no fewer than the longest batch over HTTP has.
const HELD: usize = 10_000;
/// No more are asked for while so many bytes of them are held, and no more bytes at once.
const HELD_BYTES: usize = 16 << 20;
/// How long the server waits for the messages that it was asked for.
const PULL_FOR: Duration = Duration::from_secs(30);
/// The server gives a message again after so long. It has no need to, as a new consumer gives all after a break.
const GIVE_AGAIN: Duration = Duration::from_secs(3600);
/// The names of our consumers start with this.
const PREFIX: &str = "portlane-";

impl Keeper {
    /// Fills the window, over one consumer after another.
    pub(super) async fn pull(&self) {
        let mut failed_before = false;
        loop {
            let pulled = Box::pin(self.pull_until_a_break()).await;
            if self.usable().is_err() {
                return pending().await;
            }
            let fails = pulled.is_err();
            // A server that restarts fails once.
            if let Err(why) = pulled
                && failed_before
            {
                self.fails(why);
            }
            failed_before = fails;
            sleep(PAUSE).await;
        }
    }

    async fn pull_until_a_break(&self) -> Result<(), String> {
        let mut links = self.links.clone();
        self.connected(&mut links).await?;
        let consumer = self.consumer().await?;
        self.works();
        loop {
            let room = self.room().await;
            let asked = consumer.batch().max_messages(room).max_bytes(HELD_BYTES).expires(PULL_FOR);
            let mut batch = Box::pin(asked.messages()).await.map_err(|error| self.words("read", &error))?;
            let mut count: usize = 0;
            loop {
                let given = select! {
                    given = batch.next() => given,
                    _ = links.changed() => return Ok(()),
                };
                match given {
                    None => break,
                    Some(Ok(message)) => {
                        count += 1;
                        self.given(&message)?;
                    }
                    // Its bytes are full. If it is something else, the next one says so.
                    Some(Err(_)) if count > 0 => break,
                    Some(Err(error)) => return Err(self.words("read", &error)),
                }
            }
        }
    }

    /// Makes a consumer, in place of the one before.
    async fn consumer(&self) -> Result<PullConsumer, String> {
        let name = self.settings.stream.as_str();
        let stream = self.context.get_stream_no_info(name).await.map_err(|error| self.words("read", &error))?;
        let own = format!("{PREFIX}{}-", self.id);
        let mut there = Vec::new();
        let mut names = stream.consumer_names();
        while let Some(name) = names.next().await {
            there.push(name.map_err(|error| self.words("read", &error))?);
        }
        let ours = there.iter().filter(|name| name.starts_with(PREFIX));
        let count = self.consumers.get();
        if count > 0 && ours.clone().any(|name| !name.starts_with(&own)) {
            let why = self.words("use", &"another process has taken it over; stop one of them");
            self.lose(why.clone());
            return Err(why);
        }
        for name in ours {
            stream.delete_consumer(name).await.map_err(|error| self.words("read", &error))?;
        }
        let config = pull::Config {
            durable_name: Some(format!("{own}{count}")),
            ack_policy: AckPolicy::Explicit,
            ack_wait: GIVE_AGAIN,
            max_ack_pending: i64::try_from(HELD).unwrap_or(i64::MAX),
            ..pull::Config::default()
        };
        let made = Box::pin(self.context.create_consumer_on_stream(config, name)).await;
        let consumer = made.map_err(|error| self.words("read", &error))?;
        self.consumers.set(count + 1);
        Ok(consumer)
    }

    /// Waits until there is room in the window. Returns for how many messages.
    async fn room(&self) -> usize {
        loop {
            let (messages, bytes) = self.window.borrow().held();
            if messages < HELD && bytes < HELD_BYTES {
                return HELD - messages;
            }
            self.has_room.notified().await;
        }
    }

    fn given(&self, message: &Message) -> Result<(), String> {
        let number = message.info().map_err(|error| self.words("read", &error))?.stream_sequence;
        let Some(way) = message.message.reply.clone() else { return Ok(()) };
        let (source, received_millis) = origin(message.message.headers.as_ref());
        let payload = message.message.payload.to_vec();
        let given = self.window.borrow_mut().give(Kept { number, source, received_millis, payload }, way);
        match given {
            Given::New { missing } => {
                self.figures().dropped.full += missing;
                self.next.send_replace(self.window.borrow().end());
                self.show();
            }
            Given::Again => {}
            Given::Acknowledged(way) => {
                self.acks.borrow_mut().push_back(way);
                self.has_acks.notify_one();
            }
        }
        Ok(())
    }
}
