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

/// Sends what each session holds. The task of a session has its sockets, so it is woken, and notes that itself.
pub(super) async fn weigh(thread: Rc<Thread>, reply: oneshot::Sender<Vec<Held<SessionAt>>>) {
    let worker = &thread.worker;
    // The shortage before may have ended while its answer was under way. That one ends at its next turn.
    while worker.weighed.borrow().is_some() {
        yield_now().await;
    }
    *worker.weighed.borrow_mut() = Some(foldhash::HashMap::default());
    let mut from = 0;
    while !reply.is_closed() && wake(worker, from..from + WEIGHED_AT_ONCE) {
        // The tasks that were woken run before this one resumes.
        yield_now().await;
        from += WEIGHED_AT_ONCE;
    }
    yield_now().await;
    let weighed = worker.weighed.take().unwrap_or_default();
    let at = |(place, Held { session: id, client, bytes })| Held { session: SessionAt { place, id }, client, bytes };
    // The shortage may be over, or the control thread may have ended.
    let _ = reply.send(weighed.into_iter().map(at).collect());
}

/// Wakes the sessions in these places to be weighed. Returns whether there are places after them.
fn wake(worker: &Worker, places: Range<usize>) -> bool {
    let sessions = worker.sessions.borrow();
    let end = places.end;
    for session in places.filter_map(|place| sessions.get(place)) {
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

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::poll_fn,
        pin::{Pin, pin},
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use proxy_api::SessionId;

    use super::*;
    use crate::{
        fixtures::{process, template_with_id},
        settings::Settings,
        shared::Shared,
        worker::session::Session,
    };

    /// A worker with so many sessions, whose ids are their places.
    fn worker(sessions: u64) -> Rc<Worker> {
        let worker = Worker::new(0, process(&Settings::default(), None), &Settings::default());
        let (id, spec) = template_with_id();
        let listener = Shared::new(id, Arc::new(spec), Arc::default(), Arc::default());
        for id in 0..sessions {
            let session = Session::new(SessionId(id), listener.clone(), ([192, 0, 2, 1], 1).into(), None, 0);
            worker.sessions.borrow_mut().insert(Rc::new(session));
        }
        worker
    }

    #[test]
    fn all_sessions_are_asked_few_at_a_time() {
        let most = WEIGHED_AT_ONCE as u64;
        let worker = worker(3 * most + 1);
        worker.sessions.borrow()[5].connected.set(true);
        let thread = Thread::new(0, worker.clone(), Arc::default(), Vec::new());
        let (reply, answer) = oneshot::channel();
        let turns = Cell::new(0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let weighed = runtime.block_on(async {
            let mut weighing = pin!(weigh(thread, reply));
            poll_fn(|cx| {
                turns.set(turns.get() + 1);
                weighing.as_mut().poll(cx)
            })
            .await;
            answer.await.expect("an answer")
        });
        assert!(weighed.is_empty(), "their tasks would have told");
        assert!(turns.get() >= 5, "{} turns", turns.get());
        let sessions = worker.sessions.borrow();
        let asked = sessions.iter().filter(|(_, session)| session.recheck.get()).count() as u64;
        assert_eq!(asked, 3 * most + 1, "connected or not");
        assert!(worker.weighed.borrow().is_none());
    }

    /// Polls a task once.
    async fn step<F: Future>(mut task: Pin<&mut F>) -> Poll<F::Output> {
        poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx))).await
    }

    #[test]
    fn an_answer_that_nobody_waits_for_any_more_ends_early_and_takes_nothing_from_the_next_one() {
        let worker = worker(3 * WEIGHED_AT_ONCE as u64);
        let thread = Thread::new(0, worker.clone(), Arc::default(), Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let held = Held { session: SessionId(1), client: [192, 0, 2, 1].into(), bytes: 7 };
        let weighed = runtime.block_on(async {
            let ((first, left), (second, answer)) = (oneshot::channel(), oneshot::channel());
            let mut before = pin!(weigh(thread.clone(), first));
            let mut after = pin!(weigh(thread, second));
            assert!(step(before.as_mut()).await.is_pending());
            drop(left);
            assert!(step(after.as_mut()).await.is_pending());
            assert!(step(before.as_mut()).await.is_pending());
            assert!(step(before.as_mut()).await.is_ready(), "it visits no more sessions");
            assert!(step(after.as_mut()).await.is_pending());
            worker.weighed.borrow_mut().as_mut().expect("it is under way").insert(1, held);
            after.await;
            answer.await.expect("an answer")
        });
        assert_eq!(
            weighed,
            [Held { session: SessionAt { place: 1, id: SessionId(1) }, client: held.client, bytes: 7 }]
        );
    }

    #[test]
    fn a_session_that_has_taken_the_place_of_another_is_not_reset() {
        let worker = worker(3);
        reset(&worker, &[(0, 7), (1, 1), (9, 9)].map(|(place, id)| SessionAt { place, id: SessionId(id) }));
        let cx = Context::from_waker(Waker::noop());
        let ended = worker.sessions.borrow().iter().map(|(_, session)| session.poll_ended(&cx)).collect::<Vec<_>>();
        assert_eq!(ended, [Poll::Pending, Poll::Ready(EndReason::Shortage), Poll::Pending]);
    }
}
