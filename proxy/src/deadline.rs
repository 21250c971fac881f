//! Limits of time that what came meanwhile precedes. After a freeze of the process or the machine the time may be up
//! although the peer has answered, so that what the sockets hold counts first.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use tokio::{task::yield_now, time::timeout};

/// Waits for a step, for at most `limit`; `None` if it has not ended even when the sockets were polled once more.
pub async fn within<F: Future>(limit: Duration, mut step: Pin<&mut F>) -> Option<F::Output> {
    if let Ok(done) = timeout(limit, step.as_mut()).await {
        return Some(done);
    }
    by_now(step).await
}

/// The result of a step whose time is up, if it has ended meanwhile.
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

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_comes_by_the_end_of_the_time_counts_and_nothing_else() {
        let (answer, step) = oneshot::channel();
        // Runs when the runtime gets a turn, as the sockets do.
        tokio::spawn(async move { answer.send(7) });
        assert_eq!(by_now(pin!(step)).await, Some(Ok(7)));
        assert_eq!(within(Duration::ZERO, pin!(pending::<()>())).await, None);
    }
}
