//! Watches that only show drift of gateways' children: metadata alone, and only of objects that this operator created.

use std::fmt::Debug;

use kube::{Resource, api::PartialObjectMeta, core::NamespaceResourceScope, runtime::watcher::watcher};
use serde::de::DeserializeOwned;

use super::{Task, config};
use operator_core::world::{child::ChildKind, read};

/// Watches the children of one kind.
pub(super) async fn run<K>(task: &Task, kind: ChildKind)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (api, ours) = (task.api::<PartialObjectMeta<K>>(), config().labels(&task.managed()));
    task.follow(|| watcher(api.clone(), ours.clone()), |it| read::child(kind, &it.metadata)).await;
}
