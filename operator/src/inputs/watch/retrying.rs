//! Delays the retries of a watch that failed.

use std::{future::pending, time::Duration};

use futures_util::{Stream, StreamExt};
use operator_core::schedule::retries::{Retries, shortened};
use tokio::time::{Instant, sleep, timeout};

use crate::platform::lease::Returns;

/// The retries of one watch.
pub(super) struct Retrying {
    retries: Retries,
    /// The pause before the next try; absent unless the last one failed.
    pause: Option<Duration>,
    returns: Returns,
    started: Instant,
}

impl Retrying {
    /// The state before any failure. `returns` ends pauses.
    pub(super) fn new(mut returns: Returns) -> Self {
        returns.mark_unchanged();
        Self { retries: Retries::default(), pause: None, returns, started: Instant::now() }
    }

    /// Returns the next event. After a failure, a pause comes first.
    pub(super) async fn next<T, E, S>(&mut self, events: &mut S) -> Option<Result<T, E>>
    where
        S: Stream<Item = Result<T, E>> + Unpin,
    {
        if let Some(pause) = self.pause.take() {
            self.rest(pause).await;
        }
        let event = events.next().await;
        if let Some(Err(_)) = &event {
            self.pause = Some(self.retries.failed(chance(), self.started.elapsed()));
        }
        event
    }

    /// Records that the API server has answered. The start of a list is not an answer: the watcher emits it before its
    /// request.
    pub(super) fn succeeded(&mut self) {
        self.retries.succeeded();
    }

    /// Waits for the end of a pause, or until the API server answers again.
    pub(super) async fn rest(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        if timeout(pause, returned(&mut self.returns)).await.is_ok() {
            let left = until.saturating_duration_since(Instant::now());
            sleep(shortened(left, chance())).await;
        }
        // A try may hang on a connection from before the return and fail after it. The pause after that try is short,
        // too.
        self.returns.mark_unchanged();
    }
}

async fn returned(returns: &mut Returns) {
    if returns.changed().await.is_err() {
        // The election has ended, and this replica is about to end.
        pending::<()>().await;
    }
}

/// Returns a random number. If none is available, all watches use the middle of the range.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::iter;

    use futures_util::stream;
    use operator_core::schedule::retries::{MOST, SPREAD};
    use tokio::sync::watch;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// The clock of tokio counts milliseconds.
    const TICK: Duration = Duration::from_millis(5);

    fn failures() -> impl Stream<Item = Result<(), ()>> + Unpin {
        stream::iter(iter::repeat(Err(())))
    }

    /// A watch that has failed for minutes, and what ends its pauses.
    async fn after_an_outage() -> (Retrying, watch::Sender<u64>) {
        let (returned, returns) = watch::channel(0);
        let (mut retrying, mut events) = (Retrying::new(returns), failures());
        for _ in 0..12 {
            retrying.next(&mut events).await;
        }
        (retrying, returned)
    }

    async fn time_of_a_try(retrying: &mut Retrying) -> Duration {
        let began = Instant::now();
        retrying.next(&mut failures()).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_tried_soon_after_the_return_however_long_it_has_failed() {
        let (mut retrying, returned) = after_an_outage().await;
        let back = async {
            sleep(SECOND).await;
            returned.send_modify(|returns| *returns += 1);
        };
        let (tried, ()) = tokio::join!(time_of_a_try(&mut retrying), back);
        assert!(tried >= SECOND && tried <= SECOND + SPREAD + TICK, "{tried:?}");
        let tried = time_of_a_try(&mut retrying).await;
        assert!(tried >= MOST / 2, "one return ends one pause: {tried:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_fails_after_the_return_is_repeated_soon() {
        let (mut retrying, returned) = after_an_outage().await;
        returned.send_modify(|returns| *returns += 1);
        let tried = time_of_a_try(&mut retrying).await;
        assert!(tried <= SPREAD + TICK, "{tried:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_election_a_pause_has_its_length() {
        let (mut retrying, returned) = after_an_outage().await;
        drop(returned);
        let tried = time_of_a_try(&mut retrying).await;
        assert!(tried >= MOST / 2 && tried <= MOST + TICK, "{tried:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_works_begins_with_a_short_pause() {
        let (mut retrying, _returned) = after_an_outage().await;
        let mut events = stream::iter([Ok::<(), ()>(()), Err(())]);
        retrying.next(&mut events).await;
        retrying.succeeded();
        retrying.next(&mut events).await;
        let tried = time_of_a_try(&mut retrying).await;
        assert!(tried > Duration::ZERO && tried <= 2 * SECOND, "{tried:?}");
    }
}
