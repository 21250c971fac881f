//! A session in the table of its worker, with the connection of its client.

use std::{future::poll_fn, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use proxy_api::AccessLogMode;

use super::direction::End;
use crate::{
    core::{limits::relief::Held, sessions::end::EndReason},
    files::Permit,
    log::Event,
    process::{Permits, Process},
    sys,
    worker::{LoadGuard, Worker, session::Session},
};

/// A live session. However its task ends, the connection of the client is closed first, and then the session leaves the
/// table.
pub struct Live {
    /// The connection of the client.
    pub client: End,
    entry: Entry,
    /// Its part of the load of the worker.
    _load: LoadGuard,
}

impl Live {
    /// Puts a session in the table; `permits` and `load` are its shares of the process and of its worker.
    #[must_use]
    pub fn begin(worker: &Rc<Worker>, session: Session, client: End, (permits, load): (Permits, LoadGuard)) -> Self {
        let session = Rc::new(session);
        session.listener.counters.opened.fetch_add(1, Relaxed);
        let entry = Entry { key: worker.enter(session.clone()), session, worker: worker.clone() };
        permits.into_iter().for_each(Permit::keep);
        Self { client, entry, _load: load }
    }

    /// The worker of the session.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.entry.worker
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.entry.session
    }

    /// Notes what the session holds, in bytes, while the worker weighs its sessions.
    pub fn weigh(&self, bytes: impl FnOnce() -> u64) {
        let (worker, session) = (&self.entry.worker, &self.entry.session);
        if let Some(weighed) = &mut *worker.weighed.borrow_mut() {
            let held = Held { session: session.id, client: session.client().ip(), bytes: bytes() };
            weighed.insert(self.entry.key, held);
        }
    }

    /// Waits until [`Session::end`] is called, for a session that is not connected yet. While the worker weighs its
    /// sessions, notes what the connection of the client holds.
    pub async fn asked_to_end(&self) -> EndReason {
        poll_fn(|cx| {
            self.weigh(|| sys::buffered(&self.client.stream));
            self.session().poll_ended(cx)
        })
        .await
    }

    /// Records why the session has ended. The connection of a session that ended by itself is closed, and that of one
    /// that was cut is reset.
    pub fn ended(&self, reason: EndReason) {
        self.session().outcome.set(reason);
        self.client.clean.set(reason.is_clean());
    }
}

/// A place in the table; on drop, the session is removed, counted and logged, and gives back its room in the process.
struct Entry {
    worker: Rc<Worker>,
    session: Rc<Session>,
    key: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let (worker, session) = (&self.worker, &self.session);
        let _room = Room(&worker.process);
        worker.leave(self.key);
        session.count_bytes();
        if session.has_source.get() {
            worker.process.session_sources.leave(session.client().ip());
        }
        let reason = session.outcome.get();
        session.listener.counters.closed[reason.index()].fetch_add(1, Relaxed);
        let now = worker.process.clock.millis();
        worker.timings.ended(Duration::from_millis(now.saturating_sub(session.started)));
        if session.listener.spec.load().access_log.mode != AccessLogMode::Disabled {
            worker.process.log.emit(Event::Session(Box::new(session.record("closed", now, Some(reason)))));
        }
    }
}

/// The room of a session in the process, returned last, even if there is a panic before.
struct Room<'a>(&'a Process);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.leave_session();
    }
}
