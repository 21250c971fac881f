//! `kubectl portlane drain`: what draining a forward or a pod does, and how far it has come.

use crds::{OnUpdate, PortForward};
use k8s_openapi::api::core::v1::Pod;
use operator_core::names::PROXY_LABEL;

use crate::{
    access::Fetched,
    live::{SessionList, unanswered},
    placement::key,
    units::count,
};

/// Grace period of pods that name none, in seconds.
const GRACE: i64 = 30;
/// `sessions.drainSeconds` of forwards that name none.
const DRAIN: u32 = 300;

/// How far a drain has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is left.
    Waiting(String),
    /// How it ended.
    Done(String),
}

/// What draining a forward with this many sessions does, for the question whether to do it.
pub fn forward_plan(forward: &PortForward, sessions: u64) -> String {
    let policy = forward.spec.sessions.as_ref();
    let rest = match policy.and_then(|policy| policy.on_update) {
        None | Some(OnUpdate::Keep) => "continue until they end (sessions.onUpdate: Keep)".to_owned(),
        Some(OnUpdate::Drain) => {
            let seconds = policy.and_then(|policy| policy.drain_seconds).unwrap_or(DRAIN);
            format!("are closed within {seconds} s (sessions.onUpdate: Drain)")
        }
        Some(OnUpdate::Close) => "are reset at once (sessions.onUpdate: Close)".to_owned(),
    };
    let (key, sessions) = (key(forward), count(sessions, "session"));
    format!(
        "spec.suspend of PortForward {key} closes its ports. UDP flows end, and TCP sessions {rest}; {sessions} now."
    )
}

/// What draining a pod with this many sessions does; `None` if the pod has no proxy.
pub fn pod_plan(pod: &Pod, sessions: u64) -> Option<String> {
    let role = pod.metadata.labels.as_ref()?.get(PROXY_LABEL)?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name));
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(GRACE);
    let sessions = count(sessions, "session");
    let application =
        if role == "gateway" { "" } else { " The proxy is a sidecar: the application in the pod ends too." };
    Some(format!("Evicting pod {name} with {sessions}: they may run on for no longer than {grace} s.{application}"))
}

/// How far a forward has come that is suspended.
pub fn forward(forward: &PortForward, sessions: &Fetched<SessionList>) -> Progress {
    let status = forward.status.clone().unwrap_or_default();
    if status.observed_generation != forward.metadata.generation {
        return Progress::Waiting("the operator has not read spec.suspend yet".to_owned());
    }
    if let Some(plane) = status.data_plane.filter(|plane| plane.acked < plane.total) {
        let open = count(u64::from(plane.total - plane.acked), "proxy pod");
        return Progress::Waiting(format!("{open} may still listen"));
    }
    match left(sessions) {
        Ok(0) => Progress::Done("the ports are closed, and no session is left".to_owned()),
        Ok(left) => Progress::Waiting(format!("the ports are closed, {} left", count(left, "session"))),
        Err(why) => Progress::Waiting(why),
    }
}

/// How far a pod has come that was evicted. `uid` is the pod's: a new pod may have its name.
pub fn pod(uid: Option<&str>, found: &Fetched<Option<Pod>>, sessions: &Fetched<SessionList>) -> Progress {
    match found {
        Err(why) => Progress::Waiting(why.to_string()),
        Ok(Some(pod)) if pod.metadata.uid.as_deref() == uid => Progress::Waiting(match left(sessions) {
            Ok(left) => format!("{} left", count(left, "session")),
            Err(why) => why,
        }),
        Ok(_) => Progress::Done("the pod is gone".to_owned()),
    }
}

/// Sessions that are left, or why nobody knows.
fn left(sessions: &Fetched<SessionList>) -> Result<u64, String> {
    let list = sessions.as_ref().map_err(ToString::to_string)?;
    match unanswered(&list.unanswered) {
        Some(note) => Err(note),
        None => Ok(list.total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Unknown;

    fn suspended(more: &str, observed: i64, acked: u32) -> PortForward {
        let text = format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db, namespace: shop, generation: 2}}, \
             spec: {{suspend: true, placement: {{gateway: {{name: edge}}}}, listeners: []{more}}}, \
             status: {{observedGeneration: {observed}, dataPlane: {{acked: {acked}, total: 2, summary: x, rejectedCount: 0}}}}}}"
        );
        serde_yaml::from_str(&text).expect("a forward")
    }

    #[allow(clippy::unnecessary_wraps, reason = "the form that the core takes")]
    fn sessions(total: u64, unanswered: &[&str]) -> Fetched<SessionList> {
        let unanswered = unanswered.iter().map(|pod| (*pod).to_owned()).collect();
        Ok(SessionList { total, unanswered, ..SessionList::default() })
    }

    #[test]
    fn a_forward_is_drained_once_all_ports_are_closed_and_every_proxy_has_no_session() {
        let waiting = |text: &str| Progress::Waiting(text.to_owned());
        let none = sessions(0, &[]);
        assert_eq!(forward(&suspended("", 1, 2), &none), waiting("the operator has not read spec.suspend yet"));
        assert_eq!(forward(&suspended("", 2, 1), &none), waiting("1 proxy pod may still listen"));
        let closed = suspended("", 2, 2);
        assert_eq!(forward(&closed, &sessions(3, &[])), waiting("the ports are closed, 3 sessions left"));
        assert_eq!(forward(&closed, &sessions(0, &["shop/p"])), waiting("the proxy of pod shop/p has not answered"));
        assert!(matches!(forward(&closed, &Err(Unknown::NotInstalled)), Progress::Waiting(_)));
        assert!(matches!(forward(&closed, &none), Progress::Done(_)));
    }

    #[test]
    fn the_plan_says_what_becomes_of_sessions() {
        let plan = |more: &str| forward_plan(&suspended(more, 2, 2), 3);
        assert!(
            plan("").contains("TCP sessions continue until they end (sessions.onUpdate: Keep); 3 sessions now"),
            "{}",
            plan("")
        );
        assert!(plan(", sessions: {onUpdate: Close}").contains("reset at once"));
        assert!(plan(", sessions: {onUpdate: Drain, drainSeconds: 7}").contains("closed within 7 s"));
    }

    fn evicted(role: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u1".to_owned());
        pod.metadata.name = Some("p".to_owned());
        pod.metadata.labels = role.map(|role| [(PROXY_LABEL.to_owned(), role.to_owned())].into());
        pod
    }

    #[test]
    fn a_pod_is_drained_once_it_is_gone_or_another_pod_has_its_name() {
        let none = sessions(0, &[]);
        assert_eq!(pod(Some("u1"), &Ok(Some(evicted(None))), &none), Progress::Waiting("0 sessions left".to_owned()));
        assert!(matches!(pod(Some("u0"), &Ok(Some(evicted(None))), &none), Progress::Done(_)));
        assert!(matches!(pod(Some("u1"), &Ok(None), &none), Progress::Done(_)));
    }

    #[test]
    fn a_pod_without_a_proxy_has_no_plan_and_a_sidecar_takes_its_application_along() {
        assert_eq!(pod_plan(&evicted(None), 1), None);
        let plan = |role: &str| pod_plan(&evicted(Some(role)), 1).unwrap_or_default();
        assert!(plan("gateway").contains("1 session") && !plan("gateway").contains("application"));
        assert!(plan("sidecar").contains("the application in the pod ends too"));
    }
}
