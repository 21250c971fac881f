//! Commands of other threads to the workers, and to the thread of durable listeners.

pub mod ask;

use std::sync::Arc;

use proxy_api::{LiveSessions, Selection};
use tokio::sync::{mpsc, oneshot};

use self::ask::Ask;
use crate::{
    core::limits::relief::Held,
    net::OsSocket,
    route::Route,
    udp::SocketId,
    worker::{Accepted, Ending, Load, SessionAt},
};

/// Capacity of a worker's command queue.
const COMMANDS: usize = 1024;

/// A command to a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve this socket.
    Listen {
        /// Id of the socket.
        id: SocketId,
        /// The socket.
        socket: OsSocket,
        /// Listeners behind the socket.
        route: Route,
    },
    /// Accept the queued connections of this socket, then close it.
    Close(SocketId),
    /// Run a connection that another worker accepted.
    Adopt(Accepted),
    /// End sessions; all endings of a change come together.
    End(Arc<[Ending]>),
    /// List live sessions.
    Inspect {
        /// The sessions to list.
        selection: Selection,
        /// Channel for the answer.
        reply: oneshot::Sender<LiveSessions>,
    },
    /// Tell what each connected session holds in memory.
    Weigh(oneshot::Sender<Vec<Held<SessionAt>>>),
    /// Reset these sessions, because memory is short.
    Reset(Vec<SessionAt>),
    /// A command for the thread of durable listeners only.
    Keep(Ask),
    /// Refuse new sessions and end the remaining ones at the deadline.
    Drain {
        /// Time until the deadline, in milliseconds.
        millis: u64,
    },
}

/// A worker as seen by other threads.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    commands: mpsc::Sender<Command>,
    load: Arc<Load>,
}

impl WorkerHandle {
    /// Creates the handle of a thread, and the queue of its commands.
    pub(crate) fn with_queue() -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(COMMANDS);
        (Self { commands, load: Arc::default() }, queue)
    }

    /// The counter of the worker's connections.
    pub(crate) fn shared_load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Number of connections, including those on their way to the worker.
    #[must_use]
    pub fn load(&self) -> usize {
        self.load.connections()
    }

    /// Sends a command; waits while the queue is full. False if the worker has ended.
    pub async fn send(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Hands over a connection; returns it if the queue is full, or the worker drains.
    ///
    /// # Errors
    /// The connection.
    pub fn adopt(&self, accepted: Accepted) -> Result<(), Accepted> {
        self.commands.try_send(Command::Adopt(accepted)).map_err(|error| match error.into_inner() {
            Command::Adopt(accepted) => accepted,
            _ => unreachable!("only connections are sent here"),
        })
    }
}
