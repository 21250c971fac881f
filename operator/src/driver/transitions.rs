//! What is told when something becomes other than it was.

use crds::PortForward;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use crate::{
    cache::{Cache, Grown},
    events::{Events, Happened, SCALED_OUT},
    status_writer::Subject,
};

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
pub(super) fn of_ready(events: &Events, forward: &PortForward, old: &[crds::Condition], new: &[crds::Condition]) {
    let ready =
        |conditions: &[crds::Condition]| conditions.iter().find(|condition| condition.type_ == "Ready").cloned();
    let Some(now) = ready(new) else { return };
    let before = ready(old);
    // A new forward that is not ready yet has its status to say so.
    if now.status != "True" && before.is_none() {
        return;
    }
    if now.status == "Unknown"
        || before.is_some_and(|old| (old.status, old.reason) == (now.status.clone(), now.reason.clone()))
    {
        return;
    }
    let object = reference("PortForward", &forward.metadata);
    events.tell(Happened { object, warning: now.status == "False", reason: now.reason, note: now.message });
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
