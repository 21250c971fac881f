//! A request of the far end.

use std::rc::Rc;

use tunnel_core::{Open, Refusal, StreamId};

use super::handle::{Farewell, Handle};
use super::shared::Shared;
use super::{Flow, Stream};

/// A request of the far end. Dropping it refuses it.
#[derive(Debug)]
pub struct Incoming {
    handle: Handle,
    request: Open,
}

impl Incoming {
    pub(super) fn new(shared: &Rc<Shared>, id: StreamId, request: Open) -> Self {
        Self { handle: Handle::new(shared, id, Farewell::Refuse), request }
    }

    /// The request. The protocol of its target decides between [`Incoming::accept`] and [`Incoming::accept_flow`].
    pub const fn request(&self) -> &Open {
        &self.request
    }

    /// Accepts the request: the target is connected by TCP.
    pub fn accept(self) -> Stream {
        Stream::new(self.accepted())
    }

    /// Accepts the request: the target is a UDP socket.
    pub fn accept_flow(self) -> Flow {
        Flow::new(self.accepted())
    }

    fn accepted(self) -> Handle {
        self.handle.with(|session, id, _| session.accept(id));
        self.handle.on_drop(Farewell::Reset);
        self.handle
    }

    /// Refuses the request: the target is not connected.
    pub fn refuse(self, refusal: Refusal) {
        self.handle.with(|session, id, _| session.refuse(id, refusal));
        self.handle.on_drop(Farewell::Nothing);
    }
}
