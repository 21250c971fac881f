//! The logs of one listener, and the senders of their messages.

use std::{
    mem::take,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use durable::intake::Intake;
use proxy_api::Durable;
use tokio::sync::Notify;

use super::{
    generation::Loss,
    generations::{self, Generations, Opened},
    leaving::Leaving,
    opening::Opening,
    place::PlaceOfLog,
    removal::Removal,
    room,
    settings::{self, Taking},
    sink::Sending,
    taker::Taker,
    words::{level, words},
};
use crate::{
    core::{
        durable::{
            delivery::{Delivery, Watches},
            gone::Gone,
            intake_ends::IntakeEnds,
            reopening::{self, Due},
            sent::Sent,
        },
        logging::pace::Pace,
    },
    keeping::late,
    log::Level,
    process::Process,
    shared::Shared,
};

mod drain;
mod seen;

/// The logs of one listener: one, unless it has lanes.
pub(super) struct Log {
    place: PlaceOfLog,
    /// The stores, which are closed while there is a `failure` or an `opening`.
    stores: Generations,
    removal: Removal,
    /// The pod or machine that takes the messages, or took them.
    machine: String,
    /// Why the stores are closed, unless that is only for a moment.
    failure: Option<String>,
    /// The opening of stores that replace these.
    opening: Option<Opening>,
    /// Notified when the stores that replace these are open.
    wake: Rc<Notify>,
    gone: Gone,
    /// The settings of the log and its sender.
    durable: Durable,
    /// How messages are taken; `None`: the listener does not run yet.
    taking: Option<Taking>,
    /// The version, which is replaced each time that sockets have to be served again.
    version: Rc<()>,
    intake: Intake,
    ends: Rc<IntakeEnds>,
    /// Datagrams and connections that proxies of the same fleet sent, so that they had come back.
    returned: Arc<AtomicU64>,
    /// The listener, once it runs.
    current: Arc<ArcSwapOption<Shared>>,
    /// The senders, in the order of the lanes.
    sending: Vec<Sending>,
    sent: Rc<Sent>,
    watches: Watches,
    delivery: Delivery,
    /// The lane that delivers worst.
    worst: usize,
    /// Connections that were logged as closed for what they sent.
    violations: u64,
    told: Pace,
    /// When a change of the number of lanes was last tried.
    changed: Pace,
}

impl Log {
    /// The log in this place, with these opened stores. `wake` is notified when `settle` has something to do.
    pub(super) fn new(
        place: PlaceOfLog,
        durable: &Durable,
        mut opened: Opened,
        process: &Process,
        wake: Rc<Notify>,
    ) -> Self {
        let (presence, machine) = (opened.presence.take(), take(&mut opened.machine));
        let current = Arc::<ArcSwapOption<Shared>>::default();
        let returned = Arc::<AtomicU64>::default();
        let (listener, came_back) = (current.clone(), returned.clone());
        let intake = Intake::guarded(move |source| {
            let Some(shared) = listener.load_full() else { return false };
            if shared.returns(source) {
                came_back.fetch_add(1, Relaxed);
                return false;
            }
            shared.counters.admits(&shared.spec.load(), source)
        });
        let (listener, all) = (current.clone(), Arc::new(process.clone()));
        let intake = intake.holding(move |source| room::take(listener.clone(), all.clone(), source));
        Self {
            place,
            stores: Generations::new(opened, process),
            removal: Removal::of(presence),
            machine,
            failure: None,
            opening: None,
            wake,
            gone: Gone::default(),
            durable: durable.clone(),
            taking: None,
            version: Rc::default(),
            intake,
            ends: Rc::default(),
            returned,
            current,
            sending: Vec::new(),
            sent: Rc::default(),
            watches: Watches::default(),
            delivery: Delivery::default(),
            worst: 0,
            violations: 0,
            told: Pace::default(),
            changed: Pace::default(),
        }
    }

    /// Runs the present version of the listener.
    pub(super) fn run(&mut self, shared: &Arc<Shared>, process: &Process) {
        let spec = shared.spec.load_full();
        let Some(durable) = spec.durable.as_deref() else { return };
        let before = self.current.swap(Some(shared.clone()));
        let is_same_store = settings::is_same_store(&self.durable, durable);
        let sends_on = is_same_store
            && before.is_some_and(|before| Arc::ptr_eq(&before, shared))
            && self.durable.send == durable.send
            && self.durable.enrich == durable.enrich
            && !self.sending.is_empty()
            && self.sending.iter().all(|sending| sending.fits(&spec));
        self.durable = durable.clone();
        if !is_same_store {
            self.open_again();
        }
        let taking = Taking::of(&spec, durable);
        if self.taking.as_ref() != Some(&taking) {
            self.taking = Some(taking);
            self.version = Rc::default();
        }
        if !sends_on && self.is_open() {
            self.send(shared, process);
        }
    }

    fn is_open(&self) -> bool {
        self.failure.is_none() && self.opening.is_none()
    }

    /// Closes the stores, and opens those of the present settings. Meanwhile the listener takes no messages. Streams of
    /// other servers stay open, as their messages are sent first.
    fn open_again(&mut self) {
        self.sending.clear();
        // An opening with other settings is completed first.
        if self.opening.is_none() {
            let stores = self.stores.handles_without(settings::server(&self.durable));
            let before = async move {
                generations::close(stores).await;
                true
            };
            self.opening = Some(Opening::start(self.place.clone(), &self.durable, before, self.wake.clone()));
        }
    }

    /// Takes the stores if they are open now.
    pub(super) fn settle(&mut self, process: &Process) {
        let Some((opened, is_current)) =
            self.opening.as_mut().and_then(|opening| Some((opening.take()?, opening.is_of(&self.durable))))
        else {
            return;
        };
        self.opening = None;
        match opened {
            Ok(Some(mut opened)) => {
                self.gone.end(self.stores.disk_backlog());
                self.removal = Removal::of(opened.presence.take());
                self.machine = take(&mut opened.machine);
                self.stores.change(opened, process);
                self.failure = None;
                self.version = Rc::default();
                if !is_current {
                    self.open_again();
                } else if let Some(shared) = self.current.load_full() {
                    self.send(&shared, process);
                }
            }
            // Such an answer comes only before there is a log.
            Ok(None) => {}
            Err(why) => {
                if self.failure.as_ref() != Some(&why)
                    && let Some(shared) = self.current.load_full()
                {
                    process.log.notice(Level::Error, "failed", &shared.id, format!("cannot accept messages: {why}"));
                }
                self.failure = Some(why);
            }
        }
    }

    fn send(&mut self, shared: &Arc<Shared>, process: &Process) {
        // The previous senders end first: two would send the same messages.
        self.sending.clear();
        let lanes = self.stores.sending();
        self.sent.keep(lanes.count());
        let start =
            |lane| Sending::start(shared.clone(), process.clone(), lane, self.sent.clone(), self.machine.clone());
        self.sending = lanes.stores().cloned().enumerate().map(start).collect();
    }

    /// The taker of a socket's messages; `None`: the listener does not run.
    pub(super) fn taker(&self) -> Option<Taker> {
        let taking = self.taking.clone().filter(|_| self.is_open())?;
        let (lanes, intake, version) = (self.stores.present().clone(), self.intake.clone(), self.version.clone());
        Some(Taker { lanes, taking, intake, version, ends: self.ends.clone() })
    }

    /// Handles the removal of the folder, or its move, with the messages that waited in it. Another folder is created.
    fn lose(&mut self) {
        let (messages, place) = (self.stores.disk_backlog(), self.place.words_of(None));
        self.gone.lose(messages);
        let lost = proxy_api::count(messages, "message");
        self.failure =
            Some(format!("{place} was removed or moved, with a loss of {lost}: find out what removed or moved it"));
        self.open_again();
    }

    fn due(&self) -> Option<Due> {
        let late = self.opening.as_ref().map(Opening::is_late);
        reopening::Look { late, fails: self.failure.is_some(), has_ended: self.stores.has_ended() }.due()
    }

    /// Once the sink has the messages from before the number of lanes changed, later ones are sent. A change that
    /// waited for that, or for room beside the logs, is made now.
    fn advance(&mut self, shared: &Arc<Shared>, process: &Process) {
        if !self.is_open() {
            return;
        }
        let bytes = settings::bytes(&self.durable);
        self.stores.share(bytes);
        let has_advanced = self.stores.advance();
        for loss in self.stores.losses() {
            self.tell_loss(&loss, shared, process);
        }
        // At a pace: each attempt closes the connections of clients, and the folder may have more than the logs know of.
        if self.stores.may_change(settings::lanes(&self.durable), bytes)
            && self.changed.due(process.clock.seconds(), 0).is_some()
        {
            self.open_again();
        } else if has_advanced {
            self.send(shared, process);
        }
    }

    /// Once a second: opens the store again if that failed, and shows the state of the messages.
    pub(super) async fn look(&mut self, process: &Process) {
        let Some(shared) = self.current.load_full() else { return };
        match self.due() {
            Some(Due::TellLate) => {
                self.failure.get_or_insert_with(late);
            }
            Some(Due::Open) => self.open_again(),
            Some(Due::OpenEnded) => {
                let place = self.place.words(&self.durable);
                let message = format!("the thread of {place} has failed, and is restarted: report this as a bug");
                process.log.notice(Level::Error, "store", &shared.id, message);
                self.failure = Some(format!("{place} is opened again"));
                self.open_again();
            }
            Some(Due::FindFolder) if self.stores.has_folder() && self.removal.is_seen().await => self.lose(),
            None | Some(Due::FindFolder) => {}
        }
        // Events come first, as a generation that is dropped takes its events with it.
        self.tell_events(&shared, process);
        self.advance(&shared, process);
        let figures = self.stores.figures_beside(&self.removal);
        let now = process.clock.seconds();
        let seen = self.seen(&figures, now);
        self.tell_violations(&shared, process);
        if let Some(line) = self.ends.rest(process.clock.seconds()) {
            process.log.notice(Level::Error, "failed", &shared.id, line);
        }
        if let Some(line) = self.sent.rest(process.clock.seconds()) {
            process.log.notice(Level::Warn, "sink", &shared.id, line);
        }
        if seen.delivery != self.delivery {
            self.delivery = seen.delivery;
            let why = self.why_store_fails(&figures, now);
            // While messages flow there is nothing to explain.
            let why =
                if seen.delivery == Delivery::Flowing { None } else { why.or_else(|| self.sent.untold(self.worst)) };
            process.log.notice(level(seen.delivery), "delivery", &shared.id, words(&seen, why.as_deref()));
        }
        shared.counters.show_durable(Some(seen));
    }

    /// Logs the events of the stores since the last look.
    fn tell_events(&mut self, shared: &Shared, process: &Process) {
        for event in self.stores.news() {
            let level = if event.is_harmless() { Level::Info } else { Level::Warn };
            process.log.notice(level, "store", &shared.id, event.to_string());
        }
    }

    /// Logs that a stream was given up, and the loss.
    fn tell_loss(&self, Loss { server, messages, unpublished }: &Loss, shared: &Shared, process: &Process) {
        let place = self.place.words_of(Some(server));
        let message = format!(
            "{place} has failed for a minute, so later messages are sent first: as far as the proxy knows, it keeps {}, \
             with a loss of {} that had not reached it; to send what it keeps, configure this stream for the listener \
             again once its server works",
            proxy_api::count(*messages, "message"),
            proxy_api::count(*unpublished, "message"),
        );
        process.log.notice(Level::Warn, "store", &shared.id, message);
    }

    /// Logs that clients were disconnected, as they violated the framing.
    fn tell_violations(&mut self, shared: &Shared, process: &Process) {
        let violations = self.intake.figures().violations;
        if violations > self.violations
            && let Some(count) = self.told.due(process.clock.seconds(), violations)
        {
            self.violations = violations;
            let last = self.intake.violation();
            let connections = proxy_api::count(count, "connection");
            let message =
                format!("closed {connections} whose bytes do not match durable.framing; the last one: {last}");
            process.log.notice(Level::Warn, "client", &shared.id, message);
        }
    }

    /// Whether the logs are on servers, so that they survive this process and its machine.
    pub(super) fn is_stream(&self) -> bool {
        self.stores.is_stream()
    }

    /// Bytes that the logs may have by their bounds.
    pub(super) fn most_bytes(&self) -> u64 {
        settings::most_bytes(&self.durable)
    }

    /// Bytes that the logs have on the disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.stores.disk_bytes()
    }

    /// Writes the messages that were taken, and closes the logs.
    pub(super) async fn close(self) {
        generations::close(self.stores.handles()).await;
    }

    /// Leaves the log of a removed listener. Its sink gets messages until it has all, or the drain time is over.
    pub(super) fn leave(self, process: &Process) -> Leaving {
        let seconds = self.current.load_full().map_or(0, |shared| shared.spec.load().sessions.drain_seconds);
        self.leave_within(Duration::from_secs(seconds.into()), process)
    }

    /// Leaves the log. Its sink gets messages until it has all, or this time is over.
    pub(super) fn leave_within(self, longest: Duration, process: &Process) -> Leaving {
        let guard = process.lives.guard(format!("the drain of {}", self.place.words(&self.durable)));
        let (stores, past, process) = (self.stores.handles(), self.stores.past_bytes(), process.clone());
        Leaving::start(stores, past, guard, self.drain(longest, process))
    }
}
