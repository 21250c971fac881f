//! The intake of a socket's messages.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use durable::{
    Lanes, StoreError,
    intake::{Intake, receive, serve},
};
use proxy_api::ListenerId;
use tokio::{
    net::{TcpListener, UdpSocket},
    time::sleep,
};

use super::settings::Taking;
use crate::{
    core::durable::intake_ends::{IntakeEnds, PAUSE},
    log::Level,
    net::OsSocket,
    process::Process,
    sys,
};

/// The intake of a socket's messages, for the stores of its listener.
pub(super) struct Taker {
    pub(super) lanes: Lanes,
    pub(super) taking: Taking,
    pub(super) intake: Intake,
    pub(super) version: Rc<()>,
    pub(super) ends: Rc<IntakeEnds>,
}

impl Taker {
    /// Takes messages until this future is dropped, or the log is closed. A panic, which a message may cause, closes the
    /// connections of this socket and no others, and what the log has stays.
    pub(super) async fn take(self, socket: OsSocket, counted: Rc<Cell<u32>>, listener: ListenerId, process: Process) {
        // Without this task, the socket would stay open without being served.
        let _guard = process.lives.guard(format!("the intake of {listener}"));
        let share = process.messages.partial.share(&listener.origin.namespace);
        let intake = self.intake.clone().within(share);
        loop {
            let line = match unless_it_panics(self.serve(&socket, &counted, &intake)).await {
                Some(Ok(())) => return,
                Some(Err(error)) => self.ends.failed(process.clock.seconds(), &error),
                None => self.ends.panicked(process.clock.seconds()),
            };
            if let Some(line) = line {
                process.log.notice(Level::Error, "failed", &listener, line);
            }
            sleep(Duration::from_secs(PAUSE)).await;
        }
    }

    /// Takes messages until the log is closed, or the socket fails.
    async fn serve(&self, socket: &OsSocket, counted: &Cell<u32>, intake: &Intake) -> io::Result<()> {
        let error = match socket {
            OsSocket::Tcp(shared) => {
                let own = shared.try_clone().and_then(TcpListener::from_std)?;
                if let Some(settings) = self.taking.tcp() {
                    serve(&own, &self.lanes, settings, intake).await;
                }
                return Ok(());
            }
            OsSocket::Udp(shared) => {
                let own = shared.try_clone().and_then(UdpSocket::from_std)?;
                sys::split_datagrams(&own);
                receive(&own, &self.lanes, self.taking.limits, intake, sys::dropped, counted).await
            }
        };
        let is_closed = error.get_ref().is_some_and(|inner| inner.downcast_ref::<StoreError>().is_some());
        if is_closed { Ok(()) } else { Err(error) }
    }
}

/// The output of a future; `None`: the future has panicked, which is on standard error.
async fn unless_it_panics<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // The future is not polled again after a panic.
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}
