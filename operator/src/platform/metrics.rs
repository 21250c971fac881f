//! Metrics of the operator, in the text format of Prometheus.

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Counters with one label.
pub type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// Gauges with one label.
pub type LabelledGauge = Family<[(&'static str, &'static str); 1], Gauge>;
/// Counters with two labels.
pub type TwiceLabelled = Family<[(&'static str, &'static str); 2], Counter>;

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events received from watches.
    pub watch_events: Counter,
    /// Watches that failed and were retried.
    pub watch_errors: Counter,
    /// Watches that the API server refuses in a namespace of `--watch-namespaces`, by kind.
    pub watches_refused: LabelledGauge,
    /// Checks of the installed CRDs, by result.
    pub crd_checks: Labelled,
    /// Fields of a kind that the installed CRD lacks, so that the API server drops them; by kind.
    pub crd_fields_missing: Family<[(&'static str, String); 1], Gauge>,
    /// Fields of the installed CRD that this operator ignores; by kind.
    pub crd_fields_ignored: Family<[(&'static str, String); 1], Gauge>,
    /// Duration of translations, seconds.
    pub translation: Histogram,
    /// Time from the end of a translation until its last snapshot is handed to the streams, seconds.
    pub publish: Histogram,
    /// Snapshots that were published.
    pub snapshots: Counter,
    /// Messages with changes that were sent to proxies.
    pub changes: Counter,
    /// Bytes of the changes that were sent to proxies.
    pub change_bytes: Counter,
    /// Forwards that at least one proxy has not reported on yet.
    pub outstanding: Gauge,
    /// Forwards that are not ready, by reason.
    pub not_ready: Family<[(&'static str, String); 1], Gauge>,
    /// Proxies with an open stream.
    pub proxies: Gauge,
    /// Proxies with an open stream, by version of their software.
    pub proxy_versions: Family<[(&'static str, String); 1], Gauge>,
    /// Sidecars whose image is not that of new pods, by namespace.
    pub sidecars_outdated: Family<[(&'static str, String); 1], Gauge>,
    /// Fleets of gateways, by the state of their rollout.
    pub fleets: LabelledGauge,
    /// Connections that a port closed, by port and reason.
    pub closed: TwiceLabelled,
    /// `TokenReview`s that proxies caused, by result.
    pub reviews: Labelled,
    /// Proxies that are older than the operator's CA and have no stream.
    pub cut_off: Gauge,
    /// Streams that were refused, by reason.
    pub refused: Labelled,
    /// Streams that ended, by reason.
    pub ended: Labelled,
    /// Reports about a version that was never sent.
    pub bad_reports: Counter,
    /// Questions to proxies about live sessions, by result.
    pub inquiries: Labelled,
    /// Requests of proxies for certificates of tunnels, by result.
    pub tunnel_certificates: Labelled,
    /// Checks of the Secrets of agents, by result.
    pub enrolment_secrets: Labelled,
    /// Roots of the tunnels that were removed.
    pub tunnel_roots_removed: Counter,
    /// Status writes, by result.
    pub status_writes: Labelled,
    /// Failed requests to the API server, by purpose.
    pub api_errors: Labelled,
    /// Writes of Events, by result.
    pub events: Labelled,
    /// Applies of gateways' children and of autoscalers, by result.
    pub children: Labelled,
    /// Notices to the user's webhook, by result.
    pub notices: Labelled,
    /// Writes of the pod-deletion-cost annotation, by result.
    pub deletion_costs: Labelled,
    /// Admission reviews of pods by the webhook, by result.
    pub injections: Labelled,
    /// Duration of admission reviews by the webhook, seconds.
    pub injection: Histogram,
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// Forwards in the cache.
    pub forwards: Gauge,
    /// Objects that the cache leaves out because a watch exceeds its limit.
    pub left_out: Gauge,
    /// Expiry of the serving certificate, seconds since 1970; 0 while the certificate is missing.
    pub certificate_end: Gauge,
    /// Expiry of the certificate of `--serving-secret`, seconds since 1970; 0 while there is none.
    pub serving_end: Gauge,
    /// Checks of the certificate of `--serving-secret`, by result.
    pub serving_checks: Labelled,
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = || Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
        let mut metrics = Self {
            registry: Registry::with_prefix("portlane_operator"),
            watch_events: Counter::default(),
            watch_errors: Counter::default(),
            watches_refused: Family::default(),
            crd_checks: Family::default(),
            crd_fields_missing: Family::default(),
            crd_fields_ignored: Family::default(),
            translation: buckets(),
            publish: buckets(),
            snapshots: Counter::default(),
            changes: Counter::default(),
            change_bytes: Counter::default(),
            outstanding: Gauge::default(),
            not_ready: Family::default(),
            proxies: Gauge::default(),
            proxy_versions: Family::default(),
            sidecars_outdated: Family::default(),
            fleets: Family::default(),
            closed: Family::default(),
            reviews: Family::default(),
            cut_off: Gauge::default(),
            refused: Family::default(),
            ended: Family::default(),
            bad_reports: Counter::default(),
            inquiries: Family::default(),
            tunnel_certificates: Family::default(),
            enrolment_secrets: Family::default(),
            tunnel_roots_removed: Counter::default(),
            status_writes: Family::default(),
            api_errors: Family::default(),
            events: Family::default(),
            children: Family::default(),
            notices: Family::default(),
            deletion_costs: Family::default(),
            injections: Family::default(),
            injection: Histogram::new([0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1]),
            leader: Gauge::default(),
            forwards: Gauge::default(),
            left_out: Gauge::default(),
            certificate_end: Gauge::default(),
            serving_end: Gauge::default(),
            serving_checks: Family::default(),
        };
        metrics.register();
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        self.register_inputs();
        self.register_translation();
        self.register_proxies();
        self.register_outputs();
    }

    fn register_inputs(&mut self) {
        let registry = &mut self.registry;
        registry.register("watch_events", "Events received from watches of the API server", self.watch_events.clone());
        registry.register("watch_errors", "Watches that failed and were retried", self.watch_errors.clone());
        let help = "Watches that the API server refuses in namespaces of --watch-namespaces, by kind";
        registry.register("watches_refused", help, self.watches_refused.clone());
        let help = "Comparisons of the installed CRDs with the operator's, by result";
        registry.register("crd_checks", help, self.crd_checks.clone());
        let help = "Fields that the installed CRD lacks, so that the API server drops them, by kind";
        registry.register("crd_fields_missing", help, self.crd_fields_missing.clone());
        let help = "Fields of the installed CRD that this operator does not know, and ignores, by kind";
        registry.register("crd_fields_ignored", help, self.crd_fields_ignored.clone());
        registry.register("forwards", "PortForwards in the cache", self.forwards.clone());
        let help = "Objects that are not cached, because there are more of a kind than --max-objects";
        registry.register("objects_left_out", help, self.left_out.clone());
        registry.register("injections", "Admission reviews of pods by the webhook, by result", self.injections.clone());
        registry.register("injection_duration_seconds", "Time of an admission review of a pod", self.injection.clone());
    }

    fn register_translation(&mut self) {
        let registry = &mut self.registry;
        let help = "Time of a translation of the changed objects into configurations";
        registry.register("translation_duration_seconds", help, self.translation.clone());
        let help = "Time to hand the changes of a translation to the streams of proxies";
        registry.register("publish_duration_seconds", help, self.publish.clone());
        let help = "Configurations published, one for each group of proxies that changed";
        registry.register("snapshots", help, self.snapshots.clone());
        registry.register("changes_sent", "Messages with changes that were sent to proxies", self.changes.clone());
        registry.register("sent_bytes", "Size of the changes that were sent to proxies", self.change_bytes.clone());
        let help = "PortForwards that not every proxy has reported on";
        registry.register("forwards_outstanding", help, self.outstanding.clone());
        let help = "PortForwards whose condition Ready is not True, by reason";
        registry.register("forwards_not_ready", help, self.not_ready.clone());
    }

    fn register_proxies(&mut self) {
        let registry = &mut self.registry;
        registry.register("connected_proxies", "Proxies with an open stream", self.proxies.clone());
        let help = "Proxies with an open stream, by the version of their software";
        registry.register("proxies", help, self.proxy_versions.clone());
        let help = "Sidecars whose image is not that of new pods, by namespace";
        registry.register("sidecars_outdated", help, self.sidecars_outdated.clone());
        registry.register("fleets", "Fleets of gateways, by the state of their rollout", self.fleets.clone());
        let help = "Proxies without a stream that are older than the operator's CA";
        registry.register("proxies_cut_off", help, self.cut_off.clone());
        let help =
            "Connections to the operator that were closed because of a limit or a failed handshake, by port and reason";
        registry.register("connections_closed", help, self.closed.clone());
        registry.register("token_reviews", "Reviews of proxies' tokens, by result", self.reviews.clone());
        registry.register("streams_refused", "Streams of proxies that were refused, by reason", self.refused.clone());
        registry.register("streams_ended", "Streams of proxies that ended, by reason", self.ended.clone());
        let help = "Reports of proxies about a configuration that was never sent";
        registry.register("bad_reports", help, self.bad_reports.clone());
        registry.register("inquiries", "Queries to proxies about live sessions, by result", self.inquiries.clone());
        let help = "Requests of proxies for certificates of tunnels, by result";
        registry.register("tunnel_certificates", help, self.tunnel_certificates.clone());
    }

    fn register_outputs(&mut self) {
        let registry = &mut self.registry;
        registry.register("status_writes", "Writes of status, by result", self.status_writes.clone());
        let help = "Failed requests to the API server, by purpose; watches have a metric of their own";
        registry.register("api_errors", help, self.api_errors.clone());
        registry.register("events", "Writes of Events, by result", self.events.clone());
        let help = "Applies of the objects of gateways, and of HPAs, by result";
        registry.register("children_applied", help, self.children.clone());
        let help = "Checks of the Secrets with the join strings of agents, by result";
        registry.register("enrolment_secrets", help, self.enrolment_secrets.clone());
        let help = "Unused root CAs of tunnels that were removed";
        registry.register("tunnel_roots_removed", help, self.tunnel_roots_removed.clone());
        registry.register("notices", "Notices to the user's webhook, by result", self.notices.clone());
        let help = "Writes of the annotation pod-deletion-cost, by result";
        registry.register("deletion_costs", help, self.deletion_costs.clone());
        registry.register("leader", "1 while this replica leads, else 0", self.leader.clone());
        let help = "Unix time at which the serving certificate expires; 0 while it is missing";
        registry.register("certificate_expiry_timestamp_seconds", help, self.certificate_end.clone());
        let help = "Unix time at which the certificate of --serving-secret expires; 0 while there is none";
        registry.register("serving_certificate_expiry_timestamp_seconds", help, self.serving_end.clone());
        let help = "Reads of the certificate of --serving-secret, by result";
        registry.register("serving_certificate_checks", help, self.serving_checks.clone());
    }

    /// Creates the series of each counter with a closed set of labels. A counter whose first series begins at 1 hides
    /// the first event from `rate` and `increase`.
    fn begin_at_zero(&self) {
        let families: [(&Labelled, &'static str, &[&'static str]); 15] = [
            (&self.crd_checks, "result", &["complete", "outdated", "failed"]),
            (&self.reviews, "result", &["authenticated", "recent", "busy", "refused", "unavailable"]),
            (
                &self.refused,
                "reason",
                &["not_leader", "not_synced", "unknown_pod", "unexpected_pod", "identity", "busy"],
            ),
            (&self.ended, "reason", &["proxy", "replaced", "slow", "garbage", "too_large", "busy"]),
            (&self.tunnel_certificates, "result", &["issued", "refused", "unavailable", "limited"]),
            (&self.enrolment_secrets, "result", &["kept", "written", "failed"]),
            (&self.status_writes, "result", &["written", "outdated", "failed"]),
            (&self.api_errors, "request", &["certificates", "lease", "status", "webhook", "discovery", "unfinished"]),
            (&self.inquiries, "result", &["answered", "timeout", "refused", "limited", "ignored", "busy"]),
            (
                &self.serving_checks,
                "result",
                &["good", "missing", "unusable", "expired", "not_yet_valid", "other_names", "untrusted", "failed"],
            ),
            (&self.events, "result", &["written", "limited", "dropped", "failed"]),
            (&self.children, "result", &["applied", "repaired", "outdated", "failed"]),
            (&self.notices, "result", &["sent", "dropped", "failed"]),
            (&self.deletion_costs, "result", &["written", "outdated", "failed"]),
            (&self.injections, "result", &["injected", "carried", "left", "refused", "too_complex"]),
        ];
        for (family, label, values) in families {
            for value in values {
                family.get_or_create(&[(label, *value)]).inc_by(0);
            }
        }
    }

    /// The text that answers a scrape.
    ///
    /// # Errors
    /// Encoding fails only if memory runs out.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Adds one to the counter with this label.
pub fn count(family: &Labelled, name: &'static str, value: &'static str) {
    family.get_or_create(&[(name, value)]).inc();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/metrics.md");
    /// The section of the page.
    const SECTION: &str = "\n## Operator\n";

    /// Name, type, labels and help of a metric.
    type Row = [String; 4];

    /// The metrics of a scrape. Counters have their suffix; the label `le` of histograms is left out.
    fn served(text: &str) -> BTreeSet<Row> {
        let mut rows = BTreeSet::new();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            let kind = lines[at + 1].rsplit(' ').next().unwrap_or_default();
            let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            let series = lines[at + 2].strip_prefix(&format!("{name}{{")).unwrap_or_default();
            let labels: Vec<String> = series
                .split(',')
                .filter_map(|label| label.split_once("=\""))
                .map(|(label, _)| format!("`{label}`"))
                .collect();
            rows.insert([name, kind.to_owned(), labels.join(", "), help.to_owned()]);
        }
        rows
    }

    /// The rows of the section: `NAME` | type | `LABEL`, `LABEL` | help.
    fn listed() -> BTreeSet<Row> {
        let (_, section) = PAGE.split_once(SECTION).expect(SECTION);
        let section = section.split("\n## ").next().unwrap_or_default();
        let row = |line: &str| -> Option<Row> {
            let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
            let [name, kind, labels, help, _] = cells[..] else { return None };
            Some([name.trim_end_matches('`'), kind, labels, help].map(str::to_owned))
        };
        section.lines().filter_map(row).collect()
    }

    #[test]
    fn the_page_lists_every_metric_of_the_operator_and_no_others() {
        let metrics = Metrics::default();
        // A family without series is not served.
        metrics.watches_refused.get_or_create(&[("kind", "Service")]).set(0);
        metrics.crd_fields_missing.get_or_create(&[("kind", "PortForward".to_owned())]).set(0);
        metrics.crd_fields_ignored.get_or_create(&[("kind", "PortForward".to_owned())]).set(0);
        metrics.not_ready.get_or_create(&[("reason", "Pending".to_owned())]).set(0);
        metrics.sidecars_outdated.get_or_create(&[("namespace", "shop".to_owned())]).set(0);
        metrics.fleets.get_or_create(&[("state", "current")]).set(0);
        metrics.proxy_versions.get_or_create(&[("version", "0.1.0".to_owned())]).set(0);
        metrics.closed.get_or_create(&[("port", "stream"), ("reason", "full")]).inc();
        let (served, listed) = (served(&metrics.text().expect("a text")), listed());
        let missing: Vec<_> = served.difference(&listed).collect();
        let unknown: Vec<_> = listed.difference(&served).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "not on the page: {missing:#?}; on the page only: {unknown:#?}"
        );
    }

    #[test]
    fn counters_with_known_labels_begin_at_zero() {
        let text = Metrics::default().text().expect("a text");
        assert!(text.contains("\nportlane_operator_api_errors_total{request=\"status\"} 0\n"), "{text}");
    }
}
