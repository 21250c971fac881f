//! DNS names of backends: the listeners that use them, their last addresses, and since when they fail. Times are
//! seconds of the process clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_api::{Listener, ListenerId, Target};

use crate::core::resolution::dns::families::Resolution;

/// Listeners by the DNS names of their backends.
pub type Users = BTreeMap<String, BTreeSet<ListenerId>>;

/// The names that running listeners use.
#[derive(Debug, Default)]
pub struct Names {
    users: Users,
    /// The names of each listener that uses any.
    of_listener: BTreeMap<ListenerId, BTreeSet<String>>,
    /// Names that have an answer, even a failure.
    heard: BTreeSet<String>,
    /// The last good answer by name; a failure keeps it. Empty after the name left the hosts file.
    addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Names with more addresses than are used.
    truncated: BTreeSet<String>,
    /// Names that were truncated at any time, so that this is already logged.
    ever_truncated: BTreeSet<String>,
    failing_since: BTreeMap<String, u64>,
    /// The failing names, the one that has failed longest first.
    by_time: BTreeSet<(u64, String)>,
}

/// The consequence of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether the targets of the name's users must be refreshed: the addresses changed, or sessions may wait for the
    /// first answer.
    pub changed: bool,
    /// Present if the name has begun to fail or resolves again.
    pub transition: Option<Transition>,
    /// Present if the name has more addresses than are used for the first time: how many more.
    pub truncated: Option<usize>,
}

/// A transition between resolving and failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The name fails, wholly or in one family.
    Fails {
        /// Whether addresses of an earlier answer stay in use.
        keeps: bool,
        /// Whether the name has addresses now, perhaps of the other family only.
        has_addresses: bool,
    },
    /// The name resolves again.
    Resolves,
}

/// Names that do not resolve now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// Count of names.
    pub names: u64,
    /// Seconds since the first failure of the name that has failed longest.
    pub longest_seconds: u64,
}

/// The DNS names that a listener uses.
#[must_use]
pub fn hosts_of(listener: &Listener) -> BTreeSet<String> {
    let host = |target: &Target| match target {
        Target::Address { host, .. } if host.parse::<IpAddr>().is_err() => Some(host.clone()),
        _ => None,
    };
    listener.backends.iter().filter_map(|backend| host(&backend.target)).collect()
}

impl Names {
    /// Sets the names that the listener uses. Names that no listener uses any more are forgotten. Returns the names
    /// that the listener began or ceased to use.
    pub fn set(&mut self, id: &ListenerId, hosts: BTreeSet<String>) -> BTreeSet<String> {
        let before = self.of_listener.remove(id).unwrap_or_default();
        let changed: BTreeSet<String> = before.symmetric_difference(&hosts).cloned().collect();
        for host in &changed {
            if hosts.contains(host) {
                self.users.entry(host.clone()).or_default().insert(id.clone());
            } else if let Some(users) = self.users.get_mut(host) {
                users.remove(id);
                if users.is_empty() {
                    self.forget(host);
                }
            }
        }
        if !hosts.is_empty() {
            self.of_listener.insert(id.clone(), hosts);
        }
        changed
    }

    /// Adds names that the listener uses. Returns those that it did not use before. If several listeners change at
    /// once, all additions come before the first [`Names::set`], so that a name that only changes hands is kept.
    pub fn add(&mut self, id: &ListenerId, hosts: &BTreeSet<String>) -> BTreeSet<String> {
        let before = self.of_listener.get(id).cloned().unwrap_or_default();
        self.set(id, &before | hosts)
    }

    fn forget(&mut self, host: &str) {
        self.users.remove(host);
        self.heard.remove(host);
        self.addresses.remove(host);
        self.truncated.remove(host);
        self.ever_truncated.remove(host);
        self.resolves(host);
    }

    /// Takes the resolution of a name at `now`. A name that fails keeps its last addresses.
    pub fn learn(&mut self, host: &str, resolution: Resolution, now: u64) -> Change {
        // An answer may arrive after its name has been forgotten.
        if !self.users.contains_key(host) {
            return Change::default();
        }
        let Resolution { addresses, left_out, failure } = resolution;
        let is_first = self.heard.insert(host.to_owned());
        let keeps = !self.addresses(host).is_empty();
        let is_new = addresses.as_ref().is_some_and(|addresses| self.addresses.get(host) != Some(addresses));
        if let Some(addresses) = addresses.filter(|_| is_new) {
            self.addresses.insert(host.to_owned(), addresses);
        }
        let transition = if failure.is_some() { self.fails(host, keeps, now) } else { self.resolves(host) };
        let truncated = match left_out {
            0 => {
                self.truncated.remove(host);
                None
            }
            more => {
                self.truncated.insert(host.to_owned());
                // Only once: a name with about as many addresses as the bound would be logged at each answer.
                self.ever_truncated.insert(host.to_owned()).then_some(more)
            }
        };
        Change { changed: is_first || is_new, transition, truncated }
    }

    fn fails(&mut self, host: &str, keeps: bool, now: u64) -> Option<Transition> {
        if self.failing_since.contains_key(host) {
            return None;
        }
        self.failing_since.insert(host.to_owned(), now);
        self.by_time.insert((now, host.to_owned()));
        Some(Transition::Fails { keeps, has_addresses: !self.addresses(host).is_empty() })
    }

    fn resolves(&mut self, host: &str) -> Option<Transition> {
        let since = self.failing_since.remove(host)?;
        self.by_time.remove(&(since, host.to_owned()));
        Some(Transition::Resolves)
    }

    /// Whether a listener uses any name.
    #[must_use]
    pub fn has_any(&self, id: &ListenerId) -> bool {
        self.of_listener.contains_key(id)
    }

    /// The names that are followed.
    pub fn hosts(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    /// The listeners that use a name.
    pub fn users(&self, host: &str) -> impl Iterator<Item = &ListenerId> {
        self.users.get(host).into_iter().flatten()
    }

    /// The last addresses of a name; empty before its first good answer.
    #[must_use]
    pub fn addresses(&self, host: &str) -> &[IpAddr] {
        self.addresses.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a followed name has no answer yet.
    #[must_use]
    pub fn is_awaited(&self, host: &str) -> bool {
        self.users.contains_key(host) && !self.heard.contains(host)
    }

    /// Count of names with more addresses than are used.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated.len() as u64
    }

    /// Whether a followed name does not resolve.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        !self.failing_since.is_empty()
    }

    /// The names that do not resolve at `now`.
    #[must_use]
    pub fn failing(&self, now: u64) -> Failing {
        let longest = self.by_time.first().map(|(since, _)| now.saturating_sub(*since));
        Failing { names: self.failing_since.len() as u64, longest_seconds: longest.unwrap_or(0) }
    }
}
