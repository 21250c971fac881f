//! The part that all kinds of sinks share: the progress of a store's messages, and the reports of it.

use durable_core::send::{Outgoing, Passage, Settled, Verdict};

use super::SenderEvent;
use crate::{Fate, Kept, ReadBound, Store, StoreError};

/// Bytes of messages that are read at once.
const READ: usize = 64 * 1024;

pub(super) struct Work<E, F> {
    store: Store,
    enrich: E,
    reported: F,
    passage: Passage,
}

impl<E: FnMut(Kept) -> Vec<u8>, F: FnMut(&SenderEvent)> Work<E, F> {
    pub(super) fn new(store: Store, enrich: E, reported: F) -> Self {
        let cursor = store.figures().cursor;
        Self { store, enrich, reported, passage: Passage::new(cursor) }
    }

    pub(super) const fn cursor(&self) -> u64 {
        self.passage.cursor()
    }

    /// Reads from the cursor on again.
    pub(super) fn start_over(&mut self) {
        self.passage.start_over();
    }

    /// Waits until there is a message to send.
    pub(super) async fn wait(&self) -> Result<(), StoreError> {
        self.store.wait_for(self.passage.next()).await
    }

    /// Waits until there is a message that the sink does not have.
    pub(super) async fn wait_from_cursor(&self) -> Result<(), StoreError> {
        self.store.wait_for(self.passage.cursor()).await
    }

    /// Whether there is a message that the sink does not have.
    pub(super) fn is_behind(&self) -> bool {
        self.store.has(self.passage.cursor())
    }

    /// Reads at most `room` messages. Call [`Work::settle`] after it, too: messages that are missing are lost, and get
    /// no verdict.
    pub(super) async fn read(&mut self, room: usize) -> Result<Vec<Outgoing>, StoreError> {
        self.read_block(room, READ).await
    }

    /// Like [`Work::read`], for a sink that takes this many bytes at once.
    pub(super) async fn read_block(&mut self, room: usize, bytes: usize) -> Result<Vec<Outgoing>, StoreError> {
        let read = self.store.read(self.passage.next(), ReadBound { messages: room, bytes }).await?;
        self.passage.read(read.messages.iter().map(|kept| kept.number), read.next);
        let mut messages = Vec::with_capacity(read.messages.len());
        for kept in read.messages {
            let number = kept.number;
            messages.push(Outgoing { number, payload: (self.enrich)(kept) });
        }
        Ok(messages)
    }

    /// Takes messages that are given to a connection, and reports those that are sent again.
    pub(super) fn sends(&mut self, messages: &[Outgoing]) {
        let again = self.passage.sends(messages.iter().map(|message| message.number));
        self.resends(again);
    }

    /// Reports that this many messages are sent again.
    pub(super) fn resends(&mut self, messages: usize) {
        if messages > 0 {
            self.tell(&SenderEvent::Resent { messages: messages as u64 });
        }
    }

    /// Moves the cursor by the verdicts. A sink that `owes` no answer has all messages that were read.
    pub(super) async fn settle(&mut self, verdicts: &mut Vec<Verdict>, owes: bool) -> Result<(), StoreError> {
        self.passage.take(verdicts);
        let mut settled = self.put_aside().await;
        // Even if a message could not be put aside, the cursor passes those before it.
        if let Some(Settled { cursor, delivered }) = self.passage.settle(owes) {
            settled = self.store.acknowledge(cursor).await.and(settled);
            if delivered > 0 {
                self.tell(&SenderEvent::Delivered { messages: delivered });
            }
        }
        settled
    }

    /// Puts poison aside.
    async fn put_aside(&mut self) -> Result<(), StoreError> {
        while let Some((number, reason)) = self.passage.poison() {
            let reason = reason.to_owned();
            let fate = self.store.dead(number, reason.clone()).await?;
            self.passage.put_aside();
            if let Some(event) = told(fate, reason) {
                self.tell(&event);
            }
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, event: &SenderEvent) {
        (self.reported)(event);
    }
}

/// The event for one message that the sink will never take.
fn told(fate: Fate, reason: String) -> Option<SenderEvent> {
    match fate {
        Fate::PutAside => Some(SenderEvent::DeadLettered { messages: 1, reason }),
        Fate::Dropped => Some(SenderEvent::DroppedPoison { messages: 1, reason }),
        // The process that gets the message next reports it.
        Fate::LetGo => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_to_be_put_aside_or_dropped_and_not_where_it_is_still_in_the_stream() {
        let reason = || "too old".to_owned();
        let (put_aside, dropped) = (told(Fate::PutAside, reason()), told(Fate::Dropped, reason()));
        assert_eq!(put_aside, Some(SenderEvent::DeadLettered { messages: 1, reason: reason() }));
        assert_eq!(dropped, Some(SenderEvent::DroppedPoison { messages: 1, reason: reason() }));
        assert_eq!(told(Fate::LetGo, reason()), None);
    }
}
