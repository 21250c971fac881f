//! Series of durable listeners.

use std::sync::Arc;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

use super::{Labels, family, labels};
use crate::{core::durable::delivery::Seen, shared::Shared};

/// Name and help of a family, and its value.
type Row = (&'static str, &'static str, fn(&Seen) -> u64);

const GAUGES: [Row; 5] = [
    (
        "portlane_durable_oldest_age_seconds",
        "Age of the oldest message that the sink does not have; 0 if it has all.",
        |seen| seen.oldest_seconds,
    ),
    ("portlane_durable_backlog_messages", "Messages that the sink does not have.", |seen| seen.backlog),
    ("portlane_durable_log_bytes", "Bytes of the log on disk.", |seen| seen.bytes),
    ("portlane_durable_log_limit_bytes", "Maximum size of the log, in bytes.", |seen| seen.limit_bytes),
    (
        "portlane_durable_store_failed",
        "1 while the disk is full, or the disk or the NATS server fails, so that messages are not safe.",
        |seen| u64::from(seen.store_fails),
    ),
];

const COUNTERS: [Row; 10] = [
    ("portlane_durable_received", "Messages received from clients.", |seen| seen.received),
    ("portlane_durable_delivered", "Messages that were delivered, as far as this kind of sink confirms it.", |seen| {
        seen.delivered
    }),
    ("portlane_durable_resent", "Messages that were sent again because the sink may not have them.", |seen| {
        seen.resent
    }),
    (
        "portlane_durable_dead_lettered",
        "Messages that were put aside as dead letters because they cannot be delivered.",
        |seen| seen.dead_lettered,
    ),
    ("portlane_durable_truncated", "Messages that were truncated because they were too long.", |seen| seen.truncated),
    ("portlane_durable_kernel_drops", "Datagrams that the system dropped before they were read.", |seen| {
        seen.kernel_drops
    }),
    (
        "portlane_durable_short_reads",
        "Reads from clients that were shortened or delayed because the shared memory for messages was used up.",
        |seen| seen.short_reads,
    ),
    (
        "portlane_durable_intake_panics",
        "Panics while receiving messages: each ended one connection, or restarted the socket of a listener.",
        |seen| seen.panics,
    ),
    ("portlane_durable_lost", "Messages that were lost because the log was damaged or removed.", |seen| seen.lost),
    ("portlane_durable_syncs", "Syncs of messages to the disk.", |seen| seen.syncs),
];

/// The fate of the messages of durable listeners.
pub(super) fn durable_text(out: &mut DescriptorEncoder<'_>, all: &[Arc<Shared>]) -> Result<(), std::fmt::Error> {
    let seen: Vec<(Labels<'_>, Seen)> =
        all.iter().filter_map(|shared| Some((labels(shared), shared.counters.durable()?))).collect();
    let of = |value: fn(&Seen) -> u64| seen.iter().map(move |(labels, seen)| (labels.clone(), value(seen)));
    for (name, help, value) in GAUGES {
        family(out, (name, help), false, of(value))?;
    }
    for (name, help, value) in COUNTERS {
        family(out, (name, help), true, of(value))?;
    }
    sync_seconds(out, &seen)?;
    let dropped = by_reason(&seen, |seen| seen.dropped.as_slice());
    family(out, ("portlane_durable_dropped", "Messages that were dropped, by reason."), true, dropped)?;
    let help = "Connections of clients that were closed because of a limit or of what they sent, by reason.";
    family(out, ("portlane_durable_connections_closed", help), true, by_reason(&seen, |seen| seen.closed.as_slice()))
}

/// Counts of listeners, of which each has several by reason.
fn by_reason<'a>(
    seen: &'a [(Labels<'a>, Seen)],
    counts: fn(&Seen) -> &[(&'static str, u64)],
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    seen.iter().flat_map(move |(labels, seen)| {
        counts(seen).iter().map(move |(reason, count)| {
            let mut labels = labels.clone();
            labels.push(("reason", *reason));
            (labels, *count)
        })
    })
}

/// The time of syncs is fractional, unlike other counters.
fn sync_seconds(out: &mut DescriptorEncoder<'_>, seen: &[(Labels<'_>, Seen)]) -> Result<(), std::fmt::Error> {
    let (name, help) = ("portlane_durable_sync_seconds", "Time that syncs of messages took, in seconds.");
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, seen) in seen {
        ConstCounter::new(seen.sync_time.as_secs_f64()).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::{collector::Collector, encoding::text, registry::Registry};
    use proxy_api::{ListenerId, Origin};

    use super::*;
    use crate::fixtures::template;

    #[derive(Debug)]
    struct Page(Vec<Arc<Shared>>);

    impl Collector for Page {
        fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            durable_text(&mut out, &self.0)
        }
    }

    #[test]
    fn only_durable_listeners_have_series_of_messages() {
        let spec = Arc::new(template());
        let shared = |name: &str| {
            let id = ListenerId::new(Origin::port_forward("ns", "f"), name);
            Shared::new(id, spec.clone(), Arc::default(), Arc::default())
        };
        let (durable, other) = (shared("d"), shared("o"));
        let seen = Seen {
            oldest_seconds: 7,
            store_fails: true,
            received: 3,
            panics: 5,
            truncated: 6,
            dropped: vec![("Full", 2)],
            closed: vec![("SourceLimit", 4)],
            sync_time: Duration::from_millis(1500),
            ..Seen::default()
        };
        durable.counters.show_durable(Some(seen));
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(Page(vec![durable, other])));
        text::encode(&mut text, &registry).expect("a text");
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(series.len(), 18, "{series:#?}");
        let labels = "kind=\"PortForward\",namespace=\"ns\",forward=\"f\",listener=\"d\"";
        assert_eq!(series[0], format!("portlane_durable_oldest_age_seconds{{{labels}}} 7"));
        for line in [
            format!("portlane_durable_dropped_total{{{labels},reason=\"Full\"}} 2"),
            format!("portlane_durable_connections_closed_total{{{labels},reason=\"SourceLimit\"}} 4"),
            format!("portlane_durable_intake_panics_total{{{labels}}} 5"),
            format!("portlane_durable_truncated_total{{{labels}}} 6"),
            format!("portlane_durable_store_failed{{{labels}}} 1"),
            format!("portlane_durable_sync_seconds_total{{{labels}}} 1.5"),
        ] {
            assert!(series.contains(&&*line), "{line}: {series:#?}");
        }
    }
}
