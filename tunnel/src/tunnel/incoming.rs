//! A request of the far end.

use std::rc::Rc;

use tunnel_core::{Open, Refusal, StreamId};

use super::handle::{Farewell, Handle};
use super::shared::Shared;
use super::{Flow, Stream};

/// A request of the far end. To drop it is to refuse it.
#[derive(Debug)]
pub struct Incoming {
    handle: Handle,
    request: Open,
}

impl Incoming {
    pub(super) fn new(shared: &Rc<Shared>, id: StreamId, request: Open) -> Self {
        Self { handle: Handle::new(shared, id, Farewell::Refuse), request }
    }

    /// What is asked for. The protocol of the target says which of [`Incoming::accept`] and
    /// [`Incoming::accept_flow`] is right.
    pub const fn request(&self) -> &Open {
        &self.request
    }

    /// The target is connected by TCP.
    pub fn accept(self) -> Stream {
        Stream::new(self.accepted())
    }

    /// The target is a socket of UDP.
    pub fn accept_flow(self) -> Flow {
        Flow::new(self.accepted())
    }

    fn accepted(self) -> Handle {
        self.handle.with(|session, id, _| session.accept(id));
        self.handle.on_drop(Farewell::Reset);
        self.handle
    }

    /// The target is not connected.
    pub fn refuse(self, refusal: Refusal) {
        self.handle.with(|session, id, _| session.refuse(id, refusal));
        self.handle.on_drop(Farewell::Nothing);
    }
}
