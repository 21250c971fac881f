//! Every field of a `PortForward` is changed while traffic flows, on a laptop, in a sidecar and in a gateway: the
//! change is visible from outside, sessions that the change does not concern stay, and another forward of the same
//! proxy is not disturbed.

mod changes;
mod place;
mod servers;
mod times;

use std::{
    cell::RefCell,
    io::Read,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use harness::{
    Backend, Listener, PATIENCE, connect, forward, free_port, programs::KubernetesVersion, round_trip, until,
};

use self::place::Place;
use super::own_address;

#[test]
fn every_field_changes_under_traffic_on_a_laptop() {
    sweep(Place::laptop());
}

#[test]
fn every_field_changes_under_traffic_in_a_sidecar() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("fields-sidecar");
    sweep(Place::sidecar(&namespace));
}

#[test]
fn every_field_changes_under_traffic_in_a_gateway() {
    let Some(server) = crate::server::simulated(KubernetesVersion::Newest) else { return };
    let namespace = server.namespace("fields-gateway");
    sweep(Place::gateway(&namespace));
}

fn sweep(place: Place<'_>) {
    let bed = TestBed::new(place);
    bed.set("", bed.tcp().on(&bed.a));
    until("the forward serves", || bed.visit() == Some(b'a'));
    until("the forward beside it serves", || connect(bed.other_port).is_ok());
    let load = Load::start(bed.other_port);
    changes::balancing(&bed);
    changes::limits(&bed);
    changes::peers(&bed);
    changes::health(&bed);
    times::sessions(&bed);
    times::timeouts(&bed);
    changes::names(&bed);
    changes::ports(&bed);
    changes::switches(&bed);
    load.stop();
}

/// A forward under test and a forward beside it, in one proxy.
struct TestBed<'a> {
    place: Place<'a>,
    a: Backend,
    b: Backend,
    port: u16,
    other_port: u16,
    other: String,
    kept: RefCell<Option<TcpStream>>,
}

/// Backends of the listener under test.
trait Write {
    /// Adds a server on this machine, with further fields of the backend.
    fn at(self, port: u16, more: &str) -> Self;
    /// Adds a server.
    fn on(self, backend: &Backend) -> Self;
}

impl Write for Listener {
    fn at(self, port: u16, more: &str) -> Self {
        self.backend(&format!("address: {{host: {}, port: {port}}}{more}", own_address()))
    }

    fn on(self, backend: &Backend) -> Self {
        self.at(backend.port, "")
    }
}

impl<'a> TestBed<'a> {
    fn new(place: Place<'a>) -> Self {
        let (a, b) = (servers::named(b'a'), servers::named(b'b'));
        let (port, other_port) = (free_port(), free_port());
        let other = forward("other", "", &[Listener::tcp("l", other_port).on(&a)]);
        Self { place, a, b, port, other_port, other, kept: RefCell::default() }
    }

    fn tcp(&self) -> Listener {
        Listener::tcp("l", self.port)
    }

    /// Writes the forward with these fields of its spec.
    fn set(&self, spec: &str, listener: Listener) {
        self.place.apply(&forward("it", spec, &[listener]), &self.other);
    }

    /// The greeting of a new session. `None`: the session was refused.
    fn visit(&self) -> Option<u8> {
        self.session().map(|(_, name)| name)
    }

    fn session(&self) -> Option<(TcpStream, u8)> {
        session_at(self.port)
    }

    /// The greetings of so many new sessions, one after the other.
    fn visits(&self, count: usize) -> Vec<Option<u8>> {
        (0..count).map(|_| self.visit()).collect()
    }

    /// Whether each of eight new sessions has this greeting.
    fn all_are(&self, name: u8) -> bool {
        self.visits(8).iter().all(|greeted| *greeted == Some(name))
    }

    fn closed(&self, reason: &str) -> f64 {
        self.place.metric("portlane_connections_closed_total", &format!(",reason=\"{reason}\"}}"))
    }

    /// Waits until sessions that `work` makes end for this reason.
    #[track_caller]
    fn until_closed<T>(&self, reason: &str, mut work: impl FnMut() -> T) {
        let before = self.closed(reason);
        until(&format!("sessions end with {reason}"), || {
            let _ = work();
            self.closed(reason) > before
        });
    }

    /// Opens the session that the following changes do not concern.
    #[track_caller]
    fn keep(&self) {
        let mut session = None;
        until("a session is accepted", || {
            session = self.session().map(|(stream, _)| stream);
            session.is_some()
        });
        *self.kept.borrow_mut() = session;
    }

    /// Fails if that session has ended.
    #[track_caller]
    fn is_kept(&self) {
        let mut kept = self.kept.borrow_mut();
        let echo = round_trip(kept.as_mut().expect("kept"), b"still here").expect("a change ended a session");
        assert_eq!(echo, b"still here");
    }
}

/// A new session at a port, with its greeting.
fn session_at(port: u16) -> Option<(TcpStream, u8)> {
    let mut stream = connect(port).ok()?;
    let mut name = [0];
    stream.read_exact(&mut name).ok()?;
    Some((stream, name[0]))
}

/// A connection to an address of this machine other than loopback.
fn connect_outside(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(own_address(), port), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One session that stays, and new sessions all the time. None may break.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    work: thread::JoinHandle<std::io::Result<()>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), served.clone());
        let work = move || {
            let mut held = connect(port)?;
            held.read_exact(&mut [0])?;
            while !stopped.load(Relaxed) {
                round_trip(&mut held, b"held")?;
                let mut new = connect(port)?;
                new.read_exact(&mut [0])?;
                round_trip(&mut new, b"new")?;
                count.fetch_add(1, Relaxed);
                thread::park_timeout(Duration::from_millis(2));
            }
            Ok(())
        };
        Self { stop, served, work: thread::spawn(work) }
    }

    #[track_caller]
    fn stop(self) {
        self.stop.store(true, Relaxed);
        self.work.join().expect("no panic").expect("the forward beside the changed one broke a session");
        assert!(self.served.load(Relaxed) > 100, "there was traffic");
    }
}
