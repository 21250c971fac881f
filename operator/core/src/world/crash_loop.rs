//! Detects app containers in a crash loop by the container statuses of a pod. Listeners are bound before the app
//! starts, so an app may crash because a listener holds a port that the app needs but no container declares.

use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::names::CONTAINER;

/// The longest start of a container, in seconds: one that runs for longer has started successfully.
const LONGEST_START: i64 = 60;
/// Exit codes after SIGKILL and SIGTERM (128 + signal).
const KILLED: [i32; 2] = [128 + 9, 128 + 15];

/// An app container in a crash loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashLoop {
    /// Name of the container.
    pub container: String,
    /// Exit code of the container's last run.
    pub exit_code: i32,
}

impl CrashLoop {
    /// The message for status: the state of the container and the remedy.
    pub(crate) fn words(&self) -> String {
        let Self { container, exit_code } = self;
        format!(
            "container {container} is in a crash loop (exit code {exit_code}): if its log says that an address is in \
             use, declare its ports in the pod template (containerPort, or the annotation portlane.dev/app-ports)"
        )
    }
}

/// The first app container that exited with an error and that kubelet has restarted before. Other sidecars count; init
/// containers, which run to completion, do not.
pub(crate) fn crash_loop(pod: &Pod) -> Option<CrashLoop> {
    let status = pod.status.as_ref().filter(|_| pod.metadata.deletion_timestamp.is_none())?;
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let is_sidecar = |name: &str| {
        init.clone().any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = status.init_container_statuses.iter().flatten().filter(|container| is_sidecar(&container.name));
    let containers = status.container_statuses.iter().flatten().chain(sidecars);
    containers.filter(|container| container.name != CONTAINER).find_map(of_container)
}

fn of_container(status: &ContainerStatus) -> Option<CrashLoop> {
    let state = status.state.as_ref().filter(|state| state.running.is_none())?;
    let last = state.terminated.as_ref().or_else(|| status.last_state.as_ref()?.terminated.as_ref())?;
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    let is_backoff = waiting.is_none_or(|reason| reason == "CrashLoopBackOff");
    let is_loop = status.restart_count > 0 && is_backoff && is_own_error(last) && !is_long(last);
    is_loop.then(|| CrashLoop { container: status.name.clone(), exit_code: last.exit_code })
}

/// Whether a container exited with an error of its own, not because of a signal, the OOM killer or a failed start.
fn is_own_error(end: &ContainerStateTerminated) -> bool {
    end.exit_code != 0 && !KILLED.contains(&end.exit_code) && end.reason.as_deref() == Some("Error")
}

/// Whether a container ran long enough not to have failed at its start.
fn is_long(end: &ContainerStateTerminated) -> bool {
    let second = |time: &Option<Time>| time.as_ref().map(|time| time.0.as_second());
    second(&end.started_at).zip(second(&end.finished_at)).is_some_and(|(start, end)| end - start > LONGEST_START)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(field: &str, containers: &[Value]) -> Option<CrashLoop> {
        let spec = json!({
            "containers": [{"name": "app"}],
            "initContainers": [
                {"name": "migrate"},
                {"name": CONTAINER, "restartPolicy": "Always"},
                {"name": "logs", "restartPolicy": "Always"},
            ],
        });
        let pod = json!({"spec": spec, "status": {field: containers}});
        crash_loop(&serde_json::from_value(pod).expect("a pod"))
    }

    fn container(name: &str, restarts: i32, state: &Value, reason: &str, exit_code: i32) -> Value {
        let end = json!({"exitCode": exit_code, "reason": reason});
        json!({
            "name": name, "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
            "lastState": {"terminated": end},
        })
    }

    #[test]
    fn an_app_that_is_restarted_after_an_error_of_its_own_is_in_a_crash_loop() {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let app = |restarts, state: &Value, reason, exit_code| {
            of("containerStatuses", &[container("app", restarts, state, reason, exit_code)]).map(|it| it.exit_code)
        };
        assert_eq!(app(1, &waiting, "Error", 3), Some(3));
        let pull = json!({"waiting": {"reason": "ImagePullBackOff"}});
        assert_eq!(app(1, &pull, "Error", 3), None, "the container waits for something else");
        let long = json!({"terminated": {
            "exitCode": 4, "reason": "Error", "startedAt": "1970-01-01T00:00:00Z", "finishedAt": "1970-01-01T00:01:01Z",
        }});
        assert_eq!(app(1, &long, "Error", 3), None, "the app has got past its start");
        let ended = json!({"terminated": {"exitCode": 4, "reason": "Error"}});
        assert_eq!(app(1, &ended, "Error", 3), Some(4), "some kubelets show the last exit while they wait");
        assert_eq!(app(0, &ended, "Error", 3), None, "the first exit is no loop");
        assert_eq!(app(9, &json!({"running": {}}), "Error", 3), None, "the app runs");
        for (reason, exit_code) in
            [("OOMKilled", 137), ("Error", 137), ("Error", 143), ("StartError", 128), ("Completed", 0)]
        {
            assert_eq!(app(1, &waiting, reason, exit_code), None, "{reason} {exit_code}");
        }
    }

    #[test]
    fn sidecars_count_and_neither_the_proxy_nor_init_containers() {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let named = |name| of("initContainerStatuses", &[container(name, 3, &waiting, "Error", 1)]);
        assert_eq!(named("logs"), Some(CrashLoop { container: "logs".to_owned(), exit_code: 1 }));
        assert_eq!(named("migrate"), None);
        assert_eq!(named(CONTAINER), None);
    }

    #[test]
    fn an_app_that_ran_for_a_minute_failed_at_its_start_and_one_that_ran_for_longer_did_not() {
        let ran = |finished: &str| {
            let end = json!({
                "exitCode": 4, "reason": "Error", "startedAt": "1970-01-01T00:01:00Z", "finishedAt": finished,
            });
            of("containerStatuses", &[container("app", 1, &json!({"terminated": end}), "Error", 4)]).is_some()
        };
        assert!(ran("1970-01-01T00:02:00Z") && !ran("1970-01-01T00:02:01Z"));
    }
}
