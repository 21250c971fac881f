//! Answers one question of a worker. For a stream, it relays between the stream and the worker's end of a socket pair.

mod flows;

use std::{
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::Interest, net::UnixStream, select, sync::oneshot, time::sleep};
use tunnel::{
    OpenError, Stream,
    endpoint::{Endpoint, Unopened},
    relay,
};
use tunnel_core::{Open, Protocol, Reason, Target, hello::Instance};

use crate::{
    agents::{Link, Question, Side, Wanted},
    core::address::AgentAddress,
    files::Files,
};

/// How long a target may take to end a connection that the proxy has closed; the kernel waits as long for its own
/// connections (`tcp_fin_timeout`).
const ORPHAN: Duration = Duration::from_secs(60);

/// Answers a question, and relays until the connection or the flow has ended.
pub(super) async fn answer(endpoint: Rc<Endpoint>, files: Arc<Files>, question: Question) {
    let Question { to, client, wanted } = question;
    match wanted {
        Wanted::Stream(reply) => connect(&endpoint, &files, &to, client, reply).await,
        // Boxed, so that a stream has no room for the future of a flow; below, for the future of the request.
        Wanted::Flow(worker) => Box::pin(flows::answer(&endpoint, &to, client, worker)).await,
    }
}

/// Answers a question for an agent that no endpoint knows.
pub(super) fn refuse(question: Question) {
    let error = failure(Unopened::Unknown(question.to.uid.to_string()));
    match question.wanted {
        Wanted::Stream(reply) => {
            // The worker may no longer wait for the answer.
            let _ = reply.send(Err(error));
        }
        Wanted::Flow(worker) => worker.fail(error),
    }
}

async fn connect(
    endpoint: &Endpoint,
    files: &Arc<Files>,
    to: &AgentAddress,
    client: Option<SocketAddr>,
    mut reply: oneshot::Sender<io::Result<Link>>,
) {
    let opened = select! {
        // Dropping the attempt gives the stream up.
        () = reply.closed() => return,
        opened = Box::pin(open(endpoint, to, client)) => opened,
    };
    let linked = opened.and_then(|stream| Ok((stream, link(files)?)));
    let (stream, worker, near) = match linked {
        Ok((stream, (worker, near))) => (stream, worker, near),
        Err(error) => {
            // The worker may no longer wait for the answer.
            let _ = reply.send(Err(error));
            return;
        }
    };
    if reply.send(Ok(worker)).is_err() {
        return;
    }
    // Closing a Unix socket leaves its bytes to the other end, so a reset need not wait for them.
    let relayed = relay(stream, near, |_| 0).await;
    tracing::debug!(agent = %to.agent, instance = %to.instance, ?client, ?relayed, "a stream to an agent has ended");
}

async fn open(endpoint: &Endpoint, to: &AgentAddress, client: Option<SocketAddr>) -> io::Result<Stream> {
    let (instance, open) = request(to, Protocol::Tcp, client)?;
    endpoint.open_on(&to.uid, &instance, &open).await.map_err(failure)
}

/// The instance to ask, and the request.
fn request(to: &AgentAddress, protocol: Protocol, client: Option<SocketAddr>) -> io::Result<(Instance, Open)> {
    let instance = Instance::new(&to.instance).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let target = Target { protocol, host: to.host.to_string(), port: to.port };
    Ok((instance, Open { target, source: client }))
}

/// The worker's end of the pair, and the end to relay.
fn link(files: &Arc<Files>) -> io::Result<(Link, Near)> {
    let none = || io::Error::new(io::ErrorKind::QuotaExceeded, "no file descriptor is free");
    let (worker, Link { side, socket }) = Link::pair(files.take(1).ok_or_else(none)?)?;
    Ok((worker, Near { side, socket: UnixStream::from_std(socket)? }))
}

/// The error of an attempt. Its kind says whether another instance may succeed.
fn failure(error: Unopened) -> io::Error {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NotConnected, PermissionDenied,
        ResourceBusy, TimedOut,
    };
    let kind = match &error {
        Unopened::Unknown(_) | Unopened::NotAllowed(_) => PermissionDenied,
        Unopened::NoInstance | Unopened::Gone(_) => NotConnected,
        Unopened::Agent(OpenError::NotOpened(_)) => ResourceBusy,
        Unopened::Agent(OpenError::Reset) => ConnectionReset,
        Unopened::Agent(OpenError::Lost(_)) => ConnectionAborted,
        Unopened::Agent(OpenError::Refused(refusal)) => match refusal.reason {
            Reason::NotAllowed => PermissionDenied,
            Reason::UnknownName => HostUnreachable,
            Reason::Unreachable | Reason::Other => ConnectionRefused,
            Reason::TimedOut => TimedOut,
            Reason::Full | Reason::Draining => ResourceBusy,
        },
    };
    io::Error::new(kind, error)
}

/// This thread's end of the pair.
struct Near {
    // Dropped first, so that the reason is known before the worker reads the end of data.
    side: Side,
    socket: UnixStream,
}

impl tunnel::Socket for Near {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.try_read(into)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.try_write_vectored(pieces)
    }

    fn finish(&self) -> io::Result<()> {
        SockRef::from(&self.socket).shutdown(Shutdown::Write)
    }

    fn is_reset(&self) -> bool {
        self.side.is_reset()
    }

    async fn gone(&self) {
        let orphaned = async {
            self.side.left().await;
            sleep(ORPHAN).await;
        };
        select! {
            () = self.side.reset() => {}
            () = orphaned => {}
            _ = self.socket.ready(Interest::ERROR) => {}
        }
    }

    fn reset(&self) {
        self.side.leave(true);
    }
}
