//! What the operator counts, in the text format of Prometheus.

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Counts by one label.
pub type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// Everything that is exposed.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events of watches.
    pub watch_events: Counter,
    /// Watches that failed and were tried again.
    pub watch_errors: Counter,
    /// Time of translations, seconds.
    pub translation: Histogram,
    /// Time from a translation to the last change handed to its streams, seconds.
    pub publish: Histogram,
    /// Snapshots that were published.
    pub snapshots: Counter,
    /// Messages with changes that were sent.
    pub changes: Counter,
    /// Bytes of them.
    pub change_bytes: Counter,
    /// Forwards that not every proxy has told of yet.
    pub outstanding: Gauge,
    /// Proxies with a stream.
    pub proxies: Gauge,
    /// Streams that were refused, by reason.
    pub refused: Labelled,
    /// Streams that ended, by reason.
    pub ended: Labelled,
    /// Parts of reports that said something impossible.
    pub bad_reports: Counter,
    /// Writes of status, by result.
    pub status_writes: Labelled,
    /// Requests to the API server that failed, by what they were for.
    pub api_errors: Labelled,
    /// Events that were written, by result.
    pub events: Labelled,
    /// Applications of children, by result.
    pub children: Labelled,
    /// Notices to the user's webhook, by what became of them.
    pub notices: Labelled,
    /// Writes of what it costs to delete pods, by result.
    pub deletion_costs: Labelled,
    /// Pods that the webhook was asked about, by what became of them.
    pub injections: Labelled,
    /// Time of an answer of the webhook, seconds.
    pub injection: Histogram,
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// Forwards, gateways.
    pub forwards: Gauge,
    /// Objects beyond the limit of a watch.
    pub left_out: Gauge,
    /// When the certificate in use ends, seconds since 1970.
    pub certificate_end: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = || Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
        let mut metrics = Self {
            registry: Registry::with_prefix("portlane_operator"),
            watch_events: Counter::default(),
            watch_errors: Counter::default(),
            translation: buckets(),
            publish: buckets(),
            snapshots: Counter::default(),
            changes: Counter::default(),
            change_bytes: Counter::default(),
            outstanding: Gauge::default(),
            proxies: Gauge::default(),
            refused: Family::default(),
            ended: Family::default(),
            bad_reports: Counter::default(),
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
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("watch_events", "Events of watches", self.watch_events.clone());
        registry.register("watch_errors", "Watches that failed and were tried again", self.watch_errors.clone());
        registry.register("translation_duration_seconds", "Time of a translation", self.translation.clone());
        registry.register("publish_duration_seconds", "Time to hand changes to streams", self.publish.clone());
        registry.register("snapshots", "Configurations published", self.snapshots.clone());
        registry.register("changes_sent", "Messages with changes sent to proxies", self.changes.clone());
        registry.register("change_bytes_sent", "Bytes of changes sent to proxies", self.change_bytes.clone());
        registry.register("forwards_outstanding", "Forwards not told of by every proxy", self.outstanding.clone());
        registry.register("connected_proxies", "Proxies with a stream", self.proxies.clone());
        registry.register("streams_refused", "Streams refused", self.refused.clone());
        registry.register("streams_ended", "Streams that ended", self.ended.clone());
        registry.register("bad_reports", "Reports that said something impossible", self.bad_reports.clone());
        registry.register("status_writes", "Writes of status", self.status_writes.clone());
        registry.register("api_errors", "Failed requests to the API server", self.api_errors.clone());
        registry.register("events", "Events written", self.events.clone());
        registry.register("children_applied", "Children of gateways applied", self.children.clone());
        registry.register("notices", "Notices to the webhook", self.notices.clone());
        registry.register("deletion_costs", "Writes of pod-deletion-cost", self.deletion_costs.clone());
        registry.register("injections", "Pods that the webhook was asked about", self.injections.clone());
        registry.register("injection_duration_seconds", "Time of an answer of the webhook", self.injection.clone());
        registry.register("leader", "1 while this replica leads", self.leader.clone());
        registry.register("forwards", "PortForwards known", self.forwards.clone());
        registry.register("objects_left_out", "Objects beyond the limit of a watch", self.left_out.clone());
        registry.register("certificate_end_seconds", "End of the certificate in use", self.certificate_end.clone());
    }

    /// The text that a scrape gets.
    ///
    /// # Errors
    /// Formatting fails only without memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Counts one.
pub fn count(family: &Labelled, name: &'static str, value: &'static str) {
    family.get_or_create(&[(name, value)]).inc();
}
