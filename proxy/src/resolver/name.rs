//! Keeps one name resolved.

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{SemaphorePermit, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    LookupSlots, News, ReserveTurn, SOCKETS,
    question::ask,
    system::{System, Systems},
};
use crate::{
    core::resolution::dns::{
        answer::{Answer, Family, Pair},
        candidates::candidates,
        families::{Due, Families, RETRY, Resolution},
        resolv_conf::Flag,
        search::{Outcome, Search},
    },
    deadline::within,
    files::{Files, Permit},
};

/// Longest wait for the second address family once the first has addresses. After it, the second has failed and is
/// queried again alone, so that an unanswered family delays no other name of the namespace.
const LATE: Duration = Duration::from_secs(2);

/// A name to keep resolved.
#[derive(Clone)]
pub(super) struct Name {
    pub(super) host: String,
    pub(super) system: Systems,
    /// The concurrent lookups that the namespace may have.
    pub(super) slots: Arc<LookupSlots>,
    /// File descriptors of the process.
    pub(super) files: Arc<Files>,
    pub(super) answers: mpsc::Sender<News>,
}

/// Follows a name, even after a lookup has panicked.
pub(super) async fn follow(name: Name) {
    loop {
        let mut lookups = JoinSet::new();
        lookups.spawn(keep(name.clone()));
        let ended = lookups.join_next().await;
        if !ended.is_some_and(|ended| ended.is_err_and(|error| error.is_panic())) {
            return;
        }
        let failure = Some("the lookup has ended unexpectedly, see standard error".to_owned());
        let resolution = Resolution { failure, ..Resolution::default() };
        if name.answers.send(News::Name { host: name.host.clone(), resolution }).await.is_err() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Queries again whenever a query is due or the system's settings for the name have changed, until the receiver is
/// dropped.
async fn keep(name: Name) {
    let Name { host, system: mut systems, slots, files, answers } = name;
    let (mut known, began) = (Families::default(), Instant::now());
    let mut due = Due::Whole;
    loop {
        let latest = systems.borrow_and_update().clone();
        let Some(system) = latest else {
            changed(&mut systems, &host, None).await;
            continue;
        };
        let round = Round { host: &host, system: &system, slots: &slots, files: &files, answers: &answers, began };
        let is_taken = tokio::select! {
            is_taken = round.run(due, &mut known) => is_taken,
            () = changed(&mut systems, &host, Some(system.as_ref())) => {
                due = Due::Whole;
                continue;
            }
        };
        if !is_taken {
            return;
        }
        let (wait, next) = known.due(began.elapsed());
        due = tokio::select! {
            () = sleep(wait) => next,
            () = changed(&mut systems, &host, Some(system.as_ref())) => Due::Whole,
        };
    }
}

/// Waits until the settings for a host differ from those that are `known`.
async fn changed(systems: &mut Systems, host: &str, known: Option<&System>) {
    while systems.changed().await.is_ok() {
        if known.is_none_or(|known| !is_equal_for(systems, host, known)) {
            return;
        }
    }
    pending::<()>().await;
}

fn is_equal_for(systems: &mut Systems, host: &str, known: &System) -> bool {
    systems.borrow_and_update().as_ref().is_some_and(|latest| latest.is_equal_for(host, known))
}

/// One round of queries for a name.
struct Round<'a> {
    host: &'a str,
    system: &'a Arc<System>,
    slots: &'a LookupSlots,
    files: &'a Arc<Files>,
    answers: &'a mpsc::Sender<News>,
    /// Start of the clock of [`Families`].
    began: Instant,
}

/// The turn of a lookup among those of its namespace, until it is dropped.
struct Turn<'a> {
    _slot: SemaphorePermit<'a>,
    /// `None`: for lack of room, the lookup uses the few descriptors of the reserve.
    files: Option<Permit>,
    _reserve: Option<ReserveTurn<'a>>,
}

impl Round<'_> {
    /// Sends the queries that are due, and then the present state. `false` if the receiver is dropped.
    async fn run(&self, due: Due, known: &mut Families) -> bool {
        if let Some(ips) = self.system.hosts.addresses(self.host) {
            let resolution = known.listed(ips, self.now());
            return self.send(resolution).await;
        }
        let Some((due, turn)) = self.turn(due, known).await else { return false };
        let may_overlap = turn.files.is_some();
        let resolution = match (due, known.fqdn().map(str::to_owned)) {
            (Due::Family(family), Some(fqdn)) => {
                let answer = ask(self.system, &fqdn, family, may_overlap).await;
                known.again(family, answer, self.now())
            }
            (Due::Whole | Due::Family(_), last_found) => {
                let outcome = self.search(last_found.as_deref(), may_overlap).await;
                known.searched(outcome, self.now())
            }
        };
        self.send(resolution).await
    }

    /// Waits for the turn of `due`. If a retry of failed families waits until both families are due, both are queried
    /// instead: failed families must not keep the others from being followed.
    async fn turn(&self, due: Due, known: &Families) -> Option<(Due, Turn<'_>)> {
        if due != Due::Whole {
            let turn = within(known.whole_in(self.now()), pin!(self.turn_of(due))).await;
            if let Some(turn) = turn {
                return Some((due, turn?));
            }
        }
        Some((Due::Whole, self.turn_of(Due::Whole).await?))
    }

    async fn turn_of(&self, due: Due) -> Option<Turn<'_>> {
        let slot = self.slots.slot(due).await?;
        let files = self.files.take(SOCKETS);
        let reserve = if files.is_none() { self.slots.reserve(due).await } else { None };
        Some(Turn { _slot: slot, files, _reserve: reserve })
    }

    async fn search(&self, last_found: Option<&str>, may_overlap: bool) -> Outcome {
        let mut search = Search::new(candidates(self.host, &self.system.conf), last_found);
        let from = Instant::now();
        while let Some(fqdn) = search.next(from.elapsed()) {
            let answers = self.both(&fqdn, may_overlap).await;
            search.record(fqdn, answers);
        }
        search.outcome()
    }

    /// Queries both families of a full name.
    async fn both(&self, fqdn: &str, may_overlap: bool) -> Pair<Answer> {
        let asked = |family| ask(self.system, fqdn, family, may_overlap);
        if self.system.conf.has(Flag::SingleRequest) {
            let four = asked(Family::Four).await;
            let six = other(&four, asked(Family::Six)).await;
            return Pair { four, six };
        }
        let (mut four, mut six) = (pin!(asked(Family::Four)), pin!(asked(Family::Six)));
        tokio::select! {
            answer = &mut four => {
                let six = other(&answer, six).await;
                Pair { four: answer, six }
            }
            answer = &mut six => {
                let four = other(&answer, four).await;
                Pair { four, six: answer }
            }
        }
    }

    async fn send(&self, resolution: Resolution) -> bool {
        self.answers.send(News::Name { host: self.host.to_owned(), resolution }).await.is_ok()
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Waits for the other family: to its end if the first has no addresses, else no longer than [`LATE`].
async fn other(first: &Answer, other: impl Future<Output = Answer>) -> Answer {
    if !first.has_addresses() {
        return other.await;
    }
    let late = || Answer::Failed { why: format!("no answer within {} s", LATE.as_secs()), is_servfail: false };
    within(LATE, pin!(other)).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use std::{future::ready, iter};

    use tokio::sync::watch;

    use super::*;
    use crate::resolver::{
        Shares,
        reader::{Look, State},
    };

    #[tokio::test]
    async fn a_change_ends_the_lookups_of_the_names_that_it_concerns_only() {
        let system = |hosts: &[u8], conf: &[u8]| {
            let looks = [hosts, conf].map(|bytes| Look::New(State::Missing, bytes.to_vec()));
            Some(Arc::new(System::after(None, looks)))
        };
        let known = system(b"192.0.2.1 db\n", b"");
        let (sender, mut systems) = watch::channel(known.clone());
        let mut has_changed = async |hosts: &[u8], conf: &[u8]| {
            sender.send_replace(system(hosts, conf));
            tokio::select! {
                biased;
                () = changed(&mut systems, "db", known.as_deref()) => true,
                () = ready(()) => false,
            }
        };
        assert!(!has_changed(b"# again\n192.0.2.1 db\n", b"").await);
        assert!(!has_changed(b"192.0.2.1 db\n192.0.2.2 other\n", b"").await);
        assert!(has_changed(b"192.0.2.2 db\n", b"").await);
        assert!(has_changed(b"192.0.2.1 db\n", b"nameserver 192.0.2.53\n").await);
    }

    #[tokio::test]
    async fn a_retry_that_waits_for_others_gives_way_once_both_families_are_due() {
        let looks = [(); 2].map(|()| Look::New(State::Missing, Vec::new()));
        let (system, slots) = (Arc::new(System::after(None, looks)), Shares::default().of("a"));
        let (files, answers, began) = (Arc::new(Files::new(2 * SOCKETS)), mpsc::channel(1).0, Instant::now());
        let round = Round { host: "db", system: &system, slots: &slots, files: &files, answers: &answers, began };
        // Both families are due from the start.
        let known = Families::default();
        let retry = Due::Family(Family::Six);
        assert!(round.turn(retry, &known).await.is_some_and(|(due, _)| due == retry), "there is a slot");
        let held: Vec<_> = iter::from_fn(|| slots.retry.try_acquire().ok()).collect();
        assert!(round.turn(retry, &known).await.is_some_and(|(due, _)| due == Due::Whole));
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_nobody_answers_is_given_up_once_the_other_has_addresses() {
        let first = Answer::Addresses { ips: Vec::new(), ttl: Duration::from_secs(60) };
        let given_up = other(&first, pending()).await;
        assert_eq!(given_up, Answer::Failed { why: "no answer within 2 s".to_owned(), is_servfail: false });
        assert_eq!(other(&first, ready(Answer::NoData)).await, Answer::NoData);
        let slow = async {
            sleep(LATE * 2).await;
            Answer::NoData
        };
        assert_eq!(other(&Answer::NxDomain, slow).await, Answer::NoData, "there is nothing to send yet");
    }
}
