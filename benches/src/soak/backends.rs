//! The backends: two that are always there, an echo of datagrams, and one that is down again and again.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{exchange::Exchange, random::Random, shared::Shared};

/// Ports of the backends, and the names that they give.
pub(crate) const FIRST: (u16, u8) = (7001, b'a');
pub(crate) const SECOND: (u16, u8) = (7002, b'b');
pub(crate) const FAILING: (u16, u8) = (7003, b'f');
/// Port of the echo of datagrams.
pub(crate) const DATAGRAMS: u16 = 7001;

/// Longest time that a backend keeps a connection on which nothing moves: longer than any client or proxy does.
const CONNECTION: Duration = Duration::from_secs(3600);
/// How long the failing backend is there, in milliseconds: from, to.
const UP: (u64, u64) = (15_000, 25_000);
/// How long it is not.
const DOWN: (u64, u64) = (3_000, 6_000);

/// Listens, and serves until this task is dropped.
///
/// # Errors
/// The port is not free.
pub(crate) async fn serve((port, name): (u16, u8)) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    serve_on(&listener, name).await
}

/// Serves every connection. Those that are left end with this future.
async fn serve_on(listener: &TcpListener, name: u8) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(timeout(CONNECTION, Exchange::serve(stream, name)));
        // What has ended leaves nothing here.
        while connections.try_join_next().is_some() {}
    }
}

/// Echoes datagrams.
///
/// # Errors
/// The port is not free.
pub(crate) async fn echo() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, DATAGRAMS)).await?;
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is one that a client left behind who is gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let _ = socket.send_to(&buffer[..length], from).await;
    }
}

/// The failing backend: there for a while, then down and refusing, until the load stops. At last it stays there.
///
/// # Errors
/// The port is not free.
pub(crate) async fn fail(shared: &Shared, mut random: Random) -> io::Result<()> {
    let (port, name) = FAILING;
    while !shared.is_stopped() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        shared.weather.turn(true);
        // The time runs out; only a failed accept ends earlier.
        if let Ok(ended) = timeout(random.millis(UP.0, UP.1), serve_on(&listener, name)).await {
            ended?;
        }
        shared.weather.turn(false);
        drop(listener);
        sleep(random.millis(DOWN.0, DOWN.1)).await;
    }
    shared.weather.turn(true);
    serve(FAILING).await
}
