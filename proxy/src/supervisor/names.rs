//! DNS names of backends: follows them with the resolver, and logs failures.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use proxy_api::{Listener, ListenerId};
use tokio::sync::mpsc;

use super::notices;
use crate::{
    core::resolution::{
        dns::families::{MOST_ADDRESSES, Resolution},
        names::{self, Failing, Transition},
    },
    files::Files,
    lives::Lives,
    log::{Level, Notice},
    resolver::{Followed, News, Resolver},
};

/// The names that running listeners use.
pub(super) struct Names {
    resolver: Resolver,
    names: names::Names,
}

/// The consequence of an answer.
#[derive(Debug)]
pub(super) struct Change {
    /// Whether the targets of the name's users must be refreshed.
    pub(super) changed: bool,
    /// Whether the name has begun to fail, resolves again, or has too many addresses for the first time.
    pub(super) notices: Vec<Notice>,
}

impl Names {
    /// Creates an owner without names. Its resolver sends answers to `answers`, and counts its sockets among `files`.
    pub(super) fn new(answers: mpsc::Sender<News>, files: Arc<Files>, lives: Arc<Lives>) -> Self {
        Self { resolver: Resolver::new(answers, files, lives), names: names::Names::default() }
    }

    /// Creates an owner whose answers are dropped.
    #[cfg(test)]
    pub(super) fn without_receiver() -> Self {
        Self::new(mpsc::channel(1).0, Arc::new(Files::new(0)), Lives::new(crate::clock::Clock::start()))
    }

    /// Adds the names of these backends for a listener that will use them. Call this for all changed listeners before
    /// [`Names::set`], so that names whose users change keep their addresses.
    pub(super) fn add(&mut self, id: &ListenerId, listener: &Listener) {
        let changed = self.names.add(id, &names::hosts_of(listener));
        self.follow(id, changed);
    }

    /// Sets the names that a listener uses to those of these backends; `None`: the listener is gone.
    pub(super) fn set(&mut self, id: &ListenerId, listener: Option<&Listener>) {
        let changed = self.names.set(id, listener.map(names::hosts_of).unwrap_or_default());
        self.follow(id, changed);
    }

    /// Tells the resolver of names that this listener has begun or ceased to use.
    fn follow(&mut self, id: &ListenerId, changed: BTreeSet<String>) {
        let namespace = &id.origin.namespace;
        for host in changed {
            let is_used = self.names.users(&host).any(|user| user.origin.namespace == *namespace);
            self.resolver.set(Followed { namespace: namespace.clone(), host }, is_used);
        }
    }

    /// Takes the resolution of a name at `now` (seconds of the process clock). A failure is logged once and keeps the
    /// last addresses in use.
    pub(super) fn learn(&mut self, host: &str, resolution: Resolution, now: u64) -> Change {
        let why = resolution.failure.clone().unwrap_or_default();
        let names::Change { changed, transition, truncated } = self.names.learn(host, resolution, now);
        let transition = transition.map(|transition| match transition {
            Transition::Resolves => notices::notice(Level::Info, "resolved", host, "the name resolves again"),
            Transition::Fails { keeps, has_addresses } => {
                let kept = match (keeps, has_addresses) {
                    (true, _) => "; the last answer stays in use",
                    (false, true) => "; the other addresses are in use",
                    (false, false) => "",
                };
                notices::notice(Level::Warn, "unresolved", host, format!("does not resolve: {why}{kept}"))
            }
        });
        let truncated = truncated.map(|more| {
            let message = format!(
                "has {} addresses, of which {MOST_ADDRESSES} are used, always the same ones",
                MOST_ADDRESSES.saturating_add(more)
            );
            notices::notice(Level::Warn, "truncated", host, message)
        });
        Change { changed, notices: transition.into_iter().chain(truncated).collect() }
    }

    /// A notice about parts of the system's settings that could not be read.
    pub(super) fn unreadable(problems: &[String]) -> Notice {
        let message = format!("{}; everything else is in force", problems.join("; "));
        notices::notice(Level::Warn, "resolver", "settings of the resolver", message)
    }

    /// How long ago a lookup of the listener's namespace was last found to have waited too long for its turn. `None` also
    /// for a listener without names, which no lookup delays.
    pub(super) fn since_long_wait(&self, id: &ListenerId) -> Option<Duration> {
        if !self.names.has_any(id) {
            return None;
        }
        self.resolver.since_long_wait(&id.origin.namespace)
    }

    /// Whether a name has no answer yet.
    pub(super) fn is_awaited(&self, host: &str) -> bool {
        self.names.is_awaited(host)
    }

    /// Count of names with more addresses than are used.
    pub(super) fn truncated(&self) -> u64 {
        self.names.truncated()
    }

    /// The listeners that use a name.
    pub(super) fn users(&self, host: &str) -> impl Iterator<Item = &ListenerId> {
        self.names.users(host)
    }

    /// The last addresses of a name; empty before its first good answer.
    pub(super) fn addresses(&self, host: &str) -> &[IpAddr] {
        self.names.addresses(host)
    }

    /// Whether a followed name does not resolve.
    pub(super) fn is_failing(&self) -> bool {
        self.names.is_failing()
    }

    /// The names that do not resolve at `now`.
    pub(super) fn failing(&self, now: u64) -> Failing {
        self.names.failing(now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::supervisor::fixtures::id;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn a_failure_is_noticed_once_and_says_whether_an_answer_stays_in_use() {
        let mut names = Names::without_receiver();
        names.names.set(&id("a"), BTreeSet::from(["db", "new", "half"].map(str::to_owned)));
        let good = Resolution { addresses: Some(vec![IP]), ..Resolution::default() };
        assert!(names.learn("db", good.clone(), 0).changed);
        let why = Resolution { failure: Some("timeout".to_owned()), ..Resolution::default() };
        let mut failed = |host, now| names.learn(host, why.clone(), now).notices;
        let message = |notices: Vec<Notice>| -> Vec<(&'static str, String)> {
            notices.into_iter().map(|notice| (notice.event, notice.message)).collect()
        };
        let unresolved = |message: &str| vec![("unresolved", message.to_owned())];
        assert_eq!(message(failed("db", 1)), unresolved("does not resolve: timeout; the last answer stays in use"));
        assert_eq!(message(failed("db", 2)), vec![]);
        assert_eq!(message(failed("new", 2)), unresolved("does not resolve: timeout"));
        let partly = Resolution { failure: Some("its IPv6 addresses: timeout".to_owned()), ..good.clone() };
        assert_eq!(
            message(names.learn("half", partly, 2).notices),
            unresolved("does not resolve: its IPv6 addresses: timeout; the other addresses are in use")
        );
        let back = names.learn("db", good, 3);
        let events: Vec<&str> = back.notices.iter().map(|notice| notice.event).collect();
        assert_eq!((back.changed, events), (false, vec!["resolved"]));
    }

    #[test]
    fn an_answer_that_is_truncated_says_how_large_it_was() {
        let mut names = Names::without_receiver();
        names.names.set(&id("a"), BTreeSet::from(["db".to_owned()]));
        let large = Resolution { addresses: Some(vec![IP]), left_out: 44, failure: None };
        let notices = names.learn("db", large, 0).notices;
        let messages: Vec<&str> = notices.iter().map(|notice| notice.message.as_str()).collect();
        assert_eq!(
            (messages, names.truncated()),
            (vec!["has 300 addresses, of which 256 are used, always the same ones"], 1)
        );
    }
}
