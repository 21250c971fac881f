//! Keeps names resolved, by the rules of [`crate::core::resolution::dns`].
//!
//! `getaddrinfo` returns no TTL and can neither be bounded nor cancelled, so names are resolved here. The core decides
//! which queries to send and what a message says; `exchange` queries one server for one full name in one family. Each
//! namespace has its own lookups, so that slow or dead names delay only other names of their namespace.

mod exchange;
mod name;
mod question;
mod reader;
mod system;

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    task::JoinHandle,
    time::Instant,
};

use self::{
    name::Name,
    question::ask,
    system::{Latest, Systems},
};
use crate::{
    core::resolution::dns::{
        answer::{Answer, Family, Pair},
        candidates::candidates,
        families::{Due, Resolution, TTL},
        resolv_conf::MOST_SERVERS,
        search::{Outcome, Search},
    },
    deadline::within,
    files::{Files, RESERVE},
    lives::Lives,
};

/// Most concurrent lookups of one namespace, and most retries of failed families beside them. A lookup queries at most
/// [`crate::core::resolution::dns::resolv_conf::MOST_SERVERS`] servers for each address family at a time.
const LOOKUPS: usize = 32;
/// A lookup that has waited this long for its turn shows that its namespace needs more than [`LOOKUPS`]. Until then it
/// may be one of many names that begin at once. No name is due again sooner than that.
const LONG_WAIT: Duration = TTL.0;
/// Most file descriptors of a lookup: a socket for each server and address family.
const SOCKETS: usize = 2 * MOST_SERVERS;
/// Most lookups of the process at a time that use the reserve of file descriptors, because no others are free. Such a lookup
/// has one socket for each address family.
const RESERVED: usize = 16;
/// Most of these lookups of one namespace.
const RESERVED_EACH: usize = 4;
/// The part of these turns that retries of failed families may use.
const RETRIED: usize = 2;
// Health and control have the rest. Without a bound, silent name servers would leave nothing to a probe of liveness.
const _: () = assert!(2 * RESERVED <= RESERVE / 2);
/// Longest time for the first answer about one full name of a lookup on demand. Its caller waits for 10 s: after
/// silence about a search domain, there is still time for the name as written.
const CANDIDATE: Duration = Duration::from_secs(3);
/// How long a lookup on demand waits for the other family once one has addresses.
const OTHER: Duration = Duration::from_secs(1);

/// News of the resolver.
#[derive(Debug)]
pub enum News {
    /// The present state of a name.
    Name {
        /// The name.
        host: String,
        /// The state of the name.
        resolution: Resolution,
    },
    /// Parts of the system's settings that could not be read; the other parts are in force.
    Unreadable(Vec<String>),
}

/// A name that listeners of a namespace use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Followed {
    /// Namespace of the listeners.
    pub namespace: String,
    /// The name.
    pub host: String,
}

/// Keeps a set of names resolved.
pub struct Resolver {
    /// The system's settings, followed from the first name on.
    system: Option<Systems>,
    tasks: HashMap<Followed, JoinHandle<()>>,
    shares: Shares,
    files: Arc<Files>,
    lives: Arc<Lives>,
    answers: mpsc::Sender<News>,
}

/// The concurrent lookups that one namespace may have.
struct LookupSlots {
    /// Lookups of both families.
    both: Semaphore,
    /// Retries of a failed family. They may get no answer, so they must not delay other lookups.
    retry: Semaphore,
    /// Lookups that use the reserve of file descriptors.
    reserved: Turns,
    /// Retries of a failed family among them.
    retried: Turns,
    /// When a lookup of both families was last found to have waited for [`LONG_WAIT`].
    last_long_wait: Mutex<Option<Instant>>,
}

impl LookupSlots {
    /// Waits for a slot. Waits of retries are not noted: lookups of both families eventually replace them.
    async fn slot(&self, due: Due) -> Option<SemaphorePermit<'_>> {
        if matches!(due, Due::Family(_)) {
            return self.retry.acquire().await.ok();
        }
        let mut acquired = pin!(self.both.acquire());
        loop {
            if let Some(slot) = within(LONG_WAIT, acquired.as_mut()).await {
                return slot.ok();
            }
            *self.last_long_wait.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// How long ago a lookup was last found to have waited too long for a slot.
    fn since_long_wait(&self) -> Option<Duration> {
        self.last_long_wait.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// Waits for a turn to use the reserve of file descriptors.
    async fn reserve(&self, due: Due) -> Option<ReserveTurn<'_>> {
        let retried = match due {
            Due::Family(_) => Some(self.retried.take().await?),
            Due::Whole => None,
        };
        Some(ReserveTurn { _retried: retried, _reserved: self.reserved.take().await? })
    }
}

/// A turn at the reserve of file descriptors, until it is dropped.
struct ReserveTurn<'a> {
    _retried: Option<[SemaphorePermit<'a>; 2]>,
    _reserved: [SemaphorePermit<'a>; 2],
}

/// The turns of a namespace, out of those of the process.
struct Turns {
    each: Semaphore,
    all: Arc<Semaphore>,
}

impl Turns {
    async fn take(&self) -> Option<[SemaphorePermit<'_>; 2]> {
        Some([self.each.acquire().await.ok()?, self.all.acquire().await.ok()?])
    }
}

/// The slots of each namespace, and the turns of the process at the reserve of file descriptors.
struct Shares {
    slots: HashMap<String, Arc<LookupSlots>>,
    reserved: Arc<Semaphore>,
    retried: Arc<Semaphore>,
}

impl Default for Shares {
    fn default() -> Self {
        let turns = |most: usize| Arc::new(Semaphore::new(most));
        Self { slots: HashMap::new(), reserved: turns(RESERVED), retried: turns(RESERVED / RETRIED) }
    }
}

impl Shares {
    fn of(&mut self, namespace: &str) -> Arc<LookupSlots> {
        let turns = |each: usize, all: &Arc<Semaphore>| Turns { each: Semaphore::new(each), all: all.clone() };
        let slots = || LookupSlots {
            both: Semaphore::new(LOOKUPS),
            retry: Semaphore::new(LOOKUPS),
            reserved: turns(RESERVED_EACH, &self.reserved),
            retried: turns(RESERVED_EACH / RETRIED, &self.retried),
            last_long_wait: Mutex::default(),
        };
        self.slots.entry(namespace.to_owned()).or_insert_with(|| Arc::new(slots())).clone()
    }

    /// Forgets namespaces without tasks.
    fn forget_unused(&mut self) {
        self.slots.retain(|_, slots| Arc::strong_count(slots) > 1);
    }
}

impl Resolver {
    /// Creates a resolver with the system's settings; answers arrive on the channel. Its sockets count among `files`.
    #[must_use]
    pub fn new(answers: mpsc::Sender<News>, files: Arc<Files>, lives: Arc<Lives>) -> Self {
        Self { system: None, tasks: HashMap::new(), shares: Shares::default(), files, lives, answers }
    }

    /// Begins or ends following this name.
    pub fn set(&mut self, name: Followed, is_used: bool) {
        if !is_used {
            if let Some(task) = self.tasks.remove(&name) {
                task.abort();
            }
        } else if !self.tasks.contains_key(&name) {
            let follow = || system::follow(self.answers.clone(), self.lives.clone());
            let system = self.system.get_or_insert_with(follow).clone();
            let slots = self.shares.of(&name.namespace);
            let (files, answers) = (self.files.clone(), self.answers.clone());
            let task = Name { host: name.host.clone(), system, slots, files, answers };
            self.tasks.insert(name, tokio::spawn(name::follow(task)));
        }
        self.shares.forget_unused();
    }

    /// How long ago a lookup of this namespace was last found to have waited too long for its turn.
    #[must_use]
    pub fn since_long_wait(&self, namespace: &str) -> Option<Duration> {
        self.shares.slots.get(namespace)?.since_long_wait()
    }
}

/// Resolves names on demand.
#[derive(Default)]
pub struct Lookup(Latest);

impl Lookup {
    /// Returns one address of each family that a name has.
    ///
    /// # Errors
    /// Why the lookup failed.
    pub async fn by_family(&mut self, host: &str) -> Result<Pair<Option<IpAddr>>, String> {
        let system = self.0.system().await;
        if let Some(ips) = system.hosts.addresses(host) {
            return Ok(first_of_each(ips.iter().copied()));
        }
        let mut search = Search::new(candidates(host, &system.conf), None);
        let began = Instant::now();
        while let Some(fqdn) = search.next(began.elapsed()) {
            let asked = |family| ask(&system, &fqdn, family, true);
            let answers = both(asked(Family::Four), asked(Family::Six)).await;
            search.record(fqdn, answers);
        }
        match search.outcome() {
            Outcome::Nothing(why) => Err(why),
            Outcome::Found { answers, .. } => {
                Ok(first_of_each(answers.both().into_iter().flat_map(Answer::addresses).copied()))
            }
        }
    }
}

fn first_of_each(ips: impl Iterator<Item = IpAddr>) -> Pair<Option<IpAddr>> {
    let mut first = Pair { four: None, six: None };
    for ip in ips {
        let place = if ip.is_ipv4() { &mut first.four } else { &mut first.six };
        place.get_or_insert(ip);
    }
    first
}

/// Waits for the answers of both families: for the first no longer than [`CANDIDATE`], and for the other one no longer
/// than [`OTHER`] once the first has addresses.
async fn both(four: impl Future<Output = Answer>, six: impl Future<Output = Answer>) -> Pair<Answer> {
    let began = Instant::now();
    let left = |first: &Answer| if first.has_addresses() { OTHER } else { CANDIDATE.saturating_sub(began.elapsed()) };
    let (mut four, mut six) = (pin!(four), pin!(six));
    tokio::select! {
        answer = in_time(CANDIDATE, four.as_mut()) => {
            let six = in_time(left(&answer), six).await;
            Pair { four: answer, six }
        }
        answer = in_time(CANDIDATE, six.as_mut()) => {
            let four = in_time(left(&answer), four).await;
            Pair { four, six: answer }
        }
    }
}

async fn in_time<F: Future<Output = Answer>>(limit: Duration, asked: Pin<&mut F>) -> Answer {
    let late = || Answer::Failed { why: format!("no answer within {} s", CANDIDATE.as_secs()), is_servfail: false };
    within(limit, asked).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_about_one_full_name_leaves_time_for_the_next() {
        let began = Instant::now();
        let answers = both(pending(), pending()).await;
        assert!(answers.four.is_failed() && answers.six.is_failed());
        assert!(began.elapsed() * 2 < Duration::from_secs(10), "two of them fit into the caller's time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_family_keeps_the_other_waiting_no_longer_than_a_second() {
        let found = Answer::Addresses { ips: vec![IpAddr::from([192, 0, 2, 1])], ttl: Duration::from_secs(60) };
        let began = Instant::now();
        let answers = both(pending(), ready(found.clone())).await;
        assert!(answers.four.is_failed() && began.elapsed() < OTHER * 2, "{:?}", began.elapsed());
        assert_eq!(answers.six, found);
    }

    #[test]
    fn each_family_gives_its_first_address() {
        let four = |last| IpAddr::from([192, 0, 2, last]);
        let six = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let of = |ips: &[IpAddr]| first_of_each(ips.iter().copied());
        assert_eq!(of(&[six(1), four(1), six(2)]), Pair { four: Some(four(1)), six: Some(six(1)) });
        assert_eq!(of(&[four(2)]), Pair { four: Some(four(2)), six: None });
    }

    #[test]
    fn a_namespace_has_slots_of_its_own_and_no_more_of_them_than_the_bound() {
        let mut shares = Shares::default();
        let (busy, other) = (shares.of("a"), shares.of("b"));
        let held: Vec<_> = (0..LOOKUPS).map(|_| busy.retry.try_acquire().expect("a slot")).collect();
        assert!(shares.of("a").retry.try_acquire().is_err() && other.retry.try_acquire().is_ok());
        assert!(shares.of("a").both.try_acquire().is_ok(), "families that fail keep no lookup waiting");
        drop(held);
        assert!(shares.of("a").retry.try_acquire().is_ok());
        drop(busy);
        shares.forget_unused();
        assert_eq!(shares.slots.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_waits_long_for_its_turn_is_noted_for_its_namespace() {
        let mut shares = Shares::default();
        let (busy, other) = (shares.of("a"), shares.of("b"));
        let _retries: Vec<_> = (0..LOOKUPS).map(|_| busy.retry.try_acquire().expect("a slot")).collect();
        let _lookups: Vec<_> = (0..LOOKUPS).map(|_| busy.both.try_acquire().expect("a slot")).collect();
        let waits = async |due, long| within(long, pin!(busy.slot(due))).await.is_none();
        assert!(waits(Due::Family(Family::Six), LONG_WAIT * 3).await && waits(Due::Whole, LONG_WAIT / 2).await);
        assert_eq!(busy.since_long_wait(), None, "names that begin at once wait a little");
        assert!(waits(Due::Whole, LONG_WAIT * 5 / 2).await);
        assert!(busy.since_long_wait().is_some_and(|ago| ago < LONG_WAIT), "noted for as long as it waits");
        assert_eq!(other.since_long_wait(), None);
    }

    /// The turns at the reserve that a namespace gets at once.
    fn turns(slots: &LookupSlots, due: Due) -> Vec<ReserveTurn<'_>> {
        let mut cx = Context::from_waker(Waker::noop());
        let turn = |_| match pin!(slots.reserve(due)).poll(&mut cx) {
            Poll::Ready(turn) => turn,
            Poll::Pending => None,
        };
        (0..LOOKUPS).filter_map(turn).collect()
    }

    #[test]
    fn families_that_fail_leave_half_of_the_reserve_to_whole_lookups() {
        let mut shares = Shares::default();
        let namespaces: Vec<_> = (0..RESERVED).map(|number| shares.of(&number.to_string())).collect();
        let of_all = |due: Due| namespaces.iter().map(|slots| turns(slots, due)).collect::<Vec<_>>();
        let retries = of_all(Due::Family(Family::Six));
        assert!(retries.iter().all(|turns| turns.len() <= RESERVED_EACH / 2));
        assert_eq!(retries.iter().map(Vec::len).sum::<usize>(), RESERVED / 2);
        let whole = of_all(Due::Whole);
        assert_eq!(whole[0].len(), RESERVED_EACH / 2, "also where families fail");
        assert_eq!(whole.iter().map(Vec::len).sum::<usize>(), RESERVED / 2);
    }

    #[test]
    fn lookups_without_room_take_no_more_than_half_of_the_reserve_and_no_namespace_takes_all_of_it() {
        let mut shares = Shares::default();
        let namespaces: Vec<_> = (0..RESERVED).map(|number| shares.of(&number.to_string())).collect();
        let mut held: Vec<_> = namespaces.iter().map(|slots| turns(slots, Due::Whole)).collect();
        assert!(held.iter().all(|turns| turns.len() <= RESERVED_EACH));
        assert_eq!(held.iter().map(Vec::len).sum::<usize>(), RESERVED);
        let last = held.iter_mut().rfind(|turns| !turns.is_empty()).and_then(Vec::pop);
        assert!(last.is_some());
        drop(last);
        assert!(turns(&namespaces[0], Due::Whole).is_empty(), "four of its own");
        assert_eq!(turns(&namespaces[RESERVED - 1], Due::Whole).len(), 1);
    }
}
