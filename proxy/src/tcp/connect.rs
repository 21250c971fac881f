//! The connect phase: picks endpoints and retries until connected, out of attempts, or the client leaves.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use proxy_api::{Listener, Retry, SendHeader};
use tokio::{
    io::Interest,
    time::{Instant, sleep},
};

use super::{
    admission,
    live::Live,
    race::{AttemptLog, Connected, Step},
};
use crate::{
    core::{
        backends::balance::Draw,
        sessions::{end::EndReason, proxy_header},
    },
    sys::Socket,
    worker::{Worker, session::Session},
};

/// Time in the connect phase after which a client that has finished without sending a byte counts as gone. Before that,
/// it may wait for a greeting, as `nc -N HOST 13 </dev/null` does.
const FINISHED_COUNTS_AFTER: Duration = Duration::from_secs(1);

/// Connects within the attempts that the listener allows.
///
/// # Errors
/// The reason to end the session.
pub async fn connect(live: &Live) -> Result<Connected, EndReason> {
    let (worker, session, client) = (live.worker(), live.session(), &live.client.stream);
    tokio::select! {
        biased;
        reason = live.asked_to_end() => Err(reason),
        _ = client.ready(Interest::ERROR) => Err(EndReason::ClientLeft),
        result = attempts(worker, session, client) => result,
        () = left(session, client) => Err(EndReason::ClientLeft),
    }
}

/// Ready once the client has left, as in the queue, and [`FINISHED_COUNTS_AFTER`] has passed.
async fn left(session: &Session, client: &Socket) {
    sleep(FINISHED_COUNTS_AFTER).await;
    // Watching the client uses up its readiness, so the relay polls the socket once.
    session.recheck.set(true);
    admission::left(session, client).await;
}

async fn attempts(worker: &Worker, session: &Session, client: &Socket) -> Result<Connected, EndReason> {
    let (listener, began) = (&session.listener, Instant::now());
    listener.first_answer.wait(&listener.targets, &listener.spec).await;
    let ticket = listener.tickets.fetch_add(1, Relaxed);
    let mut log = AttemptLog::default();
    loop {
        if worker.process.agents.can_connect() {
            listener.waiters.wait(&listener.targets, &listener.spec, began).await?;
        }
        let spec = listener.spec.load_full();
        let header = header(session, client, &spec);
        if let Some(connected) = step(worker, session, (&spec, &header), ticket, &mut log).await {
            return Ok(connected);
        }
        if log.count >= spec.retry.attempts {
            return Err(EndReason::NoBackend);
        }
        // Back off only if every endpoint was tried; an untried endpoint needs no pause.
        if !listener.targets.load().has_untried(worker.process.clock.seconds(), &log.tried) {
            sleep(backoff(spec.retry, log.count)).await;
        }
    }
}

/// The PROXY header to send before the client's first byte.
fn header(session: &Session, client: &Socket, spec: &Listener) -> Vec<u8> {
    let Some(protocol) = spec.proxy_protocol.as_deref().filter(|it| it.send != SendHeader::Disabled) else {
        return Vec::new();
    };
    let own = || client.local_addr().ok().map(|own| SocketAddr::new(own.ip().to_canonical(), own.port()));
    let destination = session.destination().or_else(own);
    let addresses = destination.map(|destination| (session.client(), destination));
    proxy_header::encode(protocol.send, addresses, Some(session.id))
}

/// The pause after an attempt: doubled each time, up to the longest.
fn backoff(retry: Retry, attempt: u32) -> Duration {
    let doubled = u64::from(retry.initial_backoff_millis) << (attempt - 1).min(20);
    Duration::from_millis(doubled.min(retry.max_backoff_millis.into()))
}

/// Picks an endpoint and connects to it, or to one in parallel.
async fn step(
    worker: &Worker,
    session: &Session,
    (spec, header): (&Listener, &[u8]),
    ticket: u64,
    log: &mut AttemptLog,
) -> Option<Connected> {
    log.begin(session);
    let draw =
        Draw { ticket, chance: worker.chance(), source: session.client().ip(), now: worker.process.clock.seconds() };
    let targets = session.listener.targets.load_full();
    let (entry, first) = targets.pick(spec.policy, draw, &log.tried)?;
    Step { worker, session, spec, header, targets: &targets, entry, draw }.run(first, log).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retry = Retry { attempts: 100, initial_backoff_millis: 50, max_backoff_millis: 300 };
        let pauses = [1, 2, 3, 4, 99].map(|attempt| backoff(retry, attempt).as_millis());
        assert_eq!(pauses, [50, 100, 200, 300, 300]);
    }
}
