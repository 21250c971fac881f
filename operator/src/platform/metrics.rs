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
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("watch_events", "Events received from watches", self.watch_events.clone());
        registry.register("watch_errors", "Watches that failed and were retried", self.watch_errors.clone());
        registry.register("watches_refused", "Watches that a namespace refuses, by kind", self.watches_refused.clone());
        registry.register("crd_checks", "Checks of the installed CRDs, by result", self.crd_checks.clone());
        let missing = self.crd_fields_missing.clone();
        registry.register("crd_fields_missing", "Fields that the installed CRD lacks, by kind", missing);
        let ignored = self.crd_fields_ignored.clone();
        registry.register("crd_fields_ignored", "Fields of the installed CRD that are ignored, by kind", ignored);
        registry.register("translation_duration_seconds", "Duration of translations", self.translation.clone());
        registry.register("publish_duration_seconds", "Duration of handing changes to streams", self.publish.clone());
        registry.register("snapshots", "Published snapshots", self.snapshots.clone());
        registry.register("changes_sent", "Messages with changes sent to proxies", self.changes.clone());
        registry.register("change_bytes_sent", "Bytes of changes sent to proxies", self.change_bytes.clone());
        registry.register("forwards_outstanding", "Forwards not reported on by every proxy", self.outstanding.clone());
        registry.register("connected_proxies", "Proxies with an open stream", self.proxies.clone());
        registry.register("proxies", "Proxies with an open stream, by version", self.proxy_versions.clone());
        let outdated = self.sidecars_outdated.clone();
        registry.register("sidecars_outdated", "Sidecars with another image than new pods get, by namespace", outdated);
        registry.register("fleets", "Fleets of gateways, by state of their rollout", self.fleets.clone());
        registry.register("connections_closed", "Connections closed, by port and reason", self.closed.clone());
        registry.register("token_reviews", "Reviews of proxies' tokens, by result", self.reviews.clone());
        registry.register("proxies_cut_off", "Proxies that do not trust the operator's CA", self.cut_off.clone());
        registry.register("streams_refused", "Streams that were refused, by reason", self.refused.clone());
        registry.register("streams_ended", "Streams that ended, by reason", self.ended.clone());
        registry.register("bad_reports", "Reports about a version that was never sent", self.bad_reports.clone());
        registry.register("inquiries", "Questions to proxies about sessions, by result", self.inquiries.clone());
        registry.register("status_writes", "Status writes, by result", self.status_writes.clone());
        registry.register("api_errors", "Failed requests to the API server, by purpose", self.api_errors.clone());
        registry.register("events", "Writes of Events, by result", self.events.clone());
        registry.register("children_applied", "Applies of children and HPAs, by result", self.children.clone());
        registry.register("notices", "Notices to the user's webhook, by result", self.notices.clone());
        registry.register("deletion_costs", "Writes of pod-deletion-cost, by result", self.deletion_costs.clone());
        registry.register("injections", "Admission reviews of pods by the webhook, by result", self.injections.clone());
        registry.register("injection_duration_seconds", "Duration of admission reviews", self.injection.clone());
        registry.register("leader", "1 while this replica leads", self.leader.clone());
        registry.register("forwards", "PortForwards in the cache", self.forwards.clone());
        registry.register("objects_left_out", "Objects left out beyond the limit of a watch", self.left_out.clone());
        registry.register("certificate_end_seconds", "Certificate expiry, Unix time", self.certificate_end.clone());
        let (end, checks) = (self.serving_end.clone(), self.serving_checks.clone());
        registry.register("serving_certificate_end_seconds", "Expiry of the certificate of the Secret, Unix time", end);
        registry.register("serving_certificate_checks", "Checks of the certificate of the Secret, by result", checks);
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
