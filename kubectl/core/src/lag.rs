//! `lag`: what durable listeners have for their sinks. A process on this machine tells all of it; of a cluster, status
//! and the live API have how the listeners deliver.

use std::{cmp::Reverse, slice::from_ref};

use crds::{Delivery, PortForward};
use operator_core::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::{access::Fetched, config::ProxyConfig, placement::key};

/// How listeners deliver, from best to worst.
const WORDS: [&str; 5] = ["Flowing", "Behind", "Stalled", "Full", "StoreFailed"];
/// How a listener delivers of which no proxy has said it.
const UNKNOWN: &str = "Unknown";

/// One durable listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Its name with those of its forward.
    pub listener: String,
    /// The pod of its proxy, as `NAMESPACE/NAME`. Absent: all of its proxies together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// How it delivers, in a word; of several proxies the worst.
    pub delivery: String,
    /// Proxies that run this generation of its forward, out of all that should. Absent: it runs on this machine, or no
    /// operator has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<String>,
    /// What its process counts. Absent: it runs in a cluster, where metrics have them.
    #[serde(flatten)]
    pub figures: Option<Figures>,
}

/// The figures of a listener, as `/lag` of a process tells them. What an earlier release does not tell is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Figures {
    /// Age of the oldest message that the sink does not have; 0 if it has all.
    pub oldest_seconds: u64,
    /// Messages that the sink does not have.
    pub backlog: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Messages that came since the process started.
    pub received: u64,
    /// Messages that the sink took.
    pub delivered: u64,
    /// Messages that were sent once more.
    pub resent: u64,
    /// Messages that were dropped or lost.
    pub dropped: u64,
    /// Messages that were put aside, as the sink refuses them.
    pub dead_lettered: u64,
}

/// Durable listeners, those with the oldest messages first, and among equals those that deliver worst.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// What could not be read, or not completely.
    pub notes: Vec<String>,
}

/// The report on these listeners.
pub fn report(mut listeners: Vec<Listener>, notes: Vec<String>) -> Report {
    listeners.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| (&a.listener, &a.pod).cmp(&(&b.listener, &b.pod))));
    Report { listeners, notes }
}

/// The place among others: age of the oldest message, messages that wait, and how bad it is.
fn rank(listener: &Listener) -> Reverse<(u64, u64, usize)> {
    let (oldest, backlog) =
        listener.figures.as_ref().map_or((0, 0), |figures| (figures.oldest_seconds, figures.backlog));
    let severity = WORDS.iter().position(|word| *word == listener.delivery).map_or(0, |at| at + 1);
    Reverse((oldest, backlog, severity))
}

/// The durable listeners of these forwards, as status has them.
pub fn of_forwards(forwards: &[PortForward]) -> Vec<Listener> {
    forwards.iter().flat_map(of_forward).collect()
}

fn of_forward(forward: &PortForward) -> Vec<Listener> {
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

/// The report on the durable listeners of one forward in each of its proxies. Where no proxy could be asked, it is that
/// of status.
pub fn of_pods(forward: &PortForward, pods: &[(ObjectKey, Fetched<ProxyConfig>)]) -> Report {
    let together = of_forwards(from_ref(forward));
    let is_of_it = |id: &str| together.iter().any(|listener| listener.listener == id);
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for (pod, answer) in pods {
        match answer {
            Ok(config) => rows.extend(config.listeners.iter().filter(|it| is_of_it(&it.id)).map(|it| Listener {
                listener: it.id.clone(),
                pod: Some(pod.to_string()),
                delivery: it.delivery.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
                proxies: None,
                figures: None,
            })),
            Err(why) => notes.push(why.to_string()),
        }
    }
    notes.sort();
    notes.dedup();
    report(if rows.is_empty() { together } else { rows }, notes)
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
    use crate::live::Request;

    /// The forward shop/logs with a listener that is durable, and one that is not.
    fn forward() -> PortForward {
        let text = "{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {name: logs, namespace: shop}, \
            spec: {placement: {sidecar: {selector: {}}}, listeners: [\
            {name: udp, protocol: UDP, port: 514, durable: {send: {udp: {}}}, backends: []}, \
            {name: web, protocol: TCP, port: 80, backends: []}]}, \
            status: {observedGeneration: 1, listeners: [{name: udp, protocol: UDP, port: 514, delivery: Behind}]}}";
        serde_yaml::from_str(text).expect("a forward")
    }

    /// Listener, pod and delivery of each row.
    fn rows(report: &Report) -> Vec<(&str, Option<&str>, &str)> {
        report.listeners.iter().map(|it| (it.listener.as_str(), it.pod.as_deref(), it.delivery.as_str())).collect()
    }

    #[test]
    fn each_proxy_of_a_forward_has_a_row_and_the_worst_is_the_first() {
        let config = |delivery: &str| -> Fetched<ProxyConfig> {
            let text = format!(
                "{{listeners: [{{id: shop/logs/udp, delivery: {delivery}}}, {{id: shop/logs/web}}, \
                 {{id: shop/other/udp, delivery: Full}}]}}"
            );
            Ok(serde_yaml::from_str(&text).expect("a configuration"))
        };
        let pod = |name: &str| ObjectKey::new("shop", name);
        let refused = |name: &str| (pod(name), Err(Request::config(&pod("c")).refused(403, "", "")));
        let pods = [(pod("a"), config("Flowing")), (pod("b"), config("Stalled")), refused("c"), refused("d")];
        let report = of_pods(&forward(), &pods);
        let all = [("shop/logs/udp", Some("shop/b"), "Stalled"), ("shop/logs/udp", Some("shop/a"), "Flowing")];
        assert_eq!(rows(&report), all);
        assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    }

    #[test]
    fn where_no_proxy_can_be_asked_status_tells_how_a_forward_delivers() {
        assert_eq!(rows(&of_pods(&forward(), &[])), [("shop/logs/udp", None, "Behind")]);
    }

    #[test]
    fn the_oldest_messages_are_first_then_the_most_then_the_worst_word_and_then_the_name() {
        let listener = |name: &str, figures: Option<(u64, u64)>, delivery: &str| Listener {
            listener: name.to_owned(),
            delivery: delivery.to_owned(),
            figures: figures.map(|(oldest_seconds, backlog)| Figures { oldest_seconds, backlog, ..Figures::default() }),
            ..Listener::default()
        };
        let all = vec![
            listener("f", None, UNKNOWN),
            listener("h", None, "Flowing"),
            listener("g", None, "Flowing"),
            listener("e", None, "StoreFailed"),
            listener("d", Some((1, 9)), "Behind"),
            listener("c", Some((1, 9)), "Full"),
            listener("b", Some((1, 10)), "Behind"),
            listener("a", Some((2, 1)), "Behind"),
        ];
        let sorted = report(all, Vec::new());
        assert_eq!(rows(&sorted).iter().map(|(name, ..)| *name).collect::<String>(), "abcdeghf");
    }
}
