//! The configuration that a proxy should run, and its reports on each listener.

use std::{collections::BTreeMap, sync::Arc};

use proxy_api::{Delivery, EndpointSet, Failure, FailureReason, ListenerId, Offer, Revision, Version};
use serde::Serialize;

use super::group_version;
use crate::{
    status::proxies::{Ack, ProxyState},
    translate::program::{Published, Snapshot},
    world::ObjectKey,
};

/// The proxy of a pod.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The pod.
    pub pod: ObjectKey,
    /// The snapshot that the proxy should run.
    pub snapshot: Arc<Snapshot>,
    /// The reports of the proxy. Absent if the proxy has no stream.
    pub state: Option<ProxyState>,
}

impl Configured {
    /// The response: a `ProxyConfig` as JSON.
    ///
    /// # Errors
    /// Never for these types.
    pub fn document(&self) -> Result<String, serde_json::Error> {
        let snapshot = &self.snapshot;
        let listeners: Vec<Item<'_>> = snapshot.listeners.iter().map(|(id, it)| self.item(id, it)).collect();
        let applied = self.state.as_ref().map(|state| state.applied);
        let is_applied = applied.is_some_and(|applied| applied >= snapshot.version.number);
        serde_json::to_string(&ProxyConfig {
            kind: "ProxyConfig",
            api_version: group_version(),
            metadata: Metadata { namespace: &self.pod.namespace, name: &self.pod.name },
            connected: self.state.is_some(),
            version: &snapshot.version,
            applied,
            in_force: is_applied && listeners.iter().all(|item| matches!(item.state, State::Bound)),
            listeners,
            endpoints: snapshot.endpoints.iter().map(|(name, set)| (name.as_str(), set)).collect(),
        })
    }

    fn item<'a>(&self, id: &'a ListenerId, Published { offer, since }: &'a Published) -> Item<'a> {
        let revision = offer.revision();
        let ack = self.state.as_ref().map_or(Ack::Pending, |state| state.ack(id, revision, *since));
        let (state, failure, serving) = match ack {
            Ack::Bound => (State::Bound, None, None),
            Ack::Pending => (State::Pending, None, None),
            Ack::Failed(Failure { reason, message, serving }) => {
                (State::Failed, Some(Reason { reason, message }), serving)
            }
        };
        let delivery = self.state.as_ref().and_then(|state| state.delivery(id));
        Item { id, revision, state, failure, serving, delivery, spec: offer }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyConfig<'a> {
    kind: &'static str,
    api_version: String,
    /// Namespace and name of the pod.
    metadata: Metadata<'a>,
    /// Whether the proxy has a stream.
    connected: bool,
    /// Version that the proxy should run.
    version: &'a Version,
    /// Number of the last version that the proxy has applied in this epoch. Absent without a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<u64>,
    /// Whether the proxy has applied the version, and every listener is bound as published.
    in_force: bool,
    listeners: Vec<Item<'a>>,
    endpoints: BTreeMap<&'a str, &'a EndpointSet>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    namespace: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Item<'a> {
    id: &'a ListenerId,
    revision: &'a Revision,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Reason>,
    /// The revision that keeps serving in place of a failed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    serving: Option<Revision>,
    /// The delivery state of a durable listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<Delivery>,
    spec: &'a Offer,
}

#[derive(Serialize)]
struct Reason {
    reason: FailureReason,
    message: String,
}

#[derive(Serialize)]
enum State {
    Bound,
    /// The proxy has not reported on this revision yet.
    Pending,
    Failed,
}
