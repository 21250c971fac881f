//! Serves the HTTP addresses. A new connection always gets a place: if all are taken, the source with the most
//! connections loses the connection that has waited longest for its client. So silent clients keep no probe out.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_api::doors::Refusal;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::yield_now,
    time::{sleep, timeout},
};

use super::{Role, View, answer};
use crate::{door::Place, http_doors::Doors};

/// An address that is not known, as at the unix socket.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Timeout for receiving a request.
const HEADERS: Duration = Duration::from_secs(1);
/// Bytes that are buffered of a request, and of an answer that its client does not read.
const BUFFER: usize = 16 << 10;
/// Timeout for a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a page follows on one connection, after which it opens another. Clients that have vanished must not
/// keep places.
const FOLLOWED: Duration = Duration::from_secs(300);
/// Pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection and its places.
#[derive(Debug)]
pub(super) struct Guest {
    /// The endpoints that the connection may ask for.
    pub(super) role: Role,
    /// The address that the listener is bound to.
    pub(super) bound: IpAddr,
    source: IpAddr,
    place: Place,
    /// The place among the scrapes, once the connection has asked for metrics.
    scrape: OnceLock<Place>,
    /// The place among the pages that follow, once the connection has asked for events.
    following: OnceLock<Place>,
    /// Closes the connection of a page that does not read.
    pub(super) cut: Arc<Notify>,
}

impl Guest {
    /// Takes a place among the scrapes until the connection ends. Returns false if all are taken.
    pub(super) fn scrapes(&self, doors: &Doors) -> bool {
        let Ok(place) = doors.scrapes.enter_beside(self.source, &self.place) else { return false };
        // A connection carries one request.
        let _ = self.scrape.set(place);
        true
    }

    /// Takes a place among the pages that follow until the connection ends. Returns false if all are taken.
    pub(super) fn follows(&self, doors: &Doors) -> bool {
        let Ok(place) = doors.events.enter_beside(self.source, &self.place) else { return false };
        let _ = self.following.set(place);
        true
    }

    /// Waits until the connection has taken long enough.
    async fn is_over(&self) {
        sleep(PATIENCE).await;
        if self.following.get().is_some() {
            // Whichever is first.
            let _ = timeout(FOLLOWED.saturating_sub(PATIENCE), self.cut.notified()).await;
        }
    }
}

/// Serves an address until the runtime ends.
pub async fn serve(listener: std::net::TcpListener, role: Role, view: View) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let bound = listener.local_addr().map_or(UNKNOWN, |address| address.ip());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => begin(stream, (peer.ip(), bound), role, &view),
            Err(_) => sleep(PAUSE).await,
        }
        // Let a connection whose place was taken back close before the next one is accepted.
        yield_now().await;
    }
}

/// Serves a unix socket until the runtime ends.
pub async fn serve_file(listener: std::os::unix::net::UnixListener, view: View) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(stream, (UNKNOWN, UNKNOWN), Role::Local, &view),
            Err(_) => sleep(PAUSE).await,
        }
        yield_now().await;
    }
}

fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    (source, bound): (IpAddr, IpAddr),
    role: Role,
    view: &View,
) {
    if let Some(guest) = guest(source, bound, role, view) {
        tokio::spawn(converse(stream, guest, view.clone()));
    }
}

/// Serves one connection that `source` has made to the address `bound`, and ends with it. For a stream that no listener
/// accepted; without a place it is closed at once.
pub async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (source, bound): (IpAddr, IpAddr),
    role: Role,
    view: View,
) {
    if let Some(guest) = guest(source, bound, role, &view) {
        converse(stream, guest, view).await;
    }
}

fn guest(source: IpAddr, bound: IpAddr, role: Role, view: &View) -> Option<Arc<Guest>> {
    let place = enter(&view.process.doors, role, source).ok()?;
    let (scrape, following) = (OnceLock::new(), OnceLock::new());
    Some(Arc::new(Guest { role, bound, source, place, scrape, following, cut: Arc::default() }))
}

fn enter(doors: &Doors, role: Role, source: IpAddr) -> Result<Place, Refusal> {
    match role {
        Role::Health => doors.enter_health(source),
        Role::Admin => doors.admin.enter(source),
        Role::Local => doors.local.enter(source),
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, guest: Arc<Guest>, view: View) {
    let asking = guest.clone();
    let service = service_fn(move |request| {
        let (view, guest) = (view.clone(), asking.clone());
        async move {
            guest.place.asks();
            Ok::<_, Infallible>(answer(&guest, &view, &request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = guest.place.taken_back() => {}
        // A client may disconnect at any time.
        _ = connection => {}
        () = guest.is_over() => {}
    }
}
