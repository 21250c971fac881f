//! The sessions of forwards: selects the forwards to query, and makes the notes about the results.

use std::collections::{BTreeSet, HashMap};

use crds::PortForward;
use operator_core::ObjectKey;

use crate::{
    access::{Fetched, Listed, Unknown, items},
    installation::OperatorFacts,
    live::{Of, Reading, unanswered, usable},
    placement::key,
    units::count,
};

/// Most forwards whose sessions are counted, each by a request to the live API.
const COUNTED: usize = 100;

/// The forwards whose sessions are worth a request: those on which an operator has reported, unless no operator serves
/// the live API. A user who may not see operators may still see sessions.
pub fn counted(operators: &[OperatorFacts], forwards: &Fetched<Listed<PortForward>>) -> Vec<Of> {
    if !operators.is_empty() && operators.iter().all(|facts| !facts.operator.serves_live) {
        return Vec::new();
    }
    let is_reported = |forward: &&PortForward| forward.status.as_ref().is_some_and(|it| it.data_plane.is_some());
    let reported = items(forwards).iter().filter(is_reported);
    reported.take(COUNTED).map(|forward| Of::Forward(key(forward))).collect()
}

/// Number of sessions by forward, as far as they were read.
pub(super) fn totals(readings: &[Reading]) -> HashMap<&ObjectKey, u64> {
    let counts = readings.iter().filter_map(|(of, read)| match (of, read) {
        (Of::Forward(key), Ok(list)) => Some((key, list.total)),
        _ => None,
    });
    counts.collect()
}

/// Returns the notes about numbers that are missing or too low, each once.
pub(super) fn notes(
    operators: &[OperatorFacts],
    forwards: &Fetched<Listed<PortForward>>,
    readings: &[Reading],
) -> BTreeSet<String> {
    // With several operators, it is unknown which one serves the API and the forward.
    if !matches!(operators, [only] if only.operator.serves_live) {
        return BTreeSet::new();
    }
    let note = |(_, read): &Reading| match read {
        Ok(list) => unanswered(&list.unanswered),
        // The check of the live API reports this.
        Err(Unknown::NotInstalled) => None,
        Err(Unknown::NoLeader { message }) => {
            Some(format!("no leader of the operator answers for the live API ({message}): see the checks above"))
        }
        Err(why) => Some(why.to_string()),
    };
    let mut notes: BTreeSet<String> = readings.iter().filter_map(note).collect();
    let missing = counted(operators, forwards).len().saturating_sub(readings.len());
    if missing > 0 && usable(readings).is_ok() {
        notes.insert(format!("the sessions of {} were not counted in time", count(missing as u64, "forward")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access::Place, installation::Operator, live::SessionList};

    fn operator(serves_live: bool) -> OperatorFacts {
        let text = || "portlane".to_owned();
        let (namespace, name, lease, service) = (text(), text(), text(), text());
        let (version, webhook, proxy_image, serves_metrics) = (None, None, None, false);
        OperatorFacts {
            operator: Operator {
                namespace,
                name,
                version,
                lease,
                service,
                webhook,
                serves_metrics,
                serves_live,
                proxy_image,
            },
            deployment: k8s_openapi::api::apps::v1::Deployment::default(),
            lease: Ok(None),
            webhook: None,
            endpoints: Ok(Listed::default()),
            metrics: None,
            live: None,
        }
    }

    fn forward(name: &str, status: &str) -> PortForward {
        let text = format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}, namespace: shop}}, spec: \
             {{placement: {{gateway: {{name: edge}}}}, listeners: []}}, status: {status}}}"
        );
        serde_yaml::from_str(&text).expect("a forward")
    }

    /// Two forwards with a report, and one without.
    fn listed() -> Listed<PortForward> {
        let reported = "{dataPlane: {acked: 1, total: 1, summary: 1/1, rejectedCount: 0}}";
        Listed::from(vec![forward("a", reported), forward("unread", "{}"), forward("b", reported)])
    }

    fn of(name: &str) -> Of {
        Of::Forward(ObjectKey::new("shop", name))
    }

    #[test]
    fn sessions_are_counted_where_a_live_api_may_know_them() {
        let known = vec![of("a"), of("b")];
        assert_eq!(counted(&[operator(true)], &Ok(listed())), known);
        assert_eq!(counted(&[operator(false), operator(true)], &Ok(listed())), known);
        assert_eq!(counted(&[], &Ok(listed())), known, "nobody knows what an operator serves that may not be seen");
        assert_eq!(counted(&[operator(false)], &Ok(listed())), Vec::<Of>::new());
    }

    #[test]
    fn no_more_forwards_are_counted_than_the_bound() {
        let reported = "{dataPlane: {acked: 1, total: 1, summary: 1/1, rejectedCount: 0}}";
        let many = (0..=COUNTED).map(|at| forward(&format!("f{at}"), reported)).collect::<Vec<_>>();
        assert_eq!(counted(&[], &Ok(Listed::from(many))).len(), COUNTED);
    }

    #[test]
    fn what_is_missing_is_noted_once_and_only_of_the_one_operator_that_serves_the_api() {
        let list = |unanswered: &[&str]| {
            let unanswered = unanswered.iter().map(|pod| (*pod).to_owned()).collect();
            Ok(SessionList { total: 3, unanswered, ..SessionList::default() })
        };
        let whole = || (of("a"), list(&[]));
        let noted = |readings: &[Reading]| {
            let noted = notes(&[operator(true)], &Ok(listed()), readings);
            assert_eq!(notes(&[operator(false)], &Ok(listed()), readings), BTreeSet::new());
            assert_eq!(notes(&[], &Ok(listed()), readings), BTreeSet::new());
            assert_eq!(notes(&[operator(true), operator(true)], &Ok(listed()), readings), BTreeSet::new());
            noted.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(noted(&[whole(), (of("b"), list(&[]))]), Vec::<String>::new());
        let silent = [(of("a"), list(&["shop/p"])), (of("b"), list(&["shop/p"]))];
        assert_eq!(noted(&silent), ["the proxy of pod shop/p has not answered"]);
        assert_eq!(noted(&[whole()]), ["the sessions of 1 forward were not counted in time"]);
        let resource = || "portforwards.live.portlane.dev/sessions".to_owned();
        let place = || Place::Namespace("shop".to_owned());
        let forbidden = || Err(Unknown::Forbidden { verb: "get", resource: resource(), place: place() });
        let forbidden = noted(&[(of("a"), forbidden()), (of("b"), forbidden())]);
        assert!(matches!(forbidden.as_slice(), [only] if only.contains("ask for `get` on")), "{forbidden:?}");
        let no_leader = Err(Unknown::NoLeader { message: "no endpoints".to_owned() });
        let no_leader = noted(&[(of("a"), no_leader)]);
        assert!(matches!(no_leader.as_slice(), [only] if only.contains("see the checks above")), "{no_leader:?}");
        assert_eq!(noted(&[(of("a"), Err(Unknown::NotInstalled))]), Vec::<String>::new());
    }

    #[test]
    fn a_number_is_known_of_each_forward_that_was_read() {
        let list = SessionList { total: 3, ..SessionList::default() };
        let readings = [(of("a"), Ok(list)), (of("b"), Err(Unknown::NotInstalled))];
        assert_eq!(totals(&readings), HashMap::from([(&ObjectKey::new("shop", "a"), 3)]));
    }
}
