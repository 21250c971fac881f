//! Why listeners do not run as configured.

use std::collections::BTreeMap;

use proxy_api::{Configuration, Failure, FailureReason, ListenerId, Offer, SocketKey};

use super::{holders::Errors, logs::NoLogs};
use crate::core::diff::{Blocked, Settled};

/// Further ports of a range that a message names.
const NAMED: usize = 7;

/// Failed listeners by name.
pub(super) type Failures = BTreeMap<ListenerId, Failure>;

/// The failures of a settled plan.
pub(super) fn of(settled: &Settled, errors: &Errors, configuration: &Configuration, no_logs: &NoLogs) -> Failures {
    let failure = |(id, blocked): (&ListenerId, &Blocked)| {
        let (reason, message) = match blocked {
            Blocked::Unsupported => match no_logs.get(id) {
                Some(why) => (FailureReason::NoLog, why.clone()),
                None => (FailureReason::Unsupported, unsupported(configuration.listeners.get(id))),
            },
            Blocked::Unbound(sockets) => unbound(sockets, errors),
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

fn unsupported(offer: Option<&Offer>) -> String {
    match offer {
        Some(Offer::Unsupported { what, .. }) => {
            format!("this proxy does not support the listener: {what}; upgrade the proxy")
        }
        _ => "this proxy does not support the listener; upgrade the proxy".to_owned(),
    }
}

/// The error of the first socket that could not be opened, and the ports of the other sockets.
fn unbound(sockets: &[SocketKey], errors: &Errors) -> (FailureReason, String) {
    let known = sockets.iter().find_map(|socket| errors.get(socket));
    let (reason, message) = match (known, sockets.first()) {
        (Some(error), _) => (error.reason, error.to_string()),
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
    use super::*;
    use crate::supervisor::fixtures::{id, listener, listeners, socket};

    fn settled(blocked: Blocked) -> Settled {
        Settled { blocked: BTreeMap::from([(id("a"), blocked)]), ..Settled::default() }
    }

    fn failure(settled: &Settled) -> Failure {
        of(settled, &Errors::new(), &Configuration::default(), &NoLogs::new())[&id("a")].clone()
    }

    #[test]
    fn a_failure_names_the_revision_that_keeps_serving() {
        let mut settled = settled(Blocked::Held(socket(1), id("b")));
        assert_eq!(failure(&settled).serving, None);
        let before = listener(2, "b");
        settled.next.listeners = listeners([("a", before.clone())]);
        assert_eq!(failure(&settled).serving.as_ref(), Some(&before.revision));
    }

    #[test]
    fn a_long_range_names_its_first_ports_only() {
        let short = failure(&settled(Blocked::Unbound((1..=3).map(socket).collect())));
        assert!(short.message.contains("ports 2, 3 could"), "{}", short.message);
        let long = failure(&settled(Blocked::Unbound((1..=20).map(socket).collect())));
        assert!(long.message.contains("ports 2, 3, 4, 5, 6, 7, 8, … could"), "{}", long.message);
        let single = failure(&settled(Blocked::Unbound(vec![socket(1)])));
        assert!(!single.message.contains("ports"), "{}", single.message);
    }
}
