//! The condition `ScalingActive`: whether replicas follow the load, from the state of a `HorizontalPodAutoscaler`.
//! `ScalingActive` never affects `Ready`.

use crate::{
    desired::holder::NoScaler,
    status::conditions::{ConditionType, Finding, Truth},
    world::objects::{AutoscalerCondition, AutoscalerConditions},
};

/// The condition `ScalingActive`. `made` is the result of applying the HPA; `reported` are the conditions of the HPA
/// itself.
#[must_use]
pub fn scaling(made: Result<(), &NoScaler>, reported: Option<&AutoscalerConditions>) -> Finding {
    let finding =
        |status, reason: &str, message: &str| Finding::new(ConditionType::ScalingActive, status, reason, message);
    if let Err(NoScaler { reason, message }) = made {
        return finding(Truth::False, reason, message);
    }
    let pending = || finding(Truth::Unknown, "Pending", "the HorizontalPodAutoscaler has not evaluated its target yet");
    let Some(reported) = reported else { return pending() };
    match (&reported.able, &reported.active) {
        (Some(able), _) if !able.holds => finding(Truth::False, &able.reason, &able.message),
        (_, Some(active)) if active.holds => finding(Truth::True, "ScalingActive", "replicas follow the load"),
        (_, Some(active)) if lacks_provider(active) => finding(
            Truth::False,
            "NoMetricsProvider",
            "the cluster has no provider of custom.metrics.k8s.io, so the replicas stay as they are: set the chart \
             value customMetrics.enabled, or install prometheus-adapter or KEDA (docs/autoscaling.md)",
        ),
        (_, Some(active)) => finding(Truth::False, &active.reason, &active.message),
        _ => pending(),
    }
}

/// Whether the cluster has no custom metrics API at all. An API that fails, or has no values for these pods, causes
/// other messages.
fn lacks_provider(active: &AutoscalerCondition) -> bool {
    let is_metric = ["FailedGetPodsMetric", "FailedGetObjectMetric"].contains(&active.reason.as_str());
    let words = ["no known available metric versions", "registered"];
    is_metric && words.iter().any(|words| active.message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(holds: bool, reason: &str, message: &str) -> AutoscalerCondition {
        AutoscalerCondition { holds, reason: reason.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn conditions_of_an_autoscaler_become_findings_with_a_remedy() {
        let of = |able: Option<AutoscalerCondition>, active: Option<AutoscalerCondition>| {
            scaling(Ok(()), Some(&AutoscalerConditions { able, active }))
        };
        let missing = "unable to get metric portlane_connections: unable to fetch metrics from custom metrics API: \
                       no known available metric versions found";
        assert_eq!(of(None, Some(condition(false, "FailedGetPodsMetric", missing))).reason, "NoMetricsProvider");
        let empty = "unable to fetch metrics from custom metrics API: no metrics returned from custom metrics API";
        assert_eq!(of(None, Some(condition(false, "FailedGetPodsMetric", empty))).reason, "FailedGetPodsMetric");
        assert_eq!(of(Some(condition(false, "FailedGetScale", "x")), None).reason, "FailedGetScale");
        assert_eq!(
            of(Some(condition(true, "y", "")), Some(condition(true, "ValidMetricFound", ""))).status,
            Truth::True
        );
        assert_eq!(of(Some(condition(true, "y", "")), None).status, Truth::Unknown);
        let none = NoScaler { reason: "TargetNotFound", message: "correct the name".into() };
        assert_eq!(scaling(Err(&none), None).message, "correct the name");
    }
}
