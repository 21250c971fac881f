//! Events: what is worth telling a person when something changes.

use std::collections::BTreeMap;

use crds::{BackendHealth, ListenerStatus, PortForward};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::world::{
    ObjectKey,
    cache::{Cache, Grown},
    subject::Subject,
};

/// Reason of the event that an autoscaler asks for more replicas.
const SCALED_OUT: &str = "ScaledOut";
/// Reason of the event that backends became unhealthy.
const BACKENDS_UNHEALTHY: &str = "BackendsUnhealthy";
/// Reason of the event that backends are healthy again.
const BACKENDS_HEALTHY: &str = "BackendsHealthy";
/// Reason of the event that a proxy ended before its sessions did.
const DRAIN_CUT: &str = "DrainCut";

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// The object that it is about.
    pub object: ObjectReference,
    /// A warning, or normal.
    pub warning: bool,
    /// Why, one word.
    pub reason: String,
    /// What happened, for a person.
    pub note: String,
}

impl Happened {
    /// Whether a notice is sent too: of warnings, and of fleets that grow.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        self.warning || self.reason == SCALED_OUT
    }
}

/// Why a new forward is not ready, if what it lacks may be on its way.
const COMING: [&str; 4] = ["GatewayNotFound", "BackendNotFound", "RefNotPermitted", "NoProxies"];

fn reference(kind: &str, metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", crds::GROUP, crds::VERSION)),
        kind: Some(kind.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The event of a forward that becomes ready or unready, or is unready for another reason. `reported` is what the last event
/// said: a status write that fails is made again, and is no news.
pub fn of_ready(
    forward: &PortForward,
    old: &[crds::Condition],
    new: &[crds::Condition],
    reported: &mut Option<(String, String)>,
) -> Option<Happened> {
    let ready =
        |conditions: &[crds::Condition]| conditions.iter().find(|condition| condition.type_ == "Ready").cloned();
    let now = ready(new)?;
    let before = ready(old);
    // What comes with a new forward may come after it: its status says so, and it is no news yet.
    let is_early = COMING.contains(&now.reason.as_str());
    if before.is_none() && is_early {
        return None;
    }
    if now.status == "Unknown"
        || before.is_some_and(|old| (old.status, old.reason) == (now.status.clone(), now.reason.clone()))
    {
        return None;
    }
    let news = Some((now.status.clone(), now.reason.clone()));
    if *reported == news {
        return None;
    }
    *reported = news;
    let object = reference("PortForward", &forward.metadata);
    Some(Happened { object, warning: now.status == "False", reason: now.reason, note: now.message })
}

/// The events of listeners whose backends become unhealthy, or healthy again. `reported` is what the last event of each
/// listener said.
pub fn of_backends(
    forward: &PortForward,
    new: &[ListenerStatus],
    reported: &mut BTreeMap<String, BackendHealth>,
) -> Vec<Happened> {
    let mut events = Vec::new();
    let old = forward.status.as_ref().map(|status| status.listeners.as_slice()).unwrap_or_default();
    for now in new {
        // What is told last counts, also while no proxy tells anything.
        let before = reported.get(&now.name).copied();
        let before = before.or_else(|| old.iter().find(|old| old.name == now.name).and_then(|old| old.backends));
        let (Some(now_is), before) = (now.backends, before.unwrap_or(BackendHealth::All)) else { continue };
        let rank = |health: BackendHealth| match health {
            BackendHealth::None => 0,
            BackendHealth::Some => 1,
            BackendHealth::All => 2,
        };
        reported.insert(now.name.clone(), now_is);
        if now_is == before {
            continue;
        }
        let warning = rank(now_is) < rank(before);
        let what = match now_is {
            BackendHealth::All => "every backend is healthy",
            BackendHealth::Some => "some backends are unhealthy; new sessions go to the others",
            BackendHealth::None => "no backend is healthy; new sessions try them all the same",
        };
        let reason = if warning { BACKENDS_UNHEALTHY } else { BACKENDS_HEALTHY };
        let note =
            format!("listener '{}': {what} (see the proxy's log and portlane_backend_endpoints_unhealthy)", now.name);
        let object = reference("PortForward", &forward.metadata);
        events.push(Happened { object, warning, reason: reason.to_owned(), note });
    }
    events
}

/// The event of a proxy that ended before its sessions did.
#[must_use]
pub fn of_cut(pod: &ObjectKey, cut: u64, cache: &Cache) -> Happened {
    let gateway = cache.pod(pod).and_then(|info| info.gateway.clone());
    let gateway = gateway.and_then(|name| cache.world.gateways.get(&ObjectKey::new(pod.namespace.clone(), name)));
    let object = match gateway {
        Some(gateway) => reference("ForwardGateway", &gateway.metadata),
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: cache.pod(pod).map(|info| info.uid.clone()),
            ..ObjectReference::default()
        },
    };
    let note = format!(
        "pod {} ended with {cut} session(s) that were still there at the end of its drain; if they should have more time, \
         raise drainSeconds (in a sidecar: the pod's terminationGracePeriodSeconds)",
        pod.name
    );
    Happened { object, warning: true, reason: DRAIN_CUT.to_owned(), note }
}

/// The event of an autoscaler that asks for more replicas.
#[must_use]
pub fn of_growth(Grown { subject, from, to }: &Grown, cache: &Cache) -> Option<Happened> {
    let object = match subject {
        Subject::Forward(key) => {
            cache.world.forwards.get(key).map(|forward| reference("PortForward", &forward.metadata))
        }
        Subject::Gateway(key) => cache.world.gateways.get(key).map(|it| reference("ForwardGateway", &it.metadata)),
    };
    let note = format!("the load asks for {to} replicas instead of {from}");
    Some(Happened { object: object?, warning: false, reason: SCALED_OUT.to_owned(), note })
}
