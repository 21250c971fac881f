//! Life cycle of a TCP session.

use std::{net::SocketAddr, rc::Rc};

use arc_swap::Guard;
use proxy_api::AccessLogMode;

use super::{
    admission::{self, Admitted},
    connect,
    direction::End,
    greeting,
    live::Live,
    race::Connected,
    relay, unrouted,
};
use crate::{
    core::{
        backends::endpoint::Counted, limits::share::Place, logging::unrouted::Unroutable, sessions::end::EndReason,
    },
    log::Event,
    route::{Route, Served},
    sys::Socket,
    worker::{Connection, Worker, session::Session},
};

/// Starts a session on this worker, on shared sockets once the server name is known.
pub fn begin(worker: &Rc<Worker>, connection: Connection, route: &Route) {
    let Connection { stream, peer, permits, load } = connection;
    let held = (permits, load);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Ok(stream) = Socket::watch(stream) else { return };
    let client = End::new(stream);
    // All workers share the reference counts of a route and of its listeners. A task that does not wait borrows both.
    let served = route.load();
    if let Served::One(listener) = &**served {
        let (id, now) = (worker.ids.next_id(), worker.process.clock.millis());
        let session = Session::new(id, listener.clone(), peer, None, now);
        tokio::task::spawn_local(run(Live::begin(worker, session, client, held)));
        return;
    }
    let (served, route) = (Guard::into_inner(served), route.clone());
    let waits = Greeting::of(worker);
    tokio::task::spawn_local(async move {
        let Served::ByName(names) = &*served else { return };
        let worker = waits.0.clone();
        match greeting::greet(&worker, &client.stream, peer, names).await {
            Err(why) => {
                unrouted::refuse(&worker, names, why, peer, None);
                // Reset clients that do not speak TLS; close a plain connect probe cleanly.
                client.clean.set(why == Unroutable::Probe);
            }
            Ok(greeted) => {
                // The server name may have moved to another listener meanwhile.
                let listener = route.load().find(&greeted.name).cloned();
                let Some(listener) = listener else {
                    let (source, name) = (greeted.client, Some(greeted.name.as_str()));
                    return unrouted::refuse(&worker, names, Unroutable::UnknownServerName, source, name);
                };
                let (id, now) = (worker.ids.next_id(), worker.process.clock.millis());
                let session = Session::new(id, listener, greeted.client, Some(greeted.name), now);
                if let Some(destination) = greeted.destination {
                    session.set_destination(destination);
                }
                session.recheck.set(true);
                // A task of its own does not keep the room that the greeting took.
                tokio::task::spawn_local(run(Live::begin(&worker, session, client, held)));
            }
        }
    });
}

/// Counts a connection whose server name is not known yet.
struct Greeting(Rc<Worker>);

impl Greeting {
    fn of(worker: &Rc<Worker>) -> Self {
        worker.greeting.set(worker.greeting.get() + 1);
        Self(worker.clone())
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        self.0.greeting.set(self.0.greeting.get().saturating_sub(1));
    }
}

/// Runs a session. State that it keeps for its lifetime is counted: see the test of its size.
#[allow(clippy::manual_async_fn, reason = "an async fn would keep its argument twice, as long as the session lives")]
fn run(live: Live) -> impl Future<Output = ()> {
    async move {
        let begun = match connected(&live).await {
            Ok(begun) => begun,
            Err(reason) => return live.ended(reason),
        };
        let reason = relay::run(&live, &begun.server).await;
        begun.server.clean.set(reason.is_clean());
        // The slot is free before the client sees the end of its connection.
        drop(begun);
        live.ended(reason);
    }
}

/// The state of a connected session beside its client, in the order in which it is released.
struct Begun<'a> {
    _counted: Counted,
    server: End,
    _slot: Admitted<'a>,
    _place: Place,
}

/// Admits and connects a session. A client that waits, for its header or in the queue, already has its place in the
/// share of the namespace.
#[allow(clippy::manual_async_fn, reason = "as above")]
fn connected(live: &Live) -> impl Future<Output = Result<Begun<'_>, EndReason>> {
    // Worker and session are reached through `live` each time: as variables, they would be part of every session.
    async move {
        let room = live.worker().process.session_room();
        let place = live.session().listener.limiter.share.enter(room).ok_or(EndReason::TenantLimit)?;
        live.session().offset.set(offset(live.session(), &live.client.stream));
        let slot = admission::admit(live).await?;
        // Connecting has the largest state by far. In place, it would be part of the size of every session to its end.
        let connecting = Box::pin(connect::connect(live));
        let Connected { server, counted } = connecting.await?;
        opened(live.worker(), live.session());
        Ok(Begun { _counted: counted, server, _slot: slot, _place: place })
    }
}

/// Position of the connection's port in the listener's range.
fn offset(session: &Session, client: &Socket) -> u16 {
    let spec = session.listener.spec.load();
    if spec.end_port.is_none() {
        return 0;
    }
    client.local_addr().map_or(0, |own| own.port().saturating_sub(spec.socket.port))
}

fn opened(worker: &Worker, session: &Session) {
    session.connected.set(true);
    let now = worker.process.clock.millis();
    session.active_at.set(now);
    if session.listener.spec.load().access_log.mode == AccessLogMode::OpenAndClose {
        worker.process.log.emit(Event::Session(Box::new(session.record("opened", now, None))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that tokio adds to the future of a task.
    const TASK: usize = 104;

    fn size_of_future<F: Future>(_: fn(Live) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_session_fits_into_384_bytes() {
        let size = TASK + size_of_future(run);
        assert!(size <= 384, "{size} bytes");
    }
}
