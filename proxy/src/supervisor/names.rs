//! DNS names of backends: which names are followed, their last addresses, and when they began to fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proxy_api::{Listener, ListenerId, Target};
use tokio::{sync::mpsc, time::Instant};

use super::notices;
use crate::{
    log::{Level, Notice},
    resolver::{Answer, Followed, Resolver},
};

/// The names that running listeners use.
pub(super) struct Names {
    resolver: Resolver,
    /// The last good answer by name; a failure keeps it.
    addresses: BTreeMap<String, Vec<IpAddr>>,
    failing_since: BTreeMap<String, Instant>,
}

/// The consequence of an answer.
#[derive(Debug)]
pub(super) struct Learnt {
    /// Whether the name has addresses, so that targets must be refreshed.
    pub(super) resolved: bool,
    /// Present if the name has begun to fail or resolves again.
    pub(super) notice: Option<Notice>,
}

/// Names that do not resolve now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failing {
    /// Count of names.
    pub(super) names: u64,
    /// Seconds since the first failure of the name that has failed longest.
    pub(super) longest_seconds: u64,
}

impl Names {
    /// An owner without names, whose resolver sends answers through the channel.
    pub(super) fn new(answers: mpsc::Sender<Answer>) -> Self {
        Self { resolver: Resolver::new(answers), addresses: BTreeMap::new(), failing_since: BTreeMap::new() }
    }

    /// Follows exactly these names and forgets all others.
    pub(super) fn follow(&mut self, names: &BTreeSet<Followed>) {
        let hosts: BTreeSet<&String> = names.iter().map(|name| &name.host).collect();
        self.addresses.retain(|host, _| hosts.contains(host));
        self.failing_since.retain(|host, _| hosts.contains(host));
        self.resolver.follow(names);
    }

    /// Takes an answer that arrived at `now`. A failure is logged once and keeps the last addresses in use.
    pub(super) fn learn(&mut self, answer: Answer, now: Instant) -> Learnt {
        let Answer { host, addresses } = answer;
        match addresses {
            Ok(addresses) => {
                let was_failing = self.failing_since.remove(&host).is_some();
                let notice =
                    was_failing.then(|| notices::notice(Level::Info, "resolved", &host, "the name resolves again"));
                self.addresses.insert(host, addresses);
                Learnt { resolved: true, notice }
            }
            Err(why) => {
                let is_new = !self.failing_since.contains_key(&host);
                let notice = is_new.then(|| self.unresolved(&host, &why));
                self.failing_since.entry(host).or_insert(now);
                Learnt { resolved: false, notice }
            }
        }
    }

    fn unresolved(&self, host: &str, why: &str) -> Notice {
        let kept = if self.addresses.contains_key(host) { "; the last answer stays in use" } else { "" };
        notices::notice(Level::Warn, "unresolved", host, format!("does not resolve: {why}{kept}"))
    }

    /// The last addresses of a name; empty before its first good answer.
    pub(super) fn addresses(&self, host: &str) -> &[IpAddr] {
        self.addresses.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a followed name does not resolve.
    pub(super) fn is_failing(&self) -> bool {
        !self.failing_since.is_empty()
    }

    /// The names that do not resolve at `now`.
    pub(super) fn failing(&self, now: Instant) -> Failing {
        let longest = self.failing_since.values().map(|since| now.saturating_duration_since(*since).as_secs()).max();
        Failing { names: self.failing_since.len() as u64, longest_seconds: longest.unwrap_or(0) }
    }
}

/// The DNS names among the backends of these listeners.
pub(super) fn followed(listeners: &BTreeMap<ListenerId, Arc<Listener>>) -> BTreeSet<Followed> {
    let of_listener = |(id, listener): (&ListenerId, &Arc<Listener>)| {
        let names = listener.backends.iter().filter_map(|backend| match &backend.target {
            Target::Address { host, .. } if host.parse::<IpAddr>().is_err() => Some(host.clone()),
            _ => None,
        });
        names.map(|host| Followed { namespace: id.origin.namespace.clone(), host }).collect::<Vec<_>>()
    };
    listeners.iter().flat_map(of_listener).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn names() -> Names {
        Names::new(mpsc::channel(1).0)
    }

    fn answer(addresses: Result<Vec<IpAddr>, &str>) -> Answer {
        Answer { host: "db".to_owned(), addresses: addresses.map_err(str::to_owned) }
    }

    #[test]
    fn nothing_is_noticed_while_a_name_keeps_resolving() {
        let (mut names, start) = (names(), Instant::now());
        for second in 0..3 {
            let learnt = names.learn(answer(Ok(vec![IP])), start + Duration::from_secs(second));
            assert!(learnt.resolved && learnt.notice.is_none());
        }
        assert!(!names.is_failing());
        assert_eq!(names.failing(start + Duration::from_secs(60)), Failing::default());
    }

    #[test]
    fn a_failure_is_noticed_once_keeps_the_addresses_and_counts_from_its_start() {
        let (mut names, start) = (names(), Instant::now());
        names.learn(answer(Ok(vec![IP])), start);
        let notices: Vec<bool> = (1..4)
            .map(|second| names.learn(answer(Err("timeout")), start + Duration::from_secs(second)).notice.is_some())
            .collect();
        assert_eq!(notices, [true, false, false]);
        assert_eq!(names.addresses("db"), [IP]);
        assert_eq!(names.failing(start + Duration::from_secs(11)), Failing { names: 1, longest_seconds: 10 });
        let learnt = names.learn(answer(Ok(vec![IP])), start + Duration::from_secs(12));
        assert_eq!(learnt.notice.map(|notice| notice.event), Some("resolved"));
        assert!(!names.is_failing());
    }

    #[test]
    fn a_name_that_no_listener_uses_is_forgotten() {
        let mut names = names();
        names.learn(answer(Err("timeout")), Instant::now());
        names.follow(&BTreeSet::new());
        assert!(!names.is_failing() && names.addresses("db").is_empty());
    }
}
