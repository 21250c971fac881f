//! Tests of the workers: how long connections lie on them, what those hold before a backend has them, and the end of a
//! worker.

use std::{
    future::poll_fn,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use proxy_api::{AcceptHeader, Limits, Listener, OnLimit, ProxyProtocol, Retry, Selection};
use socket2::{Domain, Socket, Type};
use tokio::{sync::oneshot, time::timeout};

use super::*;
use crate::{
    core::{
        backends::{
            balance::{Entry, Targets},
            endpoint::Endpoint,
        },
        limits::relief::Held,
        sessions::end::EndReason,
    },
    fixtures::process,
    route::Served,
    shared::Shared,
    supervisor::fixtures::{id, listener},
    sys,
    worker::SessionAt,
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test on a thread like that of a worker.
fn in_time(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("in time") });
}

/// A process with room for four sessions.
fn small() -> Process {
    process(&Settings { max_sessions: 4, ..Settings::default() }, None)
}

fn worker(process: &Process) -> Rc<Thread> {
    Thread::new(0, Worker::new(0, process.clone(), &Settings::default()), Arc::default(), Vec::new())
}

/// A listener without endpoints: its sessions end at once.
fn unserved() -> Arc<Shared> {
    let template = (*listener(1, "b")).clone();
    let spec = Listener { retry: Retry { attempts: 1, ..template.retry }, ..template };
    Shared::new(id("a"), Arc::new(spec), Arc::default(), Arc::default())
}

fn route(served: Served) -> Route {
    Arc::new(ArcSwap::new(Arc::new(served)))
}

/// Sessions that were opened, and those of them that have ended for this reason.
fn counted(listener: &Shared, reason: EndReason) -> (u64, u64) {
    let counters = &listener.counters;
    (counters.opened.load(Relaxed), counters.closed[reason.index()].load(Relaxed))
}

/// A socket that listens, and clients whose connections and bytes it has queued.
fn queued(number: usize, bytes: &[u8]) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_nonblocking(true).expect("an option");
    let address = socket.local_addr().expect("bound");
    let clients = (0..number).map(|_| {
        let mut client = TcpStream::connect(address).expect("a place in the queue");
        client.write_all(bytes).expect("connected");
        let deadline = Instant::now() + PATIENCE;
        // Only a connection in the queue acknowledges.
        while sys::unacknowledged(&client) > 0 {
            assert!(Instant::now() < deadline, "the system does not queue the connection");
            thread::yield_now();
        }
        client
    });
    let clients = clients.collect();
    (socket, clients)
}

/// The next connection of a socket.
fn accepted(socket: &TcpListener, process: &Process, listener: &Arc<Shared>, load: &Arc<Load>) -> Accepted {
    let (stream, peer) = sys::accept(socket).expect("a client");
    let permits = process.take_session().expect("room");
    let connection = Connection { stream, peer, permits, load: LoadGuard::new(load) };
    Accepted { connection, route: route(Served::One(listener.clone())) }
}

/// Polls a task once.
async fn step<F: Future>(mut task: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx))).await
}

#[test]
fn a_worker_that_drains_runs_the_connections_on_their_way_to_it_and_takes_no_later_ones() {
    in_time(async {
        let (process, listener) = (small(), unserved());
        let (handle, commands) = WorkerHandle::with_queue();
        let (socket, _clients) = queued(2, b"x");
        let accepted = || accepted(&socket, &process, &listener, handle.shared_load());
        assert!(handle.send(Command::Drain { millis: 60_000 }).await);
        handle.adopt(accepted()).expect("a place behind the command");
        let mut run = pin!(worker(&process).run(commands));
        assert!(step(run.as_mut()).await.is_pending());
        handle.adopt(accepted()).expect_err("the worker that has accepted it keeps it");
        run.await;
        assert_eq!(counted(&listener, EndReason::NoBackend), (1, 1));
    });
}

/// A listener without endpoints, changed like this.
fn changed(change: impl FnOnce(&mut Listener)) -> Arc<Shared> {
    let mut spec = (*listener(1, "b")).clone();
    change(&mut spec);
    Shared::new(id("a"), Arc::new(spec), Arc::default(), Arc::default())
}

/// Listeners whose sessions wait for a PROXY header, in the queue, and for the first answer to the name of a backend.
fn waiting() -> [Arc<Shared>; 3] {
    let trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    let protocol = ProxyProtocol { accept: AcceptHeader::Required, trusted, ..ProxyProtocol::default() };
    let header = changed(|spec| spec.proxy_protocol = Some(Box::new(protocol)));
    let (max_connections, on_limit) = (Some(0), OnLimit::Queue);
    let limits = Limits { max_connections, on_limit, max_queued: 1, queue_seconds: 60, ..Limits::default() };
    let queue = changed(|spec| spec.limits = Some(Box::new(limits.clone())));
    queue.limiter.set(Some(&limits));
    let connect = changed(|_| {});
    connect.first_answer.set(Some(0));
    [header, queue, connect]
}

/// What the sessions of a worker hold.
async fn weighed(thread: &Rc<Thread>) -> Vec<Held<SessionAt>> {
    let (reply, answer) = oneshot::channel();
    weigh::weigh(thread.clone(), reply).await;
    answer.await.expect("an answer")
}

// D7
#[test]
fn a_session_that_waits_before_it_is_connected_is_weighed_and_can_be_reset() {
    in_time(async {
        let bytes: &[u8] = &[7; 16 << 10];
        let [header, queue, connect] = waiting();
        // A header is read as it comes.
        let cases = [(header, &b"PROXY "[..], 0), (queue, bytes, bytes.len()), (connect, bytes, bytes.len())];
        for (listener, sent, unread) in cases {
            let (process, (socket, _client)) = (small(), queued(1, sent));
            let thread = worker(&process);
            thread.begin(accepted(&socket, &process, &listener, &thread.load));
            // Its task begins the first time, and is woken the second time.
            let held = [weighed(&thread).await, weighed(&thread).await].concat();
            assert_eq!(held.len(), 2, "{held:?}");
            assert!(held.iter().all(|held| held.bytes >= unread as u64 && held.client.is_loopback()), "{held:?}");
            weigh::reset(&thread.worker, &[held[1].session]);
            while counted(&listener, EndReason::Shortage) != (1, 1) {
                tokio::task::yield_now().await;
            }
        }
    });
}

/// Connections that are held.
const HELD: usize = 1000;

/// A socket that listens, with room in its queue for all of them.
fn listening() -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    socket.listen(i32::try_from(HELD).expect("few")).expect("a queue");
    let socket = TcpListener::from(socket);
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// A listener with this endpoint.
fn serving(address: SocketAddr) -> Arc<Shared> {
    let shared = Shared::new(id("a"), listener(1, "b"), Arc::default(), Arc::default());
    let endpoints = vec![Arc::new(Endpoint::new(address))];
    let entry = Entry { id: "b".into(), weight: 1, priority: 0, endpoints, stats: Arc::default() };
    shared.targets.store(Arc::new(Targets::new(vec![entry])));
    shared
}

/// A server that greets each of the clients with a byte, and returns what holds their connections.
fn greet(server: TcpListener) -> thread::JoinHandle<Vec<TcpStream>> {
    thread::spawn(move || {
        let greeted = (0..HELD).map(|_| {
            let (mut connection, _) = server.accept().expect("a connection");
            connection.write_all(b"x").expect("connected");
            connection
        });
        greeted.collect()
    })
}

/// The live sessions of each worker.
async fn sessions(workers: &Workers) -> Vec<u64> {
    let mut sessions = Vec::new();
    for worker in &workers.handles {
        let (reply, answer) = oneshot::channel();
        assert!(worker.send(Command::Inspect { selection: Selection::default(), reply }).await);
        sessions.push(answer.await.expect("an answer").total);
    }
    sessions
}

#[test]
fn no_worker_runs_over_1_3_times_the_mean_of_a_thousand_held_connections() {
    in_time(async {
        let settings = Settings { workers: NonZeroUsize::new(4).expect("some"), ..Settings::default() };
        let process = process(&settings, None);
        // Client, both ends of the proxy, and server.
        if process.files.free() < 4 * HELD {
            return eprintln!("not run: the process may not open {} files", 4 * HELD);
        }
        let workers = Workers::start(&settings, &process).expect("threads");
        let ((server, backend), (socket, address)) = (listening(), listening());
        let greeted = greet(server);
        socket.set_nonblocking(true).expect("an option");
        let (id, socket, route) = (SocketId(1), OsSocket::Tcp(Arc::new(socket)), route(Served::One(serving(backend))));
        // One worker accepts them all.
        assert!(workers.handles[0].send(Command::Listen { id, socket, route }).await);
        let connect = |_| TcpStream::connect_timeout(&address, PATIENCE).expect("a place in the queue");
        let mut clients: Vec<TcpStream> = (0..HELD).map(connect).collect();
        for client in &mut clients {
            client.set_read_timeout(Some(PATIENCE)).expect("an option");
            client.read_exact(&mut [0]).expect("the greeting");
        }
        let held = greeted.join().expect("no panic");
        let sessions = sessions(&workers).await;
        assert_eq!(sessions.iter().sum::<u64>(), HELD as u64);
        assert!(sessions.iter().all(|worker| worker * 10 * 4 <= HELD as u64 * 13), "{sessions:?}");
        drop((clients, held));
        for worker in &workers.handles {
            assert!(worker.send(Command::Drain { millis: 0 }).await);
        }
        workers.join();
    });
}
