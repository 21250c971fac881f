//! One step of the connect phase: attempts at endpoints of one entry, of both address families. The first connection
//! wins and the others are closed.

use std::{
    future::{Future, pending, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use proxy_api::Listener;
use tokio::time::{Instant, sleep_until};

use super::{dial::dial, direction::End, few::Few};
use crate::{
    core::backends::{
        address::Address,
        balance::{Draw, Entry, Targets},
        endpoint::{Counted, Endpoint},
        race::{Race, is_beaten, is_charged},
    },
    deadline::by_now,
    files::Permit,
    log::Level,
    net,
    worker::{Worker, session::Session},
};

/// An established upstream connection.
pub struct Connected {
    /// The upstream connection.
    pub server: End,
    /// Counts the session at its endpoint until dropped.
    pub counted: Counted,
}

/// The attempts that a session has made so far.
#[derive(Debug, Default)]
pub struct AttemptLog {
    /// Number of attempts.
    pub count: u32,
    /// Whether the extra attempt in parallel was made, which does not count towards `retry.attempts`.
    pub had_extra: bool,
    /// The addresses that were tried.
    pub tried: Few<Address>,
}

impl AttemptLog {
    /// Counts an attempt; every attempt after the first is a retry.
    pub fn begin(&mut self, session: &Session) {
        if self.count > 0 {
            session.listener.counters.retries.fetch_add(1, Relaxed);
        }
        self.count += 1;
    }

    /// Counts an attempt in parallel, which is a retry. The extra one does not count towards `retry.attempts`.
    pub fn begin_in_parallel(&mut self, session: &Session, is_extra: bool) {
        session.listener.counters.retries.fetch_add(1, Relaxed);
        self.count += u32::from(!is_extra);
        self.had_extra |= is_extra;
    }
}

/// The entry at which the attempts of a step are made, and the circumstances.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Worker of the session.
    pub worker: &'a Worker,
    /// The session.
    pub session: &'a Session,
    /// Spec of the listener.
    pub spec: &'a Listener,
    /// Bytes to send before those of the client.
    pub header: &'a [u8],
    /// Targets of the listener.
    pub targets: &'a Targets,
    /// Entry of the endpoints.
    pub entry: &'a Entry,
    /// Draw by which endpoints are picked.
    pub draw: Draw,
}

/// An attempt without an answer.
struct Attempt<'a> {
    /// Borrowed, because all workers share its reference count.
    endpoint: &'a Arc<Endpoint>,
    counted: Counted,
    began: Instant,
    dial: Pin<Box<dyn Future<Output = io::Result<End>> + 'a>>,
    /// The file descriptor, unless it is the one of the session.
    _file: Option<Permit>,
}

impl<'a> Step<'a> {
    /// Connects to `first`, whose attempt is already counted, or to an endpoint in parallel; `None` if all attempts
    /// failed or nothing answered within `connectSeconds`.
    pub async fn run(self, first: &'a Arc<Endpoint>, log: &mut AttemptLog) -> Option<Connected> {
        let began = Instant::now();
        let time = Duration::from_secs(self.spec.timeouts.connect_seconds.into());
        let deadline = began + time;
        let is_dual = self.entry.is_dual();
        // The attempt at the first endpoint is made, however few are left.
        let left = self.spec.retry.attempts.saturating_sub(log.count).saturating_add(1);
        let mut race = Race::new(left, !log.had_extra);
        let mut last = first;
        let mut attempts = Few::default();
        attempts.push(self.begin(last, log, None));
        race.began(Duration::ZERO);
        loop {
            let next = race.next_at().filter(|_| is_dual);
            if race.is_lost() && next.is_none() {
                return None;
            }
            tokio::select! {
                biased;
                (attempt, result) = answered(&mut attempts) => match result {
                    Ok(server) => return Some(self.won(attempt, server, attempts).await),
                    Err(error) => {
                        self.failed(attempt.endpoint, &error);
                        race.failed(began.elapsed());
                    }
                },
                () = sleep_until(deadline) => {
                    return self.at_deadline(attempts, time).await;
                }
                () = due(began, next) => {
                    let Some(endpoint) = self.other_family(last, &log.tried) else {
                        race.exhausted();
                        continue;
                    };
                    // The session has the file of one attempt.
                    let file = if race.is_lost() { None } else { self.worker.process.files.take(1) };
                    if race.is_lost() || file.is_some() {
                        last = endpoint;
                        let is_counted = race.began(began.elapsed());
                        log.begin_in_parallel(self.session, !is_counted);
                        attempts.push(self.begin(last, log, file));
                    } else {
                        race.postponed(began.elapsed());
                    }
                }
            }
        }
    }

    /// The end of the time for the step. An attempt that was answered during a freeze wins nevertheless.
    async fn at_deadline(self, mut attempts: Few<Attempt<'a>>, time: Duration) -> Option<Connected> {
        while let Some((attempt, result)) = answered_by_now(&mut attempts).await {
            match result {
                Ok(server) => return Some(self.won(attempt, server, attempts).await),
                Err(error) => self.failed(attempt.endpoint, &error),
            }
        }
        self.timed_out(&attempts, time);
        None
    }

    fn begin(self, endpoint: &'a Arc<Endpoint>, log: &mut AttemptLog, file: Option<Permit>) -> Attempt<'a> {
        self.show(endpoint);
        log.tried.push(endpoint.address.clone());
        let (agents, client, header) = (&self.worker.process.agents, self.session.client(), self.header);
        let to = self.session.address_of(endpoint);
        Attempt {
            endpoint,
            // Counted from now on, so that concurrent connects spread over endpoints.
            counted: Counted::new(endpoint.clone()),
            began: Instant::now(),
            dial: Box::pin(async move { dial(agents, &to, client, header).await }),
            _file: file,
        }
    }

    /// The endpoint to try in parallel with `last`.
    fn other_family(self, last: &Endpoint, tried: &[Address]) -> Option<&'a Arc<Endpoint>> {
        self.targets.other_family(self.spec.policy, self.draw, (&self.entry.id, last), tried)
    }

    /// Shows an endpoint as that of the session.
    fn show(self, endpoint: &Arc<Endpoint>) {
        let mut to = self.session.to.borrow_mut();
        // The winner is already shown, unless others were tried beside it.
        let is_shown = |(entry, shown): &(Arc<str>, Arc<Endpoint>)| {
            Arc::ptr_eq(entry, &self.entry.id) && Arc::ptr_eq(shown, endpoint)
        };
        if !to.as_ref().is_some_and(is_shown) {
            *to = Some((self.entry.id.clone(), endpoint.clone()));
        }
    }

    /// Takes the connection of `attempt`. The other attempts are given up.
    async fn won(self, attempt: Attempt<'a>, server: End, mut others: Few<Attempt<'a>>) -> Connected {
        // An endpoint that answered at the same moment was not silent.
        while !others.is_empty()
            && let Some((loser, result)) = answered_by_now(&mut others).await
        {
            if let Err(error) = result {
                self.failed(loser.endpoint, &error);
            }
        }
        let silent = io::Error::new(io::ErrorKind::TimedOut, "no answer, but the other address family answered");
        let winner = &attempt.endpoint.address;
        for loser in others.iter().filter(|it| is_beaten(&it.endpoint.address, winner, it.began.elapsed())) {
            self.failed(loser.endpoint, &silent);
        }
        self.show(attempt.endpoint);
        attempt.endpoint.succeeded();
        self.entry.stats.sessions.fetch_add(1, Relaxed);
        self.worker.timings.connected(attempt.began.elapsed());
        Connected { server, counted: attempt.counted }
    }

    /// Ends attempts that got no answer within the time for the step.
    fn timed_out(self, attempts: &[Attempt<'_>], time: Duration) {
        let error = io::Error::from(io::ErrorKind::TimedOut);
        self.session.cause.set(Some(error.kind()));
        for attempt in attempts.iter().filter(|attempt| is_charged(attempt.began.elapsed(), time)) {
            self.failed(attempt.endpoint, &error);
        }
    }

    fn failed(self, endpoint: &Endpoint, error: &io::Error) {
        self.entry.stats.failures.fetch_add(1, Relaxed);
        self.session.cause.set(Some(error.kind()));
        let outlier = self.spec.outlier;
        let process = &self.worker.process;
        if net::is_of_the_endpoint(error) && endpoint.failed(outlier, process.clock.seconds()) {
            self.session.listener.counters.ejected.fetch_add(1, Relaxed);
            let message = format!(
                "endpoint {} of {} is ejected for {} s after {} failed connects (it is still tried while no other is healthy); last error: {error}",
                endpoint.address, self.entry.id, outlier.eject_seconds, outlier.consecutive_failures
            );
            process.log.notice(Level::Warn, "ejected", &self.session.listener.id, message);
        }
    }
}

/// Waits for the first answer, and removes its attempt.
async fn answered<'a>(attempts: &mut Few<Attempt<'a>>) -> (Attempt<'a>, io::Result<End>) {
    poll_fn(|cx| {
        let ended = attempts.iter_mut().enumerate().find_map(|(at, attempt)| match attempt.dial.as_mut().poll(cx) {
            Poll::Ready(result) => Some((at, result)),
            Poll::Pending => None,
        });
        match ended.and_then(|(at, result)| Some((attempts.swap_remove(at)?, result))) {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        }
    })
    .await
}

/// Returns the first answer among those that the sockets hold.
async fn answered_by_now<'a>(attempts: &mut Few<Attempt<'a>>) -> Option<(Attempt<'a>, io::Result<End>)> {
    by_now(pin!(answered(attempts))).await
}

/// Waits until the next attempt may begin; forever if there is none.
async fn due(began: Instant, next: Option<Duration>) {
    match next {
        Some(after) => sleep_until(began + after).await,
        None => pending().await,
    }
}
