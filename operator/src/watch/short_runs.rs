//! Containers whose last run ended with an error soon after its start, as the status of their pod tells.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use operator_core::{ShortRun, Then};

use crate::inject::CONTAINER;

/// What a container ends with that was told to end, or was killed.
const TOLD_TO_END: [i32; 2] = [128 + 9, 128 + 15];

/// The short runs of a pod, at most one of each container.
pub(super) fn short_runs(pod: &Pod) -> Vec<ShortRun> {
    let Some(status) = pod.status.as_ref() else { return Vec::new() };
    if pod.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let is_app = |container: &&ContainerStatus| container.name != CONTAINER;
    let apps = status.container_statuses.iter().flatten().filter(is_app);
    if status.phase.as_deref() == Some("Failed") {
        return failed(pod, apps).into_iter().filter(ShortRun::is_short).collect();
    }
    // Other sidecars may listen too; plain init containers may need their doors, and end.
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let stays = |name: &str| {
        init.clone().any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = status.init_container_statuses.iter().flatten().filter(is_app);
    let sidecars = sidecars.filter(|container| stays(&container.name));
    apps.chain(sidecars).filter_map(restarted).filter(ShortRun::is_short).collect()
}

/// The app with which a pod failed that is not restarted. One that a node put out says why.
fn failed<'a>(pod: &Pod, apps: impl Iterator<Item = &'a ContainerStatus>) -> Option<ShortRun> {
    let policy = pod.spec.as_ref()?.restart_policy.as_deref();
    let status = pod.status.as_ref()?;
    let disrupted = status.conditions.iter().flatten().any(|condition| condition.type_ == "DisruptionTarget");
    if policy != Some("Never") || status.reason.is_some() || disrupted {
        return None;
    }
    let ends = apps.filter_map(|container| Some((&container.name, container.state.as_ref()?.terminated.as_ref()?)));
    let ends: Vec<(&String, &ContainerStateTerminated)> = ends.collect();
    let finished = |end: &ContainerStateTerminated| end.finished_at.as_ref().map(|at| at.0.as_second());
    let since = ends.iter().filter_map(|(_, end)| finished(end)).max()?;
    let (name, first) = ends.into_iter().filter(|(_, end)| is_own(end)).min_by_key(|(_, end)| finished(end))?;
    Some(ShortRun {
        container: name.clone(),
        exit_code: first.exit_code,
        seconds: seconds(first)?,
        then: Then::Failed { since },
    })
}

fn restarted(status: &ContainerStatus) -> Option<ShortRun> {
    let state = status.state.as_ref()?;
    let last = state.terminated.as_ref().or_else(|| status.last_state.as_ref()?.terminated.as_ref())?;
    if !is_own(last) {
        return None;
    }
    let restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let ended = last.finished_at.as_ref()?.0.as_second();
    let waits = |wait: Option<u32>| Then::Waits { restart: restarts.saturating_add(1), since: ended, wait };
    let then = match (&state.running, &state.waiting) {
        (Some(running), _) => Then::Runs { restart: restarts, since: running.started_at.as_ref()?.0.as_second() },
        (_, Some(waiting)) if waiting.reason.as_deref() == Some("CrashLoopBackOff") => {
            // One that cannot be read is a short one.
            waits(Some(waiting.message.as_deref().and_then(back_off).unwrap_or(0)))
        }
        // Its image, say, cannot be had just now.
        _ => waits(None),
    };
    Some(ShortRun { container: status.name.clone(), exit_code: last.exit_code, seconds: seconds(last)?, then })
}

/// Whether a container ended by itself, with an error. One that the machine ended, or that never ran, did not end of a port.
fn is_own(end: &ContainerStateTerminated) -> bool {
    end.exit_code != 0 && !TOLD_TO_END.contains(&end.exit_code) && end.reason.as_deref() == Some("Error")
}

fn seconds(end: &ContainerStateTerminated) -> Option<u32> {
    let (from, to) = (end.started_at.as_ref()?.0.as_second(), end.finished_at.as_ref()?.0.as_second());
    Some(u32::try_from(to - from).unwrap_or(0))
}

/// Seconds that kubelet waits, by what it says: `back-off 1m20s restarting failed container=...`.
fn back_off(message: &str) -> Option<u32> {
    let text = message.strip_prefix("back-off ")?.split(' ').next()?;
    let (minutes, seconds) = text.split_once('m').unwrap_or(("0", text));
    let seconds = seconds.strip_suffix('s')?.split('.').next()?;
    minutes.parse::<u32>().ok()?.checked_mul(60)?.checked_add(seconds.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(mut status: Value, phase: &str, policy: &str) -> Vec<ShortRun> {
        status["phase"] = json!(phase);
        let spec = json!({
            "restartPolicy": policy,
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "migrate"}, {"name": CONTAINER, "restartPolicy": "Always"}, {"name": "logs", "restartPolicy": "Always"}],
        });
        short_runs(&serde_json::from_value(json!({"spec": spec, "status": status})).expect("a pod"))
    }

    /// A run of seven seconds.
    fn end(reason: &str, code: i32) -> Value {
        json!({
            "exitCode": code, "reason": reason, "startedAt": "1970-01-01T00:00:53Z", "finishedAt": "1970-01-01T00:01:00Z",
        })
    }

    fn container(name: &str, restarts: i32, state: &Value, ended: &Value) -> Value {
        json!({
            "name": name, "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
            "lastState": {"terminated": ended},
        })
    }

    fn run(container: &str, then: Then) -> ShortRun {
        ShortRun { container: container.to_owned(), exit_code: 1, seconds: 7, then }
    }

    #[test]
    fn apps_that_end_by_themselves_are_found() {
        let app = |state: Value, ended: Value| {
            found(json!({"containerStatuses": [container("app", 3, &state, &ended)]}), "Running", "Always")
        };
        let waits = |wait: Option<u32>| [run("app", Then::Waits { restart: 4, since: 60, wait })];
        let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "back-off 1m20s restarting failed container=app"}});
        assert_eq!(app(json!({"terminated": end("Error", 1)}), json!(null)), waits(None));
        assert_eq!(app(waiting("CrashLoopBackOff"), end("Error", 1)), waits(Some(80)));
        let running = json!({"running": {"startedAt": "1970-01-01T00:02:00Z"}});
        assert_eq!(app(running, end("Error", 1)), [run("app", Then::Runs { restart: 3, since: 120 })]);
        for (reason, code) in
            [("OOMKilled", 137), ("Error", 137), ("Error", 143), ("StartError", 128), ("Completed", 0)]
        {
            assert_eq!(app(waiting("CrashLoopBackOff"), end(reason, code)), [], "{reason} {code}");
        }
        assert_eq!(app(waiting("ImagePullBackOff"), end("Error", 1)), waits(None), "the row goes on");
        let long = json!({
            "exitCode": 1, "reason": "Error", "startedAt": "1970-01-01T00:00:00Z", "finishedAt": "1970-01-01T00:01:01Z",
        });
        assert_eq!(app(waiting("CrashLoopBackOff"), long), []);
    }

    #[test]
    fn how_long_kubelet_waits_is_read() {
        for (text, seconds) in [
            ("10s", Some(10)),
            ("2m40s", Some(160)),
            ("5m0s", Some(300)),
            ("1.5s", Some(1)),
            ("5h0m0s", None),
            ("x", None),
        ] {
            assert_eq!(back_off(&format!("back-off {text} restarting failed container=app")), seconds, "{text}");
        }
        assert_eq!(back_off("something else"), None);
    }

    #[test]
    fn a_pod_that_failed_and_is_not_restarted_is_told_by_the_app_that_ended_first() {
        let later = json!({"terminated": {
            "exitCode": 2, "reason": "Error", "startedAt": "1970-01-01T00:00:53Z", "finishedAt": "1970-01-01T00:20:00Z",
        }});
        let ended = json!({"terminated": end("Error", 1)});
        let status = json!({"containerStatuses": [
            container("b", 0, &later, &json!(null)), container("app", 0, &ended, &json!(null)),
        ]});
        assert_eq!(found(status.clone(), "Failed", "Never"), [run("app", Then::Failed { since: 1200 })]);
        assert_eq!(found(status.clone(), "Failed", "Always"), [], "a pod that is put out");
        let mut evicted = status;
        evicted["reason"] = json!("Evicted");
        assert_eq!(found(evicted, "Failed", "Never"), []);
    }

    #[test]
    fn other_sidecars_count_and_neither_the_proxy_nor_init_containers() {
        let init = |name: &str| {
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
            let containers = [container(name, 3, &waiting, &end("Error", 1))];
            found(json!({"initContainerStatuses": containers}), "Pending", "Always")
        };
        assert_eq!(init("logs"), [run("logs", Then::Waits { restart: 4, since: 60, wait: Some(0) })]);
        assert_eq!(init("migrate"), []);
        assert_eq!(init(CONTAINER), []);
    }
}
