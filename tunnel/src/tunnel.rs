//! One session with its streams, on one thread.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep_until};
use tunnel_core::hello::Named;
use tunnel_core::{Limits, Loss, NotOpened, Open, Pool, Refusal, Session, Side};

mod flow;
mod handle;
mod incoming;
pub(crate) mod shared;
mod stream;

pub use self::flow::Flow;
pub use self::incoming::Incoming;
pub use self::stream::{Readable, Stream};

use self::handle::Handle;
use self::shared::Shared;

/// Why another carrier should be dialled beside the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The carrier is silent.
    Suspect,
    /// The peer takes no new streams on this carrier.
    GoAway,
}

/// Why no stream was opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The far end has not connected the target.
    #[error("the far end did not connect to the target ({:?}): {}", .0.reason, .0.detail)]
    Refused(Refusal),
    /// The far end was not asked.
    #[error("the far end was not asked: {0}")]
    NotOpened(NotOpened),
    /// The far end gave the stream up.
    #[error("the far end closed the stream before it was used")]
    Reset,
    /// The session has ended.
    #[error("the session has ended: {0}")]
    Lost(Loss),
}

/// A session with its streams. It stays on the thread that made it; clones are handles to the same session.
/// [`Tunnel::run`] must run while the tunnel is used.
#[derive(Clone, Debug)]
pub struct Tunnel {
    pub(crate) shared: Rc<Shared>,
}

impl Tunnel {
    /// A session without a carrier.
    pub fn new(side: Side, limits: Limits) -> Self {
        Self { shared: Rc::new(Shared::new(Session::new(side, limits, Duration::ZERO))) }
    }

    /// Like [`Tunnel::new`], for a session that shares the memory of `pool` with others.
    pub fn within(side: Side, limits: Limits, pool: &Rc<Pool>) -> Self {
        Self { shared: Rc::new(Shared::new(Session::new(side, limits, Duration::ZERO).within(pool))) }
    }

    /// Drives the timers of the session until the session is lost. Run it once at a time.
    pub async fn run(&self) -> Loss {
        let mut timer = pin!(sleep_until(Instant::now()));
        poll_fn(|cx| self.shared.poll_run(cx, timer.as_mut())).await
    }

    /// Asks the far end to connect a TCP target, and waits for the answer. Dropping the future gives the stream up.
    pub async fn open(&self, open: Open) -> Result<Stream, OpenError> {
        let handle = Handle::open(&self.shared, open)?;
        poll_fn(|cx| handle.poll_answer(cx)).await?;
        Ok(Stream::new(handle))
    }

    /// Like [`Tunnel::open`], for a UDP target.
    pub async fn open_flow(&self, open: Open) -> Result<Flow, OpenError> {
        let flow = self.begin_flow(open)?;
        flow.answered().await?;
        Ok(flow)
    }

    /// Like [`Tunnel::open_flow`], without waiting: datagrams may follow the request at once, and [`Flow::answered`]
    /// waits for the answer.
    pub fn begin_flow(&self, open: Open) -> Result<Flow, OpenError> {
        Handle::open(&self.shared, open).map(Flow::new)
    }

    /// The next request of the far end; `None` once the session is lost.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            if let Some((id, request)) = self.shared.next_asked() {
                return Some(Incoming::new(&self.shared, id, request));
            }
            if self.look(Session::lost).is_some() {
                return None;
            }
            self.shared.is_asked.notified().await;
        }
    }

    /// The next reason to dial another carrier. A new carrier discards earlier reasons.
    pub async fn hint(&self) -> Hint {
        loop {
            if let Some(hint) = self.shared.hint.take() {
                return hint;
            }
            self.shared.is_hinted.notified().await;
        }
    }

    /// Names other endpoints and sidecars to the agent at the far end.
    pub fn name_peers(&self, named: Named) {
        self.shared.with(|session, _| session.name_peers(named));
    }

    /// The endpoints and sidecars that may be dialled, each time the far end names them.
    pub async fn peers(&self) -> Named {
        loop {
            if let Some(named) = self.shared.with(|session, _| session.take_peers()) {
                return named;
            }
            self.shared.is_told.notified().await;
        }
    }

    /// Tells the far end that this end takes no new streams.
    pub fn go_away(&self) {
        self.shared.with(|session, _| session.go_away());
    }

    /// Ends the session. Bytes that arrived stay readable, and then each stream ends with a reset.
    pub fn lose(&self, loss: Loss) {
        self.shared.with(|session, _| session.lose(loss));
    }

    /// Inspects the session. `look` must not use the tunnel or its streams.
    pub fn look<T>(&self, look: impl FnOnce(&Session) -> T) -> T {
        look(&self.shared.session())
    }
}
