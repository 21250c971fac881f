//! The common part of a stream, a flow and a request.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tunnel_core::{End, Open, Reason, Refusal, Session, StreamId};

use super::OpenError;
use super::shared::{Shared, Slot};

/// What happens when the handle is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The peer's request is refused, because nobody will answer it.
    Refuse,
    /// The stream is given up.
    Reset,
    /// Nothing: both directions have ended.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Handle {
    shared: Rc<Shared>,
    id: StreamId,
    slot: Rc<Slot>,
    farewell: Cell<Farewell>,
    // A stream of bytes keeps these two here, where they take no memory: there is padding behind `farewell`.
    /// How reading has ended. The session may have forgotten the stream after that.
    pub(super) ended: Option<End>,
    /// Whether writing has ended.
    pub(super) finished: bool,
}

impl Handle {
    pub(super) fn new(shared: &Rc<Shared>, id: StreamId, farewell: Farewell) -> Self {
        Self {
            shared: Rc::clone(shared),
            id,
            slot: shared.claim(id),
            farewell: Cell::new(farewell),
            ended: None,
            finished: false,
        }
    }

    /// Asks the peer for a stream.
    pub(super) fn open(shared: &Rc<Shared>, open: Open) -> Result<Self, OpenError> {
        let id = shared.with(|session, now| session.open(open, now)).map_err(OpenError::NotOpened)?;
        Ok(Self::new(shared, id, Farewell::Reset))
    }

    pub(super) fn with<T>(&self, ask: impl FnOnce(&mut Session, StreamId, Duration) -> T) -> T {
        self.shared.with(|session, now| ask(session, self.id, now))
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Session, StreamId) -> T) -> T {
        look(&self.shared.session(), self.id)
    }

    pub(super) fn wait_to_read(&self, cx: &Context<'_>) {
        self.slot.reader.wait(cx);
    }

    pub(super) fn wait_to_write(&self, cx: &Context<'_>) {
        self.slot.writer().wait(cx);
    }

    pub(super) fn on_drop(&self, farewell: Farewell) {
        self.farewell.set(farewell);
    }

    /// The answer of the peer. A stream that was reset after bytes had arrived can still be read.
    pub(super) fn poll_answer(&self, cx: &Context<'_>) -> Poll<Result<(), OpenError>> {
        if let Some(refusal) = self.slot.take_refusal() {
            return Poll::Ready(Err(OpenError::Refused(refusal)));
        }
        let session = self.shared.session();
        let is_reset = session.is_reset(self.id);
        if session.is_open(self.id) && !(is_reset && session.readable(self.id).is_empty()) {
            return Poll::Ready(Ok(()));
        }
        if let Some(loss) = session.lost() {
            return Poll::Ready(Err(OpenError::Lost(loss)));
        }
        if is_reset {
            return Poll::Ready(Err(OpenError::Reset));
        }
        self.wait_to_read(cx);
        Poll::Pending
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.release(self.id, &self.slot);
        match self.farewell.get() {
            Farewell::Refuse => {
                let refusal = Refusal { reason: Reason::Other, detail: "the request was given up".to_owned() };
                self.with(|session, id, _| session.refuse(id, refusal));
            }
            Farewell::Reset => self.with(|session, id, _| session.reset(id)),
            Farewell::Nothing => {}
        }
    }
}
