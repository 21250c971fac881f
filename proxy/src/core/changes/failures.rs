//! Why listeners do not run as configured.

use std::collections::BTreeMap;

use proxy_api::{Configuration, Failure, FailureReason, ListenerId, Offer, SocketKey};

use crate::core::changes::{
    diff::{Blocked, Settled},
    lacking::Why,
};

/// Most ports, besides the first, that a message about a range names.
const NAMED: usize = 7;

/// Failures by listener.
pub type Failures = BTreeMap<ListenerId, Failure>;

/// The failures of a settled plan. `error` returns why a socket could not be opened, and `no_logs` has the reasons why
/// durable listeners cannot run.
pub fn of(
    settled: &Settled,
    error: impl Fn(&SocketKey) -> Option<Why>,
    configuration: &Configuration,
    no_logs: &BTreeMap<ListenerId, String>,
) -> Failures {
    let failure = |(id, blocked): (&ListenerId, &Blocked)| {
        let (reason, message) = match blocked {
            Blocked::Unsupported => match no_logs.get(id) {
                Some(why) => (FailureReason::NoLog, why.clone()),
                None => (FailureReason::Unsupported, unsupported(configuration.listeners.get(id))),
            },
            Blocked::Unbound(sockets) => unbound(sockets, &error),
            Blocked::Held(socket, holder) => (
                FailureReason::SocketHeld,
                format!(
                    "{socket} is still needed by {holder}, which could not be changed; see the message of {holder}"
                ),
            ),
        };
        let serving = settled.next.listeners.get(id).map(|listener| listener.revision.clone());
        (id.clone(), Failure { reason, message, serving })
    };
    settled.blocked.iter().map(failure).collect()
}

/// The listeners whose failure has changed, and the present failure of each; `None`: it has ended.
#[must_use]
pub fn changes<'a>(before: &'a Failures, now: &'a Failures) -> BTreeMap<&'a ListenerId, Option<&'a Failure>> {
    let ended = before.keys().filter(|id| !now.contains_key(*id)).map(|id| (id, None));
    let other = now.iter().filter(|(id, failure)| before.get(*id) != Some(*failure));
    ended.chain(other.map(|(id, failure)| (id, Some(failure)))).collect()
}

fn unsupported(offer: Option<&Offer>) -> String {
    match offer {
        Some(Offer::Unsupported { what, .. }) => {
            format!("this proxy does not support the listener: {what}; upgrade the proxy")
        }
        _ => "this proxy does not support the listener; upgrade the proxy".to_owned(),
    }
}

/// Returns the error of the first socket that could not be opened, and the ports of the others.
fn unbound(sockets: &[SocketKey], error: impl Fn(&SocketKey) -> Option<Why>) -> Why {
    let (reason, message) = match (sockets.iter().find_map(error), sockets.first()) {
        (Some(why), _) => why,
        (None, Some(socket)) => (FailureReason::BindFailed, format!("{socket} could not be opened")),
        (None, None) => (FailureReason::BindFailed, "a socket could not be opened".to_owned()),
    };
    let others: Vec<String> = sockets.iter().skip(1).take(NAMED).map(|socket| socket.port.to_string()).collect();
    if others.is_empty() {
        return (reason, message);
    }
    let more = if sockets.len() > NAMED + 1 { ", …" } else { "" };
    let others = others.join(", ");
    (
        reason,
        format!("{message}; ports {others}{more} could not be opened either; a range is bound whole or not at all"),
    )
}

#[cfg(test)]
mod tests {
    use std::{ops::RangeInclusive, sync::Arc};

    use proxy_api::{Bind, Listener, Origin, Revision, Transport};

    use super::*;
    use crate::{core::changes::diff::Running, fixtures::template};

    fn id(name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", "f"), name)
    }

    fn socket(port: u16) -> SocketKey {
        SocketKey { transport: Transport::Tcp, bind: Bind::Loopback, port }
    }

    fn settled(blocked: Blocked) -> Settled {
        Settled { blocked: BTreeMap::from([(id("a"), blocked)]), ..Settled::default() }
    }

    /// The failure for a socket without a known error.
    fn failure(settled: &Settled) -> Failure {
        of(settled, |_| None, &Configuration::default(), &BTreeMap::new())[&id("a")].clone()
    }

    #[test]
    fn a_failure_names_the_revision_that_keeps_serving() {
        let mut settled = settled(Blocked::Held(socket(1), id("b")));
        let held = failure(&settled);
        assert_eq!((held.reason, &held.serving), (FailureReason::SocketHeld, &None));
        assert!(held.message.starts_with(&format!("{} is still needed by {}", socket(1), id("b"))), "{}", held.message);
        let before = Listener { revision: Revision("before".into()), ..template() };
        settled.next = Running { listeners: BTreeMap::from([(id("a"), Arc::new(before))]), ..Running::default() };
        assert_eq!(failure(&settled).serving, Some(Revision("before".into())));
    }

    #[test]
    fn failures_that_are_new_or_other_than_before_or_have_ended_are_changes() {
        let failures = |all: &[(&str, &str)]| -> Failures {
            let failure = |(name, message): &(&str, &str)| {
                let (reason, message) = (FailureReason::BindFailed, (*message).to_owned());
                (id(name), Failure { reason, message, serving: None })
            };
            all.iter().map(failure).collect()
        };
        let before = failures(&[("ended", "x"), ("other", "x"), ("same", "x")]);
        let now = failures(&[("new", "y"), ("other", "y"), ("same", "x")]);
        let found = changes(&before, &now);
        let expected = ["ended", "new", "other"].map(id);
        assert!(found.keys().copied().eq(&expected), "{found:?}");
        assert!(expected.iter().all(|id| found[id] == now.get(id)), "{found:?}");
        assert!(changes(&now, &now).is_empty());
    }

    #[test]
    fn a_long_range_names_its_first_ports_only() {
        let message =
            |ports: RangeInclusive<u16>| failure(&settled(Blocked::Unbound(ports.map(socket).collect()))).message;
        assert!(message(1..=3).contains("ports 2, 3 could"), "{}", message(1..=3));
        assert!(message(1..=8).contains("ports 2, 3, 4, 5, 6, 7, 8 could"), "{}", message(1..=8));
        assert!(message(1..=9).contains("ports 2, 3, 4, 5, 6, 7, 8, … could"), "{}", message(1..=9));
        assert_eq!(message(1..=1), format!("{} could not be opened", socket(1)));
        assert_eq!(failure(&settled(Blocked::Unbound(Vec::new()))).message, "a socket could not be opened");
    }

    #[test]
    fn the_error_of_the_first_socket_that_has_one_is_told() {
        let settled = settled(Blocked::Unbound((1..=3).map(socket).collect()));
        let error =
            |key: &SocketKey| (key.port > 1).then(|| (FailureReason::AddressInUse, format!("{} is taken", key.port)));
        let failures = of(&settled, error, &Configuration::default(), &BTreeMap::new());
        let failure = &failures[&id("a")];
        assert_eq!(failure.reason, FailureReason::AddressInUse);
        assert!(failure.message.starts_with("2 is taken; ports 2, 3 could"), "{}", failure.message);
    }

    #[test]
    fn what_is_not_supported_is_told_and_so_is_why_there_is_no_log() {
        let settled = settled(Blocked::Unsupported);
        assert_eq!(failure(&settled).reason, FailureReason::Unsupported);
        assert_eq!(failure(&settled).message, "this proxy does not support the listener; upgrade the proxy");
        let (revision, what, raw) = (Revision::default(), "field x".to_owned(), serde_json::Value::Null);
        let listeners = BTreeMap::from([(id("a"), Offer::Unsupported { revision, what, raw })]);
        let configuration = Configuration { listeners, ..Configuration::default() };
        let message = |no_logs: &BTreeMap<ListenerId, String>| {
            let failure = of(&settled, |_| None, &configuration, no_logs)[&id("a")].clone();
            (failure.reason, failure.message)
        };
        let told = "this proxy does not support the listener: field x; upgrade the proxy".to_owned();
        assert_eq!(message(&BTreeMap::new()), (FailureReason::Unsupported, told));
        let no_log = BTreeMap::from([(id("a"), "the disk is full".to_owned())]);
        assert_eq!(message(&no_log), (FailureReason::NoLog, "the disk is full".to_owned()));
    }
}
