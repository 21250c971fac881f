//! What the worker knows of a live session besides its task.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use proxy_api::Transport;
use serde::Serialize;

use crate::{
    core::{end::EndReason, endpoint::Endpoint},
    log::SessionRecord,
    net,
    shared::Shared,
};

/// A live TCP session. The sweep and the control thread speak to its task through here.
#[derive(Debug)]
pub struct Session {
    /// The listener it came to.
    pub listener: Arc<Shared>,
    /// The client: the peer, or whom its PROXY header names.
    pub client: Cell<SocketAddr>,
    /// What the client connected to, if its PROXY header says so.
    pub destination: Cell<Option<SocketAddr>>,
    /// The server name that it asked for.
    pub name: Option<Box<str>>,
    /// Its port in the listener's range, counted from the first.
    pub offset: Cell<u16>,
    /// Milliseconds of the process clock.
    pub started: u64,
    /// Backend entry and endpoint, once connected.
    pub to: RefCell<Option<(Arc<str>, Arc<Endpoint>)>>,
    /// Why the last connect failed.
    pub cause: Cell<Option<io::ErrorKind>>,
    /// Whether bytes can flow; before that `to` is the endpoint that is being tried.
    pub connected: Cell<bool>,
    /// Seconds of the process clock at the last byte.
    pub active_at: Cell<u64>,
    /// Whether one side has finished.
    pub half_closed: Cell<bool>,
    /// Bytes from the client.
    pub up: Cell<u64>,
    /// Bytes to the client.
    pub down: Cell<u64>,
    /// Milliseconds of the process clock at which it is to end, with the reason.
    pub end_at: Cell<Option<(u64, EndReason)>>,
    /// Seconds of the process clock at the last record.
    pub logged_at: Cell<u64>,
    /// Set for one poll in which readiness is not trusted.
    pub recheck: Cell<bool>,
    ended: Cell<Option<EndReason>>,
    counted: Cell<(u64, u64)>,
    waker: RefCell<Option<Waker>>,
}

/// A live session for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// The listener.
    pub listener: String,
    /// TCP or UDP.
    pub protocol: &'static str,
    /// The client.
    pub client: String,
    /// The backend entry.
    pub backend: Option<String>,
    /// The endpoint.
    pub endpoint: Option<String>,
    /// The server name that it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// Age in seconds.
    pub seconds: u64,
}

impl Session {
    /// A session that begins now.
    #[must_use]
    pub fn new(listener: Arc<Shared>, client: SocketAddr, name: Option<String>, now_millis: u64) -> Self {
        Self {
            listener,
            client: Cell::new(client),
            destination: Cell::new(None),
            name: name.map(String::into_boxed_str),
            offset: Cell::new(0),
            started: now_millis,
            to: RefCell::default(),
            cause: Cell::new(None),
            connected: Cell::new(false),
            active_at: Cell::new(now_millis / 1000),
            half_closed: Cell::new(false),
            up: Cell::new(0),
            down: Cell::new(0),
            end_at: Cell::new(None),
            logged_at: Cell::new(now_millis / 1000),
            recheck: Cell::new(false),
            ended: Cell::new(None),
            counted: Cell::new((0, 0)),
            waker: RefCell::default(),
        }
    }

    /// Where it goes at an endpoint: in a range, as many ports after the first as it came on.
    #[must_use]
    pub fn address_of(&self, endpoint: &Endpoint) -> SocketAddr {
        net::shifted(endpoint.address, self.offset.get())
    }

    /// Tells the task to end.
    pub fn end(&self, reason: EndReason) {
        if self.ended.get().is_none() {
            self.ended.set(Some(reason));
        }
        self.wake();
    }

    /// Runs the task once.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The reason to end, if the task was told; else it will be woken when it is.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<EndReason> {
        if let Some(reason) = self.ended.get() {
            return Poll::Ready(reason);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the task is told to end.
    pub async fn told_to_end(&self) -> EndReason {
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Adds bytes since the last call to the listener's counts.
    pub fn count_bytes(&self) {
        let now = (self.up.get(), self.down.get());
        let before = self.counted.replace(now);
        if now.0 != before.0 {
            self.listener.counters.up.fetch_add(now.0 - before.0, Relaxed);
        }
        if now.1 != before.1 {
            self.listener.counters.down.fetch_add(now.1 - before.1, Relaxed);
        }
    }

    /// A line for the access log.
    #[must_use]
    pub fn record(&self, phase: &'static str, now_millis: u64, reason: Option<EndReason>) -> SessionRecord {
        let to = self.to.borrow();
        SessionRecord {
            phase,
            listener: self.listener.id.clone(),
            transport: Transport::Tcp,
            client: self.client.get(),
            backend: to.as_ref().map(|(backend, _)| backend.clone()),
            endpoint: to.as_ref().map(|(_, endpoint)| self.address_of(endpoint)),
            name: self.name.clone(),
            up: self.up.get(),
            down: self.down.get(),
            duration: Duration::from_millis(now_millis.saturating_sub(self.started)),
            reason,
            cause: reason.filter(|reason| *reason == EndReason::NoBackend).map(|_| match self.cause.get() {
                Some(kind) => kind.to_string(),
                None => "no endpoint is known".to_owned(),
            }),
        }
    }

    /// For people.
    #[must_use]
    pub fn view(&self, now_millis: u64) -> SessionView {
        let to = self.to.borrow();
        SessionView {
            listener: self.listener.id.to_string(),
            protocol: "TCP",
            client: self.client.get().to_string(),
            backend: to.as_ref().map(|(backend, _)| backend.to_string()),
            endpoint: to.as_ref().map(|(_, endpoint)| self.address_of(endpoint).to_string()),
            server_name: self.name.as_deref().map(str::to_owned),
            bytes_up: self.up.get(),
            bytes_down: self.down.get(),
            seconds: now_millis.saturating_sub(self.started) / 1000,
        }
    }
}
