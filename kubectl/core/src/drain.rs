//! `kubectl portlane drain`: the effect of draining a forward or a pod, and its progress.

use crds::{OnUpdate, PortForward};
use k8s_openapi::api::core::v1::Pod;
use operator_core::{ObjectKey, names::PROXY_LABEL};
use serde::Serialize;

use crate::{
    access::Fetched,
    live::{Of, SessionList, unanswered},
    placement::key,
    units::count,
};

/// Grace period of pods that name none, in seconds.
const GRACE: i64 = 30;
/// `sessions.drainSeconds` of forwards that name none.
const DRAIN: u32 = 300;

/// The state of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// The drain continues.
    Waiting,
    /// The drain is complete.
    Done,
    /// The time that the user allows is over, and the drain is not complete.
    TimedOut,
}

/// The progress of a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The state of the drain.
    pub state: State,
    /// The remaining work, or how the drain ended.
    pub detail: String,
    /// The number of remaining live sessions. Absent: they were not counted, or not all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
}

impl Progress {
    /// The progress of a drain with an unknown number of remaining sessions.
    pub fn waiting(detail: impl Into<String>) -> Self {
        Self { state: State::Waiting, detail: detail.into(), sessions: None }
    }

    fn counted(detail: String, sessions: u64) -> Self {
        Self { sessions: Some(sessions), ..Self::waiting(detail) }
    }

    fn done(detail: &str, sessions: Option<u64>) -> Self {
        Self { state: State::Done, detail: detail.to_owned(), sessions }
    }

    /// Turns the progress into that of a drain whose time is over.
    #[must_use]
    pub fn too_late(self) -> Self {
        Self { state: State::TimedOut, ..self }
    }
}

/// Progress of an object's drain, as one record of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Kind of the object.
    pub kind: &'static str,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Progress of the drain.
    #[serde(flatten)]
    pub progress: Progress,
}

impl Record {
    /// The record of an object.
    pub fn new(of: &Of, progress: Progress) -> Self {
        let (kind, ObjectKey { namespace, name }) = match of {
            Of::Forward(key) => ("PortForward", key.clone()),
            Of::Pod(key) => ("Pod", key.clone()),
        };
        Self { kind, namespace, name, progress }
    }
}

/// Formats the object for a sentence.
pub fn object(of: &Of) -> String {
    match of {
        Of::Forward(key) => format!("PortForward {key}"),
        Of::Pod(key) => format!("pod {key}"),
    }
}

/// Describes the effect of draining a forward with this many sessions, for the user's confirmation.
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

/// Describes the effect of draining a pod with this many sessions; `None` if the pod has no proxy.
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

/// The progress of a suspended forward.
pub fn forward(forward: &PortForward, sessions: &Fetched<SessionList>) -> Progress {
    let status = forward.status.clone().unwrap_or_default();
    if status.observed_generation != forward.metadata.generation {
        return Progress::waiting("the operator has not read spec.suspend yet");
    }
    if let Some(plane) = status.data_plane.filter(|plane| plane.acked < plane.total) {
        let open = count(u64::from(plane.total - plane.acked), "proxy pod");
        return Progress::waiting(format!("{open} may still listen"));
    }
    match left(sessions) {
        Ok(0) => Progress::done("the ports are closed, and no session is left", Some(0)),
        Ok(left) => Progress::counted(format!("the ports are closed, {} left", count(left, "session")), left),
        Err(why) => Progress::waiting(why),
    }
}

/// The progress of an evicted pod. `uid` is the pod's: a new pod may have its name.
pub fn pod(uid: Option<&str>, found: &Fetched<Option<Pod>>, sessions: &Fetched<SessionList>) -> Progress {
    match found {
        Err(why) => Progress::waiting(why.to_string()),
        Ok(Some(pod)) if pod.metadata.uid.as_deref() == uid => match left(sessions) {
            Ok(left) => Progress::counted(format!("{} left", count(left, "session")), left),
            Err(why) => Progress::waiting(why),
        },
        Ok(_) => Progress::done("the pod is gone", None),
    }
}

/// The number of remaining sessions, or why it is unknown.
fn left(sessions: &Fetched<SessionList>) -> Result<u64, String> {
    let list = sessions.as_ref().map_err(ToString::to_string)?;
    match unanswered(&list.unanswered) {
        Some(note) => Err(note),
        None => Ok(list.total),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let waiting = |text: &str| Progress::waiting(text);
        let none = sessions(0, &[]);
        assert_eq!(forward(&suspended("", 1, 2), &none), waiting("the operator has not read spec.suspend yet"));
        assert_eq!(forward(&suspended("", 2, 1), &none), waiting("1 proxy pod may still listen"));
        let closed = suspended("", 2, 2);
        assert_eq!(
            forward(&closed, &sessions(3, &[])),
            Progress::counted("the ports are closed, 3 sessions left".to_owned(), 3)
        );
        assert_eq!(forward(&closed, &sessions(0, &["shop/p"])), waiting("the proxy of pod shop/p has not answered"));
        assert_eq!(forward(&closed, &Err(Unknown::NotInstalled)).state, State::Waiting);
        let done = forward(&closed, &none);
        assert_eq!((done.state, done.sessions), (State::Done, Some(0)));
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

    #[test]
    fn a_record_for_programs_has_the_object_and_what_is_left() {
        let of = Of::Forward(ObjectKey::new("shop", "db"));
        let json = |progress: Progress| serde_json::to_value(Record::new(&of, progress)).expect("JSON");
        let left = Progress::counted("the ports are closed, 3 sessions left".to_owned(), 3);
        let mut expected = json!({
            "kind": "PortForward", "namespace": "shop", "name": "db",
            "state": "Waiting", "detail": "the ports are closed, 3 sessions left", "sessions": 3,
        });
        assert_eq!(json(left.clone()), expected);
        expected["state"] = json!("TimedOut");
        assert_eq!(json(left.too_late()), expected, "the end has what is left");
        let gone = Record::new(&Of::Pod(ObjectKey::new("shop", "p")), Progress::done("the pod is gone", None));
        let gone = serde_json::to_value(gone).expect("JSON");
        assert_eq!((&gone["kind"], &gone["state"]), (&json!("Pod"), &json!("Done")));
        assert!(gone.get("sessions").is_none(), "nobody has counted: {gone}");
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
        let left = pod(Some("u1"), &Ok(Some(evicted(None))), &none);
        assert_eq!(left, Progress::counted("0 sessions left".to_owned(), 0));
        assert_eq!(pod(Some("u0"), &Ok(Some(evicted(None))), &none).state, State::Done);
        assert_eq!(pod(Some("u1"), &Ok(None), &none).state, State::Done);
    }

    #[test]
    fn a_pod_without_a_proxy_has_no_plan_and_a_sidecar_takes_its_application_along() {
        assert_eq!(pod_plan(&evicted(None), 1), None);
        let plan = |role: &str| pod_plan(&evicted(Some(role)), 1).unwrap_or_default();
        assert!(plan("gateway").contains("1 session") && !plan("gateway").contains("application"));
        assert!(plan("sidecar").contains("the application in the pod ends too"));
    }

    #[test]
    fn an_object_is_named_with_its_kind() {
        let key = || ObjectKey::new("shop", "db");
        assert_eq!(object(&Of::Forward(key())), "PortForward shop/db");
        assert_eq!(object(&Of::Pod(key())), "pod shop/db");
    }
}
