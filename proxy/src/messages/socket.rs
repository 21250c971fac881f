//! The sockets that messages come to.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use proxy_api::ListenerId;
use tokio::task::{JoinHandle, spawn_local};

use super::{log::Log, taker::Taker};
use crate::{net::OsSocket, process::Process, route::Route, sys};

/// A socket, and the task that serves it.
pub(super) struct Socket {
    socket: OsSocket,
    route: Route,
    /// Datagrams that the system has dropped, as far as they are counted: some may be dropped while nobody serves it.
    counted: Rc<Cell<u32>>,
    served: Option<Served>,
}

struct Served {
    listener: ListenerId,
    /// The version of the log by which its messages are taken.
    version: Rc<()>,
    task: JoinHandle<()>,
}

impl Socket {
    pub(super) fn new(socket: OsSocket, route: Route) -> Self {
        let dropped = match &socket {
            OsSocket::Tcp(_) => None,
            OsSocket::Udp(socket) => sys::dropped(socket),
        };
        Self { socket, route, counted: Rc::new(Cell::new(dropped.unwrap_or(0))), served: None }
    }

    /// Serves the present listener behind the socket.
    pub(super) async fn serve(&mut self, logs: &BTreeMap<ListenerId, Log>, process: &Process) {
        let listener = self.route.load().first().id.clone();
        let taker = logs.get(&listener).and_then(Log::taker);
        let is_served =
            |served: &Served, taker: &Taker| served.listener == listener && Rc::ptr_eq(&served.version, &taker.version);
        if matches!((&self.served, &taker), (Some(served), Some(taker)) if is_served(served, taker)) {
            return;
        }
        self.stop().await;
        if let Some(taker) = taker {
            let version = taker.version.clone();
            let (socket, counted) = (self.socket.clone(), self.counted.clone());
            let task = spawn_local(taker.take(socket, counted, listener.clone(), process.clone()));
            self.served = Some(Served { listener, version, task });
        }
    }

    /// Stops serving the socket. Accepted connections are closed.
    pub(super) async fn stop(&mut self) {
        if let Some(served) = self.served.take() {
            served.task.abort();
            // The task was aborted.
            let _ = served.task.await;
        }
    }
}
