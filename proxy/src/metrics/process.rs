//! The counters, gauges and histograms of the whole process.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{ControlCounters, Metrics, single};
use crate::{process::Process, timings::Histogram};

/// Configurations, streams to operators, buffers, DNS names, and times of sessions.
pub(super) fn process_text(out: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), std::fmt::Error> {
    let Metrics { process, control, .. } = metrics;
    counters_text(out, process, control)?;
    gauges_text(out, process, control)?;
    let histograms = [
        ("portlane_connect_duration_seconds", "Time to connect to an endpoint.", process.timings.connects()),
        ("portlane_session_duration_seconds", "Lifetime of a session.", process.timings.sessions()),
    ];
    for (name, help, Histogram { sum, count, buckets }) in histograms {
        let mut series = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
        series.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

fn counters_text(
    out: &mut DescriptorEncoder<'_>,
    process: &Process,
    control: &ControlCounters,
) -> Result<(), std::fmt::Error> {
    let counters = [
        ("portlane_config_applied", "Configurations applied.", control.applied.load(Relaxed)),
        ("portlane_config_refused", "Configurations refused as a whole.", control.refused.load(Relaxed)),
        (
            "portlane_sockets_refused",
            "Sockets of listeners that were not opened for lack of file descriptors.",
            control.refused_sockets.load(Relaxed),
        ),
        ("portlane_operator_streams", "Streams opened to an operator.", control.operator_streams.load(Relaxed)),
        ("portlane_operator_failures", "Failed or broken operator streams.", control.operator_failures.load(Relaxed)),
        ("portlane_state_failures", "Failures to read or write persisted state.", control.state_failures.load(Relaxed)),
        (
            "portlane_log_records_dropped",
            "Log records dropped because the queue was full or the output failed.",
            process.log.dropped(),
        ),
        (
            "portlane_datagrams_without_port",
            "Datagrams for UDP ports without a socket, in this network namespace, while flows are live.",
            control.no_ports.load(Relaxed),
        ),
    ];
    for (name, help, value) in counters {
        single(out, (name, help), true, value)?;
    }
    Ok(())
}

fn gauges_text(
    out: &mut DescriptorEncoder<'_>,
    process: &Process,
    control: &ControlCounters,
) -> Result<(), std::fmt::Error> {
    let gauges = [
        ("portlane_config_number", "Number of the configuration in force.", control.number.load(Relaxed)),
        ("portlane_operator_connected", "1 while connected to an operator.", control.operator_connected.load(Relaxed)),
        (
            "portlane_listeners_failed",
            "Listeners whose current version could not be applied.",
            control.failed_listeners.load(Relaxed),
        ),
        (
            "portlane_started_without",
            "1 if the app started before the first configuration arrived.",
            control.started_without.load(Relaxed),
        ),
        ("portlane_held_bytes", "Bytes buffered for peers that do not read.", process.budget.held() as u64),
        (
            "portlane_held_limit_bytes",
            "Limit of the bytes buffered for peers that do not read.",
            process.budget.limit() as u64,
        ),
        ("portlane_dns_failing", "DNS names that currently fail to resolve.", control.dns_failing.load(Relaxed)),
        (
            "portlane_dns_failing_seconds",
            "Longest time that a DNS name has failed to resolve; its last answer stays in use.",
            control.dns_failing_seconds.load(Relaxed),
        ),
        ("portlane_dns_truncated", "DNS names with more addresses than are used.", control.dns_truncated.load(Relaxed)),
    ];
    for (name, help, value) in gauges {
        single(out, (name, help), false, value)?;
    }
    Ok(())
}
