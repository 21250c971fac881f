//! The life of one TCP session.

use std::{net::SocketAddr, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use proxy_api::AccessLogMode;
use tokio::net::TcpStream;

use super::{admission, connect, direction::End, relay};
use crate::{
    core::end::EndReason,
    files::Permit,
    log::Event,
    worker::{Accepted, Worker, session::Session},
};

/// Begins a session on this worker.
pub fn begin(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, peer, listener, permit } = accepted;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let session = Rc::new(Session::new(listener, peer, worker.process.clock.millis()));
    let live =
        Live { key: worker.enter(session.clone()), session, worker: worker.clone(), reason: EndReason::Internal };
    live.session.listener.counters.opened.fetch_add(1, Relaxed);
    if let Ok(stream) = TcpStream::from_std(stream) {
        tokio::task::spawn_local(run(live, stream, permit));
    }
}

/// A session in the table; leaves it, counted and logged, however its task ends.
struct Live {
    worker: Rc<Worker>,
    session: Rc<Session>,
    key: usize,
    reason: EndReason,
}

impl Drop for Live {
    fn drop(&mut self) {
        let (worker, session) = (&self.worker, &self.session);
        worker.leave(self.key);
        session.count_bytes();
        session.listener.counters.closed[self.reason.index()].fetch_add(1, Relaxed);
        let now = worker.process.clock.millis();
        worker.process.timings.ended(Duration::from_millis(now.saturating_sub(session.started)));
        if session.listener.spec.load().access_log.mode != AccessLogMode::Disabled {
            worker.process.log.emit(Event::Session(Box::new(session.record("closed", now, Some(self.reason)))));
        }
    }
}

async fn run(mut live: Live, client: TcpStream, permit: Permit) {
    let (worker, session) = (live.worker.clone(), live.session.clone());
    let client = End::new(client);
    live.reason = match serve(&worker, &session, &client).await {
        Ok(reason) | Err(reason) => reason,
    };
    // What ended by itself is closed; what was cut is reset.
    client.clean.set(live.reason.is_clean());
    drop(client);
    drop(live);
    drop(permit);
}

/// Admits, connects and relays; the slot goes back when it is over.
async fn serve(worker: &Worker, session: &Session, client: &End) -> Result<EndReason, EndReason> {
    let _slot = admission::admit(worker, session, &client.stream).await?;
    let connected = connect::connect(worker, session, &client.stream).await?;
    opened(worker, session);
    let server = End::new(connected.stream);
    let reason = relay::run(worker, session, client, &server).await;
    server.clean.set(reason.is_clean());
    drop(connected.counted);
    Ok(reason)
}

fn opened(worker: &Worker, session: &Session) {
    session.connected.set(true);
    session.active_at.set(worker.process.clock.seconds());
    if session.listener.spec.load().access_log.mode == AccessLogMode::OpenAndClose {
        let now = worker.process.clock.millis();
        worker.process.log.emit(Event::Session(Box::new(session.record("opened", now, None))));
    }
}
