//! The senders of a log's messages to a backend of its listener.

use std::{
    cell::RefCell,
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
        backends::{
            balance::{Draw, EntryStats},
            endpoint::{Counted, Endpoint},
        },
        durable::sent::Sent,
    },
    log::Level,
    net,
    process::Process,
    shared::Shared,
    sys,
};

/// The time within which a connection must be established, or it counts against the endpoint. The sender gives up a
/// second later.
const CONNECT_WITHIN: Duration = Duration::from_secs(9);

/// Counts an event of a lane's sender, and logs what is new.
fn hear(sent: &Sent, lane: usize, event: &SenderEvent, shared: &Shared, process: &Process) {
    if let Some((level, message)) = line(sent, lane, event, process.clock.seconds()) {
        process.log.notice(level, "sink", &shared.id, message);
    }
}

/// Counts an event of a lane's sender at second `now`. Returns a line for the log if there is one.
fn line(sent: &Sent, lane: usize, event: &SenderEvent, now: u64) -> Option<(Level, String)> {
    let warning = match event {
        SenderEvent::Ended { error, .. } => sent.ended(lane, error, now),
        SenderEvent::Delivered { messages } => return Some((Level::Info, sent.took(lane, *messages)?)),
        SenderEvent::Resent { messages } => {
            sent.resend(*messages);
            None
        }
        SenderEvent::DeadLettered { messages, reason } => sent.refuse(lane, *messages, ("put aside", reason), now),
        SenderEvent::DroppedPoison { messages, reason } => sent.refuse(lane, *messages, ("dropped", reason), now),
    };
    Some((Level::Warn, warning?))
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
    /// Sends the messages of `store`, which has those of a lane, to backends of the listener. `machine` took them.
    pub(super) fn start(
        shared: Arc<Shared>,
        process: Process,
        (lane, store): (usize, Store),
        sent: Rc<Sent>,
        machine: String,
    ) -> Self {
        let backend = Rc::<RefCell<Option<Arc<str>>>>::default();
        let task = spawn_local(run(shared, process, (lane, store), sent, backend.clone(), machine));
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
    (lane, store): (usize, Store),
    sent: Rc<Sent>,
    backend: Rc<RefCell<Option<Arc<str>>>>,
    machine: String,
) {
    // Without this task, no message would be sent.
    let _guard = process.lives.guard(format!("the sender of {}", shared.id));
    let spec = shared.spec.load_full();
    let Some(durable) = spec.durable.as_deref() else { return };
    let enrich = enricher(durable, shared.id.origin.to_string(), machine);
    let (host, counted) = (RefCell::default(), RefCell::default());
    let dial = Way { shared: shared.clone(), process: process.clone(), backend, host, counted };
    let sink = settings::sink(durable);
    Sender { dial, enrich, chance, sink, store }.run(|event| hear(&sent, lane, event, &shared, &process)).await;
}

/// A random number from 0 up to, but not including, 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / 4_294_967_296.0
}

/// Makes the bytes of a message for the sink.
fn enricher(durable: &Durable, forward: String, machine: String) -> impl FnMut(Kept) -> Vec<u8> + use<> {
    let form = durable.enrich.as_ref().map(|enrich| match enrich {
        Enrich::Json {} => Form::Json,
        Enrich::Syslog { structured_data_id } => Form::Syslog { id: structured_data_id.clone() },
    });
    let mut enricher = form.map(|form| Enricher::new(form, forward, machine));
    move |Kept { source, received_millis, payload, .. }| match &mut enricher {
        None => payload,
        Some(enricher) => {
            let message = Message { source: &source, received_millis, payload: &payload };
            enricher.enrich(&String::from_utf8_lossy(&source), &message)
        }
    }
}

/// The way to the backends of a listener: for each connection one pick, as for a session.
struct Way {
    shared: Arc<Shared>,
    process: Process,
    backend: Rc<RefCell<Option<Arc<str>>>>,
    /// The host in requests to that backend.
    host: RefCell<String>,
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
        let backend = spec.backends.iter().find(|backend| backend.id == *entry.id);
        *self.host.borrow_mut() = settings::host(backend, address);
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

    fn host(&self) -> String {
        self.host.borrow().clone()
    }

    fn unacknowledged(&self, stream: &TcpStream) -> io::Result<u64> {
        if cfg!(target_os = "linux") {
            Ok(u64::try_from(sys::unacknowledged(stream)).unwrap_or(u64::MAX))
        } else {
            Err(io::Error::other(
                "this system does not report what the sink has acknowledged: use relp or http instead of tcp",
            ))
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
    let options = SockRef::from(&stream);
    options.set_tcp_nodelay(true)?;
    net::set_keepalive(&options, keepalive);
    net::bound_unsent(&options);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sender_tells_is_counted_of_its_lane_and_only_a_sink_that_works_again_is_no_warning() {
        let (sent, reason) = (Sent::default(), "too long".to_owned());
        let events = [
            SenderEvent::Delivered { messages: 1 },
            SenderEvent::Ended { error: "refused".to_owned(), pause: Duration::ZERO },
            SenderEvent::Delivered { messages: 2 },
            SenderEvent::Resent { messages: 4 },
            SenderEvent::DeadLettered { messages: 8, reason: reason.clone() },
            SenderEvent::DroppedPoison { messages: 16, reason },
        ];
        // Each comes long after the one before.
        let lines = events.iter().zip(1..).map(|(event, at)| line(&sent, 1, event, at * 100));
        let levels: Vec<Option<Level>> = lines.map(|line| line.map(|(level, _)| level)).collect();
        let (warning, good) = (Some(Level::Warn), Some(Level::Info));
        assert_eq!(levels, [None, warning, good, None, warning, warning]);
        assert_eq!((sent.delivered(), sent.resent(), sent.refused()), (3, 4, 24));
        assert_eq!([0, 1].map(|lane| sent.taken(lane)), [0, 27]);
    }
}
