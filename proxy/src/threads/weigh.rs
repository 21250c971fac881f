//! Weighs the sessions of a worker: what they hold in memory, most of it in the buffers of their sockets. Resets some of
//! them.

use std::{ops::Range, rc::Rc};

use tokio::{sync::oneshot, task::yield_now};

use super::Thread;
use crate::{
    core::{limits::relief::Held, sessions::end::EndReason},
    worker::{SessionAt, Worker},
};

/// Places of sessions that are weighed before the worker runs its other tasks.
const WEIGHED_AT_ONCE: usize = 256;

/// Sends what each connected session holds. The task of a session has its sockets, so it is woken, and notes that itself.
/// Sessions that are not connected yet are left out: they hold little, and not for long.
pub(super) async fn weigh(thread: Rc<Thread>, reply: oneshot::Sender<Vec<Held<SessionAt>>>) {
    let worker = &thread.worker;
    *worker.weighed.borrow_mut() = Some(foldhash::HashMap::default());
    let mut from = 0;
    while wake(worker, from..from + WEIGHED_AT_ONCE) {
        // The tasks that were woken run before this one resumes.
        yield_now().await;
        from += WEIGHED_AT_ONCE;
    }
    yield_now().await;
    let weighed = worker.weighed.take().unwrap_or_default();
    let at = |(place, Held { session: id, client, bytes })| Held { session: SessionAt { place, id }, client, bytes };
    // The control thread may have ended.
    let _ = reply.send(weighed.into_iter().map(at).collect());
}

/// Wakes the connected sessions in these places to be weighed. Returns whether there are places after them.
fn wake(worker: &Worker, places: Range<usize>) -> bool {
    let sessions = worker.sessions.borrow();
    let end = places.end;
    for session in places.filter_map(|place| sessions.get(place)).filter(|session| session.connected.get()) {
        session.recheck.set(true);
        session.wake();
    }
    end < sessions.capacity()
}

/// Resets those of the sessions that have not ended meanwhile.
pub(super) fn reset(worker: &Worker, sessions: &[SessionAt]) {
    let table = worker.sessions.borrow();
    for at in sessions {
        if let Some(session) = table.get(at.place).filter(|session| session.id == at.id) {
            session.end(EndReason::Shortage);
        }
    }
}
