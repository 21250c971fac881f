//! A port on loopback whose messages a store takes.

use std::net::SocketAddr;
use std::time::Duration;

use durable::intake::{Intake, IntakeFigures, Limits, Oversize, Protocol, TcpSettings, serve};
use durable::{Lanes, Store};
use tempfile::{TempDir, tempdir};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::yield_now;

use crate::world::{open, read, within};

/// Messages of at most 16 bytes, on three connections.
pub(crate) fn settings_of(protocol: Protocol) -> TcpSettings {
    TcpSettings {
        protocol,
        limits: Limits { max_message_bytes: 16, oversize: Oversize::Truncate },
        connections: 3,
        connections_per_source: Some(2),
        idle: Duration::from_secs(60),
    }
}

/// Reads until the other side has closed the connection. A reset is an end, too.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Runs a test while a port is served.
pub(crate) async fn serving(
    listener: &TcpListener,
    lanes: impl Into<Lanes>,
    settings: TcpSettings,
    intake: &Intake,
    test: impl Future<Output = ()>,
) {
    within(async {
        select! {
            () = serve(listener, lanes, settings, intake) => panic!("a port is served for ever"),
            () = test => {}
        }
    })
    .await;
}

/// A store, and the port that fills it while a test runs.
pub(crate) struct Port {
    pub(crate) _home: TempDir,
    pub(crate) store: Store,
    pub(crate) intake: Intake,
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Port {
    pub(crate) async fn new() -> Self {
        let home = tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        Self { store: open(home.path()), _home: home, intake: Intake::default(), listener, address }
    }

    /// Runs a test while the port is served.
    pub(crate) async fn serve(&self, settings: TcpSettings, test: impl Future<Output = ()>) {
        serving(&self.listener, &self.store, settings, &self.intake, test).await;
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Waits until the store has so many messages, and returns them.
    pub(crate) async fn texts(&self, count: u64) -> Vec<String> {
        self.store.wait_for(count - 1).await.expect("it runs");
        let read = read(&self.store, 0).await;
        read.into_iter().map(|(_, payload)| String::from_utf8(payload).expect("text")).collect()
    }

    /// Waits until what is counted is so.
    pub(crate) async fn until(&self, is_so: impl Fn(&IntakeFigures) -> bool) {
        while !is_so(&self.intake.figures()) {
            yield_now().await;
        }
    }
}
