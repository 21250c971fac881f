//! Bytes a second: a direction asks here before it reads.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::{
    clock::Clock,
    core::limiter::{Allowance, Bucket},
};

/// One direction's turn at the bytes of its forward.
#[derive(Debug, Default)]
pub struct Throttle(Option<Pin<Box<Sleep>>>);

impl Throttle {
    /// So many bytes may be read now, at least one and at most `most`; pending until there are some.
    pub fn poll(&mut self, cx: &mut Context<'_>, bucket: &Bucket, clock: &Clock, most: usize) -> Poll<usize> {
        loop {
            if let Some(timer) = &mut self.0 {
                ready!(timer.as_mut().poll(cx));
                self.0 = None;
            }
            match bucket.allow(most, clock.millis()) {
                Allowance::Bytes(bytes) => return Poll::Ready(bytes),
                Allowance::Wait(millis) => self.0 = Some(Box::pin(sleep(Duration::from_millis(millis)))),
            }
        }
    }
}
