//! Load on a fleet: sessions that may not break, visitors whom nothing may refuse, and redis-benchmark.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use harness::{CommandOutput, Node, greeting, round_trip};

/// Bytes of a round trip: many frames for the whole test, and few enough for the sockets to hold.
const MESSAGE: usize = 16 << 10;
/// Sessions on each pod, so that each instance has some of them.
const SESSIONS: usize = 6;
/// Longest run of redis-benchmark, in seconds, as timeout(1) has it: it takes a tenth of a second on an idle machine.
const RUN: &str = "60";

/// How far work has come.
#[derive(Debug, Default)]
struct Seen {
    rounds: usize,
    /// The kind of the failure, and what is told of it.
    failure: Option<(io::ErrorKind, String)>,
}

/// Work that is done again and again on a thread of its own, until it fails or is dropped. Between rounds it leaves the
/// cores to the cluster.
pub(super) struct Repeated {
    stopped: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Repeated {
    fn start(what: &str, mut round: impl FnMut() -> io::Result<()> + Send + 'static) -> Self {
        let (stopped, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (ends, noted, what) = (stopped.clone(), seen.clone(), what.to_owned());
        let work = move || {
            let start = Instant::now();
            while !ends.load(Relaxed) {
                let began = Instant::now();
                let done = round();
                let took = began.elapsed();
                let mut seen = noted.lock().expect("unpoisoned");
                if let Err(error) = done {
                    let (age, rounds) = (start.elapsed(), seen.rounds);
                    let story = format!("{what}, after {age:?} and {rounds} rounds: {error}");
                    seen.failure = Some((error.kind(), story));
                    return;
                }
                seen.rounds += 1;
                drop(seen);
                thread::park_timeout((took * 2).clamp(Duration::from_millis(10), Duration::from_millis(100)));
            }
        };
        Self { stopped, seen, thread: Some(thread::spawn(work)) }
    }

    /// Rounds so far.
    ///
    /// # Panics
    /// One has failed.
    #[track_caller]
    pub(super) fn rounds(&self) -> usize {
        let seen = self.seen.lock().expect("unpoisoned");
        let (rounds, failure) = (seen.rounds, seen.failure.clone());
        drop(seen);
        if let Some((_, story)) = failure {
            panic!("{story}");
        }
        rounds
    }

    /// The kind of the failure that has ended it, and what is told of it.
    pub(super) fn failure(&self) -> Option<(io::ErrorKind, String)> {
        self.seen.lock().expect("unpoisoned").failure.clone()
    }

    /// Ends the work, and gives the number of its rounds.
    ///
    /// # Panics
    /// One has failed.
    #[track_caller]
    pub(super) fn stop(mut self) -> usize {
        self.stopped.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.rounds()
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        // A round of a test that has failed may take long: nobody waits for it.
        self.stopped.store(true, Relaxed);
    }
}

/// Sessions on one pod.
pub(super) struct Sessions {
    /// Address of the listener of the pod.
    pub(super) address: SocketAddr,
    /// Names of the services that they have reached.
    pub(super) names: BTreeSet<String>,
    pub(super) work: Repeated,
}

impl Sessions {
    /// Opens them, and sends what has to come back as it is from then on.
    #[track_caller]
    pub(super) fn open(node: &Node, address: SocketAddr) -> Self {
        let mut sessions: Vec<TcpStream> =
            (0..SESSIONS).map(|_| node.connect(address).expect("the pod listens")).collect();
        let names = sessions.iter_mut().map(|session| greeting(session).expect("a greeting")).collect();
        let mut number = 0;
        let work = Repeated::start(&format!("sessions on the pod at {address}"), move || {
            number += 1;
            sessions.iter_mut().try_for_each(|session| exchange(session, number))
        });
        Self { address, names, work }
    }
}

/// New visitors of a listener, one after the other.
pub(super) fn visitors(node: &'static Node, service: SocketAddr) -> Repeated {
    let mut number = 0;
    Repeated::start("visitors", move || {
        number += 1;
        let mut session = node.connect(service)?;
        greeting(&mut session)?;
        exchange(&mut session, number)
    })
}

/// One round trip of bytes that differ from those of other rounds.
fn exchange(session: &mut TcpStream, round: usize) -> io::Result<()> {
    let message: Vec<u8> = (0..MESSAGE).map(|at| (at * 31 + at / 251 + round * 7).to_le_bytes()[0]).collect();
    if round_trip(session, &message)? == message {
        return Ok(());
    }
    Err(io::Error::other("what came back differs from what was sent"))
}

/// Runs of redis-benchmark, one after the other, each with connections of its own.
pub(super) fn benchmark(node: &'static Node, address: IpAddr, port: u16) -> Repeated {
    let (host, port) = (address.to_string(), port.to_string());
    Repeated::start("redis-benchmark", move || {
        let mut run = node.command("timeout");
        run.args([RUN, "redis-benchmark", "-h", &host, "-p", &port]);
        let output = CommandOutput::of(run.args(["-t", "set,get", "-n", "1000", "-c", "4", "-d", "1024", "-q"]), "");
        if output.success {
            return Ok(());
        }
        Err(io::Error::other(format!("it failed, or ran for {RUN} s\n{}{}", output.stdout, output.stderr)))
    })
}
