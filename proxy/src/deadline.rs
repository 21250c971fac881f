//! Waits that end in time, and that a freeze of the process does not end early.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use tokio::{task::yield_now, time::timeout};

/// Waits for `step` for at most `limit`. After a freeze the time may be up although the answer has arrived meanwhile, so
/// that what the sockets hold counts first.
pub(crate) async fn within<F: Future>(limit: Duration, mut step: Pin<&mut F>) -> Option<F::Output> {
    if let Ok(done) = timeout(limit, step.as_mut()).await {
        return Some(done);
    }
    // The runtime polls the sockets before it goes on here.
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

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_without_an_end_is_given_up() {
        assert_eq!(within(Duration::from_secs(1), pin!(pending::<()>())).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_shows_after_the_time_is_up_counts_once_the_runtime_has_looked_for_it() {
        let mut polls = 0;
        // The first poll is at the start, the second at the end of the time.
        let step = poll_fn(|_| {
            polls += 1;
            if polls > 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert_eq!(within(Duration::from_secs(1), pin!(step)).await, Some(()));
    }
}
