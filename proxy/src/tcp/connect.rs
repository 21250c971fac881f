//! The connect phase: picks endpoints and retries until connected, out of attempts, or the client leaves.

use std::{io, net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use proxy_api::{Listener, Retry, SendHeader};
use tokio::{
    io::Interest,
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::{
    core::{
        balance::{Draw, EntryStats},
        end::EndReason,
        endpoint::{Counted, Endpoint},
        proxy_header,
    },
    first_answer,
    log::Level,
    net,
    worker::{Worker, session::Session},
};

/// An established upstream connection.
pub struct Connected {
    /// The upstream connection.
    pub stream: TcpStream,
    /// Counts the session at its endpoint until dropped.
    pub counted: Counted,
}

/// Connects within the attempts that the listener allows.
///
/// # Errors
/// The reason to end the session.
pub async fn connect(worker: &Worker, session: &Session, client: &TcpStream) -> Result<Connected, EndReason> {
    tokio::select! {
        biased;
        reason = session.asked_to_end() => Err(reason),
        _ = client.ready(Interest::ERROR) => Err(EndReason::ClientLeft),
        result = attempts(worker, session, client) => result,
    }
}

async fn attempts(worker: &Worker, session: &Session, client: &TcpStream) -> Result<Connected, EndReason> {
    let listener = &session.listener;
    first_answer::wait(listener).await;
    let ticket = listener.tickets.fetch_add(1, Relaxed);
    let mut tried: Vec<SocketAddr> = Vec::new();
    for attempt in 1.. {
        let spec = listener.spec.load_full();
        let header = header(session, client, &spec);
        if let Some(connected) = attempt_one(worker, session, &spec, &header, ticket, &mut tried).await {
            return Ok(connected);
        }
        if attempt >= spec.retry.attempts {
            break;
        }
        listener.counters.retries.fetch_add(1, Relaxed);
        // Back off only if every endpoint was tried; an untried endpoint needs no pause.
        let known: usize = listener.targets.load().entries.iter().map(|entry| entry.endpoints.len()).sum();
        if tried.len() >= known {
            sleep(backoff(spec.retry, attempt)).await;
        }
    }
    Err(EndReason::NoBackend)
}

/// The PROXY header to send before the client's first byte.
fn header(session: &Session, client: &TcpStream, spec: &Listener) -> Vec<u8> {
    let Some(protocol) = spec.proxy_protocol.as_deref().filter(|it| it.send != SendHeader::Disabled) else {
        return Vec::new();
    };
    let own = || client.local_addr().ok().map(|own| SocketAddr::new(own.ip().to_canonical(), own.port()));
    let destination = session.destination.get().or_else(own);
    proxy_header::encode(protocol.send, destination.map(|destination| (session.client.get(), destination)))
}

/// Writes the header. The connection is new, so the send buffer takes it at once.
async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The pause after an attempt: doubled each time, up to the longest.
fn backoff(retry: Retry, attempt: u32) -> Duration {
    let doubled = u64::from(retry.initial_backoff_millis) << (attempt - 1).min(20);
    Duration::from_millis(doubled.min(retry.max_backoff_millis.into()))
}

async fn attempt_one(
    worker: &Worker,
    session: &Session,
    spec: &Listener,
    header: &[u8],
    ticket: u64,
    tried: &mut Vec<SocketAddr>,
) -> Option<Connected> {
    let draw = Draw {
        ticket,
        chance: worker.chance(),
        source: session.client.get().ip(),
        now: worker.process.clock.seconds(),
    };
    let (backend, endpoint, stats) = {
        let targets = session.listener.targets.load();
        let (entry, endpoint) = targets.pick(spec.policy, draw, tried)?;
        (entry.id.clone(), endpoint.clone(), entry.stats.clone())
    };
    *session.to.borrow_mut() = Some((backend.clone(), endpoint.clone()));
    tried.push(endpoint.address);
    // Count the session now, so that concurrent connects spread over endpoints.
    let counted = Counted::new(endpoint.clone());
    let began = Instant::now();
    let limit = Duration::from_secs(spec.timeouts.connect_seconds.into());
    let result =
        match timeout(limit, dial(session.address_of(&endpoint), spec.timeouts.keepalive_seconds, header)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
    match result {
        Ok(stream) => {
            endpoint.succeeded();
            stats.sessions.fetch_add(1, Relaxed);
            worker.process.timings.connected(began.elapsed());
            Some(Connected { stream, counted })
        }
        Err(error) => {
            failed(worker, session, spec, (&backend, &endpoint, &stats), &error);
            None
        }
    }
}

fn failed(
    worker: &Worker,
    session: &Session,
    spec: &Listener,
    (backend, endpoint, stats): (&str, &Endpoint, &EntryStats),
    error: &io::Error,
) {
    stats.failures.fetch_add(1, Relaxed);
    session.cause.set(Some(error.kind()));
    if is_of_the_endpoint(error) && endpoint.failed(spec.outlier, worker.process.clock.seconds()) {
        session.listener.counters.ejected.fetch_add(1, Relaxed);
        let message = format!(
            "endpoint {} of {backend} is ejected for {} s after {} failed connects (it is still tried while no other is healthy); last error: {error}",
            endpoint.address, spec.outlier.eject_seconds, spec.outlier.consecutive_failures
        );
        worker.process.log.notice(Level::Warn, "ejected", &session.listener.id, message);
    }
}

/// Whether an error is the endpoint's fault, rather than this host's (no free port, descriptor or memory).
fn is_of_the_endpoint(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

async fn dial(to: SocketAddr, keepalive_seconds: u32, header: &[u8]) -> io::Result<TcpStream> {
    let socket = net::upstream_tcp(to, keepalive_seconds)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    // A connect to a dead port in the ephemeral range can connect to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nothing listens there: the connection reached itself",
        ));
    }
    write(&stream, header).await?;
    Ok(stream)
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
