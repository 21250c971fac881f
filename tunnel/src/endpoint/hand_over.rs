//! Connections that are meant for another endpoint of the same server.
//!
//! ```text
//! agent ─ ID.portlane-tunnel.invalid ─▶ load balancer ─▶ this endpoint ─ MARK, bytes as they are ─▶ endpoint ID
//! ```
//!
//! This endpoint reads the server name and answers nothing: TLS is between the agent and the endpoint that is meant. A
//! connection with the mark is never handed over again, whatever it names, so that wrong tables lead in no circle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use proxy_api::doors::{Admission, Bounds, Evict, PlaceId, Places};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, copy};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::select;
use tokio::time::{Instant, timeout};
use tunnel_core::identity::{Dial, EndpointId};

use super::Endpoint;
use crate::handshake::PATIENCE;

/// Connections whose agent the other endpoint may not know yet. None gives way: an agent whose connection is there would
/// come back and take the place of the next one. A load balancer may be the source of all agents.
pub const HANDED: Bounds = Bounds { strangers: 512, per_source: 128, known: 0, evict: Evict::Never, rates: None };
/// Connections that are handed over at once, by the instances that an endpoint takes: those whose agent the other endpoint
/// may not know yet, and two for each instance. A load balancer that chooses at random has fewer than one for each handed
/// over, and one that always chooses the same of three endpoints has two.
pub fn lasting(max_agents: usize) -> usize {
    max_agents.saturating_mul(2).saturating_add(HANDED.strangers)
}

/// Precedes a connection that is handed over. No record of TLS and no frame begins like it.
const MARK: [u8; 16] = *b"\0portlane-handed";
/// Longest beginning that is looked at. A name that comes later is left to TLS, which refuses the connection.
const LONGEST: usize = 4096;

/// Whose a new connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This endpoint's.
    Own,
    /// That of the endpoint at this address.
    Peer(SocketAddr),
}

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// More bytes are needed.
    Incomplete,
    /// The mark.
    Mark,
    /// The endpoint that is meant; `None`: any, or the bytes are nothing that an agent sends.
    For(Option<EndpointId>),
}

/// The other endpoints, and the connections that are handed over to them.
pub(super) struct Handing {
    start: Instant,
    peers: RefCell<BTreeMap<EndpointId, SocketAddr>>,
    places: RefCell<Places>,
    lasting: Cell<usize>,
    most: usize,
}

impl Handing {
    /// At an endpoint that takes so many instances of agents.
    pub(super) fn new(max_agents: usize) -> Self {
        let places = RefCell::new(Places::new(HANDED));
        let most = lasting(max_agents);
        Self { start: Instant::now(), peers: RefCell::default(), places, lasting: Cell::new(0), most }
    }

    /// Takes another table, and tells whether it names others than the one before.
    pub(super) fn set_peers(&self, peers: BTreeMap<EndpointId, SocketAddr>) -> bool {
        let before = self.peers.replace(peers);
        !before.keys().eq(self.peers.borrow().keys())
    }

    /// The first ids of the table.
    pub(super) fn peers(&self, most: usize) -> Vec<EndpointId> {
        self.peers.borrow().keys().take(most).cloned().collect()
    }

    /// Connections that are handed over now.
    pub(super) fn count(&self) -> usize {
        self.lasting.get()
    }

    /// Whether another endpoint has this address.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.peers.borrow().values().any(|peer| peer.ip().to_canonical() == ip)
    }
}

/// One connection that is handed over, until it is dropped.
struct Lasting<'a>(&'a Handing);

impl<'a> Lasting<'a> {
    fn enter(handing: &'a Handing) -> Option<Self> {
        let count = handing.lasting.get();
        if count >= handing.most {
            return None;
        }
        handing.lasting.set(count + 1);
        Some(Self(handing))
    }
}

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        self.0.lasting.set(self.0.lasting.get() - 1);
    }
}

/// A place among those whose agent the other endpoint may not know yet, free again on drop.
struct Place<'a> {
    handing: &'a Handing,
    id: PlaceId,
}

impl<'a> Place<'a> {
    fn enter(handing: &'a Handing, from: IpAddr) -> Option<Self> {
        let admission = handing.places.borrow_mut().admit(from, handing.start.elapsed());
        match admission {
            Admission::Admit(id) | Admission::AdmitAfterEvicting { place: id, .. } => Some(Self { handing, id }),
            Admission::Refuse(_) => None,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handing.places.borrow_mut().release(self.id, self.handing.start.elapsed());
    }
}

/// Looks whose a new connection is, and takes nothing of it but the mark. Fails with the reason to close it. The caller
/// bounds the time.
pub(super) async fn whose(endpoint: &Endpoint, tcp: &mut TcpStream) -> Result<Whose, &'static str> {
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
            Start::For(Some(id)) if id != endpoint.settings.id => {
                if is_handed {
                    return Err("handed_over_again");
                }
                let address = endpoint.handing.peers.borrow().get(&id).copied();
                return address.map(Whose::Peer).ok_or("unknown_endpoint");
            }
            Start::For(_) => return Ok(Whose::Own),
        }
    }
}

/// Returning "would block" makes the runtime wait for more bytes than those that were seen. This thread has not waited
/// since, so the runtime knows of no later ones.
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
        Ok(Some(hello)) => match hello.client_hello().server_name().and_then(Dial::from_server_name) {
            Some(Dial::Endpoint(id)) => Start::For(Some(id)),
            Some(Dial::Any) | None => Start::For(None),
        },
        Ok(None) if bytes.len() < LONGEST => Start::Incomplete,
        // TLS refuses it in its own words.
        Ok(None) | Err(_) => Start::For(None),
    }
}

/// Hands a connection over, until it ends. What `hold` gives is kept for the connection to the other endpoint.
pub(super) async fn hand_over<H>(
    endpoint: &Endpoint,
    mut near: TcpStream,
    from: SocketAddr,
    to: SocketAddr,
    hold: impl Fn() -> H,
) {
    let handing = &endpoint.handing;
    let (Some(place), Some(_lasting)) = (Place::enter(handing, from.ip()), Lasting::enter(handing)) else {
        endpoint.count("hand_over_full");
        return;
    };
    let _held = hold();
    let Ok(Ok(mut far)) = timeout(PATIENCE, reach(to)).await else {
        endpoint.count("hand_over_failed");
        tracing::info!(%from, %to, "cannot hand a connection over to another endpoint");
        return;
    };
    tracing::debug!(%from, %to, "hands a connection over to another endpoint");
    let (near, far) = (near.split(), far.split());
    let mut copying = pin!(copy_both(near, far));
    // The other endpoint closes connections whose agent it does not know by then.
    if timeout(PATIENCE, copying.as_mut()).await.is_err() {
        drop(place);
        copying.await;
    }
}

async fn reach(to: SocketAddr) -> io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    tcp.write_all(&MARK).await?;
    Ok(tcp)
}

type Halves<'a> = (ReadHalf<'a>, WriteHalf<'a>);

/// Copies bytes both ways. After the end of one direction, the last bytes of the other have a moment.
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

/// Copies bytes one way until they end or fail, which the other side sees as their end.
async fn pour(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
    let _ = copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, version::TLS13};

    use super::*;
    use crate::identity::tls::server_name;

    /// What an agent sends first.
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
        for (dial, expected) in [(Dial::Endpoint(id("0f3a")), Some(id("0f3a"))), (Dial::Any, None)] {
            let hello = hello(&dial);
            for cut in 0..hello.len() {
                assert_eq!(read(&hello[..cut], false), Start::Incomplete, "{cut}");
            }
            assert_eq!(read(&hello, false), Start::For(expected));
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

    #[test]
    fn connections_that_are_handed_over_are_bounded_and_give_their_places_back() {
        let handing = Handing::new(3);
        let source = |number: u8| IpAddr::from([192, 0, 2, number]);
        let held: Vec<_> = (0..HANDED.per_source).map(|_| Place::enter(&handing, source(1))).collect();
        assert!(held.iter().all(Option::is_some) && Place::enter(&handing, source(1)).is_none());
        assert!(Place::enter(&handing, source(2)).is_some());
        drop(held);
        assert!(Place::enter(&handing, source(1)).is_some());
        let entered: Vec<_> = (0..lasting(3)).map(|_| Lasting::enter(&handing)).collect();
        assert_eq!(entered.len(), 6 + HANDED.strangers, "two for each instance");
        assert!(entered.iter().all(Option::is_some) && Lasting::enter(&handing).is_none());
        drop(entered);
        assert!(Lasting::enter(&handing).is_some());
    }
}
