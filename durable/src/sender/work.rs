//! What all kinds of sinks share: where the messages of a store are on their way, and who hears of it.

use std::collections::VecDeque;

use durable_core::send::{Outgoing, Progress, Verdict};

use super::SenderEvent;
use crate::{Kept, ReadBound, Store, StoreError};

/// Bytes of messages that are read at once.
const READ: usize = 64 * 1024;

pub(super) struct Work<E, F> {
    store: Store,
    enrich: E,
    told: F,
    progress: Progress,
    /// The message to read next.
    next: u64,
    /// The first message that no connection had.
    fresh: u64,
    /// Numbers of messages that were read, from the cursor on.
    read: VecDeque<u64>,
}

impl<E: FnMut(Kept) -> Vec<u8>, F: FnMut(&SenderEvent)> Work<E, F> {
    pub(super) fn new(store: Store, enrich: E, told: F) -> Self {
        let cursor = store.figures().cursor;
        let progress = Progress::new(cursor);
        Self { store, enrich, told, progress, next: cursor, fresh: cursor, read: VecDeque::new() }
    }

    pub(super) const fn cursor(&self) -> u64 {
        self.progress.cursor()
    }

    /// Reads from the cursor on again.
    pub(super) fn start_over(&mut self) {
        self.progress.broke();
        self.next = self.progress.cursor();
        self.read.clear();
    }

    /// Waits until there is a message to send.
    pub(super) async fn wait(&self) -> Result<(), StoreError> {
        self.store.wait_for(self.next).await
    }

    /// Waits until there is a message that the sink does not have.
    pub(super) async fn wait_from_cursor(&self) -> Result<(), StoreError> {
        self.store.wait_for(self.progress.cursor()).await
    }

    /// Whether there is a message that the sink does not have.
    pub(super) fn is_behind(&self) -> bool {
        self.store.has(self.progress.cursor())
    }

    /// Reads messages, no more than this. Call [`Work::settle`] after it, too: messages that are missing are lost, and
    /// no sink says a word of them.
    pub(super) async fn read(&mut self, room: usize) -> Result<Vec<Outgoing>, StoreError> {
        let read = self.store.read(self.next, ReadBound { messages: room, bytes: READ }).await?;
        self.next = read.next;
        let mut messages = Vec::with_capacity(read.messages.len());
        for kept in read.messages {
            let number = kept.number;
            self.read.push_back(number);
            messages.push(Outgoing { number, payload: (self.enrich)(kept) });
        }
        Ok(messages)
    }

    /// Messages that were read are given to a connection.
    pub(super) fn sends(&mut self, messages: &[Outgoing]) {
        let again = messages.iter().filter(|message| message.number < self.fresh).count();
        if let Some(last) = messages.last() {
            self.fresh = self.fresh.max(last.number.saturating_add(1));
        }
        self.resends(again);
    }

    /// So many messages are sent again.
    pub(super) fn resends(&mut self, messages: usize) {
        if messages > 0 {
            self.tell(&SenderEvent::Resent { messages: messages as u64 });
        }
    }

    /// Moves the cursor by what the sink said. If it `owes` no word, it has all that was read.
    pub(super) async fn settle(&mut self, verdicts: &mut Vec<Verdict>, owes: bool) -> Result<(), StoreError> {
        let before = self.progress.cursor();
        self.progress.take(verdicts);
        let (poison, mut settled) = self.put_aside().await;
        if settled.is_ok() && !owes && self.next > self.progress.cursor() {
            // The last messages that were read are lost.
            self.progress.take(&mut vec![Verdict::Delivered { through: self.next - 1 }]);
        }
        let cursor = self.progress.cursor();
        if cursor > before {
            let passed = self.read.partition_point(|number| *number < cursor);
            self.read.drain(..passed);
            settled = self.store.acknowledge(cursor).await.and(settled);
            let messages = (passed as u64).saturating_sub(poison);
            if messages > 0 {
                self.tell(&SenderEvent::Delivered { messages });
            }
        }
        settled
    }

    /// Puts poison aside. Returns how much.
    async fn put_aside(&mut self) -> (u64, Result<(), StoreError>) {
        let mut messages = 0;
        while let Some((number, reason)) = self.progress.poison() {
            let reason = reason.to_owned();
            match self.store.dead(number, reason.clone()).await {
                Ok(is_put_aside) => {
                    self.progress.put_aside();
                    messages += 1;
                    self.tell(&if is_put_aside {
                        SenderEvent::DeadLettered { messages: 1, reason }
                    } else {
                        SenderEvent::DroppedPoison { messages: 1, reason }
                    });
                }
                Err(error) => return (messages, Err(error)),
            }
        }
        (messages, Ok(()))
    }

    pub(super) fn tell(&mut self, event: &SenderEvent) {
        (self.told)(event);
    }
}
