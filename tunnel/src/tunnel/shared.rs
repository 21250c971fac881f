//! The state that the handles of one tunnel share: the session, and the waiting tasks.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tunnel_core::{Loss, Notice, Open, Reason, Refusal, Session, StreamId};

use super::Hint;

/// The one task that waits for an event.
#[derive(Default)]
pub(crate) struct Waiter(Cell<Option<Waker>>);

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

impl Waiter {
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        let waker = match self.0.take() {
            Some(mut waker) => {
                waker.clone_from(cx.waker());
                waker
            }
            None => cx.waker().clone(),
        };
        self.0.set(Some(waker));
    }

    fn wake(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// The tasks that wait for one stream. Each stream has one slot, and an idle one is only read.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) reader: Waiter,
    /// `None`: nobody has waited to write, and the request was not refused.
    rare: OnceCell<Box<Rare>>,
}

/// State that few streams have.
#[derive(Default)]
struct Rare {
    writer: Waiter,
    refusal: Cell<Option<Refusal>>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// The waiter of a task that waits to write.
    pub(crate) fn writer(&self) -> &Waiter {
        &self.rare().writer
    }

    /// Takes the refusal of the request, once.
    pub(crate) fn take_refusal(&self) -> Option<Refusal> {
        self.rare.get()?.refusal.take()
    }

    fn refuse(&self, refusal: Refusal) {
        self.rare().refusal.set(Some(refusal));
        self.wake();
    }

    fn wake(&self) {
        self.reader.wake();
        if let Some(rare) = self.rare.get() {
            rare.writer.wake();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    start: Instant,
    session: RefCell<Session>,
    slots: RefCell<BTreeMap<StreamId, Rc<Slot>>>,
    /// Requests of the peer that nobody has taken yet; [`tunnel_core::Limits::unanswered`] bounds them.
    asked: RefCell<VecDeque<StreamId>>,
    pub(crate) is_asked: Notify,
    pub(crate) hint: Cell<Option<Hint>>,
    pub(crate) is_hinted: Notify,
    pub(crate) is_told: Notify,
    runner: Waiter,
    /// When the timer of the runner fires.
    armed: Cell<Option<Duration>>,
    carrier: Waiter,
    /// The epoch of the waiting carrier.
    carried: Cell<u64>,
    /// Whether the carrier waits for frames to send.
    is_idle: Cell<bool>,
}

impl Shared {
    /// Wraps a session that begins now.
    pub(crate) fn new(session: Session) -> Self {
        Self {
            start: Instant::now(),
            session: RefCell::new(session),
            slots: RefCell::default(),
            asked: RefCell::default(),
            is_asked: Notify::new(),
            hint: Cell::new(None),
            is_hinted: Notify::new(),
            is_told: Notify::new(),
            runner: Waiter::default(),
            armed: Cell::new(None),
            carrier: Waiter::default(),
            carried: Cell::new(0),
            is_idle: Cell::new(false),
        }
    }

    pub(crate) fn session(&self) -> Ref<'_, Session> {
        self.session.borrow()
    }

    /// Calls `ask` with the session, and wakes the tasks for which something has changed.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&mut Session, Duration) -> T) -> T {
        let now = self.start.elapsed();
        let result = ask(&mut self.session.borrow_mut(), now);
        self.follow();
        result
    }

    fn follow(&self) {
        loop {
            // Nothing is borrowed while a task is woken.
            let notice = self.session.borrow_mut().poll();
            let Some(notice) = notice else { break };
            self.dispatch(notice);
        }
        self.wake_carrier();
        self.wake_runner();
    }

    fn dispatch(&self, notice: Notice) {
        match notice {
            Notice::Asked(id) => {
                self.asked.borrow_mut().push_back(id);
                self.is_asked.notify_one();
            }
            Notice::Refused(id, refusal) => {
                if let Some(slot) = self.slot(id) {
                    slot.refuse(refusal);
                }
            }
            Notice::Changed(id) => {
                if let Some(slot) = self.slot(id) {
                    slot.wake();
                }
            }
            Notice::Suspect => self.give_hint(Hint::Suspect),
            Notice::GoAway => self.give_hint(Hint::GoAway),
            Notice::Peers => self.is_told.notify_one(),
            // The carrier checks the session on its own.
            Notice::CarrierLost => {}
            Notice::Lost(_) => self.all_is_lost(),
        }
    }

    fn all_is_lost(&self) {
        let asked = self.asked.take();
        for id in asked {
            self.session.borrow_mut().refuse(id, Refusal { reason: Reason::Other, detail: String::new() });
        }
        self.is_asked.notify_waiters();
        self.runner.wake();
    }

    fn give_hint(&self, hint: Hint) {
        self.hint.set(Some(hint));
        self.is_hinted.notify_one();
    }

    fn slot(&self, id: StreamId) -> Option<Rc<Slot>> {
        self.slots.borrow().get(&id).cloned()
    }

    pub(crate) fn claim(&self, id: StreamId) -> Rc<Slot> {
        let slot = Rc::new(Slot::default());
        self.slots.borrow_mut().insert(id, Rc::clone(&slot));
        slot
    }

    /// Ids are reused: the slot at this id may belong to a later stream.
    pub(crate) fn release(&self, id: StreamId, slot: &Rc<Slot>) {
        let mut slots = self.slots.borrow_mut();
        if slots.get(&id).is_some_and(|there| Rc::ptr_eq(there, slot)) {
            slots.remove(&id);
        }
    }

    /// The next request of the peer.
    pub(crate) fn next_asked(&self) -> Option<(StreamId, Open)> {
        loop {
            let id = self.asked.borrow_mut().pop_front()?;
            let request = self.session.borrow().request(id).cloned();
            if let Some(request) = request {
                return Some((id, request));
            }
        }
    }

    /// Drives the timers until the session ends.
    pub(crate) fn poll_run(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Loss> {
        loop {
            self.with(Session::advance);
            let (lost, due) = {
                let session = self.session.borrow();
                (session.lost(), session.deadline())
            };
            if let Some(loss) = lost {
                return Poll::Ready(loss);
            }
            self.armed.set(due);
            self.runner.wait(cx);
            let Some(due) = due else { return Poll::Pending };
            timer.as_mut().reset(self.start + due);
            ready!(timer.as_mut().poll(cx));
        }
    }

    fn wake_runner(&self) {
        let due = self.session.borrow().deadline();
        let armed = self.armed.get();
        if due.is_some_and(|due| armed.is_none_or(|armed| due < armed)) {
            self.runner.wake();
        }
    }

    /// Makes `epoch` the carrier; the previous carrier ends.
    pub(crate) fn attach(&self, epoch: u64) -> bool {
        let attached = self.with(|session, now| session.attach(epoch, now));
        if attached {
            self.hint.set(None);
            self.carried.set(epoch);
        }
        attached
    }

    /// Notes that the carrier is working, and need not be woken.
    pub(crate) fn carrier_works(&self) {
        self.is_idle.set(false);
    }

    /// Notes that the carrier waits for its end, and also for frames to send if it `is_idle`.
    pub(crate) fn carrier_waits(&self, cx: &Context<'_>, is_idle: bool) {
        self.is_idle.set(is_idle);
        self.carrier.wait(cx);
    }

    fn wake_carrier(&self) {
        let (is_current, has_output) = {
            let session = self.session.borrow();
            (session.is_attached() && session.epoch() == self.carried.get(), session.has_output())
        };
        if !is_current || (has_output && self.is_idle.replace(false)) {
            self.carrier.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_stream_fits_into_48_bytes_with_its_counts_and_what_the_allocator_adds() {
        let counts = 2 * size_of::<usize>();
        assert!(size_of::<Slot>() + counts <= 48 - 4, "{} bytes", size_of::<Slot>());
    }

    #[test]
    fn who_reads_takes_no_memory_of_its_own_and_a_refusal_is_there_once() {
        let slot = Slot::default();
        slot.reader.wait(&Context::from_waker(Waker::noop()));
        slot.wake();
        assert!(slot.take_refusal().is_none() && slot.rare.get().is_none());
        let refusal = Refusal { reason: Reason::Full, detail: "full".to_owned() };
        slot.refuse(refusal.clone());
        assert_eq!([slot.take_refusal(), slot.take_refusal()], [Some(refusal), None]);
    }
}
