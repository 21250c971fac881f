//! Many sockets and timers in one thread: epoll, level-triggered.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData},
    },
    io::Errno,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};

pub(crate) use rustix::event::epoll::EventFlags;

/// Most events of one wait.
const EVENTS: usize = 64;

/// A socket or timer with an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// The number under which it was added.
    pub(crate) token: usize,
    pub(crate) flags: EventFlags,
}

impl Ready {
    /// Whether bytes, an end or an error can be read.
    pub(crate) fn is_readable(self) -> bool {
        self.flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR)
    }

    pub(crate) fn is_writable(self) -> bool {
        self.flags.contains(EventFlags::OUT)
    }
}

/// Waits for sockets and timers. A closed one is removed by the system.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        Self { epoll, events: Vec::with_capacity(EVENTS) }
    }

    pub(crate) fn add(&self, source: impl AsFd, token: usize, flags: EventFlags) {
        let data = EventData::new_u64(token as u64);
        epoll::add(&self.epoll, source, data, flags).expect("a file that can be waited for");
    }

    pub(crate) fn modify(&self, source: impl AsFd, token: usize, flags: EventFlags) {
        let data = EventData::new_u64(token as u64);
        epoll::modify(&self.epoll, source, data, flags).expect("an added file");
    }

    /// Waits for events until this time. Empty: the time has come, or a signal.
    pub(crate) fn wait(&mut self, until: Instant) -> Vec<Ready> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a short time");
        self.wait_for(Some(&timeout))
    }

    /// Waits for events without a limit.
    pub(crate) fn wait_always(&mut self) -> Vec<Ready> {
        self.wait_for(None)
    }

    fn wait_for(&mut self, timeout: Option<&Timespec>) -> Vec<Ready> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait: {error}"),
        }
        let ready = self.events.iter().map(|event| {
            // The fields of the packed struct are copied before use.
            let (data, flags) = (event.data, event.flags);
            Ready { token: usize::try_from(data.u64()).unwrap_or(usize::MAX), flags }
        });
        ready.collect()
    }
}

/// A timer that becomes readable again and again.
pub(crate) struct Ticks(OwnedFd);

impl Ticks {
    pub(crate) fn every(interval: Duration) -> Self {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).expect("a timer");
        let interval = Timespec::try_from(interval).expect("a short time");
        let schedule = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &schedule).expect("a timer");
        Self(timer)
    }

    /// Takes the ticks so far, so that the timer is readable no more.
    pub(crate) fn take(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Ticks {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The result of an operation that may have to wait. `None`: it has to.
pub(crate) fn now<T>(result: io::Result<T>) -> Option<io::Result<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        result => Some(result),
    }
}

/// Lets this thread rest.
#[allow(clippy::disallowed_methods, reason = "the pace of a load; nothing is synchronised by it")]
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}
