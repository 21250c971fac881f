//! Life cycle of a TCP session.

use std::{net::SocketAddr, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use arc_swap::Guard;
use proxy_api::AccessLogMode;

use super::{admission, connect, direction::End, greeting, race::Connected, relay, unrouted};
use crate::{
    core::{logging::unrouted::Unroutable, sessions::end::EndReason},
    log::Event,
    process::Permits,
    route::{Route, Served},
    sys::Socket,
    worker::{Connection, LoadGuard, Worker, session::Session},
};

/// Starts a session on this worker, on shared sockets once the server name is known.
pub fn begin(worker: &Rc<Worker>, connection: Connection, route: &Route) {
    let Connection { stream, peer, permits, load } = connection;
    let held = (permits, load);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Ok(stream) = Socket::watch(stream) else { return };
    // All workers share the counts of references to a route and to what is served. Who does not wait borrows both.
    let served = route.load();
    if let Served::One(listener) = &**served {
        let (id, now) = (worker.ids.next_id(), worker.process.clock.millis());
        let live = Live::begin(worker, Session::new(id, listener.clone(), peer, None, now));
        tokio::task::spawn_local(run(live, End::new(stream), held));
        return;
    }
    let (served, route) = (Guard::into_inner(served), route.clone());
    let waits = Greeting::of(worker);
    let stream = End::new(stream);
    tokio::task::spawn_local(async move {
        let Served::ByName(names) = &*served else { return };
        let worker = waits.0.clone();
        match greeting::greet(&worker, &stream.stream, peer, names).await {
            Err(why) => {
                unrouted::refuse(&worker, names, why, peer, None);
                // Reset clients that do not speak TLS; close a plain connect probe cleanly.
                stream.clean.set(why == Unroutable::Probe);
            }
            Ok(greeted) => {
                // The server name may have moved to another listener meanwhile.
                let listener = route.load().find(&greeted.name).cloned();
                let Some(listener) = listener else {
                    let (client, name) = (greeted.client, Some(greeted.name.as_str()));
                    return unrouted::refuse(&worker, names, Unroutable::UnknownServerName, client, name);
                };
                let (id, now) = (worker.ids.next_id(), worker.process.clock.millis());
                let session = Session::new(id, listener, greeted.client, Some(greeted.name), now);
                if let Some(destination) = greeted.destination {
                    session.set_destination(destination);
                }
                session.recheck.set(true);
                let live = Live::begin(&worker, session);
                // A task of its own does not keep the room that the greeting took.
                tokio::task::spawn_local(run(live, stream, held));
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

/// A session in the table; on drop removes, counts and logs it, however its task ends.
struct Live {
    worker: Rc<Worker>,
    session: Rc<Session>,
    key: usize,
    reason: EndReason,
}

impl Live {
    fn begin(worker: &Rc<Worker>, session: Session) -> Self {
        let session = Rc::new(session);
        session.listener.counters.opened.fetch_add(1, Relaxed);
        Self { key: worker.enter(session.clone()), session, worker: worker.clone(), reason: EndReason::Internal }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let (worker, session) = (&self.worker, &self.session);
        worker.leave(self.key);
        session.count_bytes();
        if session.has_source.get() {
            worker.process.session_sources.leave(session.client.get().ip());
        }
        session.listener.counters.closed[self.reason.index()].fetch_add(1, Relaxed);
        let now = worker.process.clock.millis();
        worker.timings.ended(Duration::from_millis(now.saturating_sub(session.started)));
        if session.listener.spec.load().access_log.mode != AccessLogMode::Disabled {
            worker.process.log.emit(Event::Session(Box::new(session.record("closed", now, Some(self.reason)))));
        }
    }
}

/// Runs a session; `held` is what it takes of the process and of its worker.
#[allow(clippy::manual_async_fn, reason = "an async fn would keep its arguments twice, as long as the session lives")]
fn run(mut live: Live, client: End, held: (Permits, LoadGuard)) -> impl Future<Output = ()> {
    async move {
        let ended = serve(&live, &client).await;
        live.reason = match ended {
            Ok(reason) | Err(reason) => reason,
        };
        // Close sessions that ended by themselves; reset those that were cut.
        client.clean.set(live.reason.is_clean());
        drop(client);
        drop(live);
        drop(held);
    }
}

/// Admits, connects and relays; the slot is released at the end. A client that waits, for its header or in the queue,
/// has its place in the share of the namespace already.
#[allow(clippy::manual_async_fn, reason = "as above")]
fn serve<'a>(live: &'a Live, client: &'a End) -> impl Future<Output = Result<EndReason, EndReason>> {
    // Worker and session are reached through `live` each time: as variables, they would be part of every session.
    async move {
        let room = live.worker.process.session_room();
        let _place = live.session.listener.limiter.share.enter(room).ok_or(EndReason::TenantLimit)?;
        live.session.offset.set(offset(&live.session, &client.stream));
        let _slot = admission::admit(&live.worker, &live.session, &client.stream).await?;
        // Connecting has the largest state by far. In place, it would be part of the size of every session to its end.
        let connecting = Box::pin(connect::connect(&live.worker, &live.session, &client.stream));
        let Connected { server, counted: _counted } = connecting.await?;
        opened(&live.worker, &live.session);
        let reason = relay::run(&live.worker, &live.session, client, &server).await;
        server.clean.set(reason.is_clean());
        Ok(reason)
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

    /// What tokio adds to a future that is a task.
    const TASK: usize = 104;

    fn size_of_future<F: Future>(_: fn(Live, End, (Permits, LoadGuard)) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_session_fits_into_512_bytes() {
        let size = TASK + size_of_future(run);
        assert!(size <= 512, "{size} bytes");
    }
}
