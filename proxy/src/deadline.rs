//! Time limits that process earlier input first. After a freeze of the process or the machine the time may be up
//! although the peer has answered, so bytes in the sockets count first.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};

/// Longest extension of a limit that passes late.
const MOST_EXTENSION: Duration = Duration::from_millis(100);

/// Waits for a step, for at most `limit`; `None` if it has not ended even when the sockets were polled once more.
pub async fn within<F: Future>(limit: Duration, mut step: Pin<&mut F>) -> Option<F::Output> {
    if let Ok(done) = timeout(limit, step.as_mut()).await {
        return Some(done);
    }
    by_now(step).await
}

/// Like [`within`], for a step that others must end: a limit that expires late is extended by its delay, up to
/// `MOST_EXTENSION`. After a freeze, the end of another session takes some turns between client and backend.
pub async fn within_or_soon_after_freeze<F: Future>(limit: Duration, mut step: Pin<&mut F>) -> Option<F::Output> {
    let began = Instant::now();
    if let Some(done) = within(limit, step.as_mut()).await {
        return Some(done);
    }
    let delay = began.elapsed().saturating_sub(limit);
    within(delay.min(MOST_EXTENSION), step).await
}

/// Polls the sockets once more, and returns the result of a step whose time is up, if it has ended meanwhile.
pub async fn by_now<F: Future>(mut step: Pin<&mut F>) -> Option<F::Output> {
    // The runtime polls the sockets before it continues here.
    yield_now().await;
    poll_fn(|cx| match step.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin};

    use tokio::{
        sync::oneshot,
        time::{advance, sleep},
    };

    use super::*;

    #[tokio::test]
    async fn what_comes_by_the_end_of_the_time_counts_and_nothing_else() {
        let (answer, step) = oneshot::channel();
        // Runs when the runtime polls it, as the sockets are.
        tokio::spawn(async move { answer.send(7) });
        assert_eq!(by_now(pin!(step)).await, Some(Ok(7)));
        assert_eq!(within(Duration::ZERO, pin!(pending::<()>())).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_passes_late_is_extended_by_no_more_than_the_bound() {
        let limit = Duration::from_secs(2);
        for (pause, counts) in [(MOST_EXTENSION / 2, true), (MOST_EXTENSION * 2, false)] {
            let (answer, step) = oneshot::channel();
            let waits = tokio::spawn(async move { within_or_soon_after_freeze(limit, pin!(step)).await });
            // The wait begins before the clock jumps, as in a freeze.
            yield_now().await;
            advance(limit * 2).await;
            sleep(pause).await;
            let _ = answer.send(7);
            assert_eq!(waits.await.expect("no panic"), counts.then_some(Ok(7)), "{pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_passes_in_time_is_not_extended() {
        let began = Instant::now();
        let limit = Duration::from_secs(2);
        assert_eq!(within_or_soon_after_freeze(limit, pin!(pending::<()>())).await, None);
        assert!(began.elapsed() < limit + MOST_EXTENSION / 2, "{:?}", began.elapsed());
    }
}
