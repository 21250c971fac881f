//! Tests of the end of a worker.

use std::{
    future::poll_fn,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use proxy_api::{Listener, Retry};
use tokio::time::timeout;

use super::*;
use crate::{
    core::sessions::end::EndReason,
    fixtures::process,
    route::Served,
    shared::Shared,
    supervisor::fixtures::{id, listener},
    sys,
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

/// A socket that listens, and clients whose connections it has queued.
fn queued(number: usize) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_nonblocking(true).expect("an option");
    let address = socket.local_addr().expect("bound");
    let clients = (0..number).map(|_| {
        let mut client = TcpStream::connect(address).expect("a place in the queue");
        client.write_all(b"x").expect("connected");
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

/// Polls a task once.
async fn step<F: Future>(mut task: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx))).await
}

#[test]
fn a_worker_that_drains_runs_the_connections_on_their_way_to_it_and_takes_no_later_ones() {
    in_time(async {
        let (process, listener) = (small(), unserved());
        let (handle, commands) = WorkerHandle::with_queue();
        let (socket, _clients) = queued(2);
        let accepted = || {
            let (stream, peer) = sys::accept(&socket).expect("a client");
            let permits = process.take_session().expect("room");
            let load = LoadGuard::new(handle.shared_load());
            let connection = Connection { stream, peer, permits, load };
            Accepted { connection, route: route(Served::One(listener.clone())) }
        };
        assert!(handle.send(Command::Drain { millis: 60_000 }).await);
        handle.adopt(accepted()).expect("a place behind the command");
        let mut run = pin!(worker(&process).run(commands));
        assert!(step(run.as_mut()).await.is_pending());
        handle.adopt(accepted()).expect_err("the worker that has accepted it keeps it");
        run.await;
        assert_eq!(counted(&listener, EndReason::NoBackend), (1, 1));
    });
}
