//! Apps that end with an error soon after their start, as the status of their pod tells.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use operator_core::{ShortRun, Then};

use crate::inject::CONTAINER;

/// The app of a pod that ended so; of several the one that came furthest.
pub(super) fn short_run(pod: &Pod) -> Option<ShortRun> {
    let status = pod.status.as_ref()?;
    // Other sidecars may listen too; plain init containers may need their doors, and end.
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let stays = |name: &str| {
        init.clone().any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
    };
    let apps = status.container_statuses.iter().flatten();
    let sidecars = status.init_container_statuses.iter().flatten().filter(|container| stays(&container.name));
    let others = apps.chain(sidecars).filter(|container| container.name != CONTAINER);
    let has_failed = status.phase.as_deref() == Some("Failed");
    let found = others.filter_map(|container| Some((container.restart_count, of(container, has_failed)?)));
    found.max_by_key(|(restarts, _)| *restarts).map(|(_, run)| run).filter(ShortRun::is_one)
}

fn of(status: &ContainerStatus, has_failed: bool) -> Option<ShortRun> {
    let state = status.state.as_ref()?;
    let ended = state.terminated.as_ref();
    let last = ended.or_else(|| status.last_state.as_ref()?.terminated.as_ref())?;
    // One that the machine ended, or that never ran, did not end of a port.
    if last.exit_code == 0 || last.reason.as_deref() != Some("Error") {
        return None;
    }
    let (from, to) = (last.started_at.as_ref()?.0.as_second(), last.finished_at.as_ref()?.0.as_second());
    let restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let then = match (&state.running, &state.waiting) {
        (Some(running), _) => Then::Runs(restarts, running.started_at.as_ref()?.0.as_second()),
        (_, Some(waiting)) if waiting.reason.as_deref() == Some("CrashLoopBackOff") => Then::Waits(restarts + 1),
        (_, Some(_)) => return None,
        _ if has_failed => Then::Failed(to),
        _ => Then::Waits(restarts + 1),
    };
    let seconds = u32::try_from(to - from).unwrap_or(0);
    Some(ShortRun { container: status.name.clone(), exit_code: last.exit_code, seconds, then })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(mut status: Value, phase: &str) -> Option<ShortRun> {
        status["phase"] = json!(phase);
        let spec = json!({
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "migrate"}, {"name": CONTAINER, "restartPolicy": "Always"}, {"name": "logs", "restartPolicy": "Always"}],
        });
        short_run(&serde_json::from_value(json!({"spec": spec, "status": status})).expect("a pod"))
    }

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

    #[test]
    fn apps_that_end_by_themselves_are_found() {
        let app = |restarts: i32, state: Value, ended: Value| {
            found(json!({"containerStatuses": [container("app", restarts, &state, &ended)]}), "Running")
        };
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let run = |then: Then| Some(ShortRun { container: "app".to_owned(), exit_code: 1, seconds: 7, then });
        assert_eq!(app(3, waiting("CrashLoopBackOff"), end("Error", 1)), run(Then::Waits(4)));
        assert_eq!(app(3, json!({"terminated": end("Error", 1)}), json!(null)), run(Then::Waits(4)));
        let running = json!({"running": {"startedAt": "1970-01-01T00:02:00Z"}});
        assert_eq!(app(3, running, end("Error", 1)), run(Then::Runs(3, 120)));
        assert_eq!(app(0, waiting("CrashLoopBackOff"), end("Error", 1)), None);
        assert_eq!(app(3, waiting("CrashLoopBackOff"), end("OOMKilled", 137)), None);
        assert_eq!(app(3, waiting("CrashLoopBackOff"), end("StartError", 128)), None);
        assert_eq!(app(3, waiting("CrashLoopBackOff"), end("Completed", 0)), None);
        assert_eq!(app(3, waiting("ImagePullBackOff"), end("Error", 1)), None);
    }

    #[test]
    fn a_pod_that_failed_is_not_restarted() {
        let ended = json!({"terminated": end("Error", 1)});
        let failed = found(json!({"containerStatuses": [container("app", 0, &ended, &json!(null))]}), "Failed");
        assert_eq!(failed.map(|run| run.then), Some(Then::Failed(60)));
    }

    #[test]
    fn other_sidecars_count_and_neither_the_proxy_nor_init_containers() {
        let init = |name: &str| {
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
            let containers = [container(name, 3, &waiting, &end("Error", 1))];
            found(json!({"initContainerStatuses": containers}), "Pending").map(|run| run.container)
        };
        assert_eq!(init("logs").as_deref(), Some("logs"));
        assert_eq!(init("migrate"), None);
        assert_eq!(init(CONTAINER), None);
    }
}
