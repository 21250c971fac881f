//! What sends the messages of a log to a backend of its listener.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use durable::{Dial, Kept, Sender, SenderEvent, Store};
use durable_core::{
    Message,
    enrich::{Enricher, Form},
};
use proxy_api::{Durable, Listener};
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use super::settings;
use crate::{
    core::{
        balance::{Draw, EntryStats},
        endpoint::{Counted, Endpoint},
        pace::Pace,
    },
    log::Level,
    net,
    process::Process,
    shared::Shared,
    sys,
};

/// A connection that is not there by then counts against the endpoint: the sender gives it up a second later.
const CONNECT_WITHIN: Duration = Duration::from_secs(9);

/// What was sent, over all senders of a log.
#[derive(Debug, Default)]
pub(super) struct Sent {
    delivered: Cell<u64>,
    resent: Cell<u64>,
    /// Messages that the sink will never take.
    refused: Cell<u64>,
    refusals: Pace,
    /// Why the sink took no message, since it took the last one.
    error: RefCell<Option<String>>,
}

impl Sent {
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    pub(super) fn resent(&self) -> u64 {
        self.resent.get()
    }

    /// Why the sink takes no messages, if it takes none.
    pub(super) fn error(&self) -> Option<String> {
        self.error.borrow().clone()
    }

    /// Counts what a sender tells. The log gets one line when the sink ceases to take messages, and one when it does
    /// again.
    fn hear(&self, event: &SenderEvent, shared: &Shared, process: &Process) {
        let notice = |level, message: String| process.log.notice(level, "sink", &shared.id, message);
        match event {
            SenderEvent::Ended { error, .. } => {
                if self.error.replace(Some(error.clone())).is_none() {
                    notice(Level::Warn, format!("{error}; messages wait in the log, and it is tried again"));
                }
            }
            SenderEvent::Delivered { messages } => {
                self.delivered.set(self.delivered.get() + messages);
                if self.error.take().is_some() {
                    notice(Level::Info, "the sink takes messages again".to_owned());
                }
            }
            SenderEvent::Resent { messages } => self.resent.set(self.resent.get() + messages),
            SenderEvent::DeadLettered { messages, reason } => {
                self.refuse(*messages, process, |count| {
                    notice(
                        Level::Warn,
                        format!("{count} message(s) were put aside, as the sink refuses them: {reason}"),
                    );
                });
            }
            SenderEvent::DroppedPoison { messages, reason } => {
                self.refuse(*messages, process, |count| {
                    notice(Level::Warn, format!("{count} message(s) were dropped, as the sink refuses them: {reason}"));
                });
            }
        }
    }

    /// Counts messages that the sink refuses, and has some of them told.
    fn refuse(&self, messages: u64, process: &Process, tell: impl FnOnce(u64)) {
        self.refused.set(self.refused.get() + messages);
        if let Some(count) = self.refusals.due(process.clock.seconds(), self.refused.get()) {
            tell(count);
        }
    }
}

/// A sender that runs until this is dropped, or its store is closed.
pub(super) struct Sending {
    task: JoinHandle<()>,
    /// The backend of the last connection.
    backend: Rc<RefCell<Option<Arc<str>>>>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sending {
    /// Sends the messages of `store` to backends of the listener.
    pub(super) fn start(shared: Arc<Shared>, process: Process, store: Store, sent: Rc<Sent>) -> Self {
        let backend = Rc::<RefCell<Option<Arc<str>>>>::default();
        let task = spawn_local(run(shared, process, store, sent, backend.clone()));
        Self { task, backend }
    }

    /// Whether the backend of the last connection is one of this listener, so that the connection may stay.
    pub(super) fn fits(&self, spec: &Listener) -> bool {
        let backend = self.backend.borrow();
        backend.as_ref().is_none_or(|last| spec.backends.iter().any(|backend| backend.id == **last))
    }
}

async fn run(
    shared: Arc<Shared>,
    process: Process,
    store: Store,
    sent: Rc<Sent>,
    backend: Rc<RefCell<Option<Arc<str>>>>,
) {
    let spec = shared.spec.load_full();
    let Some(durable) = spec.durable.as_deref() else { return };
    let enrich = enricher(durable, &shared.id.origin.to_string());
    let dial = Way { shared: shared.clone(), process: process.clone(), backend, counted: RefCell::default() };
    let sink = settings::sink(&spec, durable);
    Sender { dial, enrich, chance, sink, store }.run(|event| sent.hear(event, &shared, &process)).await;
}

/// From 0 up to, but not including, 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / 4_294_967_296.0
}

/// Makes the bytes of a message for the sink.
fn enricher(durable: &Durable, forward: &str) -> impl FnMut(Kept) -> Vec<u8> + use<> {
    let form = durable.structured_data_id.clone().map(|id| Form::Syslog { id });
    let mut enricher = form.map(|form| Enricher::new(form, forward.to_owned(), machine()));
    move |Kept { source, received_millis, payload, .. }| match &mut enricher {
        None => payload,
        Some(enricher) => {
            let message = Message { source: &source, received_millis, payload: &payload };
            enricher.enrich(&String::from_utf8_lossy(&source), &message)
        }
    }
}

/// The name of this machine.
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The way to the backends of a listener: for each connection one pick, as for a session.
struct Way {
    shared: Arc<Shared>,
    process: Process,
    backend: Rc<RefCell<Option<Arc<str>>>>,
    /// Counts the connection at its endpoint.
    counted: RefCell<Option<Counted>>,
}

/// An endpoint, picked for a connection.
struct Picked {
    backend: Arc<str>,
    stats: Arc<EntryStats>,
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
}

impl Way {
    fn pick(&self, spec: &Listener) -> io::Result<Picked> {
        // The connection before this one has ended.
        drop(self.counted.take());
        let draw = Draw {
            ticket: self.shared.tickets.fetch_add(1, Relaxed),
            chance: getrandom::u64().unwrap_or(0),
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            now: self.process.clock.seconds(),
        };
        let targets = self.shared.targets.load_full();
        let picked = targets.pick(spec.policy, draw, &[]);
        let (entry, endpoint) = picked.ok_or_else(|| io::Error::other("no backend has an endpoint"))?;
        let address = endpoint.address.socket();
        let address = address.ok_or_else(|| io::Error::other("the backend is behind an agent"))?;
        *self.backend.borrow_mut() = Some(entry.id.clone());
        *self.counted.borrow_mut() = Some(Counted::new(endpoint.clone()));
        Ok(Picked { backend: entry.id.clone(), stats: entry.stats.clone(), endpoint: endpoint.clone(), address })
    }

    /// Judges the endpoint by how the connection went.
    fn judge<T>(&self, spec: &Listener, picked: &Picked, connected: &io::Result<T>) {
        let Err(error) = connected else {
            picked.endpoint.succeeded();
            picked.stats.sessions.fetch_add(1, Relaxed);
            return;
        };
        drop(self.counted.take());
        picked.stats.failures.fetch_add(1, Relaxed);
        let outlier = spec.outlier;
        if net::is_of_the_endpoint(error) && picked.endpoint.failed(outlier, self.process.clock.seconds()) {
            self.shared.counters.ejected.fetch_add(1, Relaxed);
            let (address, backend) = (&picked.endpoint.address, &picked.backend);
            let message = format!(
                "endpoint {address} of {backend} is ejected for {} s after {} failed connects (it is still tried while no other is healthy); last error: {error}",
                outlier.eject_seconds, outlier.consecutive_failures
            );
            self.process.log.notice(Level::Warn, "ejected", &self.shared.id, message);
        }
    }
}

impl Dial for Way {
    async fn tcp(&self) -> io::Result<TcpStream> {
        let spec = self.shared.spec.load_full();
        let picked = self.pick(&spec)?;
        let within = Duration::from_secs(spec.timeouts.connect_seconds.into()).min(CONNECT_WITHIN);
        let connected = timeout(within, connect(picked.address, spec.timeouts.keepalive_seconds)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.judge(&spec, &picked, &connected);
        connected
    }

    async fn udp(&self) -> io::Result<UdpSocket> {
        let picked = self.pick(&self.shared.spec.load_full())?;
        let any: IpAddr = match picked.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(picked.address).await?;
        Ok(socket)
    }

    fn unacknowledged(&self, stream: &TcpStream) -> io::Result<u64> {
        if cfg!(target_os = "linux") {
            Ok(u64::try_from(sys::unacknowledged(stream)).unwrap_or(u64::MAX))
        } else {
            Err(io::Error::other("this system does not tell what is acknowledged: use relp or http instead of tcp"))
        }
    }
}

async fn connect(to: SocketAddr, keepalive: u32) -> io::Result<TcpStream> {
    let socket = net::upstream_tcp(to)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    // A connect to a dead port in the ephemeral range can connect to itself.
    if stream.local_addr()? == to {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nothing listens there: the connection reached itself",
        ));
    }
    net::set_keepalive(&SockRef::from(&stream), keepalive);
    Ok(stream)
}
