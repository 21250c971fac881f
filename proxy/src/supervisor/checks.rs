//! Active checks: one task for each endpoint of each listener with a health check.

mod turns;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use proxy_api::{HealthCheck, ListenerId, SendHeader};
use tokio::{task::JoinHandle, time::sleep};

use self::turns::{OfForward, Turns};
use crate::{
    core::backends::{
        address::Address,
        endpoint::{Checked, Endpoint, Streak},
    },
    log::Level,
    probe,
    process::Process,
    shared::{Counters, Shared},
};

/// The checks of one listener, by backend entry and endpoint.
type OfOne = BTreeMap<(Arc<str>, Address), Running>;

/// The checks of the process.
#[derive(Debug, Default)]
pub(super) struct Checks {
    turns: Turns,
    running: BTreeMap<ListenerId, OfOne>,
}

/// The subject of a check task; a different subject needs a new task.
#[derive(Clone, Debug)]
struct Subject {
    check: HealthCheck,
    send: SendHeader,
    endpoint: Arc<Endpoint>,
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.check == other.check && self.send == other.send && Arc::ptr_eq(&self.endpoint, &other.endpoint)
    }
}

#[derive(Debug)]
struct Running {
    subject: Subject,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checks {
    /// Stops the checks of a listener that is gone; `live` are the listeners that serve.
    pub(super) fn forget(&mut self, gone: &ListenerId, live: &BTreeMap<ListenerId, Arc<Shared>>) {
        self.running.remove(gone);
        let next = live.range(ListenerId::new(gone.origin.clone(), "")..).next();
        if next.is_none_or(|(id, _)| id.origin != gone.origin) {
            self.turns.forget(&gone.origin);
        }
    }

    /// Runs the checks of these listeners, whose targets may have changed, and leaves all others as they are.
    pub(super) fn refresh(&mut self, process: &Process, listeners: &BTreeMap<ListenerId, Arc<Shared>>) {
        for (id, shared) in listeners {
            let before = self.running.remove(id).unwrap_or_default();
            let now = self.of_one(process, id, shared, before);
            if !now.is_empty() {
                self.running.insert(id.clone(), now);
            }
        }
    }

    /// The checks of one listener; those of `before` that it still needs continue.
    fn of_one(&mut self, process: &Process, id: &ListenerId, shared: &Arc<Shared>, mut before: OfOne) -> OfOne {
        let spec = shared.spec.load();
        let check = spec.health_check.as_deref();
        let send = spec.proxy_protocol.as_ref().map_or(SendHeader::Disabled, |protocol| protocol.send);
        let targets = shared.targets.load();
        let endpoints = targets.entries.iter().flat_map(|entry| entry.endpoints.iter().map(move |it| (entry, it)));
        let mut now = OfOne::new();
        for (entry, endpoint) in endpoints {
            let Some(check) = check else {
                endpoint.set_checked(Checked::Not);
                continue;
            };
            let key = (entry.id.clone(), endpoint.address.clone());
            let backend = spec.backends.iter().find(|backend| *backend.id == *entry.id);
            let port = backend.map_or(check.port, |backend| spec.checked_port(backend));
            let subject = Subject { check: HealthCheck { port, ..check.clone() }, send, endpoint: endpoint.clone() };
            let is_running = |running: &Running| running.subject == subject && !running.task.is_finished();
            let known = before.remove(&key).filter(is_running);
            let running = known.unwrap_or_else(|| {
                let of =
                    Of { listener: shared.id.clone(), counters: shared.counters.clone(), backend: entry.id.clone() };
                let task = watch(process.clone(), self.turns.of(&id.origin), of, subject.clone());
                Running { subject, task: tokio::spawn(task) }
            });
            now.insert(key, running);
        }
        now
    }
}

/// The owner of a check task. A listener that moves to another port keeps these objects, and so its running checks; a
/// check with the listener itself would keep it alive.
struct Of {
    listener: ListenerId,
    counters: Arc<Counters>,
    backend: Arc<str>,
}

async fn watch(process: Process, turns: OfForward, of: Of, subject: Subject) {
    let Of { listener, counters, backend } = of;
    let Subject { check, send, endpoint } = subject;
    if endpoint.checked() == Checked::Not {
        endpoint.set_checked(Checked::Unknown);
    }
    // Results of an earlier check do not count: the first result of this one decides.
    let (mut streak, mut now) = (Streak::default(), Checked::Unknown);
    let mut seed = u64::from(endpoint.address.port()) | 1;
    loop {
        let result = {
            let Some(_turn) = turns.take(&counters.checks_waited).await else { return };
            // Last, so that no check that waits for its turn holds a file that a connection could use.
            let _file = process.files.wait(1).await;
            result_of(probe::run(&process.agents, &endpoint.address, &check, send)).await
        };
        let count = if result.is_ok() { &counters.checks_passed } else { &counters.checks_failed };
        count.fetch_add(1, Relaxed);
        now = streak.observe(now, result.is_ok(), &check);
        let before = endpoint.set_checked(now);
        if before != now {
            let (level, event, what) = match &result {
                Err(why) => (Level::Warn, "unhealthy", format!("is unhealthy: {why}")),
                Ok(()) => (Level::Info, "healthy", "is healthy".to_owned()),
            };
            process.log.notice(level, event, &listener, format!("endpoint {} of {backend} {what}", endpoint.address));
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(pause(check.interval_seconds, seed >> 33)).await;
    }
}

/// The result of a check. A check that panics has failed, and the next one takes place: data from a backend must end
/// neither its checks nor the process.
async fn result_of(check: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let mut check = pin!(check);
    let panicked = || Poll::Ready(Err("the check itself has failed: report this as a bug".to_owned()));
    poll_fn(|cx| catch_unwind(AssertUnwindSafe(|| check.as_mut().poll(cx))).unwrap_or_else(|_| panicked())).await
}

/// Longest time by which a check is later than its interval, in milliseconds.
const LATE: u64 = 1000;

/// The pause before the next check: never less than the interval, and up to a tenth more, so that the checks of many
/// endpoints do not stay in step.
fn pause(interval_seconds: u32, random: u64) -> Duration {
    let interval = u64::from(interval_seconds) * 1000;
    let jitter = random % ((interval / 10).min(LATE) + 1);
    Duration::from_millis(interval + jitter)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use proxy_api::Probe;
    use tokio::time::Instant;

    use super::*;
    use crate::agents::Agents;

    #[tokio::test(start_paused = true)]
    async fn a_check_that_is_not_answered_has_failed_once_its_time_is_up() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = Address::Socket(silent.local_addr().expect("an address"));
        let check = HealthCheck {
            probe: Probe::Http { path: "/".to_owned() },
            port: None,
            interval_seconds: 10,
            timeout_seconds: 5,
            unhealthy_threshold: 1,
            healthy_threshold: 1,
        };
        let began = Instant::now();
        let result = result_of(probe::run(&Agents::none(), &address, &check, SendHeader::Disabled)).await;
        assert_eq!((result, began.elapsed().as_secs()), (Err("no answer within 5 s".to_owned()), 5));
    }

    // D12
    #[tokio::test]
    async fn a_check_that_panics_is_one_that_has_failed() {
        let panics = poll_fn(|_| -> Poll<Result<(), String>> { panic!("as the test wants") });
        assert!(result_of(panics).await.is_err_and(|why| why.contains("report this as a bug")));
        assert_eq!(result_of(ready(Ok(()))).await, Ok(()));
    }

    #[test]
    fn a_check_is_never_early_and_at_most_a_tenth_or_a_second_late() {
        for (interval, most) in [(1, 1100), (10, 11_000), (300, 301_000)] {
            let pauses: Vec<Duration> = (0..=2000).map(|random| pause(interval, random)).collect();
            assert_eq!(pauses.iter().min(), Some(&Duration::from_secs(interval.into())));
            assert_eq!(pauses.iter().max(), Some(&Duration::from_millis(most)));
        }
    }
}
