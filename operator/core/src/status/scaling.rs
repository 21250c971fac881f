//! Whether replicas follow the load, as a condition: from what became of a `HorizontalPodAutoscaler`. It never enters `Ready`.

use crate::{
    status::conditions::Finding,
    world::objects::{AutoscalerCondition, AutoscalerConditions},
};

/// Why there is none: one word, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoScaler {
    /// One word.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// The condition `ScalingActive`: of a scaler that could not be made, or of what it says.
#[must_use]
pub fn scaling(made: Result<(), &NoScaler>, told: Option<&AutoscalerConditions>) -> Finding {
    let finding = |status, reason: &str, message: &str| Finding::new("ScalingActive", status, reason, message);
    if let Err(NoScaler { reason, message }) = made {
        return finding("False", reason, message);
    }
    let pending = || finding("Unknown", "Pending", "the HorizontalPodAutoscaler has not looked at its target yet");
    let Some(told) = told else { return pending() };
    match (&told.able, &told.active) {
        (Some(able), _) if !able.holds => finding("False", &able.reason, &able.message),
        (_, Some(active)) if active.holds => finding("True", "ScalingActive", "replicas follow the load"),
        (_, Some(active)) if lacks_provider(active) => finding(
            "False",
            "NoMetricsProvider",
            "nobody serves custom.metrics.k8s.io: set customMetrics.enabled in the chart, or use prometheus-adapter or KEDA \
             (docs/autoscaling.md); the number of replicas stays as it is",
        ),
        (_, Some(active)) => finding("False", &active.reason, &active.message),
        _ => pending(),
    }
}

/// Whether there is no API for metrics of pods at all; one that fails, or has none for these pods, says so in other words.
fn lacks_provider(active: &AutoscalerCondition) -> bool {
    let asks = ["FailedGetPodsMetric", "FailedGetObjectMetric"].contains(&active.reason.as_str());
    let words = ["no known available metric versions", "registered"];
    asks && words.iter().any(|words| active.message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(holds: bool, reason: &str, message: &str) -> AutoscalerCondition {
        AutoscalerCondition { holds, reason: reason.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn what_an_autoscaler_says_is_said_in_the_words_of_what_to_do() {
        let of = |able: Option<AutoscalerCondition>, active: Option<AutoscalerCondition>| {
            scaling(Ok(()), Some(&AutoscalerConditions { able, active }))
        };
        let missing = "unable to get metric portlane_connections: unable to fetch metrics from custom metrics API: \
                       no known available metric versions found";
        assert_eq!(of(None, Some(told(false, "FailedGetPodsMetric", missing))).reason, "NoMetricsProvider");
        let empty = "unable to fetch metrics from custom metrics API: no metrics returned from custom metrics API";
        assert_eq!(of(None, Some(told(false, "FailedGetPodsMetric", empty))).reason, "FailedGetPodsMetric");
        assert_eq!(of(Some(told(false, "FailedGetScale", "x")), None).reason, "FailedGetScale");
        assert_eq!(of(Some(told(true, "y", "")), Some(told(true, "ValidMetricFound", ""))).status, "True");
        assert_eq!(of(Some(told(true, "y", "")), None).status, "Unknown");
        let none = NoScaler { reason: "TargetNotFound", message: "mend the name".into() };
        assert_eq!(scaling(Err(&none), None).message, "mend the name");
    }
}
