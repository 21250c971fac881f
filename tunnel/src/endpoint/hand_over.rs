//! Hands connections over that are meant for another endpoint of the same server, or for a sidecar.
//!
//! ```text
//! agent ─ ID.portlane-tunnel.invalid ─▶ load balancer ─▶ this endpoint ─ MARK, bytes as they are ─▶ endpoint ID
//! agent ─ ID.sidecar.portlane-tunnel.invalid ─▶ …        this endpoint ─ MARK, bytes as they are ─▶ sidecar ID
//! ```
//!
//! This endpoint reads the server name and answers nothing: TLS is between the agent and the endpoint that it dialled.
//! A connection with the mark is never handed over again, whatever name it has, so wrong tables cannot make a loop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use rustls::server::Acceptor;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, copy};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::select;
use tokio::time::timeout;
use tunnel_core::identity::Dial;

use super::Endpoint;
use super::handing::{Share, Whose};
use crate::handshake::PATIENCE;
use crate::options;

/// Precedes a connection that is handed over. No TLS record and no frame begins with it.
const MARK: [u8; 16] = *b"\0portlane-handed";
/// The longest beginning that is searched for a server name. A name that comes later is left to TLS, which refuses the
/// connection.
const LONGEST: usize = 4096;
/// TCP keepalive: the silence before the first probe, and the pause between two probes.
const SILENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Unanswered probes after which the connection is lost.
const QUESTIONS: u32 = 3;

/// The first bytes of a connection, as classified.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// More bytes are needed.
    Incomplete,
    /// The mark.
    Mark,
    /// The endpoint or sidecar that the agent dials; `None`: any endpoint, or the bytes are not an agent's.
    For(Option<Dial>),
}

/// The dial of a new connection.
pub(super) struct Meant {
    /// The endpoint or sidecar that the agent dials; `None`: any endpoint, or the bytes are not an agent's.
    pub(super) dial: Option<Dial>,
    /// Whether another endpoint has handed the connection over.
    is_handed: bool,
}

/// Decides which endpoint a new connection is for, and consumes nothing of it but the mark. Returns the reason to close
/// it as the error. The caller bounds the time.
pub(super) async fn whose(endpoint: &Endpoint, tcp: &mut TcpStream) -> Result<Whose, &'static str> {
    let Meant { dial, is_handed } = meant(tcp).await?;
    match dial {
        // The certificate decides whether an endpoint or a sidecar answers to this id.
        Some(dial) if dial.id() != Some(&endpoint.settings.id) => {
            if is_handed {
                return Err("handed_over_again");
            }
            endpoint.handing.way(&dial, |uid| endpoint.instances_at_most(uid)).ok_or("unknown_endpoint")
        }
        _ => Ok(Whose::Own),
    }
}

/// Reads the dial of a new connection, and consumes nothing of it but the mark. Returns the reason to close it as the
/// error. The caller bounds the time.
pub(super) async fn meant(tcp: &mut TcpStream) -> Result<Meant, &'static str> {
    const FAULT: &str = "handshake";
    let mut is_handed = false;
    let mut bytes = vec![0; LONGEST];
    loop {
        let ready = tcp.ready(Interest::READABLE).await.map_err(|_| FAULT)?;
        let seen = tcp.peek(&mut bytes).await.map_err(|_| FAULT)?;
        match read(&bytes[..seen], is_handed) {
            Start::Incomplete if seen == 0 || ready.is_read_closed() => return Err(FAULT),
            Start::Incomplete => wait_for_more(tcp),
            Start::Mark => {
                tcp.read_exact(&mut bytes[..MARK.len()]).await.map_err(|_| FAULT)?;
                is_handed = true;
            }
            Start::For(dial) => return Ok(Meant { dial, is_handed }),
        }
    }
}

/// Returning "would block" makes the runtime wait for more bytes than were peeked. This thread has not yielded since,
/// so the runtime knows of no later bytes.
fn wait_for_more(tcp: &TcpStream) {
    let _ = tcp.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

fn read(bytes: &[u8], is_handed: bool) -> Start {
    if !is_handed && bytes.first() == MARK.first() {
        return match bytes.get(..MARK.len()) {
            None if MARK.starts_with(bytes) => Start::Incomplete,
            Some(mark) if mark == MARK => Start::Mark,
            _ => Start::For(None),
        };
    }
    let (mut acceptor, mut rest) = (Acceptor::default(), bytes);
    while !rest.is_empty() {
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return Start::For(None);
        }
    }
    match acceptor.accept() {
        Ok(Some(hello)) => {
            let dial = hello.client_hello().server_name().and_then(Dial::from_server_name);
            Start::For(dial.filter(|dial| *dial != Dial::Any))
        }
        Ok(None) if bytes.len() < LONGEST => Start::Incomplete,
        // TLS refuses such bytes with an alert of its own.
        Ok(None) | Err(_) => Start::For(None),
    }
}

/// Hands a connection over to its endpoint, until it ends. The connection there keeps what `hold` returns.
pub(super) async fn hand_over<H>(
    endpoint: &Endpoint,
    mut near: TcpStream,
    from: SocketAddr,
    whose: Whose,
    hold: impl Fn() -> H,
) {
    let handing = &endpoint.handing;
    let (to, room, share) = match whose {
        Whose::Own => return,
        Whose::Peer(to) => (to, &handing.to_peers, Share::OF_ENDPOINT),
        Whose::Sidecar { to, share } => (to, &handing.to_sidecars, share),
    };
    let Some(mut handed) = room.enter(from.ip(), to, share) else {
        endpoint.count("hand_over_full");
        return;
    };
    let _held = hold();
    let Ok(Ok(mut far)) = timeout(PATIENCE, reach(&near, to)).await else {
        endpoint.count("hand_over_failed");
        tracing::info!(%from, %to, "cannot hand a connection over to another endpoint");
        return;
    };
    tracing::debug!(%from, %to, "handing a connection over to another endpoint");
    let (near, far) = (near.split(), far.split());
    let mut copying = pin!(copy_both(near, far));
    // By this time, the other endpoint closes connections whose agent it does not know.
    if timeout(PATIENCE, copying.as_mut()).await.is_err() {
        handed.grow_old();
        copying.await;
    }
}

/// Connects to the other endpoint. Each end closes a connection whose peer is silent for long. If both ends vanish
/// without closing, for example with their nodes, TCP keepalive frees the room.
async fn reach(near: &TcpStream, to: SocketAddr) -> io::Result<TcpStream> {
    let mut far = TcpStream::connect(to).await?;
    let (silence, pause) = SILENCE;
    let keepalive = TcpKeepalive::new().with_time(silence).with_interval(pause).with_retries(QUESTIONS);
    for tcp in [near, &far] {
        options::of_carrier(tcp)?;
        SockRef::from(tcp).set_tcp_keepalive(&keepalive)?;
    }
    far.write_all(&MARK).await?;
    Ok(far)
}

type Halves<'a> = (ReadHalf<'a>, WriteHalf<'a>);

/// Copies bytes both ways. After one direction has ended, the other has a moment for its last bytes.
async fn copy_both((near_read, near_write): Halves<'_>, (far_read, far_write): Halves<'_>) {
    let mut out = pin!(pour(near_read, far_write));
    let mut back = pin!(pour(far_read, near_write));
    select! {
        () = out.as_mut() => {
            let _ = timeout(PATIENCE, back).await;
        }
        () = back.as_mut() => {
            let _ = timeout(PATIENCE, out).await;
        }
    }
}

/// Copies bytes one way until they end or fail. The receiver sees either as the end of data.
async fn pour(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
    let _ = copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, version::TLS13};
    use tokio::net::TcpListener;
    use tunnel_core::identity::EndpointId;

    use super::*;
    use crate::identity::tls::server_name;

    /// The first bytes that an agent sends.
    fn hello(dial: &Dial) -> Vec<u8> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = builder.with_protocol_versions(&[&TLS13]).expect("a version");
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = server_name(dial).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    fn id(name: &str) -> EndpointId {
        EndpointId::new(name).expect("an id")
    }

    #[test]
    fn the_endpoint_that_is_meant_is_known_by_the_last_byte_of_the_hello() {
        let (endpoint, sidecar) = (Dial::Endpoint(id("0f3a")), Dial::Sidecar(id("0f3a")));
        for (dial, expected) in [(&endpoint, Some(&endpoint)), (&sidecar, Some(&sidecar)), (&Dial::Any, None)] {
            let hello = hello(dial);
            for cut in 0..hello.len() {
                assert_eq!(read(&hello[..cut], false), Start::Incomplete, "{cut}");
            }
            assert_eq!(read(&hello, false), Start::For(expected.cloned()));
        }
    }

    #[test]
    fn other_bytes_are_left_to_who_answers_them() {
        for bytes in [b"GET / HTTP/1.1\r\n".as_slice(), b"\0", &[0; 16], &[12, 0, 0, 9, 0, 0], &[22, 3, 1, 0x40]] {
            let start = read(bytes, false);
            assert!(start == Start::For(None) || start == Start::Incomplete && bytes.len() < 6, "{bytes:?} {start:?}");
        }
        let mut long = vec![22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc];
        long.resize(LONGEST, 0);
        assert_eq!(read(&long, false), Start::For(None), "no agent says so much");
    }

    #[tokio::test]
    async fn both_sockets_have_the_options_of_a_carrier_that_is_handed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let near = TcpStream::connect(address).await.expect("a connection");
        let far = reach(&near, address).await.expect("reached");
        for tcp in [&near, &far] {
            assert!(SockRef::from(tcp).keepalive().expect("an option"));
            assert!(tcp.nodelay().expect("an option"), "frames of a carrier do not wait for each other here either");
        }
    }

    #[test]
    fn a_mark_counts_once_and_as_a_whole() {
        let marked = [MARK.as_slice(), b"rest"].concat();
        for cut in 1..MARK.len() {
            assert_eq!(read(&marked[..cut], false), Start::Incomplete);
        }
        assert_eq!(read(&marked, false), Start::Mark);
        assert_eq!(read(&marked, true), Start::For(None));
        assert_eq!(read(b"\0portlane-handec", false), Start::For(None));
    }
}
