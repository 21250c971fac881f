//! The stream of states that admin pages follow. One snapshot a second serves all followers; without followers, none is
//! taken.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde::Serialize;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::View;
use crate::{core::control::page, lives::Lives, log::Recorded};

/// Pause between two states.
const PERIOD: Duration = Duration::from_secs(1);
/// The pause is at least this many times as long as the preparation of a state: however large a state is, this takes no
/// more than a fifth of the control thread.
const TIMES: u32 = 4;
/// Consecutive states that a follower may miss because it does not read, before its connection is closed.
const MISSED: u32 = 10;
/// States that wait for a follower beside those in the buffers of its connection.
const WAITING: usize = 1;
/// Pause of a browser before it reopens a stream, in milliseconds.
const RETRY: u32 = 1_000;

/// The body of a response: whole, or a stream of events.
#[derive(Debug)]
pub(super) enum Content {
    /// The whole body.
    Whole(Full<Bytes>),
    /// Events, until the sender is dropped.
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Events(events) => events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// The followers.
#[derive(Debug, Default)]
pub(super) struct Feed(Mutex<Followers>);

#[derive(Debug, Default)]
struct Followers {
    all: Vec<Follower>,
    /// Whether the task that reads the states runs.
    is_read: bool,
}

#[derive(Debug)]
struct Follower {
    queue: mpsc::Sender<Bytes>,
    /// Number of the last notice that was sent; `None` before the first.
    notice: Option<u64>,
    missed: u32,
    /// Closes the connection.
    cut: Arc<Notify>,
}

impl Feed {
    /// Adds a follower, whose connection `cut` closes if it does not read. `run` must be spawned if it is returned.
    fn join(&self, cut: Arc<Notify>) -> (Content, bool) {
        let (queue, events) = mpsc::channel(WAITING);
        let mut followers = self.lock();
        followers.all.push(Follower { queue, notice: None, missed: 0, cut });
        let is_read = std::mem::replace(&mut followers.is_read, true);
        (Content::Events(events), !is_read)
    }

    fn lock(&self) -> MutexGuard<'_, Followers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followers {
    /// Forgets followers that have left. Returns false if none remain, in which case no state is read from now on.
    fn are_left(&mut self) -> bool {
        self.all.retain(|follower| !follower.queue.is_closed());
        self.is_read = !self.all.is_empty();
        self.is_read
    }

    /// Whether a follower lacks the notice of this number.
    fn lack(&self, number: u64) -> bool {
        self.all.iter().any(|follower| follower.notice != Some(number))
    }

    /// Sends a state to all followers, and before it the `notices`, up to `number`, to those that lack them. Returns
    /// how many were cut.
    fn send(&mut self, state: &Bytes, notices: &Bytes, number: u64) -> u64 {
        let both = if notices.is_empty() { state.clone() } else { [&notices[..], &state[..]].concat().into() };
        let mut cut = 0;
        self.all.retain_mut(|follower| {
            let lacks = follower.notice != Some(number);
            let event = if lacks { both.clone() } else { state.clone() };
            match follower.queue.try_send(event) {
                Ok(()) => {
                    (follower.notice, follower.missed) = (Some(number), 0);
                    true
                }
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    follower.missed += 1;
                    let is_slow = follower.missed >= MISSED;
                    if is_slow {
                        follower.cut.notify_one();
                        cut += 1;
                    }
                    !is_slow
                }
            }
        });
        cut
    }
}

/// Creates the stream of another follower, whose connection `cut` closes if it does not read.
pub(super) fn follow(view: &View, cut: Arc<Notify>) -> Content {
    let (content, must_run) = view.feed.join(cut);
    if must_run {
        spawn_guarded(run(view.clone()), view.process.lives.clone());
    }
    content
}

/// Runs the future that sends the states. A panic is reported: later followers would get none.
fn spawn_guarded(sends: impl Future<Output = ()> + Send + 'static, lives: Arc<Lives>) -> JoinHandle<()> {
    tokio::spawn(lives.shield("the stream of states", sends))
}

/// Sends states until the last follower has left.
async fn run(view: View) {
    loop {
        let began = Instant::now();
        if !view.feed.lock().are_left() {
            return;
        }
        publish(&view);
        sleep(pause(began.elapsed())).await;
    }
}

fn pause(took: Duration) -> Duration {
    PERIOD.max(took.saturating_mul(TIMES))
}

fn publish(view: &View) {
    let number = view.process.log.last_notice();
    let lacking = view.feed.lock().lack(number);
    let notices =
        if lacking { frame("notices", &Notices { notices: view.process.log.recent() }) } else { Bytes::new() };
    let state = state(view);
    let cut = view.feed.lock().send(&state, &notices, number);
    view.process.doors.cut_slow(cut);
}

#[derive(Serialize)]
struct Notices {
    notices: Vec<Recorded>,
}

fn state(view: &View) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let report = view.listeners();
    let shown = page::shown(&report);
    let seen = view.metrics.seen(&shown);
    let at = u64::try_from(now).unwrap_or(u64::MAX);
    frame("state", &page::state(&report, &shown, seen, view.metrics.totals(), at))
}

/// One event of a stream. JSON has no line breaks, which would end the data.
fn frame(event: &str, data: &impl Serialize) -> Bytes {
    let mut text = format!("retry: {RETRY}\nevent: {event}\ndata: ").into_bytes();
    // Only maps with keys other than texts fail, and there are none.
    if serde_json::to_writer(&mut text, data).is_err() {
        return Bytes::new();
    }
    text.extend_from_slice(b"\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, future::poll_fn};

    use tokio::time::timeout;

    use super::*;
    use crate::clock::Clock;

    fn receiver(content: Content) -> mpsc::Receiver<Bytes> {
        match content {
            Content::Events(events) => events,
            Content::Whole(_) => panic!("a stream"),
        }
    }

    static STATE: Bytes = Bytes::from_static(b"state");
    static NOTICES: Bytes = Bytes::from_static(b"notices ");

    #[test]
    fn the_first_follower_starts_the_reading_and_the_last_ends_it() {
        let feed = Feed::default();
        let (first, must_run) = feed.join(Arc::default());
        let (second, must_run_again) = feed.join(Arc::default());
        assert!(must_run && !must_run_again);
        drop(first);
        assert!(feed.lock().are_left());
        drop(second);
        assert!(!feed.lock().are_left());
        assert!(feed.join(Arc::default()).1, "another one starts it again");
    }

    #[test]
    fn a_follower_gets_notices_that_it_lacks_and_no_notice_twice() {
        let feed = Feed::default();
        let mut events = receiver(feed.join(Arc::default()).0);
        assert!(feed.lock().lack(0));
        let mut sent = |notices: Bytes, number| {
            feed.lock().send(&STATE, &notices, number);
            events.try_recv().expect("an event")
        };
        assert_eq!(sent(NOTICES.clone(), 3), "notices state");
        assert_eq!(sent(Bytes::new(), 3), "state");
        assert_eq!(sent(NOTICES.clone(), 4), "notices state");
        assert!(!feed.lock().lack(4));
    }

    #[tokio::test]
    async fn a_follower_that_does_not_read_is_cut_and_a_slow_one_misses_states() {
        let (feed, cut) = (Feed::default(), Arc::new(Notify::new()));
        let mut slow = receiver(feed.join(Arc::default()).0);
        let _silent = feed.join(cut.clone());
        let send = || feed.lock().send(&STATE, &NOTICES, 1);
        let before: u64 = (0..MISSED).map(|_| send()).sum();
        assert_eq!((before, slow.try_recv().is_ok()), (0, true));
        assert_eq!(send(), 1, "the one that has read nothing");
        assert_eq!(feed.lock().all.len(), 1);
        timeout(PERIOD, cut.notified()).await.expect("its connection is closed");
    }

    #[tokio::test]
    async fn a_panic_of_what_sends_the_states_is_told_and_its_end_is_none() {
        let lives = Lives::new(Clock::start());
        spawn_guarded(async {}, lives.clone()).await.expect("the last follower has left");
        assert!(lives.died().is_empty());
        let panics = poll_fn(|_| -> Poll<()> { panic!("as the test wants") });
        spawn_guarded(panics, lives.clone()).await.expect_err("a panic");
        assert_eq!(lives.died(), BTreeSet::from(["the stream of states".to_owned()]));
    }

    #[test]
    fn reading_takes_no_more_than_a_fifth_of_the_time() {
        assert_eq!(pause(Duration::from_millis(3)), PERIOD);
        assert_eq!(pause(Duration::from_secs(1)), Duration::from_secs(4));
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let text = frame("state", &"a\nb");
        assert_eq!(text, "retry: 1000\nevent: state\ndata: \"a\\nb\"\n\n");
    }
}
