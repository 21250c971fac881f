//! Admission of a session: PROXY header, access list, limits.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use proxy_api::{AcceptHeader, Listener, ProxyProtocol};
use tokio::io::Interest;

use super::live::Live;
use crate::{
    core::{
        limits::limiter::{Admission, Slot, Waiting},
        sessions::{
            end::EndReason,
            proxy_header::{self, Decoded},
        },
    },
    deadline::{within, within_or_soon_after_freeze},
    sys::Socket,
    worker::session::Session,
};

/// Bytes to peek before the length of the header is known.
const LOOK: usize = 256;
/// Handshake timeout if a listener needs one but sets none.
pub(super) const HANDSHAKE_SECONDS: u32 = 5;

/// The slot of a session; released on drop. The session knows the limiter, and the source, which stays the same after
/// its admission.
pub struct Admitted<'a>(&'a Session);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.listener.limiter.leave(self.0.client().ip());
    }
}

/// Admits the client or returns the reason to refuse it.
///
/// # Errors
/// The reason to end the session.
pub async fn admit(live: &Live) -> Result<Admitted<'_>, EndReason> {
    let (worker, session) = (live.worker(), live.session());
    let listener = &session.listener;
    if listener.returns(peer(session, &live.client.stream)) {
        return Err(EndReason::Loop);
    }
    // All workers share the reference count of a spec, so only sessions that wait take a reference.
    if listener.spec.load().proxy_protocol.is_some() {
        let spec = listener.spec.load_full();
        // With hostnames, the header was already read before the server name.
        if let Some(protocol) = spec.proxy_protocol.as_deref().filter(|_| spec.hostnames.is_empty()) {
            // Boxed, because a session has room for its largest step for its lifetime.
            Box::pin(introduce(live, (&spec, protocol))).await?;
        }
    }
    let source = session.client().ip();
    // A load balancer that hides the source address may name it in its header.
    if listener.returns(source) {
        return Err(EndReason::Loop);
    }
    // The spec may have changed while the header was read.
    if !listener.counters.admits(&listener.spec.load(), source) {
        return Err(EndReason::AccessDenied);
    }
    // A client in the queue takes room as well.
    if !worker.process.enter_source(source) {
        return Err(EndReason::SourceShare);
    }
    session.has_source.set(true);
    let slot = match listener.limiter.admit(source, worker.process.clock.millis()) {
        Admission::Admitted(slot) => slot,
        Admission::Refused(refusal) => return Err(refusal.into()),
        // Boxed, like the header.
        Admission::Queued(waiting) => {
            let seconds = listener.spec.load().limits.as_ref().map_or(0, |limits| limits.queue_seconds);
            Box::pin(wait(live, Duration::from_secs(seconds.into()), waiting)).await?
        }
    };
    slot.keep();
    Ok(Admitted(session))
}

/// The peer address of the connection, whatever client a header names. With hostnames, the header was read before.
fn peer(session: &Session, client: &Socket) -> IpAddr {
    let named = session.client().ip();
    if session.name().is_some() { client.peer_addr().map_or(named, |peer| peer.ip()) } else { named }
}

/// Reads the client's address from a PROXY header, if the listener accepts one from this peer.
async fn introduce(live: &Live, (spec, protocol): (&Listener, &ProxyProtocol)) -> Result<(), EndReason> {
    let session = live.session();
    match (protocol.accept, protocol.trusts(session.client().ip())) {
        (AcceptHeader::Disabled, _) | (AcceptHeader::Optional, false) => return Ok(()),
        (AcceptHeader::Required, false) => return Err(EndReason::UntrustedPeer),
        (AcceptHeader::Optional | AcceptHeader::Required, true) => {}
    }
    let limit = Duration::from_secs(spec.timeouts.handshake_seconds.unwrap_or(HANDSHAKE_SECONDS).into());
    let source = session.client().ip();
    let place = live.worker().process.handshakes.enter_known(source).map_err(|_| EndReason::HandshakeLimit)?;
    let named = {
        let mut header = pin!(read_header(&live.client.stream));
        tokio::select! {
            biased;
            reason = live.asked_to_end() => return Err(reason),
            () = place.taken_back() => return Err(EndReason::HandshakeLimit),
            read = within(limit, header.as_mut()) => read.ok_or(EndReason::HandshakeTimeout)??,
        }
    };
    drop(place);
    if let Some((source, destination)) = named {
        session.set_client(source);
        session.set_destination(destination);
    }
    // Data may have arrived together with the header.
    session.recheck.set(true);
    Ok(())
}

/// Reads exactly the header, so that the bytes after it are relayed as usual.
pub(super) async fn read_header(client: &Socket) -> Result<Option<(SocketAddr, SocketAddr)>, EndReason> {
    let mut header = Vec::new();
    let mut look = [0; LOOK];
    loop {
        let seen = client.peek(&mut look).await.map_err(|_| EndReason::ClientReset)?;
        if seen == 0 {
            return Err(if header.is_empty() { EndReason::Probe } else { EndReason::BadHeader });
        }
        let before = header.len();
        header.extend_from_slice(&look[..seen]);
        match proxy_header::decode(&header) {
            Decoded::Incomplete => take(client, &mut look[..seen]).await?,
            Decoded::Invalid(_) => return Err(EndReason::BadHeader),
            Decoded::Header(length, named) => {
                let rest = length.saturating_sub(before).min(seen);
                take(client, &mut look[..rest]).await?;
                return Ok(named);
            }
        }
    }
}

/// Consumes bytes that were already peeked.
async fn take(client: &Socket, into: &mut [u8]) -> Result<(), EndReason> {
    let mut taken = 0;
    while taken < into.len() {
        match client.try_read(&mut into[taken..]) {
            Ok(0) => return Err(EndReason::ClientReset),
            Ok(read) => taken += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.ready(Interest::READABLE).await.map_err(|_| EndReason::ClientReset)?;
            }
            Err(_) => return Err(EndReason::ClientReset),
        }
    }
    Ok(())
}

/// Queues the client, unread, for up to `queueSeconds`, which is the limit, or until it leaves.
async fn wait(live: &Live, limit: Duration, waiting: Waiting) -> Result<Slot, EndReason> {
    let session = live.session();
    let mut waiting = pin!(waiting);
    tokio::select! {
        biased;
        reason = live.asked_to_end() => Err(reason),
        slot = within_or_soon_after_freeze(limit, waiting.as_mut()) => {
            session.recheck.set(true);
            slot.ok_or(EndReason::QueueTimeout)
        }
        () = left(session, &live.client.stream) => Err(EndReason::ClientLeft),
    }
}

/// Ready once the client has left: it has reset the connection, or closed it without sending data. The `ClientHello` that
/// named the server is still unread and says nothing, but no TLS client finishes sending before the server answers.
pub(super) async fn left(session: &Session, client: &Socket) {
    let is_tls = session.name().is_some();
    loop {
        let Ok(ready) = client.ready(Interest::READABLE | Interest::ERROR).await else { return };
        if ready.is_error() {
            return;
        }
        if ready.is_read_closed() {
            if is_tls || rustix::io::ioctl_fionread(client).is_ok_and(|bytes| bytes == 0) {
                return;
            }
            // The client has only finished sending and waits for the answer.
            let _ = client.ready(Interest::ERROR).await;
            return;
        }
        // Leave the bytes in the kernel; the relay rechecks the socket.
        let _ = client.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}
