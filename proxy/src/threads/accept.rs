//! The accept loop of one socket: accepts in bounded batches while the process has room for sessions, and survives errors.

use std::{
    io,
    net::TcpListener,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{sync::Notify, task::yield_now, time::sleep};

use super::Thread;
use crate::{log::Level, route::Route, sys};

/// Connections accepted before yielding to other tasks of the worker.
const BATCH: usize = 16;
/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until closed, then accepts what the kernel has queued.
pub(super) async fn run(thread: Rc<Thread>, listener: Arc<TcpListener>, route: Route, close: Rc<Notify>) {
    let socket = match sys::watch(listener) {
        Ok(socket) => socket,
        Err(error) => {
            let id = route.load().first().id.clone();
            thread.worker.process.log.notice(
                Level::Error,
                "failed",
                id,
                format!("cannot watch the listening socket: {error}"),
            );
            return;
        }
    };
    loop {
        tokio::select! {
            biased;
            () = close.notified() => break,
            ready = socket.readable() => {
                let Ok(mut ready) = ready else { break };
                let step = tokio::select! {
                    biased;
                    () = close.notified() => break,
                    step = batch(&thread, socket.get_ref(), &route) => step,
                };
                if step == Step::Empty {
                    ready.clear_ready();
                }
            }
        }
        yield_now().await;
    }
    // Accept the connections the kernel has completed: closing the socket first would reset them.
    while let Some(permits) = thread.worker.process.take_session() {
        let Ok(connection) = sys::accept(socket.get_ref()) else { break };
        thread.place(connection, &route, permits);
    }
}

#[derive(PartialEq)]
enum Step {
    More,
    Empty,
}

async fn batch(thread: &Rc<Thread>, listener: &TcpListener, route: &Route) -> Step {
    for _ in 0..BATCH {
        let permits = thread.worker.process.wait_for_session().await;
        match sys::accept(listener) {
            Ok(connection) => thread.place(connection, route, permits),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Empty,
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => {
                route.load().first().counters.accept_errors.fetch_add(1, Relaxed);
                drop(permits);
                sleep(PAUSE).await;
                return Step::More;
            }
        }
    }
    Step::More
}

/// Whether the error belongs to the connection at the head of the queue (`accept(2)`).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
