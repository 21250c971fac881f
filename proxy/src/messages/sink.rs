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
use proxy_api::{Durable, Enrich, Listener};
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
    /// The last reason that the log has.
    told: RefCell<Option<String>>,
    /// How often the sink took no message.
    ended: Cell<u64>,
    endings: Pace,
}

impl Sent {
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    pub(super) fn resent(&self) -> u64 {
        self.resent.get()
    }

    /// Messages that the sink will never take.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Whether the sink has failed since it took the last message.
    pub(super) fn fails(&self) -> bool {
        self.error.borrow().is_some()
    }

    /// Why the sink takes no messages, if it takes none and the log does not say so yet. From now on it does.
    pub(super) fn untold(&self) -> Option<String> {
        let error = self.error.borrow().clone()?;
        let is_told = self.told.borrow().as_ref() == Some(&error);
        *self.told.borrow_mut() = Some(error.clone());
        (!is_told).then_some(error)
    }

    /// Counts what a sender tells, and has the log say what is new.
    fn hear(&self, event: &SenderEvent, shared: &Shared, process: &Process) {
        if let Some((level, message)) = self.line(event, process.clock.seconds()) {
            process.log.notice(level, "sink", &shared.id, message);
        }
    }

    /// Counts what a sender tells at second `now`. Returns a line for the log if there is one: each reason why the sink
    /// takes no messages is said once until it takes one again, and so is that.
    fn line(&self, event: &SenderEvent, now: u64) -> Option<(Level, String)> {
        match event {
            SenderEvent::Ended { error, .. } => {
                self.ended.set(self.ended.get() + 1);
                *self.error.borrow_mut() = Some(error.clone());
                if self.told.borrow().as_ref() == Some(error) {
                    return None;
                }
                // A sink over UDP may take and refuse messages in turn.
                self.endings.due(now, self.ended.get())?;
                *self.told.borrow_mut() = Some(error.clone());
                Some((Level::Warn, format!("{error}; messages stay in the log, will retry")))
            }
            SenderEvent::Delivered { messages } => {
                self.delivered.set(self.delivered.get() + messages);
                *self.error.borrow_mut() = None;
                self.told.take().map(|_| (Level::Info, "the sink takes messages again".to_owned()))
            }
            SenderEvent::Resent { messages } => {
                self.resent.set(self.resent.get() + messages);
                None
            }
            SenderEvent::DeadLettered { messages, reason } => self.refuse(*messages, "put aside", reason, now),
            SenderEvent::DroppedPoison { messages, reason } => self.refuse(*messages, "dropped", reason, now),
        }
    }

    /// Counts messages that the sink refuses, some of which are told.
    fn refuse(&self, messages: u64, fate: &str, reason: &str, now: u64) -> Option<(Level, String)> {
        self.refused.set(self.refused.get() + messages);
        let count = self.refusals.due(now, self.refused.get())?;
        Some((Level::Warn, format!("{count} message(s) were {fate} because the sink refuses them: {reason}")))
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
    // Without this task, no message would be sent.
    let _guard = process.lives.guard(format!("the sender of {}", shared.id));
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
    let form = durable.enrich.as_ref().map(|enrich| match enrich {
        Enrich::Json {} => Form::Json,
        Enrich::Syslog { structured_data_id } => Form::Syslog { id: structured_data_id.clone() },
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(error: &str) -> SenderEvent {
        SenderEvent::Ended { error: error.to_owned(), pause: Duration::ZERO }
    }

    /// How severe the line is that the log gets, if it gets one.
    fn level(sent: &Sent, event: &SenderEvent, now: u64) -> Option<Level> {
        sent.line(event, now).map(|(level, _)| level)
    }

    #[test]
    fn the_log_has_each_reason_once_until_the_sink_takes_a_message() {
        let (sent, delivered) = (Sent::default(), SenderEvent::Delivered { messages: 1 });
        assert_eq!(level(&sent, &ended("refused"), 0), Some(Level::Warn));
        assert_eq!(level(&sent, &ended("refused"), 100), None);
        assert_eq!(sent.untold(), None, "the log has it");
        assert_eq!(level(&sent, &ended("timed out"), 101), Some(Level::Warn));
        assert_eq!(level(&sent, &delivered, 102), Some(Level::Info));
        assert_eq!(level(&sent, &delivered, 103), None);
        assert_eq!(sent.untold(), None, "it takes messages");
        assert_eq!(level(&sent, &ended("timed out"), 120), Some(Level::Warn));
    }

    #[test]
    fn a_sink_that_takes_and_refuses_messages_in_turn_has_two_lines_in_a_while() {
        let (sent, delivered) = (Sent::default(), SenderEvent::Delivered { messages: 1 });
        let lines = (0..10).flat_map(|now| [sent.line(&ended("refused"), now), sent.line(&delivered, now)]);
        assert_eq!(lines.flatten().count(), 2);
        assert_eq!(sent.delivered(), 10);
    }

    #[test]
    fn a_reason_that_comes_too_soon_for_a_line_is_told_with_how_the_listener_delivers() {
        let sent = Sent::default();
        assert_eq!(level(&sent, &ended("refused"), 0), Some(Level::Warn));
        assert_eq!(level(&sent, &ended("timed out"), 1), None);
        assert_eq!((sent.untold().as_deref(), sent.untold()), (Some("timed out"), None));
        assert_eq!(level(&sent, &ended("timed out"), 100), None);
    }
}
