//! The pods that should run a forward.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use operator_core::names::PROBLEM;

use crate::{
    access::items,
    check::{Check, Outcome},
    placement,
};

use super::Facts;

/// Most pods that are named; further pods are counted. Pods that need attention are named first.
const NAMED: usize = 20;

/// One item for each pod.
pub(super) fn pods(facts: &Facts) -> Vec<Check> {
    let container = placement::pods(&facts.forward).container;
    let alive = items(&facts.pods).iter().filter(|pod| !has_ended(pod));
    let mut checks: Vec<Check> = alive.map(|pod| item(pod, container)).collect();
    checks.sort_by(|a, b| b.outcome.cmp(&a.outcome).then_with(|| a.name.cmp(&b.name)));
    let more = checks.len().saturating_sub(NAMED);
    if more > 0 {
        let worst = checks.iter().skip(NAMED).map(|check| check.outcome).max().unwrap_or(Outcome::Ok);
        checks.truncate(NAMED);
        checks.push(Check::new("more pods", worst, format!("{more} more pods")));
    }
    checks
}

/// Whether all containers of a pod have ended for good.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The state of the proxy in a pod.
pub(crate) fn item(pod: &Pod, container: &str) -> Check {
    let name = format!("pod {}", pod.metadata.name.as_deref().unwrap_or_default());
    if pod.metadata.deletion_timestamp.is_some() {
        return Check::warning(name, "is terminating");
    }
    if !placement::carries(pod, container) {
        let problem = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(PROBLEM));
        return match problem {
            Some(problem) => Check::failed(name, format!("has no proxy: {problem}")),
            None => Check::failed(name, "has no proxy").hint(
                "set the label portlane.dev/inject: enabled on the pod template, or restart the pods if it is set",
            ),
        };
    }
    let status = pod.status.clone().unwrap_or_default();
    let statuses = || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let Some(proxy) = statuses().find(|found| found.name == container) else {
        let phase = status.phase.as_deref().unwrap_or("Pending");
        return Check::warning(name, format!("the proxy has not started: the pod is {phase}"));
    };
    if let Some(why) = stopped(proxy) {
        return Check::failed(name, format!("the proxy does not run: {why}"));
    }
    let restarts = match proxy.restart_count {
        0 => String::new(),
        1 => ", 1 restart".to_owned(),
        count => format!(", {count} restarts"),
    };
    // A sidecar has a startup probe and no readiness probe.
    if proxy.ready || proxy.started == Some(true) {
        return Check::ok(name, format!("the proxy runs{restarts}"));
    }
    Check::warning(name, format!("the proxy is not ready{restarts}"))
}

/// Why a container does not run.
fn stopped(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        // The usual way of a pod that starts.
        return (!matches!(reason, "ContainerCreating" | "PodInitializing")).then(|| reason.to_owned());
    }
    let ended = state.terminated.as_ref()?;
    Some(format!("it ended with exit code {}", ended.exit_code))
}
