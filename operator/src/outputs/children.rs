//! Applies the children of gateways: reads the existing objects, and executes the core's plan for them.

use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;
use tokio::time::timeout;

use operator_core::{
    ObjectKey,
    desired::{
        gateway::Desired,
        plan::{Found, Step, Taken, plan},
    },
    schedule::{LIMIT, children::Marks},
    world::child::{ChildKind, Mark},
};

use crate::platform::{deadline::RequestError, liveness::Heartbeat};

/// Why children could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of that name exists, and the gateway does not own it.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// A request failed.
    #[error("cannot apply {} {name}: {source}", .kind.as_str())]
    Api {
        /// Kind of the object.
        kind: ChildKind,
        /// Name of the object.
        name: String,
        /// Why the request failed.
        source: RequestError,
    },
    /// All requests together took too long.
    #[error("cannot apply the children within {} s: the API server is slow", LIMIT.as_secs())]
    Slow,
}

/// Applies all children of one gateway. Returns the marks of the applied children.
///
/// # Errors
/// See [`ApplyError`]; the steps before the failed one are done.
pub async fn apply(client: &Client, desired: &Desired, heartbeat: &Heartbeat) -> Result<Marks, ApplyError> {
    timeout(LIMIT, execute(client, desired, heartbeat)).await.unwrap_or(Err(ApplyError::Slow))
}

async fn execute(client: &Client, desired: &Desired, heartbeat: &Heartbeat) -> Result<Marks, ApplyError> {
    let place = |kind| Place::of((client, heartbeat), kind, &desired.key);
    let mut found = Found::new();
    for kind in ChildKind::of_gateway(&desired.gateway) {
        if let Some(object) = place(kind).read().await? {
            found.insert(kind, object);
        }
    }
    let plan = plan(desired, &found);
    let mut marks = Marks::new();
    for step in &plan.steps {
        match step {
            Step::Apply { kind, manager, manifest } => {
                let applied = place(*kind).apply(manager, manifest).await?;
                marks.insert(*kind, Mark::of(&applied.metadata));
            }
            Step::Remove { kind, uid } => place(*kind).remove(uid).await?,
        }
    }
    plan.taken.map_or(Ok(marks), |taken| Err(taken.into()))
}

/// API and name of one child.
struct Place<'a> {
    api: Api<DynamicObject>,
    kind: ChildKind,
    name: String,
    heartbeat: &'a Heartbeat,
}

impl<'a> Place<'a> {
    fn of((client, heartbeat): (&Client, &'a Heartbeat), kind: ChildKind, key: &ObjectKey) -> Self {
        let (group, version) = kind.group_and_version();
        let kinds = GroupVersionKind::gvk(group, version, kind.as_str());
        let resource = ApiResource::from_gvk_with_plural(&kinds, kind.plural());
        let api = Api::namespaced_with(client.clone(), &key.namespace, &resource);
        Self { api, kind, name: key.name.clone(), heartbeat }
    }

    fn failed(&self, source: RequestError) -> ApplyError {
        ApplyError::Api { kind: self.kind, name: self.name.clone(), source }
    }

    async fn read(&self) -> Result<Option<DynamicObject>, ApplyError> {
        self.heartbeat.answer(self.api.get_opt(&self.name)).await.map_err(|error| self.failed(error))
    }

    async fn apply(&self, manager: &str, manifest: &Value) -> Result<DynamicObject, ApplyError> {
        let parameters = PatchParams::apply(manager).force();
        let patch = Patch::Apply(manifest);
        self.heartbeat.answer(self.api.patch(&self.name, &parameters, &patch)).await.map_err(|error| self.failed(error))
    }

    /// Deletes the object. A missing object counts as deleted.
    async fn remove(&self, uid: &str) -> Result<(), ApplyError> {
        let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match self.heartbeat.answer(self.api.delete(&self.name, &parameters)).await {
            Err(error) if error.code() == Some(404) => Ok(()),
            other => other.map(drop).map_err(|error| self.failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use crds::{ForwardGateway, ForwardGatewaySpec};
    use kube::Config;
    use operator_core::desired::{ca::Trusted, gateway::Fleets};
    use tokio::net::TcpListener;

    use super::*;
    use crate::platform::liveness::Liveness;

    // C4
    #[tokio::test]
    async fn each_request_is_a_sign_of_life() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
        config.root_cert = Some(Vec::new());
        let client = Client::try_from(config).expect("a client");
        let desired = Desired {
            key: ObjectKey::new("ns", "edge"),
            gateway: ForwardGateway::new("edge", ForwardGatewaySpec::default()),
            fleets: Fleets::default(),
            keeps_pods: false,
            trusted: Trusted::default(),
            ports: BTreeSet::new(),
            attempt: 1,
        };
        let (liveness, heartbeat) = Liveness::with_silent("work on children", Duration::from_secs(60));
        assert!(liveness.complaint().is_some());
        apply(&client, &desired, &heartbeat).await.expect_err("nobody answers");
        assert_eq!(liveness.complaint(), None);
    }
}
