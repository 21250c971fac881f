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
        // These reasons are normal while a pod starts.
        return (!matches!(reason, "ContainerCreating" | "PodInitializing")).then(|| reason.to_owned());
    }
    let ended = state.terminated.as_ref()?;
    Some(format!("it ended with exit code {}", ended.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check of a pod with a sidecar whose container has this status.
    fn of(status: &str) -> Check {
        let statuses = format!(
            "initContainerStatuses: [{{name: portlane-proxy, image: i, imageID: i, ready: false, restartCount: 0, {status}}}]"
        );
        described(&format!("phase: Running, {statuses}"))
    }

    /// The check of a pod with this status.
    fn described(status: &str) -> Check {
        let text = format!(
            "{{metadata: {{name: p}}, spec: {{initContainers: [{{name: portlane-proxy}}], containers: [{{name: app}}]}}, \
             status: {{{status}}}}}"
        );
        item(&serde_yaml::from_str(&text).expect("a pod"), "portlane-proxy")
    }

    #[test]
    fn a_proxy_runs_once_its_container_has_started_or_is_ready() {
        for (status, outcome, detail) in [
            ("started: true", Outcome::Ok, "the proxy runs"),
            ("started: false", Outcome::Warning, "the proxy is not ready"),
            ("state: {waiting: {reason: ContainerCreating}}", Outcome::Warning, "the proxy is not ready"),
            ("state: {waiting: {reason: PodInitializing}}", Outcome::Warning, "the proxy is not ready"),
            (
                "state: {waiting: {reason: CrashLoopBackOff}}",
                Outcome::Failed,
                "the proxy does not run: CrashLoopBackOff",
            ),
            (
                "started: true, state: {terminated: {exitCode: 3}}",
                Outcome::Failed,
                "the proxy does not run: it ended with exit code 3",
            ),
        ] {
            let check = of(status);
            assert_eq!((check.outcome, check.detail.as_str()), (outcome, detail), "{status}");
        }
        let detail = |status: &str| {
            let container = format!("{{name: portlane-proxy, image: i, imageID: i, {status}}}");
            described(&format!("containerStatuses: [{container}]")).detail
        };
        assert_eq!(detail("ready: true, restartCount: 0"), "the proxy runs");
        assert_eq!(detail("ready: true, restartCount: 1"), "the proxy runs, 1 restart");
        assert_eq!(detail("ready: false, restartCount: 2"), "the proxy is not ready, 2 restarts");
        assert_eq!(described("phase: Pending").detail, "the proxy has not started: the pod is Pending");
    }

    #[test]
    fn a_pod_that_leaves_or_has_no_proxy_says_so() {
        let check = |pod: &str| item(&serde_yaml::from_str(pod).expect("a pod"), "portlane-proxy");
        let leaves = check("{metadata: {name: p, deletionTimestamp: '2026-01-01T00:00:00Z'}}");
        assert_eq!((leaves.outcome, leaves.detail.as_str()), (Outcome::Warning, "is terminating"));
        let bare = check("{metadata: {name: p}, spec: {containers: [{name: app}]}}");
        assert_eq!((bare.outcome, bare.hint.is_some()), (Outcome::Failed, true));
    }

    #[test]
    fn a_pod_has_ended_in_either_way() {
        for (phase, expected) in [("Succeeded", true), ("Failed", true), ("Running", false)] {
            let pod = serde_yaml::from_str(&format!("{{status: {{phase: {phase}}}}}")).expect("a pod");
            assert_eq!(has_ended(&pod), expected, "{phase}");
        }
    }
}
