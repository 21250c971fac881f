//! DNS names of backends: follows them with the resolver, and says in the log what fails.

use std::{collections::BTreeSet, net::IpAddr};

use proxy_api::ListenerId;
use tokio::sync::mpsc;

use super::notices;
use crate::{
    core::names::{self, Failing, Turned, Users},
    log::{Level, Notice},
    resolver::{Answer, Followed, Resolver},
};

/// The names that running listeners use.
pub(super) struct Names {
    resolver: Resolver,
    names: names::Names,
}

/// The consequence of an answer.
#[derive(Debug)]
pub(super) struct Learnt {
    /// Whether the name has other addresses than before, so that the targets of its users must be refreshed.
    pub(super) changed: bool,
    /// Present if the name has begun to fail or resolves again.
    pub(super) notice: Option<Notice>,
}

impl Names {
    /// An owner without names, whose resolver sends answers through the channel.
    pub(super) fn new(answers: mpsc::Sender<Answer>) -> Self {
        Self { resolver: Resolver::new(answers), names: names::Names::default() }
    }

    /// Follows exactly these names and forgets all others.
    pub(super) fn follow(&mut self, users: Users) {
        let of_host = |(host, listeners): (&String, &BTreeSet<ListenerId>)| {
            let namespaces: BTreeSet<&String> = listeners.iter().map(|id| &id.origin.namespace).collect();
            let followed = |namespace: &String| Followed { namespace: namespace.clone(), host: host.clone() };
            namespaces.into_iter().map(followed).collect::<Vec<_>>()
        };
        let followed: BTreeSet<Followed> = users.iter().flat_map(of_host).collect();
        self.names.follow(users);
        self.resolver.follow(&followed);
    }

    /// Takes an answer that arrived at `now` (seconds of the process clock). A failure is logged once and keeps the last
    /// addresses in use.
    pub(super) fn learn(&mut self, host: &str, addresses: Result<Vec<IpAddr>, String>, now: u64) -> Learnt {
        let (addresses, why) = match addresses {
            Ok(addresses) => (Some(addresses), String::new()),
            Err(why) => (None, why),
        };
        let names::Learnt { changed, turned } = self.names.learn(host, addresses, now);
        let notice = turned.map(|turned| match turned {
            Turned::Resolves => notices::notice(Level::Info, "resolved", host, "the name resolves again"),
            Turned::Fails { keeps } => {
                let kept = if keeps { "; the last answer stays in use" } else { "" };
                notices::notice(Level::Warn, "unresolved", host, format!("does not resolve: {why}{kept}"))
            }
        });
        Learnt { changed, notice }
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
        let mut names = Names::new(mpsc::channel(1).0);
        let users = ["db", "new"].map(|host| (host.to_owned(), BTreeSet::from([id("a")])));
        names.names.follow(users.into());
        assert!(names.learn("db", Ok(vec![IP]), 0).changed);
        let mut failed = |host, now| names.learn(host, Err("timeout".to_owned()), now).notice;
        let message = |notice: Option<Notice>| notice.map(|notice| (notice.event, notice.message));
        let unresolved = |message: &str| Some(("unresolved", message.to_owned()));
        assert_eq!(message(failed("db", 1)), unresolved("does not resolve: timeout; the last answer stays in use"));
        assert_eq!(message(failed("db", 2)), None);
        assert_eq!(message(failed("new", 2)), unresolved("does not resolve: timeout"));
        let back = names.learn("db", Ok(vec![IP]), 3);
        assert_eq!((back.changed, back.notice.map(|notice| notice.event)), (false, Some("resolved")));
    }
}
