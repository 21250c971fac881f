//! Keeps DNS answers up to date.
//!
//! `getaddrinfo` returns no TTL, so names are resolved by hickory, which also reads /etc/hosts. After a failure the
//! last answer stays in use. Each namespace has its own lookups, so that slow or dead names delay only other names of
//! their namespace.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{
    Resolver as Hickory, TokioResolver,
    config::{LookupIpStrategy, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::follow::Stamp;

/// Shortest and longest time between lookups, whatever the TTL.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Most lookups of one namespace at a time, each with a socket for each address family.
const LOOKUPS: usize = 32;
/// Timeout of a lookup.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for the second address family once the first has answered.
const SECOND_FAMILY: Duration = Duration::from_millis(300);
/// System files with resolver settings.
const SETTINGS: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
const NO_ADDRESS: &str = "no such name, or no addresses";

/// Result of a lookup.
#[derive(Debug)]
pub struct Answer {
    /// The name.
    pub host: String,
    /// Addresses, sorted, or the error.
    pub addresses: Result<Vec<IpAddr>, String>,
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
    system: Arc<Mutex<System>>,
    tasks: HashMap<Followed, JoinHandle<()>>,
    turns: Turns,
    answers: mpsc::Sender<Answer>,
}

/// The lookups that each namespace may have at a time.
#[derive(Default)]
struct Turns(HashMap<String, Arc<Semaphore>>);

impl Turns {
    fn of(&mut self, namespace: &str) -> Arc<Semaphore> {
        self.0.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(LOOKUPS))).clone()
    }

    /// Forgets namespaces without tasks.
    fn forget_unused(&mut self) {
        self.0.retain(|_, turns| Arc::strong_count(turns) > 1);
    }
}

impl Resolver {
    /// A resolver with the system's settings; answers arrive on the channel.
    #[must_use]
    pub fn new(answers: mpsc::Sender<Answer>) -> Self {
        Self { system: Arc::default(), tasks: HashMap::new(), turns: Turns::default(), answers }
    }

    /// Follows exactly these names.
    pub fn follow(&mut self, names: &BTreeSet<Followed>) {
        self.tasks.retain(|name, task| {
            let wanted = names.contains(name);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for name in names {
            if !self.tasks.contains_key(name) {
                let turns = self.turns.of(&name.namespace);
                let task = tokio::spawn(follow(self.system.clone(), name.host.clone(), turns, self.answers.clone()));
                self.tasks.insert(name.clone(), task);
            }
        }
        self.turns.forget_unused();
    }
}

/// One resolver per address family, so that neither waits for the other.
#[derive(Clone)]
struct Pair {
    four: TokioResolver,
    six: TokioResolver,
}

/// Resolvers with the system's settings, rebuilt when the settings change, as when a laptop changes networks.
#[derive(Default)]
struct System {
    settings: Vec<Option<Stamp>>,
    pair: Option<Arc<Pair>>,
}

impl System {
    fn pair(&mut self) -> Result<Arc<Pair>, String> {
        let settings: Vec<Option<Stamp>> = SETTINGS.iter().map(|path| Stamp::of(Path::new(path)).ok()).collect();
        if let Some(pair) = self.pair.as_ref().filter(|_| self.settings == settings) {
            return Ok(pair.clone());
        }
        let four = hickory(LookupIpStrategy::Ipv4Only)?;
        let pair = Arc::new(Pair { four, six: hickory(LookupIpStrategy::Ipv6Only)? });
        self.settings = settings;
        self.pair = Some(pair.clone());
        Ok(pair)
    }
}

fn hickory(strategy: LookupIpStrategy) -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        // The hosts file works without resolv.conf.
        Hickory::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    options.ip_strategy = strategy;
    options.timeout = Duration::from_secs(2);
    // Find a name that reappears at the next lookup.
    options.negative_max_ttl = Some(Duration::from_secs(1));
    builder.build().map_err(|error| error.to_string())
}

/// Follows a name, also after a lookup has panicked.
async fn follow(system: Arc<Mutex<System>>, host: String, turns: Arc<Semaphore>, answers: mpsc::Sender<Answer>) {
    loop {
        let mut lookups = JoinSet::new();
        lookups.spawn(look_up(system.clone(), host.clone(), turns.clone(), answers.clone()));
        let ended = lookups.join_next().await;
        if !ended.is_some_and(|ended| ended.is_err_and(|error| error.is_panic())) {
            return;
        }
        let addresses = Err("the lookup has ended unexpectedly, see standard error".to_owned());
        if answers.send(Answer { host: host.clone(), addresses }).await.is_err() {
            return;
        }
        sleep(TTL.0).await;
    }
}

async fn look_up(system: Arc<Mutex<System>>, host: String, turns: Arc<Semaphore>, answers: mpsc::Sender<Answer>) {
    loop {
        let turn = turns.acquire().await;
        let pair = system.lock().unwrap_or_else(PoisonError::into_inner).pair();
        let (addresses, wait) = match pair {
            Ok(pair) => ask(&pair, &host).await,
            Err(error) => (Err(error), TTL.1),
        };
        drop(turn);
        if answers.send(Answer { host: host.clone(), addresses }).await.is_err() {
            return;
        }
        sleep(wait).await;
    }
}

/// Resolves names on demand.
#[derive(Default)]
pub struct Lookup(System);

impl Lookup {
    /// One address of a name, from the family that answers first.
    ///
    /// # Errors
    /// Why the lookup failed.
    pub async fn one(&mut self, host: &str) -> Result<IpAddr, String> {
        let pair = self.0.pair()?;
        let (mut four, mut six) = (pin!(ask_one(&pair.four, host)), pin!(ask_one(&pair.six, host)));
        let first_of =
            |found: Found| found.and_then(|found| found.0.first().copied().ok_or_else(|| NO_ADDRESS.to_owned()));
        tokio::select! {
            found = &mut four => match first_of(found) {
                Ok(ip) => Ok(ip),
                Err(error) => first_of(six.await).map_err(|_| error),
            },
            found = &mut six => match first_of(found) {
                Ok(ip) => Ok(ip),
                Err(_) => first_of(four.await),
            },
        }
    }
}

type Found = Result<(BTreeSet<IpAddr>, Instant), String>;

/// Looks up both families at once. Once one has answered, the other gets a short extra time.
async fn ask(pair: &Pair, host: &str) -> (Result<Vec<IpAddr>, String>, Duration) {
    let (mut four, mut six) = (pin!(ask_one(&pair.four, host)), pin!(ask_one(&pair.six, host)));
    let late = || Err("lookup timed out".to_owned());
    let (a, b) = tokio::select! {
        a = &mut four => {
            let longest = if a.is_ok() { SECOND_FAMILY } else { PATIENCE };
            (a, timeout(longest, six).await.unwrap_or_else(|_| late()))
        }
        b = &mut six => {
            let longest = if b.is_ok() { SECOND_FAMILY } else { PATIENCE };
            (timeout(longest, four).await.unwrap_or_else(|_| late()), b)
        }
    };
    join(a, b)
}

fn join(a: Found, b: Found) -> (Result<Vec<IpAddr>, String>, Duration) {
    let until = [&a, &b].iter().filter_map(|found| found.as_ref().ok().map(|found| found.1)).min();
    let wait = until.map_or(TTL.0, |until| until.saturating_duration_since(Instant::now()).clamp(TTL.0, TTL.1));
    let addresses: BTreeSet<IpAddr> =
        [&a, &b].iter().filter_map(|found| found.as_ref().ok()).flat_map(|f| f.0.clone()).collect();
    match (addresses.is_empty(), a, b) {
        (false, _, _) => (Ok(addresses.into_iter().collect()), wait),
        (true, Err(error), _) | (true, Ok(_), Err(error)) => (Err(error), wait),
        (true, Ok(_), Ok(_)) => (Err(NO_ADDRESS.to_owned()), wait),
    }
}

async fn ask_one(hickory: &TokioResolver, host: &str) -> Found {
    match timeout(PATIENCE, hickory.lookup_ip(host)).await {
        Err(_) => Err(format!("lookup timed out after {} s", PATIENCE.as_secs())),
        Ok(Err(error)) if error.is_no_records_found() => Err(NO_ADDRESS.to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(found)) => Ok((found.iter().collect(), found.valid_until())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "type of the function under test")]
    fn found(ip: IpAddr, seconds: u64) -> Found {
        Ok((BTreeSet::from([ip]), Instant::now() + Duration::from_secs(seconds)))
    }

    #[test]
    fn a_namespace_has_turns_of_its_own_and_no_more_of_them_than_the_bound() {
        let mut turns = Turns::default();
        let (busy, other) = (turns.of("a"), turns.of("b"));
        let held: Vec<_> = (0..LOOKUPS).map(|_| busy.try_acquire().expect("a turn")).collect();
        assert!(turns.of("a").try_acquire().is_err() && other.try_acquire().is_ok());
        drop(held);
        assert!(turns.of("a").try_acquire().is_ok());
        drop(busy);
        turns.forget_unused();
        assert_eq!(turns.0.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_one_family_answers_is_used_although_the_other_fails() {
        let four = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let (addresses, _) = join(found(four, 60), Err("timeout".to_owned()));
        assert_eq!(addresses, Ok(vec![four]));
        let (addresses, _) = join(Err("timeout".to_owned()), Err(NO_ADDRESS.to_owned()));
        assert_eq!(addresses, Err("timeout".to_owned()));
    }

    #[test]
    fn times_to_live_are_kept_within_bounds_and_the_shorter_one_counts() {
        let (four, six) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(join(found(four, 1), found(six, 900)).1, TTL.0);
        assert_eq!(join(found(four, 900), found(six, 900)).1, TTL.1);
        let (_, wait) = join(found(four, 60), found(six, 900));
        assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(60), "{wait:?}");
    }
}
