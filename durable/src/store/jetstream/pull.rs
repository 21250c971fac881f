//! Messages on their way from the stream to the sink.

use std::time::Duration;

use async_nats::jetstream::Message;
use durable_core::stream::{Break, Breaks, Given, PAUSE, Way};
use futures_util::StreamExt;
use tokio::select;
use tokio::sync::watch;
use tokio::time::sleep;

use super::aside::origin;
use super::server::Link;
use super::{HEADERS, Keeper};
use crate::Kept;

/// How long the server waits for the messages that it was asked for.
const PULL_FOR: Duration = Duration::from_secs(30);

impl Keeper {
    /// Fills the window while this process has the consumer.
    pub(super) async fn pull(&self) {
        let mut breaks = Breaks::default();
        loop {
            let pulled = Box::pin(self.pull_until_a_break()).await;
            let Break { pause, is_failure } = breaks.ends(pulled.is_err());
            if let Err(why) = pulled
                && is_failure
            {
                self.fails(Way::Out, why);
            }
            sleep(pause).await;
        }
    }

    async fn pull_until_a_break(&self) -> Result<(), String> {
        let mut links = self.links.clone();
        self.connected(Way::Out, &mut links).await?;
        let Some(consumer) = Box::pin(self.lease(&mut links)).await? else { return Ok(()) };
        self.works(Way::Out);
        while let Some((messages, bytes)) = self.room(&mut links).await {
            let asked = consumer.batch().max_messages(messages).max_bytes(bytes).expires(PULL_FOR);
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
                    // The bytes of the batch are full. Any other error comes again with the next batch.
                    Some(Err(_)) if count > 0 => break,
                    Some(Err(error)) => return Err(self.words("read", &error)),
                }
            }
        }
        Ok(())
    }

    /// Waits until there is room in the window, and memory for it. Returns how many messages have room, and bytes of
    /// them; `None`: the connection changed.
    async fn room(&self, links: &mut watch::Receiver<Link>) -> Option<(usize, usize)> {
        loop {
            let held = self.window.borrow().held();
            let longest = self.client.max_payload().saturating_add(HEADERS);
            let room = self.window.borrow().room(longest).filter(|(_, bytes)| self.memory.has_room(held, *bytes));
            self.is_stopped.set(room.is_none());
            if room.is_some() {
                return room;
            }
            select! {
                () = self.has_room.notified() => {}
                // Other windows may have let messages go.
                () = sleep(PAUSE * 10) => {}
                _ = links.changed() => return None,
            }
        }
    }

    fn given(&self, message: &Message) -> Result<(), String> {
        let info = message.info().map_err(|error| self.words("read", &error))?;
        let (number, behind) = (info.stream_sequence, info.pending);
        let Some(way) = message.message.reply.clone() else { return Ok(()) };
        let (source, received_millis) = origin(message.message.headers.as_ref());
        let payload = message.message.payload.to_vec();
        let given = self.window.borrow_mut().give(Kept { number, source, received_millis, payload }, way);
        self.ahead.set(behind);
        match given {
            Given::New { missing } => {
                self.figures().dropped.full += missing;
                self.next.send_replace(self.window.borrow().end());
            }
            Given::Again => {}
            Given::Acknowledged(way) => {
                self.acks.borrow_mut().push_back(way);
                self.has_acks.notify_one();
            }
        }
        self.show();
        Ok(())
    }
}
