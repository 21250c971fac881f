//! The sweep: checks deadlines, logs and counters once a second, so that sessions need no timers of their own.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use proxy_api::{AccessLogMode, OnUnhealthy};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Thread;
use crate::{
    core::{
        diff::Facts,
        end::{self, EndReason},
    },
    lives::Life,
    log::Event,
    worker::{
        Ending, Worker,
        session::{Session, SessionView},
    },
};

const TICK: Duration = Duration::from_secs(1);

/// Sweeps while there are sessions. Without sessions, the only work is a sign of life once a second: one wake of the
/// thread.
pub(super) async fn run(thread: Rc<Thread>, life: Life) {
    let worker = &thread.worker;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        life.beat();
        if worker.sessions.borrow().is_empty() && thread.udp.is_empty() {
            tokio::select! {
                biased;
                // The first session starts a second of its own, because its timers must not end early.
                () = worker.sweep.notified() => ticks.reset(),
                _ = ticks.tick() => {}
            }
            continue;
        }
        ticks.tick().await;
        let now = worker.process.clock.millis();
        worker.now.set(now / 1000);
        let sessions: Vec<Rc<Session>> = worker.sessions.borrow().iter().map(|(_, session)| session.clone()).collect();
        for session in sessions {
            check(worker, &session, now);
        }
        thread.udp.sweep(worker, now);
    }
}

fn check(worker: &Worker, session: &Session, now_millis: u64) {
    let now = now_millis / 1000;
    let spec = session.listener.spec.load();
    session.count_bytes();
    if let Some((_, reason)) = session.end_at.get().filter(|(at, _)| *at <= now_millis) {
        return session.end(reason);
    }
    if let Some(most) = spec.timeouts.max_session_seconds
        && now_millis.saturating_sub(session.started) >= u64::from(most) * 1000
    {
        return session.end(EndReason::MaxSession);
    }
    let endpoint = session.to.borrow().as_ref().map(|(_, endpoint)| endpoint.clone());
    let Some(endpoint) = endpoint.filter(|_| session.connected.get()) else { return };
    if spec.sessions.on_unhealthy == OnUnhealthy::Close && !endpoint.is_healthy(now) {
        return session.end(EndReason::BackendUnhealthy);
    }
    let quiet = now.saturating_sub(session.active_at.get());
    let times = spec.timeouts;
    let limit = if session.half_closed.get() { times.half_close_seconds } else { times.idle_seconds };
    if quiet >= u64::from(limit) {
        return session.end(EndReason::Idle);
    }
    if quiet <= 1 {
        // Urgent data ends a read early although the socket has more; one extra poll per burst finds the rest.
        session.recheck.set(true);
        session.wake();
    }
    let every = u64::from(spec.access_log.interval_seconds);
    let due = every > 0 && now.saturating_sub(session.logged_at.get()) >= every;
    if due && spec.access_log.mode != AccessLogMode::Disabled {
        session.logged_at.set(now);
        worker.process.log.emit(Event::Session(Box::new(session.record("open", now_millis, None))));
    }
}

/// Ends the sessions that a change concerns, at once or spread over time.
pub(super) fn end(thread: &Rc<Thread>, ending: &Ending) {
    let worker = &thread.worker;
    let concerned: Vec<Rc<Session>> = {
        let sessions = worker.sessions.borrow();
        sessions.iter().map(|(_, session)| session).filter(|session| concerns(ending, session)).cloned().collect()
    };
    let now = worker.process.clock.millis();
    for (at, session) in concerned.iter().enumerate() {
        if ending.over_millis == 0 {
            session.end(ending.reason);
        } else {
            let at = now + end::spread(at, concerned.len(), ending.over_millis);
            // A later change never extends a session.
            let sooner = session.end_at.get().filter(|(before, _)| *before <= at);
            session.end_at.set(sooner.or(Some((at, ending.reason))));
        }
    }
    thread.udp.end(worker, ending, now);
}

fn concerns(ending: &Ending, session: &Session) -> bool {
    Arc::ptr_eq(&ending.listener, &session.listener)
        && ending.which.has(Facts {
            client: session.client.get().ip(),
            backend: session.to.borrow().as_ref().map(|(backend, _)| &**backend),
            offset: session.offset.get(),
            name: session.name.as_deref(),
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

/// Waits until no session is live but quiet UDP flows, no longer than `millis`, then ends the rest.
pub(super) async fn drain(thread: &Rc<Thread>, millis: u64) {
    let worker = &thread.worker;
    let deadline = worker.process.clock.millis().saturating_add(millis);
    let may_wait = || worker.process.clock.millis() < deadline && !worker.process.stop.load(Relaxed);
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

/// The live sessions, at most `limit`.
pub(super) fn inspect(thread: &Thread, limit: usize) -> Vec<SessionView> {
    let worker = &thread.worker;
    let now = worker.process.clock.millis();
    let mut views: Vec<SessionView> =
        worker.sessions.borrow().iter().take(limit).map(|(_, session)| session.view(now)).collect();
    views.extend(thread.udp.views(now, limit.saturating_sub(views.len())));
    views
}
