//! What is told when something becomes other than it was.

use std::collections::BTreeMap;

use crds::{BackendHealth, ListenerStatus, PortForward};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use operator_core::ObjectKey;

use crate::{
    cache::{Cache, Grown},
    events::{BACKENDS_HEALTHY, BACKENDS_UNHEALTHY, DRAIN_CUT, Events, Happened, SCALED_OUT},
    status_writer::Subject,
};

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

/// Tells when a forward becomes ready, or is no more, or for another reason.
pub(super) fn of_ready(
    events: &Events,
    forward: &PortForward,
    old: &[crds::Condition],
    new: &[crds::Condition],
    told: &mut Option<(String, String)>,
) {
    let ready =
        |conditions: &[crds::Condition]| conditions.iter().find(|condition| condition.type_ == "Ready").cloned();
    let Some(now) = ready(new) else { return };
    let before = ready(old);
    // What comes with a new forward may come after it: its status says so, and it is no news yet.
    let is_early = COMING.contains(&now.reason.as_str());
    if before.is_none() && is_early {
        return;
    }
    if now.status == "Unknown"
        || before.is_some_and(|old| (old.status, old.reason) == (now.status.clone(), now.reason.clone()))
    {
        return;
    }
    let news = Some((now.status.clone(), now.reason.clone()));
    if *told == news {
        return;
    }
    *told = news;
    let object = reference("PortForward", &forward.metadata);
    events.tell(Happened { object, warning: now.status == "False", reason: now.reason, note: now.message });
}

/// Tells when backends of a listener become unhealthy, and when they are healthy again.
pub(super) fn of_backends(
    events: &Events,
    forward: &PortForward,
    new: &[ListenerStatus],
    told: &mut BTreeMap<String, BackendHealth>,
) {
    let old = forward.status.as_ref().map(|status| status.listeners.as_slice()).unwrap_or_default();
    for now in new {
        // What is told last counts, also while no proxy tells anything.
        let before = told.get(&now.name).copied();
        let before = before.or_else(|| old.iter().find(|old| old.name == now.name).and_then(|old| old.backends));
        let (Some(now_is), before) = (now.backends, before.unwrap_or(BackendHealth::All)) else { continue };
        let rank = |health: BackendHealth| match health {
            BackendHealth::None => 0,
            BackendHealth::Some => 1,
            BackendHealth::All => 2,
        };
        told.insert(now.name.clone(), now_is);
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
        events.tell(Happened { object, warning, reason: reason.to_owned(), note });
    }
}

/// Tells when a proxy ended before its sessions did.
pub(super) fn of_cut(events: &Events, pod: &ObjectKey, cut: u64, cache: &Cache) {
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
    events.tell(Happened { object, warning: true, reason: DRAIN_CUT.to_owned(), note });
}

/// Tells when an autoscaler asks for more replicas.
pub(super) fn of_growth(events: &Events, Grown { subject, from, to }: &Grown, cache: &Cache) {
    let object = match subject {
        Subject::Forward(key) => {
            cache.world.forwards.get(key).map(|forward| reference("PortForward", &forward.metadata))
        }
        Subject::Gateway(key) => cache.world.gateways.get(key).map(|it| reference("ForwardGateway", &it.metadata)),
    };
    let Some(object) = object else { return };
    let note = format!("the load asks for {to} replicas instead of {from}");
    events.tell(Happened { object, warning: false, reason: SCALED_OUT.to_owned(), note });
}
