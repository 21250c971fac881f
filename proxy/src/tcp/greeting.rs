//! Routes a connection on a shared socket to a listener by the server name it asks for.
//!
//! The bytes are peeked and stay in the kernel, so that the session relays them as usual.

use std::{future::Future, io, net::SocketAddr, pin::pin, time::Duration};

use proxy_api::{AcceptHeader, doors::Refusal};
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;

use super::admission::{HANDSHAKE_SECONDS, read_header};
use crate::{
    core::{
        logging::unrouted::Unroutable,
        sessions::{
            client_hello::{self, Hello, LONGEST_IN_RECORDS},
            end::EndReason,
        },
    },
    deadline::within,
    door::Place,
    route::Names,
    sys::Socket,
    worker::Worker,
};

/// The data that a connection reveals before its session starts.
pub struct Greeted {
    /// Client address.
    pub client: SocketAddr,
    /// Destination in the PROXY header.
    pub destination: Option<SocketAddr>,
    /// Server name.
    pub name: String,
}

/// Reads the PROXY header, if any, and the server name of a connection.
///
/// # Errors
/// Why the connection matches no listener.
pub async fn greet(worker: &Worker, stream: &Socket, peer: SocketAddr, names: &Names) -> Result<Greeted, Unroutable> {
    let spec = names.first().spec.load_full();
    let limit = Duration::from_secs(spec.timeouts.handshake_seconds.unwrap_or(HANDSHAKE_SECONDS).into());
    let handshakes = &worker.process.handshakes;
    let mut handshake = pin!(async {
        let mut greeted = (peer, None);
        if let Some(protocol) = spec.proxy_protocol.as_deref() {
            match (protocol.accept, protocol.trusts(peer.ip())) {
                (AcceptHeader::Disabled, _) | (AcceptHeader::Optional, false) => {}
                (AcceptHeader::Required, false) => return Err(Unroutable::UntrustedPeer),
                (AcceptHeader::Optional | AcceptHeader::Required, true) => {
                    let place = handshakes.enter_known(peer.ip());
                    let header = async { read_header(stream).await.map_err(unroutable) };
                    if let Some((source, destination)) = in_place(place, header).await? {
                        greeted = (source, Some(destination));
                    }
                }
            }
        }
        // From here on, the handshake waits for the client that the header names.
        let name = in_place(handshakes.enter(greeted.0.ip()), read_name(worker, stream)).await?;
        Ok(Greeted { client: greeted.0, destination: greeted.1, name })
    });
    within(limit, handshake.as_mut()).await.ok_or(Unroutable::HandshakeTimeout)?
}

/// Runs a step of the handshake, unless there is no place for it, or its place goes to another connection.
async fn in_place<T>(
    place: Result<Place, Refusal>,
    step: impl Future<Output = Result<T, Unroutable>>,
) -> Result<T, Unroutable> {
    let place = place.map_err(|_| Unroutable::HandshakeLimit)?;
    tokio::select! {
        biased;
        () = place.taken_back() => Err(Unroutable::HandshakeLimit),
        done = step => done,
    }
}

fn unroutable(reason: EndReason) -> Unroutable {
    match reason {
        EndReason::Probe => Unroutable::Probe,
        EndReason::BadHeader => Unroutable::BadHeader,
        _ => Unroutable::ClientLeft,
    }
}

async fn read_name(worker: &Worker, stream: &Socket) -> Result<String, Unroutable> {
    loop {
        let ready = stream.ready(Interest::READABLE | Interest::ERROR).await.map_err(|_| Unroutable::ClientLeft)?;
        if ready.is_error() {
            return Err(Unroutable::ClientLeft);
        }
        let ended = ready.is_read_closed();
        // Returning "would block" makes the runtime wait for more bytes before the next peek.
        let looked = stream.try_io(Interest::READABLE, || look(worker, stream, ended));
        match looked {
            Ok(Ok(name)) => return Ok(name),
            Ok(Err(why)) => return Err(why),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended => {}
            Err(_) => return Err(Unroutable::ClientLeft),
        }
    }
}

fn look(worker: &Worker, stream: &Socket, ended: bool) -> io::Result<Result<String, Unroutable>> {
    let mut scratch = worker.scratch.borrow_mut();
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (_, seen) = recv(stream, &mut scratch[..LONGEST_IN_RECORDS], flags)?;
    match client_hello::read(&scratch[..seen]) {
        Hello::Name(name) => Ok(Ok(name)),
        Hello::NoName => Ok(Err(Unroutable::NoServerName)),
        Hello::NotTls => Ok(Err(Unroutable::NotTls)),
        Hello::Incomplete if seen == 0 => Ok(Err(Unroutable::Probe)),
        Hello::Incomplete if ended => Ok(Err(Unroutable::ClientLeft)),
        Hello::Incomplete => Err(io::ErrorKind::WouldBlock.into()),
    }
}
