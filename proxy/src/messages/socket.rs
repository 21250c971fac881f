//! The sockets that messages come to.

use std::{
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use durable::{
    Store, StoreError,
    intake::{Hold, Intake, receive, serve},
};
use proxy_api::ListenerId;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use super::{log::Log, settings::Taking};
use crate::{core::end::EndReason, log::Level, net::OsSocket, process::Process, route::Route, shared::Shared, sys};

/// The pause after a socket failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket, and the task that serves it.
pub(super) struct Socket {
    socket: OsSocket,
    route: Route,
    /// Datagrams that the system has dropped, as far as they are counted: some may be dropped while nobody serves it.
    counted: Rc<Cell<u32>>,
    served: Option<Served>,
}

struct Served {
    listener: Arc<ListenerId>,
    /// The way in which its messages are taken.
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

    /// Serves the listener behind the socket, as that is now.
    pub(super) async fn serve(&mut self, logs: &BTreeMap<ListenerId, Log>, process: &Process) {
        let listener = self.route.load().first().id.clone();
        let taker = logs.get(&*listener).and_then(Log::taker);
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

    /// Serves it no longer. Connections that were accepted are closed.
    pub(super) async fn stop(&mut self) {
        if let Some(served) = self.served.take() {
            served.task.abort();
            // It was aborted.
            let _ = served.task.await;
        }
    }
}

/// What takes the messages of a socket.
pub(super) struct Taker {
    pub(super) store: Store,
    pub(super) taking: Taking,
    pub(super) intake: Intake,
    pub(super) version: Rc<()>,
}

impl Taker {
    /// Takes messages until this future is dropped, or the log is closed.
    pub(super) async fn take(
        self,
        socket: OsSocket,
        counted: Rc<Cell<u32>>,
        listener: Arc<ListenerId>,
        process: Process,
    ) {
        // Without this task, the socket would stay open without being served.
        let _guard = process.lives.guard(format!("the intake of {listener}"));
        loop {
            let error = match &socket {
                OsSocket::Tcp(shared) => match shared.try_clone().and_then(TcpListener::from_std) {
                    Ok(own) => {
                        let Some(settings) = self.taking.tcp() else { return };
                        let share = process.messages.share(&listener.origin.namespace);
                        serve(&own, &self.store, settings, &self.intake.within(share)).await;
                        return;
                    }
                    Err(error) => error,
                },
                OsSocket::Udp(shared) => match shared.try_clone().and_then(UdpSocket::from_std) {
                    Ok(own) => {
                        sys::split_datagrams(&own);
                        let limits = self.taking.limits;
                        receive(&own, &self.store, limits, &self.intake, sys::dropped, &counted).await
                    }
                    Err(error) => error,
                },
            };
            if matches!(error.get_ref(), Some(inner) if inner.is::<StoreError>()) {
                return;
            }
            process.log.notice(
                Level::Error,
                "failed",
                &listener,
                format!("cannot read messages from the socket: {error}"),
            );
            sleep(PAUSE).await;
        }
    }
}

/// What a connection of this listener takes: of the share of its namespace, and of the process. It does not wait for room
/// as sessions do, since the task that accepts also sees connections end; but idle UDP flows give way.
pub(super) fn room(shared: &Shared, process: &Process) -> Option<Hold> {
    let Some(place) = shared.limiter.share.enter() else {
        // Status names the namespace, as for sessions.
        shared.counters.closed[EndReason::TenantLimit.index()].fetch_add(1, Relaxed);
        return None;
    };
    let permits = process.take_session();
    if permits.is_none() {
        // They leave a moment later: the connection that comes next has their room.
        process.evict_flows_for_session();
    }
    Some(Box::new((place, permits?)))
}
