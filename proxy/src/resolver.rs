//! Keeps names resolved, by the rules of [`crate::core::dns`].
//!
//! `getaddrinfo` returns no TTL and can neither be bounded nor be given up, so names are resolved here. The core decides
//! what is asked; `hickory` asks one server for one full name in one family. Each namespace has its own lookups, so that
//! slow or dead names delay only other names of their namespace.

mod name;
mod question;
mod runtime;
mod system;

use std::{collections::HashMap, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use self::{
    name::Name,
    question::ask,
    system::{Latest, System},
};
use crate::{
    core::dns::{
        candidates::candidates,
        families::Told,
        resolv_conf::MOST_SERVERS,
        said::{Family, Pair, Said},
        search::{Outcome, Search},
    },
    files::Files,
};

/// Most lookups of one namespace at a time, and most of families that have failed, beside them. A lookup asks at most
/// [`crate::core::dns::resolv_conf::MOST_SERVERS`] servers for each address family at a time.
const LOOKUPS: usize = 32;
/// Most file descriptors of a lookup: a socket for each server and address family.
const SOCKETS: usize = 2 * MOST_SERVERS;
/// Longest time for one full name of a lookup on demand. Its caller waits for 10 s: after silence about a search domain,
/// the name as written still has its turn.
const CANDIDATE: Duration = Duration::from_secs(3);

/// News of the resolver.
#[derive(Debug)]
pub enum Answer {
    /// What is known of a name now.
    Name {
        /// The name.
        host: String,
        /// What is known of it.
        told: Told,
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
    system: Option<watch::Receiver<Arc<System>>>,
    tasks: HashMap<Followed, JoinHandle<()>>,
    shares: Shares,
    files: Arc<Files>,
    answers: mpsc::Sender<Answer>,
}

/// The lookups that one namespace may have at a time.
struct Turns {
    /// Lookups of both families.
    whole: Semaphore,
    /// Lookups of a family that has failed. Nobody may answer them, so they keep no others waiting.
    alone: Semaphore,
}

/// The turns of each namespace.
#[derive(Default)]
struct Shares(HashMap<String, Arc<Turns>>);

impl Shares {
    fn of(&mut self, namespace: &str) -> Arc<Turns> {
        let turns = || Turns { whole: Semaphore::new(LOOKUPS), alone: Semaphore::new(LOOKUPS) };
        self.0.entry(namespace.to_owned()).or_insert_with(|| Arc::new(turns())).clone()
    }

    /// Forgets namespaces without tasks.
    fn forget_unused(&mut self) {
        self.0.retain(|_, turns| Arc::strong_count(turns) > 1);
    }
}

impl Resolver {
    /// A resolver with the system's settings; answers arrive on the channel. Its sockets count among `files`.
    #[must_use]
    pub fn new(answers: mpsc::Sender<Answer>, files: Arc<Files>) -> Self {
        Self { system: None, tasks: HashMap::new(), shares: Shares::default(), files, answers }
    }

    /// Follows this name, or no longer follows it.
    pub fn set(&mut self, name: Followed, is_used: bool) {
        if !is_used {
            if let Some(task) = self.tasks.remove(&name) {
                task.abort();
            }
        } else if !self.tasks.contains_key(&name) {
            let system = self.system.get_or_insert_with(|| system::follow(self.answers.clone())).clone();
            let turns = self.shares.of(&name.namespace);
            let (files, answers) = (self.files.clone(), self.answers.clone());
            let task = Name { host: name.host.clone(), system, turns, files, answers };
            self.tasks.insert(name, tokio::spawn(name::follow(task)));
        }
        self.shares.forget_unused();
    }
}

/// Resolves names on demand.
#[derive(Default)]
pub struct Lookup(Latest);

impl Lookup {
    /// One address of a name, from the family that answers first.
    ///
    /// # Errors
    /// Why the lookup failed.
    pub async fn one(&mut self, host: &str) -> Result<IpAddr, String> {
        let system = self.0.system();
        if let Some(ip) = system.hosts.addresses(host).and_then(|ips| ips.first()) {
            return Ok(*ip);
        }
        let mut search = Search::new(candidates(host, &system.conf), None);
        let began = Instant::now();
        while let Some(place) = search.next(began.elapsed()) {
            let said = in_time(either(&system, &place)).await;
            search.heard(place, said);
        }
        match search.outcome() {
            Outcome::Nothing(why) => Err(why),
            Outcome::Found { said, .. } => {
                let first = said.both().into_iter().find_map(|said| match said {
                    Said::Addresses { ips, .. } => ips.first().copied(),
                    _ => None,
                });
                first.ok_or_else(|| crate::core::dns::search::NO_ADDRESS.to_owned())
            }
        }
    }
}

/// Waits no longer than [`CANDIDATE`].
async fn in_time(asked: impl Future<Output = Pair<Said>>) -> Pair<Said> {
    let late = || Said::Failed { why: format!("no answer within {} s", CANDIDATE.as_secs()), is_servfail: false };
    timeout(CANDIDATE, asked).await.unwrap_or_else(|_| Pair { four: late(), six: late() })
}

/// Asks for both families of a full name, and waits for one that has addresses, or for both.
async fn either(system: &System, place: &str) -> Pair<Said> {
    let (mut four, mut six) =
        (pin!(ask(system, place, Family::Four, true)), pin!(ask(system, place, Family::Six, true)));
    tokio::select! {
        said = &mut four => {
            let six = if said.has_addresses() { Said::NoData } else { six.await };
            Pair { four: said, six }
        }
        said = &mut six => {
            let four = if said.has_addresses() { Said::NoData } else { four.await };
            Pair { four, six: said }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_about_one_full_name_leaves_time_for_the_next() {
        let began = Instant::now();
        let said = in_time(std::future::pending()).await;
        assert!(said.four.is_failed() && said.six.is_failed());
        assert!(began.elapsed() * 2 < Duration::from_secs(10), "two of them fit into the caller's time");
    }

    #[test]
    fn a_namespace_has_turns_of_its_own_and_no_more_of_them_than_the_bound() {
        let mut shares = Shares::default();
        let (busy, other) = (shares.of("a"), shares.of("b"));
        let held: Vec<_> = (0..LOOKUPS).map(|_| busy.alone.try_acquire().expect("a turn")).collect();
        assert!(shares.of("a").alone.try_acquire().is_err() && other.alone.try_acquire().is_ok());
        assert!(shares.of("a").whole.try_acquire().is_ok(), "families that fail keep no lookup waiting");
        drop(held);
        assert!(shares.of("a").alone.try_acquire().is_ok());
        drop(busy);
        shares.forget_unused();
        assert_eq!(shares.0.keys().collect::<Vec<_>>(), ["b"]);
    }
}
