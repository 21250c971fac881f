//! What the pods of a siege have counted, and what the system has counted of them.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use k8s_openapi::api::core::v1::Pod;

use super::{EDGE, HEALTH_OF_OPERATOR, HEALTH_OF_PROXY, Siege, address, process_of};
use crate::{attack, http_get_on, until};

/// Most records of sessions that are shown with a refusal.
const RECORDS: usize = 10;

impl Siege<'_> {
    /// Containers of the operator, of the gateway and of the pod with a sidecar that were restarted, with the end of what
    /// each had to say.
    pub fn restarts(&self) -> Vec<String> {
        let mut restarted = Vec::new();
        for pod in self.operators().into_iter().chain(self.proxies()).chain(self.sidecars()) {
            let [name, namespace] = [pod.metadata.name, pod.metadata.namespace].map(Option::unwrap_or_default);
            let status = pod.status.unwrap_or_default();
            let containers =
                [status.container_statuses, status.init_container_statuses].into_iter().flatten().flatten();
            for container in containers.filter(|container| container.restart_count > 0) {
                let last = container.last_state.and_then(|state| state.terminated).unwrap_or_default();
                let of = ["--namespace", &namespace, &name, "--container", &container.name];
                let log = self.node.kubectl(&[&["logs", "--previous", "--tail=15"], &of[..]].concat()).stdout;
                restarted.push(format!(
                    "{name}: {} restarts, the last one after {} with exit code {}:\n{}",
                    container.restart_count,
                    last.reason.unwrap_or_default(),
                    last.exit_code,
                    log,
                ));
            }
        }
        restarted
    }

    /// Sessions of the gateway's clients, but not of the attack, that proxies have cut in the last minute, as they recorded
    /// them. A connection that no listener got has no record.
    pub(super) fn cut(&self) -> String {
        let output =
            self.namespace.kubectl(&["logs", "--selector", EDGE, "--prefix", "--tail=-1", "--since=60s"]).stdout;
        let attacker = self.namespace.get::<Pod>("attacker").as_ref().and_then(address).map(|ip| ip.to_string());
        let of_attack: Vec<String> = attacker
            .iter()
            .map(String::as_str)
            .chain([attack::NAMED_BY_FLOOD])
            .map(|ip| format!("\"client\":\"{ip}:"))
            .collect();
        let has_any = |line: &str, signs: &[String]| signs.iter().any(|sign| line.contains(sign.as_str()));
        let ended = ["Finished", "ClientReset", "Idle"].map(|reason| format!("\"reason\":\"{reason}\""));
        let of_flow = ["\"protocol\":\"UDP\"".to_owned()];
        let is_cut = |line: &&str| {
            line.contains("\"event\":\"session_closed\"")
                && ![&of_attack[..], &ended, &of_flow].into_iter().any(|signs| has_any(line, signs))
        };
        let cut: Vec<&str> = output.lines().rev().filter(is_cut).take(RECORDS).collect();
        cut.join("\n")
    }

    /// Connections and streams that the doors closed by themselves, by door or reason, as counted by the pods that are
    /// there now.
    #[track_caller]
    pub fn closed(&self) -> BTreeMap<String, f64> {
        let mut closed = BTreeMap::new();
        let mut count = |pods: Vec<Pod>, port: u16, series: &str, label: &str| {
            for pod in pods {
                let at = SocketAddr::new(address(&pod).expect("an address"), port);
                let text = self.metrics(at);
                let lines =
                    text.lines().filter_map(|line| line.strip_prefix(series)).filter(|line| line.contains(label));
                let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
                *closed.entry(label.to_owned()).or_default() += values.sum::<f64>();
            }
        };
        for port in ["stream", "webhook", "metrics-api", "health"] {
            let label = format!("port=\"{port}\"");
            count(self.operators(), HEALTH_OF_OPERATOR, "portlane_operator_connections_closed_total", &label);
        }
        // What lying proxies say is garbage, or too large, or one of their streams replaces another.
        for reason in ["garbage", "too_large", "replaced"] {
            let label = format!("reason=\"{reason}\"");
            count(self.operators(), HEALTH_OF_OPERATOR, "portlane_operator_streams_ended_total", &label);
        }
        count(self.proxies(), HEALTH_OF_PROXY, "portlane_http_connections_closed_total", "door=\"health\"");
        // Strangers at the port for agents show no certificate.
        count(self.proxies(), HEALTH_OF_PROXY, "portlane_tunnel_connections_closed_total", "reason=\"handshake\"");
        // What they say is not RELP, or their source has too many sessions for a connection there.
        for family in ["portlane_durable_connections_closed_total", "portlane_connections_closed_total"] {
            count(self.proxies(), HEALTH_OF_PROXY, family, "listener=\"relp\"");
        }
        // Before its server name has arrived, a connection belongs to no listener.
        for family in ["portlane_connections_closed_total", "portlane_connections_unrouted_total"] {
            count(self.proxies(), HEALTH_OF_PROXY, family, "reason=\"HandshakeLimit\"");
        }
        closed
    }

    /// Datagrams that the proxies that are there now have dropped, by the labels of the series.
    #[track_caller]
    pub fn dropped(&self) -> BTreeMap<String, f64> {
        self.counted(&["portlane_datagrams_dropped_total"])
    }

    /// Sessions that the proxies that are there now have closed, and connections that matched no listener, by the labels
    /// of the series.
    #[track_caller]
    pub fn ended(&self) -> BTreeMap<String, f64> {
        self.counted(&["portlane_connections_closed_total", "portlane_connections_unrouted_total"])
    }

    /// Counters of these families at the proxies that are there now, by their labels, without those that are zero.
    #[track_caller]
    fn counted(&self, families: &[&str]) -> BTreeMap<String, f64> {
        let mut counted = BTreeMap::new();
        for pod in self.proxies() {
            let text = self.metrics(SocketAddr::new(address(&pod).expect("an address"), HEALTH_OF_PROXY));
            for family in families {
                let series = text.lines().filter_map(|line| line.strip_prefix(family));
                for (labels, value) in series.filter_map(|line| line.rsplit_once(' ')) {
                    let count: f64 = value.parse().unwrap_or_default();
                    if count > 0.0 {
                        *counted.entry(labels.to_owned()).or_default() += count;
                    }
                }
            }
        }
        counted
    }

    /// What the system has counted of the datagrams for the server `web`, as names and values. `RcvbufErrors` were
    /// dropped because the server did not read them in time.
    #[track_caller]
    pub fn received(&self) -> String {
        let file = format!("/proc/{}/net/snmp", process_of(self.node, "web"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        text.lines().filter(|line| line.starts_with("Udp:")).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn metrics(&self, at: SocketAddr) -> String {
        let mut text = String::new();
        until(&format!("{at} answers a scrape"), || {
            let answer = self.node.connect(at).and_then(|stream| http_get_on(stream, "/metrics"));
            answer.is_ok_and(|(status, body)| {
                text = body;
                status == 200
            })
        });
        text
    }
}
