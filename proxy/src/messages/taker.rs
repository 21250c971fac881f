//! What takes the messages of a socket.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use durable::{
    Store, StoreError,
    intake::{Intake, receive, serve},
};
use proxy_api::ListenerId;
use tokio::{
    net::{TcpListener, UdpSocket},
    time::sleep,
};

use super::settings::Taking;
use crate::{log::Level, net::OsSocket, process::Process, sys};

/// The pause after a socket failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What takes the messages of a socket.
pub(super) struct Taker {
    pub(super) store: Store,
    pub(super) taking: Taking,
    pub(super) intake: Intake,
    pub(super) version: Rc<()>,
}

impl Taker {
    /// Takes messages until this future is dropped, or the log is closed.
    pub(super) async fn take(
        self,
        socket: OsSocket,
        counted: Rc<Cell<u32>>,
        listener: Arc<ListenerId>,
        process: Process,
    ) {
        // Without this task, the socket would stay open without being served.
        let _guard = process.lives.guard(format!("the intake of {listener}"));
        let intake = self.intake.within(process.messages.partial.share(&listener.origin.namespace));
        loop {
            let error = match &socket {
                OsSocket::Tcp(shared) => match shared.try_clone().and_then(TcpListener::from_std) {
                    Ok(own) => {
                        let Some(settings) = self.taking.tcp() else { return };
                        serve(&own, &self.store, settings, &intake).await;
                        return;
                    }
                    Err(error) => error,
                },
                OsSocket::Udp(shared) => match shared.try_clone().and_then(UdpSocket::from_std) {
                    Ok(own) => {
                        sys::split_datagrams(&own);
                        let limits = self.taking.limits;
                        receive(&own, &self.store, limits, &intake, sys::dropped, &counted).await
                    }
                    Err(error) => error,
                },
            };
            if matches!(error.get_ref(), Some(inner) if inner.is::<StoreError>()) {
                return;
            }
            process.log.notice(
                Level::Error,
                "failed",
                &listener,
                format!("cannot read messages from the socket: {error}"),
            );
            sleep(PAUSE).await;
        }
    }
}
