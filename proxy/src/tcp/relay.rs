//! Relays both directions of a session in one future, and ends one direction because of the other.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{
    direction::{Direction, End, Phase},
    live::Live,
};
use crate::{
    core::sessions::end::EndReason,
    net, sys,
    worker::{Worker, session::Session},
};

/// A peer that accepts nothing for this long counts as not reading; nothing more is delivered to it.
const NOT_READING: Duration = Duration::from_secs(2);

/// Relays until the session is over and returns the reason. The caller closes the connections accordingly.
pub fn run<'a>(live: &'a Live, server: &'a End) -> impl Future<Output = EndReason> {
    // Outside of the block: an async function would keep its arguments twice, as long as the session lives.
    let (up, down) = (Direction::default(), Direction::default());
    let mut relay = Relay { up, down, live, server, rare: None };
    async move {
        let reason = poll_fn(|cx| relay.poll(cx)).await;
        relay.rare = None;
        let (live, server) = (relay.live, relay.server);
        let (session, client) = (live.session(), &live.client);
        // A session has room for its largest step as long as it lives. This step, which few need, has room of its own.
        let left = match reason {
            EndReason::ClientReset if holds(server) => Box::pin(deliver(&relay, server)).await,
            EndReason::BackendReset if holds(client) => Box::pin(deliver(&relay, client)).await,
            EndReason::Idle => {
                let in_flight = is_in_flight(&relay.up, client, server) || is_in_flight(&relay.down, server, client);
                Some(EndReason::of_silence(session.half_closed.get(), in_flight))
            }
            _ => None,
        };
        left.unwrap_or(reason)
    }
}

/// Both directions between two ends; returns what the directions hold, however the session ends.
struct Relay<'a> {
    up: Direction,
    down: Direction,
    live: &'a Live,
    server: &'a End,
    rare: Option<Box<Rare<'a>>>,
}

/// What most sessions do not need, so that it has no room in them.
#[derive(Default)]
struct Rare<'a> {
    /// Of the client and of the server.
    errors: [ErrorWatch<'a>; 2],
    stall: Stall,
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let (live, server) = (self.live, self.server);
        let (worker, session, client) = (live.worker(), live.session(), &live.client);
        let is_silent = match session.poll_ended(cx) {
            Poll::Ready(reason) if reason != EndReason::Idle => return Poll::Ready(reason),
            asked => asked.is_ready(),
        };
        let is_asked = session.recheck.take() || is_silent;
        if is_asked {
            keep_alive(session, server);
            recheck(&self.up, client, is_silent);
            recheck(&self.down, server, is_silent);
        }
        let before = (session.up.get() + session.down.get(), session.half_closed.get());
        let limit = &session.listener.limiter.bytes;
        let _ = self.up.poll(cx, worker, limit, (client, server), &|bytes| {
            session.up.set(session.up.get() + bytes as u64);
        });
        let _ = self.down.poll(cx, worker, limit, (server, client), &|bytes| {
            session.down.set(session.down.get() + bytes as u64);
        });
        let progress = session.up.get() + session.down.get() != before.0;
        if progress {
            session.active_at.set(worker.process.clock.millis());
        }
        watch_for_errors(cx, &mut self.up, (client, 0), &mut self.rare);
        watch_for_errors(cx, &mut self.down, (server, 1), &mut self.rare);
        if is_asked {
            self.calm_down();
            self.weigh();
        }
        let over = decide(cx, worker, session, (&self.up, client), (&self.down, server), |cx| {
            self.rare.get_or_insert_default().stall.poll(cx, worker, session, progress)
        });
        if over.is_ready() || !is_silent {
            return over;
        }
        // The sockets held something, or the session waits for bandwidth or its turn: it is not idle.
        let waits = [&self.up, &self.down].into_iter().any(|way| way.is_waiting() || way.waits_for_turn());
        if progress || session.half_closed.get() != before.1 || waits {
            session.stay(cx);
            return Poll::Pending;
        }
        Poll::Ready(EndReason::Idle)
    }

    /// Notes what the session holds while the worker weighs its sessions.
    fn weigh(&self) {
        let (live, server) = (self.live, self.server);
        live.weigh(|| {
            let sockets = sys::buffered(&live.client.stream) + sys::buffered(&server.stream);
            sockets + self.up.held() + self.down.held()
        });
    }

    /// Waits until the session is asked to end for another reason than silence. Meanwhile it is weighed.
    async fn asked_to_end_at_once(&self) -> EndReason {
        let mut asked = pin!(self.live.session().asked_to_end_at_once());
        poll_fn(|cx| {
            self.weigh();
            asked.as_mut().poll(cx)
        })
        .await
    }

    /// Gives up what is rare if both ends are read again. Only when the sweep asks, as it does after bytes have moved: a
    /// sink that is full again and again would otherwise cost a watch each time.
    fn calm_down(&mut self) {
        if !is_unread(&self.up) && !is_unread(&self.down) {
            self.rare = None;
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        let live = self.live;
        let limit = &live.session().listener.limiter.bytes;
        self.up.abandon(live.worker());
        self.down.abandon(live.worker());
        self.up.leave(limit);
        self.down.leave(limit);
    }
}

/// How long a broken session has made no progress.
#[derive(Default)]
struct Stall {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Ready after [`NOT_READING`] without progress, counting time before the break.
    fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker, session: &Session, progress: bool) -> Poll<()> {
        let now = Instant::now();
        let quiet_before = || {
            let millis = worker.process.clock.millis().saturating_sub(session.active_at.get());
            now.checked_sub(Duration::from_millis(millis)).unwrap_or(now)
        };
        let since = if progress { now } else { self.since.unwrap_or_else(quiet_before) };
        self.since = Some(since);
        let deadline = since + NOT_READING;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

/// Sets keepalive on the upstream connection, once. Accepted connections have it of their listener.
fn keep_alive(session: &Session, server: &End) {
    if !session.has_keepalive.replace(true) {
        let seconds = session.listener.spec.load().timeouts.keepalive_seconds;
        net::set_keepalive(&SockRef::from(&server.stream), seconds);
    }
}

/// Asks the socket itself for bytes, because urgent data may hide them from readiness. A direction that streams finds
/// them by itself, unless it is about to count as silent, or is at urgent data that no event has reported.
fn recheck(direction: &Direction, from: &End, is_silent: bool) {
    if direction.phase != Phase::Open || direction.blocked {
        return;
    }
    let is_stream = direction.is_streaming() && !is_silent;
    let is_hidden = if is_stream { sys::is_at_mark(&from.stream) } else { has_unread(from) };
    if is_hidden {
        from.read_anyway.set(true);
    }
}

fn has_unread(from: &End) -> bool {
    rustix::io::ioctl_fionread(&from.stream).is_ok_and(|bytes| bytes > 0)
}

/// Whether an end now would cut bytes: unread, held here, or not acknowledged by the peer.
fn is_in_flight(direction: &Direction, from: &End, to: &End) -> bool {
    direction.is_holding() || has_unread(from) || holds(to)
}

/// Whether the kernel holds bytes for the peer, which it has not acknowledged.
fn holds(end: &End) -> bool {
    sys::unacknowledged(&end.stream) > 0
}

/// Whether nobody reads the end that a direction comes from.
fn is_unread(direction: &Direction) -> bool {
    direction.blocked || direction.phase != Phase::Open || direction.is_waiting()
}

/// The wait for the error state of an end.
type ErrorWatch<'a> = Option<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// Watches an end that is not being read, where only the error state reveals that it is gone. What a broken end has sent
/// before is read without waiting for bandwidth, and counts against the limit later. `which` is the place of the watch.
fn watch_for_errors<'a>(
    cx: &mut Context<'_>,
    direction: &mut Direction,
    (end, which): (&'a End, usize),
    rare: &mut Option<Box<Rare<'a>>>,
) {
    if is_unread(direction) && !end.broken.get() {
        let watch = &mut rare.get_or_insert_default().errors[which];
        let error = watch.get_or_insert_with(|| Box::pin(end.gone()));
        if error.as_mut().poll(cx).is_ready() {
            end.broken.set(true);
            cx.waker().wake_by_ref();
        }
    }
    if end.broken.get() && direction.hurry() {
        cx.waker().wake_by_ref();
    }
}

/// Whether the session is over. The bytes of a broken end are delivered first, then the break itself.
fn decide(
    cx: &mut Context<'_>,
    worker: &Worker,
    session: &Session,
    (up, client): (&Direction, &End),
    (down, server): (&Direction, &End),
    mut stalled: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Poll<EndReason> {
    let half_closed = up.phase != Phase::Open || down.phase != Phase::Open;
    if half_closed && !session.half_closed.replace(true) {
        // The half-close timeout starts here.
        session.active_at.set(worker.process.clock.millis());
    }
    if up.phase == Phase::Finished && down.phase == Phase::Finished {
        return Poll::Ready(EndReason::Finished);
    }
    let (reason, rest) = match (client.broken.get(), server.broken.get()) {
        (false, false) => return Poll::Pending,
        (true, true) => return Poll::Ready(EndReason::ClientReset),
        (true, false) => (EndReason::ClientReset, up),
        (false, true) => (EndReason::BackendReset, down),
    };
    if rest.is_drained() || (rest.blocked && stalled(cx).is_ready()) {
        return Poll::Ready(reason);
    }
    Poll::Pending
}

/// Waits until the peer at `end` has acknowledged all bytes, so that the following reset discards nothing.
async fn deliver(relay: &Relay<'_>, end: &End) -> Option<EndReason> {
    let session = relay.live.session();
    let limit = Duration::from_secs(session.listener.spec.load().timeouts.half_close_seconds.into());
    let deadline = Instant::now() + limit;
    let mut left = sys::unacknowledged(&end.stream);
    let mut progress = Instant::now();
    let mut pause = Duration::from_millis(1);
    while left > 0 && Instant::now() < deadline && progress.elapsed() < NOT_READING {
        tokio::select! {
            // Silence cuts nothing here: the bytes are on their way, and the wait has an end of its own.
            reason = relay.asked_to_end_at_once() => return Some(reason),
            () = end.gone() => return None,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_millis(100));
        let now = sys::unacknowledged(&end.stream);
        if now < left {
            progress = Instant::now();
        }
        left = now;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        sync::Arc,
    };

    use proxy_api::SessionId;
    use tokio::{io::Interest, time::timeout};

    use super::*;
    use crate::{
        fixtures::{process, template_with_id},
        settings::Settings,
        shared::Shared,
        sys::Socket,
        worker::LoadGuard,
    };

    /// Longest time for what a test waits for.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A connection of which one end is outside.
    fn connection() -> (TcpStream, End) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let outside = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
        let (inside, _) = listener.accept().expect("a connection");
        inside.set_nonblocking(true).expect("an option");
        (outside, End::new(Socket::watch(inside).expect("a runtime")))
    }

    /// A session of this client.
    fn live(client: End) -> Live {
        let worker = Worker::new(0, process(&Settings::default(), None), &Settings::default());
        let (id, spec) = template_with_id();
        let listener = Shared::new(id, Arc::new(spec), Arc::default(), Arc::default());
        let session = Session::new(SessionId(7), listener, ([192, 0, 2, 1], 1).into(), None, 0);
        let held = (worker.process.take_session().expect("room"), LoadGuard::new(&Arc::default()));
        Live::begin(&worker, session, client, held)
    }

    /// Waits for an event of an end.
    async fn event(end: &End, interest: Interest) {
        timeout(PATIENCE, end.stream.ready(interest)).await.expect("in time").expect("a runtime");
    }

    /// Polls a relay once; `is_asked`: for the sweep. Returns whether the server is full, and whether the relay has what is
    /// rare.
    async fn polled(relay: &mut Relay<'_>, is_asked: bool) -> (bool, bool) {
        relay.live.session().recheck.set(is_asked);
        let polled = poll_fn(|cx| Poll::Ready(relay.poll(cx))).await;
        assert!(polled.is_pending(), "the session continues");
        (relay.up.blocked, relay.rare.is_some())
    }

    #[tokio::test]
    async fn a_client_is_watched_while_its_server_is_full_and_until_the_sweep_asks_after_that() {
        let (mut outside, client) = connection();
        let live = live(client);
        outside.write_all(b"bytes").expect("room");
        event(&live.client, Interest::READABLE).await;
        // To the runtime, a new connection is full until an event says otherwise.
        let (_far, server) = connection();
        let (up, down) = (Direction::default(), Direction::default());
        let mut relay = Relay { up, down, live: &live, server: &server, rare: None };
        for is_asked in [false, true] {
            assert_eq!(polled(&mut relay, is_asked).await, (true, true));
        }
        event(&server, Interest::WRITABLE).await;
        assert_eq!(polled(&mut relay, false).await, (false, true), "it may be full again soon");
        assert_eq!(polled(&mut relay, true).await, (false, false));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_session_that_delivers_its_last_bytes_is_weighed_and_can_be_reset() {
        let ((outside, client), (_does_not_read, server)) = (connection(), connection());
        let live = live(client);
        event(&server, Interest::WRITABLE).await;
        let bytes = vec![7; 1 << 16];
        while server.try_write(&bytes).is_ok() {}
        SockRef::from(&outside).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(outside);
        event(&live.client, Interest::READABLE).await;
        // Nothing asks the relay, so only the delivery notes what the session holds.
        *live.worker().weighed.borrow_mut() = Some(foldhash::HashMap::default());
        let weighed = async {
            let first = || live.worker().weighed.borrow().as_ref()?.values().next().copied();
            while first().is_none() {
                live.session().wake();
                tokio::task::yield_now().await;
            }
            live.session().end(EndReason::Shortage);
            first().expect("the session")
        };
        let both = async { tokio::join!(run(&live, &server), weighed) };
        let (reason, held) = timeout(PATIENCE, both).await.expect("in time");
        let unread = sys::unacknowledged(&server.stream) as u64;
        assert_eq!((reason, held.session), (EndReason::Shortage, SessionId(7)));
        assert!(unread > 0 && held.bytes >= unread, "{} of {unread} bytes", held.bytes);
    }
}
