//! Answers one request of a worker. For a stream, it relays between the stream and the worker's end of a socket pair.

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
use tokio::{io::Interest, net::UnixStream, select, sync::oneshot, task::spawn_local, time::sleep};
use tracing::Level;
use tunnel::{
    OpenError, Relayed, Stream,
    endpoint::{Endpoint, Unopened},
    relay,
};
use tunnel_core::{Open, Protocol, Reason, Target, hello::Instance};

use crate::{
    agents::{Link, Question, Side, Wanted},
    core::backends::address::AgentAddress,
    files::Files,
};

/// How long a target may take to end a connection that the proxy has closed; the kernel waits as long for its own
/// connections (`tcp_fin_timeout`).
const ORPHAN: Duration = Duration::from_secs(60);

/// Answers a request. Forwards a flow until it has ended; a stream has a task of its own, which relays.
pub(super) async fn answer(endpoint: Rc<Endpoint>, files: Arc<Files>, question: Question) {
    let Question { to, client, wanted } = question;
    match wanted {
        Wanted::Stream(reply) => {
            if let Some((stream, near)) = connect(&endpoint, &files, to, client, reply).await {
                // A task of its own has no room for state that only the beginning needs. Closing a Unix socket leaves
                // its bytes to the other end, so a reset need not wait for them.
                spawn_local(relay(stream, near, |_| 0));
            }
        }
        // Boxed, so that a stream has no room for the future of a flow; below, so that a flow has none for a request.
        Wanted::Flow(worker) => Box::pin(flows::answer(&endpoint, &to, client, worker)).await,
    }
}

/// Answers a request for an agent that no endpoint knows.
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

/// Opens a stream, and gives the worker its end. Returns the ends to relay, if the worker still waits.
async fn connect(
    endpoint: &Endpoint,
    files: &Arc<Files>,
    to: Arc<AgentAddress>,
    client: Option<SocketAddr>,
    mut reply: oneshot::Sender<io::Result<Link>>,
) -> Option<(Stream, Near)> {
    let opened = select! {
        // Dropping the attempt gives the stream up.
        () = reply.closed() => return None,
        opened = Box::pin(open(endpoint, &to, client)) => opened,
    };
    match opened.and_then(|stream| Ok((stream, link(files, to, client)?))) {
        Ok((stream, (worker, near))) => reply.send(Ok(worker)).is_ok().then_some((stream, near)),
        Err(error) => {
            // The worker may no longer wait for the answer.
            let _ = reply.send(Err(error));
            None
        }
    }
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
fn link(files: &Arc<Files>, to: Arc<AgentAddress>, client: Option<SocketAddr>) -> io::Result<(Link, Near)> {
    let none = || io::Error::new(io::ErrorKind::QuotaExceeded, "no file descriptor is free");
    let (worker, Link { side, socket }) = Link::pair(files.take(1).ok_or_else(none)?)?;
    Ok((worker, Near { side, socket: UnixStream::from_std(socket)?, whose: whose(to, client) }))
}

/// The subject of the event at the end of a stream.
fn whose(to: Arc<AgentAddress>, client: Option<SocketAddr>) -> Whose {
    tracing::event_enabled!(Level::DEBUG).then(|| Box::new((to, client)))
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

/// The target of a connection, and its client. `None`: the end of the stream is not reported, as in most processes.
type Whose = Option<Box<(Arc<AgentAddress>, Option<SocketAddr>)>>;

/// This thread's end of the pair.
struct Near {
    // Dropped first, so that the reason is known before the worker reads the end of data.
    side: Side<false>,
    socket: UnixStream,
    whose: Whose,
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

    fn ended(&self, relayed: &Relayed) {
        let Some((to, client)) = self.whose.as_deref() else { return };
        tracing::debug!(
            agent = %to.agent, instance = %to.instance, ?client, ?relayed,
            "a stream to an agent has ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that tokio adds to the future of a task.
    const TASK: usize = 104;

    fn whose_it_is() -> Whose {
        let [uid, agent, instance, host] = ["u", "infra/home", "pi4", "127.0.0.1"].map(Arc::<str>::from);
        whose(Arc::new(AgentAddress { uid, agent, instance, host, port: 80 }), None)
    }

    #[test]
    fn whose_a_stream_is_takes_memory_only_where_somebody_hears_of_its_end() {
        assert!(whose_it_is().is_none());
        let listens = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_writer(io::sink).finish();
        assert!(tracing::subscriber::with_default(listens, whose_it_is).is_some());
    }

    fn size_of_future<F: Future>(_: impl FnOnce(Stream, Near) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_stream_fits_into_256_bytes() {
        let size = TASK + size_of_future(|stream, near| relay(stream, near, |_| 0));
        assert!(size <= 256, "{size} bytes");
    }
}
