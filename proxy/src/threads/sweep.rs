//! The sweep: checks deadlines, logs and counters of each session once a round, so that sessions need no timers of their
//! own.

use std::{
    collections::HashMap,
    ops::Range,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_api::{AccessLogMode, LiveSessions, OnUnhealthy, Selection};
use tokio::{sync::oneshot, task::yield_now, time::sleep};

use super::Thread;
use crate::{
    core::{
        changes::diff::Facts,
        sessions::{
            end::{self, EndReason},
            timers,
        },
        workers::rounds::{Rounds, Visit, places_of},
    },
    lives::Life,
    log::Event,
    shared::Shared,
    worker::{Ending, Worker, session::Session},
};

/// Places of sessions that an inquiry visits before the worker yields to its other tasks.
const LISTED_AT_ONCE: usize = 256;

/// Visits sessions, a slice at a time. Without sessions, the only work is a sign of life once a round: one wake of the
/// thread.
pub(super) async fn run(thread: Rc<Thread>, life: Life) {
    let worker = &thread.worker;
    let clock = worker.process.clock;
    let mut rounds = Rounds::new(clock.millis());
    loop {
        life.beat();
        let at = rounds.plan(|slice| worker.occupied.has(slice));
        sleep(Duration::from_millis(at.saturating_sub(clock.millis()))).await;
        let now = clock.millis();
        // Bytes already in the sockets are handled first: the runtime polls them before it resumes here. Once a wake,
        // because it costs a pass over all ready sockets; once a slice, a round of a busy worker would take 64 of them.
        yield_now().await;
        for visit in rounds.due(now) {
            life.beat();
            if visit.slice == 0 || worker.occupied.has(visit.slice) {
                sessions(worker, visit, now);
                thread.udp.sweep(worker, visit, now);
            }
        }
    }
}

/// Checks the sessions of a slice.
fn sessions(worker: &Worker, visit: Visit, now: u64) {
    // No check ends a session by itself: the session's task does, later.
    let sessions = worker.sessions.borrow();
    for place in places_of(visit.slice, sessions.capacity()) {
        if let Some(session) = sessions.get(place) {
            check(worker, session, now, visit.is_judged);
        }
    }
}

fn check(worker: &Worker, session: &Session, now: u64, is_judged: bool) {
    let spec = session.listener.spec.load();
    let has_moved = session.count_bytes();
    let state = session.timer_state();
    if let Some(reason) = timers::cut(&state, &spec.timeouts, now) {
        return session.end(reason);
    }
    let to = session.to.borrow();
    let Some((_, endpoint)) = to.as_ref().filter(|_| session.connected.get()) else { return };
    if spec.sessions.on_unhealthy == OnUnhealthy::Close && !endpoint.is_healthy(now / 1000) {
        return session.end(EndReason::BackendUnhealthy);
    }
    if is_judged && timers::is_silent(&state, &spec.timeouts, now) {
        return session.end(EndReason::Idle);
    }
    if has_moved || !is_judged || !session.has_keepalive.get() {
        // Urgent data ends a read early although the socket has more; one extra poll per burst finds the rest.
        session.recheck.set(true);
        session.wake();
    }
    let every = spec.access_log.interval_seconds;
    let is_due = every > 0 && timers::has_passed(session.logged_at.get(), timers::millis(every), now);
    if is_due && spec.access_log.mode != AccessLogMode::Disabled {
        session.logged_at.set(now);
        worker.process.log.emit(Event::Session(Box::new(session.record("open", now, None))));
    }
}

/// An ending and the sessions that it concerns.
type Concerned<'a> = (&'a Ending, Vec<Rc<Session>>);

/// Ends the sessions that a change concerns, at once or spread over time. All its listeners share one pass over the
/// sessions.
pub(super) async fn end(thread: &Rc<Thread>, endings: &[Ending]) {
    let worker = &thread.worker;
    let now = worker.process.clock.millis();
    end_sessions(endings, worker.sessions.borrow().iter().map(|(_, session)| session), now);
    thread.udp.end(worker, endings, now).await;
}

/// Ends those of the sessions that are concerned. None of them leaves the table meanwhile: its task removes it later.
fn end_sessions<'a>(endings: &[Ending], sessions: impl Iterator<Item = &'a Rc<Session>>, now: u64) {
    let mut concerned: HashMap<*const Shared, Vec<Concerned<'_>>> = HashMap::new();
    for ending in endings {
        concerned.entry(Arc::as_ptr(&ending.listener)).or_default().push((ending, Vec::new()));
    }
    for session in sessions {
        for (ending, sessions) in concerned.get_mut(&Arc::as_ptr(&session.listener)).into_iter().flatten() {
            if concerns(ending, session) {
                sessions.push(session.clone());
            }
        }
    }
    for (ending, sessions) in concerned.into_values().flatten() {
        end_some(ending, &sessions, now);
    }
}

fn end_some(ending: &Ending, sessions: &[Rc<Session>], now: u64) {
    for (at, session) in sessions.iter().enumerate() {
        if ending.over_millis == 0 {
            session.end(ending.reason);
        } else {
            session.end_at(now + end::spread(at, sessions.len(), ending.over_millis), ending.reason);
        }
    }
}

/// Whether an ending of the session's listener concerns it.
fn concerns(ending: &Ending, session: &Session) -> bool {
    ending.which.has(Facts {
        client: session.client().ip(),
        backend: session.to.borrow().as_ref().map(|(backend, _)| &**backend),
        offset: session.offset.get(),
        name: session.name(),
    })
}

/// Ends every session at once.
pub(super) fn end_all(thread: &Rc<Thread>, reason: EndReason) {
    let worker = &thread.worker;
    let sessions: Vec<Rc<Session>> = worker.sessions.borrow().iter().map(|(_, session)| session.clone()).collect();
    for session in sessions {
        session.end(reason);
    }
    thread.udp.end_drained(worker, worker.process.clock.millis());
}

/// Waits until only quiet UDP flows are live, no longer than `millis`, then ends the rest.
pub(super) async fn drain(thread: &Rc<Thread>, millis: u64) {
    let worker = &thread.worker;
    let clock = worker.process.clock;
    let begun = clock.millis();
    let may_wait = || !timers::has_passed(begun, millis, clock.millis()) && !worker.process.stop.load(Relaxed);
    // Let the accept loops run once more, to accept what the kernel has queued.
    loop {
        sleep(Duration::from_millis(20)).await;
        let is_busy = connections(thread) > 0 || thread.udp.are_busy(worker.process.clock.millis());
        if !is_busy || !may_wait() {
            break;
        }
    }
    end_all(thread, EndReason::Drained);
    settled(thread).await;
}

/// Waits briefly for the tasks of ended sessions to finish.
async fn settled(thread: &Rc<Thread>) {
    for _ in 0..100 {
        if live(thread) == 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn live(thread: &Thread) -> usize {
    connections(thread) + thread.udp.flows()
}

fn connections(thread: &Thread) -> usize {
    thread.worker.sessions.borrow().len() + thread.worker.greeting.get()
}

/// Sends the selected live sessions, unless the receiver leaves before that. The thread moves bytes in between, so that
/// sessions which begin or end meanwhile may be listed or not.
pub(super) async fn inspect(thread: Rc<Thread>, selection: Selection, mut reply: oneshot::Sender<LiveSessions>) {
    tokio::select! {
        live = selected(&thread, &selection) => drop(reply.send(live)),
        () = reply.closed() => {}
    }
}

async fn selected(thread: &Thread, selection: &Selection) -> LiveSessions {
    let worker = &thread.worker;
    let now = worker.process.clock.millis();
    let mut live = LiveSessions::default();
    let counts_all = is_of_all(selection);
    let is_enough = |live: &LiveSessions| counts_all && live.sessions.len() >= selection.limit;
    let mut from = 0;
    while !is_enough(&live) && list(worker, from..from + LISTED_AT_ONCE, selection, now, &mut live) {
        from += LISTED_AT_ONCE;
        yield_now().await;
    }
    thread.udp.list(now, selection, &mut live, is_enough).await;
    if is_enough(&live) {
        let all = worker.sessions.borrow().len() + thread.udp.flows();
        // Some listed sessions may have ended meanwhile.
        live.total = all.max(live.sessions.len()) as u64;
    }
    live
}

/// Whether every session is selected, and only their total is counted, so that the rest need not be visited after the
/// list is full.
fn is_of_all(selection: &Selection) -> bool {
    *selection == Selection { limit: selection.limit, ..Selection::default() }
}

/// Adds the selected sessions in these places. Returns whether there are places after them.
fn list(worker: &Worker, places: Range<usize>, selection: &Selection, now: u64, live: &mut LiveSessions) -> bool {
    let sessions = worker.sessions.borrow();
    let end = places.end;
    for session in places.filter_map(|place| sessions.get(place)) {
        if selection.has(&session.listener.id, Some(session.id)) {
            live.count(selection, &session.listener.id.origin);
            if live.sessions.len() < selection.limit {
                live.sessions.push(session.view(now));
            }
        }
    }
    end < sessions.capacity()
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, pin::pin};

    use proxy_api::SessionId;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        core::{changes::diff::Which, workers::rounds::ROUND_MILLIS},
        fixtures::{process, template_with_id},
        settings::Settings,
    };

    fn listener() -> Arc<Shared> {
        let (id, spec) = template_with_id();
        Shared::new(id, Arc::new(spec), Arc::default(), Arc::default())
    }

    /// A worker without sessions.
    fn thread() -> Rc<Thread> {
        let process = process(&Settings::default(), None);
        Thread::new(0, Worker::new(0, process, &Settings::default()), Arc::default(), Vec::new())
    }

    #[test]
    fn a_worker_without_sessions_takes_few_turns_a_round() {
        let thread = thread();
        let life = thread.worker.process.lives.begin("a worker");
        let turns = Cell::new(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut sweep = pin!(run(thread, life));
            let counted = poll_fn(|cx| {
                turns.set(turns.get() + 1);
                sweep.as_mut().poll(cx)
            });
            timeout(Duration::from_millis(ROUND_MILLIS * 5 / 4), counted).await.expect_err("the sweep continues");
        });
        assert!((2..=8).contains(&turns.get()), "{} turns for 64 slices", turns.get());
    }

    /// Number of sessions of a worker, more than an inquiry visits in three turns.
    const NUMBER: usize = 3 * LISTED_AT_ONCE + 1;

    /// The answer of a worker with that many sessions of one listener, the turns that it takes, and the listener.
    fn answered(selection: &Selection) -> (LiveSessions, u32, Arc<Shared>) {
        let thread = thread();
        let listener = listener();
        for _ in 0..NUMBER {
            let session = Session::new(SessionId(7), listener.clone(), ([192, 0, 2, 1], 1).into(), None, 0);
            thread.worker.sessions.borrow_mut().insert(Rc::new(session));
        }
        let turns = Cell::new(0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let live = runtime.block_on(async {
            let mut selected = pin!(selected(&thread, selection));
            poll_fn(|cx| {
                turns.set(turns.get() + 1);
                selected.as_mut().poll(cx)
            })
            .await
        });
        (live, turns.get(), listener)
    }

    #[test]
    fn an_inquiry_yields_between_sessions_and_lists_each_once() {
        let selection = Selection { limit: 5, by_origin: true, ..Selection::default() };
        let (live, turns, listener) = answered(&selection);
        assert_eq!((usize::try_from(live.total), live.sessions.len()), (Ok(NUMBER), 5));
        assert_eq!((live.origins.len(), live.origins.get(&listener.id.origin)), (1, Some(&live.total)));
        assert!(turns >= 4, "{turns} turns");
    }

    #[test]
    fn an_inquiry_about_all_looks_at_no_session_beyond_those_that_it_lists() {
        let (live, turns, listener) = answered(&Selection { limit: 5, ..Selection::default() });
        assert_eq!((usize::try_from(live.total), live.sessions.len()), (Ok(NUMBER), 5));
        assert!(turns <= 2, "{turns} turns");
        assert!(
            live.sessions.iter().all(|session| std::ptr::eq(&raw const *session.listener, &raw const *listener.id)),
            "no copy of the id"
        );
        let (live, _, _) = answered(&Selection { limit: NUMBER + 1, ..Selection::default() });
        assert_eq!((usize::try_from(live.total), live.sessions.len()), (Ok(NUMBER), NUMBER), "of a shorter list too");
    }

    // D9
    #[test]
    fn a_change_of_many_listeners_looks_at_each_session_once() {
        let listeners: Vec<Arc<Shared>> = (0..50).map(|_| listener()).collect();
        let open = |listener: &Arc<Shared>| {
            Rc::new(Session::new(SessionId(7), listener.clone(), ([192, 0, 2, 1], 1).into(), None, 0))
        };
        // Two sessions of each listener.
        let sessions: Vec<Rc<Session>> = listeners.iter().chain(&listeners).map(open).collect();
        let ending = |listener: &Arc<Shared>| Ending {
            listener: listener.clone(),
            which: Which::All,
            reason: EndReason::Drained,
            over_millis: 1000,
        };
        let endings: Vec<Ending> = listeners[1..].iter().map(ending).collect();
        let looks = Cell::new(0);
        end_sessions(&endings, sessions.iter().inspect(|_| looks.set(looks.get() + 1)), 5);
        assert_eq!(looks.get(), sessions.len());
        let ended = sessions.iter().filter(|session| session.scheduled_end().is_some()).count();
        assert_eq!(ended, sessions.len() - 2, "those of the first listener stay");
    }
}
