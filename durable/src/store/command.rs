//! What handles ask of the thread.

use std::sync::mpsc;

use proxy_api::partials::Partial;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Fate, Incoming, ReadBound, ReadMessages, StoreError};

/// The way to the thread. What waits there has its bounds in the handle.
#[derive(Debug)]
pub(super) enum Commands {
    /// Its log is on disk.
    Disk(mpsc::Sender<Command>),
    /// Its log is a stream of a server.
    #[cfg(feature = "jetstream")]
    Stream(tokio::sync::mpsc::UnboundedSender<Command>),
}

impl Commands {
    pub(super) fn send(&self, command: Command) -> Result<(), StoreError> {
        match self {
            Self::Disk(thread) => thread.send(command).map_err(|_| StoreError::Stopped),
            #[cfg(feature = "jetstream")]
            Self::Stream(thread) => thread.send(command).map_err(|_| StoreError::Stopped),
        }
    }
}

pub(super) enum Command {
    Append(Append),
    Call {
        call: Call,
        /// The place among those that wait, which is free again when this is dropped.
        _place: OwnedSemaphorePermit,
    },
}

/// Messages to append with one write, and in the order of the commands.
pub(super) struct Append {
    pub(super) messages: Vec<Incoming>,
    /// What they count in the queue, which is more than their records have on disk.
    pub(super) bytes: u64,
    /// Whether they are synced at once.
    pub(super) sync: bool,
    pub(super) reply: oneshot::Sender<Result<(), StoreError>>,
    /// The room in the queue, which is free again when this is dropped.
    pub(super) room: OwnedSemaphorePermit,
    /// What they have of the memory of the process, which is free again then, too.
    pub(super) memory: Option<Partial>,
}

pub(super) enum Call {
    Read { from: u64, bound: ReadBound, reply: oneshot::Sender<Result<ReadMessages, StoreError>> },
    Acknowledge { next: u64, reply: oneshot::Sender<()> },
    Dead { number: u64, why: String, reply: oneshot::Sender<Result<Fate, StoreError>> },
    SkipSegment { from: u64, reply: oneshot::Sender<u64> },
    Bound(u64),
    Drain(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}
