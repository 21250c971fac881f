//! The durable listeners of a cluster: the figures of proxies that report them, and the delivery state in status for
//! the others.

use std::collections::BTreeMap;

use crds::{Delivery, PortForward};
use operator_core::ObjectKey;
use serde::Deserialize;

use super::{Listener, Report, report};
use crate::{
    access::{Fetched, Place, Unknown},
    live::{Of, Request, by_namespace, older, unanswered},
    placement::key,
    units::count,
};

/// The delivery state of a listener that no proxy has reported.
const UNKNOWN: &str = "Unknown";
/// The kind of responses about durable listeners.
const KIND: &str = "LagList";

/// The lag of durable listeners in several proxies: a response of the live API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LagList {
    /// `LagList`. An older operator answers with another kind, as to a request for sessions.
    pub kind: String,
    /// The listeners of each proxy.
    pub items: Vec<Listener>,
    /// Number of listeners of proxies that are not in `items`.
    pub omitted: u64,
    /// Pods whose proxies have not answered, as `NAMESPACE/NAME`.
    pub unanswered: Vec<String>,
    /// Pods whose proxies are too old to report figures.
    pub older: Vec<String>,
}

/// The forwards of a namespace or of the cluster whose durable listeners are queried.
pub type Question = (Place, Vec<ObjectKey>);
/// The answer of the operator, or why there is none.
pub type Answer = Fetched<LagList>;

/// The forwards that have durable listeners.
pub fn durable(forwards: &[PortForward]) -> Vec<ObjectKey> {
    let is_durable = |forward: &&PortForward| forward.spec.listeners.iter().any(|listener| listener.durable.is_some());
    forwards.iter().filter(is_durable).map(key).collect()
}

/// Returns the request for a question: one request covers all of its forwards.
pub fn request((place, forwards): &Question) -> Request {
    let sessions = match forwards.as_slice() {
        [forward] => Request::sessions(&Of::Forward(forward.clone()), 0),
        _ => Request::all(place, 0),
    };
    sessions.lag()
}

/// Returns the questions to ask in place of a refused one. Empty: there are none, or the question was answered.
pub fn instead((place, forwards): &Question, answer: &Answer) -> Vec<Question> {
    if forwards.len() < 2 || !matches!(answer, Err(Unknown::Forbidden { .. })) {
        return Vec::new();
    }
    if *place == Place::Everywhere {
        return by_namespace(forwards.clone());
    }
    forwards.iter().map(|forward| (place.clone(), vec![forward.clone()])).collect()
}

/// Makes the report on the durable listeners of these forwards in each of their proxies. A listener without figures
/// from any proxy is shown as in status.
pub fn of_cluster(forwards: &[PortForward], answers: Vec<Answer>, note: Option<String>) -> Report {
    let mut notes: Vec<String> = note.into_iter().collect();
    let mut told: BTreeMap<String, Vec<Listener>> = BTreeMap::new();
    for answer in answers {
        match understood(answer) {
            Ok(list) => {
                notes.extend(notes_of(&list));
                for listener in list.items {
                    told.entry(listener.listener.clone()).or_default().push(listener);
                }
            }
            Err(why) => notes.push(why.to_string()),
        }
    }
    let (mut rows, mut untold) = (Vec::new(), 0);
    for listener in forwards.iter().flat_map(of_status) {
        if let Some(of_proxies) = told.remove(&listener.listener) {
            rows.extend(of_proxies.into_iter().map(|it| Listener { proxies: listener.proxies.clone(), ..it }));
        } else {
            untold += 1;
            rows.push(listener);
        }
    }
    // A listener that no proxy runs has no figures, so they are not missing from the answers.
    if !notes.is_empty() && untold > 0 {
        let listeners = count(untold, "durable listener");
        notes.push(format!("only the state in status is shown, without figures: {listeners}"));
    }
    notes.sort();
    notes.dedup();
    report(rows, notes)
}

/// Rejects the answer of an older operator, which answers another request because it does not know this one.
fn understood(answer: Answer) -> Answer {
    answer.and_then(|list| if list.kind == KIND { Ok(list) } else { Err(Unknown::Older) })
}

fn notes_of(list: &LagList) -> impl Iterator<Item = String> + use<> {
    let omitted = (list.omitted > 0)
        .then(|| format!("left out, because there are too many to list: {}", count(list.omitted, "durable listener")));
    [omitted, unanswered(&list.unanswered), older(&list.older)].into_iter().flatten()
}

/// The durable listeners of a forward, as listed in status.
fn of_status(forward: &PortForward) -> Vec<Listener> {
    let status = forward.status.as_ref();
    let proxies = status.and_then(|status| Some(status.data_plane.as_ref()?.summary.clone()));
    let delivery = |name: &str| {
        let listeners = status.map(|status| status.listeners.as_slice()).unwrap_or_default();
        listeners.iter().find(|listener| listener.name == name)?.delivery.map(word)
    };
    let durable = forward.spec.listeners.iter().filter(|listener| listener.durable.is_some());
    let row = |name: &str| Listener {
        listener: format!("{}/{name}", key(forward)),
        pod: None,
        delivery: delivery(name).unwrap_or(UNKNOWN).to_owned(),
        proxies: proxies.clone(),
        figures: None,
    };
    durable.map(|listener| row(&listener.name)).collect()
}

const fn word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Flowing => "Flowing",
        Delivery::Behind => "Behind",
        Delivery::Stalled => "Stalled",
        Delivery::Full => "Full",
        Delivery::StoreFailed => "StoreFailed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A forward of this namespace with a listener that is durable, and one that is not.
    fn forward(namespace: &str, name: &str) -> PortForward {
        let text = format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{placement: {{sidecar: {{selector: {{}}}}}}, listeners: [\
             {{name: udp, protocol: UDP, port: 514, durable: {{send: {{udp: {{}}}}}}, backends: []}}, \
             {{name: web, protocol: TCP, port: 80, backends: []}}]}}, \
             status: {{observedGeneration: 1, listeners: [{{name: udp, protocol: UDP, port: 514, delivery: Behind}}]}}}}"
        );
        serde_yaml::from_str(&text).expect("a forward")
    }

    fn list(text: &str) -> LagList {
        serde_yaml::from_str(text).expect("a response")
    }

    /// Listener, pod, delivery and backlog of each row.
    fn rows(report: &Report) -> Vec<(&str, Option<&str>, &str, Option<u64>)> {
        let backlog = |it: &Listener| it.figures.as_ref().map(|figures| figures.backlog);
        let all = report.listeners.iter();
        all.map(|it| (it.listener.as_str(), it.pod.as_deref(), it.delivery.as_str(), backlog(it))).collect()
    }

    #[test]
    fn each_proxy_of_a_forward_has_a_row_and_listeners_of_others_are_not_shown() {
        let answer = list(
            "{kind: LagList, unanswered: [shop/c], older: [shop/d], omitted: 2, items: [\
             {pod: shop/a, listener: shop/logs/udp, delivery: Flowing, backlog: 0}, \
             {pod: shop/b, listener: shop/logs/udp, delivery: Stalled, backlog: 7, oldestSeconds: 40}, \
             {pod: shop/a, listener: shop/other/udp, delivery: Full, backlog: 9}]}",
        );
        let report = of_cluster(&[forward("shop", "logs")], vec![Ok(answer)], Some("cut".to_owned()));
        let all = [
            ("shop/logs/udp", Some("shop/b"), "Stalled", Some(7)),
            ("shop/logs/udp", Some("shop/a"), "Flowing", Some(0)),
        ];
        assert_eq!(rows(&report), all);
        let notes = [
            "cut",
            "left out, because there are too many to list: 2 durable listeners",
            "the proxy of pod shop/c has not answered",
            "the proxy of pod shop/d is too old to report figures; kubectl portlane status shows what to upgrade",
        ];
        assert_eq!(report.notes, notes);
    }

    #[test]
    fn where_the_operator_is_older_status_tells_how_a_forward_delivers_and_the_reason_is_named() {
        let forwards = [forward("shop", "logs"), forward("shop", "audit")];
        let sessions = || Ok(list("{kind: SessionList, total: 4, items: [], unanswered: []}"));
        let report = of_cluster(&forwards, vec![sessions(), sessions()], None);
        let by_status = |listener| (listener, None, "Behind", None);
        assert_eq!(rows(&report), [by_status("shop/audit/udp"), by_status("shop/logs/udp")]);
        let notes = [
            "only the state in status is shown, without figures: 2 durable listeners",
            "the operator is older than this program: upgrade the chart portlane",
        ];
        assert_eq!(report.notes, notes);
    }

    #[test]
    fn a_listener_that_no_proxy_runs_is_as_status_has_it_and_nothing_is_missing() {
        let report = of_cluster(&[forward("shop", "logs")], vec![Ok(list("{kind: LagList}"))], None);
        assert_eq!((rows(&report), report.notes.len()), (vec![("shop/logs/udp", None, "Behind", None)], 0));
    }

    #[test]
    fn forwards_are_asked_about_together_and_one_by_one_where_a_right_is_missing() {
        let plain: PortForward = serde_yaml::from_str(
            "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: web, namespace: shop}, \
             spec: {placement: {sidecar: {selector: {}}}, listeners: []}}",
        )
        .expect("a forward");
        let keys = durable(&[forward("shop", "a"), plain, forward("shop", "b"), forward("net", "c")]);
        let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["shop/a", "shop/b", "net/c"]);

        let refused = |question: &Question| instead(question, &Err(request(question).refused(403, "", "")));
        let all = (Place::Everywhere, keys);
        assert!(request(&all).path.ends_with("/v1alpha1/portforwards/*/sessions?limit=0&lag=true"));
        let namespaces = refused(&all);
        assert_eq!(namespaces.iter().map(|(_, forwards)| forwards.len()).collect::<Vec<_>>(), [1, 2]);
        let each = refused(&namespaces[1]);
        let paths: Vec<String> = each.iter().map(|question| request(question).path).collect();
        let path = |name: &str| {
            format!("/apis/live.portlane.dev/v1alpha1/namespaces/shop/portforwards/{name}/sessions?limit=0&lag=true")
        };
        assert_eq!(paths, [path("a"), path("b")]);
        assert!(refused(&each[0]).is_empty(), "there is no narrower question");
        assert!(instead(&all, &Ok(list("{}"))).is_empty() && instead(&all, &Err(Unknown::NotInstalled)).is_empty());
    }
}
