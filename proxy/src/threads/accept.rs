//! The accept loop of one socket: accepts in bounded batches within the file descriptor budget, and survives errors.

use std::{
    io,
    net::TcpListener,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{sync::Notify, task::yield_now, time::sleep};

use super::Thread;
use crate::{log::Level, route::Route, sys, worker::Accepted};

/// Connections accepted before yielding to other tasks of the worker.
const BATCH: usize = 16;
/// File descriptors per session: client and upstream.
pub const FILES_PER_SESSION: usize = 2;
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
    while let Some(permit) = thread.worker.process.files.take(FILES_PER_SESSION) {
        let Ok((stream, peer)) = sys::accept(socket.get_ref()) else { break };
        thread.place(Accepted { stream, peer, route: route.clone(), permit });
    }
}

#[derive(PartialEq)]
enum Step {
    More,
    Empty,
}

async fn batch(thread: &Rc<Thread>, listener: &TcpListener, route: &Route) -> Step {
    for _ in 0..BATCH {
        let permit = thread.worker.process.files.wait(FILES_PER_SESSION).await;
        match sys::accept(listener) {
            Ok((stream, peer)) => thread.place(Accepted { stream, peer, route: route.clone(), permit }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Empty,
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => {
                route.load().first().counters.accept_errors.fetch_add(1, Relaxed);
                drop(permit);
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
