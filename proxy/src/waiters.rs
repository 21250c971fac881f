//! Sessions that arrive while no instance of an agent is connected.
//!
//! An agent that has lost its connection, or restarts, is back soon. A session without another endpoint waits for it
//! within its connect phase, instead of being reset.

use std::{
    pin::pin,
    sync::atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
};

use arc_swap::ArcSwap;
use proxy_api::Listener;
use tokio::{sync::Notify, time::Instant};

use crate::{
    agents::QUESTIONS,
    core::{
        backends::{
            absence::{Step, step},
            balance::Targets,
        },
        sessions::end::EndReason,
    },
    deadline::within,
};

/// Sessions of one listener that wait for an instance. One more is refused. All of them may ask for a connection at the
/// moment when an instance connects.
pub const WAITERS: usize = QUESTIONS;

/// The sessions of a listener that wait for an instance.
#[derive(Debug, Default)]
pub struct Waiters {
    count: AtomicUsize,
    changed: Notify,
}

impl Waiters {
    /// Wakes the waiting sessions, because the targets have changed.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until a session that began to connect at this time has an endpoint, if it should.
    ///
    /// # Errors
    /// The reason to end the session.
    pub async fn wait(
        &self,
        targets: &ArcSwap<Targets>,
        spec: &ArcSwap<Listener>,
        began: Instant,
    ) -> Result<(), EndReason> {
        let mut place = None;
        loop {
            // Registered at its creation, so that a change between the check and the wait is not missed.
            let changed = self.changed.notified();
            let next = step(&spec.load(), &targets.load(), began.elapsed());
            let left = match next {
                Step::Pick => return Ok(()),
                Step::End => return Err(EndReason::NoInstance),
                Step::Wait(left) => left,
            };
            if place.is_none() {
                place = Some(self.enter().ok_or(EndReason::QueueFull)?);
            }
            let _ = within(left, pin!(changed)).await;
        }
    }

    fn enter(&self) -> Option<Place<'_>> {
        let fits = |count: usize| (count < WAITERS).then_some(count + 1);
        self.count.fetch_update(AcqRel, Acquire, fits).ok().map(|_| Place(self))
    }
}

/// The place of a waiting session, free again on drop.
struct Place<'a>(&'a Waiters);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::Arc,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use proxy_api::{Backend, Retry, Target, Timeouts};

    use super::*;
    use crate::{
        core::backends::{balance::Entry, endpoint::Endpoint},
        fixtures::template_with_id,
        shared::Shared,
    };

    /// A listener that leads through an agent, and makes two attempts of 60 s.
    fn shared() -> Arc<Shared> {
        let (id, template) = template_with_id();
        let target = Target::Tunnel { agent: "u".to_owned(), host: "db.lan".to_owned(), port: 5432 };
        let backends = vec![Backend { target, weight: 1, ..template.backends[0].clone() }];
        let timeouts = Timeouts { connect_seconds: 60, ..template.timeouts };
        let retry = Retry { attempts: 2, ..template.retry };
        let spec = Arc::new(Listener { backends, timeouts, retry, ..template });
        Shared::new(id, spec, Arc::default(), Arc::default())
    }

    fn targets() -> Arc<Targets> {
        let endpoints = vec![Arc::new(Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 1))))];
        Arc::new(Targets::new(vec![Entry { id: "e".into(), weight: 1, priority: 0, endpoints, stats: Arc::default() }]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_wakes_when_an_instance_comes_and_ends_if_none_does() {
        let shared = shared();
        let wait = || shared.waiters.wait(&shared.targets, &shared.spec, Instant::now());
        let began = Instant::now();
        assert_eq!(wait().await, Err(EndReason::NoInstance));
        assert!(began.elapsed() >= Duration::from_secs(120), "{:?}", began.elapsed());
        let mut waits = pin!(wait());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        shared.waiters.wake();
        assert!(waits.as_mut().poll(&mut cx).is_pending(), "another change");
        shared.targets.store(targets());
        shared.waiters.wake();
        assert_eq!(waits.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    }

    #[tokio::test]
    async fn a_session_too_many_is_refused_at_once_until_another_one_has_left() {
        let shared = shared();
        let wait = || Box::pin(shared.waiters.wait(&shared.targets, &shared.spec, Instant::now()));
        let mut cx = Context::from_waker(Waker::noop());
        let mut all: Vec<_> = (0..WAITERS).map(|_| wait()).collect();
        assert!(all.iter_mut().all(|waits| waits.as_mut().poll(&mut cx).is_pending()));
        assert_eq!(wait().await, Err(EndReason::QueueFull));
        all.pop();
        assert!(wait().as_mut().poll(&mut cx).is_pending());
    }
}
