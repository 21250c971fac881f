//! A flood of datagrams: each burst has a socket of its own, and so is another flow.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, time::sleep};

use super::{Door, Tally};

/// Datagrams of a burst.
const BURST: usize = 4;
/// Bytes of a datagram.
const SIZE: usize = 512;
/// Life of a socket after its burst, and pause before the next burst.
const PAUSE: Duration = Duration::from_millis(50);

/// One burst after the other.
pub(super) async fn flood(door: Door, tally: Arc<Tally>) {
    loop {
        // A proxy that is gone refuses, and another burst finds a free port.
        let _ = burst(&door, &tally).await;
        sleep(PAUSE).await;
    }
}

async fn burst(door: &Door, tally: &Tally) -> io::Result<()> {
    let any: IpAddr = if door.at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(door.at).await?;
    let _open = tally.enter(door.name);
    for _ in 0..BURST {
        socket.send(&[b'x'; SIZE]).await?;
    }
    // Answers come while nobody reads them.
    sleep(PAUSE).await;
    Ok(())
}
