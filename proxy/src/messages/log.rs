//! The log of one listener, and what sends its messages.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use durable::{Figures, Store, intake::Intake};
use proxy_api::Durable;
use tokio::{sync::Notify, task::spawn_local};

use super::{
    leaving::Leaving,
    opening::Opening,
    place::{Opened, PlaceOfLog},
    removal::Removal,
    room,
    settings::{self, Taking},
    sink::{Sending, Sent},
    taker::Taker,
    words::{level, words},
};
use crate::{
    core::{
        delivery::{Delivery, Look, Seen, Watch},
        gone::Gone,
        intake_ends::IntakeEnds,
        pace::Pace,
        reopening::{self, Due},
    },
    files::Permit,
    keeping::late,
    log::{self, Level},
    process::Process,
    shared::Shared,
};

/// Files of a log that are open at once, with that of its sink; connections take theirs as sessions do.
const FILES: usize = 16;

/// The log of one listener.
pub(super) struct Log {
    place: PlaceOfLog,
    /// The store, which is closed while there is a `failure` or an `opening`.
    store: Store,
    removal: Removal,
    /// Why the store is closed, unless that is only for a moment.
    failure: Option<String>,
    /// The store that takes the place of this one.
    opening: Option<Opening>,
    /// Notified when that is open.
    wake: Rc<Notify>,
    gone: Gone,
    /// What the log and its sender run by.
    durable: Durable,
    /// How messages are taken; `None`: the listener does not run yet.
    taking: Option<Taking>,
    /// Another one each time that sockets have to be served anew.
    version: Rc<()>,
    intake: Intake,
    ends: Rc<IntakeEnds>,
    /// Datagrams and connections that proxies of the same fleet sent, so that they had come back.
    returned: Arc<AtomicU64>,
    /// The listener, once it runs.
    current: Arc<ArcSwapOption<Shared>>,
    sending: Option<Sending>,
    sent: Rc<Sent>,
    watch: Watch,
    delivery: Delivery,
    /// Events of the store that were told.
    events: u64,
    /// Connections that were told as closed for what they sent.
    violations: u64,
    told: Pace,
    _files: Permit,
}

impl Log {
    /// The log in this place, which was opened so. `wake` is notified when `settle` has something to do.
    pub(super) fn new(
        place: PlaceOfLog,
        durable: &Durable,
        opened: Opened,
        process: &Process,
        wake: Rc<Notify>,
    ) -> Self {
        let Opened { store, presence } = opened;
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
        let (listener, all) = (current.clone(), process.clone());
        let intake =
            intake.holding(move |source| listener.load_full().and_then(|shared| room::take(&shared, &all, source)));
        Self {
            place,
            store,
            removal: Removal::of(presence),
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
            sending: None,
            sent: Rc::default(),
            watch: Watch::default(),
            delivery: Delivery::default(),
            events: 0,
            violations: 0,
            told: Pace::default(),
            _files: process.files.take_anyway(FILES),
        }
    }

    /// Runs the listener as it is now.
    pub(super) fn run(&mut self, shared: &Arc<Shared>, process: &Process) {
        let spec = shared.spec.load_full();
        let Some(durable) = spec.durable.as_deref() else { return };
        let before = self.current.swap(Some(shared.clone()));
        let is_same_store = settings::is_same_store(&self.durable, durable);
        let sends_on = is_same_store
            && before.is_some_and(|before| Arc::ptr_eq(&before, shared))
            && self.durable.send == durable.send
            && self.durable.enrich == durable.enrich
            && self.sending.as_ref().is_some_and(|sending| sending.fits(&spec));
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

    /// Closes the store, and opens one with the settings as they are now. Meanwhile the listener takes no messages.
    fn open_again(&mut self) {
        self.sending = None;
        // One that is on its way with other settings is opened first.
        if self.opening.is_none() {
            let store = self.store.clone();
            let before = async move {
                // It may be closed already.
                let _ = store.close().await;
                true
            };
            self.opening = Some(Opening::start(self.place.clone(), &self.durable, before, self.wake.clone()));
        }
    }

    /// Takes the store that is open now, if so.
    pub(super) fn settle(&mut self, process: &Process) {
        let Some((opened, is_current)) =
            self.opening.as_mut().and_then(|opening| Some((opening.take()?, opening.is_of(&self.durable))))
        else {
            return;
        };
        self.opening = None;
        match opened {
            Ok(Some(Opened { store, presence })) => {
                self.gone.end(self.store.figures().backlog());
                self.store = store;
                self.removal = Removal::of(presence);
                self.events = 0;
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
                    process.log.notice(Level::Error, "failed", &shared.id, format!("no message is taken: {why}"));
                }
                self.failure = Some(why);
            }
        }
    }

    fn send(&mut self, shared: &Arc<Shared>, process: &Process) {
        // The sender before this one has ended first: two would send the same.
        self.sending = None;
        self.sending = Some(Sending::start(shared.clone(), process.clone(), self.store.clone(), self.sent.clone()));
    }

    /// What takes the messages of a socket; `None`: the listener does not run.
    pub(super) fn taker(&self) -> Option<Taker> {
        let taking = self.taking.clone().filter(|_| self.is_open())?;
        let (store, intake, version) = (self.store.clone(), self.intake.clone(), self.version.clone());
        Some(Taker { store, taking, intake, version, ends: self.ends.clone() })
    }

    /// The folder was removed, and what waits with it. Another one is made.
    fn lose(&mut self) {
        let (messages, place) = (self.store.figures().backlog(), self.place.words(&self.durable));
        self.gone.lose(messages);
        self.failure = Some(format!(
            "{place} was removed, and {messages} message(s) that waited in it are lost: keep others from removing it"
        ));
        self.open_again();
    }

    fn due(&self) -> Option<Due> {
        let late = self.opening.as_ref().map(Opening::is_late);
        reopening::Look { late, fails: self.failure.is_some(), has_ended: self.store.has_ended() }.due()
    }

    /// Once a second: opens the store again if that failed, and shows what is seen of the messages.
    pub(super) async fn look(&mut self, process: &Process) {
        let Some(shared) = self.current.load_full() else { return };
        match self.due() {
            Some(Due::TellLate) => {
                self.failure.get_or_insert_with(late);
            }
            Some(Due::Open) => self.open_again(),
            Some(Due::OpenEnded) => {
                let place = self.place.words(&self.durable);
                let message = format!("the thread of {place} has failed, and is started again: report this as a bug");
                process.log.notice(Level::Error, "store", &shared.id, message);
                self.failure = Some(format!("{place} is opened again"));
                self.open_again();
            }
            Some(Due::FindFolder) if self.removal.is_seen().await => self.lose(),
            None | Some(Due::FindFolder) => {}
        }
        let figures = self.removal.left(self.store.figures());
        let seen = self.seen(&figures, process.clock.seconds());
        self.tell_events(&figures, &shared, process);
        self.tell_violations(&shared, process);
        if seen.delivery != self.delivery {
            self.delivery = seen.delivery;
            let why = self.failure.clone().or(figures.failure);
            // While messages leave as they come there is nothing to explain.
            let why = if seen.delivery == Delivery::Flowing { None } else { why.or_else(|| self.sent.untold()) };
            process.log.notice(level(seen.delivery), "delivery", &shared.id, words(&seen, why.as_deref()));
        }
        shared.counters.show_durable(Some(seen));
    }

    /// Tells what happened to the log since the last look.
    fn tell_events(&mut self, figures: &Figures, shared: &Shared, process: &Process) {
        for event in figures.events.after(self.events) {
            let level = if event.is_harmless() { Level::Info } else { Level::Warn };
            process.log.notice(level, "store", &shared.id, event.to_string());
        }
        self.events = figures.events.count();
    }

    /// Tells of clients that were disconnected, as what they sent is not what the framing says.
    fn tell_violations(&mut self, shared: &Shared, process: &Process) {
        let violations = self.intake.figures().violations;
        if violations > self.violations
            && let Some(count) = self.told.due(process.clock.seconds(), violations)
        {
            self.violations = violations;
            let last = self.intake.violation();
            let message =
                format!("closed {count} connection(s) that did not keep to durable.framing; the last one: {last}");
            process.log.notice(Level::Warn, "client", &shared.id, message);
        }
    }

    fn seen(&mut self, figures: &Figures, now: u64) -> Seen {
        let (intake, dropped, returned) = (self.intake.figures(), figures.dropped, self.returned.load(Relaxed));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = figures.oldest_age(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let look = Look {
            taken: self.sent.delivered() + self.sent.refused(),
            sink_fails: self.sent.fails(),
            backlog: figures.backlog(),
            oldest_seconds: age.unwrap_or_default().as_secs(),
            without_room: dropped.full + dropped.queue,
            store_fails: self.failure.is_some() || figures.failure.is_some(),
        };
        Seen {
            delivery: self.watch.see(look, now),
            oldest_seconds: look.oldest_seconds,
            backlog: look.backlog,
            bytes: figures.bytes,
            limit_bytes: settings::log_bytes(&self.durable),
            store_fails: look.store_fails,
            received: intake.messages,
            delivered: self.sent.delivered(),
            resent: self.sent.resent(),
            dropped: vec![
                ("AccessDenied", intake.denied.saturating_sub(returned)),
                ("Loop", returned),
                ("TooLong", intake.too_long),
                ("QueueFull", dropped.queue),
                ("Full", dropped.full),
                ("TooOld", dropped.age),
                ("Refused", dropped.dead),
                ("DiskFailed", dropped.failed),
            ],
            closed: vec![
                ("ConnectionLimit", intake.refused_full),
                ("SourceLimit", intake.refused_source),
                ("SessionLimit", intake.refused_room),
                ("Idle", intake.idle),
                ("Framing", intake.violations),
                ("MemoryLimit", intake.crowded),
                ("StoreFailed", intake.not_kept),
            ],
            dead_lettered: figures.dead_letters,
            kernel_drops: intake.kernel_drops,
            short_reads: intake.short_reads,
            panics: self.ends.panics() + intake.panics,
            lost: self.gone.messages() + figures.lost,
            syncs: figures.syncs,
            sync_time: figures.sync_time,
        }
    }

    /// Whether a server has the log, so that it survives this process and its machine.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.durable.store, proxy_api::Store::JetStream { .. })
    }

    /// Bytes that the log may have by its bounds.
    pub(super) fn most_bytes(&self) -> u64 {
        settings::most_bytes(&self.durable)
    }

    /// Writes what was taken, and closes the log.
    pub(super) async fn close(self) {
        // It may be closed already.
        let _ = self.store.close().await;
    }

    /// The listener is gone. Its sink gets messages until it has all, or the drain time is over.
    pub(super) fn leave(self, out: &log::Log) -> Leaving {
        let seconds = self.current.load_full().map_or(0, |shared| shared.spec.load().sessions.drain_seconds);
        self.leave_within(Duration::from_secs(seconds.into()), out)
    }

    /// Its sink gets messages until it has all, or this time is over.
    pub(super) fn leave_within(self, longest: Duration, out: &log::Log) -> Leaving {
        let (store, out) = (self.store.clone(), out.clone());
        Leaving::new(store, spawn_local(self.drain(longest, out)))
    }

    async fn drain(mut self, longest: Duration, out: log::Log) {
        self.opening = None;
        let Some(shared) = self.current.load_full() else { return self.close().await };
        // It may be closed already.
        let _ = self.store.drain(longest).await;
        let (backlog, place) = (self.store.figures().backlog(), self.place.words(&self.durable));
        if backlog == 0 {
            // Another proxy may still send what is in a stream.
            let what = if self.is_stream() { "no message waits here" } else { "the sink has all messages" };
            out.notice(Level::Info, "delivery", &shared.id, format!("{what}; {place} stays"));
        } else {
            let message = format!("{backlog} message(s) stay in {place}: create the listener again to have them sent");
            out.notice(Level::Warn, "delivery", &shared.id, message);
        }
        shared.counters.show_durable(None);
    }
}
