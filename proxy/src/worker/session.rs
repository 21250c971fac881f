//! A live session as the worker sees it, apart from the session's task.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use proxy_api::{LiveSession, SessionId, Transport};

use crate::{
    core::{
        backends::{address::Address, endpoint::Endpoint},
        sessions::{end::EndReason, timers::TimerState},
    },
    log::SessionRecord,
    shared::Shared,
};

/// Data that few clients send before their session is connected.
#[derive(Debug, Default)]
struct Introduced {
    name: Option<Box<str>>,
    destination: OnceCell<SocketAddr>,
}

/// A live TCP session. The sweep and the control thread reach the session's task through this type.
pub struct Session {
    /// Identity of the session.
    pub id: SessionId,
    /// Listener of the session.
    pub listener: Arc<Shared>,
    /// See [`Session::client`]. A `SocketAddr` is larger, as it has room for the flow and the scope of IPv6.
    client: Cell<(IpAddr, u16)>,
    introduced: OnceCell<Box<Introduced>>,
    /// Whether the session is counted towards the source of `client`, which stays the same from then on.
    pub has_source: Cell<bool>,
    /// Position of the session's port in the listener's range, counted from the first port.
    pub offset: Cell<u16>,
    /// Start time in milliseconds of the process clock.
    pub started: u64,
    /// Backend entry and endpoint, once chosen.
    pub to: RefCell<Option<(Arc<str>, Arc<Endpoint>)>>,
    /// Error of the last failed connect.
    pub cause: Cell<Option<io::ErrorKind>>,
    /// Whether the upstream is connected. Before that, `to` is the endpoint being tried.
    pub connected: Cell<bool>,
    /// Time of the last byte in milliseconds of the process clock, read when the byte had been moved.
    pub active_at: Cell<u64>,
    /// Whether one side has finished sending.
    pub half_closed: Cell<bool>,
    /// Bytes from the client.
    pub up: Cell<u64>,
    /// Bytes to the client.
    pub down: Cell<u64>,
    /// When the session is scheduled to end, in milliseconds of the process clock, if there is a reason.
    ends_at: Cell<u64>,
    ends_for: Cell<Option<EndReason>>,
    /// Time of the last access log record in milliseconds of the process clock.
    pub logged_at: Cell<u64>,
    /// Set for one poll that ignores cached readiness.
    pub recheck: Cell<bool>,
    /// Whether the upstream connection has keepalive. It gets it from the first round of the sweep, which saves sessions
    /// that end before four system calls.
    pub has_keepalive: Cell<bool>,
    /// Why the task has ended; [`EndReason::Internal`] until it has.
    pub outcome: Cell<EndReason>,
    ended: Cell<Option<EndReason>>,
    counted: Cell<(u64, u64)>,
    waker: Cell<Option<Waker>>,
}

impl Session {
    /// Creates a session that starts now.
    #[must_use]
    pub fn new(
        id: SessionId,
        listener: Arc<Shared>,
        client: SocketAddr,
        name: Option<String>,
        now_millis: u64,
    ) -> Self {
        let introduced = name.map(|name| Box::new(Introduced { name: Some(name.into()), ..Introduced::default() }));
        Self {
            id,
            listener,
            client: Cell::new((client.ip(), client.port())),
            introduced: introduced.map_or_else(OnceCell::new, OnceCell::from),
            has_source: Cell::new(false),
            offset: Cell::new(0),
            started: now_millis,
            to: RefCell::default(),
            cause: Cell::new(None),
            connected: Cell::new(false),
            active_at: Cell::new(now_millis),
            half_closed: Cell::new(false),
            up: Cell::new(0),
            down: Cell::new(0),
            ends_at: Cell::new(0),
            ends_for: Cell::new(None),
            logged_at: Cell::new(now_millis),
            recheck: Cell::new(false),
            has_keepalive: Cell::new(false),
            outcome: Cell::new(EndReason::Internal),
            ended: Cell::new(None),
            counted: Cell::new((0, 0)),
            waker: Cell::default(),
        }
    }

    /// Client address: the peer, or the source in its PROXY header.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client.get().into()
    }

    /// Replaces the client address by the source in its PROXY header.
    pub fn set_client(&self, client: SocketAddr) {
        self.client.set((client.ip(), client.port()));
    }

    /// Keeps the destination in the client's PROXY header. A client sends one header, so that the first one stays.
    pub fn set_destination(&self, destination: SocketAddr) {
        self.introduced.get_or_init(Box::default).destination.get_or_init(|| destination);
    }

    /// Destination in the client's PROXY header.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        self.introduced.get()?.destination.get().copied()
    }

    /// Server name from the client's `ClientHello`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.introduced.get()?.name.as_deref()
    }

    /// The address to connect to at an endpoint: in a range, its port is shifted by the session's offset.
    #[must_use]
    pub fn address_of(&self, endpoint: &Endpoint) -> Address {
        endpoint.address.shifted(self.offset.get())
    }

    /// Asks the task to end; the first reason counts. `Idle` is a question, which the task denies if its sockets hold
    /// bytes ([`Session::stay`]), so that any other reason replaces it.
    pub fn end(&self, reason: EndReason) {
        if self.ended.get().is_none_or(|before| before == EndReason::Idle) {
            self.ended.set(Some(reason));
        }
        self.wake();
    }

    /// Schedules the end for a time in milliseconds of the process clock. A later end never extends a session.
    pub fn end_at(&self, millis: u64, reason: EndReason) {
        if self.scheduled_end().is_none_or(|(before, _)| before > millis) {
            self.ends_at.set(millis);
            self.ends_for.set(Some(reason));
        }
    }

    /// Scheduled end in milliseconds of the process clock, with its reason.
    #[must_use]
    pub fn scheduled_end(&self) -> Option<(u64, EndReason)> {
        self.ends_for.get().map(|reason| (self.ends_at.get(), reason))
    }

    /// Denies that the session is idle, and registers the task's waker again.
    pub fn stay(&self, cx: &Context<'_>) {
        if self.ended.get() == Some(EndReason::Idle) {
            self.ended.set(None);
        }
        let _ = self.poll_ended(cx);
    }

    /// The session as its timers see it.
    #[must_use]
    pub fn timer_state(&self) -> TimerState {
        TimerState {
            started: self.started,
            active_at: self.active_at.get(),
            half_closed: self.half_closed.get(),
            end_at: self.scheduled_end(),
        }
    }

    /// Wakes the task.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.set(Some(waker));
        }
    }

    /// The end reason once [`Session::end`] was called; until then registers the task's waker.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<EndReason> {
        if let Some(reason) = self.ended.get() {
            return Poll::Ready(reason);
        }
        let known = self.waker.take().filter(|waker| waker.will_wake(cx.waker()));
        self.waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
        Poll::Pending
    }

    /// Waits until [`Session::end`] is called for another reason than silence, and denies that the session is idle.
    pub async fn asked_to_end_at_once(&self) -> EndReason {
        poll_fn(|cx| match self.poll_ended(cx) {
            Poll::Ready(EndReason::Idle) => {
                self.stay(cx);
                Poll::Pending
            }
            asked => asked,
        })
        .await
    }

    /// Adds the bytes since the last call to the listener's counters; returns whether there were any.
    pub fn count_bytes(&self) -> bool {
        let now = (self.up.get(), self.down.get());
        let before = self.counted.replace(now);
        if now.0 != before.0 {
            self.listener.counters.up.fetch_add(now.0 - before.0, Relaxed);
        }
        if now.1 != before.1 {
            self.listener.counters.down.fetch_add(now.1 - before.1, Relaxed);
        }
        now != before
    }

    /// A record for the access log.
    #[must_use]
    pub fn record(&self, phase: &'static str, now_millis: u64, reason: Option<EndReason>) -> SessionRecord {
        let to = self.to.borrow();
        SessionRecord {
            session: self.id,
            phase,
            listener: self.listener.id.clone(),
            transport: Transport::Tcp,
            client: self.client(),
            backend: to.as_ref().map(|(backend, _)| backend.clone()),
            endpoint: to.as_ref().map(|(_, endpoint)| self.address_of(endpoint)),
            name: self.name().map(Box::from),
            up: self.up.get(),
            down: self.down.get(),
            duration: Duration::from_millis(now_millis.saturating_sub(self.started)),
            reason,
            cause: reason.filter(|reason| *reason == EndReason::NoBackend).map(|_| match self.cause.get() {
                Some(kind) => kind.to_string(),
                None => "no known endpoint".to_owned(),
            }),
        }
    }

    /// The session as a person sees it.
    #[must_use]
    pub fn view(&self, now_millis: u64) -> LiveSession {
        let to = self.to.borrow();
        let endpoint = to.as_ref().map(|(_, endpoint)| self.address_of(endpoint));
        LiveSession {
            session: Some(self.id),
            listener: self.listener.id.clone(),
            protocol: Transport::Tcp,
            client: self.client(),
            backend: to.as_ref().map(|(backend, _)| (**backend).to_owned()),
            endpoint: endpoint.as_ref().and_then(Address::socket),
            instance: endpoint.as_ref().and_then(Address::agent).map(|agent| agent.instance.to_string()),
            server_name: self.name().map(str::to_owned),
            bytes_up: self.up.get(),
            bytes_down: self.down.get(),
            seconds: now_millis.saturating_sub(self.started) / 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::fixtures::template_with_id;

    #[test]
    fn the_state_of_a_session_fits_into_192_bytes_with_its_counts_and_what_the_allocator_adds() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<Session>() + counts <= 192 - 4, "{} bytes", size_of::<Session>());
    }

    fn session() -> Session {
        let (id, spec) = template_with_id();
        let listener = Shared::new(id, Arc::new(spec), Arc::default(), Arc::default());
        Session::new(SessionId(7), listener, ([192, 0, 2, 1], 1).into(), None, 0)
    }

    #[test]
    fn of_two_scheduled_ends_the_earlier_one_stays() {
        let session = session();
        assert_eq!(session.scheduled_end(), None);
        for (millis, reason, expected) in [
            (9, EndReason::Drained, (9, EndReason::Drained)),
            (9, EndReason::Updated, (9, EndReason::Drained)),
            (10, EndReason::Updated, (9, EndReason::Drained)),
            (8, EndReason::Updated, (8, EndReason::Updated)),
        ] {
            session.end_at(millis, reason);
            assert_eq!(session.scheduled_end(), Some(expected));
        }
        assert_eq!(session.timer_state().end_at, Some((8, EndReason::Updated)));
    }

    #[test]
    fn a_session_keeps_its_server_name_beside_the_first_destination_of_its_client() {
        let (listener, client) = (session().listener, ([192, 0, 2, 1], 1).into());
        let session = Session::new(SessionId(7), listener, client, Some("db.example".to_owned()), 0);
        assert_eq!((session.name(), session.destination()), (Some("db.example"), None));
        let [first, second] = [5, 6].map(|port| SocketAddr::from(([192, 0, 2, 9], port)));
        session.set_destination(first);
        session.set_destination(second);
        assert_eq!((session.name(), session.destination()), (Some("db.example"), Some(first)));
    }

    #[test]
    fn silence_asked_before_or_meanwhile_does_not_cut_bytes_that_are_on_their_way() {
        let session = session();
        let mut cx = Context::from_waker(Waker::noop());
        session.end(EndReason::Idle);
        let mut cut = pin!(session.asked_to_end_at_once());
        for _ in 0..2 {
            assert!(cut.as_mut().poll(&mut cx).is_pending());
            session.end(EndReason::Idle);
        }
        session.end(EndReason::Drained);
        assert_eq!(cut.as_mut().poll(&mut cx), Poll::Ready(EndReason::Drained));
    }
}
