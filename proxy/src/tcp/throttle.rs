//! The bandwidth limit: a direction checks it before it reads.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::{
    clock::Clock,
    core::limits::limiter::{Allowance, Bucket},
};

/// Longest sleep in milliseconds before checking whether the limit has changed.
const LOOK: u64 = 1000;

/// One direction's share of its forward's bandwidth. Boxed, because most sessions never wait.
#[derive(Debug, Default)]
pub struct Throttle(Option<Box<Promise>>);

/// Bytes reserved for this direction, usable when due.
#[derive(Debug)]
struct Promise {
    bytes: usize,
    /// When the bytes may be read, in milliseconds of the process clock.
    due: u64,
    /// Generation of the limit; the promise is void in another generation.
    term: u64,
    timer: Pin<Box<Sleep>>,
}

impl Throttle {
    /// The number of bytes that may be read now, from one to `most`; pending until there are some.
    pub fn poll(&mut self, cx: &mut Context<'_>, bucket: &Bucket, clock: &Clock, most: usize) -> Poll<usize> {
        loop {
            if let Some(promise) = &mut self.0 {
                if promise.term != bucket.term() {
                    self.0 = None;
                    continue;
                }
                if clock.millis() < promise.due {
                    ready!(promise.timer.as_mut().poll(cx));
                    promise.timer = timer(promise.due.saturating_sub(clock.millis()));
                    continue;
                }
                let bytes = promise.bytes;
                self.0 = None;
                bucket.give(bytes.saturating_sub(most));
                return Poll::Ready(bytes.min(most));
            }
            // Most forwards have no limit; their reads do not read the clock.
            if !bucket.is_limited() {
                return Poll::Ready(most);
            }
            let now = clock.millis();
            match bucket.allow(most, now) {
                Allowance::Bytes(bytes) => return Poll::Ready(bytes),
                Allowance::Later { bytes, millis, term } => {
                    let due = now.saturating_add(millis);
                    self.0 = Some(Box::new(Promise { bytes, due, term, timer: timer(millis) }));
                }
            }
        }
    }

    /// Whether the direction waits until its bytes are due.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|promise| promise.due > 0)
    }

    /// Makes promised bytes usable now; returns whether the direction waited for them. They stay taken from the limit.
    pub fn hurry(&mut self) -> bool {
        let waiting = self.0.as_mut().filter(|promise| promise.due > 0);
        waiting.is_some_and(|promise| {
            promise.due = 0;
            true
        })
    }

    /// Returns promised bytes when the direction ends.
    pub fn end(&mut self, bucket: &Bucket) {
        if let Some(promise) = self.0.take().filter(|promise| promise.term == bucket.term()) {
            bucket.give(promise.bytes);
        }
    }
}

fn timer(millis: u64) -> Pin<Box<Sleep>> {
    Box::pin(sleep(Duration::from_millis(millis.clamp(1, LOOK))))
}
