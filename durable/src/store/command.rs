//! The commands that the handles of a store send to its thread.

use std::sync::mpsc;

use proxy_api::partials::Partial;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::pause::Pause;
use super::{Fate, Incoming, ReadBound, ReadMessages, StoreError};

/// The channel to the thread. The handle bounds the commands in it.
#[derive(Debug)]
pub(super) enum Commands {
    /// To a thread whose log is on disk, and its pause.
    Disk(mpsc::Sender<Command>, Pause),
    /// To a thread whose log is a stream of a server.
    #[cfg(feature = "jetstream")]
    Stream(tokio::sync::mpsc::UnboundedSender<Command>),
}

impl Commands {
    pub(super) fn send(&self, command: Command) -> Result<(), StoreError> {
        match self {
            Self::Disk(thread, _) => thread.send(command).map_err(|_| StoreError::Stopped),
            #[cfg(feature = "jetstream")]
            Self::Stream(thread) => thread.send(command).map_err(|_| StoreError::Stopped),
        }
    }

    /// Ends the pause of the thread, if it takes pauses.
    pub(super) fn end_pause(&self) {
        match self {
            Self::Disk(_, pause) => pause.end(),
            #[cfg(feature = "jetstream")]
            Self::Stream(_) => {}
        }
    }
}

pub(super) enum Command {
    Append(Append),
    Call {
        call: Call,
        /// The place among waiting calls, which is free again when this is dropped.
        _place: OwnedSemaphorePermit,
    },
}

/// A command to append messages with one write. Commands are executed in order.
pub(super) struct Append {
    pub(super) messages: Vec<Incoming>,
    /// The bytes that the messages count in the queue, which are more than those of their records on disk.
    pub(super) bytes: u64,
    /// Whether the messages are synced at once.
    pub(super) sync: bool,
    pub(super) reply: oneshot::Sender<Result<(), StoreError>>,
    /// The room in the queue, which is free again when this is dropped.
    pub(super) room: OwnedSemaphorePermit,
    /// The memory of the process that the messages hold, which is free again then, too.
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
