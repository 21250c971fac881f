//! One open socket: the sockets of the operating system behind it, their workers and their route.
//!
//! A single socket for all workers would wake all of them for every connection; a single socket on one worker makes
//! that worker accept for the others. So a TCP socket starts on one worker and gets a shard on every other worker once it
//! is hot. A further shard would move live flows of UDP to another worker, so a UDP socket has its shards from the start,
//! or never.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use proxy_api::ListenerId;
use socket2::SockRef;

use crate::{
    commands::Command,
    core::{logging::unrouted::Unrouted, workers::heat::Heat},
    files::{Files, Permit},
    log::Notice,
    net::{self, OsSocket},
    route::{Route, Served},
    tcp::unrouted,
    threads::Workers,
    udp::SocketId,
};

/// Numbers the sockets of the process.
#[derive(Debug, Default)]
pub(super) struct SocketIds(u64);

impl SocketIds {
    /// Returns the next unused number.
    pub(super) fn fresh(&mut self) -> SocketId {
        let id = SocketId(self.0);
        self.0 += 1;
        id
    }
}

/// The sockets of one key.
pub(super) struct OpenSocket {
    route: Route,
    parts: Vec<Part>,
    /// Seconds before keepalive probes, as set on the sockets.
    keepalive: u32,
    heat: Heat<Served>,
    /// Connections that belong to no listener.
    unrouted: Arc<Unrouted>,
    files: Permit,
}

struct Part {
    id: SocketId,
    socket: OsSocket,
    worker: usize,
}

impl OpenSocket {
    /// Creates a route without sockets; `files` covers the sockets that [`Self::add`] will add.
    pub(super) fn new(served: Served, unrouted: Arc<Unrouted>, files: Permit) -> Self {
        let route = Arc::new(ArcSwap::new(Arc::new(served)));
        Self { route, parts: Vec::new(), keepalive: 0, heat: Heat::default(), unrouted, files }
    }

    /// Hands a socket to a worker.
    pub(super) async fn add(&mut self, id: SocketId, socket: OsSocket, worker: usize, workers: &Workers) {
        let command = Command::Listen { id, socket: socket.clone(), route: self.route.clone() };
        if let Some(thread) = workers.at(worker) {
            thread.send(command).await;
        }
        self.parts.push(Part { id, socket, worker });
    }

    /// The sockets of the operating system.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &OsSocket> {
        self.parts.iter().map(|part| &part.socket)
    }

    /// The name of the first listener.
    pub(super) fn first(&self) -> ListenerId {
        self.route.load().first().id.clone()
    }

    /// The count of connections that belong to no listener.
    pub(super) fn unrouted(&self) -> Arc<Unrouted> {
        self.unrouted.clone()
    }

    /// The notices about connections that belong to no listener and that no line of the log covers yet.
    pub(super) fn unrouted_rest(&self, now: u64) -> Vec<Notice> {
        match &**self.route.load() {
            Served::ByName(names) => unrouted::rest(names, now),
            Served::One(_) => Vec::new(),
        }
    }

    /// Whether listeners share the socket by server name.
    pub(super) fn is_by_name(&self) -> bool {
        matches!(**self.route.load(), Served::ByName(_))
    }

    /// Switches to these listeners without touching the sockets.
    pub(super) fn switch(&self, served: Served) {
        if !self.route.load().is_same(&served) {
            self.route.store(Arc::new(served));
        }
    }

    /// Whether the listener behind the sockets keeps messages instead of forwarding sessions.
    pub(super) fn is_durable(&self) -> bool {
        self.route.load().is_durable()
    }

    /// Has the thread at this position serve these listeners on the same sockets. The previous threads take the queued
    /// connections, for the listeners that they know.
    pub(super) async fn hand_over(&mut self, served: Served, to: usize, ids: &mut SocketIds, workers: &Workers) {
        let parts = std::mem::take(&mut self.parts);
        close(&parts, workers).await;
        self.route = Arc::new(ArcSwap::new(Arc::new(served)));
        for part in parts {
            self.add(ids.fresh(), part.socket, to, workers).await;
        }
    }

    /// Sets the quiet time before keepalive probes; accepted connections inherit it from the socket.
    pub(super) fn set_keepalive(&mut self, seconds: u32) {
        if std::mem::replace(&mut self.keepalive, seconds) == seconds {
            return;
        }
        for part in &self.parts {
            if let OsSocket::Tcp(socket) = &part.socket {
                net::set_keepalive(&SockRef::from(&**socket), seconds);
            }
        }
    }

    /// Has the workers take the queued connections and drop their handles. The sockets are closed once the returned
    /// ones are dropped, too.
    pub(super) async fn close(self, workers: &Workers) -> Vec<OsSocket> {
        close(&self.parts, workers).await;
        self.parts.into_iter().map(|part| part.socket).collect()
    }

    /// Called once a second. Returns true when a TCP socket has just become hot.
    pub(super) fn turns_hot(&mut self) -> bool {
        let is_tcp = matches!(self.parts.first().map(|part| &part.socket), Some(OsSocket::Tcp(_)));
        if !is_tcp {
            return false;
        }
        let route = self.route.load_full();
        self.heat.turns_hot(&route, route.opened())
    }

    /// Takes the files of the shards until [`Self::add_shards`] counts them. `None`: too few are free beside the reserve.
    /// The socket turns hot again later, while its connections keep coming.
    pub(super) fn room_for_shards(&mut self, workers: &Workers, files: &Arc<Files>) -> Option<Permit> {
        let room = files.take(self.parts.len() * workers.handles.len().saturating_sub(1));
        if room.is_none() {
            self.heat = Heat::default();
        }
        room
    }

    /// Opens a shard for every worker that has no socket yet.
    ///
    /// # Errors
    /// A shard cannot be opened; the shards before it stay.
    pub(super) async fn add_shards(
        &mut self,
        ids: &mut SocketIds,
        workers: &Workers,
        files: &Arc<Files>,
    ) -> io::Result<()> {
        let result = self.open_shards(ids, workers).await;
        // The new sockets lack the option, so it must be set again.
        self.keepalive = 0;
        let seconds = self.route.load().first().spec.load().timeouts.keepalive_seconds;
        self.set_keepalive(seconds);
        self.files = files.take_anyway(self.parts.len());
        result
    }

    async fn open_shards(&mut self, ids: &mut SocketIds, workers: &Workers) -> io::Result<()> {
        let sockets: Vec<(usize, OsSocket)> =
            self.parts.iter().map(|part| (part.worker, part.socket.clone())).collect();
        for worker in 0..workers.handles.len() {
            for (_, socket) in sockets.iter().filter(|(owner, _)| *owner != worker) {
                let shard = net::open_shard(socket)?;
                self.add(ids.fresh(), shard, worker, workers).await;
            }
        }
        Ok(())
    }
}

/// Has the threads of these sockets stop serving them.
async fn close(parts: &[Part], workers: &Workers) {
    for part in parts {
        if let Some(thread) = workers.at(part.worker) {
            thread.send(Command::Close(part.id)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        num::NonZeroUsize,
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    use super::*;
    use crate::{
        fixtures::process,
        settings::Settings,
        shared::Shared,
        supervisor::fixtures::{id, listener},
    };

    // D17
    #[test]
    fn shards_before_one_that_fails_have_keepalive_and_are_counted() {
        let settings = Settings { workers: NonZeroUsize::new(2).expect("two"), ..Settings::default() };
        let process = process(&settings, None);
        let workers = Workers::start(&settings, &process).expect("threads");
        let files = Arc::new(Files::new(100));
        let served = Served::One(Shared::new(id("a"), listener(80, "b"), Arc::default(), Arc::default()));
        let mut open = OpenSocket::new(served, Arc::default(), files.take_anyway(2));
        let good = TcpListener::bind("127.0.0.1:0").expect("a port");
        good.set_nonblocking(true).expect("an option");
        // This socket cannot have a shard, as it has no port.
        let bad = TcpListener::from(OwnedFd::from(UnixStream::pair().expect("a pair").0));
        let mut ids = SocketIds::default();
        for socket in [good, bad] {
            open.parts.push(Part { id: ids.fresh(), socket: OsSocket::Tcp(Arc::new(socket)), worker: 1 });
        }
        assert!(open.room_for_shards(&workers, &Arc::new(Files::new(1))).is_none(), "two shards");
        let room = open.room_for_shards(&workers, &files).expect("room");
        assert_eq!(files.usage().0, 4);
        drop(room);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            open.add_shards(&mut ids, &workers, &files).await.expect_err("the second socket");
            for worker in &workers.handles {
                worker.send(Command::Drain { millis: 0 }).await;
            }
        });
        workers.join();
        assert_eq!((open.parts.len(), files.usage().0), (3, 3));
        let OsSocket::Tcp(shard) = &open.parts[2].socket else { panic!("a TCP socket") };
        assert!(SockRef::from(&**shard).keepalive().expect("an option"));
    }
}
