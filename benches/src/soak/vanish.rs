//! Clients that vanish: their address leaves the machine, so that neither FIN nor reset comes from them, and nothing
//! reaches them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    exchange::{DEADLINE, Exchange, Fault, late},
    proxy::Ports,
    random::Random,
    shared::Shared,
};

/// Clients that vanish at the same time.
const AT_ONCE: u64 = 4;
/// Bytes that a client asks for: it vanishes in the middle of them.
const MANY: u64 = 64 << 20;
/// Time for the stream to be in the middle.
const BEGIN: Duration = Duration::from_millis(500);

/// Lets clients vanish until the load stops.
pub(crate) async fn run(ports: Ports, shared: Arc<Shared>, mut random: Random) {
    // No address comes again, so that no reset does either.
    for number in 1_u16.. {
        if shared.is_stopped() {
            return;
        }
        let [high, low] = number.to_be_bytes();
        if let Err(fault) = vanish(ports, Ipv4Addr::new(10, 9, high, low), &shared, &mut random).await {
            shared.fault("a client that vanishes", &fault);
        }
        sleep(random.millis(3_000, 8_000)).await;
    }
}

async fn vanish(ports: Ports, from: Ipv4Addr, shared: &Shared, random: &mut Random) -> Result<(), Fault> {
    address("add", from)?;
    let opened = open_all(ports, from, random).await;
    sleep(BEGIN).await;
    address("del", from)?;
    let streams = opened?;
    shared.sessions.fetch_add(streams.len() as u64, Relaxed);
    Ok(())
}

/// Half of the clients stop reading in the middle of a stream, and half are idle.
async fn open_all(ports: Ports, from: Ipv4Addr, random: &mut Random) -> Result<Vec<TcpStream>, Fault> {
    let mut streams = Vec::new();
    for at in 0..AT_ONCE {
        let mut stream = connect(from, ports.steady).await?;
        let exchange = Exchange { seed: random.number(), up: 100, down: 100, pause: 0 };
        if at.is_multiple_of(2) {
            Exchange { down: MANY, ..exchange }.ask(&mut stream).await?;
        } else {
            exchange.run(&mut stream, false).await?;
        }
        streams.push(stream);
    }
    Ok(streams)
}

async fn connect(from: Ipv4Addr, port: u16) -> Result<TcpStream, Fault> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let connecting = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    timeout(DEADLINE, connecting).await.map_err(|_| late())?.map_err(Fault::Refused)
}

/// Adds or deletes an address of the namespace.
fn address(verb: &str, address: Ipv4Addr) -> Result<(), Fault> {
    let address = format!("{address}/32");
    let done = Command::new("ip").args(["address", verb, &address, "dev", "lo"]).status()?;
    if done.success() {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("ip address {verb} {address} failed")).into())
    }
}
