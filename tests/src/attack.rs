//! A hostile pod: thousands of clients that are silent, slow, half open, or lie, floods of datagrams, and proxies with a
//! valid token that lie, from the network namespace of one process, and so from the address of its pod.
//!
//! An attack is bounded in clients, in connections per second and in time. It ends when it is dropped.

mod datagrams;
mod ground;
mod lies;
mod tls;
mod ways;
mod words;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

pub use self::{
    lies::{LYING_PROXIES, Lie, LyingProxy},
    tls::presented,
};
pub(crate) use self::{
    tls::leaf,
    words::{HOST, NAMED_BY_FLOOD, opening},
};
use crate::{netns, raise_file_limit};

/// What the server at a door expects first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// TLS, with HTTP/2 inside.
    Http2,
    /// TLS, with HTTP/1.1 inside.
    Https,
    /// HTTP/1.1.
    Http,
    /// A PROXY header.
    Header,
    /// A TLS hello with a server name, which is passed on.
    ServerName,
    /// Anything.
    Bytes,
    /// UDP, anything.
    Datagrams,
}

/// A port that is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Name for people; the same door of several pods has one name.
    pub name: &'static str,
    /// Address of the port.
    pub at: SocketAddr,
    /// What its server expects.
    pub speaks: Speaks,
    /// Clients at this door, as a multiple of [`Force::clients`].
    pub crowd: usize,
}

/// Bounds of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Force {
    /// Number of clients at a usual door, each with one connection at a time.
    pub clients: usize,
    /// Most new connections per second of all clients together, up to 1,000. What a machine does for a new connection
    /// would otherwise slow everything down, whatever the doors do.
    pub connects_per_second: u32,
    /// Longest time of the attack.
    pub longest: Duration,
}

/// What an attack did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toll {
    /// Connections that were established, by the name of the door; bursts of datagrams; and the streams of lying
    /// proxies, as [`LYING_PROXIES`].
    pub connections: BTreeMap<&'static str, usize>,
    /// Most connections that were open at the same time.
    pub most_open: usize,
    /// Whether the attack continued until it was stopped, and did not end by its own limit.
    pub until_stopped: bool,
}

/// The niceness of the attack, which is one thread.
const BEST_EFFORT: i32 = 10;

/// A running attack.
pub struct Attack {
    /// Doors to attack from now on. The attack ends when this is dropped.
    orders: Option<UnboundedSender<Vec<Door>>>,
    work: Option<JoinHandle<io::Result<bool>>>,
    tally: Arc<Tally>,
}

impl Attack {
    /// Starts an attack from the network namespace of this process. [`Self::aim`] says where to. The lying proxies go
    /// where proxies go.
    #[must_use]
    pub fn start(process: u32, force: Force, lying_proxies: Vec<LyingProxy>) -> Self {
        raise_file_limit();
        let (orders, received) = unbounded_channel();
        let tally: Arc<Tally> = Arc::default();
        let counted = tally.clone();
        let work = thread::spawn(move || {
            netns::within(process, move || {
                // Beside pods that ask for CPU, one that asks for none gets what is left.
                rustix::process::setpriority_process(None, BEST_EFFORT)?;
                let runtime = Builder::new_current_thread().enable_all().build()?;
                Ok(runtime.block_on(ground::fight(force, lying_proxies, received, counted)))
            })
        });
        Self { orders: Some(orders), work: Some(work), tally }
    }

    /// Attacks these doors, and no others from now on.
    pub fn aim(&self, doors: Vec<Door>) {
        if let Some(orders) = &self.orders {
            // An attack that has ended by its limit takes no orders.
            let _ = orders.send(doors);
        }
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.tally.open.load(Relaxed)
    }

    /// Connections so far.
    pub fn connections(&self) -> u32 {
        let connections = self.tally.connections.lock().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(connections.values().sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Whether a connection to this door was established.
    pub fn has_tried(&self, door: &str) -> bool {
        self.tally.connections.lock().unwrap_or_else(PoisonError::into_inner).contains_key(door)
    }

    /// Ends the attack.
    ///
    /// # Panics
    /// The attack could not enter the network namespace.
    #[track_caller]
    pub fn stop(mut self) -> Toll {
        drop(self.orders.take());
        let ended = self.work.take().map(|work| work.join().expect("the attack does not panic"));
        let until_stopped = ended.expect("it is stopped once").expect("the network namespace of the hostile pod");
        let connections = self.tally.connections.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Toll { connections, most_open: self.tally.most_open.load(Relaxed), until_stopped }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(work) = self.work.take() {
            let _ = work.join();
        }
    }
}

/// Counts of connections.
#[derive(Debug, Default)]
struct Tally {
    open: AtomicUsize,
    most_open: AtomicUsize,
    connections: Mutex<BTreeMap<&'static str, usize>>,
}

impl Tally {
    /// Counts a connection, which is open until the result is dropped.
    fn enter(&self, door: &'static str) -> Open<'_> {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        self.most_open.fetch_max(open, Relaxed);
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner).entry(door).or_default() += 1;
        Open(self)
    }
}

/// An open connection.
struct Open<'a>(&'a Tally);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
