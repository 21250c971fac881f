//! Writes counters and gauges, and the labels of listeners.

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use proxy_api::Origin;

use super::Labels;
use crate::shared::Shared;

/// The labels of a forward.
pub(super) fn origin_labels(origin: &Origin) -> Labels<'_> {
    vec![("kind", origin.kind.as_str()), ("namespace", &origin.namespace), ("forward", &origin.name)]
}

/// The labels of a listener.
pub(super) fn labels(shared: &Shared) -> Labels<'_> {
    let id = &shared.id;
    let mut labels = origin_labels(&id.origin);
    labels.push(("listener", &id.listener));
    labels
}

/// Counters or gauges of one name, by labels.
pub(super) fn family<'a>(
    out: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    counter: bool,
    series: impl Iterator<Item = (Labels<'a>, u64)>,
) -> Result<(), std::fmt::Error> {
    let mut family = out.encode_descriptor(name, help, None, kind(counter))?;
    for (labels, value) in series {
        encode(family.encode_family(&labels)?, counter, value)?;
    }
    Ok(())
}

/// The only counter or gauge of a name, which has no labels: as most programs write it, without empty braces.
pub(super) fn single(
    out: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    counter: bool,
    value: u64,
) -> Result<(), std::fmt::Error> {
    encode(out.encode_descriptor(name, help, None, kind(counter))?, counter, value)
}

const fn kind(counter: bool) -> MetricType {
    if counter { MetricType::Counter } else { MetricType::Gauge }
}

fn encode(encoder: MetricEncoder<'_>, counter: bool, value: u64) -> Result<(), std::fmt::Error> {
    if counter {
        ConstCounter::new(value).encode(encoder)
    } else {
        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{collector::Collector, encoding::text, registry::Registry};

    use super::*;

    #[derive(Debug)]
    struct Three;

    impl Collector for Three {
        fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            single(&mut out, ("files", "Files."), false, 1)?;
            single(&mut out, ("reads", "Reads."), true, 2)?;
            family(&mut out, ("ports", "Ports."), false, std::iter::once((vec![("door", "admin")], 3)))
        }
    }

    #[test]
    fn a_series_without_labels_has_no_braces() {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(Three));
        text::encode(&mut text, &registry).expect("a text");
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(series, ["files 1", "reads_total 2", "ports{door=\"admin\"} 3"]);
    }
}
